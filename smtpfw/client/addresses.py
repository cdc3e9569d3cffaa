"""
Addresses as callers write them, and the values that travel on.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpfw.errors import LocalProtocolError
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS
from smtpfw.wire.transaction import Recipient

__all__ = ["AnyAddress", "AnyRecipient", "address_of", "recipients_of"]

AnyAddress = str | Address
AnyRecipient = str | Address | Recipient


def address_of(address: AnyAddress) -> Address:
    """
    Read an address: ``joe@example.org``, without brackets; an empty text is the null sender.

    :raises LocalProtocolError: if it is none, and would say something else on the wire.
    """
    if isinstance(address, Address):
        return address
    try:
        return Address.parse(address)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from None


def recipients_of(recipients: AnyRecipient | Iterable[AnyRecipient]) -> list[Recipient]:
    """
    Read recipients, one or several.

    :raises LocalProtocolError: if one is no address, or there is none.
    """
    if isinstance(recipients, str | Address | Recipient):
        recipients = (recipients,)
    found = [one if isinstance(one, Recipient) else Recipient(address_of(one), NO_OPTIONS) for one in recipients]
    if not found:
        raise LocalProtocolError("a message needs a recipient")
    for one in found:
        if not one.address:
            raise LocalProtocolError("the null sender is no recipient")
    return found
