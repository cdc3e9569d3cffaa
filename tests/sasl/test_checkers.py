"""A function, and the checkers of twisted.cred, as checkers of passwords."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from twisted.cred import strcred
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpfw.errors import AuthFailed, AuthUnavailable, ConfigError
from smtpfw.hooks import call_hook
from smtpfw.sasl import PLAIN, IPasswordChecker, Plain
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.exchange import CheckerFault
from tests.sasl.helpers import PASSWORD, WAYS, refusal_of, server_for, talk


def ask(checker: Any, username: str = "tim", password: str = PASSWORD) -> str:
    return call_hook(checker.check_password, username, password)  # type: ignore[no-any-return]


@implementer(ICredentialsChecker)
class Recorder:
    """Answers as told, and remembers in which forms it was asked."""

    credentialInterfaces: tuple[Any, ...] = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[type, type]] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append((type(credentials.username), type(credentials.password)))
        answer = self.answer(credentials) if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def wants(form: type, complaint: Exception) -> Recorder:
    """Knows tim in one form, and says ``complaint`` to the other."""

    def answer(credentials: Any) -> Any:
        if not isinstance(credentials.username, form):
            return complaint
        return credentials.username if credentials.checkPassword(PASSWORD) else UnauthorizedLogin()

    return Recorder(answer)


@pytest.mark.parametrize("way", WAYS)
def test_function_answers_in_any_way(way: Any) -> None:
    checker = FunctionChecker(
        lambda username, password: way(lambda: "tim@example.org" if password == PASSWORD else None)
    )
    verifyObject(IPasswordChecker, checker)
    assert talk(Plain("tim", PASSWORD), server_for("PLAIN", checker)) == "tim@example.org"
    assert isinstance(refusal_of(server_for("PLAIN", checker), b"\0tim\0wrong"), AuthFailed)


def test_true_means_the_name_as_it_was_given() -> None:
    assert ask(FunctionChecker(lambda username, password: True)) == "tim"


@pytest.mark.parametrize("answer", [False, None])
def test_no_is_refused(answer: Any) -> None:
    with pytest.raises(AuthFailed):
        ask(FunctionChecker(lambda username, password: answer))


@pytest.mark.parametrize("answer", [1, 0, [], object(), b"tim", ""])
def test_unclear_answer_of_a_function_is_its_fault(answer: Any) -> None:
    checker = FunctionChecker(lambda username, password: answer)
    assert isinstance(refusal_of(server_for("PLAIN", checker), b"\0tim\0secret"), AuthUnavailable)


def test_what_a_function_raises_is_454_without_its_words() -> None:
    def check(username: str, password: str) -> bool:
        raise KeyError(password)

    refusal = refusal_of(server_for("PLAIN", FunctionChecker(check)), b"\0tim\0sesame")
    assert isinstance(refusal, AuthUnavailable)
    assert "sesame" not in f"{refusal!r} {refusal.__cause__!r}"


def from_strcred(description: str) -> CredChecker:
    return CredChecker([strcred.makeChecker(description)])


def test_memory_and_file_of_strcred(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"tim:{PASSWORD}\nj\u00fcrgen:gr\u00fcn\n", "utf-8")
    for checker in (from_strcred(f"memory:tim:{PASSWORD}:j\u00fcrgen:gr\u00fcn"), from_strcred(f"file:{path}")):
        verifyObject(IPasswordChecker, checker)
        for username, password in (("tim", PASSWORD), ("j\u00fcrgen", "gr\u00fcn")):
            assert talk(Plain(username, password), server_for("PLAIN", checker)) == username
        for username, password in (("tim", "wrong"), ("nobody", PASSWORD)):
            with pytest.raises(AuthFailed):
                ask(checker, username, password)


def test_file_with_hashes(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"tim:{hashlib.sha256(PASSWORD.encode()).hexdigest()}\n")

    def hash_of(username: bytes, password: bytes, stored: bytes) -> bytes:
        return hashlib.sha256(password).hexdigest().encode()

    checker = CredChecker([FilePasswordDB(str(path), hash=hash_of)])
    assert ask(checker) == "tim"
    with pytest.raises(AuthFailed):
        ask(checker, password="wrong")


def test_checkers_are_asked_in_order_until_one_knows_the_user() -> None:
    first = InMemoryUsernamePasswordDatabaseDontUse(tim=b"first")
    second = InMemoryUsernamePasswordDatabaseDontUse(tim=b"second", ursel=b"third")
    checker = CredChecker([AllowAnonymousAccess(), first, second])
    for username, password in (("tim", "first"), ("tim", "second"), ("ursel", "third")):
        assert ask(checker, username, password) == username
    with pytest.raises(AuthFailed):
        ask(checker, "ursel", "first")


def test_only_anonymous_is_a_mistake_of_the_operator() -> None:
    with pytest.raises(ConfigError, match="IUsernamePassword"):
        CredChecker([AllowAnonymousAccess()])


def test_checker_that_only_takes_hashed_passwords() -> None:
    class Hashed(Recorder):
        credentialInterfaces = (IUsernameHashedPassword,)

    def answer(credentials: Any) -> Any:
        assert IUsernameHashedPassword.providedBy(credentials)
        return credentials.username if credentials.checkPassword(PASSWORD.encode()) else UnauthorizedLogin()

    checker = CredChecker([Hashed(answer)])
    assert ask(checker) == "tim"
    with pytest.raises(AuthFailed):
        ask(checker, password="wrong")


@pytest.mark.parametrize("form", [bytes, str])
@pytest.mark.parametrize("complaint", [UnauthorizedLogin(), TypeError(), AttributeError()])
def test_form_is_learned_by_the_first_success(form: type, complaint: Exception) -> None:
    recorder = wants(form, complaint)
    checker = CredChecker([recorder])
    with pytest.raises(AuthFailed):
        ask(checker, password="wrong")
    assert recorder.asked == [(bytes, bytes), (str, str)]
    assert ask(checker) == "tim"
    recorder.asked.clear()
    with pytest.raises(AuthFailed):
        ask(checker, password="wrong")
    # One failure of the client's is one failure to a directory that locks accounts.
    assert recorder.asked == [(form, form)]


def test_denied_is_refused_and_deferred_answers_count() -> None:
    for answer in (LoginDenied(), lambda credentials: fail(UnauthorizedLogin())):
        with pytest.raises(AuthFailed):
            ask(CredChecker([Recorder(answer)]))
    later: Deferred[bytes] = Deferred()
    waiting = ask(CredChecker([Recorder(later)]))
    assert isinstance(waiting, Deferred)
    later.callback(b"tim")
    assert waiting.result == "tim"
    assert ask(CredChecker([Recorder(lambda credentials: succeed(b"ursel"))])) == "ursel"


@pytest.mark.parametrize("error", [OSError("no answer"), ZeroDivisionError(), TypeError("of both forms")])
def test_any_other_error_passes(error: Exception) -> None:
    never = Recorder(b"tim")
    with pytest.raises(type(error)):
        ask(CredChecker([Recorder(error), never]))
    assert never.asked == []
    refusal = refusal_of(server_for("PLAIN", CredChecker([Recorder(error)])), b"\0tim\0secret")
    assert isinstance(refusal, AuthUnavailable)


@pytest.mark.parametrize("avatar_id", [(), None, 7, True])
def test_unclear_avatar_id_lets_nobody_in(avatar_id: Any) -> None:
    with pytest.raises(CheckerFault):
        ask(CredChecker([Recorder(avatar_id)]))


@pytest.mark.parametrize("avatar_id", [b"", "", b"\xff"])
def test_avatar_id_that_is_no_identity_is_454(avatar_id: Any) -> None:
    server = PLAIN.make_server(CredChecker([Recorder(avatar_id)]), server_for("PLAIN").context)
    assert isinstance(refusal_of(server, b"\0tim\0secret"), AuthUnavailable)


def test_credentials_do_not_show_themselves() -> None:
    seen: list[str] = []

    def answer(credentials: Any) -> bytes:
        seen.append(f"{credentials!r} {credentials}")
        return b"tim"

    ask(CredChecker([Recorder(answer)]))
    assert seen
    assert PASSWORD not in seen[0]
