"""
The GS2 header (RFC 5801 section 4), with which the messages of SCRAM and OAUTHBEARER begin.

It says whether the client binds the exchange to its TLS channel, and whom it
wants to act as: ``n,,``, ``y,a=bob,``, ``p=tls-exporter,,``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpfw.errors import AuthMalformed

__all__ = ["SASLNAME", "GS2Header", "decode_saslname", "encode_saslname", "format_gs2_header", "parse_gs2_header"]

#: A name with its commas and equals signs escaped; an equals sign that escapes nothing is an error.
SASLNAME = rb"(?:[^\x00,=]|=2C|=3D)+"

_HEADER = re.compile(rb"(?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=(%s))?," % SASLNAME)


@dataclass(frozen=True, slots=True)
class GS2Header:
    """
    :ivar flag: ``n``: the client does not know channel bindings; ``y``: it does, but thinks that the server doesn't;
        ``p``: it uses one.
    :ivar binding: its registered name; empty unless the flag is ``p``.
    :ivar authorization_identity: decoded octets; empty for the user himself.
    :ivar octets: the header as it stands in the message.
    """

    flag: str
    binding: str
    authorization_identity: bytes
    octets: bytes


def parse_gs2_header(message: bytes) -> GS2Header:
    """
    Read the header that a message begins with.

    :raises AuthMalformed: if there is none.
    """
    match = _HEADER.match(message)
    if match is None:
        raise AuthMalformed
    flag, binding, identity = match.groups()
    return GS2Header((flag or b"p").decode(), (binding or b"").decode(), decode_saslname(identity or b""), match[0])


def format_gs2_header(binding: str = "", authorization_identity: str = "", *, flag: str = "n") -> bytes:
    """The twin of :func:`parse_gs2_header`. ``flag`` counts when there is no binding."""
    start = f"p={binding}" if binding else flag
    identity = b"a=" + encode_saslname(authorization_identity) if authorization_identity else b""
    return b"%s,%s," % (start.encode("ascii"), identity)


def decode_saslname(name: bytes) -> bytes:
    """Take the escapes out of what matches :data:`SASLNAME`."""
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def encode_saslname(name: str) -> bytes:
    """The twin of :func:`decode_saslname` (RFC 5802 section 5.1)."""
    return name.encode("utf-8").replace(b"=", b"=3D").replace(b",", b"=2C")
