"""
The service that twistd runs: it starts, listens, reads its configuration again, drains and stops.

Rule 1: the first SIGTERM or SIGINT drains: listening ends, idle clients get 421,
messages under way come to their end within the grace time, the deliveries stop.
A second one does not wait. The exit status is 0 in both cases.

Rule 2: SIGHUP reads, checks and builds, and only then swaps. Where anything is
wrong, everything stays as it is, and the log says what was.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from smtpfw.config.descriptors import allow_connections
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.systemd import notify
from smtpfw.errors import ConfigError
from smtpfw.service.generation import Generation
from smtpfw.service.hangup import EarlyHangup
from smtpfw.service.privileges import Account

__all__ = ["SMTPService"]

_ENDING = (signal.SIGTERM, signal.SIGINT)

_MakeNext = Callable[[Iterable[BoundSocket]], Generation]

#: Seconds that a new configuration has to start, at SIGHUP; one that hangs would be in the way of all after it.
START_LIMIT = 60.0


class SMTPService(Service):
    """
    Serves one configuration after another, from start to drain.

    :param generation: the first one, its sockets bound.
    :param reactor: also the clock.
    :param make_next: reads the configuration again, and has it bound with the sockets that it is called with for those
        that it may keep; raises ConfigError, and has no new socket open then.
    :param set_signal_handler: as :func:`signal.signal`.
    :param exit_with: called with a status that the process shall end with, when it can't start.
    :param observer: writes the log of the process; None for twistd's own.
    :param account: whom to serve as; None for no change.
    """

    _log = Logger()

    def __init__(
        self,
        generation: Generation,
        reactor: Any,
        make_next: _MakeNext | None = None,
        set_signal_handler: Callable[[int, Any], Any] = signal.signal,
        exit_with: Callable[[int], None] | None = None,
        observer: ILogObserver | None = None,
        account: Account | None = None,
    ) -> None:
        self._account = account
        self._generation = generation
        self._reactor = reactor
        self._make_next = make_next
        self._set_signal_handler = set_signal_handler
        self._exit_with = exit_with or _exit_with
        self._observer = observer
        self._ports: dict[BoundSocket, Any] = {}
        # Those that still have connections of their own.
        self._retiring: dict[Generation, Deferred[Any]] = {}
        # One that is starting: nobody is connected to it yet.
        self._pending: Generation | None = None
        # Fires when the first one has started, or could not.
        self._first: Deferred[None] = Deferred()
        self._accepting = False
        self._reloading = False
        # Who waits for the reload behind the one that is under way.
        self._once_more: list[Deferred[None]] = []
        self._draining: Deferred[Any] | None = None
        self._stopped: list[Deferred[None]] = []
        self._over = False

    @property
    def sockets(self) -> list[BoundSocket]:
        """Where it listens."""
        return self._generation.sockets

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of twistd's Application, which is asked for an observer before the log begins."""
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        if self._account is not None:
            self._account.take(parent)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Start the deliveries, then accept connections. Our handlers of signals come behind the reactor's."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._handle_signals)
        generation = self._generation
        starting = Deferred.fromCoroutine(generation.start())
        starting.addCallback(lambda _: self._begin(generation))
        starting.addErrback(self._cannot_start)
        starting.addCallback(self._first.callback)

    def stopService(self) -> Deferred[None]:
        """
        Drain.

        :return: fires when all is over, or at once when a second signal has come.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self.drain()
        if self._over:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    def drain(self) -> None:
        """Stop listening, let messages under way end within the grace time, then stop the deliveries. Once."""
        if self._draining is not None:
            return
        grace = self._generation.plan.grace
        self._log.info("Stopping; messages under way have {grace:g} seconds", grace=grace)
        notify("STOPPING=1\nSTATUS=Messages under way come to their end")
        # A port closes its socket in the next turn of the reactor, so none is stopped twice.
        closing = DeferredList([maybeDeferred(port.stopListening) for port in self._ports.values()], consumeErrors=True)
        self._discard_sockets()
        stopping = [generation.stop(grace) for generation in (self._generation, *self._retiring)]
        if self._pending is not None:
            stopping.append(self._pending.stop_deliveries())
        self._draining = gatherResults(stopping)
        self._draining.addCallback(lambda _: closing).addCallback(lambda _: self._finish())

    def reload(self) -> Deferred[None]:
        """
        Read the configuration again, and serve it if nothing is wrong with it.

        :return: fires when it is served, or when the log says why it is not. One at a time: whoever asks while one is
            under way waits for another, a single one for all of them.
        """
        if self._draining is not None or self._make_next is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        if self._reloading:
            self._once_more.append(done)
        else:
            self._begin_reload(self._make_next, [done])
        return done

    def _begin_reload(self, make_next: _MakeNext, waiting: list[Deferred[None]]) -> None:
        self._reloading = True
        reloading = Deferred.fromCoroutine(self._reload(make_next))
        reloading.addErrback(self._complain, "The configuration could not be read again")
        reloading.addCallback(lambda _: self._reloaded(make_next, waiting))

    def _reloaded(self, make_next: _MakeNext, waiting: list[Deferred[None]]) -> None:
        self._reloading, self._pending = False, None
        others, self._once_more = self._once_more, []
        if self._draining is None and others:
            self._begin_reload(make_next, others)
        else:
            waiting = [*waiting, *others]
            if self._draining is None and self._accepting:
                notify(f"READY=1\nSTATUS=Listening on {len(self._ports)} sockets")
        for one in waiting:
            one.callback(None)

    async def _reload(self, make_next: _MakeNext) -> None:
        # Sockets can be handed on only when they are open. How the first start has failed is in the log.
        await self._first
        if self._draining is not None or not self._accepting:
            return
        # The time is for Type=notify-reload: systemd waits for a READY that is newer.
        now = time.monotonic_ns() // 1000
        notify(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Reading the configuration again")
        before = self._generation
        try:
            # Not before.sockets: one that could not be opened is bound anew.
            after = self._pending = make_next(list(self._ports))
        except ConfigError as mistake:
            for line in str(mistake).split("\n"):
                self._log.error("Everything stays as it was: {line}", line=line)
            return
        try:
            await self._start(after)
        except Exception as problem:
            for bound in set(after.sockets).difference(self._ports):
                self._discard(bound)
            if self._draining is not None:
                return
            if isinstance(problem, (ConfigError, OSError)):
                self._log.error("Everything stays as it was: {reason}", reason=str(problem))
            else:
                self._log.failure("Everything stays as it was: the new configuration could not be started")
            return
        if self._draining is not None:
            # That has ended it, and its sockets.
            return
        await self._swap(before, after)
        if self._draining is None:
            self._log.info("The configuration was read again")
            self._say_what_runs()

    async def _start(self, after: Generation) -> None:
        """:raises ConfigError: among others, when it takes too long; it is ended then."""
        outcome: Deferred[None] = Deferred()

        def give_up() -> None:
            mistake = ConfigError(f"{after.unready()} has not started within {START_LIMIT:g} s")
            # Not waited for: what hangs at its start may hang at its end. But a drain knows of it.
            self._let_go(after, after.stop_deliveries())
            outcome.errback(mistake)

        def end(result: Any) -> None:
            if limit.active():
                limit.cancel()
                outcome.callback(result)
            elif isinstance(result, Failure):
                self._complain(result, "A start that nobody waited for any longer has failed")

        limit = self._reactor.callLater(START_LIMIT, give_up)
        Deferred.fromCoroutine(after.start()).addBoth(end)
        await outcome

    async def _swap(self, before: Generation, after: Generation) -> None:
        """
        Serve another generation.

        From here there is no way back, so whatever fails is logged, and the rest is done. A drain may come in each turn
        of the reactor, so before the first of them all is where it looks.
        """
        self._go_on("The new configuration was not taken over in order", after.take_over)
        self._generation, self._pending = after, None
        for bound in after.sockets:
            if bound not in self._ports:
                port = self._go_on(f"{bound.endpoint}: nobody can connect", after.open, bound)
                if port is None:
                    self._discard(bound)
                else:
                    self._ports[bound] = port
        closing = []
        for bound in set(self._ports).difference(after.sockets):
            # While the port is known: it is what closes the socket.
            self._discard(bound)
            closing.append(maybeDeferred(self._ports.pop(bound).stopListening))
        for one in closing:
            one.addErrback(self._complain, "A port could not be closed in order")
        self._let_go(before, maybeDeferred(before.retire))
        await DeferredList(closing)
        try:
            await before.left()
        except Exception:
            self._log.failure("The configuration before was not left in order")

    def _go_on(self, trouble: str, call: Callable[..., Any], *args: object) -> Any:
        try:
            return call(*args)
        except Exception:
            self._log.failure("{trouble}", trouble=trouble)
            return None

    def _let_go(self, generation: Generation, ending: Deferred[Any]) -> None:
        """Have a drain wait for the end of this one, too."""

        def forget(_: object) -> None:
            del self._retiring[generation]

        self._retiring[generation] = ending
        ending.addErrback(self._complain, "A configuration could not be retired in order")
        ending.addCallback(forget)

    def _begin(self, generation: Generation) -> None:
        # It may have been stopped while the deliveries were still starting.
        if self._draining is None:
            self._accept(generation)
            self._accepting = True

    def _accept(self, generation: Generation) -> None:
        generation.take_over()
        for bound in generation.sockets:
            self._ports[bound] = generation.open(bound)
        self._say_what_runs()
        # Whoever is told so may send a signal at once: our handlers are there when the reactor runs.
        self._reactor.callWhenRunning(notify, f"READY=1\nSTATUS=Listening on {len(self._ports)} sockets")

    def _say_what_runs(self) -> None:
        plan = self._generation.plan
        count = sum(listen.config.max_connections for listen in plan.listen)
        few = allow_connections(count)
        if few is not None:
            self._log.warn(
                "{count} connections need more than {few} open files, which is all we may have; raise ulimit -n",
                count=count,
                few=few,
            )
        for line in plan.warnings:
            self._log.warn("{line}", line=line)
        for line in self._generation.describe():
            self._log.info("{line}", line=line)

    def _cannot_start(self, failure: Failure) -> None:
        if isinstance(failure.value, (ConfigError, OSError)):
            self._log.critical("smtpfw: can't start: {reason}", reason=failure.getErrorMessage())
        else:
            self._log.failure("smtpfw: can't start: {reason}", failure, reason=failure.getErrorMessage())
        self._exit_with(1)
        # At this moment the reactor may not run yet, and then it can't be stopped.
        self._reactor.callWhenRunning(self._stop_reactor)

    def _handle_signals(self) -> None:
        for number in _ENDING:
            self._set_signal_handler(number, self._on_signal)
        former = self._set_signal_handler(signal.SIGHUP, self._on_hangup)
        if isinstance(former, EarlyHangup) and former.heard:
            self.reload()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Python runs this between any two instructions of the main thread; the reactor's own turn is the place to act.
        self._reactor.callFromThread(self._obey_signal)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self.reload)

    def _obey_signal(self) -> None:
        if self._draining is None:
            ended: Deferred[None] = Deferred()
            self._stopped.append(ended)
            ended.addCallback(lambda _: self._stop_reactor())
            self.drain()
            return
        self._log.info("Asked again; stopping at once")
        for number in _ENDING:
            # Should anything still hang, the next signal ends the process.
            self._set_signal_handler(number, signal.SIG_DFL)
        pending = [] if self._pending is None else [self._pending]
        generations = [self._generation, *self._retiring, *pending]
        hurrying = gatherResults([generation.hurry() for generation in generations])
        hurrying.addCallback(lambda _: self._finish())

    def _finish(self) -> None:
        self._over = True
        stopped, self._stopped = self._stopped, []
        for one in stopped:
            one.callback(None)

    def _stop_reactor(self) -> None:
        try:
            self._reactor.stop()
        except error.ReactorNotRunning:
            # It is stopping already: the second signal came after the drain.
            return

    def _discard_sockets(self) -> None:
        for bound in dict.fromkeys((*self._generation.sockets, *self._pending_sockets())):
            self._discard(bound)

    def _pending_sockets(self) -> list[BoundSocket]:
        return [] if self._pending is None else self._pending.sockets

    def _discard(self, bound: BoundSocket) -> None:
        """Be done with a socket; a port closes its own."""
        try:
            (bound.remove_file if bound in self._ports else bound.discard)()
        except OSError as problem:
            # After --uid the folder may not be ours any more; the next start removes a stale file.
            self._log.warn("{path} could not be removed: {reason}", path=bound.own_path, reason=problem.strerror)

    def _complain(self, failure: Failure, what: str) -> None:
        self._log.failure(what, failure)


def _exit_with(status: int) -> None:
    """
    Let the process end with ``status``, after twistd has removed its pid file.

    twistd offers no way: it ends with 0 whatever a service says, and what is raised in the reactor is only logged.
    """

    def end() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)
