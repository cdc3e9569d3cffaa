"""The public names of the package; and that importing it decides nothing about the reactor."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

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


def test_what_few_need_is_loaded_when_it_is_needed() -> None:
    """A resolver reads the system's settings, and a Python may have been built without SQLite."""
    program = "import sys, smtpfw, smtpfw.client, smtpfw.dns.system, smtpfw.policies\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "smtpfw.policies.greylist_store" in loaded and "smtpfw.dns.questions" in loaded
    assert not loaded & {"sqlite3", "twisted.names.client", "twisted.names.hosts"}


#: Packages whose modules say what is public in them.
WITH_NAMES = {"backends", "client", "config", "errors", "extensions", "policies", "sasl", "testing", "tls"}


def _defined(source: str) -> tuple[set[str], set[str]]:
    """Top-level names of a module: the public classes and functions, and all."""
    shown, every = set(), set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            every.add(node.name)
            if not node.name.startswith("_"):
                shown.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            every |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            every |= {alias.asname or alias.name for alias in getattr(node, "names", ())}
    return shown, every


@pytest.mark.parametrize(("module", "path"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_each_module_names_what_is_public(module: str, path: Path) -> None:
    source = path.read_text()
    found = re.search(r"^__all__ = (\[[^]]*\])", source, re.MULTILINE)
    shown, every = _defined(source)
    if found is None:
        assert not (shown and module.split(".")[1:2] and module.split(".")[1] in WITH_NAMES)
        return
    names = ast.literal_eval(found[1])
    assert len(names) == len(set(names))
    assert set(names) <= every
