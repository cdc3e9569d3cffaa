"""
REQUIRETLS (RFC 8689): this message shall travel over TLS that is verified, on every hop, or not at all.

Here is the first hop's part: the parameter is taken on a line that is
encrypted, and nowhere else. The hops to come are a promise of the backend's.
A client keeps it for its own hop: it names the parameter on a line that is
verified, to a server that offers it, or it does not send the message (section
4.2.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smtpfw.errors import ExtensionMissing
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["REQUIRETLS", "RequireTLS"]

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

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        if self.keyword in parameters and not connection.tls_verified:
            raise self.missing("its certificate is not verified")

    def missing(self, why: str) -> ExtensionMissing:
        return ExtensionMissing(self.keyword, why, code=550, enhanced_code=(5, 7, 30))
