"""
8BITMIME (RFC 6152): text with octets over 127 is transported as it is.

Octets pass unchanged through smtpfw whatever was declared; the parameter is
for the session, and for a next hop.
"""

from __future__ import annotations

from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

#: What kind of body the client declared.
BODY = Parameter.choice("BODY", "7BIT", "8BITMIME", default="7BIT")


class EightBitMIME(Extension):
    keyword = "8BITMIME"
    mail_parameters = (BODY,)
    extra_line_octets = 17  # RFC 6152 section 2
