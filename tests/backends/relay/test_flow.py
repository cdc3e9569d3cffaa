"""Octets on their way through: who pauses whom, and what is never said when a message breaks off."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpfw.extensions import STANDARD
from smtpfw.interfaces import IBody
from smtpfw.testing import RecordingBackend, ScriptedPeer, abort, octets, silence
from smtpfw.wire.config import LMTP
from tests.backends.relay.helpers import (
    BODY,
    FAILED,
    LARGE,
    OK,
    Sender,
    lmtp_to,
    relay_to,
    script,
    server,
    without_trace,
)

BEFORE = ("MAIL", OK), ("RCPT", OK), ("DATA", b"354 go on\r\n")
#: What the sender may have said before it is paused: what a body holds, what a transport takes, what is on its way.
BOUND = 1024 * 1024
PIECE = LARGE[: 78 * 900]


def fill(sender: Sender) -> int:
    """Send as long as the server reads; how many octets that were."""
    sent = 0
    while sender.client.transport.reading and sent < 4 * BOUND:
        assert sender.send(PIECE) == b""
        sent += len(PIECE)
    return sent


class BackPressureTests(TestCase):
    def test_a_next_hop_that_does_not_read_pauses_the_sender(self) -> None:
        hop = script(*BEFORE, silence)
        sender = relay_to(hop)
        sender.begin()
        link = sender.hops.endpoints[0].links[0]
        link.client_transport.pause_writing()
        sent = fill(sender)
        self.assertTrue(64 * 1024 <= sent < BOUND, sent)
        self.assertFalse(sender.client.transport.reading)
        link.client_transport.resume_writing()
        sender.hops.flow()
        self.assertTrue(sender.client.transport.reading)
        self.assertGreaterEqual(len(hop.in_clear), sent)

    def test_the_same_by_chunks(self) -> None:
        """A next hop that reads chunks, and answers none of them."""
        hop = ScriptedPeer(
            [
                b"220 hop\r\n",
                ("EHLO", b"250-hop\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"),
                *BEFORE[:2],
                silence,
            ]
        )
        sender = relay_to(hop)
        sender.begin()
        sent = fill(sender)
        # Four chunks of 256 KiB may wait for their answers, and a fifth is collected.
        self.assertTrue(sent < 2 * BOUND, sent)
        self.assertFalse(sender.client.transport.reading)
        hop.connections[0].transport.write(b"250 OK\r\n")
        sender.hops.flow()
        self.assertTrue(sender.client.transport.reading)

    def test_a_slow_backend_behind_the_next_hop(self) -> None:
        """Two servers of ours in a row: what the last one does not read, the first sender does not get rid of."""
        room: Deferred[None] = Deferred()
        read: list[bytes] = []

        async def data(body: IBody) -> None:
            await room
            async for chunk in body:
                read.append(chunk)

        sender = relay_to(server(RecordingBackend(data=data)))
        sender.begin()
        sent = fill(sender)
        self.assertTrue(64 * 1024 <= sent < 4 * BOUND, sent)
        self.assertEqual(read, [])
        room.callback(None)
        self.assertEqual(sender.say("."), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(len(without_trace(b"".join(read))), sent)

    def test_a_next_hop_that_waits_with_its_354(self) -> None:
        hop = script(*BEFORE[:2], ("DATA", silence))
        sender = relay_to(hop)
        sender.begin()
        self.assertLess(fill(sender), BOUND)
        self.assertNotIn(b"Received", hop.in_clear)

    def test_it_is_passed_on_while_it_arrives(self) -> None:
        hop = script(*BEFORE, (octets(1), silence))
        sender = relay_to(hop)
        sender.begin()
        sender.send(b"x: y\r\n")
        self.assertTrue(hop.in_clear.endswith(b"\r\nx: y\r\n"))
        sender.send(b"\r\nfirst\r\n")
        self.assertTrue(hop.in_clear.endswith(b"\r\nfirst\r\n"))


class StallTests(TestCase):
    def test_a_next_hop_that_stops_reading(self) -> None:
        sender = relay_to(script(*BEFORE, silence))
        sender.begin()
        sender.hops.endpoints[0].links[0].client_transport.pause_writing()
        fill(sender)
        for _ in range(14):
            # It is not the sender that is late, so its own limits do not end it.
            self.assertEqual(sender.advance(10), b"")
        self.assertEqual(sender.advance(10), b"")
        self.assertTrue(sender.client.transport.reading)
        # The rest is read, and then answered.
        self.assertEqual(sender.send(PIECE + b".\r\n"), FAILED)
        self.assertFalse(sender.client.closed)

    def test_a_sender_that_stalls_is_not_the_next_hops_fault(self) -> None:
        hop = script(*BEFORE, silence)
        sender = relay_to(hop)
        sender.begin()
        sender.send(BODY)
        self.assertEqual(sender.advance(170), b"")
        self.assertIsNone(hop.connections[0].lost)
        self.assertEqual(sender.advance(10)[:9], b"421 4.4.2")
        sender.hops.flow()
        self.assertIsNotNone(hop.connections[0].lost)
        self.assertNotIn(b"\r\n.\r\n", hop.in_clear)


class BrokenOffTests(TestCase):
    """Whatever ends a message early, the next hop never sees an end of it."""

    def hops(self, **listener: Any) -> list[tuple[RecordingBackend, Sender]]:
        found = []
        for protocol, to in (("smtp", relay_to), (LMTP, lmtp_to)):
            for chunking in (True, False):
                there = RecordingBackend()
                factory = server(there, protocol=protocol)
                if not chunking:
                    plain = [one for one in STANDARD if one.keyword not in ("CHUNKING", "BINARYMIME")]
                    factory = server(there, protocol=protocol, extensions=plain)
                found.append((there, to(factory, **listener)))
        return found

    def check(self, there: RecordingBackend, sender: Sender) -> None:
        self.assertEqual(there.messages, [])
        self.assertIn(("data", ""), there.events)
        self.assertEqual(there.events[-2:], [("reset", "disconnected"), ("logout", "disconnected")])
        said = b"".join(link.said_by_client for link in sender.hops.endpoints[0].links)
        self.assertNotIn(b"\r\n.\r\n", said)
        self.assertNotIn(b"LAST", said)

    def test_the_sender_vanishes(self) -> None:
        for there, sender in self.hops():
            sender.begin()
            # More than one chunk: else nothing of it would have been said yet.
            sender.send(PIECE * 8)
            sender.client.disconnect()
            sender.hops.flow()
            self.check(there, sender)
            self.assertEqual(sender.factory.connections, set())

    def test_the_sender_is_too_slow(self) -> None:
        for there, sender in self.hops():
            sender.begin()
            sender.send(PIECE * 8)
            self.assertEqual(sender.advance(181)[:9], b"421 4.4.2")
            self.check(there, sender)

    def test_it_becomes_too_large(self) -> None:
        for there, sender in self.hops(max_message_bytes=len(PIECE) * 8):
            sender.begin()
            for _ in range(10):
                sender.send(PIECE)
            self.assertEqual(sender.say(".")[:9], b"552 5.3.4")
            self.check(there, sender)
            # The sender goes on, and what it says next arrives.
            self.assertEqual(sender.mail()[:4], b"250 ")
            self.assertEqual(without_trace(there.messages[0].body), BODY)

    def test_the_server_stops(self) -> None:
        for there, sender in self.hops():
            sender.begin()
            sender.send(PIECE * 8)
            stopped: list[Any] = []
            sender.factory.stop(1.0).addCallback(stopped.append)
            sender.advance(1)
            sender.advance(10)
            self.assertEqual(stopped, [None])
            self.check(there, sender)

    def test_the_next_hop_breaks_off_and_the_sender_is_slow(self) -> None:
        hop = script(*BEFORE, (octets(1), abort))
        sender = relay_to(hop)
        sender.begin()
        sender.send(BODY)
        # It is known now; the sender hears of it at its end, however long that takes.
        self.assertEqual(sender.advance(100), b"")
        self.assertEqual(sender.send(BODY + b".\r\n"), FAILED)
