"""
Whom a client's certificate stands for: the usual answer to EXTERNAL.

Rule 1: the names of a certificate are its mail addresses: the rfc822Names of
its subjectAltName. Only where it has none, they are the emailAddress of its
subject (RFC 5280 section 4.1.2.6), and only where that is missing as well, its
common name. One kind counts and the others don't: who has a say on one of them
shall not get another's name by it.

Rule 2: a name is prepared by SASLprep as one that is typed, and one that can't
be is none. Then it is compared octet by octet.

Rule 3: the first name is the identity. The client may ask for another of them;
for any other it needs a checker that is an ``IAuthorizer``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unicodedata import normalize

from cryptography import x509
from cryptography.x509.oid import NameOID
from zope.interface import implementer

from smtpfw.errors import AuthFailed
from smtpfw.sasl.exchange import ask_checker
from smtpfw.sasl.interfaces import IAuthorizer, ICertificateChecker
from smtpfw.sasl.saslprep import PreparationError, saslprep

__all__ = ["CertificateChecker", "certificate_names"]


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The names that a certificate gives its owner (rule 1), prepared, each once; none if it can't be read.

    A common name is a name only if the authority sees to it that nobody gets another's: don't trust one for clients
    that signs for everybody.
    """
    try:
        found = _raw_names(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    return tuple(dict.fromkeys(filter(None, map(_prepare, found))))


def _raw_names(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        addresses = []
    else:
        addresses = alternatives.get_values_for_type(x509.RFC822Name)
    if addresses:
        return addresses
    for kind in (NameOID.EMAIL_ADDRESS, NameOID.COMMON_NAME):
        attributes = certificate.subject.get_attributes_for_oid(kind)
        if attributes:
            return [attribute.value for attribute in attributes if isinstance(attribute.value, str)]
    return []


def _prepare(name: str) -> str:
    try:
        # A name that is written in another way might be a second one to the authority, and the first one to us.
        return prepared if (prepared := saslprep(name)) == normalize("NFC", name) else ""
    except PreparationError:
        return ""


@implementer(ICertificateChecker)
class CertificateChecker:
    """
    Let in whom TLS has verified, by the name in the certificate.

    :param is_user: says of a name whether it is a user's; names of others don't count. By default every name is good:
        the authority says who the users are.
    :param authorizer: an ``IAuthorizer`` lets its users act for others; by default the checker itself, which is none
        unless a subclass makes it one.
    """

    def __init__(self, is_user: Callable[[str], bool] = bool, authorizer: object = None) -> None:
        self._is_user = is_user
        self._authorizer: Any = self if authorizer is None else authorizer

    async def check_certificate(self, certificate: x509.Certificate, authorization_identity: str) -> str:
        """See :meth:`ICertificateChecker.check_certificate`."""
        names = [name for name in certificate_names(certificate) if self._is_user(name)]
        if not names:
            raise AuthFailed
        if not authorization_identity:
            return names[0]
        if authorization_identity not in names:
            if not IAuthorizer.providedBy(self._authorizer):
                raise AuthFailed
            await ask_checker(self._authorizer.authorize, names[0], authorization_identity, kind=object)
        return authorization_identity
