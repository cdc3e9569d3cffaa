"""
SMTPUTF8 (RFC 6531): addresses and headers in UTF-8.

The grammar reads UTF-8 in every address; whether the transaction may have one
is asked of ``options.utf8``, which only this parameter sets.
"""

from __future__ import annotations

from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

#: Whether the client asked for internationalized mail.
UTF8 = Parameter.flag("SMTPUTF8")


class SMTPUTF8(Extension):
    keyword = "SMTPUTF8"
    needs = ("8BITMIME",)  # RFC 6531 section 3.1 item 8
    mail_parameters = (UTF8,)
    extra_line_octets = 10  # RFC 6531 section 3.1 item 6
