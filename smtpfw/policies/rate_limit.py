"""
How much one client may do in a time: connect, begin messages, name recipients.

Counted is what gets through to this check and is let pass by it, whatever
becomes of it later: a MAIL that is followed by RSET is one, too. What it
refuses is not counted, so who tries again and again gets its rate all the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.policies.buckets import Buckets
from smtpfw.policies.clients import KINDS, Grouping
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["CONNECTIONS", "COUNTED", "MAX_KEYS", "MESSAGES", "RECIPIENTS", "Rate", "RateLimit"]

CONNECTIONS = "connections"
MESSAGES = "messages"
RECIPIENTS = "recipients"

#: What can be counted, and the codes of the refusal. Postfix, too, says 421 4.7.0 and 450 4.7.1 ("too much mail").
COUNTED = {CONNECTIONS: (421, (4, 7, 0)), MESSAGES: (450, (4, 7, 1)), RECIPIENTS: (450, (4, 7, 1))}

#: Clients of one kind that are remembered: some 20 MB, when there are so many. Who has more addresses than this is not
#: stopped by counting them.
MAX_KEYS = 65_536

_PERIODS: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}


class Rate(NamedTuple):
    """
    So many in so many seconds.

    All of them may come at once; then they come back evenly, one every ``seconds / number``. So within any such time
    there are never more than twice as many.
    """

    number: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.number} {_PERIODS.get(self.seconds) or f'in {self.seconds:g} s'}"


class RateLimit(Check):
    """
    Limit how often a client does something.

    :param ip: the rate of one IPv4 address or IPv6 /64; a :class:`Rate`, or a pair of number and seconds.
    :param net: of one network.
    :param user: of one user; whoever has not authenticated is none.
    :param count: what is counted, ``messages``, ``connections`` or ``recipients``.
    :param clock: for the time.
    :param ipv4_prefix, ipv6_prefix: bits that the addresses of one network have in common.
    :param max_keys: clients of one kind that are remembered.
    :raises ValueError: if no rate is given, one is out of its range, or users shall be counted when they connect.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        ip: tuple[int, float] | None = None,
        net: tuple[int, float] | None = None,
        user: tuple[int, float] | None = None,
        count: str = MESSAGES,
        ipv4_prefix: int = 24,
        ipv6_prefix: int = 64,
        max_keys: int = MAX_KEYS,
    ) -> None:
        rates = {"ip": ip, "net": net, "user": user}
        self.rates = {kind: Rate(*rate) for kind, rate in rates.items() if rate is not None}
        self.count = count
        if not self.rates:
            raise ValueError(f"no rate is given; give one or more of {', '.join(KINDS)}")
        if count not in COUNTED:
            raise ValueError(f"count: {count!r} is none of {', '.join(COUNTED)}")
        if count == CONNECTIONS and user is not None:
            raise ValueError("user: who it is is not known when it connects; count messages or recipients")
        for kind, rate in self.rates.items():
            if not (rate.number >= 1 and rate.seconds > 0):
                raise ValueError(f"{kind}: {rate.number} in {rate.seconds} s is no rate")
        if max_keys < 1:
            raise ValueError(f"max_keys: {max_keys} is below 1")
        self._clock = clock
        self._max_keys = max_keys
        self._grouping = Grouping(ipv4_prefix, ipv6_prefix)
        self._buckets = {kind: Buckets(*rate, max_keys) for kind, rate in self.rates.items()}

    def connect(self, connection: IConnection) -> None:
        """See :meth:`ICheck.connect`."""
        self._take(connection, CONNECTIONS)

    def mail(self, connection: IConnection, sender: Address, options: Options) -> None:
        """See :meth:`ICheck.mail`."""
        self._take(connection, MESSAGES)

    def rcpt(self, connection: IConnection, recipient: Address, options: Options) -> None:
        """See :meth:`ICheck.rcpt`."""
        self._take(connection, RECIPIENTS)

    def _take(self, connection: IConnection, counted: str) -> None:
        """One of each kind, or none."""
        if counted != self.count:
            return
        now = self._clock.seconds()
        taken = []
        for kind, buckets in self._buckets.items():
            key = self._grouping.key(kind, connection)
            if key is None:
                continue
            if not buckets.has(key, now):
                raise SMTPError(*COUNTED[counted], f"Too many {counted} from {KINDS[kind]}, try again later")
            taken.append((buckets, key))
        for buckets, key in taken:
            buckets.take(key, now)

    def share(self, workers: int) -> RateLimit:
        """Its like for one of several processes that count each for themselves: a part of each rate, rounded up."""
        rates: dict[str, Any] = {kind: (-(-number // workers), time) for kind, (number, time) in self.rates.items()}
        return RateLimit(
            clock=self._clock,
            count=self.count,
            ipv4_prefix=self._grouping.ipv4_prefix,
            ipv6_prefix=self._grouping.ipv6_prefix,
            max_keys=self._max_keys,
            **rates,
        )

    def describe(self) -> str:
        """What it does, in words."""
        rates = ", ".join(f"{rate} of {self._grouping.describe(kind)}" for kind, rate in self.rates.items())
        return f"{self.count.capitalize()}: at most {rates}"

    def __repr__(self) -> str:
        rates = ", ".join(f"{kind}={tuple(rate)}" for kind, rate in self.rates.items())
        return f"RateLimit({rates}, count={self.count!r})"
