"""
Forward-confirmed reverse DNS: whether the name of an address leads back to it (RFC 8601 section 3, "iprev").

It does not say that a client is good, only that whoever owns the address and
whoever owns the name agree: most machines that were taken over have no such
name, and every honest mail server can have one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.names import dns

from smtpfw.dns.questions import NotKnown, look_up, reverse_names
from smtpfw.policies.client_lookup import PASS, UNKNOWN, ClientLookUp, Verdict, check_choice

__all__ = ["ReverseDNS"]

NAME, CONFIRMED = "name", "confirmed"

#: Names of one address that are looked at. RFC 8601 section 3 asks for a bound: the client's side chooses them.
MAX_NAMES = 5


class ReverseDNS(ClientLookUp):
    """
    Refuse clients with 450 4.7.25, when they connect 421 4.7.25, whose address has no name (RFC 7372 section 3.3).

    They are told to come back, for a name may be mended, and a resolver that is out of order says that nobody has one.

    :param require: ``name`` for any name, or ``confirmed`` for one whose addresses have the client's among them.
    :param permanent: refuse them for good, with 550 5.7.25, when they connect 554.
    :param settings: those of :class:`~smtpfw.policies.client_lookup.ClientLookUp`: ``at``, ``unknown``, ``timeout``,
        ``except_networks``, ``resolver``.
    :raises ValueError: for a word or a number that is none, or what is no network.
    """

    def __init__(self, *, require: str = CONFIRMED, permanent: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.require = check_choice("require", require, (NAME, CONFIRMED))
        if permanent:
            self.enhanced_code = (5, 7, 25)
        else:
            # Postfix unknown_client_reject_code 450.
            self.code_at_connect, self.code, self.enhanced_code = 421, 450, (4, 7, 25)

    async def ask(self, address: IPv4Address | IPv6Address, resolver: Any, clock: IReactorTime) -> Verdict:
        """See :meth:`ClientLookUp.ask`."""
        deadline = clock.seconds() + self.timeout
        try:
            names = await reverse_names(resolver, address, clock=clock, timeout=self.timeout)
        except NotKnown as error:
            return self._nobody_knows(address, error, clock)
        if not names:
            return Verdict(f"Your address {address} has no name in DNS")
        if self.require == NAME:
            return PASS
        type = dns.A if address.version == 4 else dns.AAAA
        doubt: NotKnown | None = None
        for name in names[:MAX_NAMES]:
            try:
                found = await look_up(resolver, name, type, clock=clock, timeout=deadline - clock.seconds())
            except NotKnown as error:
                doubt = error
            else:
                if any(ip_address(record.address) == address for record in found.records):
                    return PASS
        if doubt is not None:
            return self._nobody_knows(address, doubt, clock)
        return Verdict(f"The name of your address {address} in DNS, {names[0]}, does not lead back to it")

    def _nobody_knows(self, address: IPv4Address | IPv6Address, error: NotKnown, clock: IReactorTime) -> Verdict:
        self._warn("", clock, "reverse DNS of {address}: {trouble}", address=address, trouble=error)
        return UNKNOWN

    def describe(self) -> str:
        """What it does, in words."""
        which = "no name in DNS" if self.require == NAME else "no name in DNS that leads back to it"
        return f"Clients whose address has {which} {self._words()}"

    def __repr__(self) -> str:
        return f"ReverseDNS(require={self.require!r}, at={self.at!r}, unknown={self.unknown!r})"
