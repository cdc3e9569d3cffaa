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
        # Whether a producer that has to be pulled owes a piece that it was asked for; and whether it is being asked.
        self._asked = self._asking = False
        # Before anything is sent: it may be refused at once.
        self._error: Any = None
        self._answer = send(self._body)
        # A refusal before the end is told by finish(), and nobody else may ask.
        self._answer.addErrback(self._refused)

    def write(self, data: bytes) -> None:
        """Some octets of the message."""
        if self._error is None:
            self._body.append(data)
            self._asked = False
            self._pull()

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
        if self._error is not None:
            # As transports that are closed do it: nobody wants the message any more.
            producer.stopProducing()
            return
        self._producer, self._streaming, self._asked = producer, streaming, False
        self._pull()

    def unregisterProducer(self) -> None:
        """See ``IConsumer``; the message is at its end when :meth:`finish` says so."""
        self._producer = None

    def _pause(self) -> None:
        if self._producer is not None and self._streaming:
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._producer is not None and self._streaming:
            self._producer.resumeProducing()
        self._pull()

    def _pull(self) -> None:
        """Ask a producer that gives one piece each time, as long as there is room."""
        if self._asking:
            return
        self._asking = True
        try:
            while not (self._producer is None or self._streaming or self._asked or self._body.full):
                self._asked = True
                self._producer.resumeProducing()
        finally:
            self._asking = False

    def _refused(self, failure: Any) -> None:
        self._error = failure
        producer, self._producer = self._producer, None
        self._body.drop()
        if producer is not None:
            producer.stopProducing()

    def _told(self, reply: Any) -> Any:
        return self._error if self._error is not None else reply
