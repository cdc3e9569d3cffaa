"""
The patterns of a list of routes, found by what a recipient is called.

Rule: an address, or a domain, costs a look into a dictionary, however many
there are. Tried one after the other are only patterns with wildcards within
the local part, of the recipient's own domain and of those it is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from smtpfw.backends.mux.patterns import Pattern, domain_keys
from smtpfw.backends.mux.route import Logins, Route

__all__ = ["Entry", "PatternIndex"]


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One pattern of one route.

    :ivar position: of the route in its list, from 0.
    :ivar ours: whether it names a domain of ours.
    :ivar guarded: whether it is only for clients that may send to domains that are not.
    """

    position: int
    route: Route
    pattern: Pattern
    ours: bool
    guarded: bool

    @property
    def rank(self) -> tuple[int, bool]:
        """Its place in the order in which entries are tried; of one route's, an address goes first."""
        return self.position, not self.pattern.is_address

    @property
    def is_for_strangers(self) -> bool:
        """Whether it makes no difference who the client is."""
        return not self.guarded and self.route.logins is None and self.route.networks is None

    def takes_clients_of(self, other: Entry) -> bool:
        """Whether it is for all clients that another one is for. Where that is hard to tell, it says no."""
        others = other.route
        return (
            _include(self.route.logins, others.logins)
            and (not self.guarded or other.guarded or others.logins is not None)
            and self.route.networks in (None, others.networks)
        )


class PatternIndex:
    """All patterns of some routes."""

    def __init__(self) -> None:
        self._domains: dict[str, _Domain] = {}

    def add(self, entry: Entry) -> None:
        """Add one behind all others."""
        self._domains.setdefault(entry.pattern.domain, _Domain()).add(entry)

    def find(self, local_part: str, domain: str) -> list[Entry]:
        """Those that fit a recipient, both of whose parts are folded, in the order of their ranks."""
        found: list[Entry] = []
        for key in domain_keys(domain):
            entries = self._domains.get(key)
            if entries is not None:
                found += entries.find(local_part)
        return sorted(found, key=attrgetter("rank"))


class _Domain:
    """The entries of one domain, by their local parts."""

    __slots__ = ("_addresses", "_whole", "_wild")

    def __init__(self) -> None:
        self._addresses: dict[str, list[Entry]] = {}
        self._whole: list[Entry] = []
        self._wild: list[Entry] = []

    def add(self, entry: Entry) -> None:
        pattern = entry.pattern
        if pattern.is_address:
            self._addresses.setdefault(pattern.local_part, []).append(entry)
        else:
            (self._wild if pattern.wild else self._whole).append(entry)

    def find(self, local_part: str) -> list[Entry]:
        wild = [entry for entry in self._wild if entry.pattern.fits_local_part(local_part)]
        return [*self._addresses.get(local_part, ()), *self._whole, *wild]


def _include(logins: Logins, others: Logins) -> bool:
    if logins is None or others is None:
        return logins is None
    return logins is True or (others is not True and logins >= others)
