"""
Addresses and parameters as callers write them, and the values that travel on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from smtpfw.errors import LocalProtocolError
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS, Options, Parameter
from smtpfw.wire.transaction import Recipient

__all__ = ["AnyAddress", "AnyOptions", "AnyRecipient", "address_of", "options_of", "recipients_of"]

AnyAddress = str | Address
AnyRecipient = str | Address | Recipient

#: Parameters of MAIL or RCPT: ``{RET: "HDRS"}``, or those of another transaction.
AnyOptions = Mapping[Parameter[Any], Any] | Options | None


def address_of(address: AnyAddress) -> Address:
    """
    Read an address: ``joe@example.org``, without brackets; an empty text is the null sender.

    :raises LocalProtocolError: if it is none, and would say something else on the wire.
    """
    if isinstance(address, Address):
        return address
    if not isinstance(address, str):
        raise TypeError(f"an address is a str or an Address, not {type(address).__name__}")
    return _parse(address)


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
    if isinstance(one, Recipient):
        recipient = Recipient(address_of(one.address), options_of(one.options))
    else:
        recipient = Recipient(address_of(one), NO_OPTIONS)
    if not recipient.address:
        raise LocalProtocolError("the null sender is no recipient")
    return recipient


def options_of(options: AnyOptions) -> Options:
    """
    Read parameters of MAIL or RCPT.

    :raises TypeError: for what is no mapping of parameters.
    """
    if isinstance(options, Options):
        return options
    if not options:
        return NO_OPTIONS
    if not isinstance(options, Mapping):
        raise TypeError(f'options are {{parameter: value}}, as {{RET: "HDRS"}}, not {type(options).__name__}')
    for parameter in options:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{parameter!r} is no parameter; each extension has its own, as smtpfw.extensions.dsn.RET")
    return Options.of(options)
