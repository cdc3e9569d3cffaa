"""Certificates for tests: self-signed, of a fresh key, written as PEM files."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])


def make_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key; elliptic, because that is quick."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_pem(key: ec.EllipticCurvePrivateKey, days: int = 30) -> bytes:
    """A certificate for localhost that is good for ``days``; one below 0 has expired."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """The key as PKCS #8, encrypted if there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_pair(folder: Path) -> Path:
    """One file with certificate and key."""
    key = make_key()
    path = folder / "server.pem"
    path.write_bytes(certificate_pem(key) + key_pem(key))
    return path
