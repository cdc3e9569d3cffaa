"""Who may authenticate: from a string to AUTH, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.config.auth import auth_from_string, checker_from_string
from smtpfw.config.options import ServerOptions
from smtpfw.config.plan import make_plan
from smtpfw.errors import ConfigError
from smtpfw.sasl import IPasswordChecker
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.users import UsersFile

CODE = """
async def check(username, password):
    return username == "tim"


number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "authcode").mkdir()
    (tmp_path / "authcode" / "users.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    assert isinstance(checker_from_string(f"htpasswd:{tmp_path}/users"), UsersFile)


def test_a_checker_of_cred(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("tim:secret\n")
    for text in ("memory:tim:secret", f"file:{tmp_path}/passwords"):
        assert isinstance(checker_from_string(text), CredChecker)


@pytest.mark.usefixtures("module")
def test_a_function() -> None:
    checker = checker_from_string("authcode.users:check")
    assert isinstance(checker, FunctionChecker)
    assert IPasswordChecker.providedBy(checker)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("htpaswd:users", "unknown kind 'htpaswd'; did you mean htpasswd? (known are "),
        ("htpasswd:/no/such/file", "/no/such/file"),
        ("file:/no/such/file", "there is no such file"),
        ("memory:tim", "it is written memory:"),
        ("authcode.absent:check", "--python-path DIR adds a folder"),
        ("authcode.users:chek", "authcode.users has no chek"),
        ("authcode.users:number", "int is neither a function nor a checker"),
    ],
)
def test_a_mistake_is_one_line(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        auth_from_string(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def plan(*arguments: str) -> Any:
    options = ServerOptions()
    options.parseOptions(["--backend", "discard", *arguments])
    return make_plan(options, Clock())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--auth", "memory:tim:secret"), "--auth: it is offered under TLS only"),
        (("--require-auth",), "--require-auth: there is nobody who could authenticate"),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan(*arguments)


def test_auth_joins_the_extensions() -> None:
    keywords = [extension.keyword for extension in plan().extensions]
    assert "AUTH" not in keywords
    asked = plan("--auth", "memory:tim:secret", "--allow-insecure-auth", "--require-auth")
    assert [extension.keyword for extension in asked.extensions] == [*keywords, "AUTH"]
