"""How a line of the log looks, where it goes, and what happens when it can't go there."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import (
    ILogObserver,
    Logger,
    LogLevel,
    LogPublisher,
    formatEventAsClassicLogText,
    textFileLogObserver,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface.verify import verifyObject

from smtpfw.config.log_files import Descriptor, LineFile
from smtpfw.config.log_lines import format_json, format_text
from smtpfw.config.logging import Observer, make_observer
from smtpfw.config.protocol_log import ProtocolLog, make_protocol_log
from smtpfw.config.settings import BY_NAME
from smtpfw.errors import ConfigError

NOW = 1795264496.789
DEFAULTS = {"log_format": "text", "log_level": "info"}
FOREGROUND = {"nodaemon": True, "logfile": None, "logger": None, "syslog": False}


def event(format: str | None = "{a} and {b}", **fields: Any) -> dict[str, Any]:
    return {
        "log_format": format,
        "log_time": NOW,
        "log_level": LogLevel.info,
        "log_namespace": "smtpfw.server",
        "a": 1,
        "b": "two",
        **fields,
    }


def failure(text: str = "broken") -> Failure:
    try:
        raise RuntimeError(text)
    except RuntimeError:
        return Failure()


class Thing:
    name = "a thing"

    def method(self) -> str:
        return "called"

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def legacy_event(*message: str, **fields: Any) -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    publisher = legacy.LogPublisher(
        observerPublisher=LogPublisher(events.append), publishPublisher=LogPublisher(events.append)
    )
    publisher.msg(*message, **fields)
    return events[0]


# -- text ------------------------------------------------------------------

AS_TWISTED = [
    event(),
    event("no field"),
    event("{a!r} {b:>5} {t.name}", t=Thing),
    event("{t.method()}", t=Thing()),
    event("{list[1]}", list=[1, 2]),
    event(None),
    event(""),
    event(b"{a}"),
    event("{missing}"),
    event("{broken"),
    event(log_level=LogLevel.critical, log_namespace="x.y"),
    event(log_system="-"),
    event("it failed", log_failure=failure()),
    event("", log_failure=failure()),
    event("two\nlines"),
    event("grün 用户"),
    {"log_format": "no time, no level"},
    {},
]


@pytest.mark.parametrize("given", AS_TWISTED, ids=lambda given: str(given.get("log_format"))[:20])
def test_text_looks_as_twisteds_does(given: dict[str, Any]) -> None:
    assert format_text(given) == (formatEventAsClassicLogText(given) or "")


def test_text_of_the_old_log() -> None:
    given = legacy_event("port", "closed")
    assert format_text(given) == formatEventAsClassicLogText(given)
    assert format_text(given).endswith(" [-] port closed\n")


def test_the_time_is_that_of_the_event() -> None:
    for seconds in (NOW, NOW + 0.1, NOW + 1, NOW - 100000, 0.0):
        given = event(log_time=seconds)
        assert format_text(given) == formatEventAsClassicLogText(given)


@given(st.text(), st.text())
def test_nobody_begins_a_line_or_moves_the_cursor(text: str, system: str) -> None:
    line = format_text(event("x{a}", a=text, log_system=system))
    assert line.endswith("\n")
    assert all(part.isprintable() for part in line[:-1].split("\n\t")), line


def test_a_traceback_is_whole() -> None:
    line = format_text(event("it failed", log_failure=failure("a\x1b[31m")))
    assert "\n\tTraceback (most recent call last):\n\t" in line
    assert "RuntimeError: a\\x1b[31m\n" in line


def test_what_cannot_be_shown_is_said() -> None:
    assert "no text" in format_text(event("{a}", a=Thing()))
    assert "(there is no traceback: AttributeError)" in format_text(event("x", log_failure="none"))


# -- JSON ------------------------------------------------------------------


def record(given: dict[str, Any]) -> dict[str, Any]:
    line = format_json(given)
    assert line.endswith("\n") and line[:-1].isprintable() and line.isascii()
    return json.loads(line)  # type: ignore[no-any-return]


def test_json_of_an_event() -> None:
    given = event("{sender}: {size}", event="message", sender="grün@b", size=5, replies=["a", "b"], duration=0.25)
    del given["a"], given["b"]
    assert format_json(given) == (
        '{"time":"2026-11-21T12:34:56.789Z","level":"info","namespace":"smtpfw.server","event":"message",'
        '"message":"gr\\u00fcn@b: 5","sender":"gr\\u00fcn@b","size":5,"replies":["a","b"],"duration":0.25}\n'
    )


def test_a_failure() -> None:
    found = record(event("it failed", log_level=LogLevel.critical, log_failure=failure()))
    assert (found["message"], found["level"]) == ("it failed", "critical")
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert list(found)[-1] == "traceback"


def test_the_old_log() -> None:
    found = record(legacy_event("port closed"))
    assert {name: found[name] for name in found if name != "time"} == {
        "level": "info",
        "namespace": "log_legacy",
        "message": "port closed",
    }


def test_an_event_that_says_nothing_is_no_line() -> None:
    assert format_json({}) == format_json(event(None)) == ""


def test_our_names_win() -> None:
    found = record(event("text", message="other", time="never", level="high", namespace="x"))
    assert (found["message"], found["time"], found["level"], found["namespace"]) == (
        "text",
        "2026-11-21T12:34:56.789Z",
        "info",
        "smtpfw.server",
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xffa", "\\xffa"),
        ({1}, "{1}"),
        (LogLevel.info, "<LogLevel=info>"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (Thing(), "(Thing, which can't be shown)"),
        ([b"a", None, True, 1.5], ["a", None, True, 1.5]),
        ("\ud800", "\ud800"),
        ("\x1b\x7f\x9b\u2028", "\x1b\x7f\x9b\u2028"),
    ],
)
def test_values_that_json_does_not_know(value: Any, shown: Any) -> None:
    assert record(event("x", value=value, after=1))["value"] == shown
    assert record(event("x", value=value, after=1))["after"] == 1


def test_a_circle() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert record(event("x", value=circle))["value"] == "[[...]]"


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.floats(), st.binary(), st.none()), max_size=5))
def test_one_line_whatever_is_in_it(fields: dict[str, Any]) -> None:
    line = format_json({**fields, "log_format": "x"})
    assert line.count("\n") == 1
    assert json.loads(line)["message"] == "x"


# -- where they go -----------------------------------------------------------


class Disk:
    """Takes octets until it is full."""

    def __init__(self) -> None:
        self.octets = b""
        self.full = False

    def write(self, octets: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.octets += octets

    @property
    def lines(self) -> list[str]:
        return self.octets.decode().splitlines()


def test_an_observer_is_one() -> None:
    verifyObject(ILogObserver, Observer(Disk().write))


def test_levels() -> None:
    for level, shown in ((LogLevel.debug, 3), (LogLevel.info, 2), (LogLevel.warn, 1), (LogLevel.error, 0)):
        disk = Disk()
        log = Logger("x", observer=Observer(disk.write, level=level))
        log.debug("a")
        log.info("b")
        log.warn("c")
        assert len(disk.lines) == shown


def test_other_sockets_than_those_of_dns_have_lines() -> None:
    lines: list[bytes] = []
    observer = Observer(lines.append)
    publisher = legacy.LogPublisher(observerPublisher=LogPublisher(observer), publishPublisher=LogPublisher(observer))
    for text in ("Spool (UDP Port 17 Closed)", "SIPDatagramProtocol starting on 5060"):
        publisher.msg(text)
    assert len(lines) == 2


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    for format, sign in ((format_text, "[smtpfw.config.logging#warn] 2 lines"), (format_json, '"lost":2')):
        disk = Disk()
        log = Logger("x", observer=Observer(disk.write, format))
        log.info("one")
        disk.full = True
        log.info("two")
        log.info("three")
        disk.full = False
        log.info("four")
        log.info("five")
        assert ["one" in disk.lines[0], sign in disk.lines[1], "four" in disk.lines[2], "five" in disk.lines[3]] == [
            True
        ] * 4
        assert len(disk.lines) == 4


def test_a_file_that_is_closed() -> None:
    def write(octets: bytes) -> None:
        raise ValueError("I/O operation on closed file")

    LineFile(write, str).put("x\n")


def test_a_pipe_whose_reader_has_gone() -> None:
    reading, writing = os.pipe()
    log = Logger("x", observer=Observer(Descriptor(writing).write))
    log.info("one")
    assert os.read(reading, 1000).endswith(b"one\n")
    os.close(reading)
    log.info("two")
    os.close(writing)


def test_a_line_that_was_cut_is_ended_by_the_next() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    descriptor = Descriptor(writing)
    with pytest.raises(BlockingIOError):
        descriptor.write(b"x" * 1_000_000)
    with pytest.raises(BlockingIOError):
        descriptor.write(b"lost\n")
    taken = b""
    while not taken.endswith(b"next\nand next\n"):
        try:
            taken += os.read(reading, 65536)
        except BlockingIOError:
            descriptor.write(b"next\n")
            descriptor.write(b"and next\n")
    assert taken.strip(b"x") == b"\nnext\nand next\n"
    os.close(reading)
    os.close(writing)


def test_surrogates_do_no_harm() -> None:
    disk = Disk()
    LineFile(disk.write, str).put("a\udc80\n")
    assert disk.octets == b"a\\udc80\n"


# -- what twistd was told ------------------------------------------------------


def test_the_settings_have_these_defaults() -> None:
    assert {name: BY_NAME[name].default for name in DEFAULTS} == DEFAULTS
    assert BY_NAME["protocol_log"].default is None


def test_the_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(1, "w", closefd=False) as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        for name in (None, "", "-"):
            stdout.write("printed before\n")
            observer = make_observer(DEFAULTS, {**FOREGROUND, "logfile": name})
            assert observer is not None
            observer(event())
    lines = capfd.readouterr().out.splitlines()
    assert lines == ["printed before", format_text(event()).rstrip("\n")] * 3


@pytest.mark.parametrize("stdout", [None, io.StringIO()])
def test_a_terminal_that_is_none(stdout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", stdout)
    assert make_observer(DEFAULTS, FOREGROUND) is None


@pytest.fixture
def usr1(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts back what is of the whole process, and closes the files that it would have kept open."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    opened: list[LogFile] = []

    class Closed(LogFile):
        def __init__(self, name: str, directory: str) -> None:
            super().__init__(name, directory)  # type: ignore[no-untyped-call]
            opened.append(self)

    monkeypatch.setattr("smtpfw.config.logging.LogFile", Closed)
    yield
    signal.signal(signal.SIGUSR1, before)
    for file in opened:
        file.close()  # type: ignore[no-untyped-call]


def test_a_file(tmp_path: Path, usr1: None) -> None:
    path = tmp_path / "mail.log"
    for daemon in (True, False):
        observer = make_observer(
            {"log_format": "json", "log_level": "warn"}, {**FOREGROUND, "nodaemon": not daemon, "logfile": str(path)}
        )
        assert observer is not None
        observer(event())
        observer(event(log_level=LogLevel.warn))
    assert [json.loads(line)["level"] for line in path.read_text().splitlines()] == ["warn"] * 2
    # Without a handler the signal that begins a new file would end the process.
    assert callable(signal.getsignal(signal.SIGUSR1))


def test_the_handler_of_somebody_else_stays(tmp_path: Path, usr1: None) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    make_observer(DEFAULTS, {**FOREGROUND, "logfile": str(tmp_path / "log")})
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_a_daemon_that_is_told_nothing(tmp_path: Path, usr1: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    observer = make_observer(DEFAULTS, {**FOREGROUND, "nodaemon": False})
    assert observer is not None
    observer(event())
    assert (tmp_path / "twistd.log").read_text() == format_text(event())


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--logfile .*/no/log: No such file or directory$"):
        make_observer(DEFAULTS, {**FOREGROUND, "logfile": str(tmp_path / "no" / "log")})


OTHERS: list[dict[str, Any] | None] = [
    None,
    {},
    {**FOREGROUND, "syslog": True},
    {**FOREGROUND, "logger": print},
    {**FOREGROUND, "nodaemon": False, "logfile": "-"},
]


@pytest.mark.parametrize("twistd", OTHERS)
def test_others_are_left_alone(twistd: dict[str, Any] | None) -> None:
    assert make_observer(DEFAULTS, twistd) is None
    for name, value in (("log_format", "json"), ("log_level", "warn")):
        option = name.replace("_", "-")
        with pytest.raises(ConfigError, match=f"^--{option}: it is for logs that twistd writes to a file .*"):
            make_observer({**DEFAULTS, name: value}, twistd)


# -- the protocol log ------------------------------------------------------------


def test_no_protocol_log() -> None:
    assert make_protocol_log(None, FOREGROUND) is None


def test_a_protocol_log(tmp_path: Path) -> None:
    path = tmp_path / "protocol.log"
    for name in ("1", "2"):
        transcripts = make_protocol_log(str(path), FOREGROUND)
        assert transcripts is not None
        transcripts(f"abc{name}", "192.0.2.1")("C: NOOP")
    lines = path.read_text().splitlines()
    assert [line[24:] for line in lines] == [" abc1 C: NOOP", " abc2 C: NOOP"]
    assert abs(time.mktime(time.strptime(lines[0][:19], "%Y-%m-%dT%H:%M:%S")) - time.mktime(time.gmtime())) < 60
    assert path.stat().st_mode & 0o777 == 0o600


def test_its_time_and_its_losses() -> None:
    disk = Disk()
    write = ProtocolLog(disk.write, lambda: NOW)("id", "")
    write("C: one")
    disk.full = True
    write("C: two")
    disk.full = False
    write("C: three")
    stamp = "2026-11-21T12:34:56.789Z"
    assert disk.lines == [f"{stamp} id C: one", f"{stamp} - -- 1 lines could not be written", f"{stamp} id C: three"]


def test_stderr(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(2, "w", closefd=False) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        for twistd in (FOREGROUND, None):
            transcripts = make_protocol_log("stderr", twistd)
            assert transcripts is not None
            transcripts("id", "")("S: 250 OK")
    assert [line[24:] for line in capfd.readouterr().err.splitlines()] == [" id S: 250 OK"] * 2


def test_protocol_logs_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--protocol-log .*/no/log: no such file or directory$"):
        make_protocol_log(str(tmp_path / "no" / "log"), FOREGROUND)
    with pytest.raises(ConfigError, match=r"^--protocol-log stderr: a daemon has none"):
        make_protocol_log("stderr", {**FOREGROUND, "nodaemon": False})


def test_what_twisted_would_have_done_costs_more() -> None:
    """Ours is there because it is cheap; a tenth would be no reason."""

    def cost(observer: Any) -> float:
        begin = time.process_time()
        for _ in range(300):
            observer(event())
        return time.process_time() - begin

    with Path(os.devnull).open("w") as nothing:
        ours, theirs = Observer(Descriptor(nothing.fileno()).write), textFileLogObserver(nothing)
        # The best of some runs, for the machine may be busy.
        assert min(cost(ours) for _ in range(5)) < 0.7 * min(cost(theirs) for _ in range(5))
