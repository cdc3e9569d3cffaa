"""
One end of a stream in memory: what a protocol has for a transport while it is joined with another.

Rule 1: as a reactor does it. ``connectionLost`` never comes within a call of
the protocol's own; a close waits for what was written, an abort does not; a
producer is paused when too much waits, and resumed when nothing does; it is
stopped when the connection is lost.

Rule 2: this end carries nothing by itself. :class:`~smtpfw.testing.Joined`
takes what was written, and says when time goes on.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.testing.memory import MemoryTransport

__all__ = ["ROOM", "StreamTransport"]

#: Octets that may wait before a producer is paused; as in twisted.internet.abstract.FileDescriptor.
ROOM = 65536


@implementer(ITCPTransport)
class StreamTransport(MemoryTransport):
    """
    :ivar writes: each write, in order, as it goes over the wire: with TLS on, that is ciphertext.
    :ivar unsent: octets that wait for the other end.
    :ivar half_closed: whether its protocol has said that it will write no more.
    :ivar closed: whether its protocol was told that the connection is lost.
    :ivar end_told: whether the other end knows that nothing more comes.
    """

    def __init__(self, protocol: Protocol, peer: Any, host: Any) -> None:
        super().__init__(protocol, peer, host)
        self.unsent = 0
        self.half_closed = False
        self.end_told = False
        self._outgoing: deque[bytes] = deque()
        self._held = False
        self._producer_paused = False
        self._asks_producer = False
        self._ending: Exception | None = None
        self._tells_half_close = False

    # -- what the protocol calls -------------------------------------------

    def write(self, data: bytes) -> None:
        if isinstance(data, str):
            raise TypeError("a transport takes octets, not text")
        if self.closed or self.aborted or self.half_closed or not data:
            return
        data = bytes(data)
        self.writes.append(data)
        self._outgoing.append(data)
        self.unsent += len(data)
        if self.unsent > ROOM:
            self._pause_producer()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self._ending is None:
            self.disconnecting = True
            self._ending = ConnectionDone()

    def abortConnection(self) -> None:
        if not self.closed:
            self.aborted = True
            self.disconnecting = True
            self._discard()
            self._ending = ConnectionAborted()

    def loseWriteConnection(self) -> None:
        if not self.half_closed:
            self.half_closed = self._tells_half_close = True

    def pauseProducing(self) -> None:
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        self.producerState = "producing"

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.closed:
            producer.stopProducing()
            return
        super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]
        self._producer_paused = False
        self._asks_producer = not streaming
        if self._held:
            self._pause_producer()

    def unregisterProducer(self) -> None:
        self.producer = None
        self.streaming = None

    def getTcpNoDelay(self) -> bool:  # noqa: N802
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """There is no network that could delay."""

    def getTcpKeepAlive(self) -> bool:  # noqa: N802
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: N802
        """There is no network that could forget."""

    # -- what tests call ----------------------------------------------------

    def pause_writing(self) -> None:
        """Play a peer that does not read: pause the producer, keep what is written, let a close wait."""
        self._held = True
        self._pause_producer()

    def resume_writing(self) -> None:
        """Let the peer read again, and the producer go on."""
        self._held = False
        self._resume_producer()

    # -- what joins the two ends calls ---------------------------------------

    @property
    def reading(self) -> bool:
        """Whether its protocol takes octets at the moment."""
        return not self.closed and self._ending is None and self.producerState == "producing"

    @property
    def holds(self) -> bool:
        """Whether there is something that the other end could be given."""
        return bool(self._outgoing) and not self._held

    @property
    def finished(self) -> bool:
        """Whether nothing more will come from it, and all that came was taken."""
        return (self.closed or self.half_closed) and not self._outgoing

    def take(self, octets: int | None) -> bytes:
        """Hand out the oldest write, or so many octets of it."""
        piece = self._outgoing.popleft()
        if octets is not None and len(piece) > octets:
            self._outgoing.appendleft(piece[octets:])
            piece = piece[:octets]
        self.unsent -= len(piece)
        if not self._outgoing:
            self._asks_producer = self.producer is not None and not self.streaming
            self._resume_producer()
        return piece

    def ask_producer(self) -> bool:
        """Ask a pull producer for more, as often as all that it gave was taken; whether there was one to ask."""
        if self.producer is None or not self._asks_producer or self._held or self._outgoing:
            return False
        self._asks_producer = False
        self.producer.resumeProducing()
        return True

    def settle(self) -> bool:
        """Tell the protocol what is due of a close; whether something was."""
        told = False
        if self._tells_half_close and not self._outgoing:
            self._tells_half_close = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()
                told = True
        if self._ending is None or self.closed or (not self.aborted and self._must_wait):
            return told
        self.lose(self._ending)
        return True

    @property
    def _must_wait(self) -> bool:
        waits_for_producer = self.producer is not None and (not self.streaming or self._producer_paused)
        return waits_for_producer or ((self._held or self.unsent > ROOM) and bool(self._outgoing))

    def receive_end(self) -> None:
        """Nothing more will come from the other end."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.lose(ConnectionDone())

    def lose(self, reason: Exception) -> None:
        """The connection is over."""
        self.closed = True
        self.connected = False
        producer, self.producer = self.producer, None
        self._asks_producer = False
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))

    def discard(self) -> bool:
        """Forget what waits, since nobody will take it; whether there was something."""
        had = bool(self._outgoing)
        self._discard()
        if had:
            self._resume_producer()
        return had

    def _discard(self) -> None:
        self._outgoing.clear()
        self.unsent = 0

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streaming and not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def _resume_producer(self) -> None:
        if self._producer_paused and not self._held:
            self._producer_paused = False
            if self.producer is not None:
                self.producer.resumeProducing()
