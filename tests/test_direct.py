"""Replies straight to the socket: Twisted's own transport on a pair of sockets, its reactor turned by hand."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import TestCase

from smtpfw.direct import can_send_at_once, send_at_once
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.testing.memory import HOST
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, MESSAGE_OK, RCPT, codes, make_factory


class Quiet(Protocol):
    def dataReceived(self, data: bytes) -> None:
        """Nothing is sent here."""


class Pair(TestCase):
    def setUp(self) -> None:
        # An address as TCP's has a port, which a pair of Unix sockets has not.
        self.ours, self.peer = socket.socketpair()
        self.ours.setblocking(False)
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.ours.close)
        self.reactor = MemoryReactor()

    def transport(self, protocol: Protocol) -> Any:
        with mock.patch.object(tcp.Server, "setTcpNoDelay"):
            transport = tcp.Server(self.ours, protocol, ("192.0.2.1", 1), mock.Mock(), 1, self.reactor)
            transport.getHost = transport.getPeer = mock.Mock(return_value=HOST)
            protocol.makeConnection(transport)
        return transport

    def received(self) -> bytes:
        pieces = []
        while True:
            try:
                piece = self.peer.recv(1 << 20)
            except BlockingIOError:
                break
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces)

    def is_writing(self, transport: Any) -> bool:
        return transport in self.reactor.getWriters()


class SendAtOnce(Pair):
    def test_all_of_it(self) -> None:
        transport = self.transport(Quiet())
        self.assertEqual(send_at_once(transport, b"220 hello\r\n"), b"")
        self.assertEqual(self.received(), b"220 hello\r\n")
        self.assertFalse(self.is_writing(transport))

    def test_a_part_of_it(self) -> None:
        transport = self.transport(Quiet())
        sent = b"".join(b"%08d" % number for number in range(200_000))
        rest = send_at_once(transport, sent)
        self.assertTrue(0 < len(rest) < len(sent))
        transport.write(rest)
        # What comes behind waits for its turn.
        self.assertEqual(send_at_once(transport, b"behind"), b"behind")
        transport.write(b"behind")
        received = self.received()
        for _ in range(1000):
            if not self.is_writing(transport):
                break
            transport.doWrite()
            received += self.received()
        self.assertEqual(received, sent + b"behind")
        # Now that nothing waits, it goes straight again.
        self.assertEqual(send_at_once(transport, b"again"), b"")
        self.assertEqual(self.received(), b"again")

    def test_a_socket_that_is_full(self) -> None:
        transport = self.transport(Quiet())
        while True:
            try:
                self.ours.send(b"x" * 65536)
            except BlockingIOError:
                break
        self.assertEqual(send_at_once(transport, b"250 OK\r\n"), b"250 OK\r\n")

    def test_after_a_write_that_waits(self) -> None:
        transport = self.transport(Quiet())
        transport.write(b"first")
        self.assertEqual(send_at_once(transport, b"second"), b"second")
        self.assertEqual(self.received(), b"")

    def test_after_the_end(self) -> None:
        transport = self.transport(Quiet())
        transport.write(b"last")
        transport.loseConnection()
        self.assertEqual(send_at_once(transport, b"more"), b"more")
        transport.dataBuffer = b""
        transport._tempDataBuffer.clear()
        self.assertEqual(send_at_once(transport, b"more"), b"more")
        self.assertEqual(self.received(), b"")

    def test_a_peer_that_has_gone(self) -> None:
        transport = self.transport(Quiet())
        self.peer.close()
        self.assertEqual(send_at_once(transport, b"250 OK\r\n"), b"250 OK\r\n")


class Known(Pair):
    def test_only_twisteds_tcp_in_clear(self) -> None:
        transport = self.transport(Quiet())
        self.assertTrue(can_send_at_once(transport))
        transport.TLS = True
        self.assertFalse(can_send_at_once(transport))

    def test_no_other(self) -> None:
        class Other(tcp.Server):
            """A subclass may do more."""

        self.assertFalse(can_send_at_once(object.__new__(Other)))
        self.assertFalse(can_send_at_once(MemoryClient.of(make_factory(RecordingBackend())).transport))


class Served(Pair):
    """The same dialog as in memory, on the real transport."""

    def test_a_message(self) -> None:
        backend = RecordingBackend()
        protocol = make_factory(backend, Clock()).buildProtocol(None)
        transport = self.transport(protocol)
        self.assertEqual(codes(self.received()), [b"220"])
        for words, expected in [(HELLO, [b"250"]), (MAIL + RCPT + DATA, [b"250", b"250", b"354"])]:
            self.peer.send(words)
            transport.doRead()
            self.assertEqual(codes(self.received()), expected)
            self.assertFalse(self.is_writing(transport))
        self.peer.send(MESSAGE + DOT)
        transport.doRead()
        self.assertEqual(self.received(), MESSAGE_OK)
        self.assertEqual([message.body for message in backend.messages], [MESSAGE])

    def test_replies_that_the_peer_does_not_read(self) -> None:
        clock = Clock()
        protocol = make_factory(RecordingBackend(), clock, max_commands_without_mail=0).buildProtocol(None)
        transport = self.transport(protocol)
        sent = 0
        for _ in range(1000):
            if protocol.wire.stalled:
                break
            protocol.dataReceived(b"HELP\r\n" * 500)
            sent += 500
        self.assertTrue(protocol.wire.stalled)
        received = self.received()
        for _ in range(1000):
            if not (self.is_writing(transport) or protocol.wire.backlogged):
                break
            if self.is_writing(transport):
                transport.doWrite()
            clock.advance(0)
            received += self.received()
        self.assertFalse(protocol.wire.stalled)
        self.assertEqual(codes(received), [b"220"] + [b"214"] * sent)

    def test_the_peer_goes_between_two_replies(self) -> None:
        backend = RecordingBackend()
        protocol = make_factory(backend, Clock()).buildProtocol(None)
        transport = self.transport(protocol)
        self.peer.close()
        protocol.dataReceived(ENVELOPE)
        self.assertTrue(self.is_writing(transport))
        error = transport.doWrite()
        self.assertIsInstance(error, Exception)
        transport.connectionLost(mock.Mock())
        self.assertEqual(backend.events[-2:], [("reset", "disconnected"), ("logout", "disconnected")])
