"""
CHUNKING (RFC 3030 section 2): BDAT, a message in chunks of a declared size.

Rule 1: the octets of a chunk are read whatever is wrong with the command, the
transaction or the message; who does not know how many there are closes the
connection. Otherwise they would be read as commands.

Rule 2: after the first thing that is wrong, every further chunk gets the same
answer, until the transaction is dropped.

Rule 3: a client sends no chunk before a recipient was accepted. A server that
refuses the transaction and does not read the octets would take them for
commands, and there have been such servers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import (
    BrokenPeer,
    ConnectionFailed,
    DataTooLarge,
    ExtensionMissing,
    Refused,
    SMTPError,
    SyntaxProblem,
)
from smtpfw.wire.application import Outcome
from smtpfw.wire.body import BinaryDecoder, ChunkDecoder, ChunkJunk, format_bdat, parse_bdat
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
from smtpfw.wire.transfer import Transfer

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.sending import Sending
    from smtpfw.wire.server import ServerConnection

__all__ = ["ChunkTransfer", "Chunking"]


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

    def transfer(self, connection: ClientConnection, message: OutgoingMessage) -> Transfer | None:
        binary = message.body.binary or message.options.body == "BINARYMIME"
        if not connection.config.chunking:
            if binary:
                raise ExtensionMissing(self.keyword, "the message is binary, and chunking is switched off")
            return None
        return ChunkTransfer(connection, binary)


#: Chunks that may wait for their replies where the peer offers PIPELINING.
_AHEAD = 4

_CRLF = b"\r\n"


class ChunkTransfer(Transfer):
    """
    A message by BDAT: no dots are stuffed, and what is whole can be taken back by RSET.

    :param binary: send the octets as they are; otherwise no bare CR or LF goes out.
    """

    __slots__ = ("_binary", "_connection", "_decoder", "_ends_line", "_finishing", "_kept", "_limit", "_size")

    def __init__(self, connection: ClientConnection, binary: bool) -> None:
        super().__init__()
        self._connection = connection
        # What we send is held to the rule for what we take.
        self._decoder = BinaryDecoder() if binary else ChunkDecoder()
        self._binary = binary
        self._ends_line = True
        self._kept: list[bytes] = []
        self._size = 0
        self._limit = connection.config.chunk_bytes
        self._finishing = False

    def write(self, sending: Sending, data: bytes) -> None:
        data = self._decoder.feed(data)
        if data:
            self._kept.append(data)
            self._size += len(data)
            self._ends_line = data.endswith(b"\n")
            if self._size >= self._limit:
                self._send(last=False)

    def finish(self, sending: Sending) -> None:
        if not (self._binary or self._ends_line):
            # A text ends with the end of a line, by BDAT as it does by DATA.
            self._kept.append(_CRLF)
            self._size += len(_CRLF)
        if self.full:
            self._finishing = True
        else:
            self._send(last=True)
            sending.all_sent()

    def receive(self, sending: Sending, reply: Reply) -> bool:
        connection = self._connection
        if not self.unanswered or 300 <= reply.code < 400:
            connection.fail(
                BrokenPeer(f"{reply.code} before the end of the message", phase="BODY", peer=connection.peer_name)
            )
            return False
        self.unanswered -= 1
        if reply.code >= 400 and not sending.given_up:
            sending.give_up(Refused(reply, phase="BODY", peer=connection.peer_name))
            if sending.sent:
                # The last chunk is on its way, and what answers it now is anybody's guess.
                connection.fail(ConnectionFailed("a chunk was refused", phase="BODY", peer=connection.peer_name))
                return True
        if sending.given_up:
            return self._taken_back()
        if self.full:
            self.full = False
            if self._finishing:
                self._send(last=True)
                sending.all_sent()
            else:
                connection.driver.more_room(sending)
        return False

    def abandon(self, sending: Sending, error: Exception) -> None:
        sending.give_up(error)
        if self._taken_back():
            self._connection.ended(sending)

    def _send(self, *, last: bool) -> None:
        connection = self._connection
        connection.write_line(format_bdat(self._size, last))
        for octets in self._kept:
            connection.write(octets)
        self._kept = []
        self._size = 0
        if not last:
            self.unanswered += 1
            self.full = self.unanswered >= (_AHEAD if connection.pipelining else 1)

    def _taken_back(self) -> bool:
        """Whether all that was sent of a message given up has its reply, so that RSET can follow."""
        self._connection.needs_reset = True
        return not self.unanswered
