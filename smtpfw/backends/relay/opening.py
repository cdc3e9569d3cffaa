"""
A transaction at the next hop: which of several hops takes it, on which connection.

Rule 1: hops are tried in their order until MAIL has been accepted by one. From
then on a message belongs to that one: it is never said to two.

Rule 2: a hop that has failed is tried last for a while, so that not every
message waits for it again. One that is slow leaves some time for the others.

Rule 3: a connection that a pool had kept may have ended meanwhile, and only
MAIL shows it: so it has a second chance, and a connection that is new has not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, TimeoutError

from smtpfw.backends.relay.answers import answer_of, is_ours
from smtpfw.backends.relay.ourselves import loop_error
from smtpfw.backends.relay.parameters import for_mail
from smtpfw.backends.relay.promises import is_broken
from smtpfw.client import Connector, Pool, Pools, SMTPClientProtocol
from smtpfw.errors import (
    ClientError,
    ConfigError,
    ConnectionFailed,
    ExtensionMissing,
    LocalProtocolError,
    Refused,
    SMTPError,
    TimedOut,
)
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply

__all__ = ["NextHop", "Openings", "Wanted", "label"]

#: Seconds for which a hop that has failed is tried behind the others. Postfix minimal_backoff_time 300.
AVOIDED_FOR = 300.0

#: How many hops that have failed are remembered.
MAX_REMEMBERED = 1000

#: Seconds that the end waits for all that is under way: transactions, attempts to open one, answers to QUIT. Whoever
#: ends a server has given them a time of grace already.
CLOSING_TIME = 10.0

#: Called with what went wrong at a hop, and its name.
Report = Callable[[Exception, str], None]

#: Whether a next hop is ourselves.
IsUs = Callable[[Connector, SMTPClientProtocol], bool]


class Wanted(NamedTuple):
    """
    A transaction that a client of ours has begun.

    :ivar arrived: when MAIL came to us, by the clock.
    """

    sender: Address
    options: Options
    arrived: float


class NextHop:
    """
    A transaction that is open at a next hop.

    :ivar client: where to say the rest.
    :ivar reply: to MAIL.
    :ivar name: whom it belongs to, for logs.
    """

    __slots__ = ("_pool", "client", "name", "reply")

    def __init__(self, client: SMTPClientProtocol, reply: Reply, name: str, pool: Pool) -> None:
        self.client = client
        self.reply = reply
        self.name = name
        self._pool = pool

    def leave(self) -> None:
        """It is over; whatever is open there is reset."""
        self._pool.release(self.client)


def label(connector: Connector) -> str:
    """A hop, for logs."""
    text = connector.destination.text
    return text if not connector.name or connector.name in text else f"{connector.name} ({text})"


class Openings:
    """
    :param pools: have connections; they are closed by :meth:`close`.
    :param clock: tells the time.
    :param timeout: seconds until MAIL has been accepted by a hop, all attempts together; 0 for no limit.
    """

    def __init__(self, pools: Pools, clock: Any, timeout: float) -> None:
        self._pools = pools
        self._clock = clock
        self._timeout = timeout
        self._failed: dict[Connector, float] = {}

    async def open(self, connectors: Iterable[Connector], wanted: Wanted, report: Report, is_us: IsUs) -> NextHop:
        """
        Say MAIL to the first hop that takes it.

        :param connectors: the hops, in their order; at least one.
        :param wanted: what MAIL says.
        :param report: hears what the operator should.
        :param is_us: is asked of each hop; mail that comes back to us would never end.
        :raises SMTPError: what the sender is to be told.
        """
        attempt = _Attempt(self, wanted, report, is_us)
        hops = self._in_order(connectors)
        answers: list[SMTPError] = []
        end = self._clock.seconds() + self._timeout
        for left, connector in zip(range(len(hops), 0, -1), hops, strict=True):
            try:
                return await self._within((end - self._clock.seconds()) / left, attempt.begin(connector), connector)
            except (ClientError, LocalProtocolError, ConfigError) as error:
                if is_ours(error):
                    report(error, label(connector))
                    self._avoid(connector)
                elif is_broken(error):
                    report(error, label(connector))
                answer = answer_of(error)
                if not (answer.temporary or isinstance(error, ExtensionMissing)):
                    # The hop speaks of the message, and others would say the same.
                    raise answer from error
                answers.append(answer)
        # Where one may take it later, the sender shall ask again.
        raise next((answer for answer in answers if answer.temporary), answers[-1])

    async def close(self) -> None:
        """Say goodbye to all hops; transactions under way have a little time to end."""
        late = self._clock.callLater(CLOSING_TIME, self._pools.abort)
        try:
            await self._pools.close()
        finally:
            if late.active():
                late.cancel()

    def since(self, moment: float) -> float:
        """Seconds since a moment of the clock."""
        passed: float = self._clock.seconds() - moment
        return max(passed, 0.0)

    def pool(self, connector: Connector) -> Pool:
        """The connections to a hop."""
        return self._pools.of(connector)

    def opened(self, connector: Connector, pool: Pool, client: SMTPClientProtocol, reply: Reply) -> NextHop:
        """A hop has taken it."""
        self._failed.pop(connector, None)
        return NextHop(client, reply, label(connector), pool)

    async def _within(self, seconds: float, opening: Coroutine[Any, Any, NextHop], connector: Connector) -> NextHop:
        if not self._timeout:
            return await opening
        try:
            return await Deferred.fromCoroutine(opening).addTimeout(max(seconds, 0.0), self._clock)
        except TimeoutError:
            late = f"MAIL has not been accepted within {seconds:g} seconds"
            raise TimedOut(late, phase="MAIL", peer=label(connector)) from None

    def _avoid(self, connector: Connector) -> None:
        if len(self._failed) >= MAX_REMEMBERED:
            self._failed.clear()
        self._failed[connector] = self._clock.seconds()

    def _in_order(self, connectors: Iterable[Connector]) -> list[Connector]:
        """Those that have failed of late behind the others."""
        since = self._clock.seconds() - AVOIDED_FOR
        return sorted(connectors, key=lambda connector: self._failed.get(connector, since) > since)


class _Attempt:
    """One MAIL, which is said to one hop after another."""

    def __init__(self, openings: Openings, wanted: Wanted, report: Report, is_us: IsUs) -> None:
        self._openings = openings
        self._wanted = wanted
        self._report = report
        self._is_us = is_us

    async def begin(self, connector: Connector) -> NextHop:
        """Say it to one hop."""
        pool = self._openings.pool(connector)
        client = await pool.acquire()
        is_fresh = pool.is_fresh(client)
        try:
            return await self._say_mail(pool, client, connector)
        except (Refused, ConnectionFailed) as error:
            if is_fresh or not _is_stale(error):
                raise
        return await self._say_mail(pool, await pool.acquire(), connector)

    async def _say_mail(self, pool: Pool, client: SMTPClientProtocol, connector: Connector) -> NextHop:
        try:
            if self._is_us(connector, client):
                loop = loop_error()
                self._report(loop, label(connector))
                raise loop
            wanted = self._wanted
            passed = self._openings.since(wanted.arrived)
            reply = await client.mail(wanted.sender, for_mail(wanted.options, client, passed))
        except BaseException:
            pool.release(client)
            raise
        return self._openings.opened(connector, pool, client, reply)


def _is_stale(error: ClientError) -> bool:
    """Whether the connection had ended before MAIL was said, as a peer may end one that nobody has used for long."""
    return type(error) is ConnectionFailed or (isinstance(error, Refused) and error.code == 421)
