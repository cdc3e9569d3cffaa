"""Date and Message-ID of submitted messages: whose, however they come, and at what price."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import Check, Session, SessionBackend, SMTPError
from smtpfw.backends.memory import MemoryBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.extensions import STANDARD, Auth
from smtpfw.interfaces import IBackend, IBody
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.server.delivery import MAX_HEADER
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT, greeted

LOGIN = b"AUTH PLAIN " + b64encode(b"\0tim\0secret") + b"\r\n"
DATE = b"Date: Mon, 28 Jul 2025 10:00:00 +0000\r\n"
MESSAGE_ID = b"Message-ID: <1@example.org>\r\n"
ADDED = re.compile(rb"Date: [^\r\n]+\r\nMessage-ID: <[0-9a-f]+@mx\.test>\r\n")


def auth(required: bool) -> list[Any]:
    checker = FunctionChecker(lambda username, password: True)
    return [*STANDARD, Auth(checker, required=required, allow_insecure=True)]


def client_of(backend: IBackend, *said: bytes, required: bool = True, **settings: Any) -> MemoryClient:
    settings = {"submission": True, **settings}
    return greeted(backend, Clock(), HELLO, *said, extensions=auth(required), **settings)


def sent(*pieces: bytes, said: tuple[bytes, ...] = (LOGIN,), **settings: Any) -> bytes:
    """What of a message has come to the session."""
    backend = RecordingBackend()
    client = client_of(backend, *said, MAIL, RCPT, DATA, **settings)
    answer = b"".join(client.send(piece) for piece in (*pieces, DOT))
    assert answer.startswith(b"250 "), answer
    (message,) = backend.messages
    return message.body


class Whose(TestCase):
    def test_those_who_have_authenticated(self) -> None:
        self.assertRegex(sent(MESSAGE), ADDED.pattern + re.escape(MESSAGE))

    def test_nobodys_by_itself(self) -> None:
        self.assertEqual(sent(MESSAGE, submission=None), MESSAGE)
        self.assertEqual(sent(MESSAGE, submission=False), MESSAGE)

    def test_strangers_where_some_have_authenticated(self) -> None:
        self.assertEqual(sent(MESSAGE, said=(), required=False), MESSAGE)

    def test_everybody_where_nobody_can_authenticate(self) -> None:
        backend = RecordingBackend()
        client = greeted(backend, None, ENVELOPE, DATA, submission=True)
        client.send(MESSAGE + DOT)
        self.assertTrue(ADDED.match(backend.messages[0].body))


class How(TestCase):
    def test_what_is_there_stays(self) -> None:
        whole = b"From: me\r\n" + DATE + MESSAGE_ID + b"\r\nhello\r\n"
        self.assertEqual(sent(whole), whole)
        body = sent(DATE + b"\r\n")
        self.assertTrue(body.startswith(b"Message-ID: <"))
        self.assertTrue(body.endswith(DATE + b"\r\n"))

    def test_however_it_is_cut(self) -> None:
        for message in (MESSAGE, b"Subject: no end of the header\r\n", b"\r\nno header\r\n", b""):
            for cut in range(len(message)):
                body = sent(message[:cut], message[cut:])
                self.assertEqual(ADDED.sub(b"", body), message)
                self.assertNotEqual(body, message)
            body = sent(*(message[i : i + 1] for i in range(len(message))))
            self.assertEqual(ADDED.sub(b"", body), message)

    def test_by_bdat(self) -> None:
        backend = RecordingBackend()
        client = client_of(backend, LOGIN, MAIL, RCPT)
        client.send(b"BDAT 5\r\n" + MESSAGE[:5])
        client.send(b"BDAT %d LAST\r\n" % len(MESSAGE[5:]) + MESSAGE[5:])
        self.assertEqual(ADDED.sub(b"", backend.messages[0].body, count=1), MESSAGE)

    def test_a_body_that_looks_like_a_header(self) -> None:
        message = MESSAGE + DATE + MESSAGE_ID
        self.assertEqual(ADDED.sub(b"", sent(message)), message)
        self.assertTrue(ADDED.match(sent(message)))

    def test_a_header_that_is_too_long_to_be_known(self) -> None:
        line = b"X-Long: " + b"x" * 990 + b"\r\n"
        pieces = [line] * (MAX_HEADER // len(line) + 2)
        self.assertEqual(sent(*pieces, DATE, b"\r\nhello\r\n"), b"".join(pieces) + DATE + b"\r\nhello\r\n")

    def test_behind_a_mux_to_several(self) -> None:
        a, b = MemoryBackend(), MemoryBackend()
        client = client_of(MuxBackend({"a.test": a, "b.test": b}, a), LOGIN, MAIL)
        client.send(b"RCPT TO:<x@a.test>\r\nRCPT TO:<y@b.test>\r\nDATA\r\n")
        client.send(MESSAGE + DOT)
        # Both have the very same message.
        self.assertEqual(a.messages[0].body, b.messages[0].body)
        self.assertTrue(ADDED.match(a.messages[0].body))

    def test_over_lmtp(self) -> None:
        backend = MemoryBackend()
        client = greeted(backend, None, b"LHLO me\r\n", MAIL, RCPT, DATA, protocol="lmtp", submission=True)
        client.send(MESSAGE + DOT)
        self.assertTrue(ADDED.match(backend.messages[0].body))


class TheRest(TestCase):
    def test_the_body_streams_once_its_header_is_there(self) -> None:
        chunks: list[bytes] = []

        async def data(body: IBody) -> None:
            async for chunk in body:
                chunks.append(chunk)

        client = client_of(RecordingBackend(data=data), LOGIN, MAIL, RCPT, DATA)
        client.send(b"Subject: x\r\n")
        self.assertEqual(chunks, [])
        client.send(b"\r\n")
        self.assertEqual(len(chunks), 1)
        piece = b"x" * 60_000 + b"\r\n"
        for _ in range(5):
            client.send(piece)
        self.assertEqual(b"".join(chunks[1:]), piece * 5)

    def test_nothing_is_held_where_nothing_is_added(self) -> None:
        chunks: list[bytes] = []

        async def data(body: IBody) -> None:
            async for chunk in body:
                chunks.append(chunk)

        client = client_of(RecordingBackend(data=data), LOGIN, MAIL, RCPT, DATA, submission=False)
        client.send(b"Subject: x\r\n")
        self.assertEqual(chunks, [b"Subject: x\r\n"])

    def test_checks_see_the_message_as_it_came(self) -> None:
        seen: list[tuple[bytes, int]] = []

        class Look(Check):
            def message(self, connection: Any, header: bytes, size: int) -> None:
                seen.append((header, size))

        factory_client = client_of(RecordingBackend(), LOGIN, MAIL, RCPT, DATA, checks=[Look()])
        for piece in (MESSAGE[:4], MESSAGE[4:], DOT):
            factory_client.send(piece)
        self.assertEqual(seen, [(b"Subject: hello\r\n\r\n", len(MESSAGE))])

    def test_a_client_that_goes_within_the_header(self) -> None:
        backend = RecordingBackend()
        client = client_of(backend, LOGIN, MAIL, RCPT, DATA)
        client.send(b"Subject: x\r\n")
        client.disconnect()
        self.assertEqual(backend.events[-2:], [("reset", "disconnected"), ("logout", "disconnected")])
        self.assertNotIn(("data", ""), backend.events)

    def test_a_message_that_is_refused_within_its_header(self) -> None:
        backend = RecordingBackend()
        client = client_of(backend, LOGIN, MAIL, RCPT, DATA, max_message_bytes=10)
        client.send(b"Subject: x\r\n")
        self.assertEqual(client.send(MESSAGE + DOT)[:10], b"552 5.3.4 ")
        self.assertNotIn(("data", ""), backend.events)

    def test_a_refusal_of_the_session(self) -> None:
        class No(Session):
            def data(self, body: IBody) -> None:
                raise SMTPError(554, (5, 7, 1), "spam")

        client = client_of(SessionBackend(No), LOGIN, MAIL, RCPT, DATA)
        self.assertEqual(client.send(MESSAGE[:3]) + client.send(MESSAGE[3:] + DOT), b"554 5.7.1 spam\r\n")
