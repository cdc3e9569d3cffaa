"""When a watcher reads certificates again, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, formatEvent

from smtpfw.tls import CertificateStore, Watcher
from smtpfw.tls.watching import PATIENCE, SETTLING
from tests.tls.pairs import make_pair, put

INTERVAL = 60.0


class Watched:
    """A watcher with all that is around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write(make_pair("a.test").both)
        self.store = CertificateStore(str(folder))
        self.clock = Clock()
        self.events: list[LogEvent] = []
        self.watcher = Watcher(self.store, self.clock, INTERVAL, Logger("watched", observer=self.events.append))
        self.watcher.start()

    def write(self, content: bytes) -> None:
        put(self.folder / "a.pem", content)

    def after(self, seconds: float) -> list[tuple[LogLevel, str]]:
        """What is logged in that time."""
        del self.events[:]
        self.clock.advance(seconds)
        return [(event["log_level"], formatEvent(event)) for event in self.events]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.watcher.stop()
    # Nothing is left that could ring.
    assert made.clock.getDelayedCalls() == []


@pytest.fixture
def reads(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often everything has been read again."""
    calls: list[float] = []
    reload = watched.store.reload

    def counted() -> object:
        calls.append(watched.clock.seconds())
        return reload()

    monkeypatch.setattr(watched.store, "reload", counted)
    return lambda: len(calls)


def test_nothing_is_read_without_a_change(watched: Watched, reads: Callable[[], int]) -> None:
    for _ in range(5):
        assert watched.after(INTERVAL) == []
    assert reads() == 0


def test_a_new_certificate_is_served_when_it_has_settled(watched: Watched, reads: Callable[[], int]) -> None:
    old = watched.store.certificates
    watched.write(make_pair("a.test").both)
    assert watched.after(INTERVAL) == []
    assert watched.store.certificates == old
    ((level, line),) = watched.after(SETTLING)
    assert level is LogLevel.info
    assert line.startswith("Certificate replaced: a.test (ECDSA, until ")
    assert watched.store.certificates != old
    assert watched.after(INTERVAL) == []
    assert reads() == 1


def test_what_is_still_being_written_is_not_read(watched: Watched, reads: Callable[[], int]) -> None:
    content = make_pair("a.test").both
    watched.write(content[:10])
    watched.after(INTERVAL)
    for end in range(20, 60, 10):
        watched.write(content[:end])
        assert watched.after(SETTLING) == []
    assert reads() == 0
    watched.write(content)
    assert watched.after(SETTLING) == []
    assert len(watched.after(SETTLING)) == 1
    assert reads() == 1


def test_half_a_pair_is_not_told_when_the_other_half_comes_soon(tmp_path: Path) -> None:
    first, second = make_pair("a.test"), make_pair("a.test")
    watched = Watched(tmp_path / "certs")
    put(watched.folder / "b.crt", first.certificate)
    put(watched.folder / "b.key", first.key)
    watched.after(INTERVAL)
    assert len(watched.after(SETTLING)) == 1
    put(watched.folder / "b.crt", second.certificate)
    assert watched.after(INTERVAL) == []
    assert watched.after(SETTLING) == []
    put(watched.folder / "b.key", second.key)
    assert watched.after(PATIENCE) == []
    ((level, line),) = watched.after(SETTLING)
    assert level is LogLevel.info
    assert line.startswith("Certificate replaced: a.test")


def test_what_stays_out_of_order_is_told_once(watched: Watched, reads: Callable[[], int]) -> None:
    watched.write(b"")
    assert watched.after(INTERVAL) == []
    assert watched.after(SETTLING) == []
    ((level, line),) = watched.after(PATIENCE)
    assert level is LogLevel.error
    assert line.startswith(f"{watched.folder}/a.pem: neither a certificate nor a key")
    assert "; the certificate from before stays in use, until " in line
    for _ in range(3):
        assert watched.after(INTERVAL) == []
    # And yet it is tried.
    assert reads() == 5


def test_another_problem_is_told_as_well(watched: Watched) -> None:
    watched.write(b"")
    for seconds in (INTERVAL, SETTLING, PATIENCE):
        watched.after(seconds)
    watched.write(make_pair("a.test").certificate[:100])
    assert watched.after(INTERVAL) == []
    assert watched.after(SETTLING) == []
    ((level, line),) = watched.after(PATIENCE)
    assert level is LogLevel.error
    assert "has no end" in line


def test_the_end_of_a_problem_is_told(watched: Watched) -> None:
    watched.write(b"")
    for seconds in (INTERVAL, SETTLING, PATIENCE):
        watched.after(seconds)
    watched.write(make_pair("a.test").both)
    watched.after(INTERVAL)
    lines = [line for _, line in watched.after(SETTLING)]
    assert len(lines) == 2
    assert lines[1] == "All certificates are in order again"


def test_a_problem_that_no_stat_shows_the_end_of(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    new = make_pair("a.test").both
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(24, "Too many open files")))
    watched.write(new)
    for seconds in (INTERVAL, SETTLING):
        assert watched.after(seconds) == []
    ((level, line),) = watched.after(PATIENCE)
    assert level is LogLevel.error
    assert f"{watched.folder}/a.pem: too many open files" in line
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    lines = [line for _, line in watched.after(INTERVAL)]
    assert len(lines) == 2
    assert lines[0].startswith("Certificate replaced: a.test")


def test_a_fault_of_ours_is_not_the_last_look(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(watched.store, "changed", fail)
        ((level, line),) = watched.after(INTERVAL)
        assert level is LogLevel.critical
        assert line == "Certificates could not be read again"
    watched.write(make_pair("a.test").both)
    watched.after(INTERVAL)
    assert len(watched.after(SETTLING)) == 1


def test_what_a_signal_has_read_is_not_told_twice(watched: Watched, reads: Callable[[], int]) -> None:
    watched.write(make_pair("a.test").both)
    watched.after(INTERVAL)
    assert watched.store.reload()
    assert watched.after(SETTLING) == []
    assert reads() == 1


def test_start_and_stop(watched: Watched, reads: Callable[[], int]) -> None:
    watched.watcher.start()
    assert len(watched.clock.getDelayedCalls()) == 1
    watched.watcher.stop()
    watched.watcher.stop()
    watched.write(make_pair("a.test").both)
    assert watched.after(10 * INTERVAL) == []
    watched.watcher.start()
    watched.after(INTERVAL)
    assert len(watched.after(SETTLING)) == 1
