"""
Which backend a recipient belongs to.

Rule 1: an address beats its domain, a domain beats the default; the order in
which routes are written means nothing.

Rule 2: both parts are compared without regard to case, see :mod:`smtpfw.backends.mux.patterns`.

Rule 3: ``<postmaster>`` without a domain must reach somebody (RFC 5321 section
4.5.1), and a guess could send it to a relay or to where nobody looks. So the
table is refused unless it says who that is: a route ``postmaster``, or a default.
"""

from __future__ import annotations

from collections.abc import Mapping

from smtpfw.backends.mux.patterns import POSTMASTER, fold
from smtpfw.backends.mux.routing import passes_on
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend, IConnection
from smtpfw.wire.grammar import Address

__all__ = ["Routes"]

#: The folded local part and domain of an address; a whole domain has no local part, a bare postmaster no domain.
_Key = tuple[str, str]


class Routes:
    """
    A checked table of routes.

    :param routes: pattern -> backend. A pattern is an address ``tim@example.org``, a domain ``example.org`` or
        ``@example.org``, or ``postmaster`` for the one without a domain (a domain of that name is ``@postmaster``).
    :param default: for whoever no pattern fits; None to refuse those.
    :raises ConfigError: for a pattern that is none or stands there twice, what is no backend, or when nobody is named
        for ``<postmaster>``.

    :ivar backends: each that mail can go to, once, in the order of the table.
    """

    def __init__(self, routes: Mapping[str, IBackend], default: IBackend | None = None) -> None:
        self._default = default
        self._table: dict[_Key, IBackend] = {}
        patterns: dict[int, tuple[IBackend, list[str]]] = {}
        for pattern, backend in [*routes.items(), *([] if default is None else [("", default)])]:
            if not IBackend.providedBy(backend):
                raise ConfigError(f"mux route {pattern or 'default'}: {backend!r} is no backend (IBackend)")
            patterns.setdefault(id(backend), (backend, []))[1].append(pattern)
        for pattern, backend in routes.items():
            key = _parse(pattern)
            if key in self._table:
                raise ConfigError(f"mux route {pattern}: it is there twice; case makes no difference")
            self._table[key] = backend
        if default is None and (POSTMASTER, "") not in self._table:
            raise ConfigError(
                "mux: nobody is named for <postmaster> (RFC 5321 section 4.5.1); add a route 'postmaster', or a default"
            )
        self._patterns = list(patterns.values())
        self.backends = tuple(backend for backend, _ in self._patterns)

    @property
    def relays(self) -> bool:
        """Whether any of them passes mail on for who may."""
        return any(map(passes_on, self.backends))

    def find(self, recipient: Address, hostname: str, connection: IConnection | None = None) -> IBackend | None:
        """
        The backend of a recipient, or None.

        :param hostname: our own name: ``<postmaster>``, unless it has a route of its own, is ``postmaster`` there.
        :param connection: makes no difference; see :class:`~smtpfw.backends.mux.routing.Routing`.
        """
        table, local_part, domain = self._table, fold(recipient.local_part), fold(recipient.domain)
        if recipient.is_postmaster:
            own = table.get((POSTMASTER, ""))
            if own is not None:
                return own
            domain = fold(hostname)
        found = table.get((local_part, domain))
        return found if found is not None else table.get(("", domain), self._default)

    def full_address(self, recipient: Address, hostname: str) -> Address:
        """A recipient as its backend is told: as it is."""
        return recipient

    def describe(self) -> list[tuple[str, IBackend]]:
        """Each backend once, and in words what goes there."""
        described = []
        for backend, patterns in self._patterns:
            words = ["<postmaster>" if pattern.lower() == POSTMASTER else pattern for pattern in patterns if pattern]
            if "" in patterns:
                words.append("everybody else" if len(self._table) else "everybody")
            described.append((", ".join(words), backend))
        return described


def _parse(pattern: str) -> _Key:
    if pattern.lower() == POSTMASTER:
        return POSTMASTER, ""
    whole_domain = pattern.startswith("@") or "@" not in pattern
    try:
        address = Address.parse(f"x@{pattern.removeprefix('@')}" if whole_domain else pattern)
    except ValueError as error:
        raise ConfigError(
            f"mux route {pattern!r}: it is an address, a domain or postmaster ({str(error).rpartition(': ')[2]})"
        ) from None
    return "" if whole_domain else fold(address.local_part), fold(address.domain)
