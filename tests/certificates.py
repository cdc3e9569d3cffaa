"""Certificates for tests: self-signed ones of a server, and an authority for clients', written as PEM."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])

_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def make_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key; elliptic, because that is quick."""
    return ec.generate_private_key(ec.SECP256R1())


def _builder(subject: x509.Name, issuer: x509.Name, key: _Key, days: int, since: int = -60) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=since))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_pem(key: _Key, days: int = 30, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    """
    A certificate for localhost that is good for ``days``; one below 0 has expired.

    :param algorithm: the hash of its signature, SHA-256 by default; an Ed25519 key has none.
    """
    builder = _builder(_NAME, _NAME, key, days).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
    )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return _pem(builder.sign(key, None))
    return _pem(builder.sign(key, algorithm or hashes.SHA256()))  # type: ignore[arg-type]


def issued_pem(subject: str, key: _Key, issuer: str, issuer_key: _Key, *, authority: bool) -> bytes:
    """A certificate of a chain, for localhost unless it is an authority's."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = (
        _builder(named(subject), named(issuer), key, 1)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    return _pem(builder.sign(issuer_key, hashes.SHA256()))


def key_pem(key: _Key, password: bytes | None = None) -> bytes:
    """The key as PKCS #8, encrypted if there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_pair(folder: Path) -> Path:
    """One file with certificate and key."""
    key = make_key()
    path = folder / "server.pem"
    path.write_bytes(certificate_pem(key) + key_pem(key))
    return path


class Authority:
    """
    Vouches for clients.

    :ivar pem: its own certificate.
    """

    def __init__(self, name: str = "clients' authority") -> None:
        self._key = make_key()
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key, 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.pem = _pem(builder.sign(self._key, hashes.SHA256()))

    def issue(
        self,
        *subject: tuple[x509.ObjectIdentifier, str],
        names: Iterable[x509.GeneralName] = (),
        days: int = 30,
        since: int = -60,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> bytes:
        """
        Certificate and key, of a client unless ``usage`` says otherwise.

        :param subject: the parts of its subject: kind and text.
        :param names: its subjectAltName.
        :param days: until when it is good, from today on.
        :param since: from when on it is good, likewise.
        """
        key = make_key()
        name = x509.Name([x509.NameAttribute(kind, text) for kind, text in subject])
        builder = _builder(name, self._name, key, days, since).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        names = list(names)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256())) + key_pem(key)

    def named(self, name: str) -> bytes:
        """Certificate and key of a client with nothing but this common name."""
        return self.issue((x509.NameOID.COMMON_NAME, name))
