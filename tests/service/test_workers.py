"""Several workers, as processes that twistd runs."""

import os
import pwd
import re
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

LOOPBACK = "tcp:0:interface=127.0.0.1"
RUN = "from twisted.scripts.twistd import run; run()"


class Server:
    """A server with workers, and what all of them have said so far."""

    def __init__(self, folder: Path, *words: str, before: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, "-n", *before, "smtpfw", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        # A line that never comes would be waited for without an end.
        self.limit = threading.Timer(60, self.process.kill)
        self.limit.start()

    @property
    def port(self) -> int:
        found = re.search(r"Listening on 127\.0\.0\.1:(\d+)", self.said)
        assert found is not None
        return int(found[1])

    def until(self, words: str) -> str:
        """Read on until a line holds the words, and return it. The process ends, and with it this, if none does."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}:\n{self.said}")

    def pids(self) -> list[int]:
        """Those of the workers, as soon as they serve."""
        return [int(pid) for pid in self.until("The workers' processes: ").rpartition(": ")[2].split(", ")]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait for the end of all its processes."""
        self.send(number)
        return self.status()

    def status(self) -> int:
        # The workers write to the same pipe, which ends with the last of them. (communicate() with a time limit would
        # leave out what has been read ahead.)
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        self.process.wait()
        assert "Traceback" not in self.said, self.said
        return self.process.returncode

    def kill(self) -> None:
        self.limit.cancel()
        self.process.kill()
        self.process.communicate()

    def client(self) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.port, "client.example.org", timeout=30)
        client.ehlo()
        return client

    def worker_of(self, client: smtplib.SMTP) -> int:
        """Which worker a new client has come to."""
        assert client.sock is not None
        found = re.search(r"worker=(\d)\]", self.until(f":{client.sock.getsockname()[1]}"))
        assert found is not None
        return int(found[1])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(*words: str, **more: Any) -> Server:
        running.append(Server(tmp_path, "--workers", "2", *words, **more))
        return running[-1]

    yield start
    for server in running:
        server.kill()


def write(folder: Path, text: str) -> None:
    (folder / "smtpfw.toml").write_text(textwrap.dedent(text))


CONFIGURATION = """
    hostname = "{hostname}"
    workers = {workers}
    [deliver]
    nowhere = "discard"
    [listen.mx]
    on = ["tcp:0:interface=127.0.0.1"]
    routes = [ {{ to = "example.org", deliver = "nowhere" }} ]
"""


def test_mail_limits_and_a_drain(run: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    server = run(
        *("--listen", LOOPBACK, "--listen", f"unix:{path}", "--backend", "maildir:inbox"),
        *("--max-connections", "7", "--checks", "rate:ip=3/m", "--checks", "concurrency:ip=9"),
    )
    pids = server.pids()
    assert len(set(pids)) == 2
    for words in (
        "2 workers; each serves at most 4 clients, 25 of one address, 256M of messages in memory, and what checks",
        "Checked first: Messages: at most 2 a minute",
        "at most 5 of",
    ):
        assert words in server.said
    assert server.said.count("Listening on 127.0.0.1") == 1
    with server.client() as client:
        client.sendmail("me@example.org", ["you@example.org"], b"Subject: x\r\n\r\nhello\r\n")
    assert len(list((tmp_path / "inbox" / "new").iterdir())) == 1
    with socket.socket(socket.AF_UNIX) as local:
        local.settimeout(30)
        local.connect(str(path))
        assert local.recv(4) == b"220 "
    with server.client() as busy:
        busy.mail("me@example.org")
        server.send(signal.SIGTERM)
        server.until("Stopping; messages under way have 30 seconds")
        assert busy.rcpt("you@example.org")[0] == 250
        busy.data(b"Subject: y\r\n\r\nhello\r\n")
        assert server.status() == 0
        busy.close()
    assert len(list((tmp_path / "inbox" / "new").iterdir())) == 2
    assert not path.exists()


def test_a_second_signal_does_not_wait(run: Callable[..., Server]) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard", "--grace", "1h")
    server.pids()
    with server.client() as client:
        client.mail("me@example.org")
        server.send(signal.SIGTERM)
        server.until("Stopping; messages under way have 3600 seconds")
        assert server.end() == 0
        client.close()


def test_a_worker_that_is_killed(run: Callable[..., Server]) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard")
    first, second = server.pids()
    os.kill(first, signal.SIGKILL)
    server.until(f"Worker 1, process {first}, was ended by SIGKILL; another takes its place at once")
    again = int(server.until("Worker 1 serves, process ").rpartition(" ")[2])
    # Now it was young; while nobody has its place, the other one takes all.
    os.kill(again, signal.SIGKILL)
    server.until(f"Worker 1, process {again}, was ended by SIGKILL; another takes its place in 1 s")
    for _ in range(10):
        with server.client() as client:
            client.sendmail("me@example.org", ["you@example.org"], b"Subject: x\r\n\r\nhello\r\n")
    server.until("Worker 1 serves")
    # A port that nobody has got yet is where a new worker's clients come from.
    seen = set()
    while len(seen) < 2:
        with server.client() as client:
            seen.add(server.worker_of(client))
    os.kill(second, signal.SIGTERM)
    server.until(f"Worker 2, process {second}, has ended; another")
    server.until("Worker 2 serves")
    assert server.end() == 0


def test_workers_end_when_nobody_watches_over_them(run: Callable[..., Server]) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard")
    server.pids()
    with server.client() as client:
        client.mail("me@example.org")
        server.send(signal.SIGKILL)
        server.until("The process that watches over this one has gone")
        assert client.rcpt("you@example.org")[0] == 250
        assert client.data(b"Subject: x\r\n\r\nhello\r\n")[0] == 250
        client.close()
    assert server.status() == -signal.SIGKILL
    assert server.said.count("watches over this one has gone") == 2


def test_a_reload(run: Callable[..., Server], tmp_path: Path) -> None:
    write(tmp_path, CONFIGURATION.format(hostname="old.example.org", workers=2))
    server = run("--config", "smtpfw.toml")
    before = server.pids()
    with server.client() as client:
        assert client.ehlo()[1].startswith(b"old.example.org")
        other = 3 - server.worker_of(client)
        write(tmp_path, 'hostname = "new.example.org"\nworkers = "two"')
        server.send(signal.SIGHUP)
        server.until("Everything stays as it was: ")
        # Who is started now has the file that was right.
        os.kill(before[other - 1], signal.SIGKILL)
        server.until(f"Worker {other} serves")
        write(tmp_path, CONFIGURATION.format(hostname="new.example.org", workers=2))
        server.send(signal.SIGHUP)
        assert not set(server.pids()).intersection(before)
        for _ in range(8):
            with server.client() as new:
                assert new.ehlo()[1].startswith(b"new.example.org")
        assert client.ehlo()[1].startswith(b"old.example.org")
    assert server.end() == 0


def test_another_number_of_workers_needs_a_restart(run: Callable[..., Server], tmp_path: Path) -> None:
    write(tmp_path, CONFIGURATION.format(hostname="mx.example.org", workers=2))
    # It stands in the file alone.
    server = Server(tmp_path, "--config", "smtpfw.toml")
    try:
        assert len(server.pids()) == 2
        write(tmp_path, CONFIGURATION.format(hostname="mx.example.org", workers=3))
        server.send(signal.SIGHUP)
        server.until("smtpfw.toml:3: workers: another number than 2 needs a restart")
        assert server.end() == 0
    finally:
        server.kill()


def test_a_worker_that_can_not_start(run: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import os
            from smtpfw.backends.memory import MemoryBackend
            from smtpfw.errors import ConfigError

            class Inbox(MemoryBackend):
                def start(self):
                    os.write(2, b"this is printed")
                    raise ConfigError("there is no disk")
        """)
    )
    server = run("--listen", LOOPBACK, "--python-path", ".", "--backend", "mine:Inbox")
    assert server.status() == 1
    assert re.search(r"worker=[12]\] smtpfw: can't start: there is no disk", server.said)
    assert re.search(r"Worker [12] prints: this is printed", server.said)
    assert re.search(r"can't start: worker [12] has ended with status 1 before it was ready", server.said)


def test_a_log_file_that_begins_anew(run: Callable[..., Server], tmp_path: Path) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard", before=("--logfile=log", "--pidfile=pid"))
    log = tmp_path / "log"

    def follow(words: str) -> str:
        # The file is written by processes that end; and so does this, if the words never come.
        while words not in (log.read_text() if log.exists() else ""):
            assert server.process.poll() is None
        return log.read_text()

    server.said = follow("The workers' processes: ")
    server.send(signal.SIGUSR1)
    while not (tmp_path / "log.1").exists():
        assert server.process.poll() is None
    seen: set[str] = set()
    while len(seen) < 2:
        with server.client():
            pass
        seen.update(re.findall(r"(worker=\d)\] \w+: connected", log.read_text()))
    assert server.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_have_no_privileges(run: Callable[..., Server], tmp_path: Path) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard", "--user", "nobody", "--umask", "027")
    nobody = pwd.getpwnam("nobody")
    for pid in server.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^Uid:(\t{nobody.pw_uid}){{4}}$", status, re.MULTILINE)
        assert re.search(rf"^Gid:(\t{nobody.pw_gid}){{4}}$", status, re.MULTILINE)
        assert re.search(r"^Umask:\t0027$", status, re.MULTILINE)
    with server.client() as client:
        client.sendmail("me@example.org", ["you@example.org"], b"Subject: x\r\n\r\nhello\r\n")
    assert server.end() == 0


def test_systemd_is_told_when_all_are_ready(
    run: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        server = run("--listen", LOOPBACK, "--backend", "discard")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=Listening on 1 sockets"
        server.pids()
        server.send(signal.SIGTERM)
        assert systemd.recv(1000).startswith(b"STOPPING=1\n")
        assert server.status() == 0
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(1000)
