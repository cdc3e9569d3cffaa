"""
One route of a list: for whom it is, of which clients, and what becomes of the mail.

Rule 1: a route that could not do what is written there is refused when it is
made; a set of logins that is empty, say.

Rule 2: a refusal is made anew each time, for an exception that is raised twice
keeps what it was raised from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.mux.patterns import ANY, Pattern
from smtpfw.backends.mux.routing import passes_on
from smtpfw.errors import ConfigError, SMTPError
from smtpfw.interfaces import IBackend
from smtpfw.networks import Networks
from smtpfw.policies.clients import fold_case

__all__ = ["DISCARD", "REJECT", "Logins", "Reject", "Route", "in_short"]

#: Who must have authenticated: one of these, folded; anybody (True); or nobody (None).
Logins = frozenset[str] | Literal[True] | None

#: The outcome of mail that is accepted and thrown away.
DISCARD = DiscardBackend()

_REPLY = re.compile(r"(?P<code>\d{3})(?: (?P<enhanced_code>\d+\.\d+\.\d+))?(?: (?P<message>.*))?", re.DOTALL)

#: How many patterns of one route are said before it is only told how many more there are.
_MANY = 4


def _as_error(text: str) -> SMTPError:
    match = _REPLY.fullmatch(text)
    if match is None:
        return SMTPError(550, (5, 7, 1), text)
    try:
        return SMTPError(int(match["code"]), match["enhanced_code"], match["message"])
    except ValueError as error:
        raise ConfigError(f"reject {text!r}: {error}") from None


class Reject:
    """
    The outcome of mail that is refused at RCPT.

    :param reply: the refusal; a text, which is said with 550 5.7.1, or with the codes that it begins with, as ``450
        4.2.1 Back on Monday``; by default 550 5.7.1 with a text of ours.
    :raises ConfigError: for codes that refuse nothing, or do not belong together.
    """

    __slots__ = ("_reply",)

    def __init__(self, reply: SMTPError | str = "Recipient address denied") -> None:
        self._reply = _as_error(reply) if isinstance(reply, str) else reply

    def error(self) -> SMTPError:
        """A refusal, to be raised once."""
        return SMTPError(self._reply.code, self._reply.enhanced_code, self._reply.message)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Reject) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return str(self._reply)

    def __repr__(self) -> str:
        return f"Reject({str(self)!r})"


#: The outcome of mail that is refused with 550 5.7.1.
REJECT = Reject()


class Route:
    """
    Where the mail for some recipients goes. Treat it as immutable.

    :param to: a pattern, or several; see :meth:`smtpfw.backends.mux.patterns.Pattern.parse`.
    :param outcome: a backend, a :class:`Reject`, or :data:`DISCARD`.
    :param logins: for mail of whoever has authenticated as one of these names only (ASCII letters in any case); True
        for all who have, by another mechanism than ANONYMOUS.
    :param networks: for mail of clients from there only; see :class:`~smtpfw.networks.Networks`.
    :raises ConfigError: for what is no pattern, no backend, no network, or no name at all.

    :ivar patterns: what ``to`` means.
    """

    __slots__ = ("logins", "networks", "outcome", "patterns")

    def __init__(
        self,
        to: str | Iterable[str],
        outcome: IBackend | Reject,
        *,
        logins: Iterable[str] | str | Literal[True] | None = None,
        networks: Networks | Iterable[str] | str | None = None,
    ) -> None:
        self.patterns = tuple(map(Pattern.parse, [to] if isinstance(to, str) else to))
        if not self.patterns:
            raise ConfigError("a route says whom it is for: an address, a domain, a pattern")
        where = f"route {self.patterns[0].text!r}"
        if not isinstance(outcome, Reject) and not IBackend.providedBy(outcome):
            raise ConfigError(f"{where}: {outcome!r} is neither a backend (IBackend) nor a Reject")
        self.outcome = outcome
        self.logins: Logins = logins if logins is None or logins is True else _names(logins, where)
        self.networks = None if networks is None else _networks(networks, where)

    @property
    def delivers(self) -> bool:
        """Whether its mail is accepted."""
        return not isinstance(self.outcome, Reject)

    def is_ours(self, pattern: Pattern) -> bool:
        """Whether one of its patterns names a domain, and the mail is not passed on to other hosts."""
        return pattern.domain != ANY and not passes_on(self.outcome)

    def is_guarded(self, pattern: Pattern) -> bool:
        """Whether one of its patterns is only for clients that may send to domains that are not ours."""
        return self.delivers and not self.is_ours(pattern)

    def describe(self, trusted: Networks, auth: bool) -> str:
        """
        For whom it is, and from which clients, in words.

        :param trusted, auth: see :class:`~smtpfw.backends.mux.route_list.RouteList`.
        """
        parts = []
        for guarded in (False, True):
            names = [str(pattern) for pattern in self.patterns if self.is_guarded(pattern) is guarded]
            if names:
                parts.append(in_short(names) + self._senders(guarded, trusted, auth))
        return "; ".join(parts)

    def _senders(self, guarded: bool, trusted: Networks, auth: bool) -> str:
        if self.logins is True:
            manner = "have authenticated"
        elif self.logins is not None:
            manner = f"have authenticated as {in_short(sorted(self.logins))}"
        elif guarded:
            manner = " or ".join([*["have authenticated"] * auth, *[f"are in {trusted}"] * bool(trusted)])
            manner = manner or "are trusted, which none is"
        else:
            manner = ""
        where = "" if self.networks is None else f" in {self.networks}"
        return f" from clients{where}{' that ' if manner else ''}{manner}" if where or manner else ""

    def __repr__(self) -> str:
        to = [pattern.text for pattern in self.patterns]
        return f"Route({to!r}, {self.outcome!r}, logins={self.logins!r}, networks={self.networks!r})"


def in_short(names: Sequence[str]) -> str:
    """Some names, or the first of them and how many there are besides."""
    if len(names) <= _MANY:
        return ", ".join(names)
    return f"{', '.join(names[: _MANY - 1])} and {len(names) - _MANY + 1} more"


def _names(logins: Iterable[str] | str, where: str) -> frozenset[str]:
    names = frozenset(map(fold_case, [logins] if isinstance(logins, str) else logins or ()))
    if not names or "" in names:
        raise ConfigError(f"{where}: logins: write names, or True for all who have authenticated")
    return names


def _networks(networks: Networks | Iterable[str] | str, where: str) -> Networks:
    try:
        found = Networks.of(networks)
    except ValueError as error:
        raise ConfigError(f"{where}: networks: {error}") from None
    if not found:
        raise ConfigError(f"{where}: networks: there is none, so it would be for nobody")
    return found
