"""
Which hosts take mail for a domain, when nobody has told us of a smarthost.

By RFC 5321 section 5.1.

Rule: whoever owns a domain says where its mail goes, and may be an attacker:
hosts of this machine and of private networks are left out, for behind them
stand servers that trust whoever reaches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from smtpfw.backends.relay.ourselves import without_ourselves
from smtpfw.client import Connector, Destination, look_up_mx
from smtpfw.errors import NoRoute
from smtpfw.interfaces import IConnection

__all__ = ["MailExchangers", "is_public"]

SMTP_PORT = 25

#: How many addresses are tried for a message; RFC 5321 section 5.1: at least two; Postfix smtp_mx_address_limit 5.
MAX_ADDRESSES = 5

#: RFC 6052 section 2.1, RFC 4291 section 2.5.5.1: an IPv4 address stands in the last 32 bits.
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))

#: What Python takes for global, and is not: translation of a site's own (RFC 8215), where nobody knows in which bits an
#: IPv4 address stands; IPv4-translated (RFC 7915); site-local (RFC 3879); for documentation (RFC 9637); of segment
#: routing (RFC 9602).
_NOT_PUBLIC = tuple(map(IPv6Network, ("64:ff9b:1::/48", "::ffff:0:0:0/96", "fec0::/10", "3fff::/20", "5f00::/16")))


class MailExchangers:
    """
    :param connector: how to connect; its destination is replaced.
    :param resolver: whom to ask; None for the system's, as in :func:`~smtpfw.client.look_up_mx`.
    :param clock: gives who tells the time.
    :param allow_private: whether hosts that are not public may be asked.
    :param port: where they listen.
    """

    def __init__(
        self,
        connector: Connector,
        resolver: Any,
        clock: Callable[[], Any],
        *,
        allow_private: bool = False,
        port: int = SMTP_PORT,
    ) -> None:
        self._connector = connector
        self._resolver = resolver
        self._clock = clock
        self._allow_private = allow_private
        self._port = port

    async def connectors(self, domain: str, connection: IConnection) -> list[Connector]:
        """
        How to reach the hosts that take mail for a domain, the one to be tried first in front.

        :raises SMTPError: as :func:`~smtpfw.client.look_up_mx`; 554 5.4.6 if the best of them is ourselves; 550 5.4.4
            if none is public.
        """
        hops = await look_up_mx(domain, self._resolver, clock=self._clock())
        hops = without_ourselves(hops, connection, self._port)
        found = [(hop.host, address) for hop in hops for address in hop.addresses]
        places = [place for place in found if self._allow_private or is_public(place[1])]
        if not places:
            raise NoRoute(f"{domain}: no mail exchanger has a public address")
        return [self._to(host, address) for host, address in places[:MAX_ADDRESSES]]

    def _to(self, host: str, address: str) -> Connector:
        where = f"[{address}]" if ":" in address else address
        destination = Destination.parse(f"{where}:{self._port}")
        return replace(self._connector, destination=destination, name=address if host.startswith("[") else host)


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet; one that has an IPv4 address in it is what that is."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        if any(parsed in network for network in _NOT_PUBLIC):
            return False
        inner = _inner(parsed)
        if inner is not None:
            parsed = inner
    # Python calls addresses of groups global, too.
    return parsed.is_global and not parsed.is_multicast


def _inner(address: IPv6Address) -> IPv4Address | None:
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour
