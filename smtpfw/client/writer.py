"""
A message that is written to the peer, piece by piece, by whoever has it: the consumer that ``data()`` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from smtpfw.body import MessageBody
from smtpfw.errors import DataReset
from smtpfw.wire.replies import Reply

__all__ = ["MessageWriter"]


@implementer(IConsumer)
class MessageWriter:
    """
    Write the message, then call :meth:`finish`.

    Whoever writes more than the peer takes is paused if it has registered itself, as producers do; what is written
    without that waits in memory.

    :param send: sends a body, and returns a Deferred of its answer.
    """

    def __init__(self, send: Callable[[Any], Deferred[Any]]) -> None:
        self._body = MessageBody(self._pause, self._resume)
        self._producer: Any = None
        self._streaming = False
        self._answer = send(self._body)
        # A refusal before the end is told by finish(), and nobody else may ask.
        self._answer.addErrback(self._refused)
        self._error: Any = None

    def write(self, data: bytes) -> None:
        """Some octets of the message."""
        self._body.append(data)

    def finish(self) -> Deferred[Reply]:
        """That was all of it; return a Deferred of the peer's answer."""
        self._body.end()
        return self._answer.addCallback(self._told)

    def abort(self) -> None:
        """It will not be whole: the peer gets no end of it."""
        self._body.fail(DataReset("given up by its writer"))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See ``IConsumer``."""
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        self._producer, self._streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``; the message is at its end when :meth:`finish` says so."""
        self._producer = None

    def _pause(self) -> None:
        if self._producer is not None and self._streaming:
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._producer is not None:
            self._producer.resumeProducing()

    def _refused(self, failure: Any) -> None:
        self._error = failure
        self._body.drop()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _told(self, reply: Any) -> Any:
        return self._error if self._error is not None else reply
