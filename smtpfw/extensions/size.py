"""
SIZE (RFC 1870): the server names its limit, the client declares the size of its message beforehand.

The limit itself is ``max_message_bytes`` of the listener, and holds whether or
not this extension is offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpfw.errors import DataTooLarge, TooLargeForPeer
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["SIZE", "Size"]

#: RFC 1870 section 3: size-value is 1 to 20 digits.
MAX_DIGITS = 20


def _parse(text: str | None) -> int:
    if not text or not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise ValueError(f"must be a number of 1 to {MAX_DIGITS} digits")
    return int(text)


#: The declared size of the message in octets.
SIZE = Parameter("SIZE", parse=_parse, format=str, default=0)


class Size(Extension):
    keyword = "SIZE"
    mail_parameters = (SIZE,)
    extra_line_octets = 26  # RFC 1870 section 3

    def advertise(self, connection: ServerConnection) -> str:
        # RFC 1870 section 3: the keyword alone says that there is no fixed limit.
        return str(connection.config.max_message_bytes or "")

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        limit = connection.config.max_message_bytes
        if limit and options[SIZE] > limit:
            raise DataTooLarge(f"Message size exceeds the limit of {limit} octets")

    def understand(self, argument: str) -> int:
        """The server's limit in octets; 0 if it names none."""
        try:
            return _parse(argument)
        except ValueError:
            return 0

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        size = message.body.size
        if size is None:
            return
        if 0 < fact < size:
            raise TooLargeForPeer(f"The next server takes {fact} octets, and the message has {size}")
        parameters["SIZE"] = str(size)
