"""
No mail in clear: MAIL waits for TLS.

The setting ``require_tls`` refuses all but NOOP, EHLO, STARTTLS and QUIT (RFC
3207 section 4), AUTH and VRFY with them, and is the better choice wherever it
can be had.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpfw.check import Check
from smtpfw.errors import TLSRequired
from smtpfw.interfaces import IConnection
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["RequireTLS"]


@dataclass(frozen=True)
class RequireTLS(Check):
    """MAIL on a connection without TLS gets 530 5.7.0."""

    def mail(self, connection: IConnection, sender: Address, options: Options) -> None:
        """See :meth:`ICheck.mail`."""
        if not connection.tls:
            raise TLSRequired

    def describe(self) -> str:
        """What it does, in words."""
        return "MAIL needs TLS"
