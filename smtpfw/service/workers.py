"""
One configuration while several processes serve it, and this one watches over them.

Rule 1: this process binds the sockets, keeps them open and accepts nothing.
What is in a socket's queue when a worker dies waits there for another.

Rule 2: a worker that ends is started again: at once if it had been serving for
a while, else later and later. Meanwhile the others take its connections.

Rule 3: a worker begins to accept when all are ready, and on from then. So a
configuration that one of them can't start has never served anybody.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from smtpfw.config import ServicePlan
from smtpfw.config.log_files import LogFile
from smtpfw.config.sockets import BoundSocket
from smtpfw.errors import ConfigError
from smtpfw.service.generation import Generation
from smtpfw.service.launcher import Launcher, Worker
from smtpfw.service.shares import describe_shares

__all__ = ["Workers"]

#: Seconds: a worker that ends before it has been serving for so long is not started again at once each time.
YOUNG = 5.0

#: Seconds until it is, at most.
MAX_DELAY = 30.0

#: Seconds that a worker has for something that takes it no time at all.
PATIENCE = 3.0

#: Seconds that a worker has behind the grace time: sessions close and deliveries say goodbye. With the default grace
#: time they are over before TimeoutStopSec of the unit is, which would be a failure.
ENDING = 9.0

#: Seconds that a worker has to become ready, when it takes the place of another.
READY_LIMIT = 60.0

#: Seconds between two looks at the length of the log.
LOG_INTERVAL = 5.0


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
        # Each worker watches its certificates.
        self._watchers = []
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
        self._looking: IDelayedCall | None = None
        self._limits: dict[Worker, IDelayedCall] = {}

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
            # Stopped before it began.
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

    def unready(self) -> str:
        """The workers that :meth:`start` is waiting for, in words."""
        unready = [worker for _, worker in sorted(self._workers.items()) if not worker.ready]
        return ", ".join(f"worker {worker.number}, process {worker.pid}" for worker in unready) or "a worker"

    def take_over(self) -> None:
        """New connections are for this configuration from now on."""
        super().take_over()
        self._serving = True
        self._divide()
        self._look_at_log()

    async def left(self) -> None:
        """Wait until no new connection can come to these workers, but not long for one that does not answer."""
        for worker in list(self._workers.values()):
            call = self._reactor.callLater(PATIENCE, worker.has_retired)
            await worker.retired
            if call.active():
                call.cancel()

    def stop(self, grace: float) -> Deferred[Any]:
        """End all connections, and the workers; who hangs is killed some time behind the grace time."""
        return self._leave("drain", grace + ENDING)

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
        worker = Worker(number, self._reactor, self._told, self._ended)
        rows = [bound.filenos() for bound in self.sockets]
        config = None if self._config is None else self._config.fileno()
        try:
            link = self._launcher.start(worker, number, len(self._numbers), rows, config)
        except OSError as error:
            if self._serving:
                self._ended(worker, f"can't be started ({sys.executable}: {error.strerror})")
            else:
                self._begun(ConfigError(f"worker {number}: {sys.executable} can't be started: {error.strerror}"))
            return
        self._workers[number] = worker
        if self._serving:
            # Before, it is the start that has a limit.
            self._limits[worker] = self._reactor.callLater(READY_LIMIT, self._hangs, worker)
        worker.begin(link)

    def _told(self, worker: Worker, line: str) -> None:
        if line == "ready":
            worker.ready, worker.since = True, time.monotonic()
            self._end_limit(worker)
            if self._serving:
                self._log.info("Worker {number} serves, process {pid}", number=worker.number, pid=worker.pid)
                self._divide()
            elif len(self._workers) == len(self._numbers) and all(one.ready for one in self._workers.values()):
                self._begun()
        elif line == "retired":
            worker.has_retired()

    def _hangs(self, worker: Worker) -> None:
        del self._limits[worker]
        self._log.error(
            "Worker {number}, process {pid}, is not ready after {limit:g} s; it is killed",
            number=worker.number,
            pid=worker.pid,
            limit=READY_LIMIT,
        )
        worker.kill()

    def _end_limit(self, worker: Worker) -> None:
        limit = self._limits.pop(worker, None)
        if limit is not None:
            limit.cancel()

    def _ended(self, worker: Worker, how: str) -> None:
        self._end_limit(worker)
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
            "Worker {number}, process {pid}, {how}; another takes its place {when}",
            number=worker.number,
            pid=worker.pid or "-",
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

    def _leave(self, word: str, limit: float | None = None) -> Deferred[None]:
        """Say so to all; who is still there after so many seconds is killed."""
        self._leaving = True
        delayed, self._delayed = self._delayed, {}
        for call in delayed.values():
            call.cancel()
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        for worker in self._workers.values():
            worker.say(word)
        if not self._workers:
            self._all_gone()
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        if limit is not None:
            call = self._reactor.callLater(limit, self._kill)
            gone.addCallback(lambda _: call.cancel() if call.active() else None)
        return gone

    def _end_now(self) -> Deferred[None]:
        return self._leave("end", PATIENCE)

    def _kill(self) -> None:
        for worker in list(self._workers.values()):
            self._log.warn(
                "Worker {number}, process {pid}, does not end; it is killed", number=worker.number, pid=worker.pid
            )
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

    def _look_at_log(self) -> None:
        """Begin a new file when it is time; this process itself has little to write, and would not notice."""
        log = self._log_file
        if log is not None:
            if log.shouldRotate():
                log.rotate()  # type: ignore[no-untyped-call]
            self._looking = self._reactor.callLater(LOG_INTERVAL, self._look_at_log)

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
    """
    Keep what workers shall read.

    :raises ConfigError: if there is no room for it.
    """
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - workers read it as long as there are any
        try:
            # On a disk that is almost full, write() takes a part and says so; half a file may be a valid one.
            rest = memoryview(octets)
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise ConfigError(f"no copy of the configuration could be kept for the workers: {error.strerror}") from None
    return file
