"""
Refusals: what can go wrong, and the reply that says so.

Rule 1: an :class:`SMTPError` *is* a reply. A backend raises one to refuse; a
client receives one when a server refused. Nothing else in a backend's
exception ever reaches the peer: any other class is answered 451 4.3.0 with a
fixed text, and its traceback goes to the log.

Rule 2: the named children carry their codes on the class, so that raising one
needs no numbers: ``raise MailboxUnavailable("we have no such user")``.

Rule 3: nothing of smtpfw is imported here but the codes and their texts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from smtpfw.codes import standard_text

__all__ = [
    "ENHANCED_CODE_NOT_SET",
    "NO_ENHANCED_CODE",
    "AddressDenied",
    "AuthCancelled",
    "AuthFailed",
    "AuthMalformed",
    "AuthRequired",
    "AuthUnavailable",
    "AuthUnsupported",
    "BadDestination",
    "BadRecipientSyntax",
    "BadSenderSyntax",
    "BadSequence",
    "DataTooLarge",
    "DeliveryTimeExpired",
    "DomainOwnerChanged",
    "EncryptionRequired",
    "EnhancedCode",
    "ForwardingFailed",
    "IdleTimeout",
    "InsufficientStorage",
    "LineTooLong",
    "LookupFailed",
    "MailboxOwnerChanged",
    "MailboxUnavailable",
    "MalformedLines",
    "MechanismUnknown",
    "NamedSMTPError",
    "NoRoute",
    "NullMX",
    "OwnerUnknown",
    "RateExceeded",
    "RelayDenied",
    "SMTPError",
    "SenderDenied",
    "ServiceNotAvailable",
    "SyntaxProblem",
    "TLSRequired",
    "TooManyErrors",
    "TooManyRecipients",
    "TransactionFailed",
    "TryAgainLater",
    "UnknownParameter",
]


class EnhancedCode(NamedTuple):
    """
    An enhanced mail system status code, ``class.subject.detail`` (RFC 3463).

    The class (2, 4 or 5) must be the first digit of the reply's code.
    """

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    @classmethod
    def parse(cls, text: str) -> EnhancedCode:
        """
        Read ``5.1.1``.

        :raises ValueError: if it is not three numbers of the ranges that RFC 3463 section 2 allows.
        """
        parts = text.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
            raise ValueError(f"not an enhanced status code: {text!r}")
        klass, subject, detail = map(int, parts)
        if klass not in (2, 4, 5):
            raise ValueError(f"the class of an enhanced status code is 2, 4 or 5: {text!r}")
        return cls(klass, subject, detail)


#: Send no enhanced code, as in the greeting, the answer to EHLO, and 3xx replies.
NO_ENHANCED_CODE = EnhancedCode(-1, -1, -1)

#: Derive ``X.0.0`` from the first digit of the reply's code.
ENHANCED_CODE_NOT_SET = EnhancedCode(0, 0, 0)


class SMTPError(Exception):
    """
    A refusal: a reply of class 4 (try again) or 5 (don't).

    :param code: the reply code, 400 to 599.
    :param enhanced_code: ``(class, subject, detail)`` or a text like ``5.7.1``; by default derived from ``code``.
    :param message: the text behind the codes; by default the standard text of ``code``. Line breaks make a multi-line
        reply; control characters are stripped when it is written.

    :ivar result: what became of each recipient of a message that a client could not send, a
        :class:`~smtpfw.wire.results.SendResult`; None otherwise.
    """

    code: int = 451
    enhanced_code: EnhancedCode = ENHANCED_CODE_NOT_SET
    message: str = "Requested action aborted: local error in processing"
    result: Any = None

    def __init__(
        self,
        code: int | None = None,
        enhanced_code: tuple[int, int, int] | str | None = None,
        message: str | None = None,
    ) -> None:
        if isinstance(enhanced_code, str):
            enhanced_code = EnhancedCode.parse(enhanced_code)
        if code is not None:
            if not 400 <= code <= 599:
                raise ValueError(f"an SMTPError is a refusal, so its code is 400 to 599, not {code}")
            self.code = code
        if enhanced_code is not None:
            self.enhanced_code = EnhancedCode(*enhanced_code)
        elif code is not None:
            self.enhanced_code = ENHANCED_CODE_NOT_SET
        if self.enhanced_code.klass > 0 and self.enhanced_code.klass != self.code // 100:
            # RFC 2034 section 4: the classes of the two codes must agree.
            raise ValueError(f"enhanced code {self.enhanced_code} does not belong to the class of {self.code}")
        if message is not None:
            self.message = message
        elif code is not None:
            self.message = standard_text(code)
        super().__init__(self.code, self.enhanced_code, self.message)

    @property
    def temporary(self) -> bool:
        """Whether trying again later makes sense (class 4)."""
        return self.code < 500

    def __str__(self) -> str:
        if self.enhanced_code.klass > 0:
            return f"{self.code} {self.enhanced_code} {self.message}"
        return f"{self.code} {self.message}"


class NamedSMTPError(SMTPError):
    """An :class:`SMTPError` whose codes stand on the class; only the text may differ."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message=message)


class ServiceNotAvailable(NamedSMTPError):
    """The server is full or stopping; the connection is closed after this reply."""

    code = 421
    enhanced_code = EnhancedCode(4, 3, 2)
    message = "Service not available, closing transmission channel"


class TooManyErrors(NamedSMTPError):
    """The peer made more mistakes than the limit allows; the connection is closed."""

    code = 421
    enhanced_code = EnhancedCode(4, 7, 0)
    message = "Too many errors, closing transmission channel"


class IdleTimeout(NamedSMTPError):
    """The peer was silent, or too slow, for longer than its time limit; the connection is closed."""

    code = 421
    enhanced_code = EnhancedCode(4, 4, 2)
    message = "Timeout, closing transmission channel"


class RateExceeded(NamedSMTPError):
    """This client sends more often than it may; later it may again."""

    code = 450
    enhanced_code = EnhancedCode(4, 7, 1)
    message = "Rate limit exceeded, try again later"


class TryAgainLater(NamedSMTPError):
    """Something on our side is out of order for the moment."""

    code = 451
    enhanced_code = EnhancedCode(4, 3, 0)
    message = "Try again later"


class ForwardingFailed(NamedSMTPError):
    """
    The next hop could not be asked: no connection, or a lost one.

    Temporary, as RFC 5321 section 4.5.4.1 has it: whoever sends tries again. What a next hop has answered is passed on
    as the :class:`SMTPError` that it is.
    """

    code = 451
    enhanced_code = EnhancedCode(4, 4, 0)
    message = "Forwarding failed, try again later"


class LookupFailed(NamedSMTPError):
    """DNS did not say where a domain takes its mail: a timeout, a failing server (RFC 5321 section 5.1: queue it)."""

    code = 451
    enhanced_code = EnhancedCode(4, 4, 3)
    message = "Domain lookup failed, try again later"


class InsufficientStorage(NamedSMTPError):
    """No room at the moment: disk or memory."""

    code = 452
    enhanced_code = EnhancedCode(4, 3, 1)
    message = "Insufficient system storage"


class TooManyRecipients(NamedSMTPError):
    """This transaction takes no more recipients; the client sends the rest in another (RFC 5321 section 4.5.3.1.10)."""

    code = 452
    enhanced_code = EnhancedCode(4, 5, 3)
    message = "Too many recipients"


class AuthUnavailable(NamedSMTPError):
    """What verifies credentials is out of order for the moment (RFC 4954 section 6)."""

    code = 454
    enhanced_code = EnhancedCode(4, 7, 0)
    message = "Temporary authentication failure"


class SyntaxProblem(NamedSMTPError):
    """A known command with a bad argument."""

    code = 501
    enhanced_code = EnhancedCode(5, 5, 4)
    message = "Syntax error in parameters or arguments"


class BadSenderSyntax(NamedSMTPError):
    """The reverse-path of MAIL is no address."""

    code = 501
    enhanced_code = EnhancedCode(5, 1, 7)
    message = "Bad sender address syntax"


class BadRecipientSyntax(NamedSMTPError):
    """The forward-path of RCPT is no address."""

    code = 501
    enhanced_code = EnhancedCode(5, 1, 3)
    message = "Bad recipient address syntax"


class AuthMalformed(NamedSMTPError):
    """A response of the client's that is no base64, or not what its mechanism says (RFC 4954 section 4)."""

    code = 501
    enhanced_code = EnhancedCode(5, 5, 2)
    message = "Cannot decode response"


class AuthCancelled(NamedSMTPError):
    """The client gave up with ``*`` (RFC 4954 section 4)."""

    code = 501
    enhanced_code = EnhancedCode(5, 7, 0)
    message = "Authentication cancelled"


class AuthUnsupported(NamedSMTPError):
    """Nobody can authenticate here (RFC 5321 section 4.2.4: 502 is for a command that is known and not served)."""

    code = 502
    enhanced_code = EnhancedCode(5, 5, 1)
    message = "Authentication not supported"


class BadSequence(NamedSMTPError):
    """A known command at the wrong moment."""

    code = 503
    enhanced_code = EnhancedCode(5, 5, 1)
    message = "Bad sequence of commands"


class MechanismUnknown(NamedSMTPError):
    """A SASL mechanism that is not offered (RFC 4954 section 4)."""

    code = 504
    enhanced_code = EnhancedCode(5, 5, 4)
    message = "Unrecognized authentication type"


class AuthRequired(NamedSMTPError):
    """MAIL before the authentication that this listener requires (RFC 4954 section 6)."""

    code = 530
    enhanced_code = EnhancedCode(5, 7, 0)
    message = "Authentication required"


class TLSRequired(NamedSMTPError):
    """A command that has to wait for TLS (RFC 3207 section 4)."""

    code = 530
    enhanced_code = EnhancedCode(5, 7, 0)
    message = "Must issue a STARTTLS command first"


class AuthFailed(NamedSMTPError):
    """The credentials do not verify, or do not allow to act for whom they should (RFC 4954 section 6)."""

    code = 535
    enhanced_code = EnhancedCode(5, 7, 8)
    message = "Authentication credentials invalid"


class EncryptionRequired(NamedSMTPError):
    """AUTH on a line that is in clear (RFC 4954 section 6)."""

    code = 538
    enhanced_code = EnhancedCode(5, 7, 11)
    message = "Encryption required for requested authentication mechanism"


class MailboxUnavailable(NamedSMTPError):
    """The recipient is not known here."""

    code = 550
    enhanced_code = EnhancedCode(5, 1, 1)
    message = "No such mailbox here"


class BadDestination(NamedSMTPError):
    """The domain of a recipient does not exist, or has neither an MX record nor an address (RFC 5321 section 5.1)."""

    code = 550
    enhanced_code = EnhancedCode(5, 1, 2)
    message = "Bad destination domain"


class NoRoute(NamedSMTPError):
    """The domain has MX records, and none of them leads to an address (RFC 5321 section 5.1)."""

    code = 550
    enhanced_code = EnhancedCode(5, 4, 4)
    message = "No usable mail exchanger"


class DeliveryTimeExpired(NamedSMTPError):
    """The message can't be delivered in the time that DELIVERBY leaves it (RFC 2852 section 4.1.3)."""

    code = 550
    enhanced_code = EnhancedCode(5, 4, 7)
    message = "Delivery time expired"


class RelayDenied(NamedSMTPError):
    """We do not carry mail for this sender or recipient."""

    code = 550
    enhanced_code = EnhancedCode(5, 7, 1)
    message = "Relaying denied"


class SenderDenied(NamedSMTPError):
    """This sender may not send here."""

    code = 550
    enhanced_code = EnhancedCode(5, 7, 1)
    message = "Sender address denied"


class MailboxOwnerChanged(NamedSMTPError):
    """The mailbox has another owner than at the time that RRVS names (RFC 7293 section 15.3)."""

    code = 550
    enhanced_code = EnhancedCode(5, 7, 17)
    message = "Mailbox owner has changed"


class DomainOwnerChanged(NamedSMTPError):
    """The domain has another owner than at the time that RRVS names (RFC 7293 section 15.3)."""

    code = 550
    enhanced_code = EnhancedCode(5, 7, 18)
    message = "Domain owner has changed"


class OwnerUnknown(NamedSMTPError):
    """Nobody here knows whose the mailbox was at the time that RRVS names (RFC 7293 section 15.3)."""

    code = 550
    enhanced_code = EnhancedCode(5, 7, 19)
    message = "RRVS test cannot be completed"


class MalformedLines(NamedSMTPError):
    """A bare CR or a bare LF in a text body, under the ``reject`` policy (RFC 5321 section 2.3.8)."""

    code = 550
    enhanced_code = EnhancedCode(5, 6, 11)
    message = "Message refused, lines must end in CRLF"


class LineTooLong(NamedSMTPError):
    """A line of the body over the limit (RFC 5321 section 4.5.3.1.6)."""

    code = 550
    enhanced_code = EnhancedCode(5, 6, 0)
    message = "Message refused, a line is too long"


class DataTooLarge(NamedSMTPError):
    """More octets than ``max_message_bytes`` (RFC 1870 section 6)."""

    code = 552
    enhanced_code = EnhancedCode(5, 3, 4)
    message = "Message size exceeds the limit"


class UnknownParameter(NamedSMTPError):
    """A parameter of MAIL or RCPT that is unknown, or not offered on this connection (RFC 5321 section 4.1.1.11)."""

    code = 555
    enhanced_code = EnhancedCode(5, 5, 4)
    message = "Parameter not recognized or not implemented"


class AddressDenied(NamedSMTPError):
    """Clients from this address are not served (RFC 5321 section 3.1: 554 in the place of a greeting)."""

    code = 554
    enhanced_code = EnhancedCode(5, 7, 1)
    message = "Access denied for your address"


class TransactionFailed(NamedSMTPError):
    """The message is refused for good."""

    code = 554
    enhanced_code = EnhancedCode(5, 0, 0)
    message = "Transaction failed"


class NullMX(NamedSMTPError):
    """The domain says by its MX record that it takes no mail at all (RFC 7505 section 4.1)."""

    code = 556
    enhanced_code = EnhancedCode(5, 1, 10)
    message = "Domain does not accept mail"
