"""
A producer of Twisted's as something that is read piece by piece.

What is meant is ``twisted.web.iweb.IBodyProducer``, which ``treq`` and
``FileBodyProducer`` made common, and what is like it: ``startProducing(consumer)``
writes to the consumer, and returns a Deferred that fires at the end.

Rule 1: nobody reads, nobody writes. A piece that its reader can't take at once
pauses the producer. Memory holds what one call of the producer's writes.

Rule 2: a producer is resumed only by whoever asks for the next piece, never
out of its own ``write``: no transport of Twisted's does that, and few producers
would bear it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["octets", "pieces_of_producer"]


def octets(piece: object) -> bytes:
    """
    One piece of a body.

    :raises TypeError: if it is no bytes; the text names the type.
    """
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, bytearray | memoryview):
        # Its owner may fill it again before it is sent.
        return bytes(piece)
    raise TypeError(f"a body is made of bytes, not of {type(piece).__name__}")


async def pieces_of_producer(producer: Any) -> AsyncGenerator[bytes, None]:
    """
    What a producer writes, piece by piece; it is started by the first, and stopped when it is left before its end.

    :param producer: it has ``startProducing(consumer)``, ``resumeProducing()`` and ``stopProducing()``; without
        ``pauseProducing()`` it writes one piece for each ``resumeProducing()`` (a pull producer). It may name another
        in its place by ``consumer.registerProducer``; and the end by ``consumer.unregisterProducer`` if
        ``startProducing`` returns None.
    :raises Exception: what the producer has failed with, as it was.
    """
    reader = _Reader(producer)
    reader.start()
    try:
        while (piece := await reader.read()) is not None:
            yield piece
    finally:
        reader.stop()


@implementer(IConsumer)
class _Reader:
    """Reads a producer: :meth:`start`, then :meth:`read` until it gives None, and :meth:`stop` in any case."""

    def __init__(self, producer: Any) -> None:
        self._start = producer.startProducing
        # Who is paused, resumed and stopped; None once it has said that it is through.
        self._producer: Any = producer
        self._streaming = hasattr(producer, "pauseProducing")
        # The producer will write nothing until it is resumed.
        self._idle = not self._streaming
        self._pieces: deque[bytes] = deque()
        self._reading: Deferred[None] | None = None
        self._ends_when_unregistered = False
        self._ended = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Let the producer begin; what it raises is raised."""
        finished = self._start(self)
        if finished is not None:
            ensureDeferred(finished).addCallbacks(self._finished, self._failed)
            return
        self._ends_when_unregistered = True
        if self._producer is None:
            self._finished(None)

    async def read(self) -> bytes | None:
        """The next piece, never an empty one; None at the end."""
        while True:
            if self._error is not None:
                raise self._error
            if self._pieces:
                return self._pieces.popleft()
            if self._ended:
                return None
            if self._idle and self._producer is not None:
                self._idle = False
                self._producer.resumeProducing()
            else:
                self._reading = Deferred()
                await self._reading

    def stop(self) -> None:
        """Nobody will read any more: a producer that is not at its end is stopped."""
        self._pieces.clear()
        if not self._ended:
            self._ended = True
            if self._producer is not None:
                self._producer.stopProducing()

    def _wake(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)

    def _finished(self, result: object) -> None:
        self._ended = True
        self._wake()

    def _failed(self, failure: Failure) -> None:
        self._error = failure.value
        self._finished(None)

    # -- IConsumer --------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See :meth:`IConsumer.write`."""
        if self._ended:
            return
        try:
            piece = octets(data)
        except TypeError as error:
            # Raised in here it would end in a log, and the reader would wait for ever.
            self._error = error
            self._wake()
            return
        if piece:
            self._pieces.append(piece)
        self._idle = self._idle or not self._streaming
        self._wake()
        if self._streaming and not self._idle and self._reading is None and not self._ended:
            self._idle = True
            self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See :meth:`IConsumer.registerProducer`."""
        self._producer = producer
        self._streaming = streaming
        self._idle = not streaming
        self._wake()

    def unregisterProducer(self) -> None:
        """See :meth:`IConsumer.unregisterProducer`."""
        self._producer = None
        if self._ends_when_unregistered:
            self._finished(None)
