"""CRAM-MD5."""

from __future__ import annotations

import hashlib
import re
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import AuthFailed, AuthMalformed
from smtpfw.sasl import CramMD5, cram_md5
from tests.sasl.helpers import INFO, PASSWORD, Checker, refusal_of, server_for, step

#: RFC 2195 section 2.
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
RESPONSE = b"tim b913a602c7eda7a495b4e6e7334d3890"


def hmac_md5(key: bytes, text: bytes) -> str:
    """RFC 2104, from the hash up."""
    key = (hashlib.md5(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.md5(bytes(octet ^ 0x36 for octet in key) + text).digest()
    return hashlib.md5(bytes(octet ^ 0x5C for octet in key) + inner).hexdigest()


def test_the_example_is_what_it_should_be() -> None:
    assert f"tim {hmac_md5(PASSWORD.encode(), CHALLENGE)}".encode() == RESPONSE


def test_the_clients_part_of_the_example() -> None:
    client = CramMD5("tim", PASSWORD)
    assert client.start(INFO) == ("CRAM-MD5", None)
    assert client.next(CHALLENGE, True) == RESPONSE
    assert client.next(b"", False) is None


def test_the_servers_part_of_the_example() -> None:
    server = server_for("CRAM-MD5")
    with mock.patch.object(cram_md5, "make_challenge", return_value=CHALLENGE):
        assert step(server, None) == (CHALLENGE, False)
    assert step(server, RESPONSE) == (None, True)
    assert server.identity == "tim"


def test_challenges() -> None:
    challenges = {step(server_for("CRAM-MD5"), None)[0] for _ in range(100)}
    assert len(challenges) == 100
    # The form of a Message-ID, and nothing in it but what was drawn and our name.
    assert all(re.fullmatch(rb"<[0-9a-f]{40}@mx\.test>", challenge or b"") for challenge in challenges)


def test_no_initial_response() -> None:
    for response in (b"", RESPONSE):
        error = refusal_of(server_for("CRAM-MD5"), response)
        assert isinstance(error, AuthMalformed)
        assert str(error) == "501 5.7.0 This mechanism takes no initial response"


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"tim",
        b" " + b"0" * 32,
        b"tim " + b"0" * 31,
        b"tim " + b"0" * 33,
        b"tim " + b"G" * 32,
        RESPONSE.upper(),
        RESPONSE + b" ",
        RESPONSE + b"\n",
        RESPONSE.replace(b" ", b"\0"),
        b"t\xefm " + b"0" * 32,
    ],
)
def test_malformed(response: bytes) -> None:
    checker = Checker()
    assert type(refusal_of(server_for("CRAM-MD5", checker), None, response)) is AuthMalformed
    assert checker.asked == []


@pytest.mark.parametrize("name", ["t\u202em", "tim\0", "\u00ad", "tim\n"])
def test_names_that_nobody_has(name: str) -> None:
    checker = Checker()
    response = f"{name} {'0' * 32}".encode()
    assert type(refusal_of(server_for("CRAM-MD5", checker), None, response)) is AuthFailed
    assert checker.asked == []


def test_an_empty_secret_lets_nobody_in() -> None:
    server = server_for("CRAM-MD5", Checker(password=""))
    challenge, _ = step(server, None)
    assert challenge is not None
    response = f"tim {hmac_md5(b'', challenge)}".encode()
    assert type(refusal_of(server, response)) is AuthFailed


def test_an_unknown_user_costs_the_same_work() -> None:
    with mock.patch.object(cram_md5, "_digest", wraps=cram_md5._digest) as digest:
        refusal_of(server_for("CRAM-MD5"), None, b"nobody " + b"0" * 32)
        refusal_of(server_for("CRAM-MD5"), None, b"tim " + b"0" * 32)
    assert digest.call_count == 2


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=80), st.binary())
def test_any_secret_and_challenge(secret: str, challenge: bytes) -> None:
    client = CramMD5("a name with spaces", secret)
    client.start(INFO)
    assert client.next(challenge, True) == f"a name with spaces {hmac_md5(secret.encode(), challenge)}".encode()
    server = server_for("CRAM-MD5", Checker(username="a name with spaces", password=secret))
    ours, _ = step(server, None)
    client.start(INFO)
    assert step(server, client.next(ours or b"", True)) == (None, True)
