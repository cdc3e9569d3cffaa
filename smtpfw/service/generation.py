"""
One configuration while it is served.

Rule 1: it is all or nothing: either all its sockets are bound and all its
deliveries have started, or nothing of it is left.

Rule 2: a connection keeps the configuration that it began with. So a
configuration that has been replaced lives on until its last connection is
gone, and takes no new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from smtpfw.config import ServicePlan
from smtpfw.config.describing import describe_running
from smtpfw.config.listeners import Seat, bind_all
from smtpfw.config.plan import Delivery, ListenPlan
from smtpfw.config.sockets import BoundSocket
from smtpfw.server import SMTPServerFactory
from smtpfw.server.transcripts import Transcripts
from smtpfw.tls import Watcher

__all__ = ["Generation"]


class Generation:
    """
    :param plan: what to serve.
    :param transcripts: see :class:`~smtpfw.server.SMTPServerFactory`.

    :ivar plan: the same.
    :ivar factories: one for each listener of the plan.
    :ivar seats: the sockets of each listener, with whom they are to serve; empty before :meth:`bind`.
    """

    _log = Logger()

    def __init__(self, plan: ServicePlan, reactor: Any, transcripts: Transcripts | None = None) -> None:
        self.plan = plan
        self._reactor = reactor
        self.factories = [
            SMTPServerFactory(
                listen.backend,
                listen.config,
                tls=listen.tls,
                extensions=listen.extensions,
                checks=listen.checks,
                reactor=reactor,
                transcripts=transcripts,
            )
            for listen in plan.listen
        ]
        self.seats: list[list[Seat]] = []
        self._started: list[Delivery] = []
        self._beginning: Delivery | None = None
        self._stopping: list[Deferred[Any]] = []
        self._unwanted = False
        self._watchers = [Watcher(store, reactor) for store in plan.stores]

    def bind(self, others: Iterable[BoundSocket] = ()) -> None:
        """
        Have a socket for each listener.

        :param others: some that are bound already, and are kept where a listener has the same endpoint. They go on
            serving whom they serve until :meth:`take_over`.
        :raises ConfigError: naming the listener that can't be had; no new socket is left open then.
        """
        before = list(others)
        kept: dict[str, list[BoundSocket]] = {}
        for bound in before:
            # Several may have the same: tcp:0 is another port each time.
            kept.setdefault(bound.endpoint, []).append(bound)
        seats: list[list[Seat]] = []
        try:
            for listen, factory in zip(self.plan.listen, self.factories, strict=True):
                wrap, protocol = partial(_behind_proxies, listen, factory), listen.config.protocol
                seats.append(bind_all(listen.listeners, factory, self._reactor, listen.tls, protocol, kept, wrap))
        except BaseException:
            for bound in (bound for of_listener in seats for bound, _ in of_listener):
                if bound not in before:
                    bound.discard()
            raise
        self.seats = seats

    @property
    def sockets(self) -> list[BoundSocket]:
        """Of all listeners."""
        return [bound for seats in self.seats for bound, _ in seats]

    def describe(self) -> list[str]:
        """What is served, in words."""
        return describe_running(self.plan, [[bound for bound, _ in seats] for seats in self.seats])

    def open(self, bound: BoundSocket) -> Any:
        """
        Let a socket accept.

        :return: it has a ``stopListening``, as Twisted's ports have.
        """
        return bound.start(self._reactor)

    def take_over(self) -> None:
        """New connections are for this configuration from now on."""
        for seats in self.seats:
            for bound, factory in seats:
                bound.switch.serve(factory)
        for watcher in self._watchers:
            watcher.start()

    async def left(self) -> None:
        """Wait until no new connection can come, behind :meth:`retire`: here :meth:`take_over` has seen to that."""

    async def start(self) -> None:
        """
        Start every delivery that has a ``start``, one after the other.

        :raises Exception: what the first that can't start has raised; those before it have been stopped again.
        """
        for delivery in self.plan.deliveries:
            self._beginning = delivery
            try:
                await maybeDeferred(getattr(delivery.backend, "start", _nothing))
            except Exception:
                await self.stop_deliveries()
                raise
            self._started.append(delivery)
            if self._unwanted:
                # Nobody waits for it any longer, and nobody else would stop it.
                await self.stop_deliveries()
                return
        self._beginning = None

    def unready(self) -> str:
        """What :meth:`start` is waiting for, in words."""
        return "nothing" if self._beginning is None else f"{self._beginning.name}: the backend"

    def stop(self, grace: float) -> Deferred[Any]:
        """
        End all connections, then the deliveries.

        :return: fires when all is over, and never fails.
        """
        self._look_no_more()
        stopping = [maybeDeferred(factory.stop, grace) for factory in self.factories]
        for one in stopping:
            one.addErrback(self._complain, "Sessions could not be ended in order")
        return gatherResults(stopping).addCallback(lambda _: self.stop_deliveries())

    def retire(self) -> Deferred[Any]:
        """
        End the deliveries when the last connection is gone by itself.

        :return: fires when all is over.
        """
        self._look_no_more()
        empty = gatherResults([factory.when_empty() for factory in self.factories])
        return empty.addCallback(lambda _: self.stop_deliveries())

    def hurry(self) -> Deferred[Any]:
        """
        Come to an end at once.

        :return: fires when there is nothing to wait for.
        """
        # Backends may have threads of their own, without whose end the process would not end.
        self.stop_deliveries()
        return succeed(None)

    def stop_deliveries(self) -> Deferred[Any]:
        """
        Stop every delivery that has started, all at the same time; one that fails is logged.

        :return: fires when all are stopped, those too that an earlier call has begun to stop.
        """
        self._unwanted = True
        started, self._started = self._started, []
        stopping = [maybeDeferred(getattr(delivery.backend, "stop", _nothing)) for delivery in started]
        for delivery, one in zip(started, stopping, strict=True):
            one.addErrback(self._complain, f"{delivery.name}: the backend could not be stopped in order")
        self._stopping += stopping
        return DeferredList(self._stopping)

    def _look_no_more(self) -> None:
        for watcher in self._watchers:
            watcher.stop()

    def _complain(self, failure: Any, what: str) -> None:
        self._log.failure(what, failure)


def _behind_proxies(listen: ListenPlan, factory: SMTPServerFactory, inner: IProtocolFactory) -> IProtocolFactory:
    if listen.proxy is None:
        return inner
    # Not above: few need it, and it leans on modules of Twisted's that are not public.
    from smtpfw.server.proxy import ProxyFactory

    return ProxyFactory(factory, listen.proxy, inner)


def _nothing() -> None:
    """Stands for ``start`` and ``stop`` of a backend that has none."""
