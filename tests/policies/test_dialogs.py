"""Each check in a server, whole dialogs: what the client reads, what the session is asked, and what is left behind."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Address, ServerConfig, SMTPServerFactory
from smtpfw.check import Check, FunctionCheck
from smtpfw.errors import RelayDenied
from smtpfw.extensions import STANDARD, Auth
from smtpfw.interfaces import IConnection
from smtpfw.policies import (
    AllowedNetworks,
    Concurrency,
    EarlyTalkers,
    LoopLimit,
    RateLimit,
    RequireAuth,
    RequireTLS,
    SenderBelongsToLogin,
)
from smtpfw.sasl import IPasswordChecker
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import DATA, DOT, HELLO, MAIL, MESSAGE_OK, RCPT, RECIPIENT_OK, SENDER_OK, codes
from tests.server.tls_in_memory import CONTEXT, TLSClient

GREETING = b"220 mx.test ESMTP smtpfw\r\n"
BYE = b"221 2.0.0 Closing transmission channel\r\n"
QUIT = b"QUIT\r\n"
RSET = b"RSET\r\n"

ONE = IPv4Address("TCP", "192.0.2.1", 1000)
NEIGHBOUR = IPv4Address("TCP", "192.0.2.2", 1000)
FAR = IPv4Address("TCP", "198.51.100.1", 1000)
SIX = IPv6Address("TCP", "2001:db8::1", 1000)
MAPPED = IPv6Address("TCP", "::ffff:192.0.2.1", 1000)
SOCKET = UNIXAddress(b"/run/x.sock")


def authenticate(name: str) -> bytes:
    return b"AUTH PLAIN " + b64encode(f"\0{name}\0secret".encode()) + b"\r\n"


@implementer(IPasswordChecker)
class Everybody:
    def check_password(self, username: str, password: str) -> str:
        return username


class PolicyTestCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()

    def serve(self, *checks: Any, **settings: Any) -> None:
        self.factory = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test", **settings),
            tls=CONTEXT,
            extensions=[*STANDARD, Auth(Everybody(), allow_insecure=True)],
            checks=checks,
            reactor=self.clock,
        )

    def connect(self, peer: Any = ONE, *said: bytes) -> MemoryClient:
        client = MemoryClient.of(self.factory, peer)
        for words in said:
            client.received()
            client.send(words)
        return client

    def greeted(self, peer: Any = ONE, *said: bytes) -> MemoryClient:
        client = self.connect(peer, HELLO, *said)
        client.received()
        return client

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.backend.events]

    def assert_nobody_is_left(self) -> None:
        self.assertEqual(self.factory.connections, set())


class RequirementTests(PolicyTestCase):
    def test_mail_waits_for_tls(self) -> None:
        self.serve(RequireTLS())
        client = TLSClient(self.factory)
        self.assertEqual(codes(client.send() + client.send(HELLO)), [b"220", b"250"])
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        self.assertNotIn("mail", self.asked)
        self.assertEqual(codes(client.send(b"STARTTLS\r\n")), [b"220"])
        client.start_tls()
        client.send(HELLO)
        self.assertEqual(client.send(MAIL + RCPT), SENDER_OK + RECIPIENT_OK)

    def test_mail_waits_for_auth(self) -> None:
        self.serve(RequireAuth("198.51.100.0/24"))
        client = self.greeted()
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Authentication required\r\n")
        self.assertEqual(codes(client.send(authenticate("tim"))), [b"235"])
        self.assertEqual(client.send(MAIL), SENDER_OK)
        self.assertEqual(self.greeted(FAR).send(MAIL), SENDER_OK)

    def test_what_was_proved_in_clear_counts_no_more_behind_starttls(self) -> None:
        self.serve(RequireAuth())
        client = TLSClient(self.factory)
        client.send(HELLO)
        client.send(authenticate("tim"))
        self.assertEqual(client.send(MAIL + RSET)[:3], b"250")
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        client.send(HELLO)
        self.assertEqual(codes(client.send(MAIL)), [b"530"])


class SenderTests(PolicyTestCase):
    def test_a_foreign_sender_is_refused_and_the_dialog_goes_on(self) -> None:
        self.serve(SenderBelongsToLogin(domains=["b.test"]))
        client = self.greeted(ONE, authenticate("a"))
        refused = client.send(b"MAIL FROM:<boss@b.test>\r\n")
        self.assertEqual(refused, b"553 5.7.1 Sender address <boss@b.test> is not yours\r\n")
        self.assertEqual(client.send(MAIL + RSET)[:3], b"250")
        self.assertEqual(client.send(b"MAIL FROM:<>\r\n"), SENDER_OK)

    def test_who_goes_while_it_is_asked(self) -> None:
        cancelled: list[Any] = []
        self.serve(SenderBelongsToLogin(lambda identity: Deferred(cancelled.append)))
        client = self.greeted(ONE, authenticate("tim"))
        self.assertEqual(client.send(MAIL), b"")
        client.disconnect()
        self.assertEqual(len(cancelled), 1)
        self.assertNotIn("mail", self.asked)
        self.assert_nobody_is_left()

    def test_two_dialogs_wait_apart(self) -> None:
        waiting: dict[str, Deferred[Any]] = {}

        def owners(identity: str) -> Deferred[Any]:
            waiting[identity] = Deferred()
            return waiting[identity]

        self.serve(SenderBelongsToLogin(owners))
        tim, ann = self.greeted(ONE, authenticate("tim")), self.greeted(ONE, authenticate("ann"))
        self.assertEqual((tim.send(MAIL), ann.send(MAIL)), (b"", b""))
        waiting["ann"].callback("@b.test")
        self.assertEqual((tim.received(), ann.received()), (b"", SENDER_OK))
        waiting["tim"].callback(None)
        self.assertEqual(codes(tim.received()), [b"553"])


class NetworkTests(PolicyTestCase):
    def test_others_are_refused(self) -> None:
        self.serve(AllowedNetworks(["192.0.2.0/24", "unix"]))
        for peer in (ONE, MAPPED, SOCKET):
            self.assertEqual(self.connect(peer).received(), GREETING)
        client = self.connect(FAR)
        self.assertEqual(client.received(), b"554 5.7.1 Access denied for your address\r\n")
        self.assertEqual(codes(client.send(HELLO + MAIL)), [b"503", b"503"])
        self.assertEqual(client.send(QUIT), BYE)
        self.assertEqual(len(self.backend.sessions), 3)

    def test_others_may_authenticate(self) -> None:
        self.serve(AllowedNetworks(["192.0.2.0/24"], except_authenticated=True))
        client = self.greeted(SIX)
        self.assertEqual(client.send(MAIL), b"554 5.7.1 Access denied for your address\r\n")
        client.send(authenticate("tim"))
        self.assertEqual(client.send(MAIL), SENDER_OK)
        self.assertEqual(self.greeted().send(MAIL), SENDER_OK)


class RateTests(PolicyTestCase):
    def test_messages(self) -> None:
        self.serve(RateLimit(ip=(2, 60), clock=self.clock))
        client = self.greeted()
        self.assertEqual(client.send(MAIL + RCPT + DATA + DOT)[-len(MESSAGE_OK) :], MESSAGE_OK)
        self.assertEqual(client.send(MAIL), SENDER_OK)
        client.send(RSET)
        refused = b"450 4.7.1 Too many messages from your address, try again later\r\n"
        self.assertEqual(client.send(MAIL), refused)
        # The rest of a pipelined group finds no transaction.
        self.assertEqual(codes(client.send(MAIL + RCPT + DATA)), [b"450", b"503", b"503"])
        self.assertEqual(self.greeted(MAPPED).send(MAIL), refused)
        self.assertEqual(self.greeted(NEIGHBOUR).send(MAIL), SENDER_OK)
        self.clock.advance(30)
        self.assertEqual(client.send(MAIL), SENDER_OK)

    def test_connections(self) -> None:
        self.serve(RateLimit(net=(2, 60), count="connections", clock=self.clock))
        self.assertEqual([self.connect(peer).received() for peer in (ONE, NEIGHBOUR)], [GREETING, GREETING])
        client = self.connect()
        refused = b"421 4.7.0 Too many connections from your network, try again later\r\n"
        self.assertEqual(client.received(), refused)
        self.assertTrue(client.closed)
        self.assertEqual(self.connect(FAR).received(), GREETING)
        self.clock.advance(30)
        self.assertEqual(self.connect().received(), GREETING)

    def test_starttls_is_no_second_connection(self) -> None:
        self.serve(RateLimit(ip=(1, 60), count="connections", clock=self.clock))
        client = TLSClient(self.factory)
        client.send(HELLO)
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        client.send(HELLO)
        self.assertEqual(client.send(MAIL), SENDER_OK)

    def test_recipients_that_are_let_pass_are_kept(self) -> None:
        self.serve(RateLimit(user=(2, 3600), count="recipients", clock=self.clock))
        client = self.greeted(ONE, authenticate("tim"))
        self.assertEqual(codes(client.send(MAIL + RCPT * 3)), [b"250", b"250", b"250", b"450"])
        self.assertEqual(codes(client.send(DATA + DOT)), [b"354", b"250"])
        self.assertEqual(len(self.backend.messages[0].recipients), 2)
        self.assertEqual(codes(self.greeted().send(MAIL + RCPT * 3)), [b"250"] * 4)

    def test_what_a_check_before_it_refuses_is_not_counted(self) -> None:
        self.serve(RequireAuth(), RateLimit(ip=(1, 60), clock=self.clock))
        client = self.greeted()
        self.assertEqual(codes(client.send(MAIL * 3)), [b"530"] * 3)
        client.send(authenticate("tim"))
        self.assertEqual(client.send(MAIL), SENDER_OK)


class ConcurrencyTests(PolicyTestCase):
    REFUSED = b"421 4.7.0 Too many connections from your address, try again later\r\n"

    def assert_room_for(self, number: int) -> None:
        """That many clients are let in, and no more; they stay."""
        answers = [self.connect().received() for _ in range(number + 1)]
        self.assertEqual(answers, [GREETING] * number + [self.REFUSED])

    def test_however_a_client_goes_its_place_is_free(self) -> None:
        self.serve(Concurrency(ip=3))
        quits, breaks, idles = (self.connect() for _ in range(3))
        self.assert_room_for(0)
        quits.send(QUIT)
        breaks.disconnect()
        idles.received()
        self.clock.advance(299)
        self.clock.advance(2)
        self.assertTrue(idles.closed)
        self.assert_room_for(3)

    def test_who_was_refused_takes_no_place_and_frees_none(self) -> None:
        self.serve(Concurrency(ip=1))
        self.connect()
        for _ in range(3):
            client = self.connect()
            self.assertEqual(client.received(), self.REFUSED)
            self.assertTrue(client.closed)
        self.assert_room_for(0)

    def test_who_was_refused_before(self) -> None:
        refuse = [True]

        def connect(connection: IConnection) -> None:
            if refuse[0]:
                raise RelayDenied

        check = Concurrency(ip=1)
        self.serve(FunctionCheck(connect=connect), check)
        refused = self.connect()
        self.assertEqual(codes(refused.received()), [b"554"])
        refuse[0] = False
        self.connect()
        refused.disconnect()
        self.assert_room_for(0)

    def test_who_is_refused_behind_it(self) -> None:
        self.serve(Concurrency(ip=1), FunctionCheck(connect=lambda connection: _refuse()))
        client = self.connect()
        self.assertEqual(codes(client.received()), [b"554"])
        # It is still there, waiting for QUIT.
        self.assertEqual(self.connect().received(), self.REFUSED)
        client.send(QUIT)
        self.assertEqual(codes(self.connect().received()), [b"554"])

    def test_who_goes_while_another_check_waits(self) -> None:
        self.serve(Concurrency(ip=1), EarlyTalkers(5.0))
        client = self.connect()
        self.assertEqual(self.connect().received(), self.REFUSED)
        client.disconnect()
        self.assertEqual(self.backend.sessions, [])
        client = self.connect()
        self.clock.advance(5)
        self.assertEqual(client.received(), GREETING)

    def test_who_goes_while_a_check_waits_that_cannot_be_stopped(self) -> None:
        ends: list[Deferred[None]] = []

        class Stubborn(Check):
            async def connect(self, connection: IConnection) -> None:
                try:
                    await connection.pause(60)
                except CancelledError:
                    ends.append(Deferred())
                    await ends[-1]

        self.serve(Concurrency(ip=1), Stubborn())
        for outcome in (None, Failure(RelayDenied()), Failure(ValueError("of its own"))):
            self.connect().disconnect()
            self.assertEqual(self.connect().received(), self.REFUSED)
            ends[-1].callback(outcome)
            self.assert_nobody_is_left()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.connect().received(), b"")

    def test_starttls_keeps_the_place(self) -> None:
        self.serve(Concurrency(ip=1))
        client = TLSClient(self.factory)
        client.send(HELLO)
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        client.send(HELLO)
        self.assert_room_for(0)
        self.assertEqual(client.send(MAIL), SENDER_OK)
        client.transport.abortConnection()
        self.assert_room_for(1)

    def test_a_user(self) -> None:
        self.serve(Concurrency(user=1))
        one, other = self.greeted(ONE, authenticate("tim")), self.greeted(FAR, authenticate("tim"))
        self.assertEqual(one.send(MAIL), SENDER_OK)
        refused = b"450 4.7.1 Too many connections of your account, try again later\r\n"
        self.assertEqual(other.send(MAIL), refused)
        one.disconnect()
        self.assertEqual(other.send(MAIL), SENDER_OK)

    def test_who_is_another_behind_starttls(self) -> None:
        self.serve(Concurrency(user=1))
        client = TLSClient(self.factory)
        for words in (HELLO, authenticate("tim"), MAIL, RSET, b"STARTTLS\r\n"):
            client.send(words)
        client.start_tls()
        for words in (HELLO, authenticate("ann")):
            client.send(words)
        self.assertEqual(client.send(MAIL), SENDER_OK)
        self.assertEqual(self.greeted(FAR, authenticate("tim")).send(MAIL), SENDER_OK)
        self.assertEqual(codes(self.greeted(FAR, authenticate("ann")).send(MAIL)), [b"450"])


class EarlyTalkerTests(PolicyTestCase):
    def test_who_waits_is_greeted_and_who_talks_is_refused(self) -> None:
        self.serve(EarlyTalkers(2.0))
        patient, hasty = self.connect(), self.connect(ONE, HELLO)
        self.assertEqual((patient.received(), hasty.received()), (b"", b""))
        self.clock.advance(2)
        self.assertEqual(patient.received(), GREETING)
        self.assertEqual(hasty.received().split(b"\r\n")[0], b"554 5.5.1 You spoke before the greeting")
        self.assertEqual(len(self.backend.sessions), 1)
        self.assertEqual(codes(patient.send(HELLO)), [b"250"])
        self.assertEqual(hasty.send(QUIT), BYE)

    def test_who_goes_leaves_nothing(self) -> None:
        self.serve(EarlyTalkers(2.0))
        self.connect().disconnect()
        self.assert_nobody_is_left()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_behind_implicit_tls(self) -> None:
        self.serve(EarlyTalkers(2.0))
        for said, expected in ((b"", b"220"), (HELLO, b"554")):
            client = TLSClient(self.factory, implicit=True)
            client.start_tls()
            client.send(said)
            self.clock.advance(2)
            self.assertEqual(client.send()[:3], expected)


class LoopTests(PolicyTestCase):
    FIELD = b"Received: from a.test\r\n\tby b.test\r\n"

    def send(self, message: bytes, octet_by_octet: bool = False) -> bytes:
        client = self.greeted(ONE, MAIL + RCPT + DATA)
        if octet_by_octet:
            return b"".join(client.send(bytes([octet])) for octet in message + DOT)
        return client.send(message + DOT)

    def test_a_loop_is_refused_and_not_stored(self) -> None:
        self.serve(LoopLimit(3))
        refused = b"554 5.4.6 Too many hops: this message goes round in circles\r\n"
        for octet_by_octet in (False, True):
            self.assertEqual(self.send(self.FIELD * 4 + b"\r\nhello\r\n", octet_by_octet), refused)
        self.assertEqual(self.backend.messages, [])
        self.assertEqual(self.send(self.FIELD * 3 + b"\r\nhello\r\n"), MESSAGE_OK)

    def test_the_body_is_not_looked_at(self) -> None:
        self.serve(LoopLimit(3))
        body = self.FIELD * 9
        self.assertEqual(self.send(self.FIELD * 3 + b"\r\n" + body), MESSAGE_OK)
        self.assertEqual(self.send(b"\r\n" + body), MESSAGE_OK)
        self.assertEqual(self.send(self.FIELD * 3 + b"\r\n" + body, octet_by_octet=True), MESSAGE_OK)

    def test_bdat(self) -> None:
        self.serve(LoopLimit(3))
        client = self.greeted(ONE, MAIL + RCPT)
        message = self.FIELD * 4
        self.assertEqual(codes(client.send(b"BDAT %d\r\n" % len(message) + message)), [b"250"])
        self.assertEqual(codes(client.send(b"BDAT 7 LAST\r\n\r\nhello")), [b"554"])
        self.assertEqual(self.backend.messages, [])


class OrderTests(PolicyTestCase):
    def test_the_first_refusal_wins_and_a_whole_dialog_passes_all(self) -> None:
        self.serve(
            AllowedNetworks("192.0.2.0/24"),
            Concurrency(ip=5, user=5),
            EarlyTalkers(1.0),
            RequireTLS(),
            RequireAuth(),
            SenderBelongsToLogin(domains="b.test"),
            RateLimit(ip=(1, 60), clock=self.clock),
            LoopLimit(),
        )
        client = TLSClient(self.factory)
        self.clock.advance(1)
        client.send(HELLO)
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Must issue a STARTTLS command first\r\n")
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        client.send(HELLO)
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Authentication required\r\n")
        client.send(authenticate("a"))
        self.assertEqual(codes(client.send(b"MAIL FROM:<x@b.test>\r\n")), [b"553"])
        self.assertEqual(client.send(MAIL + RCPT + DATA)[:17], SENDER_OK[:17])
        self.assertEqual(client.send(b"Subject: x\r\n\r\nhello\r\n" + DOT), MESSAGE_OK)
        self.assertEqual(codes(client.send(MAIL)), [b"450"])
        self.assertEqual(client.send(QUIT), BYE)
        self.assertEqual(self.backend.messages[0].sender, Address("a", "b.test"))
        self.assert_nobody_is_left()

    def test_lmtp(self) -> None:
        self.serve(RateLimit(ip=(1, 60), count="recipients", clock=self.clock), LoopLimit(1), protocol="lmtp")
        client = self.connect(ONE, b"LHLO me\r\n")
        client.received()
        self.assertEqual(codes(client.send(MAIL + RCPT + RCPT)), [b"250", b"250", b"450"])
        client.send(DATA)
        self.assertEqual(codes(client.send(b"Received: a\r\nReceived: b\r\n\r\n" + DOT)), [b"554"])


def _refuse() -> None:
    raise RelayDenied
