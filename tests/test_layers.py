"""
The layers: what may import what, read from the import statements of smtpfw.

Imports go down the list only, between neighbours on one line not at all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import smtpfw

ROOT = Path(smtpfw.__file__).parent

#: From the top to the bottom. The package itself, "", is what users import.
LAYERS = (
    ("service",),
    ("config",),
    ("backends",),
    ("",),
    ("server", "client"),
    ("policies",),
    ("tls",),
    ("extensions",),
    ("sasl",),
    ("installed", "plugins"),
    ("session", "check", "body"),
    ("hooks",),
    ("memory", "direct", "networks", "logins", "dns"),
    ("interfaces",),
    ("state",),
    ("wire",),
    ("errors",),
    ("codes",),
)
RANK = {name: len(LAYERS) - index for index, names in enumerate(LAYERS) for name in names}

#: Further down, and still not allowed: a backend works behind any server. The package imports one.
NEVER = {("backends", lower) for lower in ("server", "")}

#: May import all.
FREE = {"testing"}

#: Import the standard library and what is below them only, and for types as well as at run time.
BARE = {"wire", "errors", "codes"}


def imports(source: str, module: str) -> Iterator[tuple[int, str, bool]]:
    """Every import of a module: its line, the full name, and whether it is for the type checker only."""
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in for_types
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{module}:{node.lineno}: a relative import")
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}", id(node) in for_types


def layer_of(name: str) -> str:
    """``smtpfw.wire.server.Thing`` -> ``wire``; a name of the package itself -> an empty text."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (parts[1] in RANK or parts[1] in FREE) else ""


def violations(source: str, module: str) -> list[str]:
    """
    What is wrong with the imports of a module.

    :param module: its full name, ``smtpfw.wire.server``.
    """
    own = layer_of(module)
    if own in FREE:
        return []
    found = []
    for line, name, for_types in imports(source, module):
        top = name.partition(".")[0]
        if top != "smtpfw":
            if own in BARE and top not in sys.stdlib_module_names:
                found.append(f"{module}:{line}: {own} imports {name}, which is not of the standard library")
            continue
        other = layer_of(name)
        if for_types and own not in BARE:
            continue
        allowed = other == own or (other not in FREE and RANK[other] < RANK[own] and (own, other) not in NEVER)
        if not allowed:
            found.append(f"{module}:{line}: {own or 'smtpfw'} imports {name}")
    return found


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["smtpfw", *path.relative_to(ROOT).with_suffix("").parts]
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_imports_go_down(module: str, path: Path) -> None:
    assert violations(path.read_text(), module) == []


def test_every_module_has_a_layer() -> None:
    tops = {module.split(".")[1] for module, _ in modules() if "." in module}
    assert tops <= set(RANK) | FREE


GOOD = [
    ("smtpfw.wire.x", "import re\nfrom smtpfw.errors import SMTPError\nfrom smtpfw.wire import phases"),
    ("smtpfw.wire.x", "from smtpfw.wire.replies import Reply"),
    ("smtpfw.server.x", "from smtpfw.wire import server\nfrom smtpfw import hooks, tls\nimport twisted.internet.defer"),
    ("smtpfw.backends.lmtp", "from smtpfw.client import send_mail"),
    ("smtpfw.backends.x", "if TYPE_CHECKING:\n    from smtpfw.server import SMTPServerFactory"),
    ("smtpfw.config.x", "from smtpfw.server import SMTPServerFactory\nfrom smtpfw import __version__"),
    ("smtpfw.policies.x", "from smtpfw.dns.questions import look_up"),
    ("smtpfw.testing.x", "from smtpfw.service import Service\nfrom smtpfw.server import x"),
    ("smtpfw", "from smtpfw.server import SMTPServerFactory"),
]
BAD = [
    ("smtpfw.errors", "from smtpfw.wire import replies"),
    ("smtpfw.errors", "if TYPE_CHECKING:\n    from smtpfw.wire.replies import Reply"),
    ("smtpfw.wire.x", "from twisted.internet import defer"),
    ("smtpfw.wire.x", "import zope.interface"),
    ("smtpfw.wire.x", "if TYPE_CHECKING:\n    from smtpfw.interfaces import ISession"),
    ("smtpfw.wire.x", "if TYPE_CHECKING:\n    from twisted.internet.defer import Deferred"),
    ("smtpfw.wire.x", "def later():\n    from smtpfw import extensions"),
    ("smtpfw.wire.x", "import smtpfw.extensions.size"),
    ("smtpfw.wire.x", "from smtpfw import SMTPError"),
    ("smtpfw.interfaces", "from smtpfw.session import Session"),
    ("smtpfw.hooks", "from smtpfw.session import Session"),
    ("smtpfw.sasl.x", "from smtpfw.extensions import auth"),
    ("smtpfw.tls", "from smtpfw.server import factory"),
    ("smtpfw.server.x", "from smtpfw.client import pool"),
    ("smtpfw.client.x", "from smtpfw.server import body"),
    ("smtpfw.server.x", "import smtpfw"),
    ("smtpfw.backends.x", "from smtpfw.server import SMTPServerFactory"),
    ("smtpfw.backends.x", "from smtpfw import Session"),
    ("smtpfw.backends.x", "if not TYPE_CHECKING:\n    from smtpfw.config import plan"),
    ("smtpfw.policies.x", "import smtpfw.server"),
    ("smtpfw.dns.x", "from smtpfw.policies import DNSBL"),
    ("smtpfw.config.x", "from smtpfw import service"),
    ("smtpfw.server.x", "from smtpfw.testing import MemoryClient"),
    ("smtpfw", "from smtpfw.backends import memory"),
]


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_the_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize(("module", "source"), BAD)
def test_the_checker_finds(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


def test_the_checker_finds_relative_imports() -> None:
    with pytest.raises(AssertionError, match="a relative import"):
        violations("from . import replies", "smtpfw.wire.x")
