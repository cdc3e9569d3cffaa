"""Whatever stands in a file, there is a plan, or lines that say where it is wrong; never another exception."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from smtpfw.config import make_plan, read_tree
from smtpfw.config import schema as keys
from smtpfw.errors import ConfigError
from tests.certificates import write_pair
from tests.config.plans import parsed

GOOD: dict[str, Any] = {
    "hostname": "mx.example.org",
    "tls": "certs",
    "client_ca": "certs/server.pem",
    "grace": "5s",
    "workers": 2,
    "umask": "027",
    "auth": {"users": "htpasswd:users", "others": "certificate"},
    "deliver": {
        "local": "maildir:md/{domain}/{user}",
        "isp": {
            "plugin": "relay",
            "via": ["smtps:a.example"],
            "login": "file:secret",
            "tls": "required",
            "honours": ["DSN"],
        },
        "lmtp": {"plugin": "lmtp", "via": "unix:/run/lmtp", "command_timeout": "1m"},
        "box": {"plugin": "maildir", "path": "box", "eol": "lf"},
    },
    "listen": {
        "mx": {
            "on": ["tcp6:25", "tcp:26:interface=127.0.0.1"],
            "checks": ["rate:ip=30/m", "loop:max=50", "networks:10.0.0.0/8"],
            "extensions": ["-DSN", "LIMITS:max_transactions=5"],
            "trusted": ["10.0.0.0/8", "unix"],
            "routes": [
                {"to": ["list-*@example.org", "news@example.org"], "deliver": "box", "network": ["10.0.0.0/8"]},
                {"to": "example.org", "deliver": "local"},
                {"to": "old.example", "reject": "550 5.1.6 Moved"},
                {"to": "trash.example", "discard": True},
                {"to": "*", "deliver": "lmtp"},
            ],
            "limits": {"max_recipients": 5},
        },
        "submission": {
            "on": ["smtps:465"],
            "auth": {"use": "users", "mechanisms": ["PLAIN", "SCRAM-SHA-256"], "required": True},
            "protocol": "smtp",
            "require_tls": True,
            "profile": "strict",
            "routes": [{"to": "*", "login": ["tim"], "deliver": "isp"}, {"to": "postmaster", "deliver": "local"}],
        },
    },
    "limits": {"max_message_bytes": "10M", "command_timeout": 30},
    "log": {"level": "warn", "format": "json"},
}

_KEYS = sorted({key for table in keys.TABLES for key in table.keys} | {"plugin", "via", "login", "mx", "", "ü\n"})
_WORDS = [
    "*",
    "users",
    "local",
    "tcp:25",
    "tcp:0",
    "unix:x",
    "smtps:1",
    ":",
    "a:b=c:d",
    "maildir:{",
    "relay:mx",
    "relay:",
    "memory:a=",
    "session",
    "rate:",
    "rate:ip=1/m",
    "-DSN",
    "-",
    "::1",
    "0.0.0.0/0",
    "mx.example.org",
    "@",
    "a@b",
    "*.x",
    ".",
    "xn--x",
    "10M",
    "-1",
    "true",
    "certs",
    "handler:os:path",
    "htpasswd:",
    "file:x",
    "env:",
    "credential:x",
]
_TEXTS = st.sampled_from([*_WORDS, "", "\\", "250 x", "\x00", "\n", "x" * 300]) | st.text(max_size=8)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none().map(lambda _: "")
    | _TEXTS
    | st.booleans()
    | st.sampled_from([0, 1, -1, 25, 10**18, 10**30, 0.5, 1e300, math.inf, -math.inf, math.nan]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each element of each table and list in it: what holds it, and by which key."""
    found = []
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


@st.composite
def files(draw: Any) -> str:
    """The file above, with some things in it other than they should be."""
    tree = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        found = places(tree)
        if not found:
            break
        holder, key = draw(st.sampled_from(found))
        change = draw(st.sampled_from(["another", "gone", "more", "moved"]))
        if change == "gone":
            del holder[key]
        elif change == "more" and isinstance(holder, dict):
            holder[draw(st.sampled_from(_KEYS))] = draw(_VALUES)
        elif change == "moved":
            other, its_key = draw(st.sampled_from(places(GOOD)))
            holder[key] = copy.deepcopy(other[its_key])
        else:
            holder[key] = draw(_VALUES)
    return "".join(f"{json.dumps(key)} = {written(value)}\n" for key, value in tree.items())


def written(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {written(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the one of DEL and the halves of surrogate pairs.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("e+", "e")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("any")
    (folder / "certs").mkdir()
    write_pair(folder / "certs")
    (folder / "users").write_text("")
    (folder / "secret").write_text("me:sesame\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def lines_about(text: str) -> list[str]:
    try:
        tree, problems = read_tree(parsed("--config", "x.toml"), text.encode())
        make_plan(tree, Clock(), problems)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def test_as_it_is_there_is_nothing_wrong_with_it() -> None:
    text = "".join(f"{key} = {written(value)}\n" for key, value in GOOD.items())
    assert lines_about(text) == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files())
def test_a_plan_or_lines(text: str) -> None:
    for line in lines_about(text):
        assert re.match(r"x\.toml:\d+: \S", line), line
        assert "sesame" not in line


def test_nothing_is_left_behind(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"certs", "users", "secret"}
