"""
What became of a message, for each of its recipients.
"""

from __future__ import annotations

from smtpfw.wire.replies import Reply
from smtpfw.wire.transaction import Recipient

__all__ = ["RecipientResult", "SendResult"]


class RecipientResult:
    """
    :ivar recipient: address and options.
    :ivar reply: what the peer said of this recipient: in SMTP to RCPT, in LMTP to the message, or to RCPT if that was
        refused; None if it said nothing.
    :ivar error: why the message has not got there, or why nobody knows
        (:class:`~smtpfw.errors.UnknownOutcome`); None if the peer has taken it over.
    """

    __slots__ = ("error", "recipient", "reply")

    def __init__(self, recipient: Recipient) -> None:
        self.recipient = recipient
        self.reply: Reply | None = None
        self.error: Exception | None = None

    @property
    def accepted(self) -> bool:
        """Whether the peer has taken the message over for this recipient."""
        return self.error is None

    def __repr__(self) -> str:
        return f"<{self.recipient}: {self.error or self.reply}>"


class SendResult:
    """
    :ivar recipients: a :class:`RecipientResult` for each, in the order in which they were given.
    :ivar reply: the answer to the message; None if there was none, and in LMTP, where each recipient has one.
    """

    __slots__ = ("recipients", "reply")

    def __init__(self, recipients: list[RecipientResult], reply: Reply | None) -> None:
        self.recipients = recipients
        self.reply = reply

    @property
    def accepted(self) -> list[RecipientResult]:
        """Those whom the peer has taken the message over for."""
        return [result for result in self.recipients if result.error is None]

    @property
    def refused(self) -> list[RecipientResult]:
        """The others."""
        return [result for result in self.recipients if result.error is not None]

    @property
    def text(self) -> str:
        """What the peer said at last: often it names the message in its queue."""
        if self.reply is not None:
            return self.reply.text
        replies = [result.reply for result in self.recipients if result.error is None and result.reply is not None]
        return replies[0].text if replies else ""

    def __repr__(self) -> str:
        return f"SendResult({self.recipients!r}, {self.reply!r})"
