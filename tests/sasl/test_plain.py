"""PLAIN and LOGIN: what came over the line, and what the checker is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import AuthFailed, AuthMalformed, SMTPError
from smtpfw.sasl import Login, Plain, PreparationError, saslprep
from tests.sasl.helpers import INFO, PASSWORD, AuthorizingChecker, Checker, refusal_of, server_for, step

#: The client's messages in RFC 4616 section 4.
TIM = b"\0tim\0tanstaaftanstaaf"
KURT = b"Ursel\0Kurt\0xipj3plmq"


def test_examples_of_the_rfc() -> None:
    assert Plain("tim", PASSWORD).start(INFO) == ("PLAIN", TIM)
    assert Plain("Kurt", "xipj3plmq", "Ursel").start(INFO) == ("PLAIN", KURT)
    server = server_for("PLAIN")
    # "S:" with nothing: an empty challenge.
    assert step(server, None) == (b"", False)
    assert step(server, TIM) == (None, True)
    assert server.identity == "tim"
    checker = AuthorizingChecker(identity="Kurt", username="Kurt", password="xipj3plmq")
    assert isinstance(refusal_of(server_for("PLAIN", checker), KURT), AuthFailed)
    assert checker.asked == [("Kurt", "xipj3plmq"), ("authorize", "Kurt")]


MALFORMED = [
    b"",
    b"tim",
    b"\0tim",
    b"\0tim\0pass\0",
    b"\0\0\0",
    b"\0tim\0p\xff",
    b"\0t\xc3\0p",
    b"\xe9\0tim\0p",
    b"=",
    b"*",
]


@pytest.mark.parametrize("response", MALFORMED)
def test_malformed(response: bytes) -> None:
    checker = Checker()
    assert isinstance(refusal_of(server_for("PLAIN", checker), response), AuthMalformed)
    assert checker.asked == []


#: Nobody has such a name or such a password (RFC 4616 section 2).
NOBODY = [
    "\0\0p",
    "\0tim\0",
    "\0\0",
    "\0\u00ad\0p",
    "\0tim\0\u00ad",
    "\0t\u202eim\0p",
    "\0tim\0p\x07",
    "\u00ad\0tim\0p",
]


@pytest.mark.parametrize("response", NOBODY)
def test_nobody(response: str) -> None:
    checker = Checker()
    assert isinstance(refusal_of(server_for("PLAIN", checker), response.encode()), AuthFailed)
    assert checker.asked == []


@given(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)] * 2)
def test_any_name_and_password(username: str, password: str) -> None:
    _, message = Plain(username, password).start(INFO)
    try:
        expected = saslprep(username), saslprep(password)
    except PreparationError:
        expected = ("", "")
    checker = Checker(username=expected[0], password=expected[1])
    if all(expected):
        assert step(server_for("PLAIN", checker), message) == (None, True)
        assert checker.asked == [expected]
    else:
        assert isinstance(refusal_of(server_for("PLAIN", checker), message), AuthFailed)


def test_long_ones() -> None:
    # RFC 4616 section 2: each up to 255 octets must do.
    username, password = "u" * 255, "p" * 255
    checker = Checker(username=username, password=password, identity=username)
    server = server_for("PLAIN", checker)
    assert step(server, f"{username}\0{username}\0{password}".encode()) == (None, True)


class TestLogin:
    def test_the_dialog(self) -> None:
        server = server_for("LOGIN")
        assert step(server, None) == (b"Username:", False)
        assert step(server, b"tim") == (b"Password:", False)
        assert step(server, PASSWORD.encode()) == (None, True)
        assert server.identity == "tim"

    def test_the_name_as_initial_response(self) -> None:
        server = server_for("LOGIN")
        assert step(server, b"tim") == (b"Password:", False)
        assert step(server, PASSWORD.encode()) == (None, True)

    def test_an_unknown_name_is_asked_for_its_password(self) -> None:
        server = server_for("LOGIN")
        assert step(server, b"nobody") == (b"Password:", False)
        assert isinstance(refusal_of(server, PASSWORD.encode()), AuthFailed)

    @pytest.mark.parametrize(
        ("responses", "error"),
        [
            ([b""], AuthFailed),
            ([b"tim", b""], AuthFailed),
            ([b"tim\0"], AuthFailed),
            ([b"tim", b"pass\0word"], AuthFailed),
            ([b"tim", "\u202e".encode()], AuthFailed),
            ([b"t\xefm"], AuthMalformed),
            ([b"tim", b"p\xe4ss"], AuthMalformed),
        ],
    )
    def test_refused(self, responses: list[bytes], error: type[SMTPError]) -> None:
        checker = Checker()
        assert type(refusal_of(server_for("LOGIN", checker), *responses)) is error
        assert checker.asked == []

    def test_the_words_of_the_server_do_not_count(self) -> None:
        client = Login("tim", PASSWORD)
        assert client.start(INFO) == ("LOGIN", None)
        assert client.next(b"Nom d'utilisateur :", True) == b"tim"
        assert client.next(b"", True) == PASSWORD.encode()
        assert client.next(b"", False) is None
