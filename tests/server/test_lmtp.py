"""LMTP: a reply for each accepted recipient, in order, as early as its turn comes (RFC 2033)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Address, Reply, ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.errors import ConfigError, InsufficientStorage, MailboxUnavailable
from smtpfw.extensions import STANDARD, Chunking, Pipelining
from smtpfw.interfaces import IBody, ILMTPSession, IStatusCollector
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP

HELLO = b"LHLO client.example\r\n"
ENVELOPE = HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n"
MESSAGE = b"Subject: hello\r\n\r\ntext\r\n.\r\n"
OK = b"250 2.0.0 Message accepted\r\n"
UNKNOWN = b"550 5.1.1 No such mailbox here\r\n"
A, B, C = Address("a", "x"), Address("b", "x"), Address("c", "x")


@implementer(ILMTPSession)
class Delivery(Session):
    """Does with the body and the collector what the test says."""

    deliver: Callable[[IBody, IStatusCollector], Any]

    def lmtp_data(self, body: IBody, status: IStatusCollector) -> Any:
        return type(self).deliver(body, status)

    def data(self, body: IBody) -> Any:
        raise AssertionError("an LMTP session is not asked like this")


class LMTPTestCase(TestCase):
    def connect(self, deliver: Callable[[IBody, IStatusCollector], Any] | None, *said: bytes, **settings: Any) -> Any:
        if deliver is None:
            self.recording = RecordingBackend()
            backend: Any = self.recording
        else:
            backend = SessionBackend(type("Session", (Delivery,), {"deliver": staticmethod(deliver)}))
        config = ServerConfig(hostname="mx.test", protocol=LMTP, **settings)
        client = MemoryClient.of(SMTPServerFactory(backend, config, reactor=Clock()))
        for words in said:
            client.send(words)
        client.received()
        return client


class Dialog(LMTPTestCase):
    def test_greeting_and_verbs(self) -> None:
        config = ServerConfig(hostname="mx.test", protocol=LMTP)
        client = MemoryClient.of(SMTPServerFactory(RecordingBackend(), config, reactor=Clock()))
        self.assertEqual(client.received(), b"220 mx.test LMTP smtpfw\r\n")
        self.assertEqual(client.send(b"EHLO me\r\nHELO me\r\n"), b"500 5.5.1 Command not recognized\r\n" * 2)
        self.assertEqual(client.send(b"MAIL FROM:<>\r\n"), b"503 5.5.1 Send LHLO first\r\n")
        self.assertIn(b"250-PIPELINING\r\n", client.send(HELLO))
        self.assertEqual(client.protocol.wire.extended, True)

    def test_data_without_an_accepted_recipient(self) -> None:
        client = self.connect(None, HELLO, b"MAIL FROM:<>\r\n")
        self.recording.answers["rcpt"] = lambda recipient, options: (_ for _ in ()).throw(MailboxUnavailable())
        self.assertEqual(client.send(b"RCPT TO:<a@x>\r\n"), UNKNOWN)
        self.assertTrue(client.send(b"DATA\r\n").startswith(b"503 5.5.1 "))

    def test_its_name_in_a_received_line(self) -> None:
        client = self.connect(None, HELLO)
        session = self.recording.sessions[0]
        self.assertEqual(session.connection.protocol, "LMTP")
        client.send(b"MAIL FROM:<> SMTPUTF8\r\n")
        self.assertEqual(session.connection.protocol, "UTF8LMTP")

    def test_pipelining_and_enhanced_codes_are_no_choice(self) -> None:
        config = ServerConfig(hostname="mx.test", protocol=LMTP)
        for extensions in ([Pipelining()], [Chunking()], []):
            self.assertRaises(
                ConfigError, SMTPServerFactory, RecordingBackend(), config, extensions=extensions, reactor=Clock()
            )
        SMTPServerFactory(RecordingBackend(), config, extensions=STANDARD, reactor=Clock())


class Statuses(LMTPTestCase):
    def test_one_for_each_in_the_order_of_the_recipients(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(C, InsufficientStorage())
            status.set_status(A)
            status.set_status(B, "queued as 2")

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        self.assertEqual(
            client.send(MESSAGE), OK + b"250 2.0.0 queued as 2\r\n452 4.3.1 Insufficient system storage\r\n"
        )

    def test_each_as_soon_as_it_is_known(self) -> None:
        collectors: list[IStatusCollector] = []
        done: Deferred[None] = Deferred()

        def deliver(body: IBody, status: IStatusCollector) -> Deferred[None]:
            collectors.append(status)
            return done

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + b"NOOP\r\n"), b"")
        (status,) = collectors
        status.set_status(B, MailboxUnavailable())
        self.assertEqual(client.received(), b"")
        status.set_status(A, Reply(250, "first", (2, 1, 5)))
        self.assertEqual(client.received(), b"250 2.1.5 first\r\n" + UNKNOWN)
        done.callback(None)
        self.assertEqual(client.received(), OK + b"250 2.0.0 OK\r\n")

    def test_none_before_the_message_is_whole(self) -> None:
        def deliver(body: IBody, status: IStatusCollector) -> Deferred[None]:
            status.set_status(A)
            return Deferred()

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.send(b"Subject: hello\r\n"), b"")
        self.assertEqual(client.send(b".\r\n"), OK)

    def test_the_same_address_twice(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(A, MailboxUnavailable())
            status.set_status(A)

        client = self.connect(deliver, HELLO + b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<a@x>\r\nDATA\r\n")
        self.assertEqual(client.send(MESSAGE), UNKNOWN + OK)

    def test_who_has_none_gets_the_answer_of_the_whole(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(B)
            raise InsufficientStorage

        full = b"452 4.3.1 Insufficient system storage\r\n"
        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE), full + OK + full)

    def test_a_fault_of_one_is_ours(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(B, RuntimeError("a secret"))

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        received = client.send(MESSAGE)
        self.assertEqual([line[:9] for line in received.splitlines()], [b"250 2.0.0", b"451 4.3.0", b"250 2.0.0"])
        self.assertNotIn(b"secret", received)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_mistakes_of_the_backend_are_not_the_clients(self) -> None:
        mistakes: list[str] = []

        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(A)
            for address in (A, Address("stranger", "x")):
                try:
                    status.set_status(address)
                except ValueError as error:
                    mistakes.append(str(error))

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE), OK * 3)
        self.assertEqual(
            mistakes, ["the status of a@x has been set already", "stranger@x is no recipient of this message"]
        )

    def test_a_session_without_the_interface_answers_all_alike(self) -> None:
        client = self.connect(None, ENVELOPE + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE), OK * 3)
        self.assertEqual(len(self.recording.messages), 1)

    def test_too_large_for_each(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            status.set_status(A)
            await body.read()

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n", max_message_bytes=10)
        self.assertEqual(
            client.send(MESSAGE + b"NOOP\r\n"),
            b"552 5.3.4 Message size exceeds the limit\r\n" * 3 + b"250 2.0.0 OK\r\n",
        )

    def test_bdat(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(A, MailboxUnavailable())

        client = self.connect(deliver, ENVELOPE)
        self.assertEqual(client.send(b"BDAT 4\r\nabcdBDAT 2 LAST\r\nef"), b"250 2.0.0 4 octets\r\n" + UNKNOWN + OK * 2)

    def test_several_messages_on_one_connection(self) -> None:
        async def deliver(body: IBody, status: IStatusCollector) -> None:
            await body.read()
            status.set_status(B, MailboxUnavailable())

        client = self.connect(deliver, HELLO)
        for _ in range(3):
            client.send(ENVELOPE.removeprefix(HELLO) + b"DATA\r\n")
            self.assertEqual(client.send(MESSAGE), OK + UNKNOWN + OK)

    def test_a_status_after_the_client_has_gone(self) -> None:
        collectors: list[IStatusCollector] = []

        def deliver(body: IBody, status: IStatusCollector) -> Deferred[None]:
            collectors.append(status)
            return Deferred()

        client = self.connect(deliver, ENVELOPE + b"DATA\r\n", MESSAGE)
        client.disconnect()
        collectors[0].set_status(A)
        self.assertEqual(client.received(), b"")
