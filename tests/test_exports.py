"""The public names of the package; and that importing it decides nothing about the reactor."""

from __future__ import annotations

import subprocess
import sys

import pytest

import smtpfw
import smtpfw.testing
from tests.test_layers import ROOT, modules


def test_smtpfw() -> None:
    assert sorted(smtpfw.__all__) == [
        "Address",
        "Check",
        "ClientConfig",
        "EnhancedCode",
        "FunctionCheck",
        "LMTPClientFactory",
        "LMTPClientProtocol",
        "Pool",
        "Reply",
        "ReplyCode",
        "SMTPClientFactory",
        "SMTPClientProtocol",
        "SMTPError",
        "SMTPServerFactory",
        "SendResult",
        "ServerConfig",
        "Session",
        "SessionBackend",
        "connect",
        "received_line",
        "send_mail",
    ]
    assert all(hasattr(smtpfw, name) for name in smtpfw.__all__)


def test_testing() -> None:
    assert all(hasattr(smtpfw.testing, name) for name in smtpfw.testing.__all__)


def reactor_after(code: str) -> str:
    """Run code in a fresh process; whether the reactor was imported by it."""
    program = f"import sys\n{code}\nprint('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["smtpfw", "smtpfw.service", "smtpfw.testing"])
def test_no_reactor(module: str) -> None:
    assert reactor_after(f"import {module}") == "False"


def test_no_reactor_in_any_module() -> None:
    names = [module for module, _ in modules()]
    assert reactor_after(f"import importlib\nfor name in {names!r}: importlib.import_module(name)") == "False"


def test_the_test_would_see_one() -> None:
    assert reactor_after("import smtpfw, twisted.internet.reactor") == "True"
