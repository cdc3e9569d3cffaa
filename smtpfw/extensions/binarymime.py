"""
BINARYMIME (RFC 3030 section 3): a body of any octets, without lines, sent by BDAT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpfw.errors import BadSequence, ExtensionMissing
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["BODY", "BinaryMIME"]

#: One more word for the BODY of 8BITMIME.
BODY = Parameter.choice("BODY", "BINARYMIME", default="7BIT")


class BinaryMIME(Extension):
    keyword = "BINARYMIME"
    needs = ("CHUNKING", "8BITMIME")
    mail_parameters = (BODY,)

    def check_data(self, connection: ServerConnection) -> None:
        transaction = connection.transaction
        if transaction is not None and transaction.options.body == "BINARYMIME":
            # RFC 3030 section 3: octets without lines can't go through DATA.
            raise BadSequence("A BINARYMIME message must be sent by BDAT")

    def needed_by(self, message: OutgoingMessage) -> str | None:
        return "the message is binary" if message.body.binary else None

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        if message.body.binary or parameters.get("BODY") == "BINARYMIME":
            if not connection.peer.uses("CHUNKING"):
                # It can't mean what it offers (RFC 3030 section 3): by DATA the octets would not stay as they are.
                raise ExtensionMissing("CHUNKING", "the message is binary", enhanced_code=(5, 6, 3))
            parameters["BODY"] = "BINARYMIME"

    def missing(self, why: str) -> ExtensionMissing:
        return ExtensionMissing(self.keyword, why, enhanced_code=(5, 6, 3))
