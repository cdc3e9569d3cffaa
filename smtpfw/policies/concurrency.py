"""
How many connections one client may have at the same time.

Rule 1: what was counted stands under the id of its connection, and is given
back from there: who was refused before it was counted gives nothing back.

Rule 2: all of a client's counts are taken, or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.policies.clients import KINDS, Grouping
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["Concurrency"]


class Concurrency(Check):
    """
    Limit the connections that are open at the same time.

    The client of one too many gets 421 4.7.0 when it connects. A user is known only later, so a user's connections
    count from their first MAIL on, and that gets 450 4.7.1.

    :param ip: of one IPv4 address or IPv6 /64; 0 for no limit.
    :param net: of one network.
    :param user: on which one user sends mail.
    :param ipv4_prefix, ipv6_prefix: bits that the addresses of one network have in common.
    :raises ValueError: if there is no limit, or a number is out of its range.
    """

    def __init__(
        self, *, ip: int = 0, net: int = 0, user: int = 0, ipv4_prefix: int = 24, ipv6_prefix: int = 64
    ) -> None:
        limits = {"ip": ip, "net": net, "user": user}
        for kind, limit in limits.items():
            if limit < 0:
                raise ValueError(f"{kind}: {limit} is below 0")
        self.limits = {kind: limit for kind, limit in limits.items() if limit}
        if not self.limits:
            raise ValueError(f"no limit is given; give one or more of {', '.join(KINDS)}")
        self._grouping = Grouping(ipv4_prefix, ipv6_prefix)
        self._at_connect = [kind for kind in self.limits if kind != "user"]
        self._at_mail = [kind for kind in self.limits if kind == "user"]
        self._counts: Counter[tuple[str, Hashable]] = Counter()
        # Connection id -> kind -> whom it was counted as.
        self._held: dict[str, dict[str, Hashable]] = {}

    def connect(self, connection: IConnection) -> None:
        """See :meth:`ICheck.connect`."""
        kind = self._hold(connection, self._at_connect)
        if kind is not None:
            raise SMTPError(421, (4, 7, 0), f"Too many connections from {KINDS[kind]}, try again later")

    def mail(self, connection: IConnection, sender: Address, options: Options) -> None:
        """See :meth:`ICheck.mail`."""
        kind = self._hold(connection, self._at_mail)
        if kind is not None:
            raise SMTPError(450, (4, 7, 1), f"Too many connections of {KINDS[kind]}, try again later")

    def disconnected(self, connection: IConnection) -> None:
        """See :meth:`ICheck.disconnected`."""
        for kind, key in self._held.pop(connection.id, {}).items():
            self._release(kind, key)

    def _hold(self, connection: IConnection, kinds: Iterable[str]) -> str | None:
        """Count a connection; return the kind whose limit forbids it."""
        held = self._held.get(connection.id, {})
        taken: dict[str, Hashable] = {}
        for kind in kinds:
            key = self._grouping.key(kind, connection)
            if key is None or held.get(kind) == key:
                continue
            if self._counts[kind, key] >= self.limits[kind]:
                return kind
            taken[kind] = key
        for kind, key in taken.items():
            if kind in held:
                # Behind STARTTLS a client may authenticate as somebody else.
                self._release(kind, held[kind])
            self._counts[kind, key] += 1
        if taken:
            self._held[connection.id] = {**held, **taken}
        return None

    def _release(self, kind: str, key: Hashable) -> None:
        self._counts[kind, key] -= 1
        if not self._counts[kind, key]:
            del self._counts[kind, key]

    def share(self, workers: int) -> Concurrency:
        """Its like for one of several processes that count each for themselves: a part of each limit, rounded up."""
        limits = {kind: -(-limit // workers) for kind, limit in self.limits.items()}
        return Concurrency(ipv4_prefix=self._grouping.ipv4_prefix, ipv6_prefix=self._grouping.ipv6_prefix, **limits)

    def describe(self) -> str:
        """What it does, in words."""
        limits = ", ".join(f"{limit} of {self._grouping.describe(kind)}" for kind, limit in self.limits.items())
        return f"Connections at the same time: at most {limits}"

    def __repr__(self) -> str:
        return f"Concurrency({', '.join(f'{kind}={limit}' for kind, limit in self.limits.items())})"
