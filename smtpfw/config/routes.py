"""
Routes of a listener: from what was written to a backend that knows where each recipient goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from smtpfw.backends.mux import DISCARD, MuxBackend, Reject, Route, RouteList
from smtpfw.backends.mux.routing import passes_on
from smtpfw.config.listeners import Listener, trusted_by_default
from smtpfw.config.places import Problems
from smtpfw.config.settings import nearest
from smtpfw.config.tree import ListenTree, RouteTree
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend
from smtpfw.networks import Networks

__all__ = ["Named", "backend_of_routes"]

#: How a sentence about a route for nobody ends, and what to do.
_REMEDIES = {
    "nobody can or is": "; name the domains that are yours, or write auth or trusted",
    "nobody can": "; write auth",
}


class Named(Protocol):
    """A place to deliver to."""

    @property
    def backend(self) -> IBackend: ...


def backend_of_routes(
    listen: ListenTree,
    deliveries: Mapping[str, Named],
    broken: Sequence[str],
    listeners: Sequence[Listener],
    problems: Problems,
) -> IBackend | None:
    """
    Make what a listener gives its mail to.

    :param deliveries: name -> where mail can go.
    :param broken: names of those that could not be made, which has been told already.
    :return: None if something is wrong.
    """
    routes = [_route(route, deliveries, broken, problems) for route in listen.routes or ()]
    trusted, known = Networks(), len(problems)
    with problems.at(listen.place_of("trusted")):
        trusted = Networks(trusted_by_default(listeners) if listen.trusted is None else listen.trusted)
        if trusted.everybody and any(route is not None and passes_on(route.outcome) for route in routes):
            raise ConfigError("that is everybody, which makes an open relay; name the networks that are yours")
    if not routes or None in routes:
        return None
    with problems.at(listen.place_of("routes")):
        found = RouteList([route for route in routes if route is not None], trusted=trusted, auth=listen.knows_logins)
        for position, sentence in found.faults():
            # Otherwise who the clients are is not known, and what follows from it would hide the mistake.
            if listen.is_whole and len(problems) == known:
                problems.add((listen.routes or [])[position].place, sentence + _remedy(sentence))
        return MuxBackend(found, owns_targets=False)
    return None


def _remedy(sentence: str) -> str:
    """What to do where a route is for nobody; where another takes all, that says it."""
    return next((remedy for end, remedy in _REMEDIES.items() if sentence.endswith(end)), "")


def _route(
    route: RouteTree, deliveries: Mapping[str, Named], broken: Sequence[str], problems: Problems
) -> Route | None:
    if not route.to:
        return None
    outcome: Any
    if route.deliver:
        found = deliveries.get(route.deliver)
        if found is None:
            if route.deliver not in broken:
                known = nearest(route.deliver, deliveries)
                problems.add(route.place, f"there is no {route.deliver!r} in [deliver]{known}")
            return None
        outcome = found.backend
    else:
        outcome = DISCARD
    with problems.at(route.place):
        if route.reject:
            outcome = Reject() if route.reject is True else Reject(route.reject)
        return Route(route.to, outcome, logins=route.logins, networks=route.networks)
    return None
