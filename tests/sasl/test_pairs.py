"""Each mechanism's client against its server, whichever way the checker answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from smtpfw.errors import AuthFailed, LocalProtocolError, RemoteProtocolError
from smtpfw.sasl import (
    SCRAM,
    STANDARD,
    Anonymous,
    CramMD5,
    External,
    ISASLClient,
    ISASLServer,
    ISASLServerFactory,
    Login,
    Mechanism,
    OAuthBearer,
    Plain,
    SASLContext,
    SCRAMKeys,
    ServerInfo,
    XOAuth2,
)
from tests.sasl.helpers import (
    BINDINGS,
    BOUND,
    BOUND_INFO,
    BY_NAME,
    CLEAR,
    INFO,
    PASSWORD,
    TOKEN,
    WAYS,
    AuthorizingChecker,
    Checker,
    server_for,
    talk,
)

MakeClient = Callable[[str, str], ISASLClient]

#: How to make a client from a name and a secret, and the mechanisms that it does. The secret is a password or a token.
CLIENTS: list[tuple[MakeClient, str]] = [
    (Plain, "PLAIN"),
    (Login, "LOGIN"),
    (CramMD5, "CRAM-MD5"),
    (SCRAM, "SCRAM-SHA-1"),
    (SCRAM, "SCRAM-SHA-256"),
    (SCRAM, "SCRAM-SHA-1-PLUS"),
    (SCRAM, "SCRAM-SHA-256-PLUS"),
    (OAuthBearer, "OAUTHBEARER"),
    (XOAuth2, "XOAUTH2"),
    (lambda username, secret: External(), "EXTERNAL"),
    (lambda username, secret: Anonymous(), "ANONYMOUS"),
]
BY_CREDENTIALS = [(make, name) for make, name in CLIENTS if name not in ("EXTERNAL", "ANONYMOUS")]


def right(name: str) -> str:
    return TOKEN if BY_NAME[name].plain_text and name.endswith(("BEARER", "2")) else PASSWORD


def info_for(name: str) -> ServerInfo:
    return ServerInfo(
        name="mx.test", tls=True, mechanisms=[name], channel_bindings=BINDINGS if name.endswith("PLUS") else {}
    )


def test_all_are_here() -> None:
    assert sorted(name for _, name in CLIENTS) == sorted(BY_NAME)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("make", "name"), CLIENTS)
@pytest.mark.parametrize("initial", [True, False])
def test_success(make: MakeClient, name: str, way: Any, initial: bool) -> None:
    client = make("tim", right(name))
    assert talk(client, server_for(name, Checker(way)), info_for(name), initial=initial) == "tim"
    assert client.start(info_for(name))[0] == name
    # Once more with the same client, as after a lost connection.
    assert talk(client, server_for(name, Checker(way)), info_for(name)) == "tim"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("make", "name"), BY_CREDENTIALS)
@pytest.mark.parametrize(
    ("username", "add"),
    [("tim", "x"), ("nobody", ""), ("Tim", ""), ("tim2", "x")],
    ids=["password", "user", "case", "both"],
)
def test_wrong_credentials(make: MakeClient, name: str, way: Any, username: str, add: str) -> None:
    server = server_for(name, Checker(way))
    with pytest.raises(AuthFailed) as caught:
        talk(make(username, add + right(name)), server, info_for(name))
    # All are refused in the same words.
    assert str(caught.value) == "535 5.7.8 Authentication credentials invalid"
    assert not hasattr(server, "identity")


@pytest.mark.parametrize(("make", "name"), BY_CREDENTIALS)
def test_names_and_secrets_of_any_script(make: MakeClient, name: str) -> None:
    secret = TOKEN if right(name) == TOKEN else "pä=ss,wörd 密码"
    checker = Checker(username="bü,=cher 用户", password=secret)
    # What is typed in another form of Unicode is the same to those that prepare.
    assert talk(make("bü,=cher 用户", secret), server_for(name, checker), info_for(name)) == (
        "tim" if name not in ("CRAM-MD5",) and "SCRAM" not in name else "bü,=cher 用户"
    )


@pytest.mark.parametrize("name", ["PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_what_is_typed_in_another_form_is_the_same(name: str) -> None:
    make = {"PLAIN": Plain, "LOGIN": Login}.get(name, SCRAM)
    checker = Checker(username="b\u00fccher", password="IX p\u00e4ss")
    client = make("bu\u0308cher", "\u2168\u00a0pa\u0308s\u00ads")
    assert talk(client, server_for(name, checker), info_for(name))


@pytest.mark.parametrize("name", ["PLAIN", *(name for name in BY_NAME if name.startswith("SCRAM"))])
class TestAuthorization:
    def make(self, name: str, authorization_identity: str) -> ISASLClient:
        return (Plain if name == "PLAIN" else SCRAM)("tim", PASSWORD, authorization_identity)

    @pytest.mark.parametrize("way", WAYS)
    def test_it_is_asked_for(self, name: str, way: Any) -> None:
        checker = AuthorizingChecker(way)
        assert talk(self.make(name, "ursel"), server_for(name, checker), info_for(name)) == "ursel"
        assert checker.asked[-1] == ("authorize", "tim")

    @pytest.mark.parametrize("way", WAYS)
    def test_it_is_refused(self, name: str, way: Any) -> None:
        with pytest.raises(AuthFailed):
            talk(self.make(name, "root"), server_for(name, AuthorizingChecker(way)), info_for(name))

    def test_without_an_authorizer_there_is_none(self, name: str) -> None:
        with pytest.raises(AuthFailed):
            talk(self.make(name, "ursel"), server_for(name), info_for(name))

    def test_as_oneself(self, name: str) -> None:
        checker = AuthorizingChecker()
        assert talk(self.make(name, "tim"), server_for(name, checker), info_for(name)) == "tim"
        assert ("authorize", "tim") not in checker.asked

    def test_with_a_wrong_password_nobody_is_asked(self, name: str) -> None:
        checker = AuthorizingChecker(password="another")
        with pytest.raises(AuthFailed):
            talk(self.make(name, "ursel"), server_for(name, checker), info_for(name))
        assert ("authorize", "tim") not in checker.asked

    def test_prohibited(self, name: str) -> None:
        # PLAIN's client leaves the preparation to the server.
        with pytest.raises((AuthFailed, ValueError)):
            talk(self.make(name, "ur\u202esel"), server_for(name, AuthorizingChecker()), info_for(name))


def test_the_checkers_name_of_a_user_counts() -> None:
    checker = AuthorizingChecker(identity="tim@mx.test")
    assert talk(Plain("tim", PASSWORD), server_for("PLAIN", checker)) == "tim@mx.test"
    assert talk(Plain("tim", PASSWORD, "tim"), server_for("PLAIN", checker)) == "tim@mx.test"
    assert talk(Plain("tim", PASSWORD, "tim@mx.test"), server_for("PLAIN", checker)) == "tim@mx.test"
    assert talk(Plain("tim", PASSWORD, "ursel"), server_for("PLAIN", checker)) == "ursel"
    assert checker.asked[-1] == ("authorize", "tim@mx.test")


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_a_server_that_goes_on(make: MakeClient, name: str) -> None:
    client = make("tim", right(name))
    assert talk(client, server_for(name), info_for(name)) == "tim"
    if name in ("OAUTHBEARER", "XOAUTH2"):
        client.next(b"{}", True)
    with pytest.raises(RemoteProtocolError):
        client.next(b"more", True)


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_a_235_too_early(make: MakeClient, name: str) -> None:
    client = make("tim", right(name))
    client.start(info_for(name))
    if name in ("LOGIN", "CRAM-MD5") or name.startswith("SCRAM"):
        with pytest.raises(RemoteProtocolError):
            client.next(b"", False)
    else:
        assert client.next(b"", False) is None


@pytest.mark.parametrize("make", [Plain, Login, OAuthBearer, XOAuth2])
class TestTheGuard:
    secret = TOKEN  # which is a fine password, too

    @pytest.mark.parametrize(
        ("name", "tls"), [("mx.test", True), ("localhost", False), ("127.0.0.1", False), ("::1", False)]
    )
    def test_good_lines(self, make: Any, name: str, tls: bool) -> None:
        assert make("tim", self.secret).start(ServerInfo(name=name, tls=tls))
        assert make("tim", self.secret, host=name.upper()).start(ServerInfo(name=name, tls=tls))

    @pytest.mark.parametrize("name", ["mx.test", "localhost.evil.test", "127.0.0.1.evil.test", "192.0.2.1", ""])
    def test_bad_lines(self, make: Any, name: str) -> None:
        with pytest.raises(LocalProtocolError, match="verified TLS"):
            make("tim", self.secret).start(ServerInfo(name=name))
        assert make("tim", self.secret, allow_clear=True).start(ServerInfo(name=name))

    @pytest.mark.parametrize("options", [{}, {"allow_clear": True}])
    def test_another_host(self, make: Any, options: dict[str, bool]) -> None:
        for name in ("mx.test.evil.test", "localhost"):
            with pytest.raises(LocalProtocolError, match="another host"):
                make("tim", self.secret, host="mx.test", **options).start(ServerInfo(name=name, tls=True))


def test_plain_text() -> None:
    assert [name for name, mechanism in BY_NAME.items() if mechanism.plain_text] == [
        "OAUTHBEARER",
        "XOAUTH2",
        "PLAIN",
        "LOGIN",
    ]


def test_what_needs_something_of_the_connection() -> None:
    unavailable = {name for name, mechanism in BY_NAME.items() if not mechanism.available(CLEAR)}
    assert unavailable == {"SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "EXTERNAL"}
    assert all(mechanism.available(BOUND) for mechanism in STANDARD)


@pytest.mark.parametrize("mechanism", STANDARD)
def test_interfaces(mechanism: Mechanism) -> None:
    assert verifyObject(ISASLServerFactory, mechanism)
    assert mechanism.name == mechanism.name.upper()
    server = mechanism.make_server(Checker(), BOUND)
    server.identity = "set at the end"
    assert verifyObject(ISASLServer, server)


@pytest.mark.parametrize(("make", "name"), CLIENTS)
def test_client_interfaces(make: MakeClient, name: str) -> None:
    assert verifyObject(ISASLClient, make("tim", right(name)))


def test_values_hide_what_is_secret() -> None:
    shown = repr([SCRAMKeys(b"Salt", 4096, b"Stored", b"Server"), BOUND, BOUND_INFO, SASLContext(), INFO])
    assert not any(secret in shown for secret in ("Salt", "Stored", "Server'", "x01", "x02"))
    assert "4096" in shown
