"""
From what callers give to a message that can be sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.message import Message
from typing import Any

from smtpfw.client import bodies
from smtpfw.client.addresses import AnyAddress, AnyOptions, AnyRecipient, address_of, options_of, recipients_of
from smtpfw.wire.message import OutgoingMessage

__all__ = ["AnyRecipients", "outgoing_message"]

AnyRecipients = AnyRecipient | Iterable[AnyRecipient]


def outgoing_message(
    sender: AnyAddress | None, recipients: AnyRecipients | None, body: Any, options: AnyOptions = None
) -> OutgoingMessage:
    """
    Make a message; the arguments are those of :func:`~smtpfw.client.send_mail`.

    :raises LocalProtocolError: for an address that is none.
    :raises TypeError: for a body of an unknown kind, or a missing address.
    :raises ValueError: if the header of an ``email.message.Message`` does not say who sends it, and to whom.
    """
    if isinstance(body, Message):
        sender = bodies.sender_of(body) if sender is None else sender
        recipients = bodies.recipients_of(body) if recipients is None else recipients
    if sender is None or recipients is None:
        raise TypeError("sender and recipients may be left out with an email.message.Message only")
    return OutgoingMessage(
        address_of(sender), recipients_of(recipients), bodies.outgoing_body(body), options_of(options)
    )
