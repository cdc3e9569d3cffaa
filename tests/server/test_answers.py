"""What a hook may not do to the client's idea of a transaction; and sessions that lack something."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Generator
from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Address, Reply, SessionBackend, SMTPError
from smtpfw.errors import ConfigError
from smtpfw.extensions import StartTLS
from smtpfw.interfaces import IBody, ILMTPSession, ISession, IStatusCollector
from smtpfw.session import Session
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP
from smtpfw.wire.dialect import Extension
from smtpfw.wire.phases import READY, Verb
from smtpfw.wire.profiles import STRICT
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT, codes, connect, greeted, make_factory


class RepliesOfHooks(TestCase):
    """A Reply is what it says: one that refuses refuses the transaction, too."""

    def test_a_refused_recipient_gets_nothing(self) -> None:
        def rcpt(recipient: Address, options: Any) -> Reply | None:
            return Reply(550, "no such user", (5, 1, 1)) if recipient.local_part == "c" else None

        backend = RecordingBackend(rcpt=rcpt)
        client = greeted(backend, None, HELLO + MAIL)
        self.assertEqual(client.send(RCPT), b"550 5.1.1 no such user\r\n")
        client.send(b"RCPT TO:<e@d.test>\r\n" + DATA)
        client.send(MESSAGE + DOT)
        (message,) = backend.messages
        self.assertEqual([str(recipient.address) for recipient in message.recipients], ["e@d.test"])

    def test_a_refused_sender_begins_nothing(self) -> None:
        client = greeted(RecordingBackend(mail=lambda *_: Reply(451, "later")), None, HELLO)
        self.assertEqual(codes(client.send(MAIL + RCPT)), [b"451", b"503"])

    def test_a_refused_hello_changes_nothing(self) -> None:
        client = greeted(RecordingBackend(hello=lambda *_: Reply(550, "not you")), None)
        self.assertEqual(codes(client.send(HELLO + MAIL)), [b"550", b"503"])

    def test_an_intermediate_reply_is_no_answer(self) -> None:
        client = greeted(RecordingBackend(data=lambda body: Reply(354, "hm")), None, ENVELOPE + DATA)
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"451"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class LMTPReplies(TestCase):
    def deliver(self, outcome: Any, **settings: Any) -> MemoryClient:
        @implementer(ILMTPSession)
        class Delivery(Session):
            async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                await body.read()
                status.set_status(Address("a", "x"), outcome)

        client = greeted(SessionBackend(Delivery), None, b"LHLO me\r\n", protocol=LMTP, **settings)
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        return client

    def test_a_421_is_for_one_recipient(self) -> None:
        client = self.deliver(SMTPError(421, (4, 3, 2), "bye"))
        self.assertEqual(client.send(MESSAGE + DOT), b"451 4.3.2 bye\r\n250 2.0.0 Message accepted\r\n")
        self.assertFalse(client.closed)

    def test_an_outcome_is_no_mistake_of_the_client(self) -> None:
        client = self.deliver(SMTPError(503, (5, 5, 1), "odd"), max_sequence_errors=1)
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"503", b"250"])

    def test_a_reply_that_is_neither(self) -> None:
        client = self.deliver(Reply(354, "hm"))
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"451", b"250"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Incomplete(TestCase):
    def test_a_session_without_a_hook_is_none(self) -> None:
        @implementer(ISession)
        class Half:
            def mail(self, sender: Any, options: Any) -> None: ...
            def rcpt(self, recipient: Any, options: Any) -> None: ...
            def data(self, body: Any) -> None: ...

        factory = make_factory(SessionBackend(lambda connection: Half()))
        client = MemoryClient.of(factory)
        self.assertTrue(client.received().startswith(b"421 4.3.0 "))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(factory.connections, set())


class Faults(TestCase):
    """What goes wrong behind a wait is answered like what goes wrong at once."""

    def test_an_extension_that_fails_to_advertise(self) -> None:
        class Broken(Extension):
            keyword = "X-BROKEN"

            def advertise(self, connection: Any) -> str:
                raise ValueError("a secret")

        for waits in (False, True):
            waiting: Deferred[None] = Deferred()
            backend = RecordingBackend(hello=lambda *_, waits=waits, waiting=waiting: waiting if waits else None)
            client = greeted(backend, None, extensions=[Broken()])
            received = client.send(HELLO)
            if waits:
                waiting.callback(None)
                received = client.received()
            self.assertEqual(received, b"451 4.3.0 Try again later\r\n")
            self.assertFalse(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


class Mute(Extension):
    keyword = "X-MUTE"
    verbs = (Verb("MUTE", frozenset({READY}), serve=lambda connection, argument: None),)


class Verbs(TestCase):
    def test_a_verb_without_an_answer_takes_nobody_elses(self) -> None:
        client = greeted(RecordingBackend(), None, HELLO, extensions=[Mute()])
        self.assertEqual(codes(client.send(b"MUTE\r\nMAIL FROM:<>\r\n")), [b"451", b"250"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class Awaiting(TestCase):
    """What no Deferred can wait for: asyncio's own awaitables, outside of asyncio."""

    def test_it_is_a_fault_like_any_other(self) -> None:
        async def rcpt(recipient: Address, options: Any) -> None:
            await asyncio.sleep(0)

        client = greeted(RecordingBackend(rcpt=rcpt), None, HELLO + MAIL)
        self.assertEqual(codes(client.send(RCPT + b"NOOP\r\n")), [b"250", b"250"])

    def test_a_coroutine_that_waits_and_fails_at_once(self) -> None:
        async def rcpt(recipient: Address, options: Any) -> None:
            await Waits()

        client = greeted(RecordingBackend(rcpt=rcpt), None, HELLO + MAIL)
        self.assertEqual(codes(client.send(RCPT + b"NOOP\r\n")), [b"451", b"250"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class Waits:
    def __await__(self) -> Generator[Any, Any, None]:
        yield "for nothing that is known"
        raise RuntimeError("a secret")


class Ends(TestCase):
    def test_a_quit_that_was_refused_is_no_quit(self) -> None:
        backend = RecordingBackend()
        client = greeted(backend, None, HELLO, max_syntax_errors=1)
        self.assertEqual(codes(client.send(b"QUIT x\r\n")), [b"421"])
        self.assertEqual(backend.events[-1], ("logout", "error"))


class Verify(TestCase):
    def answer(self, said: bytes) -> bytes:
        client = greeted(RecordingBackend(verify=lambda text: "Jörg <jörg@example.org>"), None, HELLO)
        return client.send(said)

    def test_another_address_than_the_true_one_is_not_shown(self) -> None:
        for said in (b"VRFY joerg\r\n", b"VRFY joerg SMTPUTF8\r\n"):
            self.assertEqual(codes(self.answer(said)), [b"252"])


class Peers(TestCase):
    def test_an_ipv4_client_of_a_socket_for_both(self) -> None:
        backend = RecordingBackend()
        factory = make_factory(backend)
        for host, shown in (("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::1"), ("192.0.2.7",) * 2):
            MemoryClient.of(factory, IPv6Address("TCP", host, 1025))
            self.assertEqual(backend.sessions[-1].connection.peer_host, shown)


class Clocks(TestCase):
    def test_a_client_that_leaves_before_the_greeting(self) -> None:
        clock = Clock()
        client = MemoryClient.of(make_factory(RecordingBackend(), clock, profile=STRICT))
        client.disconnect()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(client.received(), b"")


class SessionClasses(TestCase):
    """What can't work is found when the backend is made, or refuses everybody; no mail is lost by it."""

    def test_hooks_that_can_not_be_called(self) -> None:
        class Misses(Session):
            def rcpt(self, recipient: Any) -> None:  # type: ignore[override]
                """Has no options."""

        with self.assertRaisesRegex(ConfigError, r"Misses.rcpt can't be called with \(recipient, options\)"):
            SessionBackend(Misses)
        with self.assertRaises(ConfigError):
            SessionBackend(Session(None))  # type: ignore[arg-type]

    def test_one_for_lmtp_only_takes_no_smtp(self) -> None:
        @implementer(ILMTPSession)
        class ForLMTP(Session):
            def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                """Takes it."""

        client = connect(SessionBackend(ForLMTP))
        self.assertTrue(client.received().startswith(b"421 4.3.0 "))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertTrue(connect(SessionBackend(ForLMTP), protocol=LMTP).received().startswith(b"220 "))

    def test_a_status_for_a_recipient_of_the_transaction(self) -> None:
        @implementer(ILMTPSession)
        class Each(Session):
            def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                for recipient in self.connection.transaction.recipients:
                    status.set_status(recipient, f"{recipient} has it")

        client = greeted(SessionBackend(Each), None, b"LHLO me\r\n" + MAIL + RCPT, protocol=LMTP)
        self.assertEqual(client.send(DATA + MESSAGE + DOT).splitlines()[-1], b"250 2.0.0 c@d.test has it")


class WrongTLS(TestCase):
    def test_what_twisted_can_not_begin_is_refused(self) -> None:
        for tls in (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "cert.pem"):
            with self.assertRaisesRegex(ConfigError, "server_context"):
                make_factory(RecordingBackend(), tls=tls)

    def test_what_fails_behind_the_220_ends_the_connection(self) -> None:
        class Lies:
            def getContext(self) -> object:
                return object()

        client = connect(RecordingBackend(), tls=Lies(), extensions=[StartTLS()])
        client.send(HELLO)
        client.received()
        # The transport in memory knows no startTLS at all.
        self.assertEqual(client.send(b"STARTTLS\r\n")[:3], b"220")
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.send(HELLO + MAIL), b"")
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
