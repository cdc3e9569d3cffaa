"""
A message from where it is to where it goes, as fast as the peer takes it and no faster.

Rule: what waits is one piece, and what the transport has not sent yet. The
source is asked for the next piece when there is room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from smtpfw.client.bodies import OutgoingBody

if TYPE_CHECKING:
    from smtpfw.wire.sending import Sending

__all__ = ["Pump"]

#: Octets of a message in memory that are written at a time.
PIECE = 64 * 1024


@implementer(IPushProducer)
class Pump:
    """
    Sends one body.

    :param sending: takes it.
    :param body: has it.
    :param transport: paces it.
    :param flush: called when there is something to send.
    :param sent: called when all of it has been written.

    :ivar waits_for_peer: whether it is the peer that does not take more; else it is the source that gives nothing.
    """

    def __init__(
        self,
        sending: Sending,
        body: OutgoingBody,
        transport: Any,
        flush: Callable[[], None],
        sent: Callable[[], None],
    ) -> None:
        self._sending = sending
        self._body = body
        self._transport = transport
        self._flush = flush
        self._sent = sent
        self._paused = False
        self._stopped = False
        self._room: Deferred[None] | None = None
        self._running: Deferred[None] | None = None

    @property
    def waits_for_peer(self) -> bool:
        return self._room is not None

    def start(self) -> None:
        """Begin; the end is told to ``sending``."""
        self._transport.registerProducer(self, True)
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._failed)

    def stop(self) -> None:
        """Nobody wants the rest."""
        if not self._stopped:
            self._stopped = True
            self._transport.unregisterProducer()
            if self._running is not None:
                self._running.cancel()

    def go_on(self) -> None:
        """There may be room again."""
        if not (self._paused or self._sending.full):
            room, self._room = self._room, None
            if room is not None:
                room.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.go_on()

    def stopProducing(self) -> None:
        """The connection is gone, and whoever waits hears of it by that."""
        self.stop()

    async def _run(self) -> None:
        body = self._body
        if body.data is not None:
            for piece in _pieces(body.data):
                await self._write(piece)
        else:
            async with aclosing(body.chunks()) as chunks:
                async for chunk in chunks:
                    await self._write(chunk)
        if not self._stopped:
            self._stopped = True
            self._transport.unregisterProducer()
            self._sent()
            self._sending.finish_body()
            self._flush()

    async def _write(self, data: bytes) -> None:
        if self._stopped:
            raise CancelledError
        self._sending.write(data)
        self._flush()
        if (self._paused or self._sending.full) and not self._stopped:
            self._room = Deferred()
            await self._room

    def _failed(self, failure: Any) -> None:
        if not self._stopped:
            self._sending.abandon(failure.value)
            self._flush()


def _pieces(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(data), PIECE):
        yield bytes(view[start : start + PIECE])
