"""A plan that is looked at: its words, its mistakes, its warnings, and nothing left behind."""

from __future__ import annotations

import os
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.config import ServicePlan
from smtpfw.config.checking import Report, check_deliveries, check_listeners, check_process, check_protocol_log
from smtpfw.config.plan import Delivery
from smtpfw.errors import ConfigError
from smtpfw.testing import RecordingBackend
from tests.certificates import write_pair
from tests.config.plans import plan_of, plan_of_file

NAME = ("--hostname", "mx.example.org")


def look_at(plan: ServicePlan) -> Report:
    report = Report()
    check_listeners(plan, report, Clock())
    check_deliveries(plan, report)
    check_process(plan, report)
    return report


def section(report: Report, title: str) -> Any:
    (found,) = (one for one in report.sections if one.title == title)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


FILE = """
hostname = "mx.example.org"
tls      = "{folder}/pair.pem"
umask    = "077"

[auth]
users = "memory:tim:very-secret"

[deliver]
local = "maildir:{folder}/md/{{domain}}/{{user}}"
isp   = {{ plugin = "relay", via = "smtps:192.0.2.1:465", login = "file:{folder}/isp.secret" }}

[listen.mx]
on     = ["tcp:{port}:interface=127.0.0.1", "unix:{folder}/mx.sock"]
checks = ["rate:ip=30/m"]
routes = [ {{ to = "example.org", deliver = "local" }} ]

[listen.submission]
on     = ["smtps:tcp:0:interface=127.0.0.1"]
auth   = "users"
routes = [ {{ to = "example.org", deliver = "local" }}, {{ to = "*", deliver = "isp" }} ]
"""


@pytest.fixture
def whole(tmp_path: Path) -> ServicePlan:
    """A plan with a bit of everything."""
    write_pair(tmp_path).rename(tmp_path / "pair.pem")
    (tmp_path / "isp.secret").write_text("me:very-secret\n")
    mailbox = tmp_path / "md" / "example.org" / "tim"
    mailbox.mkdir(parents=True)
    return plan_of_file(tmp_path / "x.toml", FILE.format(folder=tmp_path, port=free_port()))


def test_the_plan_in_words(whole: ServicePlan, tmp_path: Path) -> None:
    report = look_at(whole)
    assert report.status == 0
    assert [one.title for one in report.sections] == [
        "Listener mx",
        "Listener submission",
        f"Certificates {tmp_path}/pair.pem",
        "Delivery local",
        "Delivery isp",
        "The process",
    ]
    mx = section(report, "Listener mx").lines
    port = whole.listen[0].listeners[0].port
    assert mx[:2] == [
        f"Listens on port {port} of 127.0.0.1, STARTTLS offered",
        f"Listens on unix:{tmp_path}/mx.sock, STARTTLS offered",
    ]
    assert mx[2].startswith("Greets as mx.example.org, and offers PIPELINING SIZE ")
    assert mx[2].endswith(" STARTTLS")
    assert mx[3:] == [
        "TLS 1.2 is the oldest that is spoken",
        "Checked first: Messages: at most 30 a minute of one IPv4 address or IPv6 /64",
        "A message has at most 50M and 1000 recipients; 10000 clients are served at a time",
        "Whoever is served may send",
        "Mail for a recipient goes by the first of these routes that fits",
        "Mail for example.org goes to local",
        "Mail for user+tag goes where that for user goes, if nothing above is for it",
        "Mail for everybody else is refused: 550 5.1.1 in the domains of ours, 550 5.7.1 in others",
    ]
    submission = section(report, "Listener submission").lines
    assert submission[0].endswith(", TLS from the first octet")
    assert submission[1].endswith(" STARTTLS AUTH")
    assert submission[2] == "A message of a client that has authenticated gets Date and Message-ID if it has none"
    assert "AUTH is required: PLAIN LOGIN, under TLS" in submission
    assert "Who has authenticated may send" in submission
    trusted = "127.0.0.0/8, ::1/128"
    assert f"Mail for * from clients that have authenticated or are in {trusted} goes to isp" in submission
    assert section(report, "Delivery local").lines[1] == (
        "A 250 means: written, fsynced, renamed into new, folder fsynced."
    )
    assert section(report, "Delivery isp").lines[0].startswith("Mail goes on to smtps:192.0.2.1:465 (TLS, verified, ")


def test_as_it_is_shown(whole: ServicePlan) -> None:
    lines = look_at(whole).lines()
    assert lines[0] == "Listener mx"
    assert lines[1].startswith("  Listens on ")
    assert lines[-2] == ""
    assert re.fullmatch("no mistakes, [1-9] warnings?", lines[-1])
    (warning,) = [line for line in lines if "Message-ID" not in line and "no certificate is for" in line]
    assert warning.startswith("  Warning: ")


def test_no_secret_is_in_it(whole: ServicePlan) -> None:
    secret = replace(whole.deliveries[0], text="own.mail:Inbox:password=very-secret", backend=RecordingBackend())
    lines = look_at(replace(whole, deliveries=(*whole.deliveries, secret))).lines()
    assert "  Mail goes to own.mail:Inbox" in lines
    assert "very-secret" not in "\n".join(lines)


def test_nothing_is_left_behind(whole: ServicePlan, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    look_at(whole)
    assert sorted(tmp_path.rglob("*")) == before
    # The port is free again.
    socket.create_server(("127.0.0.1", whole.listen[0].listeners[0].port)).close()


def test_a_command_line(tmp_path: Path) -> None:
    report = look_at(plan_of(*NAME, "--listen", "tcp:0:interface=127.0.0.1", "--backend", f"maildir:{tmp_path}/inbox"))
    assert [one.title for one in report.sections] == ["Listener", "Delivery", "The process"]
    assert section(report, "Listener").lines[-1] == "All mail goes to the delivery below"
    assert not any("Message-ID" in line for line in report.lines())
    assert report.lines()[-1].startswith("no mistakes, ")
    assert not (tmp_path / "inbox").exists()


def test_a_port_in_use_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        report = look_at(plan_of(*NAME, "--listen", f"tcp:{port}:interface=127.0.0.1", "--backend", "memory"))
    assert report.status == 0
    (warning,) = section(report, "Listener").warnings
    assert warning.startswith(f"--listen tcp:{port}:interface=127.0.0.1: port {port} is in use; ")


def test_one_port_for_two_listeners(tmp_path: Path) -> None:
    port = free_port()
    text = f"""
        hostname = "mx.example.org"
        deliver.x = "memory"
        [listen.a]
        on = "tcp:{port}:interface=127.0.0.1"
        routes = [ {{ to = "a.test", deliver = "x" }} ]
        [listen.b]
        on = "tcp:{port}:interface=localhost"
        routes = [ {{ to = "a.test", deliver = "x" }} ]
        """
    report = look_at(plan_of_file(tmp_path / "x.toml", text))
    assert [len(section(report, f"Listener {name}").warnings) for name in "ab"] == [0, 1]


@pytest.mark.parametrize(("name", "status"), [("new.log", 0), ("old.log", 0), ("absent/x.log", 1), ("folder", 1)])
def test_a_protocol_log_is_tried_and_not_made(name: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "old.log").write_text("said\n")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    report = Report()
    check_protocol_log(plan_of("--backend", "memory", "--protocol-log", str(tmp_path / name)), report)
    assert report.status == status
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.log").read_text() == "said\n"


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("tcp:2525:interface=203.0.113.77", "this machine has no address '203.0.113.77'"),
        ("unix:/nowhere/at/all.sock", "the folder of /nowhere/at/all.sock does not exist"),
    ],
)
def test_what_can_never_be_bound_is_a_mistake(listen: str, expected: str) -> None:
    report = look_at(plan_of(*NAME, "--listen", listen, "--backend", "memory"))
    assert report.status == 1
    (mistake,) = section(report, "Listener").mistakes
    assert expected in mistake
    assert report.lines()[-1].startswith("1 mistake, ")


def test_sockets_of_systemd_are_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    report = look_at(plan_of(*NAME, "--listen", "systemd:domain=INET:name=smtp", "--backend", "discard"))
    assert report.status == 0
    assert section(report, "Listener").lines[0].startswith("Listens on systemd:domain=INET:name=smtp, ")


def test_lmtp_on_port_25_is_a_mistake_where_it_is_found() -> None:
    report = look_at(plan_of(*NAME, "--protocol", "lmtp", "--listen", "tcp:25:interface=127.0.0.1"))
    listener = section(report, "Listener")
    # Who may not have the port hears of that.
    assert "port 25" in "".join([*listener.mistakes, *listener.warnings])
    assert listener.lines[0] == "Listens for LMTP on port 25 of 127.0.0.1, without TLS"


class Asked(RecordingBackend):
    """A backend that says what it is told to."""

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome

    def check(self) -> Any:
        return self.outcome()


def asked(outcome: Any, seconds: float = 10) -> Any:
    plan = plan_of(*NAME, "--backend", "memory")
    report = Report()
    check_deliveries(replace(plan, deliveries=(Delivery("x", "own:Thing", Asked(outcome)),)), report, seconds)
    return section(report, "Delivery x")


def fail(error: Exception) -> Any:
    def failing() -> None:
        raise error

    return failing


def test_what_backends_say() -> None:
    assert asked(lambda: ["it is old"]).warnings == ["it is old"]
    assert asked(lambda: None).warnings == []
    assert asked(fail(ConfigError("no disk\nno host"))).mistakes == ["no disk", "no host"]
    (mistake,) = asked(fail(ZeroDivisionError("by zero"))).mistakes
    assert mistake == "its check() has failed: ZeroDivisionError: by zero"
    never = threading.Event()
    (warning,) = asked(never.wait, 0.05).warnings
    assert warning == "it has not said within 0.05 seconds whether it is in order"
    never.set()


def test_backends_are_asked_in_threads_that_may_block() -> None:
    assert asked(lambda: [threading.current_thread().name]).warnings != [threading.current_thread().name]


def test_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpfw.config.checking.allow_connections", lambda count: 1024 if count > 1024 else None)
    code = tmp_path / "code"
    code.mkdir()
    words = (*NAME, "--backend", "memory", "--python-path", str(code), "--workers", "4", "--max-connections", "4000")
    found = section(look_at(plan_of(*words)), "The process")
    assert found.warnings == []
    assert "4 workers, each with its share of the limits" in found.lines
    code.chmod(0o777)
    found = section(look_at(plan_of(*words[:-1], "0")), "The process")
    assert [warning.partition(":")[0] for warning in found.warnings] == [str(code)]
    found = section(look_at(plan_of(*words[:-1], "40000")), "The process")
    assert found.warnings[0].startswith("10000 connections need more than 1024 open files")
    if os.geteuid() == 0:
        found = section(look_at(plan_of(*words, "--user", "nobody")), "The process")
        assert "Serves as user nobody" in found.lines


def test_warnings_of_the_plan_are_shown() -> None:
    plan = replace(plan_of(*NAME, "--backend", "memory"), warnings=("x.toml:3: nobody needs it",))
    assert "  Warning: x.toml:3: nobody needs it" in look_at(plan).lines()
