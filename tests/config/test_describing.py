"""What the log says at the start: each thing once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from smtpfw.config import ServicePlan
from smtpfw.config.backends import BACKENDS
from smtpfw.config.describing import describe_running
from tests.config.plans import plan_of, plan_of_file


def running(plan: ServicePlan) -> list[str]:
    """The lines of a plan, as if each listener had port 2525."""
    bound: Any = SimpleNamespace(address=("127.0.0.1", 2525), family=2, implicit_tls=False)
    return describe_running(plan, [[bound] for _ in plan.listen])


def test_a_command_line() -> None:
    lines = running(plan_of("--backend", "discard", "--checks", "require_tls"))
    assert lines[:-1] == [
        "Listening on 127.0.0.1:2525, without TLS",
        "Checked first: MAIL needs TLS",
        "Mail is accepted and thrown away",
    ]
    assert lines[-1].startswith("Try it: ")


def test_several_listeners_and_deliveries(tmp_path: Path) -> None:
    text = f"""
        [deliver]
        local = "maildir:{tmp_path}/inbox"
        out = "relay:192.0.2.1"
        [listen.mx]
        on = "tcp:25"
        routes = [
            {{ to = "tim@example.org", reject = "go away" }},
            {{ to = "spam@example.org", discard = true }},
            {{ to = "example.org", deliver = "local" }},
        ]
        [listen.inside]
        on = "tcp:2525"
        trusted = "10.0.0.0/8"
        routes = [ {{ to = ["example.org", "example.com"], deliver = "local" }}, {{ to = "*", deliver = "out" }} ]
        """
    assert running(plan_of_file(tmp_path / "x.toml", text)) == [
        "mx: Listening on 127.0.0.1:2525, without TLS",
        "mx: Mail for tim@example.org is refused: 550 5.7.1 go away",
        "mx: Mail for spam@example.org is accepted and thrown away",
        "mx: Mail for example.org goes to local",
        "inside: Listening on 127.0.0.1:2525, without TLS",
        "inside: Mail for example.org, example.com goes to local",
        "inside: Mail for * from clients that are in 10.0.0.0/8 goes to out",
        f"local: Mail goes into the Maildir {tmp_path}/inbox, which is made if it is missing; lines end in CRLF.",
        "local: A 250 means: written, fsynced, renamed into new, folder fsynced.",
        "out: Mail goes on to 192.0.2.1:25 (TLS if it is offered), as it arrives.",
        "out: A 250 means: the next server has said so. Nothing is stored here.",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("memory:secret", "memory"),
        ("nobody:secret", "nobody"),
        ("relay:a.test:login=secret", "relay"),
        ("smtpfw.testing:RecordingBackend:secret", "smtpfw.testing:RecordingBackend"),
        ("smtpfw.testing:secret=1", "smtpfw.testing"),
        ("json:JSONDecoder:secret", "json:JSONDecoder"),
    ],
)
def test_no_argument_is_shown(text: str, shown: str) -> None:
    assert BACKENDS.without_arguments(text) == shown


def test_a_backend_that_says_nothing_is_named_without_its_arguments() -> None:
    plan = plan_of("--backend", "smtpfw.testing:RecordingBackend")
    assert "Mail goes to smtpfw.testing:RecordingBackend" in running(plan)
