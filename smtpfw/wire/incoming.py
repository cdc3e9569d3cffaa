"""
A message on its way in: from the octets of DATA or BDAT, through a decoder, to the application, and its answer.

Rule 1: a message is read to its true end, whatever is wrong with it. Answering
early would have the rest of it read as commands: that is how a message
becomes someone else's command.

Rule 2: what is wrong with a message overrides a success that the application
returned already. Its size weighs more than the form of its lines, whichever
was found first: the answer must not depend on how the octets were cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from smtpfw.errors import DataReset, DataTooLarge, SMTPError
from smtpfw.wire.application import PENDING, Outcome
from smtpfw.wire.body import DataDecoder
from smtpfw.wire.config import LMTP
from smtpfw.wire.outcomes import Outcomes
from smtpfw.wire.phases import CLOSED
from smtpfw.wire.replies import OK_MESSAGE, Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection


class Receiver(Protocol):
    """Takes octets that are no commands, until it gives the rest back."""

    def receive(self, data: bytes) -> bytes | None:
        """Take octets; None while there is more to come, else those behind the end, which are commands again."""


class Decoder(Protocol):
    """What DATA's and BDAT's decoders have in common."""

    #: Decoded octets so far.
    size: int
    #: What is wrong with the message's form.
    error: type[SMTPError] | None

    def feed(self, data: bytes) -> bytes:
        """Decode what is certain by now."""

    def finish(self) -> bytes:
        """Decode the rest, where the end is not in the octets themselves."""


class IncomingMessage:
    """
    One message of a transaction.

    :ivar refusal: why it is refused at once: its size, a command that was wrong, or the application; or None.
    :ivar error: why it is refused in the end: its refusal, or else the form of its lines; or None.
    """

    __slots__ = ("_application", "_limit", "_read_limit", "decoder", "error", "refusal")

    def __init__(self, connection: ServerConnection, decoder: Decoder) -> None:
        config = connection.config
        self._application = connection.application
        self._limit = config.max_message_bytes
        self._read_limit = config.max_read_bytes
        self.decoder = decoder
        self.refusal: SMTPError | None = None
        self.error: SMTPError | None = None

    def check(self, decoded: bytes) -> bytes:
        """Judge what the decoder gave; return what may go on to the application."""
        decoder = self.decoder
        if self._limit and decoder.size > self._limit:
            self.refuse(DataTooLarge())
        elif decoder.error is not None and self.error is None:
            self._fail(decoder.error())
        # Neither who is told that it comes to nothing, nor who has refused it, is shown more.
        return decoded if self.error is None and self.refusal is None else b""

    def refuse(self, error: SMTPError) -> None:
        """Refuse the message, while its octets go on coming."""
        if self.refusal is None:
            self.refusal = error
            self._fail(error)

    def _fail(self, error: SMTPError) -> None:
        if self.error is None:
            self._application.message_failed(error)
        self.error = error

    @property
    def size(self) -> int:
        """Octets so far, without stuffing and final dot (RFC 1870 section 5)."""
        return self.decoder.size

    @property
    def beyond_bound(self) -> bool:
        """Whether so much of a refused message has come that reading on is not worth it."""
        return 0 < self._read_limit < self.decoder.size


class DataReceiver:
    """Reads a body from the 354 to its CRLF.CRLF."""

    __slots__ = ("_connection", "_decoder", "message")

    def __init__(self, connection: ServerConnection) -> None:
        profile = connection.config.profile
        self._connection = connection
        self._decoder = DataDecoder(profile.bare_newlines, profile.max_text_line)
        self.message = IncomingMessage(connection, self._decoder)

    def receive(self, data: bytes) -> bytes | None:
        """
        Take octets.

        :return: None while the body goes on; at its end the octets behind it, which are commands.
        """
        decoder, message = self._decoder, self.message
        decoded = message.check(decoder.feed(data))
        if message.beyond_bound:
            # Even if its end has come: had it come in pieces, it would not have been waited for.
            self._connection.close(OVER_BOUND)
            return None
        if decoder.finished:
            self._connection.settle(end_message(self._connection, decoded))
            return decoder.rest
        if decoded:
            self._connection.application.message_data(decoded)
        return None


#: For a message that goes on and on after it was refused.
OVER_BOUND = Reply(421, "Message far beyond the size limit, closing transmission channel", (4, 7, 0))


def begin_message(connection: ServerConnection, message: IncomingMessage) -> None:
    """The transaction has a message from now on."""
    assert connection.transaction is not None
    connection.message = message
    if connection.config.protocol == LMTP:
        connection.outcomes = Outcomes(len(connection.transaction.recipients), connection.write_outcome)


def end_message(connection: ServerConnection, data: bytes) -> Any:
    """The true end of the message, with its last octets: it is answered as the application answers it."""
    message = connection.message
    assert message is not None
    connection.outgoing.mail_came()
    answer = connection.application.judge_message(data) if message.error is None else None
    if answer is PENDING:
        return connection.ask(answer, lambda answer: _answer_message(connection, message, data, answer))
    return _answer_message(connection, message, data, answer)


def _answer_message(connection: ServerConnection, message: IncomingMessage, data: bytes, judgement: Outcome) -> Any:
    """It is known whether the message is refused for what it is; if not, the session's answer counts."""
    if connection.phase is CLOSED:
        # Who was asked has said the last word to the peer itself: the message is nobody's.
        return None
    if isinstance(judgement, SMTPError):
        message.refuse(judgement)
    if message.error is not None:
        data = b""
    elif connection.outcomes is not None:
        connection.outcomes.open()
    answer = connection.application.message_end(data)
    if answer is PENDING:
        return connection.ask(answer, lambda answer: _finish_message(connection, message, answer))
    return _finish_message(connection, message, answer)


def _finish_message(connection: ServerConnection, message: IncomingMessage, outcome: Outcome) -> Any:
    """The session is done with the message: say what became of it."""
    application, transaction, outcomes = connection.application, connection.transaction, connection.outcomes
    assert transaction is not None
    if message.error is not None:
        # The session may have said yes before the end; it learns that this does not count.
        application.reset("refused")
        outcome = message.error
    connection.forget_transaction()
    if outcomes is None:
        reply = Reply.from_error(outcome) if isinstance(outcome, SMTPError) else outcome or OK_MESSAGE
        application.message_answered(transaction, message.size, (reply,))
        connection.write_outcome(reply)
        return None
    replies = outcomes.finish(outcome, override=message.error is not None)
    application.message_answered(transaction, message.size, replies)
    return None


def finish_unheard(connection: ServerConnection, outcome: Outcome) -> None:
    """The session is done with a message whose peer has gone: nobody is told but those who keep a log."""
    assert connection.message is not None
    _finish_message(connection, connection.message, outcome)


def drop_transaction(connection: ServerConnection, reason: str, proceed: Callable[[Outcome], Any]) -> Any:
    """End the transaction without its message, and go on when the session has let go of it."""
    if connection.transaction is None:
        return proceed(None)

    def forget(outcome: Outcome) -> Any:
        connection.application.reset(reason)
        connection.forget_transaction()
        return proceed(None)

    if connection.message is None:
        return forget(None)
    if connection.message.error is None:
        connection.application.message_failed(DataReset(reason))
    return connection.ask(connection.application.message_end(b""), forget)
