"""
CHUNKING (RFC 3030 section 2): BDAT, a message in chunks of a declared size.

Rule 1: the octets of a chunk are read whatever is wrong with the command, the
transaction or the message; who does not know how many there are closes the
connection. Otherwise they would be read as commands.

Rule 2: after the first thing that is wrong, every further chunk gets the same
answer, until the transaction is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import DataTooLarge, SMTPError, SyntaxProblem
from smtpfw.wire.application import Outcome
from smtpfw.wire.body import BinaryDecoder, ChunkDecoder, ChunkJunk, parse_bdat
from smtpfw.wire.dialect import Extension
from smtpfw.wire.incoming import OVER_BOUND, IncomingMessage, begin_message, end_message
from smtpfw.wire.phases import (
    CHUNKING,
    EVERY_RECIPIENT_REFUSED,
    EXTENDED_ONLY,
    GREETED,
    MAIL,
    RCPT,
    READY,
    TLS_FIRST,
    Verb,
)
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection


class _Chunk:
    """Reads the octets of one chunk into the message, and answers."""

    __slots__ = ("_connection", "_last", "_left", "_message")

    def __init__(self, connection: ServerConnection, message: IncomingMessage, size: int, last: bool) -> None:
        self._connection = connection
        self._message = message
        self._left = size
        self._last = last

    def receive(self, data: bytes) -> bytes | None:
        octets = data[: self._left]
        self._left -= len(octets)
        message = self._message
        decoded = message.check(message.decoder.feed(octets))
        if message.beyond_bound:
            self._connection.close(OVER_BOUND)
            return None
        if not self._left:
            self._connection.settle(self.end(decoded))
            return data[len(octets) :]
        if decoded:
            self._connection.application.message_data(decoded)
        return None

    def end(self, decoded: bytes = b"") -> object:
        """The chunk is whole: what answers it."""
        connection, message = self._connection, self._message
        if self._last:
            return end_message(connection, decoded + message.check(message.decoder.finish()))
        if decoded:
            connection.application.message_data(decoded)
        if message.error is None and message.refusal is None:
            message.refusal = connection.application.message_refusal()
        # What is wrong with its lines is told at LAST, as it is at the end of DATA.
        return message.refusal or Reply(250, f"{message.size} octets")


class _Swallow:
    """Reads the octets of a chunk that belongs to no message, and answers what it deserves."""

    __slots__ = ("_connection", "_left", "_reply")

    def __init__(self, connection: ServerConnection, size: int, reply: Reply) -> None:
        self._connection = connection
        self._left = size
        self._reply = reply

    def receive(self, data: bytes) -> bytes | None:
        octets = min(self._left, len(data))
        self._left -= octets
        if self._left:
            return None
        self._connection.settle(self._reply)
        return data[octets:]


def _out_of_place(connection: ServerConnection) -> Reply | None:
    """Why there can be no chunk now, or None."""
    if connection.config.require_tls and not connection.tls:
        return TLS_FIRST
    if connection.phase is not GREETED and not connection.extended:
        return EXTENDED_ONLY
    if connection.phase in (RCPT, CHUNKING):
        return None
    if connection.phase is MAIL and connection.recipient_refused:
        return EVERY_RECIPIENT_REFUSED
    return connection.dialect.out_of_phase[connection.phase]


def _begin(connection: ServerConnection) -> IncomingMessage:
    """The message that the first chunk begins."""
    profile = connection.config.profile
    assert connection.transaction is not None
    decoder = (
        BinaryDecoder()
        if connection.transaction.options.body == "BINARYMIME"
        else ChunkDecoder(profile.bare_newlines, profile.max_text_line)
    )
    message = IncomingMessage(connection, decoder)
    begin_message(connection, message)
    # No more recipients from now on (RFC 3030 section 2).
    connection.enter(CHUNKING)
    return message


def _bdat(connection: ServerConnection, argument: bytes) -> object:
    junk: SMTPError | None = None
    try:
        size, last = parse_bdat(argument)
    except ChunkJunk as error:
        size, last, junk = error.size, False, SyntaxProblem("BDAT takes a size, and LAST")
    except ValueError:
        # Nobody knows where the next command begins.
        connection.close(Reply.from_error(SyntaxProblem("BDAT needs the size of the chunk; closing")))
        return None
    if 0 < connection.config.max_read_bytes < size:
        connection.close(Reply.from_error(DataTooLarge()))
        return None
    refusal = _out_of_place(connection)
    if refusal is not None:
        if not size:
            return refusal
        connection.receiver = _Swallow(connection, size, refusal)
        return None

    def proceed(answer: Outcome) -> object:
        message = connection.message or _begin(connection)
        refusal = answer if isinstance(answer, SMTPError) else junk
        if refusal is not None:
            message.refuse(refusal)
        chunk = _Chunk(connection, message, size, last)
        if not size:
            return chunk.end()
        connection.receiver = chunk
        return None

    if connection.message is not None:
        return proceed(None)
    # Its octets wait in the buffer until it is known whether anybody wants them.
    return connection.ask(connection.application.start_data(), proceed)


class Chunking(Extension):
    keyword = "CHUNKING"
    verbs = (
        # Allowed wherever a client can speak: even a chunk out of place has octets that must be read.
        Verb(
            "BDAT",
            frozenset({GREETED, READY, MAIL, RCPT, CHUNKING}),
            before_tls=True,
            after_helo=True,
            carries_mail=True,
            serve=_bdat,
        ),
    )
