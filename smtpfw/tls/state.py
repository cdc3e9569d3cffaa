"""
What a live connection says of its TLS, on either side: what was agreed on, and what binds an authentication to it.

Nothing is told before the handshake is over.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL

from smtpfw.state import TLSState

__all__ = ["channel_bindings", "live_handle", "tls_state"]

#: OpenSSL's words for a handshake that is over; pyOpenSSL has no other way to ask.
_FINISHED = b"SSL negotiation finished successfully"


def live_handle(transport: object) -> SSL.Connection | None:
    """OpenSSL's side of a transport whose handshake is over; None if there is none."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    # A cipher and the peer's certificate are there before the peer has proved that it has the key to it.
    if not isinstance(handle, SSL.Connection) or handle.get_state_string() != _FINISHED:
        return None
    return handle


def tls_state(transport: object) -> TLSState | None:
    """
    What TLS has agreed on, on a live transport; None when it does not speak TLS, or the handshake is not over.

    A peer's certificate is there only if the context verifies it, as those of :func:`~smtpfw.tls.server_context` do,
    and those of :func:`~smtpfw.tls.client_context` that verify. Whoever makes a context with a callback that lets
    everything pass has said that everything is verified.
    """
    handle = live_handle(transport)
    if handle is None:
        return None
    verified = bool(handle.get_verify_mode() & SSL.VERIFY_PEER)
    return TLSState(
        version=handle.get_protocol_version_name(),
        cipher=handle.get_cipher_name() or "",
        # What a client sends there is any octets; a log shall not be the place where they do harm.
        server_name=(handle.get_servername() or b"").decode("ascii", "backslashreplace"),
        peer_certificate=handle.get_peer_certificate(as_cryptography=True) if verified else None,
    )


def channel_bindings(transport: object, *, client: bool = False) -> dict[str, bytes]:
    """
    The channel bindings of a live TLS transport, by their registered names; none where it has none.

    ``tls-exporter`` (RFC 9266) only with TLS 1.3: below, it is unique only with an extension that can't be asked for.

    :param client: whether our side is the client's. It has to be said: a handle does not tell, and to guess by what
        certificates there are would let a client that shows one choose what the server binds to.
    """
    handle = live_handle(transport)
    if handle is None:
        return {}
    bindings = {}
    if handle.get_protocol_version_name() == "TLSv1.3":
        bindings["tls-exporter"] = handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    # The server's on both sides (RFC 5929 section 4.1), never the one that a client shows.
    if client:
        certificate = handle.get_peer_certificate(as_cryptography=True)
    else:
        certificate = handle.get_certificate(as_cryptography=True)
    algorithm = certificate.signature_hash_algorithm if certificate is not None else None
    # A signature without a hash of its own, as Ed25519 is, leaves it undefined (RFC 5929 section 4.1).
    if certificate is not None and algorithm is not None:
        bindings["tls-server-end-point"] = _end_point(certificate, algorithm)
    return bindings


def _end_point(certificate: x509.Certificate, algorithm: hashes.HashAlgorithm) -> bytes:
    """The hash of the certificate by the algorithm of its signature, SHA-256 for weak ones (RFC 5929 section 4.1)."""
    if isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)
