"""
One configuration while several processes serve it, and this one watches over them.

Rule 1: this process binds the sockets, keeps them open and accepts nothing.
What is in a socket's queue when a worker dies waits there for another.

Rule 2: a worker that ends is started again: at once if it had been serving for
a while, else later and later. Meanwhile the others take its connections.

Rule 3: a worker begins to accept when all are ready, and on from then. So a
configuration that one of them can't start has never served anybody.

Rule 4: what a worker prints, and what Python prints when it dies, is in the log.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpfw.config import ServicePlan
from smtpfw.config.logging import LogFile, Observer, ProtocolLog
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.systemd import SOCKET as NOTIFY_SOCKET
from smtpfw.errors import ConfigError
from smtpfw.service.generation import Generation
from smtpfw.service.link import Link
from smtpfw.service.shares import describe_shares
from smtpfw.service.worker import VARIABLE, Task

__all__ = ["Launcher", "Workers"]

#: Seconds: a worker that ends before it has been serving for so long is not started again at once each time.
YOUNG = 5.0

#: Seconds until it is, at most.
MAX_DELAY = 30.0

#: Seconds that a worker has for something that takes it no time at all.
PATIENCE = 3.0

#: Octets of a line that a worker prints; there may be no end of it.
_MAX_LINE = 8192

# sys.path first: it may be that Twisted is found by it only, and the current folder does not belong there.
_RUN = (
    "import json, os, sys; "
    f"sys.path[:] = json.loads(os.environ['{VARIABLE}'])['path']; "
    "from twisted.scripts.twistd import run; run()"
)

#: What twistd's options mean for each process, and not only for the first.
_TWISTD = ("reactor", "logger", "prefix")

#: What systemd says to the process that it has started.
_NOT_INHERITED = {NOTIFY_SOCKET, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}


@dataclass(kw_only=True)
class Launcher:
    """
    How workers are started.

    :ivar words: our own options, as they were given.
    :ivar twistd: twistd's.
    :ivar observer: writes the log.
    :ivar protocol_log: the other log.
    """

    reactor: Any
    words: list[str]
    twistd: Mapping[str, Any]
    observer: Observer | None = None
    protocol_log: ProtocolLog | None = None
    folder: Path = field(default_factory=Path.cwd)
    path: list[str] = field(default_factory=lambda: [str(Path(entry).absolute()) for entry in sys.path])

    def start(
        self, worker: Worker, number: int, workers: int, sockets: list[list[int]], config: int | None
    ) -> socket.socket:
        """
        Start a process.

        :return: our end of the link.
        :raises OSError: if the system has no more processes, or files, for us.
        """
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            descriptors: dict[int, Any] = {0: null, 1: "r", 2: "r"}

            def give(descriptor: int) -> int:
                descriptors[len(descriptors)] = descriptor
                return len(descriptors) - 1

            log = None if self.observer is None else self.observer.destination
            protocol_log = None if self.protocol_log is None else self.protocol_log.descriptor
            task = Task(
                number=number,
                workers=workers,
                sockets=[[give(one) for one in row] for row in sockets],
                link=give(theirs.fileno()),
                log=None if log is None else give(log.fileno()),
                protocol_log=None if protocol_log is None else give(protocol_log),
                config=None if config is None else give(config),
            )
            environ = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
            environ[VARIABLE] = task.text(path=self.path)
            self.reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-c", _RUN, *self._twistd(), "smtpfw", *self.words],
                environ,
                # A folder that we are in already may be one that we could not enter again.
                None if Path.cwd() == self.folder else str(self.folder),
                childFDs=descriptors,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(null)
        return ours

    def _twistd(self) -> list[str]:
        words = ["--nodaemon", "--pidfile="]
        words += [f"--{name}={self.twistd[name]}" for name in _TWISTD if self.twistd.get(name)]
        return [*words, "--syslog"] if self.twistd.get("syslog") else words


class Worker(ProcessProtocol):
    """
    A process.

    :param told: called with a line that it says over its link.
    :param ended: called when it has ended, with what is known about that, in words.
    """

    _log = Logger()

    def __init__(self, number: int, told: Callable[[Worker, str], None], ended: Callable[[Worker, str], None]) -> None:
        self.number = number
        self.ready = False
        self.retired: Deferred[None] = Deferred()
        self.serves: tuple[int, ...] = ()
        self.since = time.monotonic()
        self.link: Link | None = None
        self._told = told
        self._ended = ended
        self._lines = {1: b"", 2: b""}

    @property
    def pid(self) -> int:
        """The number of the process."""
        pid: int = self.transport.pid  # type: ignore[union-attr]
        return pid

    def begin(self, reactor: Any, sock: socket.socket) -> None:
        """Hear what it says."""
        self.link = Link(reactor, sock, lambda line, _: self._told(self, line), lambda: None)
        self.link.listen()

    def say(self, line: str, descriptors: Iterable[int] = ()) -> None:
        """Tell it something."""
        if self.link is not None:
            self.link.say(line, list(descriptors))

    def kill(self) -> None:
        """End it, whatever it does."""
        self._signal(signal.SIGKILL)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        """It has printed something."""
        *lines, rest = (self._lines[childFD] + data).split(b"\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], b""
        self._lines[childFD] = rest
        for line in lines:
            self._print(line)

    def processExited(self, reason: Failure) -> None:
        """It has ended; what it has started may still hold what it printed to."""
        if self.link is not None:
            self.link.close()
        if not self.retired.called:
            self.retired.callback(None)
        value: Any = reason.value
        if isinstance(value, ProcessDone):
            how = "has ended"
        elif value.signal is not None:
            how = f"was ended by {_name(value.signal)}"
        else:
            how = f"has ended with status {value.exitCode}"
        self._ended(self, how)

    def processEnded(self, reason: Failure) -> None:
        """Nothing more will be printed."""
        for rest in self._lines.values():
            self._print(rest)

    def _print(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip()
        if text:
            self._log.warn("worker {worker} prints: {text}", worker=self.number, text=text)

    def _signal(self, number: int) -> None:
        if self.transport is not None and self.transport.pid is not None:
            os.kill(self.transport.pid, number)


class Workers(Generation):
    """
    Several processes that serve a plan.

    :param plan: of one of them.
    :param number: how many.
    :param config: what stands in the configuration file, or None without one: a worker that is started later must not
        read another one than was checked.
    """

    _log = Logger()

    def __init__(
        self,
        plan: ServicePlan,
        reactor: Any,
        number: int,
        launcher: Launcher,
        config: bytes | None = None,
    ) -> None:
        super().__init__(plan, reactor)
        self._numbers = tuple(range(1, number + 1))
        self._launcher = launcher
        self._config = None if config is None else _keep(config)
        self._workers: dict[int, Worker] = {}
        # How often each has ended young, one time after the other.
        self._early: dict[int, int] = dict.fromkeys(self._numbers, 0)
        self._delayed: dict[int, IDelayedCall] = {}
        self._starting: Deferred[None] | None = None
        self._serving = False
        self._leaving = False
        self._gone: list[Deferred[None]] = []

    def bind(self, others: Iterable[BoundSocket] = ()) -> None:
        """As :meth:`Generation.bind`, and have a socket for each worker where that is possible."""
        before = list(others)
        super().bind(before)
        for listen, seats in zip(self.plan.listen, self.seats, strict=True):
            for listener, (bound, _) in zip(listen.listeners, seats, strict=True):
                try:
                    bound.spread(len(self._numbers))
                except OSError as error:
                    for new in set(self.sockets).difference(before):
                        new.discard()
                    raise listener.error(f"no socket for each worker could be had: {error.strerror}") from None

    def describe(self) -> list[str]:
        """What is served, in words."""
        pids = ", ".join(str(self._workers[number].pid) for number in sorted(self._workers))
        return [*super().describe(), *describe_shares(self.plan, len(self._numbers)), f"The workers' processes: {pids}"]

    def open(self, bound: BoundSocket) -> Any:
        """Keep the socket, which the workers accept from."""
        return _Held(bound)

    async def start(self) -> None:
        """
        Start the workers, and wait until all are ready.

        :raises ConfigError: if one ends before; the others have been ended then.
        """
        running: Deferred[None] = Deferred()
        # Only then the ends of processes are heard of.
        self._reactor.callWhenRunning(running.callback, None)
        await running
        if self._leaving:
            return
        self._starting = Deferred()
        log = self._log_file
        if log is not None:
            log.reopened.append(self._hand_out_log)
        for number in self._numbers:
            self._spawn(number)
        try:
            await self._starting
        except ConfigError:
            await self._end_now()
            raise
        finally:
            self._starting = None

    def take_over(self) -> None:
        """New connections are for this configuration from now on."""
        super().take_over()
        self._serving = True
        self._divide()

    async def left(self) -> None:
        """Wait until no new connection can come to these workers, but not for one that does not answer."""
        for worker in list(self._workers.values()):
            call = self._reactor.callLater(PATIENCE, worker.kill)
            await worker.retired
            if call.active():
                call.cancel()

    def stop(self, grace: float) -> Deferred[Any]:
        """End all connections, and the workers."""
        return self._leave("drain")

    def retire(self) -> Deferred[Any]:
        """Have the workers end when their last connections are gone by themselves."""
        return self._leave("retire")

    def hurry(self) -> Deferred[Any]:
        """End the workers at once, and kill those that don't."""
        return self._end_now()

    def stop_deliveries(self) -> Deferred[Any]:
        """End the workers: the deliveries are theirs."""
        return self._end_now()

    # -- the processes ------------------------------------------------------------

    def _spawn(self, number: int) -> None:
        self._delayed.pop(number, None)
        worker = Worker(number, self._told, self._ended)
        rows = [bound.filenos() for bound in self.sockets]
        config = None if self._config is None else self._config.fileno()
        try:
            link = self._launcher.start(worker, number, len(self._numbers), rows, config)
        except OSError as error:
            self._ended(worker, f"can't be started: {error.strerror}")
            return
        self._workers[number] = worker
        worker.begin(self._reactor, link)

    def _told(self, worker: Worker, line: str) -> None:
        if line == "ready":
            worker.ready, worker.since = True, time.monotonic()
            if self._serving:
                self._log.info("Worker {worker} serves, process {pid}", worker=worker.number, pid=worker.pid)
                self._divide()
            elif len(self._workers) == len(self._numbers) and all(one.ready for one in self._workers.values()):
                self._begun()
        elif line == "retired" and not worker.retired.called:
            worker.retired.callback(None)

    def _ended(self, worker: Worker, how: str) -> None:
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]
        if self._leaving:
            if not self._workers:
                self._all_gone()
            return
        if not self._serving:
            self._begun(ConfigError(f"worker {worker.number} {how} before it was ready; the log says why"))
            return
        delay = self._delay(worker)
        self._log.error(
            "Worker {worker}, process {pid}, {how}; another takes its place {when}",
            worker=worker.number,
            pid=worker.pid if worker.transport is not None else "-",
            how=how,
            when=f"in {delay:g} s" if delay else "at once",
        )
        self._delayed[worker.number] = self._reactor.callLater(delay, self._spawn, worker.number)
        self._divide()

    def _delay(self, worker: Worker) -> float:
        if worker.ready and time.monotonic() - worker.since >= YOUNG:
            self._early[worker.number] = 0
        early = self._early[worker.number]
        self._early[worker.number] += 1
        return float(min(2 ** (early - 1), MAX_DELAY)) if early else 0.0

    def _divide(self) -> None:
        """Each has its own sockets, and all have those of who is missing."""
        ready = [worker for worker in self._workers.values() if worker.ready]
        missing = set(self._numbers).difference(worker.number for worker in ready)
        for worker in ready:
            serves = tuple(sorted({worker.number, *missing}))
            if worker.serves != serves:
                worker.serves = serves
                worker.say(f"serve {' '.join(map(str, serves))}")

    def _begun(self, problem: ConfigError | None = None) -> None:
        if self._starting is not None and not self._starting.called:
            if problem is None:
                self._starting.callback(None)
            else:
                self._starting.errback(problem)

    def _leave(self, word: str) -> Deferred[None]:
        self._leaving = True
        delayed, self._delayed = self._delayed, {}
        for call in delayed.values():
            call.cancel()
        for worker in self._workers.values():
            worker.say(word)
        if not self._workers:
            self._all_gone()
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        return gone

    def _end_now(self) -> Deferred[None]:
        gone = self._leave("end")
        call = self._reactor.callLater(PATIENCE, self._kill)

        def cancel(result: None) -> None:
            if call.active():
                call.cancel()

        return gone.addCallback(cancel)

    def _kill(self) -> None:
        for worker in list(self._workers.values()):
            worker.kill()

    def _all_gone(self) -> None:
        # Whoever waits for the start is told that there is nothing to wait for; he knows why.
        self._begun()
        log = self._log_file
        if log is not None and self._hand_out_log in log.reopened:
            log.reopened.remove(self._hand_out_log)
        if self._config is not None:
            self._config.close()
            self._config = None
        gone, self._gone = self._gone, []
        for one in gone:
            one.callback(None)

    # -- the log ------------------------------------------------------------------

    @property
    def _log_file(self) -> LogFile | None:
        observer = self._launcher.observer
        return observer.destination if observer and isinstance(observer.destination, LogFile) else None

    def _hand_out_log(self, descriptor: int) -> None:
        for worker in self._workers.values():
            worker.say("log", [descriptor])


class _Held:
    """Stands for a port: a socket that is open, and that others accept from."""

    def __init__(self, bound: BoundSocket) -> None:
        self._bound = bound

    def stopListening(self) -> None:
        """Close it here."""
        self._bound.close()


def _keep(octets: bytes) -> Any:
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - workers read it as long as there are any
    file.write(octets)
    return file


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
