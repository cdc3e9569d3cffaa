"""
TLS contexts of the server, made from PEM files, and what a live connection says of itself.

Rule 1: one context serves STARTTLS (``transport.startTLS(context)``) and
implicit TLS (``TLSMemoryBIOFactory(context, False, factory)``) alike.

Rule 2: everything that is wrong with a certificate is found when the context
is made, and told in one line that names the file; not at the first handshake.
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger

from smtpfw.errors import ConfigError
from smtpfw.state import TLSState

__all__ = ["channel_bindings", "describe_tls", "server_context"]

_log = Logger()

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)


def server_context(certificate_path: str, key_path: str | None = None) -> CertificateOptions:
    """
    Make the TLS context of a server: TLS 1.2 or newer, Twisted's default ciphers, session tickets on.

    :param certificate_path: a PEM file: the server's certificate first, then its chain.
    :param key_path: a PEM file with the private key; by default it is looked for in ``certificate_path``.
    :raises ConfigError: when a file is absent, can't be read, holds no certificate or no key that can be used, or the
        key belongs to another certificate. A certificate that is out of date is only logged: a server that answers
        with it is better than none.
    """
    chain = _load_chain(certificate_path)
    key = _load_key(key_path or certificate_path)
    leaf = chain[0]
    try:
        context = CertificateOptions(
            # pyOpenSSL deprecates its own classes as arguments; Twisted's annotations have not followed yet.
            privateKey=key.to_cryptography_key(),  # type: ignore[arg-type]
            certificate=leaf.to_cryptography(),  # type: ignore[arg-type]
            extraCertChain=[one.to_cryptography() for one in chain[1:]],  # type: ignore[misc]
            # Twisted has them off by default. A relay that delivers again and again then saves a handshake's signature;
            # tickets are kept by the client, so they cost no memory here.
            enableSessionTickets=True,
        )
        SSL.Context.check_privatekey(context.getContext())
    except (SSL.Error, crypto.Error) as error:
        whose = f"the key in {key_path}" if key_path else "the key in it"
        raise ConfigError(
            f"{certificate_path}: {whose} does not belong to the first certificate ({_reason(error)}); "
            "the server's own certificate comes first, then its chain"
        ) from None
    if leaf.has_expired():
        _log.warn("{path}: the certificate has expired; clients that verify will refuse it", path=certificate_path)
    return context


def describe_tls(transport: object) -> str:
    """
    Name version and cipher of a live TLS transport, as ``TLSv1.3 TLS_AES_256_GCM_SHA384``.

    :return: an empty text when the transport does not speak TLS, or the handshake is not over.
    """
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, SSL.Connection):
        return ""
    cipher = handle.get_cipher_name()
    return f"{handle.get_protocol_version_name()} {cipher}" if cipher else ""


def tls_state(transport: object) -> TLSState | None:
    """What TLS has agreed on, on a live transport; None when it does not speak TLS, or the handshake is not over."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    cipher = handle.get_cipher_name() if isinstance(handle, SSL.Connection) else None
    if not isinstance(handle, SSL.Connection) or cipher is None:
        return None
    certificate = handle.get_peer_certificate()
    return TLSState(
        version=handle.get_protocol_version_name(),
        cipher=cipher,
        server_name=(handle.get_servername() or b"").decode("ascii", "replace"),
        peer_certificate=None if certificate is None else certificate.to_cryptography(),
    )


def channel_bindings(transport: object) -> dict[str, bytes]:
    """
    The channel bindings of a live TLS transport, by their registered names; none where it has none.

    ``tls-exporter`` (RFC 9266) only with TLS 1.3: below, it is unique only with an extension that can't be asked for.
    """
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, SSL.Connection):
        return {}
    bindings = {}
    if handle.get_protocol_version_name() == "TLSv1.3":
        bindings["tls-exporter"] = handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    certificate = handle.get_certificate()
    if certificate is not None:
        bindings["tls-server-end-point"] = _end_point(certificate.to_cryptography())
    return bindings


def _end_point(certificate: x509.Certificate) -> bytes:
    """The hash of the certificate by the algorithm of its signature, SHA-256 for weak ones (RFC 5929 section 4.1)."""
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or isinstance(algorithm, (hashes.MD5, hashes.SHA1)):
        algorithm = hashes.SHA256()
    return certificate.fingerprint(algorithm)


def _load_chain(path: str) -> list[crypto.X509]:
    found = _CERTIFICATE.findall(_read(path))
    if not found:
        raise ConfigError(f"{path}: no PEM certificate in this file (it has no line BEGIN CERTIFICATE)")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in found]
    except (crypto.Error, ValueError) as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({_reason(error)})") from None


def _load_key(path: str) -> crypto.PKey:
    found = _KEY.search(_read(path))
    if found is None:
        raise ConfigError(f"{path}: no PEM private key in this file; a key in a file of its own is given as CERT:KEY")
    pem = found.group(0)
    if b"ENCRYPTED" in pem:
        # OpenSSL would ask for the pass phrase on the terminal, which a service has not.
        raise ConfigError(
            f"{path}: the private key is protected by a pass phrase; remove it (openssl pkey -in ... -out ...)"
        )
    try:
        return crypto.load_privatekey(crypto.FILETYPE_PEM, pem)
    except (crypto.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: the private key can't be read ({_reason(error)})") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _reason(error: Exception) -> str:
    """The last word of OpenSSL's list of (library, function, reason); other errors in their own words, on one line."""
    details = error.args[0] if error.args else None
    if isinstance(details, list) and details:
        return str(details[-1][-1])
    return " ".join(str(error).split()) or type(error).__name__
