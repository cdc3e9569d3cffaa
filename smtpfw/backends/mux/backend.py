"""
The mux: mail to several backends, by its recipients.

Rule 1: a mux is one backend. It starts, stops and describes its targets, each
once however many routes lead there, and honours what all of them honour. Where
several share a target, whoever has made that starts and stops it.

Rule 2: a message to several targets is accepted by all or kept by none, see
:mod:`smtpfw.backends.mux.two_phase`; over LMTP each target answers for itself,
see :mod:`smtpfw.backends.mux.lmtp`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.backends.mux.route_list import RouteList
from smtpfw.backends.mux.routes import Routes
from smtpfw.backends.mux.routing import Routing
from smtpfw.backends.mux.session import MuxSession
from smtpfw.backends.several import check_all, start_all, stop_all
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend, IConnection, ISession

__all__ = ["MuxBackend"]


@implementer(IBackend)
class MuxBackend:
    """
    Gives each recipient to the backend that a route names::

        MuxBackend({"example.org": inbox, "tim@example.org": script, "postmaster": inbox})

    :param routes: pattern -> backend. A pattern is an address, a domain (``example.org`` or ``@example.org``), or
        ``postmaster`` for the one without a domain. An address beats its domain; case makes no difference, in local
        parts either. Or a :class:`~smtpfw.backends.mux.RouteList`, for more than that.
    :param default: for everybody else; without it they are refused with 550 5.1.1. A list has none beside it.
    :param owns_targets: whether the targets start and stop with the mux. Not where several share one, or somebody else
        looks after them.
    :raises ConfigError: for a pattern that is none or stands there twice, or when neither a default nor a route
        ``postmaster`` says where ``<postmaster>`` goes.
    """

    _log = Logger()

    def __init__(
        self,
        routes: Mapping[str, IBackend] | RouteList,
        default: IBackend | None = None,
        *,
        owns_targets: bool = True,
    ) -> None:
        if isinstance(routes, RouteList) and default is not None:
            raise ConfigError("mux: a list of routes has no default; its last route, to '*', may be one")
        self.routes: Routing = routes if isinstance(routes, RouteList) else Routes(routes, default)
        self.owns_targets = owns_targets

    @property
    def relays(self) -> bool:
        """Whether mail may be passed on to other hosts, and who the client is is not asked here."""
        return self.routes.relays

    @property
    def honours(self) -> Collection[str]:
        """What every target honours: a promise is kept only if all keep it."""
        return frozenset.intersection(*(frozenset(backend.honours) for backend in self.routes.backends))

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection; those of the targets are made when they are needed."""
        return MuxSession(self.routes, connection)

    async def start(self) -> None:
        """
        Start every target that has a ``start``, one after the other, if they are ours to start.

        :raises Exception: what the first that can't start has raised; those before it have been stopped again.
        """
        await start_all(self._own_targets, self._log)

    async def stop(self) -> None:
        """Stop every target that has a ``stop``, all at the same time, if they are ours; one that fails is logged."""
        await stop_all(self._own_targets, self._log)

    def check(self) -> list[str]:
        """
        Ask every target that has a ``check``, all at the same time, if they are ours. Blocks.

        :return: what they say.
        :raises ConfigError: what they raise, together.
        """
        return check_all(self._own_targets)

    def describe(self) -> list[str]:
        """What goes where, and what each target says of itself."""
        lines = []
        places: dict[int, str] = {}
        for words, backend in self.routes.describe():
            if backend is None:
                lines.append(f"Mail for {words}.")
                continue
            lines.append(f"Mail for {words}:")
            if id(backend) in places:
                lines.append(f"  As for {places[id(backend)]}.")
                continue
            places[id(backend)] = words
            describe = getattr(backend, "describe", None)
            own = [str(line) for line in describe()] if describe is not None else [f"Mail goes to {backend!r}"]
            lines += [f"  {line}" for line in own]
        return lines

    @property
    def _own_targets(self) -> Collection[IBackend]:
        return self.routes.backends if self.owns_targets else ()
