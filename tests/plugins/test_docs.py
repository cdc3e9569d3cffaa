"""The page on plugins, held against what is there."""

from __future__ import annotations

import ast
import os
import tomllib
from typing import Any

import pytest

from smtpfw import plugins
from smtpfw.config.arguments import read, read_string, read_table
from smtpfw.config.auth import AUTH
from smtpfw.config.backends import BACKENDS
from smtpfw.config.checks import CHECKS
from smtpfw.config.extensions import EXTENSIONS
from smtpfw.config.listing import LISTINGS
from smtpfw.config.strings import parse_description
from smtpfw.plugins import KINDS, IMakerPlugin
from smtpfw.sasl.plugins import ENTRY_POINTS
from tests.plugins.test_outside import SOURCE
from tests.running import ROOT
from tests.test_readme import blocks, commands, table

PAGE = ROOT / "docs" / "plugins.md"

CLASSES = {
    "BackendPlugin": BACKENDS,
    "CheckPlugin": CHECKS,
    "AuthPlugin": AUTH,
    "ExtensionPlugin": EXTENSIONS,
}


def test_the_lists() -> None:
    assert commands(PAGE) == [f"twistd smtpfw --help-{topic}" for topic in LISTINGS]


def test_the_plugin_takes_what_the_page_says() -> None:
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[0], names)
    description = parse_description("spool:/var/spool/acme:max_message=10M")
    values = {"folder": "/var/spool/acme", "max_message": 10485760}
    assert read_string(names["spool"], description.positional, description.named) == ((), values)
    assert read_table(names["spool"], {"folder": "/var/spool/acme", "max_message": "10M"}) == values
    for text in (f"`--backend {description.text}`", 'folder="/var/spool/acme",\nmax_message=10485760'):
        assert text in PAGE.read_text()


def test_the_entry_point() -> None:
    (groups,) = tomllib.loads(blocks(PAGE, "toml")[0])["project"].values()
    assert list(groups) == [BACKENDS.group]


def test_the_classes() -> None:
    rows = table(PAGE, "class", "group of entry points", "makes", "more of its own")
    assert [row[1].strip("`") for row in rows] == [*(one.group for one in CLASSES.values()), ENTRY_POINTS]
    for (name, _, _, more, *_), expected in zip(rows, CLASSES, strict=False):
        assert name == f"`{expected}`"
        own = set(getattr(plugins, expected).__dataclass_fields__) - set(IMakerPlugin)
        assert all(f"`{attribute}=" in more for attribute in own)
        assert bool(own) is more.startswith("`")


def test_the_attributes() -> None:
    told = [row[0].strip("`") for row in table(PAGE, "attribute", "what it says")]
    assert set(told) == set(IMakerPlugin)
    assert all(IMakerPlugin.implementedBy(getattr(plugins, name)) for name in CLASSES)


@pytest.mark.parametrize("row", table(PAGE, "kind", "is written", "`make` gets"), ids=lambda row: str(row[0]))
def test_the_kinds(row: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "SECRET", "tim:sesame")
    kind, written, value = (cell.strip("`") for cell in row)
    assert read(kind, written) == ast.literal_eval(value)


def test_no_kind_is_missing() -> None:
    assert [row[0].strip("`") for row in table(PAGE, "kind", "is written", "`make` gets")] == list(KINDS)


def test_the_whole_package_is_one() -> None:
    points = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(points) == {*(one.group for one in CLASSES.values()), ENTRY_POINTS}
