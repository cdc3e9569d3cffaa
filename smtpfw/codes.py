"""
The reply codes: those of RFC 5321, and of the extensions that we serve, by name and with their standard texts.

Each is an int, so it goes wherever a code does: ``SMTPError(ReplyCode.MAILBOX_UNAVAILABLE)``. The texts are those of
RFC 5321 section 4.2.3, without the names that they leave to be filled in. What smtpfw itself says is often more
precise, and stands where it is said: in :mod:`smtpfw.errors` and :mod:`smtpfw.wire.replies`.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ReplyCode", "standard_text"]


class ReplyCode(IntEnum):
    """
    A reply code.

    :ivar text: its standard text.
    """

    text: str

    # The text has a default for type checkers only: they take ReplyCode(550), a look-up, for a call of this.
    def __new__(cls, code: int, text: str = "") -> ReplyCode:
        member = int.__new__(cls, code)
        member._value_ = code
        member.text = text
        return member

    SYSTEM_STATUS = 211, "System status, or system help reply"
    HELP = 214, "Help message"
    SERVICE_READY = 220, "Service ready"
    SERVICE_CLOSING = 221, "Service closing transmission channel"
    OK = 250, "Requested mail action okay, completed"
    WILL_FORWARD = 251, "User not local; will forward"
    CANNOT_VERIFY = 252, "Cannot VRFY user, but will accept message and attempt delivery"
    START_MAIL_INPUT = 354, "Start mail input; end with <CRLF>.<CRLF>"
    SERVICE_NOT_AVAILABLE = 421, "Service not available, closing transmission channel"
    MAILBOX_BUSY = 450, "Requested mail action not taken: mailbox unavailable"
    LOCAL_ERROR = 451, "Requested action aborted: local error in processing"
    INSUFFICIENT_STORAGE = 452, "Requested action not taken: insufficient system storage"
    PARAMETERS_NOT_ACCOMMODATED = 455, "Server unable to accommodate parameters"
    COMMAND_UNRECOGNIZED = 500, "Syntax error, command unrecognized"
    SYNTAX_ERROR = 501, "Syntax error in parameters or arguments"
    COMMAND_NOT_IMPLEMENTED = 502, "Command not implemented"
    BAD_SEQUENCE = 503, "Bad sequence of commands"
    PARAMETER_NOT_IMPLEMENTED = 504, "Command parameter not implemented"
    MAILBOX_UNAVAILABLE = 550, "Requested action not taken: mailbox unavailable"
    USER_NOT_LOCAL = 551, "User not local; please try another address"
    STORAGE_EXCEEDED = 552, "Requested mail action aborted: exceeded storage allocation"
    MAILBOX_NAME_NOT_ALLOWED = 553, "Requested action not taken: mailbox name not allowed"
    TRANSACTION_FAILED = 554, "Transaction failed"
    UNKNOWN_PARAMETER = 555, "MAIL FROM/RCPT TO parameters not recognized or not implemented"

    # AUTH: RFC 4954 sections 4 and 6. STARTTLS (RFC 3207 section 4) has 454 and 530, too.
    AUTH_SUCCEEDED = 235, "Authentication succeeded"
    AUTH_CHALLENGE = 334, "Server challenge"
    PASSWORD_TRANSITION_NEEDED = 432, "A password transition is needed"
    TEMPORARY_AUTH_FAILURE = 454, "Temporary authentication failure"
    AUTH_REQUIRED = 530, "Authentication required"
    MECHANISM_TOO_WEAK = 534, "Authentication mechanism is too weak"
    AUTH_FAILED = 535, "Authentication credentials invalid"
    ENCRYPTION_REQUIRED = 538, "Encryption required for requested authentication mechanism"

    # A host or a domain that takes no mail at all (RFC 7504).
    HOST_TAKES_NO_MAIL = 521, "Host does not accept mail"
    DOMAIN_TAKES_NO_MAIL = 556, "Domain does not accept mail"


#: RFC 5321 section 4.2.1: what the first digit says, for codes that nobody has registered.
_CLASSES = {
    2: "Requested action completed",
    3: "More information is needed to go on",
    4: "Requested action not taken, try again later",
    5: "Requested action not taken",
}


def standard_text(code: int) -> str:
    """
    The text that belongs to a code; for one that is not registered, what its first digit says.

    :raises ValueError: if it is no reply code, which are 200 to 599.
    """
    if not 200 <= code <= 599:
        raise ValueError(f"a reply code is 200 to 599, not {code}")
    try:
        return ReplyCode(code).text
    except ValueError:
        return _CLASSES[code // 100]
