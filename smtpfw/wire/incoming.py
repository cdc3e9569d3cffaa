"""
A message on its way in: from the octets of DATA or BDAT, through a decoder, to the application.

Rule 1: a message is read to its true end, whatever is wrong with it. Answering
early would have the rest of it read as commands: that is how a message
becomes someone else's command.

Rule 2: what is wrong with a message overrides a success that the application
returned already. Its size weighs more than the form of its lines, whichever
was found first: the answer must not depend on how the octets were cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smtpfw.errors import DataTooLarge, SMTPError
from smtpfw.wire.body import DataDecoder
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection


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
        return decoded if self.error is None else b""

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
            self._connection.settle(self._connection.end_message(decoded))
            return decoder.rest
        if decoded:
            self._connection.application.message_data(decoded)
        return None


#: For a message that goes on and on after it was refused.
OVER_BOUND = Reply(421, "Message far beyond the size limit, closing transmission channel", (4, 7, 0))
