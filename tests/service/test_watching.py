"""How workers are watched over, in memory with fakes: what hangs is killed, and what is kept for them is whole."""

import errno
import tempfile
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw.config import ServicePlan
from smtpfw.config.places import Place
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError
from smtpfw.service import workers
from smtpfw.service.launcher import Worker
from smtpfw.service.workers import ENDING, PATIENCE, READY_LIMIT, Workers


class Reactor(Clock):
    def callWhenRunning(self, call: Any, *args: Any) -> None:
        call(*args)


class FakeWorker(Worker):
    """A process that hears, and does nothing."""

    started: "list[FakeWorker]"

    def begin(self, sock: object) -> None:
        self.pid = 100 + len(self.started)
        self.heard: list[str] = []
        self.started.append(self)

    def say(self, line: str, descriptors: object = ()) -> None:
        self.heard.append(line)

    def kill(self) -> None:
        self._ended(self, "was ended by SIGKILL")


class FakeLauncher:
    observer = None

    def start(self, *_: object) -> None:
        """There is no process."""


class WatchingTests(TestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        FakeWorker.started = self.started = []
        self.patch(workers, "Worker", FakeWorker)
        plan = ServicePlan(listen=(), deliveries=(), settings=Values(Place("")))
        self.generation = Workers(plan, self.reactor, 2, FakeLauncher())  # type: ignore[arg-type]
        self.starting = Deferred.fromCoroutine(self.generation.start())

    def serve(self) -> None:
        for worker in self.started:
            worker._told(worker, "ready")
        self.successResultOf(self.starting)
        self.generation.take_over()

    def test_who_is_waited_for(self) -> None:
        first, _ = self.started
        first._told(first, "ready")
        self.assertEqual(self.generation.unready(), "worker 2, process 101")
        ending = self.generation.stop_deliveries()
        self.reactor.advance(PATIENCE)
        self.successResultOf(ending)

    def test_a_drain_waits_for_its_grace_and_not_for_ever(self) -> None:
        self.serve()
        first, _ = self.started
        stopping = self.generation.stop(7)
        self.assertEqual(first.heard[-1], "drain")
        first.kill()
        self.reactor.advance(7)
        self.assertNoResult(stopping)
        with capturedLogs() as events:
            self.reactor.advance(ENDING)
        self.successResultOf(stopping)
        self.assertEqual(
            [formatEvent(event) for event in events], ["Worker 2, process 101, does not end; it is killed"]
        )

    def test_a_drain_that_ends_leaves_nothing_behind(self) -> None:
        self.serve()
        stopping = self.generation.stop(7)
        for worker in list(self.started):
            worker.kill()
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_worker_that_hangs_when_it_takes_the_place_of_another(self) -> None:
        self.serve()
        self.started[0].kill()
        self.reactor.advance(0)
        self.assertEqual(len(self.started), 3)
        with capturedLogs() as events:
            self.reactor.advance(READY_LIMIT)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "Worker 1, process 102, is not ready after 60 s; it is killed",
                "Worker 1, process 102, was ended by SIGKILL; another takes its place in 1 s",
            ],
        )
        self.reactor.advance(1)
        again = self.started[3]
        again._told(again, "ready")
        self.reactor.advance(READY_LIMIT)
        self.assertEqual(len(self.started), 4)


class File:
    """One that takes three octets at a time, and then no more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held = b""
        self.closed = False

    def write(self, octets: memoryview) -> int:
        if len(self.held) == self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(octets[:3])
        self.held += part
        return len(part)

    def close(self) -> None:
        self.closed = True


def test_what_workers_read_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: File(99))
    assert workers._keep(b"12345678").held == b"12345678"


def test_half_a_configuration_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(6)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: file)
    with pytest.raises(ConfigError, match="kept for the workers: No space left on device"):
        workers._keep(b"12345678")
    assert file.closed
