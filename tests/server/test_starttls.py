"""TLS, for real: STARTTLS forgets what was said in clear, and nobody waits for a handshake for ever."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import SMTPError
from smtpfw.testing import RecordingBackend
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, MESSAGE_OK, RCPT, codes, make_factory
from tests.server.tls_in_memory import CONTEXT, TLSClient

STARTTLS = b"STARTTLS\r\n"
READY = b"220 2.0.0 Ready to start TLS\r\n"
GREETING = b"220 mx.test ESMTP smtpfw\r\n"


class TLSCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()

    def connect(self, implicit: bool = False, **settings: Any) -> TLSClient:
        self.factory = make_factory(self.backend, self.clock, tls=CONTEXT, **settings)
        return TLSClient(self.factory, implicit=implicit)

    def secured(self, **settings: Any) -> TLSClient:
        client = self.connect(**settings)
        client.send(HELLO)
        self.assertEqual(client.send(STARTTLS), READY)
        client.start_tls()
        return client


class Explicit(TLSCase):
    def test_a_message(self) -> None:
        client = self.secured()
        for words in (HELLO, MAIL, RCPT, DATA):
            self.assertNotEqual(client.send(words), b"")
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)
        self.assertEqual(codes(client.send(b"QUIT\r\n")), [b"221"])
        self.assertTrue(client.closed)
        self.assertEqual([message.body for message in self.backend.messages], [MESSAGE])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_handshake_octet_by_octet(self) -> None:
        client = self.connect()
        client.send(HELLO + STARTTLS)
        client.start_tls(pieces=1)
        self.assertEqual(codes(client.send(HELLO)), [b"250"])

    def test_it_is_offered_until_it_is_on(self) -> None:
        client = self.connect()
        client.send()
        self.assertIn(b"STARTTLS\r\n", client.send(HELLO))
        client.send(STARTTLS)
        client.start_tls()
        self.assertNotIn(b"STARTTLS", client.send(HELLO))
        self.assertEqual(codes(client.send(STARTTLS)), [b"503"])

    def test_it_is_not_offered_without_a_certificate(self) -> None:
        client = TLSClient(make_factory(self.backend, self.clock))
        self.assertNotIn(b"STARTTLS", client.send(HELLO))
        self.assertEqual(codes(client.send(STARTTLS)), [b"502"])

    def test_everything_is_forgotten(self) -> None:
        client = self.connect()
        client.send(ENVELOPE)
        client.send(STARTTLS)
        client.start_tls()
        first, second = self.backend.sessions
        self.assertEqual(self.backend.events[-2:], [("reset", "starttls"), ("logout", "starttls")])
        self.assertEqual((second.connection.hello_name, second.connection.transaction), ("", None))
        self.assertIsNot(first.connection.context, second.connection.context)
        # No greeting, and EHLO has to come first again.
        self.assertEqual(client.send(), b"")
        self.assertEqual(codes(client.send(MAIL + RCPT + DATA)), [b"503"] * 3)
        client.send(HELLO + b"QUIT\r\n")
        self.assertEqual([event for event in self.backend.events if event[0] == "logout"][1:], [("logout", "quit")])

    def test_a_transaction_is_dropped_wherever_it_is(self) -> None:
        for before, reset in (
            (HELLO, []),
            (HELLO + MAIL, [("reset", "starttls")]),
            (ENVELOPE, [("reset", "starttls")]),
        ):
            self.backend = RecordingBackend()
            client = self.connect()
            client.send(before)
            self.assertEqual(client.send(STARTTLS), READY)
            self.assertEqual([event for event in self.backend.events if event[0] == "reset"], reset)
            client.start_tls()
            self.assertEqual(codes(client.send(HELLO + RCPT + MAIL)), [b"250", b"503", b"250"])

    def test_octets_behind_it_in_the_same_segment(self) -> None:
        for behind in (b"NOOP\r\n", MAIL, b"x", b"\x16\x03\x01"):
            self.backend = RecordingBackend()
            client = self.connect()
            client.send(HELLO)
            self.assertEqual(client.send(STARTTLS + behind), b"554 5.5.1 Nothing may follow STARTTLS in clear\r\n")
            self.assertTrue(client.closed)
            self.assertEqual([event[0] for event in self.backend.events], ["hello", "logout"])

    def test_octets_in_clear_after_the_220(self) -> None:
        client = self.connect()
        client.send(HELLO)
        client.send(STARTTLS)
        received = client.send(MAIL)
        self.assertTrue(client.closed)
        self.assertNotIn(b"250", received)
        self.assertEqual([event[0] for event in self.backend.events], ["hello", "logout"])
        self.assertEqual(len(self.backend.sessions), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_handshake_that_stalls(self) -> None:
        client = self.connect(tls_handshake_timeout=10, command_timeout=50)
        client.send(HELLO + STARTTLS)
        self.clock.advance(9)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_handshake_a_command_has_its_own_time(self) -> None:
        client = self.connect(tls_handshake_timeout=10, command_timeout=50)
        client.send(HELLO + STARTTLS)
        client.start_tls()
        self.clock.advance(49)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertEqual(codes(client.send()), [b"421"])

    def test_a_second_session_that_takes_its_time(self) -> None:
        client = self.connect(tls_handshake_timeout=10, command_timeout=50)
        client.send(HELLO + STARTTLS)
        gate: Deferred[Any] = Deferred()
        self.backend.answers["new_session"] = lambda session: gate
        client.start_tls()
        self.assertEqual(client.send(HELLO), b"")
        self.clock.advance(3600)
        self.assertFalse(client.closed)
        gate.callback(self.backend.sessions[1])
        self.assertEqual(codes(client.send()), [b"250"])

    def test_a_second_session_that_is_refused(self) -> None:
        for error, expected in [
            (SMTPError(421, (4, 7, 0), "later"), b"421 4.7.0 later\r\n"),
            (SMTPError(550, (5, 7, 1), "go away"), b"421 4.3.2 go away\r\n"),
        ]:
            client = self.connect()
            client.send(HELLO + STARTTLS)

            def refuse(session: Any, error: SMTPError = error) -> None:
                raise error

            self.backend.answers["new_session"] = refuse
            client.start_tls()
            self.assertEqual(client.send(), expected)
            self.assertTrue(client.closed)
            del self.backend.answers["new_session"]

    def test_refused_forms(self) -> None:
        client = self.connect()
        client.send()
        self.assertEqual(codes(client.send(STARTTLS)), [b"503"])
        self.assertEqual(codes(client.send(HELLO + b"STARTTLS x\r\nSTARTTLSx\r\n")), [b"250", b"501", b"500"])
        self.assertEqual(codes(client.send(b"HELO me\r\n")), [b"250"])
        self.assertEqual(codes(client.send(STARTTLS)), [b"503"])


class Implicit(TLSCase):
    def test_no_greeting_and_no_session_before_the_handshake(self) -> None:
        client = self.connect(implicit=True)
        self.assertEqual(client.raw(), b"")
        self.assertEqual(self.backend.sessions, [])
        client.start_tls()
        self.assertEqual(client.send(), GREETING)
        self.assertEqual(len(self.backend.sessions), 1)
        for words in (HELLO, MAIL, RCPT, DATA):
            client.send(words)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)

    def test_a_silent_peer(self) -> None:
        client = self.connect(implicit=True, tls_handshake_timeout=10)
        self.clock.advance(9)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.closed)
        self.assertEqual(client.raw(), b"")
        self.assertEqual(self.backend.sessions, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_peer_that_speaks_in_clear(self) -> None:
        client = self.connect(implicit=True)
        self.assertNotIn(b"250", client.raw(HELLO))
        self.assertTrue(client.closed)
        self.assertEqual(self.backend.sessions, [])

    def test_stop_does_not_wait_for_a_handshake(self) -> None:
        client = self.connect(implicit=True)
        self.successResultOf(self.factory.stop(10))
        self.assertTrue(client.closed)

    def test_starttls_within_tls(self) -> None:
        client = self.connect(implicit=True)
        client.start_tls()
        self.assertNotIn(b"STARTTLS", client.send(HELLO))
        self.assertEqual(codes(client.send(STARTTLS)), [b"503"])


class Required(TLSCase):
    def test_what_passes_in_clear(self) -> None:
        client = self.connect(require_tls=True, max_sequence_errors=0)
        client.send()
        cases = [
            (HELLO, b"250"),
            (b"NOOP\r\n", b"250"),
            (MAIL, b"530"),
            (RCPT, b"530"),
            (DATA, b"530"),
            (b"RSET\r\n", b"530"),
            (b"VRFY x\r\n", b"530"),
            (b"HELP\r\n", b"530"),
            (b"HELO me\r\n", b"530"),
            (b"BDAT 4 LAST\r\nQUIT", b"530"),
            (b"FOO\r\n", b"500"),
            (STARTTLS, b"220"),
        ]
        for words, code in cases:
            with self.subTest(words=words):
                self.assertEqual(codes(client.send(words)), [code])
        client.start_tls()
        self.assertEqual(codes(client.send(HELLO + MAIL + RCPT)), [b"250"] * 3)
        self.assertEqual([event[0] for event in self.backend.events], ["hello", "logout", "hello", "mail", "rcpt"])

    def test_quit(self) -> None:
        client = self.connect(require_tls=True)
        client.send()
        self.assertEqual(codes(client.send(b"QUIT\r\n")), [b"221"])

    def test_implicit_tls_is_tls(self) -> None:
        client = self.connect(implicit=True, require_tls=True)
        client.start_tls()
        self.assertEqual(codes(client.send(HELLO + MAIL)), [b"220", b"250", b"250"])


class Described(TLSCase):
    def protocols(self, client: TLSClient) -> list[str]:
        connection = self.backend.sessions[-1].connection
        names = []
        for words in (b"HELO me\r\n", HELLO, MAIL, b"RSET\r\nMAIL FROM:<a@b.test> SMTPUTF8\r\n"):
            client.send(words)
            names.append(connection.protocol)
        return names

    def test_in_clear(self) -> None:
        client = self.connect()
        self.assertEqual(self.protocols(client), ["SMTP", "ESMTP", "ESMTP", "UTF8SMTP"])
        self.assertEqual(self.backend.sessions[0].connection.tls, "")

    def test_starttls(self) -> None:
        client = self.secured()
        self.assertEqual(self.protocols(client), ["SMTP", "ESMTPS", "ESMTPS", "UTF8SMTPS"])
        self.assertRegex(self.backend.sessions[1].connection.tls, r"\ATLSv1\.3 TLS_[A-Z0-9_]+\Z")

    def test_implicit(self) -> None:
        client = self.connect(implicit=True)
        client.start_tls()
        self.assertEqual(self.protocols(client), ["SMTP", "ESMTPS", "ESMTPS", "UTF8SMTPS"])
        self.assertRegex(self.backend.sessions[0].connection.tls, r"\ATLSv1\.3 ")
