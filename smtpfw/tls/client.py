"""
TLS contexts of the client: whom they trust, and which names a certificate is valid for.

Rule 1: what verifies, verifies all: the chain by OpenSSL, the name by service-identity (RFC 9525; the common name does
not count). Whatever can't be verified is refused within the handshake, with a sentence that says why, before a single
octet of mail is sent.

Rule 2: what does not verify (``opportunistic``) encrypts, and no certificate makes it fail: RFC 7435.

Rule 3: the name is sent as SNI in both cases, since a server with several certificates chooses by it.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, DNSPattern, IPAddress_ID, IPAddressPattern, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.errors import ConfigError
from smtpfw.tls.pem import checked_context, load_authorities, load_chain, load_key, own_certificate, trust_root
from smtpfw.tls.state import live_handle

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["client_context", "name_verified"]

_Codes = SSL.X509VerificationCodes

#: What is wrong with a certificate of the chain, behind "the certificate of mx.example.org".
_FAULTS = {
    _Codes.ERR_CERT_HAS_EXPIRED: "has expired",
    _Codes.ERR_CERT_NOT_YET_VALID: "is not valid yet",
    _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "is self-signed and not trusted",
    _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "is an authority that is not trusted",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT: "comes from an authority that is not known",
    _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "comes from an authority that is not known",
    _Codes.ERR_INVALID_PURPOSE: "is not meant for servers",
    _Codes.ERR_CERT_SIGNATURE_FAILURE: "has a wrong signature",
}

#: How many names of a certificate for others an error tells, and how much of each.
_NAMES_TOLD = 3
_NAME_LENGTH = 80


def client_context(
    name: str,
    *,
    verify: bool,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> IOpenSSLClientConnectionCreator:
    """
    Make the TLS side of a client's connections to one host: TLS 1.2 or newer, Twisted's default ciphers.

    It goes where Twisted takes the result of ``optionsForClientTLS``: ``transport.startTLS``, ``wrapClientTLS``,
    ``TLSMemoryBIOFactory(context, True, factory)``. A certificate that is refused ends the connection; the reason of
    ``connectionLost`` is then a :class:`twisted.internet.error.VerifyError` with one line that says what is wrong.

    :param name: the host: a name, also an internationalised one, or an IP address, which is verified as such and never
        sent. Empty, where there is none, if nothing is verified.
    :param verify: refuse a server whose certificate can't be verified, or is for another name.
    :param ca: a PEM file with the authorities to trust, or a folder of such files; by default the system's. A
        self-signed certificate of a server in there is trusted as well. Not looked at if nothing is verified.
    :param certificate: a PEM file to show to servers that ask: our certificate first, then its chain.
    :param key: a PEM file with its private key; by default it is looked for in ``certificate``.
    :raises ConfigError: when a file is absent, can't be read or holds nothing that can be used, a key belongs to
        another certificate, or is given without one, or the name is one that no certificate can be verified for.
    """
    identity = _identity(name)
    if verify and identity is None:
        raise ConfigError(f"{name!a}: not a host name or IP address, so no certificate can be verified for it")
    if key is not None and certificate is None:
        raise ConfigError(f"{key}: a private key without a certificate")
    if certificate is None and (ca is None or not verify):
        return _ConnectionCreator(_shared_options(verify), name, identity, verify)
    trusted = None
    if verify:
        trusted = trust_root(load_authorities(ca)) if ca is not None else platformTrust()
    if certificate is None:
        return _ConnectionCreator(CertificateOptions(trustRoot=trusted), name, identity, verify)
    pair = own_certificate(load_chain(certificate), load_key(key or certificate))
    options = CertificateOptions(trustRoot=trusted, **pair)
    checked_context(options, certificate, key)
    return _ConnectionCreator(options, name, identity, verify)


def name_verified(transport: object, name: str) -> bool:
    """
    Whether the certificate of a live connection's peer was verified, and is valid for a name.

    :param name: a host name or an IP address.
    :return: False as well when the transport does not speak TLS, the handshake is not over, or there was nobody who
        verified. A context with a callback that lets everything pass counts as one that verifies: pyOpenSSL forgets
        what the callback overruled.
    """
    handle = live_handle(transport)
    identity = _identity(name)
    if handle is None or identity is None or not handle.get_verify_mode() & SSL.VERIFY_PEER:
        return False
    certificate = handle.get_peer_certificate()
    return certificate is not None and _is_for(certificate, identity)


@functools.lru_cache(maxsize=2)
def _shared_options(verify: bool) -> CertificateOptions:
    """
    Options that name no file.

    They are made once: reading all authorities of a system takes longer than a handshake. What changes there counts
    from the next start on, as with other mail servers.
    """
    return CertificateOptions(trustRoot=platformTrust() if verify else None)


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    """
    Does what Twisted's ``optionsForClientTLS`` does, but for two things: that one lets a certificate pass that has no
    subjectAltName, or one that service-identity can't read (it knows the error VerificationError only, and trusts
    where it meets another), and it can't leave a certificate unverified.
    """

    def __init__(
        self, options: CertificateOptions, name: str, identity: DNS_ID | IPAddress_ID | None, verify: bool
    ) -> None:
        self._options = options
        self._name = name
        self._identity = identity
        self._verify = verify

    def clientConnectionForTLS(self, tls_protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See :meth:`IOpenSSLClientConnectionCreator.clientConnectionForTLS`."""
        connection = SSL.Connection(self._options.getContext(), None)
        # IP addresses have no place there (RFC 6066 section 3).
        if isinstance(self._identity, DNS_ID):
            connection.set_tlsext_host_name(self._identity.hostname)
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._judge)
        return connection

    def _judge(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
        """OpenSSL asks for each certificate of the chain, and once for each fault."""
        fault = self._fault(certificate, code, depth, bool(ok))
        if fault is None:
            return True
        # Twisted keeps it there, from before the handshake on.
        protocol: TLSMemoryBIOProtocol = connection.get_app_data()
        protocol.failVerification(Failure(VerifyError(fault)))
        return False

    def _fault(self, certificate: crypto.X509, code: int, depth: int, ok: bool) -> str | None:
        if not ok:
            whose = "the certificate of" if depth == 0 else "a certificate in the chain of"
            return f"{whose} {self._name} {_FAULTS.get(code, f'was refused by OpenSSL (its code {code})')}"
        if depth == 0 and (self._identity is None or not _is_for(certificate, self._identity)):
            return f"the certificate of {self._name} is not for this name, but for {_names_of(certificate)}"
        return None


def _identity(name: str) -> DNS_ID | IPAddress_ID | None:
    """What a certificate must be for; None if the name is none."""
    try:
        return IPAddress_ID(str(ipaddress.ip_address(name)))
    except ValueError:
        pass
    try:
        # Certificates and SNI do without the dot of the root (RFC 6066 section 3).
        return DNS_ID(_to_a_labels(name.removesuffix(".")))
    except ValueError:
        return None


def _to_a_labels(name: str) -> str:
    if name.isascii():
        return name
    try:
        import idna
    except ImportError:
        # As Twisted does without that package: IDNA of 2003, the same for most names.
        return name.encode("idna").decode("ascii")
    return idna.encode(name, uts46=True).decode("ascii")


def _is_for(certificate: crypto.X509, identity: DNS_ID | IPAddress_ID) -> bool:
    try:
        verify_service_identity(extract_patterns(certificate), [identity], [])
    except (VerificationError, CertificateError, ValueError):
        # ValueError: a subjectAltName that can't be read at all.
        return False
    return True


def _names_of(certificate: crypto.X509) -> str:
    """Some names that a certificate is for, of one line whatever is in them."""
    try:
        patterns = extract_patterns(certificate)
    except (CertificateError, ValueError):
        return "names that can't be read"
    names = [
        one.pattern.decode("ascii", "replace") if isinstance(one, DNSPattern) else str(one.pattern)
        for one in patterns
        if isinstance(one, DNSPattern | IPAddressPattern)
    ]
    told = ["".join(sign if sign.isprintable() else "?" for sign in name[:_NAME_LENGTH]) for name in names]
    if len(told) > _NAMES_TOLD:
        told[_NAMES_TOLD:] = ["others"]
    return ", ".join(told) or "none"
