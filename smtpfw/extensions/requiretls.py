"""
REQUIRETLS (RFC 8689): this message shall travel over TLS that is verified, on every hop, or not at all.

Here is the first hop's part: the parameter is taken on a line that is
encrypted, and nowhere else. The hops to come are a promise of the backend's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection

#: Whether the client asked for it; ``options.require_tls`` is the same.
REQUIRETLS = Parameter.flag("REQUIRETLS")


class RequireTLS(Extension):
    keyword = "REQUIRETLS"
    mail_parameters = (REQUIRETLS,)
    extra_line_octets = 11  # RFC 8689 section 2 item 5
    end_to_end = True

    def advertise(self, connection: ServerConnection) -> str | None:
        # RFC 8689 section 2: the session itself must employ TLS. What is not offered is not accepted, either.
        return "" if connection.tls else None
