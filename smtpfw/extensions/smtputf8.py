"""
SMTPUTF8 (RFC 6531): addresses and headers in UTF-8.

The grammar reads UTF-8 in every address; whether the transaction may have one
is asked of ``options.utf8``, which only this parameter sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpfw.errors import ExtensionMissing, SMTPError
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.transaction import Recipient

__all__ = ["SMTPUTF8", "UTF8"]

#: Whether the client asked for internationalized mail.
UTF8 = Parameter.flag("SMTPUTF8")


class SMTPUTF8(Extension):
    keyword = "SMTPUTF8"
    needs = ("8BITMIME",)  # RFC 6531 section 3.1 item 8
    mail_parameters = (UTF8,)
    extra_line_octets = 10  # RFC 6531 section 3.1 item 6

    def needed_by(self, message: OutgoingMessage) -> str | None:
        if not message.sender.ascii:
            return "the sender's address is not ASCII"
        return "the header of the message is not ASCII" if message.body.utf8_header else None

    def refuse_recipient(self, index: int, recipient: Recipient, fact: Any) -> SMTPError | None:
        if fact is not None or recipient.address.ascii:
            return None
        # RFC 6531 section 3.5: 553 for a recipient, 550 otherwise.
        return ExtensionMissing(self.keyword, "the address is not ASCII", code=553, enhanced_code=(5, 6, 7))

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        if (
            message.body.utf8_header
            or not message.sender.ascii
            or not all(recipient.address.ascii for recipient in message.recipients)
        ):
            parameters["SMTPUTF8"] = None

    def missing(self, why: str) -> ExtensionMissing:
        return ExtensionMissing(self.keyword, why, code=550, enhanced_code=(5, 6, 7))
