"""Where Date and Message-ID are added: by default, and where an operator says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import write_pair
from tests.config.plans import mistakes_of_file, plan_of, plan_of_file

USERS = ("--auth", "memory:tim:secret", "--allow-insecure-auth")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), False),
        (USERS, False),
        ((*USERS, "--require-auth"), True),
        ((*USERS, "--require-auth", "--submission", "no"), False),
        ((*USERS, "--submission", "yes"), True),
        (("--submission", "yes"), True),
    ],
)
def test_on_the_command_line(words: tuple[str, ...], expected: bool) -> None:
    assert plan_of("--backend", "memory", *words).listen[0].config.submission is expected


LISTENER = """
    tls = "{folder}/cert.pem"
    auth.users = "memory:tim:secret"
    deliver.x = "memory"
    [listen.x]
    on = "tcp:2525"
    routes = [ {{ to = "example.org", deliver = "x" }} ]
    {key}
    """


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", False),
        ('auth = "users"', True),
        ('auth = { use = "users", required = false }', False),
        ('auth = "users"\nsubmission = false', False),
        ('auth = "users"\nsubmission = "no"', False),
        ('auth = { use = "users", required = false }\nsubmission = true', True),
        ("submission = true", True),
    ],
)
def test_in_a_file(key: str, expected: bool, tmp_path: Path) -> None:
    write_pair(tmp_path).rename(tmp_path / "cert.pem")
    plan = plan_of_file(tmp_path / "x.toml", LISTENER.format(folder=tmp_path, key=key))
    assert plan.listen[0].config.submission is expected


@pytest.mark.parametrize(("value", "what"), [("1", "it is 1; "), ("'maybe'", "neither yes nor no")])
def test_what_is_neither(value: str, what: str, tmp_path: Path) -> None:
    write_pair(tmp_path).rename(tmp_path / "cert.pem")
    (line,) = mistakes_of_file(tmp_path / "x.toml", LISTENER.format(folder=tmp_path, key=f"submission = {value}"))
    assert "listen.x.submission: " in line
    assert what in line
