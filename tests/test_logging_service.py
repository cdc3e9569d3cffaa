"""The log of a whole process that twistd runs."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.running import ROOT, Twistd

TWISTD = str(Path(sys.executable).with_name("twistd"))
LOCAL = ("--listen", "tcp:0:interface=127.0.0.1")
MESSAGE = "Subject: hello\r\n\r\nhello\r\n"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[^]]+\] .+")

#: Ends the process as soon as it has begun, so that nothing has to be waited for.
SHORT = """
from twisted.internet import reactor
from twisted.logger import Logger
from smtpfw import Session, SessionBackend

class Short(SessionBackend):
    def __init__(self):
        super().__init__(Session)

    def start(self):
        Logger("mine").warn("short\\x1b", why="test")
        try:
            1 / 0
        except ZeroDivisionError:
            Logger("mine").failure("it failed")
        reactor.callLater(0, reactor.stop)
"""


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("me@example.org", ["you@example.org"], MESSAGE)


@pytest.fixture
def short(tmp_path: Path) -> list[str]:
    (tmp_path / "briefly.py").write_text(textwrap.dedent(SHORT))
    return ["smtpfw", *LOCAL, "--python-path", str(tmp_path), "--backend", "briefly:Short"]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TWISTD, "--pidfile=", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_text(tmp_path: Path) -> None:
    with Twistd("--backend", "memory", folder=tmp_path) as server:
        send(server.port)
        assert server.stop() == 0
    lines = server.log.splitlines()
    assert all(LINE.fullmatch(line) for line in lines), lines
    assert "starting up." in lines[0]
    (message,) = (line for line in lines if " to <you@example.org>, " in line)
    id = re.search(r"\[smtpfw\.server#info\] (\w+)\.1: ", message)[1]  # type: ignore[index]
    assert [line.split(": ", 1)[1].split()[0] for line in lines if re.search(rf"\b{id}\b", line)][::2] == [
        "connected",
        "disconnected",
    ]


def test_json(tmp_path: Path) -> None:
    with Twistd("--backend", "memory", "--log-format", "json", folder=tmp_path) as server:
        send(server.port)
        assert server.stop() == 0
    records = [json.loads(line) for line in server.log.splitlines()]
    assert [record["event"] for record in records if "event" in record] == ["connected", "message", "disconnected"]
    assert records[0]["message"].startswith("twistd ")
    assert records[-1]["message"] == "Server Shut Down."
    assert "log_legacy" in {record["namespace"] for record in records}


def test_what_is_wrong_only(tmp_path: Path, short: list[str]) -> None:
    done = run(tmp_path, "-n", *short, "--log-level", "warn")
    assert done.returncode == 0
    assert [line[24:] for line in done.stdout.splitlines() if not line.startswith("\t")] == [
        " [mine#warn] short\\x1b",
        " [mine#critical] it failed",
    ]
    assert "\n\tTraceback (most recent call last):\n" in done.stdout
    assert done.stdout.endswith("ZeroDivisionError: division by zero\n\t\n")
    assert done.stderr == ""


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_file(tmp_path: Path, short: list[str], format: str) -> None:
    done = run(tmp_path, "-n", "--logfile=mail.log", *short, "--log-format", format)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "mail.log").read_text().splitlines()
    assert "starting up." in lines[0] and "Server Shut Down." in lines[-1]
    if format == "json":
        records = [json.loads(line) for line in lines]
        (failed,) = (record for record in records if "traceback" in record)
        assert "ZeroDivisionError" in failed["traceback"]
        assert [record["why"] for record in records if record["message"] == "short\x1b"] == ["test"]
    else:
        assert all(LINE.fullmatch(line) for line in lines if not line.startswith("\t"))


def test_a_daemon(tmp_path: Path, short: list[str]) -> None:
    """The file is opened before the process goes into the background, and goes with it."""
    reading, writing = os.pipe()
    code = f"reactor.addSystemEventTrigger('after', 'shutdown', __import__('os').write, {writing}, b'x')\n"
    (tmp_path / "briefly.py").write_text(f"{SHORT}\n{code}")
    words = [TWISTD, "--pidfile=", *short, "--log-format", "json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(words, cwd=tmp_path, check=True, timeout=60, env=environment, pass_fds=[writing])
    os.close(writing)
    # It ends when the daemon does.
    assert os.read(reading, 10) == b"x"
    assert os.read(reading, 10) == b""
    os.close(reading)
    records = [json.loads(line) for line in (tmp_path / "twistd.log").read_text().splitlines()]
    assert "short\x1b" in [record["message"] for record in records]
    assert records[-1]["message"] == "Server Shut Down."


@pytest.mark.parametrize("twistd", ["--syslog", "--logger=twisted.logger.STDLibLogObserver"])
def test_others_have_formats_of_their_own(tmp_path: Path, short: list[str], twistd: str) -> None:
    done = run(tmp_path, "-n", twistd, *short, "--log-format", "json")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"smtpfw: --log-format: it is for logs that twistd writes .*\n", done.stderr)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--log-format", "jsn"], "--log-format: 'jsn' is none of text, json; did you mean json?"),
        (["--log-level", "all"], "--log-level: 'all' is none of debug, info, warn, error, critical"),
        (["--protocol-log", "no/log"], "--protocol-log no/log: no such file or directory"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    done = run(tmp_path, "-n", "smtpfw", *LOCAL, *words)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"smtpfw: {line}\n")


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    words = [TWISTD, "-n", "--pidfile=", "smtpfw", *LOCAL, "--backend", "memory"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        port = next(int(found[1]) for line in server.stdout if (found := re.search(r"127\.0\.0\.1:(\d+), ", line)))
        server.stdout.close()
        send(port)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert server.stderr.read() == ""


def test_the_protocol_log(tmp_path: Path) -> None:
    path = tmp_path / "protocol.log"
    with Twistd("--backend", "memory", "--protocol-log", str(path), folder=tmp_path) as server:
        send(server.port)
        assert server.stop() == 0
    said = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert said[0].startswith("-- connected from 127.0.0.1:")
    clients = [line for line in said if line.startswith("C: ")]
    assert [line.split()[1] for line in clients] == ["EHLO", "MAIL", "RCPT", "DATA", f"<{len(MESSAGE) + 3}", "QUIT"]
    assert said[-2:] == ["S: 221 2.0.0 Closing transmission channel", "-- closed"]
