"""SCRAM's client: which form it chooses, and what it refuses."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from smtpfw.errors import AuthFailed, LocalProtocolError, RemoteProtocolError
from smtpfw.sasl import SCRAM, ServerInfo
from tests.sasl.helpers import INFO, PASSWORD, Checker, server_for, talk

P = b"p=tls-exporter,,"
E = b"p=tls-server-end-point,,"
ZEROES = base64.b64encode(bytes(32))


class TestChoice:
    #: what the line has, what the server offers, the choice, its header.
    CHOICES: tuple[tuple[list[str], list[str], str, bytes], ...] = (
        (["tls-exporter", "tls-server-end-point"], ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "SCRAM-SHA-256-PLUS", P),
        (["tls-server-end-point"], ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "SCRAM-SHA-256-PLUS", E),
        (["tls-exporter"], ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"], "SCRAM-SHA-1-PLUS", P),
        (["tls-exporter"], ["SCRAM-SHA-256", "PLAIN"], "SCRAM-SHA-256", b"y,,"),
        (["tls-exporter"], ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256"], "SCRAM-SHA-256", b"n,,"),
        ([], ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "SCRAM-SHA-256", b"n,,"),
        ([], ["SCRAM-SHA-1", "SCRAM-SHA-256"], "SCRAM-SHA-256", b"n,,"),
        ([], ["PLAIN", "scram-sha-1"], "SCRAM-SHA-1", b"n,,"),
        (["tls-unique"], ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], "SCRAM-SHA-1", b"n,,"),
    )

    @pytest.mark.parametrize(("bindings", "offered", "name", "header"), CHOICES)
    def test_client(self, bindings: list[str], offered: list[str], name: str, header: bytes) -> None:
        info = ServerInfo(name="mx", mechanisms=offered, channel_bindings=dict.fromkeys(bindings, b"data"))
        chosen, message = SCRAM("tim", PASSWORD).start(info)
        assert chosen == name
        assert (message or b"").startswith(header + b"n=tim,r=")

    @pytest.mark.parametrize("offered", [[], ["PLAIN"], ["SCRAM-SHA-256-PLUS"], ["SCRAM-SHA-512"]])
    def test_nothing_to_choose(self, offered: list[str]) -> None:
        with pytest.raises(LocalProtocolError, match="no form of SCRAM"):
            SCRAM("tim", PASSWORD).start(ServerInfo(name="mx", mechanisms=offered))


def test_who_acts_as_another() -> None:
    client = SCRAM("t,im", PASSWORD, "a=b")
    _, message = client.start(INFO)
    assert (message or b"").startswith(b"n,a=a=3Db,n=t=2Cim,r=")


class TestWhatAClientRefuses:
    def started(self, **options: int) -> tuple[SCRAM, bytes]:
        client = SCRAM("tim", PASSWORD, **options)  # type: ignore[arg-type]
        _, message = client.start(ServerInfo(name="mx", mechanisms=["SCRAM-SHA-256"]))
        return client, (message or b"").partition(b"r=")[2]

    @pytest.mark.parametrize(
        "message",
        [
            b"", b"r=%sx", b"r=%sx,s=c2FsdA==", b"r=%sx,s=c2FsdA==,i=", b"r=%sx,s=c2FsdA==,i=04096",
            b"r=%sx,s=c2FsdA==,i=-1",
            b"r=%sx,s=c2FsdA==,i=4096,", b"r=%sx,s=c2FsdA=,i=4096", b"r=%sx,s=!,i=4096", b"m=1,r=%sx,s=c2FsdA==,i=4096",
            b"r=%sx,s=c2FsdA==,i=4096,m=1", b"s=c2FsdA==,r=%sx,i=4096", b"e=other-error",
            b"r=%sx,s=c2FsdA==,i=99999999999999999999",
        ],
    )  # fmt: skip
    def test_malformed(self, message: bytes) -> None:
        client, nonce = self.started()
        with pytest.raises(RemoteProtocolError, match="first message"):
            client.next(message.replace(b"%s", nonce), True)

    @pytest.mark.parametrize("message", [b"r=%s,s=c2FsdA==,i=4096", b"r=x%s,s=c2FsdA==,i=4096", b"r=%sx,s=,i=4096"])
    def test_nonce_and_salt(self, message: bytes) -> None:
        client, nonce = self.started()
        with pytest.raises(RemoteProtocolError, match="nonce"):
            client.next(message.replace(b"%s", nonce), True)

    @pytest.mark.parametrize("rounds", [1, 4095, 1_000_001, 9_999_999_999])
    def test_rounds(self, rounds: int) -> None:
        client, nonce = self.started()
        with pytest.raises(RemoteProtocolError, match=f"wants {rounds} rounds"):
            client.next(b"r=%sx,s=c2FsdA==,i=%d" % (nonce, rounds), True)

    def test_rounds_on_request(self) -> None:
        client, nonce = self.started(min_iterations=1, max_iterations=2)
        assert client.next(b"r=%sx,s=c2FsdA==,i=2" % nonce, True)
        client, nonce = self.started(min_iterations=1, max_iterations=2)
        with pytest.raises(RemoteProtocolError, match="rounds"):
            client.next(b"r=%sx,s=c2FsdA==,i=3" % nonce, True)

    def answered(self) -> SCRAM:
        client, nonce = self.started()
        assert client.next(b"r=%sx,s=c2FsdA==,i=4096" % nonce, True)
        return client

    @pytest.mark.parametrize("message", [b"v=" + ZEROES, b"v=", b"v=AAAA"])
    def test_a_server_that_does_not_know_the_password(self, message: bytes) -> None:
        client = self.answered()
        with pytest.raises(RemoteProtocolError, match="proof is wrong"):
            client.next(message, True)
        with pytest.raises(RemoteProtocolError, match="not proved"):
            client.next(b"", False)

    @pytest.mark.parametrize("message", [b"", b"x=1", b"v=!", b"v=" + ZEROES + b",m=1", b"e=", b"e=Bad\nwords"])
    def test_last_words_that_are_none(self, message: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match="last message"):
            self.answered().next(message, True)

    def test_a_server_that_explains(self) -> None:
        with pytest.raises(AuthFailed, match="The server says: invalid-proof"):
            self.answered().next(b"e=invalid-proof", True)

    def test_a_server_that_skips_its_proof(self) -> None:
        for client in (self.started()[0], self.answered()):
            with pytest.raises(RemoteProtocolError, match="not proved"):
                client.next(b"", False)

    @pytest.mark.parametrize(
        "arguments",
        [("", "p"), ("u", ""), ("\u00ad", "p"), ("u", "\u00ad"), ("u\0", "p"), ("u", "p\0"), ("u", "p", "a\0"),
         ("u\u202e", "p"), ("u", "p\u202e"), ("u", "p\U0001f600")],
    )  # fmt: skip
    def test_credentials(self, arguments: Any) -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            SCRAM(*arguments)

    def test_a_name_that_unicode_3_2_does_not_know(self) -> None:
        # RFC 5802 section 5.1: a name is a query, a password goes into a key.
        username = "tim\U0001f600"
        server = server_for("SCRAM-SHA-256", Checker(username=username))
        assert talk(SCRAM(username, PASSWORD), server) == username
