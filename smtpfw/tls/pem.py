"""
PEM files: certificates, private keys and the authorities that others' certificates are verified with.

Rule: whatever is wrong with a file is a :class:`~smtpfw.errors.ConfigError` of one line that names it, raised when it
is loaded; nothing of it is left for the first handshake.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

from smtpfw.errors import ConfigError

__all__ = [
    "checked_context",
    "find_chain",
    "find_key",
    "load_authorities",
    "load_chain",
    "load_key",
    "own_certificate",
    "read_file",
    "reason_of",
    "trust_root",
]

_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.+?-----END \1PRIVATE KEY-----", re.DOTALL)


def own_certificate(chain: list[crypto.X509], key: PrivateKeyTypes) -> dict[str, Any]:
    """
    The arguments by which ``CertificateOptions`` shows a certificate.

    :param chain: the certificate itself, then those that issued it.
    """
    # As cryptography's: pyOpenSSL deprecates its own classes as arguments; Twisted's annotations have not followed yet.
    return {
        "privateKey": key,
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
        why = reason_of(error)
        if "mismatch" not in why:
            # A key that is too short, say, or a signature that is too weak.
            raise ConfigError(f"{certificate_path}: OpenSSL takes no such certificate or key ({why})") from None
        whose = f"the key in {key_path}" if key_path else "the key in it"
        raise ConfigError(
            f"{certificate_path}: {whose} does not belong to the first certificate ({why}); "
            "one's own certificate comes first, then its chain"
        ) from None
    return context


def load_chain(path: str) -> list[crypto.X509]:
    """The certificates of a file, one at least."""
    return find_chain(read_file(path), path)


def find_chain(content: bytes, path: str) -> list[crypto.X509]:
    """
    The certificates in the content of a file, one at least.

    :param path: for the error.
    """
    found = _CERTIFICATE.findall(content)
    if content.count(_BEGIN_CERTIFICATE) > len(found):
        # Still being written; without the rest of its chain a certificate verifies nowhere.
        raise ConfigError(f"{path}: the last certificate in this file has no end (no line END CERTIFICATE)")
    if not found:
        raise ConfigError(f"{path}: no PEM certificate in this file (it has no line BEGIN CERTIFICATE)")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in found]
    except (crypto.Error, ValueError) as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({reason_of(error)})") from None


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
        if _CERTIFICATE.search(read_file(str(file)))
        for one in load_chain(str(file))
    }
    if not found:
        raise ConfigError(f"{path}: no file in this folder holds a PEM certificate (a line BEGIN CERTIFICATE)")
    return list(found.values())


def load_key(path: str) -> PrivateKeyTypes:
    """The first private key of a file."""
    return find_key(read_file(path), path)


def find_key(content: bytes, path: str, hint: str = "") -> PrivateKeyTypes:
    """
    The first private key in the content of a file.

    :param path: for the error.
    :param hint: what to do if there is none.
    """
    found = _KEY.search(content)
    if found is None:
        raise ConfigError(f"{path}: no PEM private key in this file{hint}")
    pem = found.group(0)
    if b"ENCRYPTED" in pem:
        # OpenSSL would ask for the pass phrase on the terminal, which a service has not.
        raise ConfigError(
            f"{path}: the private key is protected by a pass phrase; remove it (openssl pkey -in ... -out ...)"
        )
    try:
        # OpenSSL's own validation looks whether the factors are prime, which takes a second for 4096 bits. To try the
        # key is quicker, and finds a damaged one as well.
        key = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, rsa.RSAPrivateKey):
            _try(key)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ConfigError(f"{path}: the private key can't be read ({reason_of(error)})") from None
    return key


def _try(key: rsa.RSAPrivateKey) -> None:
    signature = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
    key.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())


def read_file(path: str) -> bytes:
    """What is in a file."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def reason_of(error: Exception) -> str:
    """The last word of OpenSSL's list of (library, function, reason); other errors in their own words, on one line."""
    details = error.args[0] if error.args else None
    if isinstance(details, list) and details:
        return str(details[-1][-1])
    return " ".join(str(error).split()) or type(error).__name__
