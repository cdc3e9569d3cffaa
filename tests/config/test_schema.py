"""The keys of a file: each is a setting or is explained, is read as its kind says, and is named in errors."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from smtpfw.config import schema
from smtpfw.config.file import tree_of_file
from smtpfw.config.places import Problems
from smtpfw.config.schema import TABLES, TableSchema, about_unknown
from smtpfw.config.settings import BY_NAME, FLAG, NETWORK, SETTINGS
from smtpfw.config.toml import TOMLFile
from smtpfw.config.tree import ServiceTree, Values

#: What stands around a key of each table, and where its settings are then.
AROUND: dict[str, tuple[TableSchema, str, Callable[[ServiceTree], Any]]] = {
    "top": (schema.SERVICE, "{}", lambda tree: tree.settings),
    "listen": (schema.LISTEN, "[listen.mx]\n{}", lambda tree: tree.listen[0].settings),
    "auth": (
        schema.AUTH,
        "[listen.mx.auth]\nuse = 'users'\n{}",
        lambda tree: tree.listen[0].auth.settings,  # type: ignore[union-attr]
    ),
    "limits": (schema.LIMITS, "[limits]\n{}", lambda tree: tree.settings),
    "log": (schema.LOG, "[log]\n{}", lambda tree: tree.settings),
}

KEYS = [(where, key) for where, (table, *_) in AROUND.items() for key in table.settings]

#: Options that a file has no setting for: it says the same in other words.
IN_OTHER_WORDS = {"config", "listen", "backend", "auth", "checks", "extensions"}


def read(text: str) -> tuple[ServiceTree, list[str]]:
    """A tree, and what is wrong, but for what a whole file would need besides."""
    problems = Problems()
    tree = tree_of_file(TOMLFile("x", text), problems)
    needed = ("nowhere", "nobody gets any mail")
    return tree, [line for _, line in problems._errors if not any(words in line for words in needed)]


def spellings(name: str) -> list[str]:
    """How a value of a setting may be written."""
    setting = BY_NAME[name]
    if setting.repeatable:
        another = "'x'" if setting.kind is not NETWORK else "'unix'"
        return [f"[{setting.kind.example}]", setting.kind.example, f"[{setting.kind.example}, {another}]"]
    found = [setting.kind.example]
    if setting.kind is FLAG:
        return [*found, "false"]
    if setting.default is not None:
        found.append(f"'{setting.kind.format(setting.default)}'")
    return found + [{int: "7", float: "1.3", bool: "false"}[one] for one in setting.kind.plain]


def test_every_setting_has_its_key_or_is_said_otherwise() -> None:
    named = [name for table in TABLES for name in table.settings.values()]
    assert set(named) == set(BY_NAME) - IN_OTHER_WORDS
    limits = {setting.name for title in ("Limits", "Time limits") for setting in SETTINGS[title]} - {"grace"}
    assert set(schema.LIMITS.keys) == limits


def test_a_key_is_called_as_its_setting_unless_its_table_says_so_already() -> None:
    for table in TABLES:
        for key, name in table.settings.items():
            assert key == name or (table in (schema.AUTH, schema.LOG) and key.removesuffix("d") in name)


@pytest.mark.parametrize(("where", "key"), KEYS)
def test_each_key_is_read(where: str, key: str) -> None:
    table, text, settings = AROUND[where]
    name = table.settings[key]
    for spelling in spellings(name):
        tree, wrong = read(text.replace("{}", f"{key} = {spelling}\n"))
        assert wrong == []
        values: Values = settings(tree)
        assert name in values
        assert values.place_of(name).line == text.count("\n") + 1
        written = tomllib.loads(f"x = {spelling}")["x"]
        if BY_NAME[name].repeatable:
            assert values[name] == tuple([written] if isinstance(written, str) else written)
        else:
            assert values[name] == BY_NAME[name].kind.read(written)


@pytest.mark.parametrize(("where", "key"), KEYS)
@pytest.mark.parametrize("value", ["{}", "[1]", "1979-05-27", "''", "[]"])
def test_each_key_refuses_what_it_is_not(where: str, key: str, value: str) -> None:
    table, text, _ = AROUND[where]
    _, wrong = read(text.replace("{}", f"{key} = {value}\n"))
    if BY_NAME[table.settings[key]].repeatable and value == "[]":
        assert wrong == []
        return
    (line,) = wrong
    title = table.title.replace("NAME", "mx")
    assert line.startswith(f"x:{text.count(chr(10)) + 1}: {title}{'.' * bool(title)}{key}")


@pytest.mark.parametrize("where", AROUND)
def test_an_unknown_key(where: str) -> None:
    table, text, _ = AROUND[where]
    for key in table.keys:
        if key in ("on", "to", "use"):
            # Too short to be guessed.
            continue
        wrong = f"{key[:-1]}x{key[-1]}"
        _, lines = read(text.replace("{}", f"{wrong} = 1\n"))
        (line,) = lines
        assert line.split(": ", 1)[1].startswith(f"{table.title.replace('NAME', 'mx')}.{wrong}".removeprefix("."))
        assert "there is no such key here; did you mean " in line


@pytest.mark.parametrize(
    ("key", "table", "words"),
    [
        ("hostnam", schema.SERVICE, "; did you mean hostname?"),
        ("max_message_bytes", schema.SERVICE, "; it stands in [limits]"),
        ("max-message-bytes", schema.SERVICE, "; it is max_message_bytes in [limits]"),
        ("routes", schema.SERVICE, "; it stands in [listen.NAME]"),
        ("grace", schema.LIMITS, "; it stands at the top, above the first [table]"),
        ("python-path", schema.LISTEN, "; it is python_path at the top, above the first [table]"),
        ("require_auth", schema.LISTEN, "; it is required in [listen.NAME.auth]"),
        ("log-level", schema.LISTEN, "; it is level in [log]"),
        ("backend", schema.LISTEN, "; it is a name of yours in [deliver]"),
        ("zzz", schema.LOG, " (there are format, level, protocol)"),
    ],
)
def test_what_to_do_about_it(key: str, table: TableSchema, words: str) -> None:
    assert about_unknown(key, table) == words


def test_an_example_of_a_kind_is_read() -> None:
    for setting in BY_NAME.values():
        value: Any = tomllib.loads(f"x = {setting.kind.example}")["x"]
        setting.kind.read(value)


def test_a_file_of_nothing_is_told_what_it_needs() -> None:
    problems = Problems()
    tree_of_file(TOMLFile("x", ""), problems)
    assert [line for _, line in problems._errors] == [
        "x:1: it says nowhere where to listen; write a table [listen.NAME]"
    ]
