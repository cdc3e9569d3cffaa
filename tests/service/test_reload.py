"""SIGHUP, in memory with fakes: what can go wrong behind it, and what comes at the same time."""

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw.backends.memory import MemoryBackend
from smtpfw.config import ServicePlan
from smtpfw.config.places import Place
from smtpfw.config.plan import Delivery
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError
from smtpfw.service import Options, SMTPService, makeService
from smtpfw.service.generation import Generation
from smtpfw.service.hangup import EarlyHangup
from smtpfw.service.service import START_LIMIT


class Reactor(Clock):
    """The clock of the tests; what waits for it runs at once."""

    def callWhenRunning(self, call: Any, *args: Any) -> None:
        call(*args)

    def callFromThread(self, call: Any, *args: Any) -> None:
        call(*args)

    def stop(self) -> None:
        pass


class Port:
    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name
        self.closed: Deferred[None] = succeed(None)

    def stopListening(self) -> Deferred[None]:
        self.log.append(f"{self.name} closed")
        return self.closed


class Socket:
    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.endpoint = self.own_path = name
        self.problem: OSError | None = None

    def remove_file(self) -> None:
        if self.problem is not None:
            raise self.problem
        self.log.append(f"{self.endpoint} removed")

    def discard(self) -> None:
        self.log.append(f"{self.endpoint} discarded")


class FakeGeneration(Generation):
    """One that says what it is asked for."""

    def __init__(self, log: list[str], name: str, sockets: Iterable[Socket]) -> None:
        settings = Values(Place("a test"))
        settings.set("grace", 7.0, settings.place)
        super().__init__(ServicePlan(listen=(), deliveries=(), settings=settings), Reactor())
        self.log = log
        self.name = name
        self.mine = list(sockets)
        self.starting: Deferred[None] = succeed(None)
        self.retiring: Deferred[None] = Deferred()
        self.broken: set[str] = set()
        self.ports: dict[Any, Port] = {}

    @property
    def sockets(self) -> list[Any]:
        return self.mine

    def describe(self) -> list[str]:
        return []

    def open(self, bound: Any) -> Any:
        if bound.endpoint in self.broken:
            raise OSError(9, "Bad file descriptor")
        self.ports[bound] = Port(self.log, bound.endpoint)
        return self.ports[bound]

    def take_over(self) -> None:
        self.log.append(f"{self.name} takes over")

    def unready(self) -> str:
        return f"what {self.name} needs"

    async def start(self) -> None:
        await self.starting

    def stop(self, grace: float) -> Deferred[Any]:
        self.log.append(f"{self.name} drains")
        return succeed(None)

    def retire(self) -> Deferred[Any]:
        self.log.append(f"{self.name} retires")
        return self.retiring

    def stop_deliveries(self) -> Deferred[Any]:
        self.log.append(f"{self.name} ends")
        return succeed(None)


class ReloadTests(TestCase):
    def setUp(self) -> None:
        self.did: list[str] = []
        self.reactor = Reactor()
        self.handlers: dict[int, Any] = {}
        self.a, self.b, self.c = (Socket(self.did, name) for name in "abc")
        self.before = FakeGeneration(self.did, "before", [self.a, self.b])
        self.after = FakeGeneration(self.did, "after", [self.a, self.c])
        self.offered: list[list[Any]] = []
        self.nexts = [self.after]
        self.service = SMTPService(
            self.before, self.reactor, self.make_next, set_signal_handler=self.handlers.__setitem__
        )

    def make_next(self, sockets: Iterable[Any]) -> Generation:
        self.offered.append(list(sockets))
        if not self.nexts:
            raise ConfigError("there is no other")
        return self.nexts.pop(0)

    def start(self) -> None:
        self.service.startService()
        self.did.clear()

    def test_all_in_order(self) -> None:
        self.start()
        self.successResultOf(self.service.reload())
        self.assertEqual(self.did, ["after takes over", "b removed", "b closed", "before retires"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_file_that_can_not_be_removed(self) -> None:
        self.start()
        self.b.problem = PermissionError(13, "Permission denied")
        with capturedLogs() as events:
            self.successResultOf(self.service.reload())
        self.assertEqual(self.did, ["after takes over", "b closed", "before retires"])
        self.assertIn("b could not be removed: Permission denied", [formatEvent(event) for event in events])

    def test_a_port_that_can_not_be_opened(self) -> None:
        self.start()
        self.after.broken.add("c")
        self.successResultOf(self.service.reload())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.did, ["after takes over", "c discarded", "b removed", "b closed", "before retires"])
        # The next one binds it anew.
        self.successResultOf(self.service.reload())
        self.assertEqual(self.offered, [[self.a, self.b], [self.a]])

    def test_what_fails_in_the_middle_does_not_keep_the_rest_from_being_done(self) -> None:
        self.start()
        self.patch(self.after, "take_over", lambda: 1 / 0)
        self.patch(self.before, "retire", lambda: 1 / 0)
        self.patch(self.before, "left", lambda: 1 / 0)
        self.successResultOf(self.service.reload())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(self.did, ["b removed", "b closed"])
        self.assertEqual(self.service.sockets, [self.a, self.c])

    def test_a_drain_between_knows_both(self) -> None:
        self.start()
        self.before.ports[self.b].closed = Deferred()
        self.service.reload()
        self.did.clear()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertEqual([one for one in self.did if one.endswith("drains")], ["after drains", "before drains"])
        self.assertEqual(self.did.count("b closed"), 0)

    def test_it_waits_for_the_first_start(self) -> None:
        waiting = self.before.starting = Deferred()
        self.start()
        reloading = self.service.reload()
        self.assertEqual((self.offered, self.did), ([], []))
        waiting.callback(None)
        self.successResultOf(reloading)
        self.assertEqual(self.offered, [[self.a, self.b]])
        self.assertEqual(self.did[:2], ["before takes over", "after takes over"])

    def test_a_first_start_that_fails_is_the_end(self) -> None:
        waiting = self.before.starting = Deferred()
        self.patch(self.service, "_exit_with", self.did.append)
        self.start()
        reloading = self.service.reload()
        waiting.errback(ConfigError("no"))
        self.successResultOf(reloading)
        self.assertEqual((self.offered, self.did), ([], [1]))

    def test_a_start_that_hangs(self) -> None:
        self.start()
        self.after.starting = Deferred()
        self.nexts.append(FakeGeneration(self.did, "third", [self.a]))
        reloading = self.service.reload()
        self.reactor.advance(START_LIMIT - 1)
        self.assertNoResult(reloading)
        with capturedLogs() as events:
            self.reactor.advance(1)
        self.successResultOf(reloading)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["Everything stays as it was: what after needs has not started within 60 s"],
        )
        self.assertEqual(self.did, ["after ends", "c discarded"])
        # It has no say any more, whatever becomes of it, and the way is free.
        self.after.starting.callback(None)
        self.successResultOf(self.service.reload())
        self.assertEqual(self.did[2:], ["third takes over", "b removed", "b closed", "before retires"])

    def test_a_drain_ends_what_is_starting(self) -> None:
        self.start()
        self.after.starting = Deferred()
        self.service.reload()
        self.service.stopService()
        self.assertEqual(
            self.did, ["a closed", "b closed", "a removed", "b removed", "c discarded", "before drains", "after ends"]
        )
        with capturedLogs() as events:
            self.after.starting.callback(None)
        self.assertEqual((self.did[7:], events), ([], []))

    def test_several_are_one(self) -> None:
        self.start()
        self.after.starting = Deferred()
        third = FakeGeneration(self.did, "third", [self.a, self.c])
        self.nexts.append(third)
        first = self.service.reload()
        others = [self.service.reload() for _ in range(3)]
        self.after.starting.callback(None)
        for one in (first, *others):
            self.successResultOf(one)
        self.assertEqual(len(self.offered), 2)
        self.assertEqual(self.did[-2:], ["third takes over", "after retires"])

    def test_a_drain_answers_whoever_waits_for_the_next(self) -> None:
        self.start()
        self.after.starting = Deferred()
        waiting = [self.service.reload() for _ in range(2)]
        self.service.stopService()
        self.after.starting.callback(None)
        for one in waiting:
            self.successResultOf(one)
        self.assertEqual(len(self.offered), 1)

    def test_an_early_one_is_obeyed_when_the_handlers_are_there(self) -> None:
        early = EarlyHangup()
        early(signal.SIGHUP, None)
        self.patch(self.service, "_set_signal_handler", lambda *_: early)
        self.start()
        self.assertEqual(len(self.offered), 1)


class Slow(MemoryBackend):
    def __init__(self) -> None:
        super().__init__()
        self.starting: Deferred[None] = Deferred()
        self.stopping: Deferred[None] = Deferred()
        self.stops = 0

    def start(self) -> Deferred[None]:
        return self.starting

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.stopping


class GenerationTests(TestCase):
    def setUp(self) -> None:
        self.backend = Slow()
        deliveries = (Delivery("deliver.slow", "memory", self.backend),)
        self.generation = Generation(ServicePlan(listen=(), deliveries=deliveries, settings=Values(Place(""))), Clock())
        self.started = Deferred.fromCoroutine(self.generation.start())

    def test_all_who_stop_it_wait_for_the_same_end(self) -> None:
        self.backend.starting.callback(None)
        stopping = [self.generation.stop_deliveries() for _ in range(2)]
        for one in stopping:
            self.assertNoResult(one)
        self.backend.stopping.callback(None)
        for one in stopping:
            self.successResultOf(one)
        self.assertEqual(self.backend.stops, 1)

    def test_what_starts_too_late_is_stopped(self) -> None:
        self.assertEqual(self.generation.unready(), "deliver.slow: the backend")
        self.successResultOf(self.generation.stop_deliveries())
        self.backend.starting.callback(None)
        self.assertEqual(self.backend.stops, 1)
        self.assertNoResult(self.started)
        self.backend.stopping.callback(None)
        self.successResultOf(self.started)


@pytest.fixture
def hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, **twistd: Any) -> Any:
    (folder / "smtpfw.toml").write_text(text)
    monkeypatch.chdir(folder)
    options = Options()
    options.parent = {"rundir": ".", "chroot": None, "logger": None, "logfile": None, "syslog": False, **twistd}
    options.parseOptions(["--config", "smtpfw.toml"])
    return makeService(options)


ONE = '[deliver]\nd = "discard"\n[listen.mx]\non = "unix:a.sock"\nroutes = [ { to = "example.org", deliver = "d" } ]\n'


def test_settings_that_need_a_restart_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangup: None) -> None:
    service = made(tmp_path, monkeypatch, ONE)
    (tmp_path / "smtpfw.toml").write_text(f'umask = "027"\n{ONE}[log]\nlevel = "warn"\n')
    with capturedLogs() as events:
        service._make_next(service.sockets)
    lines = [formatEvent(event) for event in events]
    assert lines == [
        "smtpfw.toml:1: umask: another umask than at the start needs a restart",
        "smtpfw.toml:8: log.level: another log_level than at the start needs a restart",
    ]
    for bound in service.sockets:
        bound.discard()


def test_relative_paths_begin_where_they_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangup: None) -> None:
    (tmp_path / "run").mkdir()
    service = made(tmp_path, monkeypatch, ONE, rundir="run")
    (tmp_path / "smtpfw.toml").write_text(ONE.replace('"unix:a.sock"', '["unix:a.sock", "unix:b.sock"]'))
    monkeypatch.chdir("run")
    after = service._make_next(service.sockets)
    assert [bound.own_path for bound in after.sockets] == [str(tmp_path / "a.sock"), str(tmp_path / "b.sock")]
    assert Path.cwd() == tmp_path / "run"
    (tmp_path / "smtpfw.toml").unlink()
    with pytest.raises(ConfigError, match=r"smtpfw\.toml"):
        service._make_next(service.sockets)
    assert Path.cwd() == tmp_path / "run"
    for bound in after.sockets:
        bound.discard()


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangup: None) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    service = made(inner, monkeypatch, ONE, rundir="..")
    monkeypatch.chdir("..")
    for bound in service.sockets:
        bound.discard()
    (inner / "smtpfw.toml").unlink()
    inner.rmdir()
    with pytest.raises(ConfigError, match="inner: No such file or directory; relative paths begin in this folder"):
        service._make_next([])


def test_an_early_hangup_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangup: None) -> None:
    service = made(tmp_path, monkeypatch, ONE)
    handler = signal.getsignal(signal.SIGHUP)
    assert isinstance(handler, EarlyHangup)
    os.kill(os.getpid(), signal.SIGHUP)
    assert handler.heard
    for bound in service.sockets:
        bound.discard()
