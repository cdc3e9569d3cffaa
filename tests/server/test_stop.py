"""Ending all connections of a factory, with a grace period."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw.interfaces import IBody
from smtpfw.server.factory import CLOSING_TIME
from smtpfw.server.parting import LINGER_SECONDS
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import (
    DATA,
    DOT,
    ENVELOPE,
    HELLO,
    MAIL,
    MESSAGE,
    MESSAGE_OK,
    RCPT,
    RECIPIENT_OK,
    codes,
    make_factory,
)

SHUTDOWN = b"421 4.3.2 Service is shutting down, try again later\r\n"


class Stop(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        self.factory = make_factory(self.backend, self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, set())

    def client(self, *said: bytes) -> MemoryClient:
        client = MemoryClient.of(self.factory)
        for words in said:
            client.send(words)
        client.received()
        return client

    def test_nobody_is_there(self) -> None:
        self.successResultOf(self.factory.stop(10))

    def test_idle_ones_at_once(self) -> None:
        clients = [self.client(), self.client(HELLO), self.client(ENVELOPE, b"RSET\r\n"), self.client(b"NO")]
        stopped = self.factory.stop(10)
        for client in clients:
            self.assertEqual(client.received(), SHUTDOWN)
            self.assertTrue(client.closed)
        self.successResultOf(stopped)
        self.assertEqual([event for event in self.backend.events if event[0] == "logout"], [("logout", "shutdown")] * 4)

    def test_busy_ones_after_their_transaction(self) -> None:
        client = self.client(HELLO, MAIL)
        stopped = self.factory.stop(10)
        self.assertEqual(client.received(), b"")
        self.assertEqual(client.send(RCPT), RECIPIENT_OK)
        client.send(DATA)
        client.received()
        self.assertNoResult(stopped)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK + SHUTDOWN)
        self.assertTrue(client.closed)
        self.successResultOf(stopped)
        self.assertEqual(len(self.backend.messages), 1)

    def test_rset_ends_a_transaction(self) -> None:
        client = self.client(ENVELOPE)
        stopped = self.factory.stop(10)
        self.assertEqual(client.send(b"RSET\r\n"), b"250 2.0.0 Reset\r\n" + SHUTDOWN)
        self.successResultOf(stopped)

    def test_a_hook_under_way_is_answered(self) -> None:
        gate: Deferred[Any] = Deferred()
        self.backend.answers["verify"] = lambda text: gate
        client = self.client(HELLO, b"VRFY x\r\n")
        stopped = self.factory.stop(10)
        self.assertEqual(client.received(), b"")
        gate.callback("found")
        self.assertEqual(client.received(), b"250 2.1.5 found\r\n" + SHUTDOWN)
        self.successResultOf(stopped)

    def test_the_rest_at_the_end_of_the_grace_period(self) -> None:
        clients = [self.client(ENVELOPE), self.client(ENVELOPE, DATA, MESSAGE)]
        stopped = self.factory.stop(10)
        self.clock.advance(9)
        self.assertEqual([client.received() for client in clients], [b"", b""])
        self.clock.advance(1)
        self.assertEqual([client.received() for client in clients], [SHUTDOWN, SHUTDOWN])
        self.successResultOf(stopped)
        ends = [event for event in self.backend.events if event[0] in ("reset", "logout")]
        self.assertEqual(ends, [("reset", "shutdown"), ("logout", "shutdown")] * 2)
        self.assertEqual(self.backend.messages, [])

    def test_who_does_not_close_tls_does_not_hold_up_the_end(self) -> None:
        client = self.client(HELLO)
        # A peer that is silent by TLS: the transport waits for it to say that it closes, too.
        client.protocol.wire.tls = True
        client.transport.loseConnection = lambda: None
        stopped = self.factory.stop(3600)
        self.assertEqual(client.received(), SHUTDOWN)
        self.assertNoResult(stopped)
        self.clock.advance(LINGER_SECONDS)
        self.assertTrue(client.transport.aborted)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_does_not_read_its_421_is_aborted(self) -> None:
        client = self.client(ENVELOPE)
        client.transport.loseConnection = lambda: None
        stopped = self.factory.stop(10)
        self.clock.advance(10)
        self.assertFalse(client.closed)
        self.clock.advance(CLOSING_TIME)
        self.assertTrue(client.transport.aborted)
        self.successResultOf(stopped)

    def test_who_has_gone_already_is_not_asked_twice(self) -> None:
        client = self.client(HELLO)
        client.transport.loseConnection = lambda: None
        quit = client.send(b"QUIT\r\n")
        stopped = self.factory.stop(10)
        self.assertEqual((codes(quit), client.received()), ([b"221"], b""))
        client.disconnect()
        self.successResultOf(stopped)
        self.assertEqual(self.backend.events[-1], ("logout", "quit"))

    def test_a_commit_is_not_torn(self) -> None:
        cancelled: list[Any] = []
        commit: Deferred[None] = Deferred(cancelled.append)
        stored: list[bytes] = []

        async def data(body: IBody) -> None:
            octets = await body.read()
            await commit
            stored.append(octets)

        self.backend.answers["data"] = data
        client = self.client(ENVELOPE, DATA, MESSAGE + DOT)
        self.factory.stop(10)
        self.clock.advance(10 + CLOSING_TIME)
        self.assertTrue(client.closed)
        self.assertEqual(cancelled, [])
        self.assertNotIn(("logout", "shutdown"), self.backend.events)
        commit.callback(None)
        self.assertEqual(stored, [MESSAGE])
        self.assertEqual(self.backend.events[-1], ("logout", "shutdown"))

    def test_a_commit_is_waited_for_when_its_client_has_gone(self) -> None:
        commit: Deferred[None] = Deferred()
        self.backend.answers["data"] = lambda body: commit
        client = self.client(ENVELOPE + DATA, MESSAGE + DOT)
        client.disconnect()
        stopped = self.factory.stop(10)
        self.assertNoResult(stopped)
        commit.callback(None)
        self.successResultOf(stopped)

    def test_a_commit_without_an_end_is_not_waited_for(self) -> None:
        commit: Deferred[None] = Deferred()
        self.backend.answers["data"] = lambda body: commit
        self.client(ENVELOPE + DATA, MESSAGE + DOT)
        stopped = self.factory.stop(10)
        self.clock.advance(10)
        self.assertNoResult(stopped)
        self.clock.advance(CLOSING_TIME)
        self.successResultOf(stopped)
        commit.callback(None)

    def test_a_session_that_is_not_there_yet(self) -> None:
        session: Deferred[Any] = Deferred()
        self.backend.answers["new_session"] = lambda made: session
        client = self.client()
        stopped = self.factory.stop(10)
        self.assertEqual(client.received(), SHUTDOWN)
        self.successResultOf(stopped)

    def test_a_message_that_is_being_stored_is_answered(self) -> None:
        commit: Deferred[None] = Deferred()
        self.backend.answers["data"] = lambda body: commit
        client = self.client(ENVELOPE, DATA, MESSAGE + DOT)
        stopped = self.factory.stop(10)
        self.clock.advance(10)
        # Told 421, the client would send again what is stored already.
        self.assertEqual(client.received(), b"")
        commit.callback(None)
        self.assertEqual(client.received(), MESSAGE_OK + SHUTDOWN)
        self.successResultOf(stopped)

    def test_the_next_transaction_is_not_begun(self) -> None:
        client = self.client(ENVELOPE, DATA)
        stopped = self.factory.stop(10)
        self.assertEqual(client.send(MESSAGE + DOT + MAIL + RCPT + DATA), MESSAGE_OK + SHUTDOWN)
        self.successResultOf(stopped)

    def test_who_comes_too_late(self) -> None:
        self.factory.stop(10)
        client = MemoryClient.of(self.factory)
        self.assertEqual(client.received(), SHUTDOWN)
        self.assertTrue(client.closed)
