"""A message that is written piece by piece: what goes out, who is paused, and who hears of what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from smtpfw.client import LMTPClientProtocol, MessageWriter, SMTPClientProtocol
from smtpfw.errors import BadSequence, ConnectionFailed, DataReset, Refused, UnknownOutcome
from smtpfw.testing import MemoryServer
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.replies import Reply

CONFIG = ClientConfig(hello_name="me.test")
PIECE = b"x" * 998 + b"\r\n"

OPEN: list[MemoryServer] = []


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().disconnect()


class Source:
    """A producer that notes what it is told; one that is pulled writes a piece each time, until it has no more."""

    def __init__(self, writer: Any = None, pieces: int = 0) -> None:
        self.told: list[str] = []
        self.left = pieces
        self._writer = writer

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        if self.left:
            self.left -= 1
            self._writer.write(PIECE)
            if not self.left:
                self._writer.unregisterProducer()

    def stopProducing(self) -> None:
        self.told.append("stop")


def outcome(deferred: Any) -> list[Any]:
    """What has come of it: nothing, or one thing."""
    found: list[Any] = []
    deferred.addBoth(lambda result: found.append(result.value if isinstance(result, Failure) else result))
    return found


def ready(*, hello: bytes = b"250 mx.test\r\n", rcpt: bytes = b"250 OK\r\n") -> tuple[SMTPClientProtocol, MemoryServer]:
    """A client whose transaction has a recipient, if the server says so."""
    client = SMTPClientProtocol(CONFIG, clock=Clock())
    server = MemoryServer.of(client)
    OPEN.append(server)
    for deferred in (client.mail("a@b.test"), client.rcpt("c@d.test")):
        deferred.addErrback(lambda failure: None)
    for said in (b"220 mx.test\r\n", hello, b"250 OK\r\n", rcpt):
        server.send(said)
    return client, server


def writing(**settings: Any) -> tuple[MessageWriter, MemoryServer]:
    client, server = ready(**settings)
    writer = client.data()
    assert isinstance(writer, MessageWriter)
    return writer, server


def test_it_is_a_consumer() -> None:
    writer, _ = writing()
    verifyObject(IConsumer, writer)


def test_pieces_go_out_as_they_are_written() -> None:
    writer, server = writing()
    assert server.received() == b"DATA\r\n"
    writer.write(b"Subject: x\r\n")
    assert server.received() == b"", "the peer has not asked for it yet"
    assert server.send(b"354 go on\r\n") == b"Subject: x\r\n"
    writer.write(b"\r\n.dot\r\n")
    assert server.received() == b"\r\n..dot\r\n"
    writer.write(b"end")
    found = outcome(writer.finish())
    assert server.received() == b"end\r\n.\r\n"
    assert found == []
    server.send(b"250 queued as 17\r\n")
    assert isinstance(found[0], Reply) and found[0].text == "queued as 17"


def test_in_chunks() -> None:
    writer, server = writing(hello=b"250-mx.test\r\n250 CHUNKING\r\n")
    writer.write(b"Subject: x\r\n\r\n.dot")
    found = outcome(writer.finish())
    assert server.received() == b"BDAT 20 LAST\r\nSubject: x\r\n\r\n.dot\r\n"
    server.send(b"250 OK\r\n")
    assert isinstance(found[0], Reply)


def test_nothing_at_all() -> None:
    writer, server = writing()
    found = outcome(writer.finish())
    assert server.received() == b"DATA\r\n"
    assert server.send(b"354 go on\r\n") == b".\r\n"
    server.send(b"250 OK\r\n")
    assert len(found) == 1


# -- what goes wrong --------------------------------------------------------------------------


def test_nobody_was_accepted() -> None:
    """What was never sent is not accepted, however late one asks."""
    writer, server = writing(rcpt=b"550 no\r\n")
    writer.write(b"Subject: x\r\n")
    (error,) = outcome(writer.finish())
    assert isinstance(error, BadSequence)
    assert b"DATA" not in server.received()


def test_the_connection_is_over() -> None:
    client, server = ready()
    server.disconnect()
    writer = client.data()
    (error,) = outcome(writer.finish())
    assert isinstance(error, ConnectionFailed)


def test_refused_before_a_word() -> None:
    writer, server = writing()
    source = Source()
    writer.registerProducer(source, True)
    server.send(b"554 no\r\n")
    assert source.told == ["stop"]
    writer.write(PIECE)
    (error,) = outcome(writer.finish())
    assert isinstance(error, Refused) and error.phase == "DATA"
    assert server.received() == b"", "not a word of it"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_producer_that_comes_too_late_is_stopped(streaming: bool) -> None:
    """As transports do it: it would write for ever, to nobody."""
    writer, server = writing()
    server.send(b"554 no\r\n")
    source = Source(writer, pieces=3)
    writer.registerProducer(source, streaming)
    assert source.told == ["stop"]
    (error,) = outcome(writer.finish())
    assert isinstance(error, Refused)


def test_what_is_written_to_nobody_is_not_kept() -> None:
    writer, server = writing()
    server.send(b"554 no\r\n")
    for _ in range(1000):
        writer.write(PIECE)
    assert writer._body.memory.held == 0
    assert isinstance(outcome(writer.finish())[0], Refused)


@pytest.mark.parametrize("said", [b"552 too large\r\n", b"421 bye\r\n", b"250 OK\r\n", b"hello\r\n"])
def test_an_answer_before_the_end(said: bytes) -> None:
    writer, server = writing()
    source = Source()
    writer.registerProducer(source, True)
    server.send(b"354 go on\r\n")
    writer.write(PIECE)
    assert server.received() == PIECE
    server.send(said)
    assert source.told == ["stop"]
    (error,) = outcome(writer.finish())
    assert isinstance(error, (Refused, ConnectionFailed)) and error.phase == "BODY"
    assert server.received() == b""


def test_lost_behind_the_end() -> None:
    writer, server = writing()
    server.send(b"354 go on\r\n")
    writer.write(PIECE)
    found = outcome(writer.finish())
    server.disconnect()
    assert isinstance(found[0], UnknownOutcome)


def test_abort() -> None:
    """Half a message is not ended, so that it can't be taken for a whole one."""
    writer, server = writing()
    server.send(b"354 go on\r\n")
    writer.write(PIECE)
    assert server.received() == PIECE
    writer.abort()
    assert server.received() == b""
    assert server.closed and server.transport.aborted
    assert isinstance(outcome(writer.finish())[0], DataReset)


def test_abort_before_the_answer_to_data() -> None:
    writer, server = writing()
    writer.abort()
    server.received()
    assert server.send(b"354 go on\r\n") == b""
    assert server.closed
    assert isinstance(outcome(writer.finish())[0], DataReset)


def test_lmtp_has_no_single_answer() -> None:
    client = LMTPClientProtocol(CONFIG, clock=Clock())
    MemoryServer.of(client)
    assert isinstance(outcome(client.data(b"x"))[0], BadSequence)
    writer = client.data()
    writer.write(b"x")
    assert isinstance(outcome(writer.finish())[0], BadSequence)


# -- producers -----------------------------------------------------------------------------------


def test_one_producer_at_a_time() -> None:
    writer, _ = writing()
    writer.registerProducer(Source(), True)
    with pytest.raises(RuntimeError):
        writer.registerProducer(Source(), True)
    writer.unregisterProducer()
    writer.registerProducer(Source(), True)


def test_a_peer_that_does_not_read_pauses_the_producer() -> None:
    writer, server = writing()
    server.send(b"354 go on\r\n")
    source = Source()
    writer.registerProducer(source, True)
    server.pause_writing()
    while not source.told:
        writer.write(PIECE)
        assert writer._body.memory.held + server.transport.unsent < 400_000
    assert source.told == ["pause"]
    # What it says all the same is kept, and it is told once.
    writer.write(PIECE)
    assert source.told == ["pause"]
    server.resume_writing()
    assert source.told == ["pause", "resume"]
    writer.unregisterProducer()
    found = outcome(writer.finish())
    server.received()
    server.send(b"250 OK\r\n")
    assert isinstance(found[0], Reply)
    assert source.told == ["pause", "resume"]


def test_a_producer_that_has_to_be_pulled() -> None:
    """It gives one piece each time that it is asked, and is asked until there is no room."""
    writer, server = writing()
    server.send(b"354 go on\r\n")
    source = Source(writer, pieces=1000)
    writer.registerProducer(source, False)
    said = server.received()
    assert source.left == 0 and source.told == ["resume"] * 1000
    found = outcome(writer.finish())
    assert said + server.received() == PIECE * 1000 + b".\r\n"
    server.send(b"250 OK\r\n")
    assert isinstance(found[0], Reply)


def test_it_is_not_pulled_where_the_peer_does_not_read() -> None:
    writer, server = writing()
    server.send(b"354 go on\r\n")
    server.pause_writing()
    source = Source(writer, pieces=2000)
    writer.registerProducer(source, False)
    assert 1 < len(source.told) < 400
    server.resume_writing()
    assert source.left == 0


@pytest.mark.parametrize("streaming", [False, True])
def test_a_producer_hears_that_the_connection_is_lost(streaming: bool) -> None:
    writer, server = writing()
    server.send(b"354 go on\r\n")
    server.pause_writing()
    source = Source(writer, pieces=2000)
    writer.registerProducer(source, streaming)
    server.disconnect()
    told = source.told.copy()
    assert told.count("stop") == 1 and told[-1] == "stop"
    writer.write(PIECE)
    assert source.told == told
    assert isinstance(outcome(writer.finish())[0], ConnectionFailed)
