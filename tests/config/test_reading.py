"""The command line and the file: the same in both, and one beside the other."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.config import schema
from smtpfw.config.file import tree_of_file
from smtpfw.config.places import Place, Problems
from smtpfw.config.reading import read_tree
from smtpfw.config.settings import BY_NAME, FLAG
from smtpfw.config.toml import TOMLFile
from smtpfw.config.tree import LISTENER, ServiceTree, tree_of_options
from smtpfw.errors import ConfigError
from tests.config.plans import mistakes, mistakes_of_file, parsed, plan_of_file

#: Where each setting stands in a file of one listener.
TABLES = {
    f"[listen.{LISTENER}]": schema.LISTEN,
    f"[listen.{LISTENER}.auth]": schema.AUTH,
    "[limits]": schema.LIMITS,
    "[log]": schema.LOG,
}
KEYS = {name: ("", key) for key, name in schema.SERVICE.settings.items() if name not in schema.LISTEN.settings}
KEYS |= {name: (header, key) for header, table in TABLES.items() for key, name in table.settings.items()}

FILE = """\
[deliver]
local = "discard"

[listen.mx]
on     = "tcp:0:interface=127.0.0.1"
routes = [ { to = "*", deliver = "local" } ]
"""


def as_file(names: set[str]) -> str:
    """A file that gives these settings, as in their examples."""
    tables: dict[str, list[str]] = {
        "": [],
        f"[auth]\n{LISTENER} = 'htpasswd:users'\n": [],
        **{one: [] for one in TABLES},
    }
    tables[f"[listen.{LISTENER}]"] += ["on = ['tcp:25', 'smtps:465']", "checks = ['loop']", "extensions = ['-DSN']"]
    tables[f"[listen.{LISTENER}.auth]"] += [f"use = '{LISTENER}'"]
    for name in names:
        header, key = KEYS[name]
        tables[header].append(f"{key} = {BY_NAME[name].kind.example}")
    if "require_auth" not in names:
        tables[f"[listen.{LISTENER}.auth]"].append("required = false")
    return "\n".join("\n".join([header, *lines]) for header, lines in tables.items())


def as_options(names: set[str]) -> list[str]:
    """A command line that gives them."""
    words = ["--auth", "htpasswd:users", "--listen", "tcp:25", "--listen", "smtps:465", "--checks", "loop"]
    words += ["--extensions=-DSN"]
    for name in names:
        setting = BY_NAME[name]
        value = tomllib.loads(f"x = {setting.kind.example}")["x"]
        text = {True: "yes"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        words.append(f"--{setting.option}" if setting.kind is FLAG else f"--{setting.option}={text}")
    return words


def meaning(tree: ServiceTree) -> dict[str, Any]:
    """What a tree says, without places; routes are what a command line has none of."""
    (listen,) = tree.listen
    settings = listen.settings.over(tree.settings)
    assert listen.auth is not None
    own = listen.auth.settings.over(settings)
    return {
        **{name: bool(own[name]) if BY_NAME[name].kind is FLAG else own[name] for name in KEYS},
        "name": listen.name,
        "on": [text.text for text in listen.on],
        "checks": [text.text for text in listen.checks],
        "extensions": [text.text for text in listen.extensions],
        "auth": (listen.auth.users, {name: text.text for name, text in tree.users.items()}),
    }


@given(st.sets(st.sampled_from(sorted(KEYS))))
def test_options_are_a_small_file(names: set[str]) -> None:
    problems = Problems()
    of_file = tree_of_file(TOMLFile("x", as_file(names)), problems)
    with pytest.raises(ConfigError, match=r"^x:\d+: listen.main.routes: nobody gets any mail; [^\n]*$"):
        problems.check()
    assert meaning(of_file) == meaning(tree_of_options(parsed(*as_options(names))))


def test_every_setting_of_a_listener_is_tried() -> None:
    assert set(BY_NAME) - set(KEYS) == {"config", "listen", "backend", "auth", "checks", "extensions"}


def test_options_beside_a_file_count_more(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"hostname = 'a.example'\n{FILE}[limits]\nmax_recipients = 5\n[log]\nlevel = 'warn'\n")
    words = ["--hostname", "b.example", "--max-recipients", "7", "--log-level", "info", "--grace", "30s"]
    tree, problems = read_tree(parsed(*words, "--config", str(path)))
    assert not problems
    assert [tree.settings[name] for name in ("hostname", "max_recipients", "log_level")] == ["b.example", 7, "info"]
    assert tree.settings.place_of("hostname") == Place("--hostname")
    # Even if it is the default.
    assert "grace" in tree.settings


def test_what_a_listener_says_of_its_own_counts_most(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path / "x.toml", f"{FILE}limits.max_recipients = 5\n", "--max-recipients", "7")
    assert plan.listen[0].config.max_recipients == 5


def test_options_that_have_no_place_beside_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    words = ["--backend", "memory", "--listen", "tcp:25", "--require-tls", "--checks", "loop"]
    assert mistakes_of_file(path, FILE, *words) == [
        f"--{option}: the listeners stand in {path}; write it there"
        for option in ("listen", "backend", "checks", "require-tls")
    ]


def test_a_mistake_in_an_option_beside_a_file_names_the_option(tmp_path: Path) -> None:
    assert mistakes_of_file(tmp_path / "x.toml", FILE, "--tls", "absent.pem") == [
        "--tls: absent.pem: no such file or directory"
    ]


def test_what_is_no_file(tmp_path: Path) -> None:
    assert mistakes("--config", str(tmp_path)) == [f"{tmp_path}: is a directory"]
    assert mistakes("--config", "absent.toml") == ["absent.toml: no such file or directory"]


def test_octets_that_are_known_are_not_read_again() -> None:
    tree, problems = read_tree(parsed("--config", "absent.toml"), FILE.encode())
    assert not problems
    assert tree.listen[0].place == Place("listen.mx", "absent.toml", 4)
