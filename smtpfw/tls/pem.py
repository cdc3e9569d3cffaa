"""
PEM files: certificates, private keys and the authorities that others' certificates are verified with.

Rule: whatever is wrong with a file is a :class:`~smtpfw.errors.ConfigError` of one line that names it, raised when it
is loaded; nothing of it is left for the first handshake.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

from smtpfw.errors import ConfigError

__all__ = ["checked_context", "load_authorities", "load_chain", "load_key", "own_certificate", "trust_root"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)


def own_certificate(chain: list[crypto.X509], key: crypto.PKey) -> dict[str, Any]:
    """
    The arguments by which ``CertificateOptions`` shows a certificate.

    :param chain: the certificate itself, then those that issued it.
    """
    # As cryptography's: pyOpenSSL deprecates its own classes as arguments; Twisted's annotations have not followed yet.
    return {
        "privateKey": key.to_cryptography_key(),
        "certificate": chain[0].to_cryptography(),
        "extraCertChain": [one.to_cryptography() for one in chain[1:]],
    }


def trust_root(authorities: list[crypto.X509]) -> Any:
    """What makes ``CertificateOptions`` trust these authorities, and no other."""
    return trustRootFromCertificates(map(Certificate, authorities))


def checked_context(options: CertificateOptions, certificate_path: str, key_path: str | None) -> SSL.Context:
    """
    The context of options that show a certificate of one's own.

    :param key_path: where its key is from; None for the same file.
    :raises ConfigError: when OpenSSL does not take certificate and key, or not together.
    """
    try:
        context = options.getContext()
        SSL.Context.check_privatekey(context)
    except (SSL.Error, crypto.Error) as error:
        whose = f"the key in {key_path}" if key_path else "the key in it"
        raise ConfigError(
            f"{certificate_path}: {whose} does not belong to the first certificate ({_reason(error)}); "
            "one's own certificate comes first, then its chain"
        ) from None
    return context


def load_chain(path: str) -> list[crypto.X509]:
    """The certificates of a file, one at least."""
    found = _CERTIFICATE.findall(_read(path))
    if not found:
        raise ConfigError(f"{path}: no PEM certificate in this file (it has no line BEGIN CERTIFICATE)")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in found]
    except (crypto.Error, ValueError) as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({_reason(error)})") from None


def load_authorities(path: str) -> list[crypto.X509]:
    """The certificates of a file, or of all files in a folder that hold some; each once."""
    folder = Path(path)
    if not folder.is_dir():
        return load_chain(path)
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    # In a folder made by c_rehash every certificate stands twice.
    found = {
        one.digest("sha256"): one
        for file in files
        if _CERTIFICATE.search(_read(str(file)))
        for one in load_chain(str(file))
    }
    if not found:
        raise ConfigError(f"{path}: no file in this folder holds a PEM certificate (a line BEGIN CERTIFICATE)")
    return list(found.values())


def load_key(path: str) -> crypto.PKey:
    """The first private key of a file."""
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
