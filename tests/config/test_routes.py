"""Routes of a file: who may send where, and who is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from smtpfw import SMTPServerFactory
from smtpfw.config.plan import ServicePlan
from smtpfw.testing import MemoryClient
from tests.config.plans import mistakes_of_file, plan_of_file

FILE = """\
hostname = "mx.example.org"
[deliver]
local = "memory"
other = "discard"
isp   = {{ plugin = "relay", via = "mail.example.net" }}
[listen.mx]
on = "{on}"
{trusted}
routes = [
    {{ to = ["example.org", "*.example.org"], deliver = "local" }},
    {{ to = "old.example", reject = "550 5.1.6 Moved away" }},
    {{ to = "gone.example", reject = true }},
    {{ to = "trash.example", discard = true }},
    {{ to = "inside.example", network = "192.0.2.0/24", deliver = "other" }},
    {{ to = "*", deliver = "isp" }},
]
"""

LOOPBACK = "tcp:25:interface=127.0.0.1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.toml"


def answers(plan: ServicePlan, host: str, *recipients: str) -> list[str]:
    """What the recipients are answered, one after the other."""
    (listen,) = plan.listen
    factory = SMTPServerFactory(listen.backend, listen.config, extensions=listen.extensions, reactor=Clock())
    client = MemoryClient.of(factory, IPv4Address("TCP", host, 4000))
    client.send(b"EHLO me.example\r\n")
    client.send(b"MAIL FROM:<a@sender.example>\r\n")
    said = [client.send(f"RCPT TO:<{one}>\r\n".encode()).decode().rstrip() for one in recipients]
    client.disconnect()
    return said


@pytest.mark.parametrize(
    ("host", "recipient", "answer"),
    [
        ("203.0.113.1", "tim@example.org", "250 "),
        ("203.0.113.1", "tim@a.EXAMPLE.org", "250 "),
        ("203.0.113.1", "postmaster", "250 "),
        ("203.0.113.1", "tim@old.example", "550 5.1.6 Moved away"),
        ("203.0.113.1", "tim@gone.example", "550 5.7.1 "),
        ("203.0.113.1", "tim@trash.example", "250 "),
        ("203.0.113.1", "tim@inside.example", "550 5.1.1 "),
        ("192.0.2.7", "tim@inside.example", "250 "),
        ("203.0.113.1", "tim@elsewhere.example", "550 5.7.1 "),
    ],
)
def test_the_first_that_fits(host: str, recipient: str, answer: str, path: Path) -> None:
    plan = plan_of_file(path, FILE.format(on="tcp:25", trusted="trusted = ['10.0.0.0/8']"))
    (said,) = answers(plan, host, recipient)
    assert said.startswith(answer)


@pytest.mark.parametrize(
    ("on", "trusted", "networks"),
    [
        (LOOPBACK, "", "127.0.0.0/8, ::1/128"),
        ("tcp:25", "trusted = ['10.0.0.0/8']", "10.0.0.0/8"),
        ("tcp:25", "trusted = '10.0.0.0/8'", "10.0.0.0/8"),
        (LOOPBACK, "trusted = ['10.0.0.0/8']", "10.0.0.0/8"),
    ],
)
def test_who_is_trusted(on: str, trusted: str, networks: str, path: Path) -> None:
    plan = plan_of_file(path, FILE.format(on=on, trusted=trusted))
    assert str(plan.listen[0].backend.routes.trusted) == networks  # type: ignore[attr-defined]


@pytest.mark.parametrize(("on", "trusted"), [("tcp:25", ""), ("tcp:25", "trusted = []"), (LOOPBACK, "trusted = []")])
def test_a_relay_for_nobody(on: str, trusted: str, path: Path) -> None:
    assert mistakes_of_file(path, FILE.format(on=on, trusted=trusted)) == [
        f"{path}:15: listen.mx.routes[6]: route 6 (to *) can never match: it is for clients that have authenticated or "
        "are trusted, and nobody can or is; name the domains that are yours, or write auth or trusted"
    ]


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"])
def test_a_relay_for_everybody(network: str, path: Path) -> None:
    (line,) = mistakes_of_file(path, FILE.format(on="tcp:25", trusted=f"trusted = ['10.0.0.0/8', '{network}']"))
    assert line.startswith(f"{path}:8: listen.mx.trusted: that is everybody, which makes an open relay")


def test_where_nothing_is_passed_on_everybody_may_be_trusted(path: Path) -> None:
    text = "[deliver]\nlocal = 'memory'\n[listen.mx]\non = 'tcp:25'\ntrusted = ['0.0.0.0/0', '::/0']\n"
    plan = plan_of_file(path, f"{text}routes = [{{ to = '*', deliver = 'local' }}]\n")
    assert answers(plan, "203.0.113.1", "a@anywhere.example")[0].startswith("250 ")
