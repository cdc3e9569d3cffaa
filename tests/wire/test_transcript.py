"""The protocol log: what is in it, and what never is."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import MailboxUnavailable, SMTPError
from smtpfw.extensions import STANDARD as EXTENSIONS
from smtpfw.extensions import Auth
from smtpfw.interfaces import IBody
from smtpfw.sasl import (
    SCRAM,
    STANDARD,
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
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.phases import NOT_IMPLEMENTED
from smtpfw.wire.profiles import LENIENT
from smtpfw.wire.transcript import MECHANISMS, SHOWN, Transcript, printable, show_command
from tests.sasl.helpers import BINDINGS, BOUND, PASSWORD, TOKEN, Checker
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT
from tests.server.tls_in_memory import CONTEXT, TLSClient

PEER = "192.0.2.1:54321"
VERBS = [b"AUTH ", b"auth PLAIN ", b"AUTH login ", b"NOOP ", b"ETRN ", b"MAIL ", b"XYZ "]

#: Every mechanism that there is, on any line: those that need TLS get what it would have given.
ALL = tuple(
    replace(mechanism, make=lambda checker, _, make=mechanism.make: make(checker, BOUND), condition=lambda _: True)
    for mechanism in STANDARD
)

CLIENTS: dict[str, ISASLClient] = {
    "PLAIN": Plain("tim", PASSWORD),
    "LOGIN": Login("tim", PASSWORD),
    "CRAM-MD5": CramMD5("tim", PASSWORD),
    "SCRAM-SHA-1": SCRAM("tim", PASSWORD),
    "SCRAM-SHA-256": SCRAM("tim", PASSWORD),
    "SCRAM-SHA-1-PLUS": SCRAM("tim", PASSWORD),
    "SCRAM-SHA-256-PLUS": SCRAM("tim", PASSWORD),
    "OAUTHBEARER": OAuthBearer("tim", TOKEN),
    "XOAUTH2": XOAuth2("tim", TOKEN),
    "EXTERNAL": External(),
    "ANONYMOUS": Anonymous(),
}


class TranscriptCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.errors: list[dict[str, Any]] = []

    def make_factory(self, backend: Any = None, **settings: Any) -> SMTPServerFactory:
        extras = {name: settings.pop(name) for name in ("tls", "extensions") if name in settings}
        extras.setdefault("transcripts", settings.pop("transcripts", lambda *asked: self.lines.append))
        return SMTPServerFactory(
            RecordingBackend() if backend is None else backend,
            ServerConfig(hostname="mx.test", **settings),
            reactor=self.clock,
            log=Logger(observer=self.errors.append),
            **extras,
        )

    def connect(self, *said: bytes, backend: Any = None, **settings: Any) -> MemoryClient:
        client = MemoryClient.of(self.make_factory(backend, **settings))
        for words in said:
            client.send(words)
        return client

    def said(self, *said: bytes, **settings: Any) -> list[str]:
        """What is written of a dialog, without its beginning."""
        client = self.connect(HELLO, **settings)
        self.lines.clear()
        for words in said:
            client.send(words)
        return self.lines


class Dialog(TranscriptCase):
    def test_a_whole_one(self) -> None:
        self.connect(b"EHLO me\r\n", MAIL + RCPT + DATA, MESSAGE + DOT, b"quit\r\n", extensions=[])
        self.assertEqual(
            self.lines,
            [
                f"-- connected from {PEER}",
                "S: 220 mx.test ESMTP smtpfw",
                "C: EHLO me",
                "S: 250 mx.test",
                "C: MAIL FROM:<a@b.test>",
                "S: 250 2.1.0 Sender OK",
                "C: RCPT TO:<c@d.test>",
                "S: 250 2.1.5 Recipient OK",
                "C: DATA",
                "S: 354 Start mail input; end with <CRLF>.<CRLF>",
                f"C: <{len(MESSAGE + DOT)} octets>",
                "S: 250 2.0.0 Message accepted",
                "C: QUIT",
                "S: 221 2.0.0 Closing transmission channel",
                "-- closed",
            ],
        )

    def test_however_it_comes(self) -> None:
        octets = HELLO + MAIL + RCPT + DATA + MESSAGE + DOT + MAIL + RCPT + b"BDAT 3\r\nabcBDAT 1 LAST\r\ndNOOP\r\n"
        self.connect(octets)
        whole, self.lines = self.lines, []
        self.connect(*(octets[index : index + 1] for index in range(len(octets))))
        self.assertEqual(self.lines, whole)
        self.assertEqual(
            [line for line in whole if line.startswith("C: ")][-5:],
            ["C: BDAT 3", "C: <3 octets>", "C: BDAT 1 LAST", "C: <1 octet>", "C: NOOP"],
        )

    def test_replies_of_several_lines(self) -> None:
        self.assertEqual(self.said(b"HELO me\r\n"), ["C: HELO me", "S: 250 mx.test"])
        self.assertEqual(self.said(HELLO)[1], "S: 250-mx.test")

    def test_chunks(self) -> None:
        lines = self.said(MAIL + RCPT + b"BDAT 5\r\nab", b"cdeBDAT 0 LAST\r\n")
        self.assertEqual(
            lines[4:],
            ["C: BDAT 5", "C: <5 octets>", "S: 250 2.0.0 5 octets", "C: BDAT 0 LAST", "S: 250 2.0.0 Message accepted"],
        )

    def test_a_chunk_out_of_place(self) -> None:
        lines = self.said(b"BDAT 5\r\nsecreBDAT x\r\n")
        self.assertEqual([line[:6] for line in lines], ["C: BDA", "C: <5 ", "S: 503", "C: BDA", "S: 501", "-- clo"])

    def test_an_answer_that_takes_its_time(self) -> None:
        later: Deferred[None] = Deferred()
        lines = self.said(MAIL + RCPT + DATA, MESSAGE + DOT, backend=RecordingBackend(data=lambda body: later))
        self.assertEqual(lines[-1], f"C: <{len(MESSAGE + DOT)} octets>")
        later.callback(None)
        self.assertEqual(lines[-1], "S: 250 2.0.0 Message accepted")

    def test_a_client_that_goes_in_the_middle(self) -> None:
        client = self.connect(ENVELOPE + DATA, b"hello\r\n", b"he")
        client.disconnect()
        self.assertEqual(self.lines[-2:], ["C: <9 octets and no end>", "-- closed"])

    def test_a_message_that_is_given_up(self) -> None:
        self.connect(ENVELOPE + DATA, b"x" * 30, max_message_bytes=10, max_discarded_bytes=10)
        self.assertEqual(self.lines[-3], "C: <30 octets and no end>")
        self.assertTrue(self.lines[-2].startswith("S: 421 4.7.0 "))
        self.assertEqual(self.lines[-1], "-- closed")

    def test_lmtp(self) -> None:
        self.connect(b"LHLO me\r\n" + MAIL + RCPT + RCPT + DATA + DOT, protocol="lmtp")
        self.assertEqual(self.lines[-3:], ["C: <3 octets>", *["S: 250 2.0.0 Message accepted"] * 2])

    def test_tls(self) -> None:
        client = TLSClient(self.make_factory(tls=CONTEXT))
        client.send(HELLO + b"STARTTLS\r\n")
        client.start_tls()
        client.send(b"NOOP\r\n")
        at = self.lines.index("C: STARTTLS")
        self.assertEqual(
            self.lines[at:],
            ["C: STARTTLS", "S: 220 2.0.0 Ready to start TLS", "-- TLS started", "C: NOOP", "S: 250 2.0.0 OK"],
        )

    def test_implicit_tls(self) -> None:
        client = TLSClient(self.make_factory(tls=CONTEXT), implicit=True)
        client.start_tls()
        self.assertEqual(self.lines, [f"-- connected from {PEER}", "-- TLS started", "S: 220 mx.test ESMTP smtpfw"])

    def test_goodbyes(self) -> None:
        self.connect(HELLO)
        self.clock.advance(3600)
        self.assertEqual(self.lines[-2:], ["S: 421 4.4.2 Timeout, closing transmission channel", "-- closed"])

    def test_lines_that_cannot_be_used(self) -> None:
        for said, shown in (
            (b"NOOP " + b"x" * 4000 + b"\r\n", "C: <line too long>"),
            (b"NOOP\n", "C: <line with a bare CR or LF>"),
            (b"x" * 70000, "C: <line without an end>"),
            (b"\r\n", "C: <unknown command, 0 octets>"),
        ):
            lines = self.said(said)
            self.assertEqual((lines[0], lines[1][:4]), (shown, "S: 5" if said[:1] != b"x" else "S: 4"))

    def test_a_bare_lf_that_is_a_line_end(self) -> None:
        self.assertEqual(self.said(b"NOOP\n", profile=LENIENT), ["C: NOOP", "S: 250 2.0.0 OK"])

    def test_control_characters(self) -> None:
        lines = self.said(
            b"MAIL FROM:<\x1b[31m\x00@\xc2\x9b\xe2\x80\xa8\xff>\r\n", b"EHLO \x07\xfe\r\n", b"\x1b[2J\r\n"
        )
        self.assertTrue(all(line.isprintable() for line in lines), lines)
        self.assertIn(r"C: EHLO \x07\xfe", lines)


class Choice(TranscriptCase):
    def test_by_peer(self) -> None:
        asked: list[tuple[str, str]] = []

        def transcripts(connection_id: str, peer_host: str) -> Any:
            asked.append((connection_id, peer_host))
            return self.lines.append if len(asked) == 2 else None

        factory = self.make_factory(transcripts=transcripts)
        one, two = MemoryClient.of(factory), MemoryClient.of(factory)
        self.assertEqual(asked, [(client.protocol.wire.id, "192.0.2.1") for client in (one, two)])
        one.send(b"NOOP one\r\n")
        two.send(b"VRFY two\r\n")
        self.assertIn("C: VRFY two", self.lines)
        self.assertFalse([line for line in self.lines if "NOOP" in line])

    def test_none_is_none(self) -> None:
        self.assertIsNone(self.connect(HELLO, transcripts=None).protocol.wire.transcript)

    def test_one_that_fails_costs_nobody_anything(self) -> None:
        def no(*asked: str) -> Any:
            raise RuntimeError("the disk is full")

        def not_at_first(line: str) -> None:
            self.lines.append(line)
            if len(self.lines) == 6:
                raise RuntimeError("the disk is full")

        for transcripts in (no, lambda *asked: no, lambda *asked: not_at_first):
            self.errors.clear()
            backend = RecordingBackend()
            client = self.connect(ENVELOPE + DATA, MESSAGE + DOT, backend=backend, transcripts=transcripts)
            client.disconnect()
            self.assertEqual([message.body for message in backend.messages], [MESSAGE])
            # Once, and with its traceback.
            self.assertEqual([type(e["log_failure"].value) for e in self.errors if "log_failure" in e], [RuntimeError])
        self.assertEqual(len(self.lines), 6)


def exchange(client: MemoryClient, sasl: ISASLClient, name: str, initial: bool) -> Iterator[bytes]:
    """Authenticate; give each word that was said in it, as text and as base64."""
    bindings = BINDINGS if name.endswith("-PLUS") else {}
    _, response = sasl.start(ServerInfo(name="mx.test", tls=True, mechanisms=[name], channel_bindings=bindings))
    command = f"AUTH {name}".encode()
    kept = response
    if initial and response is not None:
        command += b" " + (b64encode(response) or b"=")
        kept = None
        yield response
    answer = client.send(command + b"\r\n")
    while answer.startswith(b"334 "):
        challenge = b64decode(answer[4:])
        yield challenge
        response, kept = (sasl.next(challenge, True) if kept is None else kept), None
        assert response is not None
        yield response
        answer = client.send(b64encode(response) + b"\r\n")
    assert answer.startswith(b"235 "), (name, initial, answer)


class Secrets(TranscriptCase):
    def connect_auth(self, *said: bytes, **settings: Any) -> MemoryClient:
        extensions = (*EXTENSIONS, Auth(Checker(), mechanisms=ALL, allow_insecure=True))
        return self.connect(*said, extensions=extensions, **settings)

    def check(self, *secrets: bytes) -> None:
        written = "\n".join(self.lines)
        for secret in (PASSWORD.encode(), TOKEN.encode(), *secrets):
            for octets in (secret, b64encode(secret)):
                text = octets.decode("utf-8", "replace").strip("=")
                # Three characters, "250" say, would be found by chance.
                if len(text) > 3:
                    self.assertNotIn(text, written)

    def test_every_mechanism(self) -> None:
        self.assertEqual(set(CLIENTS), {mechanism.name for mechanism in STANDARD})
        for name, sasl in CLIENTS.items():
            for initial in (True, False):
                self.lines.clear()
                client = self.connect_auth(HELLO)
                client.received()
                said = list(exchange(client, sasl, name, initial))
                self.check(*said)
                self.assertTrue([line for line in self.lines if line.startswith(f"C: AUTH {name}")], self.lines)
                self.assertEqual(self.lines[-1], "S: 235 2.7.0 Authentication succeeded")

    def test_how_it_looks(self) -> None:
        client = self.connect_auth(HELLO)
        self.lines.clear()
        list(exchange(client, CLIENTS["LOGIN"], "LOGIN", False))
        self.assertEqual(
            self.lines,
            [
                "C: AUTH LOGIN",
                "S: 334 <challenge, 12 octets>",
                "C: <response, 4 octets>",
                "S: 334 <challenge, 12 octets>",
                "C: <response, 24 octets>",
                "S: 235 2.7.0 Authentication succeeded",
            ],
        )

    def test_cancelled_and_too_long(self) -> None:
        secret = b64encode(PASSWORD.encode())
        client = self.connect_auth(HELLO)
        self.lines.clear()
        client.send(b"AUTH PLAIN\r\n*\r\nAUTH PLAIN\r\n" + secret * 1000 + b"\r\n")
        client.send(b"AUTH PLAIN " + secret * 1000 + b"\r\nauth plain  " + secret * 500 + b"\r\n")
        self.check(secret)
        said = [line for line in self.lines if line.startswith("C: ")]
        self.assertEqual(
            said,
            [
                "C: AUTH PLAIN",
                "C: <response, 1 octet>",
                "C: AUTH PLAIN",
                "C: <response, too long>",
                "C: <line too long>",
                f"C: AUTH PLAIN <{500 * len(secret)} octets>",
            ],
        )

    def test_clients_that_go_on_after_a_refusal(self) -> None:
        """504, 538, 503 and 500 do not make them stop."""
        plain = b64encode(b"\0tim\0" + PASSWORD.encode())
        name, word = b64encode(b"tim"), b64encode(PASSWORD.encode())
        on = [b"\r\n" + plain + b"\r\n", b"\r\n" + name + b"\r\n" + word + b"\r\n", b" " + plain + b"\r\n"]
        for mechanism in (b"PLAIN", b"LOGIN", b"XYZ", b"", b" PLAIN", b"PLAIN " + plain, plain):
            for begin in (b"AUTH ", b"auth ", b"AUTH", b" AUTH ", b"AUTH\t", b"AUTHENTICATE "):
                for rest in on:
                    said = begin + mechanism + rest
                    for before in (b"", MAIL):
                        # Refused for the mechanism, and inside of a transaction.
                        self.connect_auth(HELLO, before, said)
                        self.clock.advance(100)
                    # Not on a clear line; not at all; before a greeting of the client's; after a refusal of the whole.
                    self.connect(HELLO, said, extensions=(*EXTENSIONS, Auth(Checker())))
                    self.connect(HELLO, said)
                    self.connect(said)
                    self.connect(said, backend=RecordingBackend(new_session=refuse))
        self.check(plain, name, word)
        shown = {line for line in self.lines if line.startswith("C: ")}
        self.assertIn("C: AUTH PLAIN", shown)
        self.assertIn(f"C: AUTH <{len(plain)} octets>", shown)

    def test_lines_that_others_read(self) -> None:
        """Whatever a session asks a client for is the session's."""

        async def rcpt(*_: object) -> None:
            await backend.sessions[-1].connection.read_line()
            raise MailboxUnavailable

        backend = RecordingBackend(rcpt=rcpt)
        lines = self.said(ENVELOPE, b"the word\r\n", backend=backend)
        self.assertEqual(lines[-2:], ["C: <response, 8 octets>", "S: 550 5.1.1 No such mailbox here"])


def refuse(*_: object) -> None:
    raise SMTPError(554, (5, 7, 1), "Not you")


def test_messages_are_not_in_it() -> None:
    lines: list[str] = []

    def drop(body: IBody) -> None:
        return None

    factory = SMTPServerFactory(
        RecordingBackend(data=drop),
        ServerConfig(hostname="mx.test"),
        reactor=Clock(),
        transcripts=lambda *_: lines.append,
    )
    client = MemoryClient.of(factory)
    client.send(ENVELOPE + DATA + MESSAGE + b"AUTH PLAIN secret\r\n" + DOT + MAIL + RCPT + b"BDAT 6 LAST\r\nsecret")
    assert lines[-1] == "S: 250 2.0.0 Message accepted"
    assert not [line for line in lines if "secret" in line or "hello" in line]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"EHLO me", "EHLO me"),
        (b"RSET", "RSET"),
        (b"RSET x", "RSET <1 octet>"),
        (b"NOOP secret", "NOOP <6 octets>"),
        (b"XPING secret", "XPING <6 octets>"),
        (b"XPONG secret", "<unknown command, 12 octets>"),
        (b"ETRN x", "ETRN <1 octet>"),
        (b"AUTH", "AUTH"),
        (b"AUTH ", "AUTH"),
        (b"AUTH plain", "AUTH PLAIN"),
        (b"AUTH  PLAIN  abcd ", "AUTH PLAIN <4 octets>"),
        (b"AUTH PLAIN a b", "AUTH PLAIN <3 octets>"),
        (b"AUTH PLAIN\tabcd", "AUTH <10 octets>"),
        (b"AUTH SECRET", "AUTH <6 octets>"),
        (b"\xff\xfe", "<unknown command, 2 octets>"),
        (b"MAIL FROM:<\xc3\xa9@b>", "MAIL FROM:<é@b>"),
        (b"MAIL FROM:<\xff\t@b>", "MAIL FROM:<\\xff\\t@b>"),
    ],
)
def test_show_command(line: bytes, shown: str) -> None:
    verb, _, argument = line.partition(b" ")
    assert show_command(verb.upper(), argument, {"RSET", "NOOP", "XPING"}) == shown


KNOWN = "|".join(["NOOP", *sorted(NOT_IMPLEMENTED), *(f"AUTH {name}" for name in sorted(MECHANISMS))])


@given(st.one_of(st.binary(), st.builds(lambda verb, rest: verb + rest, st.sampled_from(VERBS), st.binary())))
def test_only_known_words_are_shown(line: bytes) -> None:
    verb, _, argument = line.partition(b" ")
    shown = show_command(verb.upper(), argument, {"NOOP"})
    assert shown.isprintable()
    name = verb.upper().decode("ascii", "replace")
    assert name in SHOWN or re.fullmatch(f"({KNOWN})?( ?<(unknown command, )?[0-9]+ octets?>)?", shown)


@given(st.text())
def test_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) is text.isprintable()


def test_every_mechanism_that_we_have_is_shown() -> None:
    assert {mechanism.name for mechanism in STANDARD} <= MECHANISMS


def test_a_transcript_needs_nothing_but_a_place() -> None:
    lines: list[str] = []
    transcript = Transcript(lines.append, {"NOOP"})
    transcript.command(b"NOOP", b"")
    transcript.reply(b"334 c2VjcmV0\r\n")
    transcript.reply(b"334 \r\n")
    transcript.close()
    assert lines == ["C: NOOP", "S: 334 <challenge, 8 octets>", "S: 334 ", "-- closed"]
