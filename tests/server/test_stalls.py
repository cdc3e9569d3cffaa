"""Clients that stop in the middle, wherever that is: each ends at its time limit, and the others notice nothing."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import SMTPServerFactory
from smtpfw.extensions import STANDARD, Auth
from smtpfw.sasl import IPasswordChecker
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, MESSAGE_OK, RCPT, make_factory
from tests.server.tls_in_memory import CONTEXT, TLSClient

#: All different, so that each phase shows whose limit it is that ends it.
LIMITS: dict[str, Any] = {
    "tls_handshake_timeout": 10,
    "greeting_timeout": 20,
    "write_timeout": 25,
    "command_timeout": 30,
    "data_timeout": 40,
    "message_timeout": 100,
}

TIMEOUT = b"421 4.4.2 Timeout, closing transmission channel\r\n"


@implementer(IPasswordChecker)
class Nobody:
    """Is never asked."""

    async def check_password(self, username: str, password: str) -> str:
        raise AssertionError(f"{username} did not send the password")


class Peer:
    """What one stalled client does, and what it sees of its end."""

    def __init__(self, client: Any, stall: Stall) -> None:
        self.stall = stall
        self._client = client

    @property
    def ended(self) -> bool:
        """Whether the server has closed the connection."""
        return bool(self._client.closed)

    @property
    def aborted(self) -> bool:
        return bool(self._client.transport.aborted)

    def received(self) -> bytes:
        """What the server has written since it was asked last."""
        data: bytes = self._client.transport.value()
        self._client.transport.clear()
        return data


def says(*words: bytes) -> Callable[[SMTPServerFactory], Any]:
    """A client in clear that says so much, and no more."""

    def start(factory: SMTPServerFactory) -> MemoryClient:
        client = MemoryClient.of(factory)
        for octets in words:
            client.send(octets)
        return client

    return start


def starts_tls(then: bytes = b"") -> Callable[[SMTPServerFactory], Any]:
    """A client that says STARTTLS, and then no more than ``then``."""

    def start(factory: SMTPServerFactory) -> TLSClient:
        client = TLSClient(factory)
        client.raw(HELLO)
        client.raw(b"STARTTLS\r\n")
        client.raw(then)
        return client

    return start


def under_tls(*words: bytes) -> Callable[[SMTPServerFactory], Any]:
    """A client that says so much behind STARTTLS."""

    def start(factory: SMTPServerFactory) -> TLSClient:
        client = TLSClient(factory)
        client.send(HELLO)
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        for octets in words:
            client.send(octets)
        return client

    return start


def does_not_read(factory: SMTPServerFactory) -> MemoryClient:
    """A client whose socket is full: Twisted's transport then pauses who writes into it."""
    client = MemoryClient.of(factory)
    client.send(HELLO)
    client.protocol.pauseProducing()
    client.send(b"NOOP\r\n" * 50)
    return client


def does_not_read_its_last_reply(factory: SMTPServerFactory) -> MemoryClient:
    """A client whose socket is full when it says QUIT: the transport waits until it has sent what is left."""
    client = MemoryClient.of(factory)
    client.send(HELLO)
    client.transport.loseConnection = lambda: None  # type: ignore[method-assign]
    client.send(b"QUIT\r\n")
    return client


def half_a_client_hello() -> bytes:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    connection.set_connect_state()
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        hello: bytes = connection.bio_read(65536)
    return hello[: len(hello) // 2]


@dataclass(frozen=True)
class Stall:
    """
    :ivar where: in words.
    :ivar start: connects a client, and brings it there.
    :ivar seconds: until it is told.
    :ivar last_words: what it is told then; None for octets that only TLS can read.
    :ivar aborted: whether the connection is cut, for want of a client that reads.
    :ivar lingering: seconds from the last words to the end.
    """

    where: str
    start: Callable[[SMTPServerFactory], Any]
    seconds: float
    last_words: bytes | None = TIMEOUT
    aborted: bool = False
    lingering: float = 0


#: TLS ends with a goodbye from either side, and a client that stalls says none: it gets the time that one has to read.
_NO_GOODBYE: dict[str, Any] = {"last_words": None, "aborted": True, "lingering": LIMITS["write_timeout"]}

STALLS = (
    Stall("before EHLO", says(), 20),
    Stall("in half a first command", says(b"EHLO m"), 20),
    Stall("after NOOP, before EHLO", says(b"NOOP\r\n"), 20),
    Stall("after EHLO", says(HELLO), 30),
    Stall("in half a command", says(HELLO, b"MAIL FROM:<a"), 30),
    Stall("behind a CR", says(HELLO, b"NOOP\r"), 30),
    Stall("after MAIL", says(HELLO, MAIL), 30),
    Stall("after RCPT", says(ENVELOPE), 30),
    Stall("in half of a pipelined group", says(HELLO, MAIL + RCPT + b"RCPT"), 30),
    Stall("in a line over the limit", says(HELLO, b"x" * 5000), 30),
    Stall("after 354", says(ENVELOPE, DATA), 40),
    Stall("in the header of a message", says(ENVELOPE, DATA, b"Subject: h"), 40),
    Stall("in the middle of a body", says(ENVELOPE, DATA, MESSAGE), 40),
    Stall("in the final dot", says(ENVELOPE, DATA, MESSAGE + b".\r"), 40),
    Stall("in a chunk that has not begun", says(ENVELOPE, b"BDAT 100\r\n"), 40),
    Stall("in a chunk", says(ENVELOPE, b"BDAT 100\r\n" + b"x" * 50), 40),
    Stall("in a last chunk", says(ENVELOPE, b"BDAT 100 LAST\r\n" + b"x" * 50), 40),
    Stall("between two chunks", says(ENVELOPE, b"BDAT 4\r\nabcd"), 30),
    Stall("in a chunk that belongs to no message", says(HELLO, b"BDAT 100\r\n" + b"x" * 50), 30),
    Stall("in AUTH, after 334", says(HELLO, b"AUTH PLAIN\r\n"), 30),
    Stall("in AUTH, in half a response", says(HELLO, b"AUTH PLAIN\r\n", b64encode(b"\0tim")), 30),
    Stall("in AUTH, before the second response", says(HELLO, b"AUTH LOGIN\r\n", b64encode(b"tim") + b"\r\n"), 30),
    Stall("after STARTTLS", starts_tls(), 10, b"", aborted=True),
    Stall("in the handshake", starts_tls(half_a_client_hello()), 10, b"", aborted=True),
    Stall("behind the handshake, before EHLO", under_tls(), 20, **_NO_GOODBYE),
    Stall("under TLS, after EHLO", under_tls(HELLO), 30, **_NO_GOODBYE),
    Stall("under TLS, in the middle of a body", under_tls(HELLO, MAIL, RCPT, DATA, MESSAGE), 40, **_NO_GOODBYE),
    Stall("while it reads no replies", does_not_read, 25, b"", aborted=True),
    Stall("while it does not read the last reply", does_not_read_its_last_reply, 25, b"", aborted=True),
)


class StallTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        self.factory = make_factory(
            self.backend,
            self.clock,
            tls=CONTEXT,
            extensions=[*STANDARD, Auth(Nobody(), allow_insecure=True)],
            max_connections=0,
            max_connections_per_address=0,
            **LIMITS,
        )

    def tearDown(self) -> None:
        # Of a connection that has ended nothing may be left: no timer, no session, and no memory that is counted.
        self.assertEqual(self.factory.connections, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.memory.held, 0)

    def stalled(self, stall: Stall) -> Peer:
        peer = Peer(stall.start(self.factory), stall)
        peer.received()
        return peer

    def assert_last_words(self, peer: Peer) -> None:
        received, expected = peer.received(), peer.stall.last_words
        if expected is None:
            self.assertGreater(len(received), len(TIMEOUT), peer.stall.where)
        else:
            self.assertEqual(received, expected, peer.stall.where)

    def test_each_alone(self) -> None:
        for stall in STALLS:
            peer = self.stalled(stall)
            self.clock.advance(stall.seconds - 0.5)
            self.assertEqual((peer.ended, peer.received()), (False, b""), stall.where)
            self.clock.advance(0.5)
            self.assert_last_words(peer)
            self.assertEqual(peer.ended, not stall.lingering, stall.where)
            self.clock.advance(stall.lingering)
            self.assertTrue(peer.ended, stall.where)
            self.assertEqual((peer.received(), peer.aborted), (b"", stall.aborted), stall.where)
            self.assertEqual(self.factory.connections, set(), stall.where)

    def test_a_hundred_among_a_hundred_others(self) -> None:
        peers = [self.stalled(STALLS[number % len(STALLS)]) for number in range(100)]
        others = [MemoryClient.of(self.factory) for _ in range(100)]
        for client in others:
            client.send(HELLO)
            client.received()
        for second in range(1, 101):
            self.clock.advance(1)
            for client in others[second % 10 :: 10]:
                replies = client.send(MAIL + RCPT + DATA)
                self.assertTrue(replies.endswith(b"354 Start mail input; end with <CRLF>.<CRLF>\r\n"), replies)
                self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)
            for peer in [peer for peer in peers if peer.ended]:
                self.assertEqual(second, peer.stall.seconds + peer.stall.lingering, peer.stall.where)
                self.assert_last_words(peer)
                peers.remove(peer)
        self.assertEqual([peer.stall.where for peer in peers], [])
        self.assertEqual(len(self.backend.messages), 1000)
        for client in others:
            self.assertEqual(client.send(b"QUIT\r\n")[:4], b"221 ")

    def test_sessions_learn_why(self) -> None:
        for stall in STALLS:
            self.backend.events.clear()
            self.stalled(stall)
            self.clock.advance(stall.seconds)
            self.clock.advance(stall.lingering)
            # The session of the clear line has ended with STARTTLS, and there is no other before the handshake is over.
            reason = "starttls" if stall.seconds == LIMITS["tls_handshake_timeout"] else "timeout"
            self.assertEqual(self.backend.events[-1], ("logout", reason), stall.where)
