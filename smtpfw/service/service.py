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
from collections.abc import Callable
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
from smtpfw.service.privileges import Account

__all__ = ["SMTPService"]

_ENDING = (signal.SIGTERM, signal.SIGINT)


class SMTPService(Service):
    """
    Serves one configuration after another, from start to drain.

    :param generation: the first one, its sockets bound.
    :param make_next: reads the configuration again; raises ConfigError.
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
        make_next: Callable[[], Generation] | None = None,
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
        self._reloading: Deferred[None] | None = None
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
        starting = Deferred.fromCoroutine(self._generation.start())
        starting.addCallback(self._accept)
        starting.addErrback(self._cannot_start)

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
        generations = [self._generation, *self._retiring]
        self._draining = gatherResults([generation.stop(grace) for generation in generations])
        self._draining.addCallback(lambda _: closing).addCallback(lambda _: self._finish())

    def reload(self) -> Deferred[None]:
        """
        Read the configuration again, and serve it if nothing is wrong with it.

        :return: fires when it is served, or when the log says why it is not. One at a time: while one is under way it
            is that one's, and another follows it.
        """
        if self._draining is not None or self._make_next is None:
            return succeed(None)
        if self._reloading is None:
            self._reloading = Deferred.fromCoroutine(self._reload(self._make_next))
            self._reloading.addErrback(self._complain, "The configuration could not be read again")
            self._reloading.addBoth(self._reloaded)
            return self._reloading
        return self._reloading.addCallback(lambda _: self.reload())

    async def _reload(self, make_next: Callable[[], Generation]) -> None:
        # The time is for Type=notify-reload: systemd waits for a READY that is newer.
        now = time.monotonic_ns() // 1000
        notify(f"RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=Reading the configuration again")
        before = self._generation
        try:
            after = make_next()
            after.bind(before.sockets)
        except ConfigError as mistake:
            for line in str(mistake).split("\n"):
                self._log.error("Everything stays as it was: {line}", line=line)
            return
        try:
            await after.start()
        except Exception as problem:
            for bound in set(after.sockets).difference(before.sockets):
                bound.discard()
            if isinstance(problem, (ConfigError, OSError)):
                self._log.error("Everything stays as it was: {reason}", reason=str(problem))
            else:
                self._log.failure("Everything stays as it was: the new configuration could not be started")
            return
        if self._draining is not None:
            await after.stop_deliveries()
            return
        after.take_over()
        self._generation = after
        for bound in after.sockets:
            if bound not in self._ports:
                self._ports[bound] = after.open(bound)
        for bound in set(before.sockets).difference(after.sockets):
            await maybeDeferred(self._ports.pop(bound).stopListening)
            bound.remove_file()
        retiring = self._retiring[before] = before.retire()
        retiring.addCallback(lambda _: self._retiring.pop(before, None))
        await before.left()
        self._log.info("The configuration was read again")
        self._say_what_runs()

    def _reloaded(self, result: object) -> None:
        self._reloading = None
        if self._draining is None:
            notify(f"READY=1\nSTATUS=Listening on {len(self._ports)} sockets")

    def _accept(self, _: object) -> None:
        if self._draining is not None:
            # Stopped while the deliveries were still starting.
            return
        self._generation.take_over()
        for bound in self._generation.sockets:
            self._ports[bound] = self._generation.open(bound)
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
        self._set_signal_handler(signal.SIGHUP, self._on_hangup)

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
        hurrying = gatherResults([generation.hurry() for generation in (self._generation, *self._retiring)])
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
        for bound in self._generation.sockets:
            try:
                (bound.remove_file if self._ports else bound.discard)()
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
