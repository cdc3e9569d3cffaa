"""The service: in memory with fakes, and as processes that twistd runs."""

import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw.backends.memory import MemoryBackend
from smtpfw.config import ServicePlan
from smtpfw.config.places import Place
from smtpfw.config.plan import Delivery, ListenPlan
from smtpfw.config.sockets import Switch
from smtpfw.config.tree import LISTENER, Values
from smtpfw.errors import ConfigError
from smtpfw.service import SMTPService
from smtpfw.service.generation import Generation
from smtpfw.wire.config import ServerConfig
from tests.certificates import write_pair
from tests.running import Twistd

PLUGINS = Path(__file__).parent.parent


class FakeReactor:
    """Says what was asked of it, and runs what waits for it when told to."""

    def __init__(self) -> None:
        self.when_running: list[Any] = []
        self.stops = 0

    def callWhenRunning(self, call: Any, *args: Any) -> None:
        self.when_running.append((call, args))

    def callFromThread(self, call: Any, *args: Any) -> None:
        call(*args)

    def run(self) -> None:
        for call, args in self.when_running:
            call(*args)

    def stop(self) -> None:
        self.stops += 1
        if self.stops > 1:
            raise ReactorNotRunning


class FakePort:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def stopListening(self) -> Deferred[None]:
        self.log.append("port closed")
        return succeed(None)


class FakeSocket:
    own_path = ""
    family = socket.AF_INET
    implicit_tls = False
    address = ("127.0.0.1", 2525)
    endpoint = "tcp:2525"

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.switch = Switch()

    def start(self, reactor: object) -> FakePort:
        self.log.append("accepting")
        return FakePort(self.log)

    def discard(self) -> None:
        self.log.append("discarded")

    def remove_file(self) -> None:
        self.log.append("file removed")


class FakeFactory(Factory):
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.drained: Deferred[None] = Deferred()

    def stop(self, grace: float) -> Deferred[None]:
        self.log.append(f"factory stops within {grace:g}")
        return self.drained


class Backend(MemoryBackend):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log
        self.starting: Deferred[None] | Exception = succeed(None)

    def start(self) -> Deferred[None]:
        self.log.append("backend starts")
        if isinstance(self.starting, Exception):
            raise self.starting
        return self.starting

    def stop(self) -> Deferred[None]:
        self.log.append("backend stops")
        return succeed(None)


class ServiceTests(TestCase):
    def setUp(self) -> None:
        self.did: list[str] = []
        self.reactor = FakeReactor()
        self.factory = FakeFactory(self.did)
        self.backend = Backend(self.did)
        self.handlers: dict[int, Any] = {}
        self.statuses: list[int] = []
        settings = Values(Place("a test"))
        settings.set("grace", 7.0, settings.place)
        listen = ListenPlan(
            name=LISTENER,
            listeners=(),
            backend=self.backend,
            config=ServerConfig(hostname="mx.example.org"),
            tls=None,
        )
        plan = ServicePlan(
            listen=(listen,), deliveries=(Delivery(LISTENER, "memory", self.backend),), settings=settings
        )
        generation = Generation(plan, self.reactor)
        generation.factories = [self.factory]  # type: ignore[list-item]
        generation.seats = [[(FakeSocket(self.did), self.factory)]]  # type: ignore[list-item]
        self.service = SMTPService(
            generation,
            self.reactor,
            set_signal_handler=self.handlers.__setitem__,
            exit_with=self.statuses.append,
        )

    def test_the_backend_is_ready_before_the_first_client(self) -> None:
        self.backend.starting = waiting = Deferred()
        self.service.startService()
        self.assertEqual(self.did, ["backend starts"])
        waiting.callback(None)
        self.assertEqual(self.did, ["backend starts", "accepting"])

    def test_the_start_is_told_in_the_log(self) -> None:
        with capturedLogs() as events:
            self.service.startService()
        lines = [formatEvent(event) for event in events]
        self.assertEqual(lines[0], "Listening on 127.0.0.1:2525, without TLS")
        self.assertIn("gone when the process ends", lines[1])
        self.assertIn("curl -sS smtp://127.0.0.1:2525 --mail-from", lines[2])

    def test_our_signal_handlers_wait_for_the_reactor(self) -> None:
        self.service.startService()
        self.assertEqual(self.handlers, {})
        self.reactor.run()
        self.assertEqual(set(self.handlers), {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

    def start_and_signal(self) -> None:
        self.service.startService()
        self.reactor.run()
        self.did.clear()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)

    def test_the_first_signal_drains_in_order(self) -> None:
        self.start_and_signal()
        self.assertEqual(self.did, ["port closed", "file removed", "factory stops within 7"])
        self.assertEqual(self.reactor.stops, 0)
        self.factory.drained.callback(None)
        self.assertEqual(self.did[-1], "backend stops")
        self.assertEqual(self.reactor.stops, 1)
        self.successResultOf(self.service.stopService())

    def test_the_second_signal_does_not_wait(self) -> None:
        self.start_and_signal()
        self.handlers[signal.SIGINT](signal.SIGINT, None)
        self.assertEqual(self.reactor.stops, 1)
        self.assertEqual(self.did.count("backend stops"), 1)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.handlers[signal.SIGTERM], signal.SIG_DFL)
        self.factory.drained.callback(None)
        self.assertEqual(self.did.count("backend stops"), 1)

    def test_a_signal_hurries_a_stop_that_the_program_asked_for(self) -> None:
        self.service.startService()
        self.reactor.run()
        stopping = self.service.stopService()
        self.assertNoResult(stopping)
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.successResultOf(stopping)

    def test_the_program_can_stop_it_without_the_reactor(self) -> None:
        self.service.startService()
        stopping = self.service.stopService()
        self.assertNoResult(stopping)
        self.factory.drained.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.stops, 0)

    def test_a_drain_that_fails_stops_all_the_same(self) -> None:
        self.start_and_signal()
        self.factory.drained.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.did[-1], "backend stops")
        self.assertEqual(self.reactor.stops, 1)

    def test_stopped_before_the_backend_was_ready(self) -> None:
        self.backend.starting = waiting = Deferred()
        self.service.startService()
        self.service.stopService()
        waiting.callback(None)
        self.assertNotIn("accepting", self.did)
        self.assertIn("discarded", self.did)

    def test_a_backend_that_can_not_start(self) -> None:
        self.backend.starting = ConfigError("maildir: /var/mail: permission denied")
        with capturedLogs() as events:
            self.service.startService()
        self.assertEqual(
            [formatEvent(event) for event in events], ["smtpfw: can't start: maildir: /var/mail: permission denied"]
        )
        self.assertEqual((self.did, self.statuses), (["backend starts"], [1]))
        self.reactor.run()
        self.assertEqual(self.reactor.stops, 1)

    def test_a_backend_that_fails_by_mistake(self) -> None:
        self.backend.starting = ZeroDivisionError()
        self.service.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.statuses, [1])


def twistd(folder: Path, *words: str) -> list[str]:
    run = "import sys; from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", run, *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PLUGINS), "PYTHONWARNINGS": "default", "PYTHONUNBUFFERED": "1"}


def failing(folder: Path, *words: str, daemon: bool = False) -> str:
    """Run twistd where it must fail; return its last words."""
    done = subprocess.run(
        twistd(folder, *([] if daemon else ["-n"]), "smtpfw", *words),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert not (folder / "twistd.pid").exists()
    (line,) = [line for line in said.splitlines() if line.startswith("smtpfw: ")]
    return line


@pytest.mark.parametrize("daemon", [False, True])
def test_a_port_in_use(tmp_path: Path, daemon: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = f"tcp:{port}:interface=127.0.0.1"
        line = failing(tmp_path, "--listen", listen, "--backend", "memory", daemon=daemon)
    assert line.startswith(f"smtpfw: --listen {listen}: port {port} is in use")


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    assert failing(tmp_path, "--tls", "absent.pem") == "smtpfw: --tls: absent.pem: no such file or directory"


def test_an_unknown_backend(tmp_path: Path) -> None:
    assert "did you mean maildir?" in failing(tmp_path, "--backend", "maildri:x")


def test_a_bad_value(tmp_path: Path) -> None:
    assert failing(tmp_path, "--max-message-bytes", "ten").startswith("smtpfw: --max-message-bytes: 'ten' is no size")


class Running:
    """A server process, with what it has said so far."""

    def __init__(self, folder: Path, *words: str, before: tuple[str, ...] = ("-n",)) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            twistd(folder, *before, "smtpfw", *words),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self.ports = [int(port) for port in re.findall(r"Listening on \S+:(\d+),", self.until("Try it: "))]

    def until(self, words: str) -> str:
        """Read on until a line holds the words. The process ends, and with it this, if they never come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return self.said
        raise AssertionError(f"it ended without {words!r}:\n{self.said}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait for its status."""
        self.process.send_signal(number)
        return self.status()

    def status(self) -> int:
        said, _ = self.process.communicate(timeout=60)
        self.said += said
        assert "Traceback" not in self.said, self.said
        assert not (self.folder / "twistd.pid").exists()
        return self.process.returncode


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    def start(*words: str, **more: Any) -> Running:
        running.append(Running(tmp_path, *words, **more))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


LOOPBACK = "tcp:0:interface=127.0.0.1"


@pytest.mark.parametrize("before", [("-n",), ("--reactor=asyncio", "-n"), ("--reactor=poll", "-n")])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_takes_mail_and_ends_with_0(run: Any, before: tuple[str, ...], number: int) -> None:
    server = run("--listen", LOOPBACK, "--backend", "memory", before=before)
    with smtplib.SMTP("127.0.0.1", server.ports[0], timeout=30) as client:
        assert client.sendmail("me@example.org", ["you@example.org"], b"Subject: x\r\n\r\nhello\r\n") == {}
    assert server.end(number) == 0


def test_a_busy_session_gets_its_grace_and_a_second_signal_ends_it(run: Any) -> None:
    server = run("--listen", LOOPBACK, "--backend", "memory", "--grace", "1h")
    with smtplib.SMTP("127.0.0.1", server.ports[0], timeout=30) as client:
        client.ehlo()
        client.mail("me@example.org")
        server.process.send_signal(signal.SIGTERM)
        server.until("Stopping; messages under way have 3600 seconds")
        assert client.rcpt("you@example.org")[0] == 250
        assert server.end() == 0
        client.close()


def test_starttls_and_implicit_tls(run: Any, tmp_path: Path) -> None:
    certificate = write_pair(tmp_path)
    server = run(
        "--listen", LOOPBACK, "--listen", f"smtps:{LOOPBACK}", "--tls", str(certificate), "--backend", "memory"
    )
    clear, implicit = server.ports
    with smtplib.SMTP("127.0.0.1", clear, timeout=30) as client:
        assert client.starttls()[0] == 220
        assert client.ehlo()[0] == 250
    with smtplib.SMTP_SSL("127.0.0.1", implicit, timeout=30) as client:
        assert client.ehlo()[0] == 250
        assert not client.has_extn("starttls")
    assert server.end() == 0


def test_a_unix_socket_keeps_its_mode_and_is_removed(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    server = run("--listen", f"unix:{path}", "--backend", "discard")
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        assert client.recv(4) == b"220 "
    assert server.end() == 0
    assert not path.exists()


def test_systemd_is_told(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(30)
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        server = run("--listen", LOOPBACK, "--listen", LOOPBACK, "--backend", "discard")
        assert systemd.recv(1000) == b"READY=1\nSTATUS=Listening on 2 sockets"
        server.process.send_signal(signal.SIGTERM)
        assert systemd.recv(1000).startswith(b"STOPPING=1\n")
        assert server.status() == 0


def test_checks_are_asked(run: Any) -> None:
    server = run("--listen", LOOPBACK, "--backend", "discard", "--checks", "rate:ip=1/h", "--checks", "require_tls")
    with smtplib.SMTP("127.0.0.1", server.ports[0], timeout=30) as client:
        client.ehlo()
        assert [client.mail("a@example.org")[0] for _ in range(2)] == [530, 450]
    assert server.end() == 0


def test_code_of_ones_own(run: Any, tmp_path: Path) -> None:
    (tmp_path / "mailcode").mkdir()
    (tmp_path / "mailcode" / "inbox.py").write_text(
        textwrap.dedent("""
            from smtpfw.session import Session

            class Inbox(Session):
                def rcpt(self, recipient, options):
                    return "you are known"
        """)
    )
    server = run("--listen", LOOPBACK, "--python-path", ".", "--backend", "mailcode.inbox:Inbox")
    assert "Mail goes to mailcode.inbox:Inbox" in server.said
    with smtplib.SMTP("127.0.0.1", server.ports[0], timeout=30) as client:
        client.ehlo()
        client.mail("me@example.org")
        assert b"you are known" in client.rcpt("you@example.org")[1]
    assert server.end() == 0


def test_a_backend_that_can_not_start_ends_the_process_with_1(tmp_path: Path) -> None:
    (tmp_path / "mailcode").mkdir()
    (tmp_path / "mailcode" / "inbox.py").write_text(
        textwrap.dedent("""
            from smtpfw.errors import ConfigError
            from smtpfw.session import Session, SessionBackend

            class Backend(SessionBackend):
                def __init__(self):
                    super().__init__(Session)

                def start(self):
                    raise ConfigError("the disk is gone")
        """)
    )
    words = ["--listen", LOOPBACK, "--python-path", ".", "--backend", "mailcode.inbox:Backend"]
    done = subprocess.run(
        twistd(tmp_path, "-n", "smtpfw", *words),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "smtpfw: can't start: the disk is gone" in said
    assert "Traceback" not in said
    assert not (tmp_path / "twistd.pid").exists()


def test_a_file_is_served_and_what_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "smtpfw.toml").write_text(
        f"hostname = 'mx.example.org'\n[deliver]\nlocal = 'maildir:md'\nold = 'maildir:old'\n[listen.mx]\n"
        f"on = '{LOOPBACK}'\nroutes = [ {{ to = 'example.org', deliver = 'local' }} ]\n"
    )
    with Twistd("--config", "smtpfw.toml", folder=tmp_path) as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            refused = client.sendmail("me@test", ["you@example.org", "you@example.net"], b"Subject: x\r\n\r\nhello\r\n")
        assert server.stop() == 0
    assert refused == {"you@example.net": (550, b"5.7.1 Relaying denied")}
    assert "smtpfw.toml:4: deliver.old: no route leads there, so it is not used\n" in server.log
    assert len(list((tmp_path / "md" / "new").iterdir())) == 1
    assert not (tmp_path / "old").exists()
