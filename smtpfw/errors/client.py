"""
What can go wrong for a client: who, at which step, and whether trying again makes sense.

Rule 1: each says the *phase* (what was asked when it happened) and the *peer*.

Rule 2: between "delivered" and "not delivered" there is "nobody knows": what is
lost behind the end of a message is an :class:`UnknownOutcome`, never a failure
and never a success. Whoever sends it again may deliver it twice; whoever does
not may lose it.

Rule 3: what was asked for and cannot be said on the wire is refused before
anything is sent: :class:`ExtensionMissing`, or a LocalProtocolError.
"""

from __future__ import annotations

from typing import Any

from smtpfw.errors.faults import RemoteProtocolError
from smtpfw.errors.refusals import (
    ENHANCED_CODE_NOT_SET,
    DataTooLarge,
    DeliveryTimeExpired,
    NamedSMTPError,
    SMTPError,
    SyntaxProblem,
    TooManyRecipients,
)

__all__ = [
    "BrokenPeer",
    "ClientError",
    "ConnectionFailed",
    "ExtensionMissing",
    "HeldTooLongForPeer",
    "Refused",
    "TLSFailed",
    "TimedOut",
    "TooLargeForPeer",
    "TooManyForPeer",
    "TooSoonForPeer",
    "UnknownOutcome",
]

#: RFC 5321 section 4.5.3.1.10: 552 to RCPT means that there were too many, as 452 does.
_TOO_MANY = 552


#: Characters of what a peer says that stand in an error. Refusals have one line of them, seldom three.
_MAX_SHOWN = 500


def _in_one_line(text: str) -> str:
    """On one line, printable, and not too long: it goes into logs, and what it says may be the peer's choice."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:_MAX_SHOWN])
    return f"{shown} ..." if len(text) > _MAX_SHOWN else shown


class ClientError(Exception):
    """
    Base of all that a client reports of its peer.

    :ivar phase: ``CONNECT``, ``GREETING``, ``EHLO``, ``STARTTLS``, ``TLS``, ``AUTH``, ``MAIL``, ``RCPT``, ``DATA``,
        ``BODY`` (the message is on its way), ``END`` (all of it was sent), another verb; empty when nothing was asked.
    :ivar peer: whom it was asked, as text.
    :ivar result: what became of each recipient, a :class:`~smtpfw.wire.results.SendResult`; None if it was no message.
    """

    phase: str = ""
    peer: str = ""
    result: Any = None

    def __init__(self, message: str = "", *, phase: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.phase = phase
        self.peer = peer

    @property
    def temporary(self) -> bool:
        """Whether trying again later makes sense."""
        return True

    def __str__(self) -> str:
        where = f"{self.phase}: " if self.phase else ""
        return f"{self.peer or 'the peer'}: {where}{_in_one_line(str(self.args[0]))}"


class Refused(ClientError, SMTPError):
    """
    The peer has said no.

    :ivar reply: what it said, a :class:`~smtpfw.wire.replies.Reply`.
    """

    def __init__(self, reply: Any, *, phase: str = "", peer: str = "") -> None:
        SMTPError.__init__(self, reply.code, reply.enhanced_code, reply.text)
        self.reply = reply
        self.phase = phase
        self.peer = peer

    @property
    def temporary(self) -> bool:
        """Whether the peer says so, by its class of reply; and 552 to RCPT is "too many for now"."""
        return self.code < 500 or (self.code == _TOO_MANY and self.phase == "RCPT")

    def __str__(self) -> str:
        said = _in_one_line(SMTPError.__str__(self))
        return f"{self.peer or 'the peer'} refused {self.phase or 'the connection'}: {said}"


class ExtensionMissing(ClientError, SMTPError):
    """
    The message needs an extension that the peer does not offer; nothing of it has been sent.

    :ivar keyword: of the extension.
    """

    code = 554
    enhanced_code = ENHANCED_CODE_NOT_SET

    def __init__(
        self,
        keyword: str,
        why: str,
        *,
        code: int = 554,
        enhanced_code: tuple[int, int, int] = (5, 3, 3),
        peer: str = "",
    ) -> None:
        SMTPError.__init__(self, code, enhanced_code, f"The next server does not offer {keyword}: {why}")
        self.keyword = keyword
        self.phase = "MAIL"
        self.peer = peer

    @property
    def temporary(self) -> bool:
        """It is not: another server would have to be asked."""
        return False

    def __str__(self) -> str:
        return f"{self.peer or 'the peer'}: {self.message}"


class _Beforehand(ClientError):
    """What a peer has said of itself is in the way; nothing has been sent."""

    message: str

    def __init__(self, message: str | None = None) -> None:
        NamedSMTPError.__init__(self, message)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.peer or 'the peer'}: {self.message}"


class TooLargeForPeer(_Beforehand, DataTooLarge):
    """The message has more octets than the peer takes, by its SIZE; nothing of it has been sent."""

    phase = "MAIL"
    temporary = SMTPError.temporary


class TooManyForPeer(_Beforehand, TooManyRecipients):
    """The message has more recipients than the peer takes at a time, by its LIMITS; this one was not said."""

    phase = "RCPT"
    temporary = SMTPError.temporary


class TooSoonForPeer(_Beforehand, DeliveryTimeExpired):
    """The message is to be returned earlier than the peer promises, by its DELIVERBY; nothing of it has been sent."""

    phase = "MAIL"
    temporary = SMTPError.temporary


class HeldTooLongForPeer(_Beforehand, SyntaxProblem):
    """The message is to be held for longer than the peer does, by its FUTURERELEASE; nothing of it has been sent."""

    phase = "MAIL"
    temporary = SMTPError.temporary


class ConnectionFailed(ClientError):
    """There is no connection, or none any more; what was under way has certainly not been delivered."""


class TimedOut(ConnectionFailed):
    """The peer was silent for longer than the phase allows; the connection is closed."""


class TLSFailed(ConnectionFailed):
    """TLS was asked for, and the line has not become safe: nothing else was said on it."""


class BrokenPeer(ConnectionFailed, RemoteProtocolError):
    """The peer sent what the protocol does not allow; the connection is closed."""


class UnknownOutcome(ClientError):
    """The connection was lost after the end of the message: it has been delivered or not, nobody knows."""
