"""
A transaction at the next hop: which of several hops takes it, on which connection.

Rule 1: hops are tried in their order until MAIL has been accepted by one. From
then on a message belongs to that one: it is never said to two.

Rule 2: a hop that has failed is tried last for a while, so that not every
message waits for it again.

Rule 3: a connection that a pool had kept may have ended meanwhile, and only
MAIL shows it: so each hop has a second chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError

from smtpfw.backends.relay.answers import answer_of, is_ours
from smtpfw.backends.relay.parameters import for_mail
from smtpfw.client import Connector, SMTPClientProtocol
from smtpfw.client.pool import Pool
from smtpfw.client.pools import Pools
from smtpfw.errors import (
    ClientError,
    ConfigError,
    ConnectionFailed,
    ExtensionMissing,
    ForwardingFailed,
    LocalProtocolError,
    Refused,
    SMTPError,
    TimedOut,
)
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply

__all__ = ["NextHop", "Openings", "label"]

#: Seconds for which a hop that has failed is tried behind the others.
AVOIDED_FOR = 60.0

#: How many hops that have failed are remembered.
MAX_REMEMBERED = 1000

#: Called with what went wrong at a hop, and its name.
Report = Callable[[Exception, str], None]


@dataclass(frozen=True, slots=True)
class NextHop:
    """
    A transaction that is open at a next hop.

    :ivar client: where to say the rest.
    :ivar reply: to MAIL.
    :ivar name: whom it belongs to, for logs.
    """

    client: SMTPClientProtocol
    reply: Reply
    name: str
    _pool: Pool

    def leave(self) -> None:
        """It is over; whatever is open there is reset."""
        self._pool.release(self.client)


def label(connector: Connector) -> str:
    """A hop, for logs."""
    text = connector.destination.text
    return text if not connector.name or connector.name in text else f"{connector.name} ({text})"


class Openings:
    """
    :param pools: have connections.
    :param clock: gives who tells the time.
    :param timeout: seconds until MAIL has been accepted by a hop, all attempts together.
    """

    def __init__(self, pools: Pools, clock: Callable[[], Any], timeout: float) -> None:
        self._pools = pools
        self._clock = clock
        self._timeout = timeout
        self._failed: dict[Connector, float] = {}

    async def open(
        self,
        connectors: Iterable[Connector],
        sender: Address,
        options: Options,
        report: Report,
        own_name: str = "",
    ) -> NextHop:
        """
        Say MAIL to the first hop that takes it.

        :param connectors: the hops, in their order; at least one.
        :param report: hears what the operator should.
        :param own_name: a hop that calls itself so is ourselves.
        :raises SMTPError: what the sender is to be told.
        """
        hops = self._in_order(connectors)
        opening = Deferred.fromCoroutine(self._open(hops, sender, options, report, own_name))
        opening.addTimeout(self._timeout, self._clock())
        try:
            return await opening
        except TimeoutError:
            late = TimedOut(f"no next hop has accepted MAIL within {self._timeout:g} seconds", phase="MAIL")
            report(late, ", ".join(map(label, hops)))
            raise ForwardingFailed from None

    async def _open(
        self, connectors: list[Connector], sender: Address, options: Options, report: Report, own_name: str
    ) -> NextHop:
        errors: list[SMTPError] = []
        for connector in connectors:
            try:
                hop = await self._try(connector, sender, options, report, own_name)
            except (ClientError, LocalProtocolError, ConfigError) as error:
                if is_ours(error):
                    report(error, label(connector))
                    self._avoid(connector)
                answer = answer_of(error)
                if not (answer.temporary or isinstance(error, ExtensionMissing)):
                    # The hop speaks of the message, and others would say the same.
                    raise answer from error
                errors.append(answer)
            else:
                self._failed.pop(connector, None)
                return hop
        # Where one may take it later, the sender shall ask again.
        raise next((error for error in errors if error.temporary), errors[-1])

    async def _try(
        self, connector: Connector, sender: Address, options: Options, report: Report, own_name: str
    ) -> NextHop:
        pool = self._pools.of(connector)
        try:
            return await self._say_mail(pool, connector, sender, options, own_name)
        except _Stale as stale:
            report(stale.error, label(connector))
        try:
            return await self._say_mail(pool, connector, sender, options, own_name)
        except _Stale as stale:
            raise stale.error from None

    async def _say_mail(
        self, pool: Pool, connector: Connector, sender: Address, options: Options, own_name: str
    ) -> NextHop:
        client = await pool.acquire()
        try:
            if own_name and client.wire.peer.name.lower() == own_name.lower():
                raise SMTPError(554, (5, 4, 6), "Mail for this domain loops back to ourselves")
            reply = await client.mail(sender, for_mail(options, client))
        except BaseException as error:
            pool.release(client)
            if _is_stale(error):
                raise _Stale(error) from None
            raise
        return NextHop(client, reply, label(connector), pool)

    def _in_order(self, connectors: Iterable[Connector]) -> list[Connector]:
        """Those that have failed of late behind the others."""
        since = self._clock().seconds() - AVOIDED_FOR
        return sorted(connectors, key=lambda connector: self._failed.get(connector, since) > since)

    def _avoid(self, connector: Connector) -> None:
        if len(self._failed) >= MAX_REMEMBERED:
            self._failed.clear()
        self._failed[connector] = self._clock().seconds()


class _Stale(Exception):
    """The connection was of no use any more when MAIL was said."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.error = error


def _is_stale(error: BaseException) -> bool:
    closed = isinstance(error, Refused) and error.code == 421
    return closed or type(error) is ConnectionFailed
