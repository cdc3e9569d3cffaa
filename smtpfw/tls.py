"""
TLS contexts of the server, made from PEM files, and what a live connection says of itself.

Rule 1: one context serves STARTTLS (``transport.startTLS(context)``) and
implicit TLS (``TLSMemoryBIOFactory(context, False, factory)``) alike.

Rule 2: everything that is wrong with a certificate is found when the context
is made, and told in one line that names the file; not at the first handshake.

Rule 3: a client's certificate counts only if it has been verified. One that
can't be verified ends the handshake, even where none is required.
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates
from twisted.logger import Logger

from smtpfw.errors import ConfigError
from smtpfw.state import TLSState

__all__ = ["channel_bindings", "server_context", "tls_state"]

_log = Logger()

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)


def server_context(
    certificate_path: str,
    key_path: str | None = None,
    *,
    client_ca: str | None = None,
    require_client_certificate: bool = False,
) -> CertificateOptions:
    """
    Make the TLS context of a server: TLS 1.2 or newer, Twisted's default ciphers, session tickets on.

    :param certificate_path: a PEM file: the server's certificate first, then its chain.
    :param key_path: a PEM file with the private key; by default it is looked for in ``certificate_path``.
    :param client_ca: a PEM file with the certificates that clients' are verified with, or a folder of such files; by
        default no client is asked for one. The system's authorities would not do: they vouch for servers' names.
    :param require_client_certificate: let the handshake of a client without one fail.
    :raises ConfigError: when a file is absent, can't be read, holds no certificate or no key that can be used, the key
        belongs to another certificate, or a client's certificate is required and there is nothing to verify it with. A
        certificate that is out of date is only logged: a server that answers with it is better than none.
    """
    chain = _load_chain(certificate_path)
    key = _load_key(key_path or certificate_path)
    leaf = chain[0]
    authorities = _load_authorities(client_ca) if client_ca is not None else []
    if require_client_certificate and not authorities:
        raise ConfigError("a client's certificate is required, and no authority is named to verify it with")
    options = CertificateOptions(
        # pyOpenSSL deprecates its own classes as arguments; Twisted's annotations have not followed yet.
        privateKey=key.to_cryptography_key(),  # type: ignore[arg-type]
        certificate=leaf.to_cryptography(),  # type: ignore[arg-type]
        extraCertChain=[one.to_cryptography() for one in chain[1:]],  # type: ignore[misc]
        # Twisted has them off by default. A relay that delivers again and again then saves a handshake's signature;
        # tickets are kept by the client, so they cost no memory here. Twisted sets a session id context, without which
        # OpenSSL fails every resumption where clients' certificates are verified.
        enableSessionTickets=True,
        trustRoot=trustRootFromCertificates(map(Certificate, authorities)) if authorities else None,
    )
    # Where there is a trust root, Twisted would have it required.
    options.requireCertificate = require_client_certificate
    try:
        context = options.getContext()
        SSL.Context.check_privatekey(context)
    except (SSL.Error, crypto.Error) as error:
        whose = f"the key in {key_path}" if key_path else "the key in it"
        raise ConfigError(
            f"{certificate_path}: {whose} does not belong to the first certificate ({_reason(error)}); "
            "the server's own certificate comes first, then its chain"
        ) from None
    for authority in authorities:
        # Told to the client, so that one with several certificates knows which to show.
        context.add_client_ca(authority.to_cryptography())
    if leaf.has_expired():
        _log.warn("{path}: the certificate has expired; clients that verify will refuse it", path=certificate_path)
    return options


def _handle(transport: object) -> SSL.Connection | None:
    """OpenSSL's side of a transport whose handshake is over; None if there is none."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, SSL.Connection) or handle.get_cipher_name() is None:
        return None
    return handle


def tls_state(transport: object) -> TLSState | None:
    """
    What TLS has agreed on, on a live transport; None when it does not speak TLS, or the handshake is not over.

    A peer's certificate is there only if the context verifies it, as those of :func:`server_context` do. Whoever makes
    a context with a callback that lets everything pass has said that everything is verified.
    """
    handle = _handle(transport)
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


def channel_bindings(transport: object) -> dict[str, bytes]:
    """
    The channel bindings of a live TLS transport, by their registered names; none where it has none.

    ``tls-exporter`` (RFC 9266) only with TLS 1.3: below, it is unique only with an extension that can't be asked for.
    """
    handle = _handle(transport)
    if handle is None:
        return {}
    bindings = {}
    if handle.get_protocol_version_name() == "TLSv1.3":
        bindings["tls-exporter"] = handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
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


def _load_chain(path: str) -> list[crypto.X509]:
    found = _CERTIFICATE.findall(_read(path))
    if not found:
        raise ConfigError(f"{path}: no PEM certificate in this file (it has no line BEGIN CERTIFICATE)")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in found]
    except (crypto.Error, ValueError) as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({_reason(error)})") from None


def _load_authorities(path: str) -> list[crypto.X509]:
    """The certificates of a file, or of all files in a folder that hold some; each once."""
    folder = Path(path)
    if not folder.is_dir():
        return _load_chain(path)
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    # In a folder made by c_rehash every certificate stands twice.
    found = {
        one.digest("sha256"): one
        for file in files
        if _CERTIFICATE.search(_read(str(file)))
        for one in _load_chain(str(file))
    }
    if not found:
        raise ConfigError(f"{path}: no file in this folder holds a PEM certificate (a line BEGIN CERTIFICATE)")
    return list(found.values())


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
