"""
8BITMIME (RFC 6152): text with octets over 127 is transported as it is.

Octets pass unchanged through smtpfw whatever was declared; the parameter is
for the session, and for a next hop.

A client does not rewrite a message. One with octets over 127 goes to servers
that offer this, or not at all (RFC 6152 section 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpfw.errors import ExtensionMissing
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.message import OutgoingMessage

__all__ = ["BODY", "EightBitMIME"]

_WHY = "the message has octets over 127"

#: What kind of body the client declared.
BODY = Parameter.choice("BODY", "7BIT", "8BITMIME", default="7BIT")


class EightBitMIME(Extension):
    keyword = "8BITMIME"
    mail_parameters = (BODY,)
    extra_line_octets = 17  # RFC 6152 section 2

    def needed_by(self, message: OutgoingMessage) -> str | None:
        return _WHY if message.body.eight_bit else None

    def watch(self, data: bytes) -> str | None:
        return None if data.isascii() else _WHY

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        # A message that nobody has seen may turn out to have some.
        if message.body.eight_bit is not False:
            parameters.setdefault("BODY", "8BITMIME")

    def missing(self, why: str) -> ExtensionMissing:
        return ExtensionMissing(self.keyword, why, enhanced_code=(5, 6, 3))
