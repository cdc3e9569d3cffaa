"""
The values that pass between a mechanism, its checker and the connection.

Rule: what holds a secret does not show it in its ``repr``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SASLContext", "SCRAMKeys", "ServerInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SASLContext:
    """
    What a server's mechanism may know of the connection.

    :ivar service: the registered GSSAPI service name; ``smtp`` for submission and LMTP alike.
    :ivar hostname: our own name, as in the greeting.
    :ivar tls: whether the line is encrypted.
    :ivar channel_bindings: the data of each channel binding that this connection has, by its registered name:
        ``tls-exporter`` (RFC 9266), ``tls-server-end-point`` (RFC 5929).
    :ivar mechanisms: the names that were offered to this client; None if that is not known, then every mechanism that
        the connection allows counts as offered.
    :ivar peer_certificate: the client's certificate (``cryptography.x509.Certificate``), which TLS has verified against
        the authorities that we trust for clients; None if it showed none.
    """

    service: str = "smtp"
    hostname: str = "localhost"
    tls: bool = False
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    mechanisms: Collection[str] | None = None
    peer_certificate: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """
    What a client's mechanism may know of the server.

    :ivar name: the host that the client means to talk to.
    :ivar tls: True only on an encrypted line whose certificate is valid for ``name``.
    :ivar mechanisms: the names that the server offers.
    :ivar channel_bindings: as in :class:`SASLContext`.
    """

    name: str
    tls: bool = False
    mechanisms: Collection[str] = ()
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class SCRAMKeys:
    """
    What a server keeps of a password for SCRAM (RFC 5802 section 3).

    :func:`~smtpfw.sasl.scram.make_scram_keys` makes it. It is no password, but whoever has it can
    guess passwords, and can play the server.

    :ivar salt: random octets.
    :ivar iterations: how many rounds of PBKDF2.
    :ivar stored_key: the hash of ClientKey.
    :ivar server_key: ServerKey.
    """

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
