"""Certificates with names, for tests of servers that have several of them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.certificates import key_pem, make_key

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

#: Made once, since it takes long.
RSA_KEY = rsa.generate_private_key(65537, 2048)


class Pem(NamedTuple):
    """
    A certificate and its key.

    :ivar certificate: PEM.
    :ivar key: PEM.
    :ivar serial: by which a client knows it again.
    """

    certificate: bytes
    key: bytes
    serial: int

    @property
    def both(self) -> bytes:
        """What a single file holds."""
        return self.certificate + self.key


def make_pair(
    *names: str, key: Key | None = None, days: float = 30, since: float = -60, authority: bool = False
) -> Pem:
    """
    A self-signed certificate.

    :param names: of its subjectAltName; without any it has none.
    :param days: until when it is good, from today on.
    :param since: from when on it is good, likewise.
    :param authority: whether it may issue others.
    """
    key = key or make_key()
    now = datetime.datetime.now(datetime.UTC)
    serial = x509.random_serial_number()
    # One of its own for each: OpenSSL finds issuers by it.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"not looked at {serial}")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + datetime.timedelta(days=since))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return Pem(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key), serial)


def put(path: Path, content: bytes) -> Path:
    """Write a file as good tools do: another one takes its place, so that ``stat`` shows it within one tick, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    return new.replace(path)


def shown_to(peer: ssl.SSLObject) -> x509.Certificate:
    """The certificate that a client was shown."""
    der = peer.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der)
