"""Back-pressure, both ways: nothing is kept without bound, whoever is slow."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw.body import HIGH_WATER
from smtpfw.interfaces import IBody
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.outgoing import MAX_REPLIES_DUE
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE_OK, RCPT, RECIPIENT_OK, codes, greeted

#: What Twisted reads from a socket at once.
SEGMENT = 65536
#: What waits for its turn: half of max_buffered_bytes.
MAX_BUFFERED = 65536
LINES = (b"x" * 1022 + b"\r\n") * (SEGMENT // 1024)


def kept(client: MemoryClient, body: Any) -> int:
    """Octets that the server keeps: not used by the connection, not read by the session."""
    return client.protocol.wire.buffered + body._unread


def pour(client: MemoryClient, body: Any, octets: int) -> tuple[int, int]:
    """
    Send segments for as long as the server reads, and two more, as TLS may; return how many octets went in, and the
    most that was kept.
    """
    sent = most = late = 0
    while sent < octets and late < 2:
        client.send(LINES)
        sent += len(LINES)
        most = max(most, kept(client, body))
        late += not client.transport.reading
    return sent, most


class SlowSession(TestCase):
    def start(self) -> tuple[MemoryClient, Any, Deferred[None], list[int]]:
        gate: Deferred[None] = Deferred()
        bodies: list[Any] = []
        read: list[int] = []

        async def data(body: IBody) -> None:
            bodies.append(body)
            await gate
            async for chunk in body:
                read.append(len(chunk))

        client = greeted(RecordingBackend(data=data), None, ENVELOPE, DATA)
        client.send(b"begin\r\n")
        return client, bodies[0], gate, read

    def test_a_session_that_does_not_read_pauses_its_client(self) -> None:
        client, body, gate, read = self.start()
        self.assertTrue(client.transport.reading)
        sent, most = pour(client, body, 50 * SEGMENT)
        self.assertFalse(client.transport.reading)
        self.assertLessEqual(most, HIGH_WATER + MAX_BUFFERED + 3 * SEGMENT)
        self.assertGreater(sent, HIGH_WATER)
        gate.callback(None)
        self.assertTrue(client.transport.reading)
        self.assertEqual(kept(client, body), 0)
        # The two deliveries that came although the transport was paused were not lost.
        self.assertEqual(client.send(DOT), MESSAGE_OK)
        self.assertEqual(sum(read), sent + len(b"begin\r\n"))

    def test_ten_times_over(self) -> None:
        client, body, gate, _ = self.start()
        gate.callback(None)
        for _ in range(10):
            sent, most = pour(client, body, 3 * SEGMENT)
            self.assertEqual(sent, 3 * SEGMENT)
            self.assertEqual(most, 0)
        self.assertEqual(client.send(DOT), MESSAGE_OK)

    def test_a_client_that_goes_while_it_is_paused(self) -> None:
        client, body, _, _ = self.start()
        pour(client, body, 50 * SEGMENT)
        client.disconnect()
        self.assertEqual(kept(client, body), 0)

    def test_commands_behind_a_slow_hook(self) -> None:
        gate: Deferred[Any] = Deferred()
        clock = Clock()
        client = greeted(RecordingBackend(mail=lambda *arguments: gate), clock, HELLO, max_commands_without_mail=0)
        client.send(MAIL)
        noops = b"NOOP\r\n" * (MAX_BUFFERED // 6)
        client.send(noops)
        self.assertTrue(client.transport.reading)
        client.send(noops)
        self.assertFalse(client.transport.reading)
        gate.callback(None)
        turns(clock)
        self.assertTrue(client.transport.reading)
        self.assertEqual(len(codes(client.received())), 1 + 2 * (MAX_BUFFERED // 6))


class SlowReader(TestCase):
    def start(self, clock: Clock | None = None, **answers: Any) -> MemoryClient:
        client = greeted(RecordingBackend(**answers), clock, HELLO)
        client.protocol.pauseProducing()
        return client

    def test_it_gets_no_more_replies(self) -> None:
        client = self.start()
        self.assertFalse(client.transport.reading)
        # These were under way already.
        self.assertEqual(client.send(b"NOOP\r\n" * 10), b"")
        self.assertEqual(client.send(MAIL), b"")
        client.protocol.resumeProducing()
        self.assertEqual(codes(client.received()), [b"250"] * 11)
        self.assertTrue(client.transport.reading)

    def test_the_answer_of_a_slow_hook_is_the_last(self) -> None:
        gate: Deferred[Any] = Deferred()
        client = greeted(RecordingBackend(rcpt=lambda *arguments: gate), None, HELLO + MAIL)
        client.send(RCPT)
        client.protocol.pauseProducing()
        client.send(b"NOOP\r\n" * 10)
        gate.callback(None)
        self.assertEqual(client.received(), RECIPIENT_OK)
        client.protocol.resumeProducing()
        self.assertEqual(codes(client.received()), [b"250"] * 10)

    def test_a_body_that_was_under_way_is_kept(self) -> None:
        backend = RecordingBackend()
        client = greeted(backend, None, ENVELOPE, DATA)
        client.protocol.pauseProducing()
        client.send(b"hello\r\n")
        client.send(b"you\r\n" + DOT)
        self.assertEqual(backend.messages, [])
        client.protocol.resumeProducing()
        self.assertEqual(client.received(), MESSAGE_OK)
        self.assertEqual(backend.messages[0].body, b"hello\r\nyou\r\n")

    def test_it_is_aborted_in_the_end(self) -> None:
        clock = Clock()
        client = self.start(clock)
        clock.advance(119)
        self.assertFalse(client.closed)
        clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_it_is_not_aborted_when_it_reads_again(self) -> None:
        clock = Clock()
        client = self.start(clock)
        clock.advance(119)
        client.protocol.resumeProducing()
        clock.advance(299)
        self.assertFalse(client.closed)
        clock.advance(1)
        self.assertEqual(codes(client.received()), [b"421"])

    def test_half_close_while_it_does_not_read(self) -> None:
        client = self.start()
        client.send(b"NOOP\r\n" * 10)
        client.half_close()
        self.assertFalse(client.closed)
        client.protocol.resumeProducing()
        self.assertEqual(codes(client.received()), [b"250"] * 10)
        self.assertTrue(client.closed)


def turns(clock: Clock) -> None:
    """Let the reactor turn until nothing is due at once."""
    while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
        clock.advance(0)


class Flood(TestCase):
    def test_others_have_their_turn(self) -> None:
        clock = Clock()
        flood, other = (greeted(RecordingBackend(), clock, HELLO, max_commands_without_mail=0) for _ in range(2))
        self.assertEqual(len(codes(flood.send(b"EHLO x\r\n" * 8000))), MAX_REPLIES_DUE)
        self.assertEqual(other.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")
        flood.disconnect()
        self.assertEqual([call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()], [])

    def test_replies_leave_in_bounded_writes(self) -> None:
        clock = Clock()
        client = greeted(RecordingBackend(), clock, HELLO, max_commands_without_mail=0)
        client.transport.writes.clear()
        received = client.send(b"NOOP\r\n" * 100_000)
        self.assertEqual(len(codes(received)), MAX_REPLIES_DUE)
        turns(clock)
        self.assertEqual(len(codes(client.received())), 100_000 - MAX_REPLIES_DUE)
        self.assertEqual(max(len(codes(write)) for write in client.transport.writes), MAX_REPLIES_DUE)

    def test_it_ends_where_the_transport_is_full(self) -> None:
        client = greeted(RecordingBackend(), None, HELLO, max_commands_without_mail=0)
        write = client.transport.write

        def full(data: bytes) -> None:
            write(data)
            client.protocol.pauseProducing()

        client.transport.write = full
        received = client.send(b"NOOP\r\n" * 100_000)
        self.assertEqual(len(codes(received)), MAX_REPLIES_DUE)
        self.assertFalse(client.transport.reading)
        for _ in range(100_000 // MAX_REPLIES_DUE - 1):
            client.protocol.resumeProducing()
            self.assertEqual(len(codes(client.received())), MAX_REPLIES_DUE)
        client.protocol.resumeProducing()
        self.assertEqual(client.received(), b"")
        self.assertTrue(client.transport.reading)
