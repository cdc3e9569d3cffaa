"""
BINARYMIME (RFC 3030 section 3): a body of any octets, without lines, sent by BDAT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import BadSequence
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection

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
