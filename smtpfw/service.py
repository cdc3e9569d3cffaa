"""
What ``twistd smtpfw`` runs: options in, a service that listens, drains and stops out.

Rule 1: what can fail, fails while the service is made: one line on the
terminal, status 1, no traceback and no pid file left behind. Sockets are bound
then and taken over when the service starts.

Rule 2: the first SIGTERM or SIGINT drains: listening ends, idle clients get 421,
messages under way come to their end within the grace time, the backend stops.
A second one does not wait. The exit status is 0 in both cases.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Protocol

from twisted.application.service import IService, Service
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.failure import Failure

from smtpfw.config import ServicePlan, make_plan
from smtpfw.config.describing import (
    describe_auth,
    describe_backend,
    describe_checks,
    describe_listening,
    describe_trial,
)
from smtpfw.config.descriptors import allow_connections
from smtpfw.config.listeners import bind_all, check_ports
from smtpfw.config.logging import make_observer, make_protocol_log
from smtpfw.config.options import ServerOptions
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.systemd import notify
from smtpfw.errors import ConfigError

__all__ = ["Options", "SMTPService", "makeService"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class DrainingFactory(Protocol):
    """The part of ``SMTPServerFactory`` that a service needs."""

    def stop(self, grace: float) -> Deferred[None]:
        """End all sessions within ``grace`` seconds."""


class Options(ServerOptions):
    """The options of ``twistd smtpfw``. A mistake ends the process: one line, status 1."""

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse the command line. twistd would answer a mistake with the whole of its own help, error last."""
        try:
            super().parseOptions(options)
        except usage.UsageError as mistake:
            _give_up(str(mistake))


def makeService(options: ServerOptions) -> IService:
    """
    Make the service that the options ask for, with its sockets bound.

    :raises SystemExit: status 1, after one line on stderr, when something in the options can't be done.
    """
    # Not above: twistd loads this module after --reactor was obeyed, but other importers may not have chosen yet.
    from twisted.internet import reactor

    from smtpfw.server import SMTPServerFactory

    try:
        plan = make_plan(options, reactor)
        observer = make_observer(options, options.parent)
        factory = SMTPServerFactory(
            plan.backend,
            plan.config,
            tls=plan.tls,
            extensions=plan.extensions,
            checks=plan.checks,
            reactor=reactor,
            transcripts=make_protocol_log(options["protocol_log"], options.parent),
        )
        sockets = bind_all(plan.listeners, factory, reactor, plan.tls)
        check_ports(plan.config.protocol, sockets)
    except ConfigError as mistake:
        _give_up(str(mistake))
    return SMTPService(plan, factory, sockets, reactor, observer=observer)


class SMTPService(Service):
    """
    Serves one plan from start to drain.

    :param factory: the factory of ``plan``; an ``IProtocolFactory`` with ``stop(grace) -> Deferred``.
    :param sockets: what :func:`~smtpfw.config.listeners.bind_all` made of the plan's listeners.
    :param set_signal_handler: as :func:`signal.signal`.
    :param exit_with: called with a status that the process shall end with, when it can't start.
    :param observer: writes the log of the process; None for twistd's own.
    """

    _log = Logger()

    def __init__(
        self,
        plan: ServicePlan,
        factory: DrainingFactory,
        sockets: list[BoundSocket],
        reactor: Any,
        set_signal_handler: Callable[[int, Any], Any] = signal.signal,
        exit_with: Callable[[int], None] | None = None,
        observer: ILogObserver | None = None,
    ) -> None:
        self.plan = plan
        self.sockets = sockets
        self._factory = factory
        self._reactor = reactor
        self._set_signal_handler = set_signal_handler
        self._exit_with = exit_with or _exit_with
        self._observer = observer
        self._ports: list[Any] = []
        self._draining: Deferred[None] | None = None
        self._stopped: list[Deferred[None]] = []
        self._backend_stopped = False
        self._over = False

    def setServiceParent(self, parent: Any) -> None:
        """Become a part of twistd's Application, which is asked for an observer before the log begins."""
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Start the backend, then accept connections. Our handlers of signals wait for the reactor to set its own."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._handle_signals)
        starting = maybeDeferred(getattr(self.plan.backend, "start", _nothing))
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
        """Stop listening, let messages under way end within the grace time, then stop the backend. Once."""
        if self._draining is not None:
            return
        self._log.info("Stopping; messages under way have {grace:g} seconds", grace=self.plan.grace)
        notify("STOPPING=1\nSTATUS=Messages under way come to their end")
        # A port closes its socket in the next turn of the reactor, so none is stopped twice.
        closing = DeferredList([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)
        self._discard_sockets()
        self._draining = maybeDeferred(self._factory.stop, self.plan.grace)
        self._draining.addErrback(self._complain, "Sessions could not be ended in order")
        self._draining.addCallback(lambda _: closing)
        self._draining.addCallback(lambda _: self._stop_backend())
        self._draining.addCallback(lambda _: self._finish())

    def _accept(self, _: object) -> None:
        if self._draining is not None:
            # Stopped while the backend was still starting.
            return
        for bound in self.sockets:
            self._ports.append(bound.start(self._reactor))
        few = allow_connections(self.plan.config.max_connections)
        if few is not None:
            self._log.warn(
                "{count} connections need more than {few} open files, which is all we may have; raise ulimit -n",
                count=self.plan.config.max_connections,
                few=few,
            )
        for line in (
            *describe_listening(self.plan, self.sockets),
            *describe_auth(self.plan),
            *describe_checks(self.plan),
            *describe_backend(self.plan),
            *describe_trial(self.plan, self.sockets),
        ):
            self._log.info("{line}", line=line)
        # Whoever is told so may send a signal at once: our handlers are there when the reactor runs.
        self._reactor.callWhenRunning(notify, f"READY=1\nSTATUS=Listening on {len(self._ports)} sockets")

    def _cannot_start(self, failure: Failure) -> None:
        if isinstance(failure.value, (ConfigError, OSError)):
            self._log.critical("smtpfw: can't start: {reason}", reason=failure.getErrorMessage())
        else:
            self._log.failure("smtpfw: can't start: {reason}", failure, reason=failure.getErrorMessage())
        self._exit_with(1)
        # At this moment the reactor may not run yet, and then it can't be stopped.
        self._reactor.callWhenRunning(self._stop_reactor)

    def _handle_signals(self) -> None:
        for number in _SIGNALS:
            self._set_signal_handler(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Python runs this between any two instructions of the main thread; the reactor's own turn is the place to act.
        self._reactor.callFromThread(self._obey_signal)

    def _obey_signal(self) -> None:
        if self._draining is None:
            ended: Deferred[None] = Deferred()
            self._stopped.append(ended)
            ended.addCallback(lambda _: self._stop_reactor())
            self.drain()
            return
        self._log.info("Asked again; stopping at once")
        for number in _SIGNALS:
            # Should anything still hang, the next signal ends the process.
            self._set_signal_handler(number, signal.SIG_DFL)
        # The backend may have threads of its own, without whose end the process would not end.
        maybeDeferred(self._stop_backend)
        self._finish()

    def _stop_backend(self) -> Deferred[object]:
        stop = getattr(self.plan.backend, "stop", _nothing)
        if self._backend_stopped:
            return succeed(None)
        self._backend_stopped = True
        return maybeDeferred(stop).addErrback(self._complain, "The backend could not be stopped in order")

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
        for bound in self.sockets:
            try:
                (bound.remove_file if self._ports else bound.discard)()
            except OSError as problem:
                # After --uid the folder may not be ours any more; the next start removes a stale file.
                self._log.warn("{path} could not be removed: {reason}", path=bound.own_path, reason=problem.strerror)

    def _complain(self, failure: Failure, what: str) -> None:
        self._log.failure(what, failure)


def _nothing() -> None:
    """Stands for ``start`` and ``stop`` of a backend that has none."""


def _give_up(line: str) -> NoReturn:
    sys.stderr.write(f"smtpfw: {line}\n")
    raise SystemExit(1)


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
