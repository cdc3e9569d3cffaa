"""
A server's certificates: what is read of one, and which of several answers to a name.

Rule 1: a :class:`ServerCertificate` is one that works: it could be read, its key belongs to it, and OpenSSL takes both.
That it has expired is no fault of this kind: a server that answers with it is better than none.

Rule 2: the name that a client asks for (SNI, RFC 6066 section 3) is looked up among the names of the subjectAltName,
the whole name first, then ``*.`` and the rest behind its first dot (RFC 9525 section 6.3). The common name does not
count. Of several certificates for a name each kind of key gives one, RSA and ECDSA, say, and OpenSSL shows what the
client can verify; of several of one kind it is one that is valid today, the longest.

Rule 3: who asks for no name, or for one that is not ours, gets the default: what answers to the service's own name,
else the first by its path. A handshake is never refused for its name: mail servers ask for names that they made up.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.ssl import CertificateOptions

from smtpfw.errors import ConfigError
from smtpfw.tls.pem import checked_context, find_chain, find_key, own_certificate, read_file, reason_of

#: Octets of a certificate and its chain. Twisted hands 32 KiB of a handshake to the socket, and of a longer flight the
#: rest never: both sides would wait. The other messages of the flight have their share.
MAX_CHAIN = 30_000

__all__ = ["Group", "NameTable", "ServerCertificate", "names_of", "read_certificate", "utc_now"]


@dataclass(frozen=True, slots=True, eq=False)
class ServerCertificate:
    """
    A certificate with its chain and key, read and checked.

    :ivar path: the file that it is from.
    :ivar key_path: the file that its key is from; the same one, if that holds both.
    :ivar names: the host names of its subjectAltName, in lower case; wildcards as ``*.example.org``.
    :ivar kind: of its key: ``RSA``, ``ECDSA`` or the name of another.
    :ivar not_before: from when on it is valid, in UTC.
    :ivar not_after: until when, in UTC.
    :ivar digest: tells the content of its files from another.
    :ivar options: the arguments by which ``CertificateOptions`` shows it. The key is in there, and so not in the repr.
    """

    path: str
    key_path: str
    names: tuple[str, ...]
    kind: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    digest: bytes = field(repr=False)
    options: dict[str, Any] = field(repr=False)

    def valid_at(self, moment: datetime.datetime) -> bool:
        """Whether a moment is within its dates."""
        return self.not_before <= moment <= self.not_after

    def __str__(self) -> str:
        names = ", ".join(self.names) or "no host name"
        return f"{names} ({self.kind}, until {self.not_after:%Y-%m-%d}, {self.path})"


#: Certificates that answer to one name, each with another kind of key.
Group = tuple[ServerCertificate, ...]


def utc_now() -> datetime.datetime:
    """The time of day, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def read_certificate(
    path: str, key_path: str | None = None, known: ServerCertificate | None = None
) -> ServerCertificate:
    """
    Read a certificate, its chain and its key.

    :param path: a PEM file: the certificate first, then its chain.
    :param key_path: a PEM file with the private key; by default it is looked for in ``path``.
    :param known: what was read of these files before; it is returned when nothing in them is new.
    :raises ConfigError: one line that names the file that can't be used.
    """
    content = read_file(path)
    key_content = content if key_path is None else read_file(key_path)
    digest = hashlib.sha256(hashlib.sha256(content).digest() + hashlib.sha256(key_content).digest()).digest()
    if known is not None and (known.digest, known.path, known.key_path) == (digest, path, key_path or path):
        return known
    chain = find_chain(content, path)
    hint = "; a key in a file of its own is given as CERT:KEY" if key_path is None else ""
    key = find_key(key_content, key_path or path, hint)
    try:
        options = own_certificate(chain, key)
        leaf: x509.Certificate = options["certificate"]
        not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except ValueError as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({reason_of(error)})") from None
    octets = sum(len(one.public_bytes(Encoding.DER)) for one in (leaf, *options["extraCertChain"]))
    if octets > MAX_CHAIN:
        raise ConfigError(
            f"{path}: certificate and chain have {octets} octets, and no more than {MAX_CHAIN} go into a TLS handshake "
            "here; take a certificate with fewer names"
        )
    checked_context(CertificateOptions(**options), path, key_path)
    return ServerCertificate(
        path=path,
        key_path=key_path or path,
        names=names_of(leaf),
        kind=_kind_of(key),
        not_before=not_before,
        not_after=not_after,
        digest=digest,
        options=options,
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names of the subjectAltName, in lower case and without a dot at their end; each once."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        # ValueError: an extension that can't be read. As a default it can still be shown.
        return ()
    return tuple(dict.fromkeys(_normal(name) for name in names))


class NameTable:
    """
    Which certificates answer to which name.

    :param certificates: one at least.
    :param hostname: the service's own name.
    :param moment: today; by default the time of day.
    :ivar certificates: all of them, by their paths.
    :ivar default: what answers to no name and to a strange one.
    :ivar has_own: whether the default is for ``hostname``.
    """

    def __init__(
        self, certificates: Iterable[ServerCertificate], hostname: str = "", moment: datetime.datetime | None = None
    ) -> None:
        self.certificates = tuple(sorted(certificates, key=lambda one: one.path))
        self._groups = _groups(self.certificates, moment or utc_now())
        own = self._find(_normal(hostname))
        self.has_own = own is not None
        self.default = own or self._group_of(self.certificates[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NameTable) and (self.certificates, self.default, self._groups) == (
            other.certificates,
            other.default,
            other._groups,
        )

    def find(self, name: bytes | None) -> Group:
        """
        The certificates for a name, one for each kind of key.

        :param name: as a client has sent it, so it may be any octets; None if it has sent none.
        """
        if name is None or not name.isascii():
            return self.default
        return self._find(_normal(name.decode("ascii"))) or self.default

    def groups(self) -> set[Group]:
        """All that :meth:`find` may return."""
        return {self.default, *self._groups.values()}

    def _find(self, name: str) -> Group | None:
        group = self._groups.get(name)
        if group is None:
            label, dot, rest = name.partition(".")
            if label and dot:
                group = self._groups.get(f"*.{rest}")
        return group

    def _group_of(self, certificate: ServerCertificate) -> Group:
        for name in certificate.names:
            if certificate in self._groups[name]:
                return self._groups[name]
        return (certificate,)


def _normal(name: str) -> str:
    # SNI goes without the dot of the root (RFC 6066 section 3); not every client knows.
    return name.lower().removesuffix(".")


def _kind_of(key: object) -> str:
    """Of each of these OpenSSL keeps one certificate in a context."""
    if isinstance(key, rsa.RSAPrivateKey):
        return "RSA"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "ECDSA"
    return type(key).__name__.removesuffix("PrivateKey")


def _groups(certificates: Iterable[ServerCertificate], moment: datetime.datetime) -> dict[str, Group]:
    best: dict[str, dict[str, ServerCertificate]] = {}
    for one in certificates:
        for name in one.names:
            of_name = best.setdefault(name, {})
            rival = of_name.get(one.kind)
            if rival is None or _worth(one, moment) > _worth(rival, moment):
                of_name[one.kind] = one
    return {name: tuple(of_name[kind] for kind in sorted(of_name)) for name, of_name in best.items()}


def _worth(certificate: ServerCertificate, moment: datetime.datetime) -> tuple[bool, datetime.datetime]:
    return certificate.valid_at(moment), certificate.not_after
