"""
The message under way: between the connection, which brings it, and the data hook of the session, which takes it.

Rule 1: the hook is called with the first octets. A message that has come whole
by then, and a hook that does not wait, cost no Deferred.

Rule 2: between two chunks of a message the hook may wait for more while another
command is served, VRFY say. So what waits for the message is kept here, and
what waits for a command in the host.

Rule 3: a message that may lack something in its header is shown to the hook
when its header has come, with what it lacked in front; all others as they come.

Rule 4: when the client has gone, the hook is cancelled; but not once the true
end of the message has come and policy has let it pass, for then the message is
the session's, and its commit must not be torn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from smtpfw.body import MessageBody
from smtpfw.errors import DataReset, SMTPError
from smtpfw.interfaces import IBody, ILMTPSession, ISession
from smtpfw.server.status import StatusCollector
from smtpfw.wire.application import PENDING, Answer, Outcome
from smtpfw.wire.config import LMTP
from smtpfw.wire.incoming import finish_unheard
from smtpfw.wire.replies import OK_MESSAGE
from smtpfw.wire.submission import missing_fields

if TYPE_CHECKING:
    from smtpfw.server.hosting import SessionHost
    from smtpfw.server.protocol import SMTPServerProtocol

#: Octets of a header that are looked at. Postfix header_size_limit 102,400; Exim header_maxsize 1 MiB.
MAX_HEADER = 256 * 1024


class Delivery:
    """
    One message, from its first octets to its answer.

    :param host: calls hooks, and knows whether the client is still there.
    :param session: whose message it is, whatever session is asked next.
    :param data: its hook; None where it has none of its own.
    :param judge: what is to be asked of the message before its end is given to the session; None for nothing.

    :ivar ended: whether the true end of the message has come, and it is the session's now.
    """

    __slots__ = (
        "_answer",
        "_awaited",
        "_body",
        "_collected",
        "_completing",
        "_failure",
        "_header",
        "_header_whole",
        "_held",
        "_hook",
        "_host",
        "_judge",
        "_protocol",
        "_reading",
        "_session",
        "ended",
    )

    def __init__(
        self,
        host: SessionHost,
        protocol: SMTPServerProtocol,
        session: ISession,
        data: Callable[[IBody], Any] | None,
        judge: Callable[..., Any] | None,
    ) -> None:
        self._host = host
        self._protocol = protocol
        self._session = session
        lmtp = protocol.wire.config.protocol == LMTP and ILMTPSession.providedBy(session)
        self._hook = self._take_lmtp if lmtp else data
        self._judge = judge
        # What the session reads, and the hook while it waits; what it has answered, and whether the connection waits
        # for that; what ended the message early; and what the checks get to see. Whether the message may lack
        # something, and how much of its header waits for the rest of it.
        self._body: MessageBody | None = None
        self._reading: Deferred[Any] | None = None
        self._answer: Answer = PENDING
        self._awaited = False
        self._failure: Exception | None = None
        self._header: bytes | bytearray = b""
        self._header_whole = False
        self._completing = protocol.factory.completes(protocol.wire.identity)
        self._held = 0
        self._collected = 0
        self.ended = False

    @property
    def reading(self) -> bool:
        """Whether the data hook still waits for something."""
        return self._reading is not None

    # -- the connection's side --------------------------------------------

    def data(self, data: bytes) -> None:
        """More of the message, and not its end."""
        if self._judge is not None or self._completing:
            self._collect_header(data)
        if self._hook is None:
            return
        if self._completing:
            if not self._header_whole:
                self._held = len(self._header)
                return
            data = self._complete(data)
        if self._body is None:
            body = self._begin_body(data)
            self._read(self._hook, body)
            if self._answer is not PENDING:
                body.drop()
        elif self._answer is PENDING:
            self._body.append(data)

    def fail(self, error: Exception) -> None:
        """The message will not be whole."""
        self._failure = error
        self._header_whole = True
        self._count(0)
        if self._body is not None:
            self._body.fail(error)

    def refusal(self) -> SMTPError | None:
        """What the session has refused the message with already."""
        return self._answer if isinstance(self._answer, SMTPError) else None

    def judge(self, data: bytes) -> Answer:
        """The message is whole: what the checks say of it."""
        if self._judge is None:
            return None
        self._collect_header(data)
        message = self._protocol.wire.message
        assert message is not None
        try:
            answer = self._judge(bytes(self._header), message.size)
        except Exception as error:
            return self._host.refusal(error)
        return None if answer is None else self._host.wait(answer)

    def end(self, data: bytes) -> Answer:
        """The last octets of the message; or nothing, if :meth:`fail` said why it is none."""
        self.ended = self._failure is None
        body = self._body
        if self._hook is None:
            self._answer = None
        elif body is not None:
            if self._answer is PENDING:
                body.append(data)
                body.end()
        elif self._failure is not None:
            # It never began to read: there is nothing to answer.
            self._answer = None
        else:
            if self._completing:
                if self._judge is None:
                    self._collect_header(data)
                data = self._complete(data)
            body = self._begin_body(data)
            body.end()
            self._read(self._hook, body)
        self._count(0)
        # Waking the session may have brought its answer.
        answer = self._answer
        if answer is PENDING:
            self._awaited = True
        else:
            self._done()
        return answer

    def gone(self, reason: str) -> None:
        """The client has gone: unless the message is the session's, it will never be."""
        if self.ended:
            return
        self._count(0)
        if self._body is not None:
            self._body.fail(DataReset(reason))
        if self._reading is not None:
            self._reading.cancel()

    # -- the session's side -----------------------------------------------

    def _complete(self, data: bytes) -> bytes:
        """The message so far, with what it lacks in front; its header is there now, or will never be."""
        self._completing = False
        held = bytes(self._header[: self._held])
        if len(self._header) >= MAX_HEADER:
            # What follows may hold what seems to be missing.
            return held + data
        return missing_fields(self._header, self._protocol.wire.config.hostname) + held + data

    def _begin_body(self, data: bytes) -> MessageBody:
        factory, wire = self._protocol.factory, self._protocol.wire
        self._body = MessageBody(wire.hold, self._release, factory.config.max_buffered_bytes, factory.memory)
        self._body.append(data)
        return self._body

    def _release(self) -> None:
        self._protocol.wire.release()
        self._protocol.flush()

    def _read(self, hook: Callable[[IBody], Any], body: MessageBody) -> None:
        answer = self._host.call(OK_MESSAGE, hook, body)
        if isinstance(answer, Deferred):
            self._reading = answer
            answer.addCallback(self._answered).addErrback(self._host.broken)
        else:
            self._answer = answer

    def _take_lmtp(self, body: IBody) -> Any:
        wire = self._protocol.wire
        assert wire.transaction is not None and wire.outcomes is not None
        outcomes = wire.outcomes

        def tell(position: int, outcome: Any) -> None:
            outcomes.set(position, self._host.outcome(outcome, OK_MESSAGE))
            self._protocol.flush()

        session: Any = self._session
        return session.lmtp_data(body, StatusCollector(wire.transaction.recipients, tell))

    def _answered(self, answer: Outcome) -> None:
        """The data hook is done."""
        self._reading = None
        if self._host.gone:
            self._close_body()
            if self.ended:
                # Nobody reads the answer; those who keep a log do.
                finish_unheard(self._protocol.wire, answer)
            self._host.leave()
        elif self._awaited:
            self._done()
            self._host.resume(answer)
        else:
            # The session has answered before the message is at its end; the rest of it is drained.
            self._answer = answer
            if self._body is not None:
                self._body.drop()

    def _done(self) -> None:
        """The message has its answer."""
        self._close_body()
        self._host.delivered()

    def _close_body(self) -> None:
        if self._body is not None:
            self._body.close()

    def _collect_header(self, data: bytes) -> None:
        if self._header_whole:
            return
        before = self._header
        # The end of the header may lie across two pieces.
        start = max(0, len(before) - 3)
        if before:
            assert isinstance(before, bytearray)
            before += data[: MAX_HEADER - len(before)]
            header: bytes | bytearray = before
        else:
            header = data
        if header.startswith(b"\r\n"):
            # There is none: the empty line comes first.
            end = 2
        else:
            found = header.find(b"\r\n\r\n", start)
            end = MAX_HEADER if found < 0 else min(found + 4, MAX_HEADER)
        if len(header) >= end:
            self._header = header[:end]
            self._header_whole = True
        elif not before:
            # Mostly a message comes whole, and nothing has to be collected.
            self._header = bytearray(header)
        if not self._header_whole:
            self._count(len(self._header))

    def _count(self, collected: int) -> None:
        """What is collected of a header is in memory, as what waits of a body is; 0 when the message is over."""
        self._protocol.factory.memory.held += collected - self._collected
        self._collected = collected
