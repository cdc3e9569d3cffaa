"""Which mechanism a client logs in with, and what it says when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpfw.client.login import choose, clients_of
from smtpfw.errors import LocalProtocolError
from smtpfw.sasl import (
    SCRAM,
    Anonymous,
    CramMD5,
    External,
    ISASLClient,
    Login,
    OAuthBearer,
    Plain,
    ServerInfo,
    XOAuth2,
)
from tests.sasl.helpers import PASSWORD, TOKEN

NAME = "tim.user"
PAIR = (NAME, PASSWORD)
BINDING = {"tls-exporter": b"data"}

#: SASLprep prohibits them for SCRAM, each in its own way; the other mechanisms send them as they are.
NOT_FOR_SCRAM = ["secret\U0001f600", "secret\ue000", "se\u05d0cret", "\u00ad"]


def info(*mechanisms: str, tls: bool = True, name: str = "mx.example.org", **more: Any) -> ServerInfo:
    return ServerInfo(name=name, tls=tls, mechanisms=mechanisms, **more)


def refusal(clients: Sequence[ISASLClient], server_info: ServerInfo) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        choose(clients, server_info)
    assert caught.value.__cause__ is None
    return str(caught.value)


@implementer(ISASLClient)
class Foreign:
    """A client that others made."""

    def __init__(self, mechanism: str = "X-FOREIGN", refuses: bool = False) -> None:
        self.mechanism = mechanism
        self.refuses = refuses

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        if self.refuses:
            raise LocalProtocolError("not today")
        return self.mechanism, b""

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        return None


class TestClientsOf:
    @pytest.mark.parametrize("auth", [PAIR, list(PAIR)])
    def test_name_and_password(self, auth: Any) -> None:
        clients = clients_of(auth)
        assert [type(client) for client in clients] == [SCRAM, CramMD5, Plain, Login]

    def test_a_client(self) -> None:
        client = Plain(*PAIR)
        assert clients_of(client) == (client,)

    @pytest.mark.parametrize("kind", [list, tuple])
    def test_a_sequence(self, kind: type[Any]) -> None:
        clients = [Login(*PAIR), Foreign(), Plain(*PAIR)]
        assert clients_of(kind(clients)) == tuple(clients)
        assert clients_of(kind(clients[:1])) == tuple(clients[:1])

    @pytest.mark.parametrize(
        ("auth", "given"),
        [
            (None, "NoneType"),
            (7, "int"),
            ("ab", "str"),
            (NAME, "str"),
            (b"ab", "bytes"),
            (bytearray(b"ab"), "bytearray"),
            ({NAME: PASSWORD}, "dict"),
            ({NAME, PASSWORD}, "set"),
            (iter(PAIR), "tuple_iterator"),
            (Plain, "type"),
            ((NAME,), r"\(str\)"),
            ((NAME, PASSWORD, "PLAIN"), r"\(str, str, str\)"),
            ((NAME, PASSWORD.encode()), r"\(str, bytes\)"),
            ((NAME, None), r"\(str, NoneType\)"),
            ((Plain(*PAIR), PASSWORD), r"\(Plain, str\)"),
            ([PAIR, Plain(*PAIR)], r"\(tuple, Plain\)"),
        ],
    )
    def test_something_else(self, auth: Any, given: str) -> None:
        with pytest.raises(TypeError, match=rf"as two str, an ISASLClient .*; not .*{given}$") as caught:
            clients_of(auth)
        assert NAME not in str(caught.value) and PASSWORD not in str(caught.value)

    def test_an_empty_sequence(self) -> None:
        with pytest.raises(ValueError, match="the sequence is empty; give None"):
            clients_of([])

    @pytest.mark.parametrize(
        ("pair", "what"),
        [
            (("", PASSWORD), "user name"),
            ((NAME, ""), "password"),
            ((NAME, PASSWORD + "\0"), "password"),
            ((NAME + "\0", PASSWORD), "user name"),
            ((NAME, PASSWORD + "\ud800"), "password"),
        ],
    )
    def test_what_no_mechanism_can_send(self, pair: tuple[str, str], what: str) -> None:
        with pytest.raises(ValueError, match=f"^the {what} is empty, or holds what cannot be sent$") as caught:
            clients_of(pair)
        # SCRAM's own error, which came first, does not hang on it.
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("password", [PASSWORD, *NOT_FOR_SCRAM])
    def test_all_of_them_are_clients_and_show_nothing(self, password: str) -> None:
        clients = clients_of((NAME, password))
        assert len(clients) == 4
        for client in clients:
            verifyObject(ISASLClient, client)
            assert NAME not in repr(client) and password not in repr(client)


class TestChoose:
    @pytest.mark.parametrize(
        ("offered", "name"),
        [
            (["LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"], "SCRAM-SHA-256"),
            (["LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1"], "SCRAM-SHA-1"),
            (["LOGIN", "PLAIN", "CRAM-MD5"], "CRAM-MD5"),
            (["LOGIN", "PLAIN"], "PLAIN"),
            (["LOGIN"], "LOGIN"),
            (["XOAUTH2", "GSSAPI", "LOGIN", "PLAIN"], "PLAIN"),
            (["login", "plain"], "PLAIN"),
            (["scram-sha-256"], "SCRAM-SHA-256"),
            # Offered, and no form of it is known here, or there is no binding: the next.
            (["SCRAM-SHA-512", "SCRAM-SHA-256-PLUS", "PLAIN"], "PLAIN"),
            (["SCRAM-", "PLAIN-TEXT", "LOGIN"], "LOGIN"),
        ],
    )
    def test_name_and_password(self, offered: list[str], name: str) -> None:
        clients = clients_of(PAIR)
        client, mechanism, _ = choose(clients, info(*offered))
        assert mechanism == name
        assert client in clients

    def test_the_first_word(self) -> None:
        clients = clients_of(PAIR)
        assert choose(clients, info("PLAIN"))[2] == f"\0{NAME}\0{PASSWORD}".encode()
        assert choose(clients, info("LOGIN"))[2] is None
        assert choose([External()], info("EXTERNAL"))[2] == b""

    def test_scram_with_binding(self) -> None:
        offered = ["SCRAM-SHA-256", "SCRAM-SHA-1-PLUS"]
        _, mechanism, response = choose(clients_of(PAIR), info(*offered, channel_bindings=BINDING))
        assert mechanism == "SCRAM-SHA-1-PLUS"
        assert (response or b"").startswith(b"p=tls-exporter,,n=")

    @pytest.mark.parametrize(
        ("client", "name"),
        [
            (OAuthBearer(NAME, TOKEN), "OAUTHBEARER"),
            (XOAuth2(NAME, TOKEN), "XOAUTH2"),
            (External(), "EXTERNAL"),
            (Anonymous(), "ANONYMOUS"),
            (SCRAM(*PAIR), "SCRAM-SHA-1"),
            (CramMD5(*PAIR), "CRAM-MD5"),
            (Plain(*PAIR), "PLAIN"),
            (Login(*PAIR), "LOGIN"),
            (Foreign(), "X-FOREIGN"),
        ],
    )
    def test_each(self, client: ISASLClient, name: str) -> None:
        everything = info("LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "ANONYMOUS", "EXTERNAL", "XOAUTH2",
                          "OAUTHBEARER", "X-FOREIGN")  # fmt: skip
        assert choose([client], everything)[:2] == (client, name)
        other = refusal([client], info("GSSAPI"))
        assert other.startswith("no way to log in: the server offers GSSAPI; we have ")
        assert name.removesuffix("-SHA-1") in other

    def test_the_order_is_the_clients(self) -> None:
        clients = [Login(*PAIR), Foreign(), Plain(*PAIR)]
        assert choose(clients, info("PLAIN", "X-FOREIGN"))[0] is clients[1]
        assert choose(clients, info("PLAIN", "LOGIN"))[0] is clients[0]
        assert choose(clients[::-1], info("LOGIN", "PLAIN"))[0] is clients[2]

    def test_what_is_not_offered_is_not_begun(self) -> None:
        with patch.object(Login, "start", side_effect=AssertionError("begun")):
            assert choose([Login(*PAIR), Plain(*PAIR)], info("PLAIN"))[1] == "PLAIN"

    def test_others_clients(self) -> None:
        assert choose([Foreign("x-foreign")], info("X-Foreign"))[1] == "x-foreign"
        assert (
            choose([Foreign("X-OTHER"), Foreign(refuses=True), Plain(*PAIR)], info("X-FOREIGN", "PLAIN"))[1] == "PLAIN"
        )
        message = refusal([Foreign("X-OTHER"), Foreign(refuses=True)], info("PLAIN", "LOGIN"))
        assert message == "no way to log in: the server offers PLAIN, LOGIN; we have X-OTHER, Foreign (not today)"

    def test_one_without_a_mechanism_is_passed_over(self) -> None:
        """As net/smtp has it: who starts with an empty name does not want to."""
        assert choose([Foreign(""), Plain(*PAIR)], info("PLAIN"))[1] == "PLAIN"
        assert refusal([Foreign("")], info("PLAIN", "")).startswith(
            "no way to log in: the server offers PLAIN; we have"
        )

    def test_a_subclass_of_ours(self) -> None:
        class Special(Plain):
            pass

        assert choose([Special(*PAIR)], info("PLAIN"))[1] == "PLAIN"
        assert refusal([Special(*PAIR)], info("LOGIN", tls=False)).endswith("we have PLAIN")


class TestLinesThatAreNotSafe:
    def test_what_does_not_send_the_password_is_used(self) -> None:
        clients = clients_of(PAIR)
        assert choose(clients, info("PLAIN", "LOGIN", "SCRAM-SHA-1", tls=False))[1] == "SCRAM-SHA-1"
        assert choose(clients, info("PLAIN", "LOGIN", "CRAM-MD5", tls=False))[1] == "CRAM-MD5"

    def test_a_client_behind_a_guarded_one_is_used(self) -> None:
        clients = [Plain(*PAIR), OAuthBearer(NAME, TOKEN), CramMD5(*PAIR)]
        assert choose(clients, info("PLAIN", "OAUTHBEARER", "CRAM-MD5", tls=False))[1] == "CRAM-MD5"

    def test_nothing_else_is_left(self) -> None:
        why = "credentials are not sent over a line without verified TLS"
        assert refusal(clients_of(PAIR), info("LOGIN", "PLAIN", tls=False)) == (
            f"no way to log in: the server offers LOGIN, PLAIN; we have SCRAM, CRAM-MD5, PLAIN ({why}), LOGIN ({why})"
        )

    def test_what_is_not_offered_does_not_blame_the_line(self) -> None:
        message = refusal(clients_of(PAIR), info("PLAIN-CLIENTTOKEN", tls=False))
        assert message == "no way to log in: the server offers PLAIN-CLIENTTOKEN; we have SCRAM, CRAM-MD5, PLAIN, LOGIN"

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
    def test_this_machine(self, name: str) -> None:
        assert choose(clients_of(PAIR), info("PLAIN", tls=False, name=name))[1] == "PLAIN"

    def test_the_caller_allows_it(self) -> None:
        assert choose([Plain(*PAIR, allow_clear=True)], info("PLAIN", tls=False))[1] == "PLAIN"

    def test_another_host(self) -> None:
        message = refusal([Plain(*PAIR, host="mx.example.com")], info("PLAIN"))
        assert message.endswith("we have PLAIN (the credentials are for another host)")


class TestWhatSASLprepProhibits:
    @pytest.mark.parametrize("password", NOT_FOR_SCRAM)
    @pytest.mark.parametrize("name", ["CRAM-MD5", "PLAIN", "LOGIN"])
    def test_the_others_are_used(self, password: str, name: str) -> None:
        assert choose(clients_of((NAME, password)), info("SCRAM-SHA-256", name))[1] == name

    def test_it_is_sent_as_it_is(self) -> None:
        password = NOT_FOR_SCRAM[0]
        _, _, response = choose(clients_of((NAME, password)), info("SCRAM-SHA-256", "PLAIN"))
        assert response == f"\0{NAME}\0{password}".encode()

    def test_a_user_name(self) -> None:
        clients = clients_of(("tim\ue000", PASSWORD))
        assert choose(clients, info("SCRAM-SHA-256", "PLAIN"))[1] == "PLAIN"
        assert "a private use character" in refusal(clients, info("SCRAM-SHA-256"))

    @pytest.mark.parametrize("password", NOT_FOR_SCRAM)
    def test_scram_tells_why_it_is_out(self, password: str) -> None:
        clients = clients_of((NAME, password))
        message = refusal(clients, info("SCRAM-SHA-256"))
        assert "we have SCRAM (SASLprep does not take the user name or the password: " in message
        assert NAME not in message and password not in message and "secret" not in message
        with pytest.raises(LocalProtocolError, match="SASLprep"):
            clients[0].next(b"", True)

    def test_it_is_no_reason_where_scram_is_not_offered(self) -> None:
        message = refusal(clients_of((NAME, NOT_FOR_SCRAM[0])), info("GSSAPI"))
        assert message.endswith("we have SCRAM, CRAM-MD5, PLAIN, LOGIN")


class TestWhatIsShown:
    def test_no_offer(self) -> None:
        assert "the server offers no mechanism; we have " in refusal(clients_of(PAIR), info())

    def test_what_is_no_name(self) -> None:
        hostile = ["\x1b[31mPLAIN", "X\r\nPLAIN", "", "X" * 21, "PL\u0410IN", "\u017fCRAM", "GSSAPI", "gssapi"]
        assert "the server offers GSSAPI; we" in refusal(clients_of(PAIR), info(*hostile))

    def test_no_secret(self) -> None:
        clients = [
            *clients_of(PAIR),
            *clients_of((NAME, NOT_FOR_SCRAM[0])),
            OAuthBearer(NAME, TOKEN),
            XOAuth2(NAME, TOKEN),
        ]
        for offered in ([], ["SCRAM-SHA-512"], ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]):
            message = refusal(clients, info(*offered, tls=False))
            for secret in (NAME, PASSWORD, NOT_FOR_SCRAM[0], TOKEN):
                assert secret not in message
        assert not any(secret in repr(clients) for secret in (NAME, PASSWORD, NOT_FOR_SCRAM[0], TOKEN))
