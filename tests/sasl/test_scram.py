"""SCRAM: the RFCs' examples, channel bindings and their flags, unknown users, and what each side refuses."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed
from smtpfw.sasl import (
    SCRAM,
    SCRAM_SHA_256,
    ISCRAMKeyStore,
    ISecretStore,
    SCRAMKeys,
    ServerInfo,
    make_scram_keys,
    scram,
    scram_mechanism,
)
from tests.sasl.helpers import (
    BINDINGS,
    BOUND,
    BOUND_INFO,
    BY_NAME,
    CLEAR,
    INFO,
    PASSWORD,
    WAYS,
    Checker,
    KeyChecker,
    prove,
    refusal_of,
    server_for,
    step,
    talk,
)

Scram = tuple[str, bytes, bytes, bytes, bytes, bytes]

#: name, salt, both nonces, the client's proof, the server's signature. RFC 5802 section 5, RFC 7677 section 3; the user
#: is "user", the password "pencil", 4096 rounds.
EXAMPLES: list[Scram] = [
    (
        "SHA-1",
        b"QSXCR+Q6sek8bf92",
        b"fyko+d2lbbFgONRv9qkxdawL",
        b"3rfcNHYJY1ZVvWVs7j",
        b"v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        "SHA-256",
        b"W22ZaJ0SNY7soEsUEjb6gQ==",
        b"rOprNGfwEbeRWgbNEkqO",
        b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@implementer(ISCRAMKeyStore)
class Store:
    """Holds what it is given, for whoever asks."""

    def __init__(self, keys: SCRAMKeys | None) -> None:
        self.keys = keys

    def get_scram_keys(self, username: str, hash_name: str) -> SCRAMKeys | None:
        return self.keys


def messages(example: Scram) -> tuple[bytes, bytes, bytes, bytes]:
    _, salt, ours, theirs, proof, signature = example
    nonce = ours + theirs
    return (
        b"n,,n=user,r=" + ours,
        b"r=" + nonce + b",s=" + salt + b",i=4096",
        b"c=biws,r=" + nonce + b",p=" + proof,
        b"v=" + signature,
    )


@pytest.mark.parametrize("example", EXAMPLES)
class TestExamples:
    def test_they_are_what_they_should_be(self, example: Scram) -> None:
        client_first, server_first, client_final, server_final = messages(example)
        assert prove(example[0], client_first[3:], server_first, b"n,,", b"pencil") == (client_final, server_final)

    def test_client(self, example: Scram) -> None:
        client_first, server_first, client_final, server_final = messages(example)
        name = f"SCRAM-{example[0]}"
        client = SCRAM("user", "pencil")
        with mock.patch.object(scram, "_make_nonce", return_value=example[2]):
            assert client.start(ServerInfo(name="mx", mechanisms=["PLAIN", name])) == (name, client_first)
        assert client.next(server_first, True) == client_final
        assert client.next(server_final, True) == b""
        assert client.next(b"", False) is None

    def test_server(self, example: Scram) -> None:
        client_first, server_first, client_final, server_final = messages(example)
        keys = make_scram_keys("pencil", example[0], base64.b64decode(example[1]))
        server = server_for(f"SCRAM-{example[0]}", Store(keys))
        with mock.patch.object(scram, "_make_nonce", return_value=example[3]):
            assert step(server, client_first) == (server_first, False)
        assert step(server, client_final) == (server_final, True)
        assert server.identity == "user"


def test_the_keys_of_an_example() -> None:
    # The keys that the names of RFC 5802 section 3 stand for, computed in the other direction.
    keys = make_scram_keys("pencil", "SHA-1", base64.b64decode("QSXCR+Q6sek8bf92"))
    salted = hashlib.pbkdf2_hmac("sha1", b"pencil", base64.b64decode("QSXCR+Q6sek8bf92"), 4096)
    client_key = hmac.new(salted, b"Client Key", "sha1").digest()
    assert keys.stored_key == hashlib.sha1(client_key).digest()
    assert keys.server_key == hmac.new(salted, b"Server Key", "sha1").digest()
    assert (keys.iterations, len(make_scram_keys("pencil").salt), len(make_scram_keys("pencil").stored_key)) == (
        4096,
        16,
        32,
    )
    assert make_scram_keys("pencil").salt != make_scram_keys("pencil").salt


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("", "SHA-256"), "password is empty"),
        (("\u00ad", "SHA-256"), "password is empty"),
        (("a\x07", "SHA-256"), "control"),
        (("a\U0001f600", "SHA-256"), "Unicode"),
        (("a", "MD5"), "'MD5' is none of SHA-256, SHA-1"),
        (("a", "SHA-256", b""), "salt"),
        (("a", "SHA-256", b"salt", 0), "round"),
    ],
)
def test_no_keys(arguments: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_scram_keys(*arguments)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("SCRAM")])
class TestStoredKeys:
    def info(self, name: str) -> ServerInfo:
        return replace(BOUND_INFO if name.endswith("PLUS") else INFO, mechanisms=[name])

    def test_success(self, name: str, way: Any) -> None:
        assert talk(SCRAM("tim", PASSWORD), server_for(name, KeyChecker(way)), self.info(name)) == "tim"

    @pytest.mark.parametrize(("username", "password"), [("tim", "x"), ("nobody", PASSWORD)])
    def test_failure(self, name: str, way: Any, username: str, password: str) -> None:
        with pytest.raises(AuthFailed):
            talk(SCRAM(username, password), server_for(name, KeyChecker(way)), self.info(name))


class TestUnknownUsers:
    """Whether there is such a user must not show before a proof, nor after a wrong one."""

    def first(self, checker: Any, username: bytes, mechanism: Any = SCRAM_SHA_256) -> dict[bytes, bytes]:
        challenge, done = step(mechanism.make_server(checker, CLEAR), b"n,,n=" + username + b",r=abc")
        assert not done
        return dict(part.split(b"=", 1) for part in (challenge or b"").split(b","))

    @pytest.mark.parametrize("checker", [Checker(), KeyChecker()])
    def test_salt_and_rounds(self, checker: Any) -> None:
        known, unknown = self.first(checker, b"tim"), self.first(checker, b"nobody")
        assert unknown[b"i"] == known[b"i"] == b"4096"
        assert len(unknown[b"s"]) == len(known[b"s"]) == 24
        # The same each time, as a stored one is, and another one for another name.
        assert unknown[b"s"] == self.first(checker, b"nobody")[b"s"]
        assert known[b"s"] == self.first(checker, b"tim")[b"s"]
        assert len({known[b"s"], unknown[b"s"], self.first(checker, b"nobody2")[b"s"]}) == 3
        assert unknown[b"r"] != self.first(checker, b"nobody")[b"r"]

    def test_rounds_as_configured(self) -> None:
        assert self.first(KeyChecker(), b"nobody", scram_mechanism(iterations=8192))[b"i"] == b"8192"
        assert self.first(Checker(), b"tim", scram_mechanism(iterations=8192))[b"i"] == b"8192"

    def test_several_processes_with_one_key(self) -> None:
        one, two, other = (scram_mechanism(fake_key=key) for key in (b"key", b"key", b"another key"))
        salts = [self.first(KeyChecker(), b"nobody", mechanism)[b"s"] for mechanism in (one, two, other)]
        assert salts[0] == salts[1] != salts[2]

    @pytest.mark.parametrize("password", ["", "\u00ad", "pass\x07word", "new\U0001f600"])
    def test_a_secret_that_is_no_password(self, password: str) -> None:
        # Whoever guesses it does not get in either.
        server = server_for("SCRAM-SHA-256", Checker(password=password))
        challenge, _ = step(server, b"n,,n=tim,r=abc")
        final, _ = prove("SHA-256", b"n=tim,r=abc", challenge or b"", b"n,,", password.encode())
        assert type(refusal_of(server, final)) is AuthFailed

    @pytest.mark.parametrize("checker", [Checker(), KeyChecker()])
    def test_a_wrong_proof_gets_the_same_words(self, checker: Any) -> None:
        texts = set()
        for username in (b"tim", b"nobody"):
            server = server_for("SCRAM-SHA-256", checker)
            challenge, _ = step(server, b"n,,n=" + username + b",r=abc")
            final, _ = prove("SHA-256", b"n=" + username + b",r=abc", challenge or b"", b"n,,", b"wrong")
            texts.add(str(refusal_of(server, final)))
        assert texts == {"535 5.7.8 Authentication credentials invalid"}

    def test_the_same_work(self) -> None:
        @implementer(ISecretStore, ISCRAMKeyStore)
        class Both(KeyChecker):
            def get_secret(self, username: str) -> str | None:
                asked.append(username)
                return {"kurt": "xipj3plmq", "odd": "\x07", "tim": "an older one"}.get(username)

        asked: list[str] = []
        work = []
        for username in (b"tim", b"kurt", b"odd", b"nobody"):
            with mock.patch.object(hashlib, "pbkdf2_hmac", wraps=hashlib.pbkdf2_hmac) as pbkdf2:
                checker = Both()
                pbkdf2.reset_mock()
                self.first(checker, username)
                work.append(pbkdf2.call_count)
        assert asked == ["tim", "kurt", "odd", "nobody"]
        assert work == [1, 1, 1, 1]
        # What is stored comes first, and the password where nothing is.
        assert talk(SCRAM("tim", PASSWORD), server_for("SCRAM-SHA-256", Both())) == "tim"
        assert talk(SCRAM("kurt", "xipj3plmq"), server_for("SCRAM-SHA-256", Both())) == "kurt"

    def test_the_key_that_an_unknown_user_gets_lets_nobody_in(self) -> None:
        server = server_for("SCRAM-SHA-256", KeyChecker())
        step(server, b"n,,n=nobody,r=abc")
        # Even a proof that fits by chance does not do.
        with mock.patch.object(hmac, "compare_digest", return_value=True):
            proof = base64.b64encode(bytes(32))
            assert type(refusal_of(server, b"c=biws,r=x,p=" + proof)) is AuthFailed


P = b"p=tls-exporter,,"
E = b"p=tls-server-end-point,,"


class TestFlags:
    #: mechanism, whether the line has bindings, what was offered, the header, what becomes of it.
    CASES: tuple[tuple[str, bool, list[str] | None, bytes, type[Exception] | None], ...] = (
        ("SCRAM-SHA-256", False, None, b"n,,", None),
        ("SCRAM-SHA-256", False, None, b"y,,", None),
        ("SCRAM-SHA-256", True, None, b"n,,", None),
        # The client could bind, and has seen no offer; but there was one: somebody took it out.
        ("SCRAM-SHA-256", True, None, b"y,,", AuthFailed),
        ("SCRAM-SHA-256", True, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], b"y,,", AuthFailed),
        ("SCRAM-SHA-256", True, ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"], b"y,,", AuthFailed),
        # Here there was none.
        ("SCRAM-SHA-256", True, ["SCRAM-SHA-256", "PLAIN"], b"y,,", None),
        ("SCRAM-SHA-256", True, [], b"n,,", None),
        ("SCRAM-SHA-256", True, None, P, AuthMalformed),
        ("SCRAM-SHA-256", False, None, P, AuthMalformed),
        ("SCRAM-SHA-256-PLUS", True, None, P, None),
        ("SCRAM-SHA-256-PLUS", True, None, E, None),
        ("SCRAM-SHA-256-PLUS", True, None, b"p=tls-unique,,", AuthFailed),
        ("SCRAM-SHA-256-PLUS", False, None, P, AuthFailed),
        ("SCRAM-SHA-256-PLUS", True, None, b"n,,", AuthMalformed),
        ("SCRAM-SHA-256-PLUS", True, None, b"y,,", AuthMalformed),
    )

    @pytest.mark.parametrize(("name", "bound", "offered", "header", "error"), CASES)
    def test_server(
        self, name: str, bound: bool, offered: list[str] | None, header: bytes, error: type[Exception] | None
    ) -> None:
        server = server_for(name, Checker(), replace(BOUND if bound else CLEAR, mechanisms=offered))
        if error is not None:
            assert type(refusal_of(server, header + b"n=tim,r=abc")) is error
            return
        challenge, _ = step(server, header + b"n=tim,r=abc")
        data = BINDINGS[header[2:-2].decode()] if header.startswith(b"p") else b""
        final, signature = prove("SHA-256", b"n=tim,r=abc", challenge or b"", header + data)
        assert step(server, final) == (signature, True)

    @pytest.mark.parametrize(
        "proved",
        [b"n,,", b"y,,", P, P + bytes(32), P + b"\x01" * 31, E + b"\x01" * 32, b"p=tls-exporter,a=b," + b"\x01" * 32],
    )
    def test_another_channel(self, proved: bytes) -> None:
        # The proof is right but for the channel: somebody passes on what he gets.
        server = server_for("SCRAM-SHA-256-PLUS")
        challenge, _ = step(server, P + b"n=tim,r=abc")
        final, _ = prove("SHA-256", b"n=tim,r=abc", challenge or b"", proved)
        error = refusal_of(server, final)
        assert type(error) is AuthFailed
        assert error.message == "The channel binding does not match"

    def test_a_flag_that_was_changed_on_the_way(self) -> None:
        server = server_for("SCRAM-SHA-256")
        challenge, _ = step(server, b"n,,n=tim,r=abc")
        final, _ = prove("SHA-256", b"n=tim,r=abc", challenge or b"", b"y,,")
        assert type(refusal_of(server, final)) is AuthFailed


CLIENT_FIRST_MALFORMED = [
    b"", b"n", b"n,,", b"n,,n=tim", b"n,,n=tim,", b"n,,r=abc,n=tim", b"n,,n=tim,r=", b"n,,n=,r=abc", b"n,,n=t=im,r=abc",
    b"n,,n=t=2cim,r=abc", b"n,,m=x,n=tim,r=abc", b"n,,n=tim,r=abc,m=x", b"n,,n=tim,r=a b", b"n,,n=tim,r=a\xc3\xa9",
    b"n,,n=tim,r=abc,", b"n,,n=tim,r=abc,1=x", b"n,,n=tim,r=abc,x=", b"n,,n=tim,r=abc,x", b"n,,n=t\0m,r=abc",
    b"n,,n=t\xffm,r=abc", b"n,a=\xff,n=tim,r=abc", b"n,a=,n=tim,r=abc", b"x,,n=tim,r=abc", b"n,,n=tim,r=abc\n",
]  # fmt: skip


@pytest.mark.parametrize("message", CLIENT_FIRST_MALFORMED)
def test_client_first_malformed(message: bytes) -> None:
    checker = Checker()
    assert type(refusal_of(server_for("SCRAM-SHA-256", checker), message)) is AuthMalformed
    assert checker.asked == []


@pytest.mark.parametrize("name", ["t\u202em", "\u00ad", "t\x07m"])
@pytest.mark.parametrize("form", ["n,,n={},r=abc", "n,a={},n=tim,r=abc"])
def test_names_that_nobody_has(form: str, name: str) -> None:
    checker = Checker()
    assert type(refusal_of(server_for("SCRAM-SHA-256", checker), form.format(name).encode())) is AuthFailed
    assert checker.asked == []


def test_extensions_are_ignored_and_signed() -> None:
    server = server_for("SCRAM-SHA-256")
    bare = b"n=tim,r=abc,x=1,Y=a=b"
    challenge, _ = step(server, b"n,," + bare)
    final, signature = prove("SHA-256", bare, challenge or b"", b"n,,")
    assert step(server, final) == (signature, True)


ZEROES = base64.b64encode(bytes(32))


@pytest.mark.parametrize(
    "message",
    [
        b"", b"c=biws", b"c=biws,r=%s", b"c=biws,r=%s,p=", b"c=biws,r=%s,p=AAAA", b"c=biws,r=%s,p=" + ZEROES[:-1],
        b"c=biws,r=%s,p=" + ZEROES + b",x=1", b"c=biws,r=%s,p=" + ZEROES + b"\n", b"c=biw,r=%s,p=" + ZEROES,
        b"c=bi=s,r=%s,p=" + ZEROES, b"c=b ws,r=%s,p=" + ZEROES, b"r=%s,c=biws,p=" + ZEROES,
        b"c=biws,r=%s,m=1,p=" + ZEROES,
        b"c=biws,r=,p=" + ZEROES, b"c=biws,r=\xff,p=" + ZEROES, b"n,,n=tim,r=abc",
    ],
)  # fmt: skip
def test_client_final_malformed(message: bytes) -> None:
    server = server_for("SCRAM-SHA-256")
    challenge, _ = step(server, b"n,,n=tim,r=abc")
    nonce = (challenge or b"").split(b",")[0][2:]
    assert type(refusal_of(server, message.replace(b"%s", nonce))) is AuthMalformed


@pytest.mark.parametrize("change", [lambda nonce: nonce[:-1], lambda nonce: nonce + b"x", lambda nonce: b"abc"])
def test_another_nonce(change: Any) -> None:
    # The proof is right for what was said, but it must repeat the nonce of this exchange (RFC 5802 section 5.1).
    server = server_for("SCRAM-SHA-256")
    challenge, _ = step(server, b"n,,n=tim,r=abc")
    nonce = (challenge or b"")[2:].partition(b",")[0]
    final, _ = prove("SHA-256", b"n=tim,r=abc", challenge or b"", b"n,,", nonce=change(nonce))
    assert type(refusal_of(server, final)) is AuthFailed
