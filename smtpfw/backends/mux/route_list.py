"""
Routes in an order: the first that fits a recipient, and its client, says what becomes of the mail.

Rule 1: an open relay can't be written by accident. A route for domains that it
does not name (``*``), or to a backend that relays, is a *guarded* one: only for
clients that have authenticated, and for those that are trusted. What is
refused at once needs no guard.

Rule 2: ``user+tag`` goes where ``user`` goes, at the place of that route in the
list; but if the first route that fits it as it is gives that very address, that
one counts.

Rule 3: ``<postmaster>`` without a domain must reach somebody (RFC 5321 section
4.5.1). It goes by a route ``postmaster``; without one, as the postmaster of our
own name; if no route names that domain, as the postmaster of the first domain
that has one for strangers, too; and by a route for domains that it does not
name only at last, for that may lead to somebody else's postmaster. A list that
has none of these is refused.

Rule 4: who fits nowhere is 550 5.1.1 in the domains of ours, and 550 5.7.1
everywhere else.

Rule 5: an address, or a domain, is found in a dictionary, however many there
are. Only patterns with wildcards within the local part, and routes for the very
same recipients, are tried one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from operator import attrgetter
from typing import Literal

from smtpfw.backends.mux.index import Entry, PatternIndex
from smtpfw.backends.mux.patterns import ANY, POSTMASTER, domain_keys, fold
from smtpfw.backends.mux.route import DISCARD, REJECT, Reject, Route, in_short
from smtpfw.errors import ConfigError, MailboxUnavailable, RelayDenied
from smtpfw.interfaces import IBackend, IConnection
from smtpfw.logins import is_known
from smtpfw.networks import Networks
from smtpfw.policies.clients import fold_case
from smtpfw.wire.grammar import Address

__all__ = ["DISCARD", "REJECT", "Reject", "Route", "RouteList"]

#: Patterns with wildcards among which those are searched for that can never match.
MAX_SEARCHED = 500

#: Whether an entry is for a client.
_Fits = Callable[[Entry], bool]


def _any(entry: Entry) -> bool:
    return True


class RouteList:
    """
    A checked list of routes. Treat it as immutable.

    :param routes: in their order.
    :param trusted: networks whose clients may send to domains that are not ours, as those that have authenticated may.
    :param auth: whether clients can authenticate on the listeners that use this list; it makes a difference to
        :meth:`problems` and :meth:`describe` only.
    :param tag: the character that divides ``user+tag``; empty if nothing does.
    :raises ConfigError: when no route can take ``<postmaster>``, or for a ``tag`` that divides nothing.

    :ivar backends: each that mail can go to, once, in the order of the list.
    """

    #: Its routes ask who the client is wherever one relays.
    relays = False

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        trusted: Networks | Iterable[str] | str = (),
        auth: bool = True,
        tag: str = "+",
    ) -> None:
        if tag and (len(tag) > 1 or tag.isalnum() or tag.isspace() or tag in "@*"):
            raise ConfigError(f"tag {tag!r}: it is one character that divides user+tag, or an empty text for none")
        try:
            self.trusted = Networks.of(trusted)
        except ValueError as error:
            raise ConfigError(f"trusted: {error}") from None
        self.routes = tuple(routes)
        self._auth = auth
        self._tag = tag
        self._index = PatternIndex()
        for entry in chain.from_iterable(map(_entries, count(), self.routes)):
            self._index.add(entry)
        outcomes = [route.outcome for route in self.routes if not isinstance(route.outcome, Reject)]
        self.backends = tuple({id(backend): backend for backend in outcomes}.values())
        self._own_domains = self._find_own_domains()
        self._postmaster_domain = self._find_postmaster_domain()

    def find(self, recipient: Address, hostname: str, connection: IConnection) -> IBackend:
        """
        The backend of a recipient.

        :param hostname: our own name, see rule 3.
        :param connection: of the client; asked for its identity and its address when a route depends on it.
        :raises MailboxUnavailable: if no route fits, and the domain is one of ours.
        :raises RelayDenied: if no route fits, and it is not.
        :raises SMTPError: what a route refuses with.
        """
        fits = _Client(connection, self.trusted).fits
        if recipient.is_postmaster:
            found = self._find_postmaster(fold(hostname), fits)
            own = True
        else:
            domain = fold(recipient.domain)
            found = self._find(fold(recipient.local_part), domain, fits)
            own = not self._own_domains.isdisjoint(domain_keys(domain))
        if found is None:
            raise MailboxUnavailable if own else RelayDenied
        outcome = found.route.outcome
        if isinstance(outcome, Reject):
            raise outcome.error()
        return outcome

    def full_address(self, recipient: Address, hostname: str) -> Address:
        """
        A recipient as its backend is told: ``<postmaster>`` has the domain that its route is for.

        By its own name, and by a route that names that of this host, it stays as it is: backends complete it so.
        """
        domain = self._postmaster_domain
        if not (recipient.is_postmaster and domain):
            return recipient
        if self._find(POSTMASTER, "", _any) or self._find(POSTMASTER, fold(hostname), _any, named=True):
            return recipient
        return Address(recipient.local_part, domain)

    def problems(self) -> list[str]:
        """
        Sentences about routes that can never match.

        That is so behind a route that takes all that they are for, and where nobody is whom they are for. What several
        routes take together is not found.
        """
        return [sentence for _, sentence in self.faults()]

    def faults(self) -> list[tuple[int, str]]:
        """The same, each with the number of its route, from 0."""
        found = []
        # Each is compared with all before it that have wildcards, too: of very many nobody would wait for the end.
        searched = sum(pattern.wild for route in self.routes for pattern in route.patterns) <= MAX_SEARCHED
        for position, route in enumerate(self.routes):
            sentence = (searched and self._taken_before(position)) or self._for_nobody(route)
            if sentence:
                found.append((position, f"{self._name(position)} can never match{sentence}"))
        return found

    def describe(self) -> list[tuple[str, IBackend | None]]:
        """In words, each behind "Mail for", and the backend that they lead to; None if they say it all."""
        described: list[tuple[str, IBackend | None]] = [
            ("a recipient goes by the first of these routes that fits", None),
            *self.describe_routes(),
        ]
        if self._tag:
            described.append((f"user{self._tag}tag goes where that for user goes, if nothing above is for it", None))
        described.append(("everybody else is refused: 550 5.1.1 in the domains of ours, 550 5.7.1 in others", None))
        return described

    def describe_routes(self) -> list[tuple[str, IBackend | None]]:
        """The same of the routes alone."""
        described: list[tuple[str, IBackend | None]] = []
        for route in self.routes:
            words = route.describe(self.trusted, self._auth)
            if isinstance(route.outcome, Reject):
                described.append((f"{words} is refused: {route.outcome}", None))
            else:
                described.append((words, route.outcome))
        return described

    def _find(self, local_part: str, domain: str, fits: _Fits, named: bool = False) -> Entry | None:
        """
        The first that fits.

        :param named: leave out those for domains that they do not name.
        """
        found = self._first(local_part, domain, fits, named)
        if found is not None and found.pattern.is_address:
            return found
        user = self._untagged(local_part)
        other = self._first(user, domain, fits, named) if user else None
        if found is None or other is None:
            return found or other
        return other if other.position < found.position else found

    def _first(self, local_part: str, domain: str, fits: _Fits, named: bool) -> Entry | None:
        for entry in self._index.find(local_part, domain):
            if (entry.ours or not named) and fits(entry):
                return entry
        return None

    def _find_postmaster(self, hostname: str, fits: _Fits) -> Entry | None:
        return (
            self._find(POSTMASTER, "", fits)
            or self._find(POSTMASTER, hostname, fits, named=True)
            or self._find(POSTMASTER, self._postmaster_domain, fits, named=True)
            or self._find(POSTMASTER, hostname, fits)
        )

    def _untagged(self, local_part: str) -> str:
        """The user of ``user+tag``; empty if it is no such thing."""
        user, divided, _ = local_part.partition(self._tag) if self._tag else ("", "", "")
        return user if divided else ""

    def _find_own_domains(self) -> frozenset[str]:
        return frozenset(
            pattern.domain
            for route in self.routes
            for pattern in route.patterns
            if route.delivers and route.is_ours(pattern)
        )

    def _find_postmaster_domain(self) -> str:
        """The first domain whose postmaster is reached by strangers; empty if there is none."""
        patterns = [pattern for route in self.routes if route.delivers for pattern in route.patterns]
        for domain in dict.fromkeys(pattern.domain for pattern in patterns if pattern.domain != ANY):
            found = self._find(POSTMASTER, domain, attrgetter("is_for_strangers"), named=True)
            if found is not None and found.route.delivers:
                return domain
        if not any(pattern.fits_local_part(POSTMASTER) for pattern in patterns):
            raise ConfigError("nobody is named for <postmaster> (RFC 5321 section 4.5.1); add a route to 'postmaster'")
        return ""

    def _taken_before(self, position: int) -> str:
        takers = set()
        for entry in _entries(position, self.routes[position]):
            taker = self._taker(entry)
            if taker is None:
                return ""
            takers.add(taker.position)
        return f": all of it is taken by {' and '.join(map(self._name, sorted(takers)))}"

    def _taker(self, entry: Entry) -> Entry | None:
        """One before it that takes all that it is for."""
        pattern = entry.pattern
        user = self._untagged(pattern.local_part)
        before = self._index.find(pattern.local_part, pattern.domain)
        if user:
            before += self._index.find(user, pattern.domain)
        for one in before:
            if one.position < entry.position and one.pattern.covers(pattern, self._tag) and one.takes_clients_of(entry):
                return one
        return None

    def _for_nobody(self, route: Route) -> str:
        if self._auth:
            return ""
        if route.logins is not None:
            return ": it is for clients that have authenticated, and nobody can"
        guarded = [pattern.text for pattern in route.patterns if route.is_guarded(pattern)]
        if self.trusted or not guarded:
            return ""
        which = "" if len(guarded) == len(route.patterns) else f" mail for {in_short(guarded)}"
        return f"{which}: it is for clients that have authenticated or are trusted, and nobody can or is"

    def _name(self, position: int) -> str:
        return f"route {position + 1} (to {in_short([pattern.text for pattern in self.routes[position].patterns])})"


def _entries(position: int, route: Route) -> Iterator[Entry]:
    for pattern in route.patterns:
        yield Entry(position, route, pattern, route.is_ours(pattern), route.is_guarded(pattern))


class _Client:
    """Who asks, as far as a route wants to know."""

    __slots__ = ("_connection", "_trusted")

    def __init__(self, connection: IConnection, trusted: Networks) -> None:
        self._connection = connection
        self._trusted = trusted

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is for this client."""
        route = entry.route
        if entry.guarded and not (is_known(self._connection) or self._trusted.include(self._connection)):
            return False
        if route.logins is not None and not self._is_one_of(route.logins):
            return False
        return route.networks is None or route.networks.include(self._connection)

    def _is_one_of(self, logins: frozenset[str] | Literal[True]) -> bool:
        return is_known(self._connection) and (logins is True or fold_case(self._connection.identity) in logins)
