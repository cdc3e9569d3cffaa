"""
Addresses as callers write them, and the values that travel on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

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
    return address if isinstance(address, Address) else _parse(address)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise LocalProtocolError(str(error)) from None


def recipients_of(recipients: AnyRecipient | Iterable[AnyRecipient]) -> list[Recipient]:
    """
    Read recipients, one or several.

    :raises LocalProtocolError: if one is no address, or there is none.
    """
    if isinstance(recipients, _ONE):
        recipients = (recipients,)
    found = [_recipient_of(one) if type(one) is str else _as_recipient(one) for one in recipients]
    if not found:
        raise LocalProtocolError("a message needs a recipient")
    return found


_ONE = (str, Address, Recipient)


@lru_cache(maxsize=1024)
def _recipient_of(text: str) -> Recipient:
    return _as_recipient(_parse(text))


def _as_recipient(one: AnyRecipient) -> Recipient:
    recipient = one if isinstance(one, Recipient) else Recipient(address_of(one), NO_OPTIONS)
    if not recipient.address:
        raise LocalProtocolError("the null sender is no recipient")
    return recipient
