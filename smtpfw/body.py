"""
The body of a message as a session reads it: one object for DATA and BDAT.

Rule 1: nobody reads, nobody sends. Above a number of octets that have not been
read whoever feeds it is told to hold; reading makes it go on. So a session that
is slow pauses its client.

Rule 2: a message that has come whole already costs no event machinery: its
reads return without waiting.

It is an object, not an async generator: a generator that is abandoned would
be finalized by the garbage collector, whenever that runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from smtpfw.interfaces import IBody
from smtpfw.memory import MemoryBudget

#: Octets that wait to be read before the peer is paused, by default.
HIGH_WATER = 128 * 1024

#: Where more chunks than a few wait, one that is small is made longer by the next.
FEW = 16
SMALL = 1024

#: Pieces of a message that is read whole before they are joined.
MAX_CHUNKS = 4096


@implementer(IBody)
class MessageBody:
    """
    :param hold: called when too much waits to be read.
    :param release: called when there is room again.
    :param high_water: how many octets are too much.
    :param memory: counts what is in memory.
    """

    def __init__(
        self,
        hold: Callable[[], None],
        release: Callable[[], None],
        high_water: int = HIGH_WATER,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.size = 0
        self._hold = hold
        self._release = release
        self._high_water = high_water
        self.memory = memory or MemoryBudget()
        self._kept = 0
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._holding = False
        self._whole = False
        self._ended = False
        self._error: BaseException | None = None
        self._reader: Deferred[None] | None = None

    # -- who feeds it -----------------------------------------------------

    def append(self, data: bytes) -> None:
        """More octets have come."""
        if self._error is None and data:
            if len(self._chunks) > FEW and len(self._chunks[-1]) < SMALL:
                # Each chunk costs some 50 octets beside its own.
                self._chunks[-1] += data
            else:
                self._chunks.append(data)
            self.size += len(data)
            self._unread += len(data)
            self.memory.held += len(data)
            if 0 < self._high_water < self._unread and not self._holding:
                self._holding = True
                self._hold()
            self._wake()

    @property
    def full(self) -> bool:
        """Whether no more should come until what waits has been read."""
        return self._holding

    def end(self) -> None:
        """The message is whole."""
        self._whole = True
        # Nothing is left to be held back, and the next message must not find the door shut.
        self._let_go()
        self._wake()

    def fail(self, error: BaseException) -> None:
        """The message will never be whole: all reads raise ``error`` from now on."""
        if self._error is None and not self._whole:
            self._error = error
            self.drop()
            self._wake()

    def drop(self) -> None:
        """Nobody will read any more: what waits is forgotten, what was read counts no more, and the peer may go on."""
        self._chunks.clear()
        self.memory.held -= self._unread + self._kept
        self._unread = self._kept = 0
        self._let_go()

    def close(self) -> None:
        """The message has its answer: nothing of it counts any more."""
        self.memory.held -= self._unread + self._kept
        # Whoever still reads must not have it counted twice.
        self.memory = MemoryBudget()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    def _let_go(self) -> None:
        if self._holding:
            self._holding = False
            self._release()

    # -- who reads it -----------------------------------------------------

    def __aiter__(self) -> MessageBody:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._whole:
                if self._ended:
                    # An empty body would be stored, and nobody would know why.
                    raise RuntimeError("this body has been read to its end already")
                self._ended = True
                raise StopAsyncIteration
            await self._more()
        chunk = self._chunks.popleft()
        self._unread -= len(chunk)
        self.memory.held -= len(chunk)
        if self._unread <= self._high_water // 2:
            self._let_go()
        return chunk

    def _more(self) -> Deferred[None]:
        if self._reader is not None:
            raise RuntimeError("this body is being read already")
        self._reader = Deferred(self._forget_reader)
        return self._reader

    def _forget_reader(self, reader: Deferred[None]) -> None:
        self._reader = None

    async def read(self) -> bytes:
        """See :meth:`IBody.read`."""
        chunks: list[bytes] = []
        try:
            async for chunk in self:
                chunks.append(chunk)
                self._kept += len(chunk)
                self.memory.held += len(chunk)
                if len(chunks) > MAX_CHUNKS:
                    chunks = [b"".join(chunks)]
        except BaseException:
            # The traceback would keep them until the garbage collector comes.
            chunks.clear()
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def message(self) -> EmailMessage:
        """See :meth:`IBody.message`."""
        message = message_from_bytes(await self.read(), policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def deliver_to(self, consumer: IConsumer) -> Deferred[None]:
        """See :meth:`IBody.deliver_to`."""
        delivery = _Delivery(self, consumer)
        delivery.running = Deferred.fromCoroutine(delivery.run())
        return delivery.running


@implementer(IPushProducer)
class _Delivery:
    """Pushes a body into a consumer, as fast as the consumer takes it."""

    def __init__(self, body: MessageBody, consumer: IConsumer) -> None:
        self._body = body
        self._consumer = consumer
        self._paused: Deferred[None] | None = None
        self._stopped = False
        self._reading = False
        self.running: Deferred[None] | None = None

    async def run(self) -> None:
        consumer: Any = self._consumer
        consumer.registerProducer(self, True)
        try:
            while not self._stopped and (chunk := await self._next()) is not None:
                consumer.write(chunk)
                if self._paused is not None:
                    await self._paused
            if self._stopped:
                raise ConsumerGone("the consumer wants no more of the body")
        finally:
            consumer.unregisterProducer()

    async def _next(self) -> bytes | None:
        self._reading = True
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            return None
        except CancelledError:
            if self._stopped:
                return None
            raise
        finally:
            self._reading = False

    def pauseProducing(self) -> None:
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        self.resumeProducing()
        if self._reading and self.running is not None:
            # The peer may be silent for minutes; the consumer's end is known now.
            self.running.cancel()


class ConsumerGone(Exception):
    """The consumer that a body was delivered to has stopped; the message was not taken whole."""
