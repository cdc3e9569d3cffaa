"""
What a connection is at a moment, as plain values: they can be kept, compared and logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from twisted.internet.interfaces import IAddress

__all__ = ["ConnectionState", "TLSState"]


@dataclass(frozen=True, slots=True)
class TLSState:
    """
    What a TLS handshake has agreed on.

    :ivar version: ``TLSv1.3``.
    :ivar cipher: ``TLS_AES_256_GCM_SHA384``.
    :ivar server_name: the name that the client asked for (SNI); empty when it asked for none.
    :ivar peer_certificate: the peer's, verified; None when it showed none.
    """

    version: str
    cipher: str
    server_name: str = ""
    peer_certificate: Certificate | None = None

    def __str__(self) -> str:
        return f"{self.version} {self.cipher}"


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """
    Names and addresses of a connection.

    :ivar hello_name: what the client called itself; empty before.
    :ivar local: our own address.
    :ivar peer: the client's.
    :ivar tls_state: None on a clear line.
    """

    hello_name: str
    local: IAddress
    peer: IAddress
    tls_state: TLSState | None
