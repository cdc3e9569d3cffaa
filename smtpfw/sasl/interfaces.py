"""
The interfaces of authentication: the mechanisms' two sides, and the checkers that know the credentials.

A *mechanism* (RFC 4422) turns octets of the wire into the question that a
*checker* can answer: is this the password, is this token good? A listener
offers the mechanisms that its checker provides an interface for.

How a checker answers
    Every method may return a plain value, a Deferred or a coroutine. It raises
    :class:`~smtpfw.errors.AuthFailed` for credentials that are wrong, and
    :class:`~smtpfw.errors.AuthUnavailable` when it cannot tell at the moment.
    Anything else that it raises is answered 454 4.7.0; its text is withheld
    from client and log, because it may hold a secret.

Names
    All that a checker is given has been prepared by SASLprep (RFC 4013) as far
    as its mechanism says so. Identities are texts that are not empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface
from zope.interface.interface import InterfaceClass

if TYPE_CHECKING:
    from smtpfw.sasl.values import SASLContext, ServerInfo

__all__ = [
    "IAnonymousChecker",
    "IAuthorizer",
    "ICertificateChecker",
    "IPasswordChecker",
    "ISASLClient",
    "ISASLServer",
    "ISASLServerFactory",
    "ISCRAMKeyStore",
    "ISecretStore",
    "ITokenChecker",
]


class ISASLServer(Interface):
    """The server's side of one exchange. Made for one AUTH command, and dropped with it."""

    identity: str = Attribute("Who the client may act as: the authorization identity. Only there once it is done.")

    def next(response: bytes | None) -> Any:
        """
        Take the client's response, already decoded from base64.

        :param response: None only at the first call, if the client sent no initial response; an empty one is ``b""``.
        :return: a pair ``(challenge, done)``, or a Deferred or a coroutine of it. While ``done`` is false,
            ``challenge`` is what the client has to answer. When it is true, ``identity`` is set, and the challenge is
            None, or the server's last word: sent in a 334 whose answer must be empty, before the 235.
        :raises AuthFailed: 535 5.7.8, the credentials are wrong.
        :raises AuthMalformed: 501 5.5.2, the response is not what the mechanism says.
        :raises AuthUnavailable: 454 4.7.0, the checker is out of order. Its ``__cause__``, if it has one, is for
            the log, and holds no secret.

        Nothing but an :class:`~smtpfw.errors.SMTPError` is raised, whatever the client sends, except for
        ``CancelledError`` after what it returned was cancelled. After any of them the exchange is over.
        """


class ISASLServerFactory(Interface):
    """One mechanism, for all connections."""

    name: str = Attribute("As registered, in capitals: SCRAM-SHA-256.")
    needs: tuple[InterfaceClass, ...] = Attribute(
        "The checkers that it can work with; the listener's checker has to provide one of them."
    )
    plain_text: bool = Attribute("Whether the password, or a token as good as one, crosses the line as it is.")

    def available(context: SASLContext) -> bool:
        """Whether the connection has what the mechanism needs: a channel binding, or a certificate of the client's."""

    def make_server(checker: Any, context: SASLContext) -> ISASLServer:
        """Begin an exchange."""


class ISASLClient(Interface):
    """
    The client's side of a mechanism, with the credentials in it.

    Each exchange has a copy (:func:`copy.copy`) of its own, and begins it with ``start``: several connections log in at
    the same time.
    """

    def start(server_info: ServerInfo) -> tuple[str, bytes | None]:
        """
        Choose the mechanism, and say the first word.

        :return: the name for AUTH, and the initial response: None if the mechanism has none, ``b""`` if it is empty.
            Where it does not fit into the command, the caller keeps it for the first challenge.
        :raises LocalProtocolError: if the credentials must not be sent on this line; nothing has been sent.
        """

    def next(challenge: bytes, more: bool) -> bytes | None:
        """
        Go on.

        :param challenge: what came with a 334, decoded from base64; ``b""`` when the server is done.
        :param more: True for a 334. False for the 235: this call must not be left out, as here a server that skipped
            its part of the exchange is found out.
        :return: the response; None when ``more`` is false.
        :raises RemoteProtocolError: the server broke the rules, or could not prove that it knows the secret. The
            caller answers a 334 with ``*``, and does not go on after a 235.
        :raises AuthFailed: the server said within the exchange that it has failed.
        """


class IPasswordChecker(Interface):
    """Verifies a password that came over the line: PLAIN and LOGIN. A hash is enough for it."""

    def check_password(username: str, password: str) -> Any:
        """
        :return: the identity: ``username``, or the name that it is an alias of.
        :raises AuthFailed: if the user is unknown or the password is wrong, in the same words and after the same time.
        """


class ISecretStore(Interface):
    """Knows passwords in clear: CRAM-MD5 and SCRAM."""

    def get_secret(username: str) -> Any:
        """:return: the password, or None for a user that is unknown or may not log in."""


class ISCRAMKeyStore(Interface):
    """Knows the keys of SCRAM, which are no passwords."""

    scram_hashes: tuple[str, ...] = Attribute(
        "The hashes that it has keys of, as ``SHA-256``: SCRAM is offered with these. May be absent for all."
    )

    def get_scram_keys(username: str, hash_name: str) -> Any:
        """
        :param hash_name: as in the mechanism's name: ``SHA-256`` or ``SHA-1``.
        :return: :class:`~smtpfw.sasl.values.SCRAMKeys`, or None for a user that is unknown or may not log in.
        """


class ITokenChecker(Interface):
    """Verifies OAuth 2.0 bearer tokens: OAUTHBEARER and XOAUTH2."""

    def check_token(username: str, token: str) -> Any:
        """
        :param username: whom the client wants to act as; may be empty with OAUTHBEARER.
        :return: the identity that the token stands for.
        :raises AuthFailed: if the token is bad, or is not ``username``'s.
        """


class ICertificateChecker(Interface):
    """Knows whom a client's certificate stands for: EXTERNAL."""

    def check_certificate(certificate: Any, authorization_identity: str) -> Any:
        """
        :param certificate: a ``cryptography.x509.Certificate``; TLS has verified it already.
        :param authorization_identity: whom the client wants to act as; empty for "whoever the certificate says".
        :return: the identity.
        :raises AuthFailed: if it is nobody's, or does not allow to act as ``authorization_identity``.
        """


class IAnonymousChecker(Interface):
    """Lets clients in without credentials: ANONYMOUS."""

    def check_anonymous(trace: str) -> Any:
        """
        :param trace: what the client says of itself, for the log; often empty, and not to be believed.
        :return: the identity for such clients, as ``anonymous``.
        """


class IAuthorizer(Interface):
    """
    An extra ability of any checker: users may act for one another.

    Without it, an authorization identity that is not the user's own is refused.
    """

    def authorize(username: str, authorization_identity: str) -> Any:
        """
        :param username: the identity that has been verified.
        :param authorization_identity: whom it wants to act as.
        :raises AuthFailed: if it may not. What is returned does not count.
        """
