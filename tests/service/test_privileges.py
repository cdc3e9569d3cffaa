"""User, group and umask."""

import os
import pwd
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.application.service import Application, IProcess

from smtpfw.config.places import Place
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError
from smtpfw.service.privileges import Account, account_of, set_umask

NOBODY = pwd.getpwnam("nobody")
TWISTD: dict[str, Any] = {"uid": None, "gid": None, "umask": None}


def settings(**given: Any) -> Values:
    values = Values(Place("the command line"))
    for name, value in given.items():
        values.set(name, value, Place(f"--{name}"))
    return values


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("given", "account"),
    [
        ({}, None),
        ({"user": "root"}, None),
        ({"user": "nobody"}, Account(NOBODY.pw_uid, NOBODY.pw_gid)),
        ({"user": str(NOBODY.pw_uid)}, Account(NOBODY.pw_uid, NOBODY.pw_gid)),
        ({"user": "nobody", "group": "0"}, Account(NOBODY.pw_uid, 0)),
    ],
)
def test_whom_to_become(given: dict[str, str], account: Account | None) -> None:
    assert account_of(settings(**given), TWISTD) == account


@pytest.mark.usefixtures("as_user")
def test_who_is_it_already_need_not_be_root() -> None:
    assert account_of(settings(user="nobody"), TWISTD) is None


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("given", "twistd", "error"),
    [
        ({"user": "no-such"}, TWISTD, "--user no-such: there is no such user; 'getent passwd' lists them"),
        (
            {"user": "nobody", "group": "no-such"},
            TWISTD,
            "--group no-such: there is no such group; 'getent group' lists them",
        ),
        ({"group": "0"}, TWISTD, "--group 0: whose? give user, too"),
        (
            {"user": "nobody"},
            {**TWISTD, "uid": 5},
            "--user: twistd's --uid says it already; give one of the two",
        ),
        (
            {"user": "nobody"},
            {**TWISTD, "gid": 5},
            "--user: twistd's --gid says it already; give one of the two",
        ),
        ({"user": "nobody"}, None, "--user nobody: only twistd changes it; here the program does"),
    ],
)
def test_what_can_not_be(given: dict[str, str], twistd: Any, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        account_of(settings(**given), twistd)
    assert str(caught.value) == error


@pytest.mark.usefixtures("as_user")
def test_others_can_become_nobody_else() -> None:
    with pytest.raises(ConfigError, match="--user root: only root can become somebody else"):
        account_of(settings(user="root"), TWISTD)


def test_twistd_is_told_whom_to_become() -> None:
    application = Application("smtpfw")
    Account(1, 2).take(application)
    assert (IProcess(application).uid, IProcess(application).gid) == (1, 2)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_umask_is_set_now_and_for_the_daemon() -> None:
    twistd = dict(TWISTD)
    set_umask(settings(umask=0o027), twistd)
    assert twistd["umask"] == 0o027
    assert os.umask(0o022) == 0o027


@pytest.mark.usefixtures("umask")
def test_a_umask_that_twistd_has_already() -> None:
    with pytest.raises(ConfigError, match="--umask: twistd's --umask says it already"):
        set_umask(settings(umask=0o027), {**TWISTD, "umask": 0o077})
    assert os.umask(0o022) == 0o022
