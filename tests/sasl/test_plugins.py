"""Mechanisms of others: plugins of Twisted's and entry points, in folders made for each test."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from twisted.logger import LogLevel, capturedLogs

from smtpfw.errors import ConfigError
from smtpfw.sasl import PLAIN, STANDARD
from smtpfw.sasl.plugins import available_mechanisms

ROOT = Path(__file__).parent.parent.parent

MECHANISM = """
from smtpfw.sasl import PLAIN, IPasswordChecker, Mechanism

{name} = Mechanism("{registered}", PLAIN.make, needs=(IPasswordChecker,))
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package ``someplugins``, which can be imported; beside it is an empty one."""
    for name in ("someplugins", "noplugins"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "someplugins"
    for name in [name for name in sys.modules if name.partition(".")[0] in ("someplugins", "noplugins")]:
        del sys.modules[name]


@pytest.fixture
def package(plugins: Path) -> ModuleType:
    """Stands for ``twisted.plugins``, and has nothing in it."""
    return importlib.import_module("noplugins")


def of_twisted() -> dict[str, object]:
    return dict(available_mechanisms(importlib.import_module("someplugins")))


def install(folder: Path, distribution: str, points: str) -> None:
    """Metadata as pip leaves it."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[smtpfw.mechanisms]\n{points}\n")


def test_ours_come_first_in_the_order_of_preference(plugins: Path) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="ticket", registered="A-TICKET"))
    assert list(of_twisted()) == [*(mechanism.name for mechanism in STANDARD), "A-TICKET"]
    assert of_twisted()["PLAIN"] is PLAIN


def test_without_any(plugins: Path) -> None:
    assert list(of_twisted().values()) == list(STANDARD)


def test_an_object_of_ones_own(plugins: Path) -> None:
    (plugins / "theirs.py").write_text(
        """
from twisted.plugin import IPlugin
from zope.interface import implementer

from smtpfw.sasl import IPasswordChecker, ISASLServerFactory


@implementer(IPlugin, ISASLServerFactory)
class Ticket:
    name = "TICKET"
    needs = (IPasswordChecker,)
    plain_text = True

    def available(self, context):
        return True

    def make_server(self, checker, context):
        raise NotImplementedError


ticket = Ticket()
"""
    )
    assert type(of_twisted()["TICKET"]).__name__ == "Ticket"


@pytest.mark.parametrize("name", ["PLAIN", "SCRAM-SHA-256-PLUS"])
def test_a_name_of_ours_stays_ours(plugins: Path, name: str) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="other", registered=name))
    assert list(of_twisted().values()) == list(STANDARD)
    hidden = available_mechanisms(importlib.import_module("someplugins")).shelf.claims(name)[1]
    assert [claim.origin() for claim in hidden] == [str(plugins / "theirs.py")]


def test_a_name_that_two_have(plugins: Path) -> None:
    (plugins / "first.py").write_text(MECHANISM.format(name="ticket", registered="TICKET"))
    (plugins / "second.py").write_text(MECHANISM.format(name="other", registered="TICKET"))
    available = available_mechanisms(importlib.import_module("someplugins"))
    assert available["PLAIN"] is PLAIN
    with pytest.raises(ConfigError) as caught:
        available["TICKET"]
    assert str(caught.value) == (
        f"the mechanism TICKET is offered by {plugins}/first.py and by {plugins}/second.py; remove one of them"
    )


@pytest.mark.parametrize("name", ["", "ticket", "TICKET ", "A" * 21, "TÎCKET", "A=B", "A\\n"])
def test_a_name_that_is_none(plugins: Path, name: str) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="ticket", registered=name))
    with capturedLogs() as events:
        assert list(of_twisted().values()) == list(STANDARD)
    (event,) = events
    assert "RFC 4422 allows 20 of A-Z, 0-9, - and _" in str(event["error"])


def test_an_entry_point(package: ModuleType, tmp_path: Path, plugins: Path) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="ticket", registered="TICKET"))
    install(tmp_path, "theirs", "ticket = someplugins.theirs:ticket")
    assert list(available_mechanisms(package))[len(STANDARD) :] == ["TICKET"]


def test_what_is_shipped_in_both_ways_is_there_once(tmp_path: Path, plugins: Path) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="ticket", registered="TICKET"))
    install(tmp_path, "theirs", "ticket = someplugins.theirs:ticket")
    assert list(of_twisted())[len(STANDARD) :] == ["TICKET"]


def test_an_entry_point_whose_name_is_ours(package: ModuleType, tmp_path: Path, plugins: Path) -> None:
    (plugins / "theirs.py").write_text(MECHANISM.format(name="ticket", registered="PLAIN"))
    install(tmp_path, "theirs", "ticket = someplugins.theirs:ticket")
    assert available_mechanisms(package)["PLAIN"] is PLAIN


def test_an_entry_point_to_something_else(package: ModuleType, tmp_path: Path, plugins: Path) -> None:
    (plugins / "theirs.py").write_text("ticket = 3\n")
    install(tmp_path, "theirs", "ticket = someplugins.theirs:ticket")
    with capturedLogs() as events:
        assert list(available_mechanisms(package).values()) == list(STANDARD)
    (event,) = events
    assert event["origin"] == "theirs 1.0, entry point ticket = someplugins.theirs:ticket"
    assert str(event["error"]).startswith("it is none: ")


def test_an_entry_point_that_can_not_be_loaded(package: ModuleType, tmp_path: Path, plugins: Path) -> None:
    install(tmp_path, "theirs", "ticket = someplugins.absent:ticket")
    with capturedLogs() as events:
        assert list(available_mechanisms(package).values()) == list(STANDARD)
    (event,) = events
    assert event["log_level"] is LogLevel.critical
    assert "ModuleNotFoundError" in event["log_failure"].getTraceback()


def test_a_module_of_a_plugin_imports_no_reactor() -> None:
    """Otherwise ``twistd --reactor`` would come too late."""
    script = "import sys; from smtpfw.sasl.plugins import available_mechanisms as find; find()\n"
    script += "print('twisted.internet.reactor' in sys.modules)"
    done = subprocess.run(
        (sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
