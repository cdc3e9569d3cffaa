"""OAUTHBEARER and XOAUTH2."""

from __future__ import annotations

import base64
import json

import pytest

from smtpfw.errors import AuthFailed, AuthMalformed, RemoteProtocolError
from smtpfw.sasl import OAuthBearer, ServerInfo, XOAuth2, oauthbearer_mechanism, xoauth2_mechanism
from tests.sasl.helpers import CLEAR, INFO, TOKEN, Checker, refusal_of, server_for, step, talk

USER = "user@example.com"

#: RFC 7628 section 4.1, and its base64 as it stands there.
BEARER = b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=Bearer %s\1\1" % TOKEN.encode()
BEARER_BASE64 = (
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNS"
    "bGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)
#: RFC 7628 section 4.3.
FAILURE_BASE64 = (
    "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIiwic2NvcGUiOiJleGFtcGxlX3Njb3BlIiwib3BlbmlkLWNvbmZpZ3VyYXRpb24iOiJodHRwczovL2V4"
    "YW1wbGUuY29tLy53ZWxsLWtub3duL29wZW5pZC1jb25maWd1cmF0aW9uIn0="
)
#: Google's page on XOAUTH2.
XOAUTH2_TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"
XOAUTH2_BASE64 = (
    "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cB"
    "AQ=="
)


def both(username: str = USER) -> Checker:
    return Checker(username=username, identity=username)


class TestExamples:
    def test_oauthbearer(self) -> None:
        assert base64.b64decode(BEARER_BASE64) == BEARER
        info = ServerInfo(name="server.example.com", tls=True)
        assert OAuthBearer(USER, TOKEN, port=143).start(info) == ("OAUTHBEARER", BEARER)
        checker = both()
        server = server_for("OAUTHBEARER", checker)
        assert step(server, None) == (b"", False)
        assert step(server, BEARER) == (None, True)
        assert server.identity == USER
        assert checker.asked == [(USER, TOKEN)]

    def test_oauthbearer_failing(self) -> None:
        mechanism = oauthbearer_mechanism("example_scope", "https://example.com/.well-known/openid-configuration")
        server = mechanism.make_server(Checker(), CLEAR)
        # Without a token, to learn where to get one.
        challenge, done = step(server, b"n,a=user@example.com,\1host=server.example.com\1port=143\1auth=\1\1")
        assert challenge == base64.b64decode(FAILURE_BASE64)
        assert not done
        assert isinstance(refusal_of(server, b"\1"), AuthFailed)

    def test_xoauth2(self) -> None:
        message = base64.b64decode(XOAUTH2_BASE64)
        assert XOAuth2("someuser@example.com", XOAUTH2_TOKEN).start(INFO) == ("XOAUTH2", message)
        checker = both("someuser@example.com")
        assert isinstance(refusal_of(server_for("XOAUTH2", checker), message, b""), AuthFailed)
        assert checker.asked == [("someuser@example.com", XOAUTH2_TOKEN)]

    def test_xoauth2_failing(self) -> None:
        server = xoauth2_mechanism("https://mail.google.com/").make_server(Checker(), CLEAR)
        challenge, done = step(server, b"user=a\1auth=Bearer x\1\1")
        assert not done
        assert json.loads(challenge or b"") == {
            "status": "401",
            "schemes": "bearer",
            "scope": "https://mail.google.com/",
        }


@pytest.mark.parametrize("answer", [b"\1", b"", b"anything", "\u202e".encode(), b"\xff", BEARER])
@pytest.mark.parametrize("name", ["OAUTHBEARER", "XOAUTH2"])
def test_whatever_answers_the_json_is_refused(name: str, answer: bytes) -> None:
    server = server_for(name, Checker(password="other"))
    message = {"OAUTHBEARER": b"n,,\1auth=Bearer wrong\1\1", "XOAUTH2": b"user=tim\1auth=Bearer wrong\1\1"}[name]
    challenge, done = step(server, message)
    assert json.loads(challenge or b"")["status"] in ("invalid_token", "401")
    assert not done
    assert isinstance(refusal_of(server, answer), AuthFailed)


@pytest.mark.parametrize(
    ("client", "name", "answer"),
    [(OAuthBearer("tim", "wrong"), "OAUTHBEARER", b"\1"), (XOAuth2("tim", "wrong"), "XOAUTH2", b"")],
)
def test_the_client_keeps_the_json(client: OAuthBearer | XOAuth2, name: str, answer: bytes) -> None:
    with pytest.raises(AuthFailed):
        talk(client, server_for(name))
    assert "status" in json.loads(client.failure)
    assert client.answer == answer
    with pytest.raises(RemoteProtocolError):
        # It can't be logged in after that.
        client.next(b"", False)
    client.start(INFO)
    assert client.failure == b""
    assert client.next(b"", True) == answer
    assert client.failure


T = TOKEN.encode()

MALFORMED_BEARER = [
    b"", b"\1", b"n,,", b"n,,\1", b"n,,\1\1", b"n,,\1auth=Bearer x\1", b"n,,\1auth=Bearer x", b"n,,auth=Bearer x\1\1",
    b"n,,\1auth\1\1", b"n,,\1Auth=\1\1", b"n,,\1auth=Bearer x\1auth=Bearer x\1\1", b"n,,\1auth=Basic %s\1\1" % T,
    b"n,,\1auth=Bearer\1\1", b"n,,\1auth=Bearer \1\1", b"n,,\1auth=Bearer a b\1\1", b"n,,\1auth=Bearer a\0\1\1",
    b"n,,\1auth=Bearer \xe4\1\1", b"n,,\1auth=Bearer =\1\1", b"n,,\1auth= Bearer x\1\1", b"n,,\1\1auth=Bearer x\1\1",
    b"n,,\1auth=Bearer x\1\1more", b"n,,\1auth=Bearer x\1\1\1", b"n,,\0auth=Bearer x\1\1",
    b"n,a=\xff,\1auth=Bearer x\1\1", b"p=tls-exporter,,\1auth=Bearer x\1\1", b"n,a=a=b,\1auth=Bearer x\1\1",
    b"n,,\1h-t=1\1auth=Bearer x\1\1",
    b"user=tim\1auth=Bearer x\1\1",
]  # fmt: skip
MALFORMED_XOAUTH2 = [
    b"", b"\1", b"\1\1", b"user=tim\1\1", b"auth=Bearer x\1\1", b"user=\1auth=Bearer x\1\1",
    b"user=tim\1auth=Bearer x\1", b"user=tim\1auth=Basic x\1\1", b"user=tim\1user=root\1auth=Bearer x\1\1",
    b"user=\xff\1auth=Bearer x\1\1",
    b"user=tim\1auth=Bearer \1\1", b"user=tim\1auth=Bearer a\0\1\1", b"user=t\0m\1auth=Bearer x\1\1",
    b"n,,\1auth=Bearer x\1\1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "response"),
    [("OAUTHBEARER", response) for response in MALFORMED_BEARER]
    + [("XOAUTH2", response) for response in MALFORMED_XOAUTH2],
)
def test_malformed(name: str, response: bytes) -> None:
    checker = Checker()
    assert isinstance(refusal_of(server_for(name, checker), response), AuthMalformed)
    assert checker.asked == []


@pytest.mark.parametrize(
    ("response", "asked"),
    [
        (b"n,,\1auth=Bearer %s\1\1" % T, ("", TOKEN)),
        (b"y,,\1auth=bearer  %s\1\1" % T, ("", TOKEN)),
        (b"n,a=tim,\1auth=BEARER %s\1port=587\1\1" % T, ("tim", TOKEN)),
        ("n,a=tim\u00ad,\1mthd=POST\1auth=Bearer ".encode() + T + b"\1qs=a=b&c\r\n\t \1\1", ("tim", TOKEN)),
    ],
)
def test_well_formed(response: bytes, asked: tuple[str, str]) -> None:
    checker = Checker()
    assert step(server_for("OAUTHBEARER", checker), response) == (None, True)
    assert checker.asked == [asked]


@pytest.mark.parametrize("name", ["t\u202em", "\u00ad", "t\nm"])
def test_names_that_nobody_has(name: str) -> None:
    for mechanism, message in (("OAUTHBEARER", f"n,a={name},\1"), ("XOAUTH2", f"user={name}\1")):
        checker = Checker()
        server = server_for(mechanism, checker)
        assert isinstance(refusal_of(server, message.encode() + b"auth=Bearer %s\1\1" % T, b"\1"), AuthFailed)
        assert checker.asked == []


def test_without_a_name_or_a_port() -> None:
    message = b"n,,\1host=mx.test\1auth=Bearer %s\1\1" % T
    assert OAuthBearer("", TOKEN).start(INFO) == ("OAUTHBEARER", message)
    message = b"n,a=b=2C=3D,\1auth=Bearer %s\1\1" % T
    assert OAuthBearer("b,=", TOKEN).start(ServerInfo(name="", tls=True)) == ("OAUTHBEARER", message)


@pytest.mark.parametrize("token", ["", "a b", "a\1", "a\n", "ä", "=", "a=b"])
@pytest.mark.parametrize("make", [OAuthBearer, XOAuth2])
def test_what_is_no_token(make: type[OAuthBearer | XOAuth2], token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        make("tim", token)


def test_a_name_that_would_add_a_field() -> None:
    with pytest.raises(ValueError, match="control character"):
        XOAuth2("tim\1auth=Bearer x", TOKEN)
