"""
Who has authenticated sends under its own addresses only (RFC 6409 section 6.1).

Rule 1: an address belongs to a user by its name, or because ``owners`` says so.

Rule 2: ASCII letters are compared in any case, all other characters as they
are: what looks the same to Unicode may be two users.

Rule 3: the null sender belongs to everybody. Mail programs send read receipts
with it, and must (RFC 8098 section 3); and nobody is impersonated by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.policies.clients import fold_case
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["SenderBelongsToLogin"]

#: Identity -> its addresses and domains (``@example.org``); one text, several, or None for no others.
Owned = str | Iterable[str] | None


class SenderBelongsToLogin(Check):
    """
    MAIL with a sender that does not belong to the authenticated user gets 553 5.7.1.

    A user whose name is an address has that address; one with another name has that name in each of ``domains``.
    Who has not authenticated may use any sender: :class:`~smtpfw.policies.RequireAuth` sees to that.

    :param owners: what else belongs to whom: a mapping from the identity to an address, a domain (``@example.org``) or
        several of them; or a plain or async function that gives the same, or None.
    :param domains: those of users whose names are no addresses.
    """

    def __init__(
        self,
        owners: Mapping[str, Owned] | Callable[[str], Any] | None = None,
        *,
        domains: Iterable[str] | str = (),
    ) -> None:
        self._owners: Callable[[str], Any] | None = owners.get if isinstance(owners, Mapping) else owners
        given = [domains] if isinstance(domains, str) else domains
        self.domains = tuple(fold_case(domain.removeprefix("@")) for domain in given)

    def mail(self, connection: IConnection, sender: Address, options: Options) -> Any:
        """See :meth:`ICheck.mail`."""
        identity = connection.identity
        if not identity or not sender or self._has_by_name(identity, sender):
            return None
        if self._owners is None:
            raise _refusal(sender)
        return self._ask(self._owners, identity, sender)

    async def _ask(self, owners: Callable[[str], Any], identity: str, sender: Address) -> None:
        owned = owners(identity)
        if isawaitable(owned):
            owned = await owned
        given = [owned] if isinstance(owned, str) else owned or ()
        if not any(_holds(entry, sender) for entry in given):
            raise _refusal(sender)

    def _has_by_name(self, identity: str, sender: Address) -> bool:
        if "@" in identity:
            return _is_address(identity, sender)
        return _same(identity, sender.local_part) and fold_case(sender.domain) in self.domains

    def describe(self) -> str:
        """What it does, in words."""
        domains = f", names without a domain have theirs in {', '.join(self.domains)}" if self.domains else ""
        return f"Authenticated clients send under their own addresses only{domains}"

    def __repr__(self) -> str:
        owners = "" if self._owners is None else "owners=..., "
        return f"SenderBelongsToLogin({owners}domains={self.domains!r})"


def _holds(entry: str, sender: Address) -> bool:
    """Whether an address, or a domain with ``@`` before it, is that of the sender."""
    if entry.startswith("@"):
        return bool(sender.domain) and _same(entry[1:], sender.domain)
    return _is_address(entry, sender)


def _is_address(text: str, sender: Address) -> bool:
    try:
        address = Address.parse(text)
    except ValueError:
        # An identity of another form, with an @ in it.
        return False
    return _same(address.local_part, sender.local_part) and _same(address.domain, sender.domain)


def _same(one: str, other: str) -> bool:
    return fold_case(one) == fold_case(other)


def _refusal(sender: Address) -> SMTPError:
    return SMTPError(553, (5, 7, 1), f"Sender address <{sender}> is not yours")
