"""A message from its source to its peer: at the pace of the slower of the two, and at constant memory."""

from __future__ import annotations

import io
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory, connect
from smtpfw.client import ClientConfig, SMTPClientProtocol
from smtpfw.errors import ConnectionFailed, ExtensionMissing, TimedOut, UnknownOutcome
from smtpfw.testing import MemoryServer, RecordingBackend
from smtpfw.wire.results import SendResult

CONFIG = ClientConfig(hello_name="me.test", chunk_bytes=32 * 1024)
PIECE = (b"x" * 62 + b"\r\n") * 128
PIECES = 400

#: What the server offers, and how it goes on behind RCPT.
WAYS = {"data": (b"250 mx.test\r\n", True), "chunks": (b"250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n", False)}


class Sent:
    """A message that is about to go out, and how much of its source has been read."""

    def __init__(self, body: Any, way: str = "data") -> None:
        self.clock = Clock()
        self.client = SMTPClientProtocol(CONFIG, clock=self.clock)
        self.server = MemoryServer.of(self.client)
        self.outcomes: list[Any] = []
        deferred = self.client.send_mail("a@b.test", "c@d.test", body)
        deferred.addBoth(lambda result: self.outcomes.append(getattr(result, "value", result)))
        hello, by_data = WAYS[way]
        self.server.send(b"220 mx.test\r\n")
        self.server.send(hello)
        self.server.send(b"250 OK\r\n")
        self.server.pause_writing()
        self.server.send(b"250 OK\r\n")
        if by_data:
            self.server.resume_writing()
            self.server.pause_writing()
            self.server.send(b"354 go on\r\n")


class Counted:
    """A source that counts how many of its pieces were taken, and whether it was closed."""

    def __init__(self, pieces: int = PIECES) -> None:
        self.taken = 0
        self.closed = False
        self.pieces = pieces

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.pieces):
                self.taken += 1
                yield PIECE
        finally:
            self.closed = True


@pytest.mark.parametrize("way", WAYS)
def test_a_peer_that_does_not_read_holds_the_source_up(way: str) -> None:
    source = Counted()
    sent = Sent(source.stream(), way)
    held = source.taken
    # What is kept: one piece, what a transport takes, and the chunk that is being filled.
    assert 1 <= held * len(PIECE) <= 65536 + 3 * 32 * 1024
    for _ in range(5):
        sent.clock.advance(30)
        assert source.taken == held
    sent.server.resume_writing()
    if way == "data":
        assert source.taken == PIECES and source.closed


def test_all_of_it_arrives() -> None:
    source = Counted()
    sent = Sent(source.stream())
    said = sent.server.resume_writing()
    assert said == PIECE * PIECES + b".\r\n"
    sent.server.send(b"250 OK\r\n")
    assert isinstance(sent.outcomes[0], SendResult)
    assert sent.server.transport.producer is None


@pytest.mark.parametrize("body", [PIECE * PIECES, io.BytesIO(PIECE * PIECES)], ids=["memory", "file"])
def test_what_is_at_hand_goes_out_no_faster_than_it_is_taken(body: Any) -> None:
    sent = Sent(body)
    # Twisted pauses a producer above 64 KiB; a piece is as large.
    assert sent.server.transport.unsent <= 3 * 65536
    assert sent.server.resume_writing() == PIECE * PIECES + b".\r\n"


def test_chunks_wait_for_replies() -> None:
    """Four chunks may be on their way; each reply makes room for one."""
    source = Counted()
    sent = Sent(source.stream(), "chunks")
    said = sent.server.resume_writing()
    assert said.count(b"BDAT") == 4
    sent.clock.advance(100)
    assert sent.server.received() == b""
    assert sent.server.send(b"250 OK\r\n").count(b"BDAT") == 1
    assert sent.server.send(b"250 OK\r\n250 OK\r\n").count(b"BDAT") == 2
    while not said.endswith(b"LAST\r\n") and b" LAST\r\n" not in said:
        said = sent.server.send(b"250 OK\r\n")
    assert source.closed
    for _ in range(4):
        sent.server.send(b"250 OK\r\n")
    assert isinstance(sent.outcomes[0], SendResult)


# -- whose fault it is ------------------------------------------------------------------------------


def test_a_peer_that_takes_nothing_is_late() -> None:
    source = Counted()
    sent = Sent(source.stream())
    sent.clock.advance(CONFIG.block_timeout - 1)
    assert sent.outcomes == []
    sent.clock.advance(1)
    sent.server.flow()
    assert type(sent.outcomes[0]) is TimedOut and sent.outcomes[0].phase == "BODY"
    assert source.closed
    assert sent.clock.getDelayedCalls() == []


def test_a_slow_source_is_not_the_peers_fault() -> None:
    waiting: list[Deferred[None]] = []

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(3):
            waiting.append(Deferred())
            await waiting[-1]
            yield PIECE

    sent = Sent(slow())
    sent.server.resume_writing()
    for _ in range(3):
        sent.clock.advance(1000 * CONFIG.block_timeout)
        assert sent.outcomes == []
        waiting.pop().callback(None)
        assert sent.server.received().startswith(PIECE)
    # From now on it is the peer's turn.
    sent.clock.advance(CONFIG.end_timeout)
    assert sent.outcomes[0].phase == "END"


# -- what breaks off -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_in_the_middle(way: str) -> None:
    source = Counted()
    client_sent = Sent(source.stream(), way)
    client_sent.client.close()
    client_sent.server.flow()
    assert source.closed
    assert isinstance(client_sent.outcomes[0], ConnectionFailed)
    assert client_sent.server.transport.producer is None
    assert client_sent.clock.getDelayedCalls() == []


@pytest.mark.parametrize("later", [False, True])
def test_what_the_content_turns_out_to_need(later: bool) -> None:
    """A stream that has octets over 127 can't go to who does not offer 8BITMIME: what is said of it is never ended."""
    more: Deferred[None] = Deferred()

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield PIECE
        if later:
            await more
        yield b"\xff\r\n"

    sent = Sent(stream())
    said = sent.server.resume_writing()
    if later:
        assert sent.outcomes == []
        more.callback(None)
        said += sent.server.received()
    assert isinstance(sent.outcomes[0], ExtensionMissing) and sent.outcomes[0].keyword == "8BITMIME"
    assert (PIECE * 20).startswith(said)
    assert sent.server.closed


def test_a_source_that_fails_while_the_peer_does_not_read() -> None:
    more: Deferred[None] = Deferred()

    async def broken() -> AsyncIterator[bytes]:
        yield PIECE
        await more

    sent = Sent(broken())
    more.errback(ZeroDivisionError())
    sent.server.flow()
    assert sent.outcomes == [], "nobody has asked the source for more yet"
    assert b"\r\n.\r\n" not in sent.server.resume_writing()
    assert type(sent.outcomes[0]) is ZeroDivisionError
    assert sent.server.closed


# -- behind the last piece --------------------------------------------------------------------------


def test_a_message_that_was_sent_is_not_kept() -> None:
    """A connection that is idle holds nothing of it, however long it stays."""
    sent = Sent(PIECE * PIECES)
    body = weakref.ref(sent.client._driver._pump)
    sent.server.resume_writing()
    sent.server.send(b"250 queued\r\n")
    assert isinstance(sent.outcomes[0], SendResult)
    assert sent.client.wire.idle
    assert body() is None


def test_a_peer_that_is_late_is_late_behind_a_stream_too() -> None:
    sent = Sent(Counted(3).stream(), "chunks")
    sent.server.resume_writing()
    sent.server.send(b"250 queued\r\n")
    assert isinstance(sent.outcomes[0], SendResult), sent.outcomes
    # A message in memory, longer than the chunks that may wait for their replies.
    found: list[Any] = []
    sent.client.send_mail("a@b.test", "c@d.test", PIECE * 100).addErrback(lambda failure: found.append(failure.value))
    sent.server.send(b"250 OK\r\n")
    sent.server.send(b"250 OK\r\n")
    assert sent.client.wire.phase in ("BODY", "END")
    sent.clock.pump([30.0] * 60)
    assert isinstance(found[0], (TimedOut, UnknownOutcome))


class SocketTests(TestCase):
    """What only a real socket does: it takes whatever it is given, as long as its peer reads."""

    async def test_others_have_their_turn_while_a_message_is_sent(self) -> None:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        def pieces() -> Iterator[bytes]:
            nonlocal turns
            for _ in range(PIECES):
                yield PIECE
            counted.append(turns)

        counted: list[int] = []
        backend = RecordingBackend()
        factory = SMTPServerFactory(backend, ServerConfig(hostname="mx.test"))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        calls = LoopingCall(turn)
        calls.start(0)
        self.addCleanup(calls.stop)
        where = f"127.0.0.1:{port.getHost().port}"
        client = await connect(where, config=ClientConfig(hello_name="me.test", chunking=False))
        before = turns
        await client.send_mail("a@b.test", ["c@d.test"], pieces())
        await client.quit()
        await client.disconnected
        # Some 3 MiB went out, in no more than a few pieces for each turn of the reactor.
        self.assertGreater(counted[0] - before, PIECES // 40)
