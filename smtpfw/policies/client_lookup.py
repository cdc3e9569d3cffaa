"""
What the checks have in common that ask DNS about a client: when, about whom, and what if nobody knows.

Rule 1: one look-up for a connection, and its verdict holds for all that comes
on it. It waits at the stage that is asked for; for RCPT it begins with MAIL,
so that the client's own turn hides most of it.

Rule 2: a look-up belongs to an address, whoever waits for it, and goes on when
they have gone: its questions are on their way. A network has some at a time, so
that none takes all that there can be.

Rule 3: when nobody knows, the operator has decided what that means. Nobody knows
anything of a client whose address is not known either, as a proxy may say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpfw.check import Check
from smtpfw.dns.questions import NotKnown
from smtpfw.errors import SMTPError
from smtpfw.hooks import call_hook
from smtpfw.interfaces import IConnection
from smtpfw.logins import is_known
from smtpfw.networks import PRIVATE, Network, Networks, client_address
from smtpfw.policies.clients import Grouping
from smtpfw.policies.log_throttle import LogThrottle
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["PASS", "UNKNOWN", "ClientLookUp", "Verdict", "check_choice"]

CONNECT, MAIL, RCPT = "connect", "mail", "rcpt"

#: What may be done with a client of whom nobody knows anything: let it in, or put it off.
LET_PASS, REFUSE = "pass", "refuse"

#: Addresses of one network, IPv4 /24 or IPv6 /64, that are looked up at a time by one check; of one more nobody knows.
MAX_OF_NETWORK = 10

#: Seconds. Postfix: the resolver's own 5 s, times its attempts; a dialog waits for it.
TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What is known of a client.

    :ivar refused: why it is not wanted; empty for one that may come in.
    :ivar known: whether anybody could tell.
    """

    refused: str = ""
    known: bool = True


PASS = Verdict()
UNKNOWN = Verdict(known=False)


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """
    One of some words.

    :raises ValueError: naming them.
    """
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
    return value


class ClientLookUp(Check, ABC):
    """
    The base of checks that ask DNS; they write :meth:`ask`.

    :param at: where it is decided: ``connect``, ``mail`` or ``rcpt``. At the last two who has authenticated is let in.
    :param unknown: when DNS does not say: ``pass``, or ``refuse`` with 421 4.7.1 at connect and 451 4.7.1 elsewhere.
    :param timeout: seconds for a look-up.
    :param except_networks: whose clients are let in unasked; see :class:`~smtpfw.networks.Networks`.
    :param resolver: an ``IResolver``; by default that of the server that asks.
    :raises ValueError: for a word or a number that is none, or what is no network.
    """

    _log = Logger()

    #: Of a refusal at connect, where 550 is none (RFC 5321 section 4.3.2).
    code_at_connect = 554
    #: And elsewhere.
    code = 550
    enhanced_code = (5, 7, 1)

    def __init__(
        self,
        *,
        at: str = CONNECT,
        unknown: str = LET_PASS,
        timeout: float = TIMEOUT,
        except_networks: Networks | Iterable[Network] | Network = (),
        resolver: Any = None,
    ) -> None:
        self.at = check_choice("at", at, (CONNECT, MAIL, RCPT))
        self.unknown = check_choice("unknown", unknown, (LET_PASS, REFUSE))
        if not timeout > 0:
            raise ValueError(f"timeout: {timeout} is not above 0, so nothing could be known in time")
        self.timeout = timeout
        self.except_networks = Networks.of(except_networks)
        self._resolver = resolver
        self._throttle = LogThrottle()
        # Address -> who waits for its verdict; and how many addresses of a network are among them.
        self._running: dict[IPv4Address | IPv6Address, list[Deferred[Verdict]]] = {}
        self._of_network: Counter[object] = Counter()

    @abstractmethod
    async def ask(self, address: IPv4Address | IPv6Address, resolver: Any, clock: IReactorTime) -> Verdict:
        """
        Look a client up, within ``timeout``.

        :param resolver: an ``IResolver``.
        """

    def connect(self, connection: IConnection) -> Any:
        """See :meth:`ICheck.connect`."""
        return self._decide(connection) if self.at == CONNECT else None

    def mail(self, connection: IConnection, sender: Address, options: Options) -> Any:
        """See :meth:`ICheck.mail`."""
        if self.at == CONNECT or is_known(connection):
            return None
        if self.at == RCPT:
            self._look_up(connection)
            return None
        return self._decide(connection)

    def rcpt(self, connection: IConnection, recipient: Address, options: Options) -> Any:
        """See :meth:`ICheck.rcpt`."""
        return None if self.at != RCPT or is_known(connection) else self._decide(connection)

    def disconnected(self, connection: IConnection) -> None:
        """See :meth:`ICheck.disconnected`."""
        found = connection.context.pop(self, None)
        if isinstance(found, Deferred):
            # Begun with MAIL, and no RCPT has waited for it.
            found.addErrback(lambda failure: failure.trap(CancelledError))
            found.cancel()

    def _decide(self, connection: IConnection) -> Any:
        found = self._look_up(connection)
        return self._obey_later(found) if isinstance(found, Deferred) else self._obey(found)

    async def _obey_later(self, found: Deferred[Verdict]) -> None:
        self._obey(await found)

    def _obey(self, verdict: Verdict) -> None:
        at_connect = self.at == CONNECT
        if verdict.refused:
            raise SMTPError(self.code_at_connect if at_connect else self.code, self.enhanced_code, verdict.refused)
        if not verdict.known and self.unknown == REFUSE:
            raise SMTPError(421 if at_connect else 451, (4, 7, 1), "Your address can't be looked up, try again later")

    def _look_up(self, connection: IConnection) -> Any:
        """The verdict on the client of a connection, or a Deferred with it while it is being looked up."""
        context = connection.context
        if self not in context:
            found = call_hook(self._judge, connection)
            if isinstance(found, Deferred):
                found.addBoth(self._keep, context)
            context[self] = found
        return context[self]

    def _keep(self, result: Any, context: dict[Any, Any]) -> Any:
        if isinstance(result, Failure):
            # A fault, or the client has gone: nothing is known that could be kept.
            context.pop(self, None)
        else:
            context[self] = result
        return result

    async def _judge(self, connection: IConnection) -> Verdict:
        address = client_address(connection)
        if address is None:
            return PASS if isinstance(connection.peer, UNIXAddress) else UNKNOWN
        if address in PRIVATE or address in self.except_networks:
            return PASS
        clock: IReactorTime = connection.server.clock
        try:
            resolver = self._resolver or connection.server.resolver
        except NotKnown as error:
            self._warn("resolver", clock, "{check}: {error}", error=error)
            return UNKNOWN
        waiting: Deferred[Verdict] = Deferred()
        if address in self._running:
            self._running[address].append(waiting)
            return await waiting
        network = _GROUPING.network(address)
        if self._of_network[network] >= MAX_OF_NETWORK:
            text = "{check}: more than {number} addresses of {network} at a time"
            self._warn("network", clock, text, number=MAX_OF_NETWORK, network=network)
            return UNKNOWN
        self._of_network[network] += 1
        self._running[address] = [waiting]
        Deferred.fromCoroutine(self.ask(address, resolver, clock)).addBoth(self._tell, address, network)
        return await waiting

    def _tell(self, result: Any, address: IPv4Address | IPv6Address, network: object) -> None:
        self._of_network -= Counter({network: 1})
        for waiting in self._running.pop(address):
            # Whoever has gone has cancelled his.
            if not waiting.called:
                waiting.callback(result)

    def _warn(self, kind: str, clock: IReactorTime, text: str, **values: Any) -> None:
        """Tell the log what nobody knows, once in a while."""
        if self._throttle.due(kind, clock.seconds()):
            what = "they are let in" if self.unknown == LET_PASS else "they are put off"
            self._log.warn(f"{text}; clients that nobody knows: {{what}}", check=self, what=what, **values)

    def _words(self) -> str:
        """For :meth:`describe`: when it is decided, and what if nobody knows."""
        when = {CONNECT: "when they connect", MAIL: "at MAIL", RCPT: "at RCPT"}[self.at]
        unknown = "pass" if self.unknown == LET_PASS else "are put off"
        words = f"are refused {when}; when DNS does not say within {self.timeout:g} s, they {unknown}"
        return f"{words}; {self.except_networks} are not asked for" if self.except_networks else words


_GROUPING = Grouping()
