"""
Which hosts take mail for a domain, when nobody has told us of a smarthost.

By RFC 5321 section 5.1.

Rule 1: mail does not come back to ourselves: where we are one of the mail
exchangers, only those that are better than we may be asked. Where none is, the
domain is ours, and its mail should have gone elsewhere.

Rule 2: whoever owns a domain says where its mail goes, and may be an attacker:
hosts of this machine and of private networks are left out, for behind them
stand servers that trust whoever reaches them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from smtpfw.client import Connector, Destination, Hop, look_up_mx
from smtpfw.errors import NoRoute, SMTPError
from smtpfw.interfaces import IConnection

__all__ = ["MailExchangers", "is_public", "without_ourselves"]

SMTP_PORT = 25

#: How many addresses are tried for a message; RFC 5321 section 5.1: at least two; Postfix smtp_mx_address_limit 5.
MAX_ADDRESSES = 5

#: RFC 6052 section 2.1, RFC 8215: an IPv4 address stands in the last 32 bits.
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


class MailExchangers:
    """
    :param connector: how to connect; its destination is replaced.
    :param resolver: gives whom to ask.
    :param clock: gives who tells the time.
    :param allow_private: whether hosts that are not public may be asked.
    :param port: where they listen.
    """

    def __init__(
        self,
        connector: Connector,
        resolver: Callable[[], Any],
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
        hops = await look_up_mx(domain, self._resolver(), clock=self._clock())
        hops = without_ourselves(hops, connection, self._port)
        places = [
            (hop.host, address) for hop in hops for address in hop.addresses if self._allow_private or is_public(address)
        ]
        if not places:
            raise NoRoute(f"{domain}: no mail exchanger has a public address")
        return [self._to(host, address) for host, address in places[:MAX_ADDRESSES]]

    def _to(self, host: str, address: str) -> Connector:
        where = f"[{address}]" if ":" in address else address
        destination = Destination.parse(f"{where}:{self._port}")
        return replace(self._connector, destination=destination, name=address if host.startswith("[") else host)


def without_ourselves(hops: list[Hop], connection: IConnection, port: int = SMTP_PORT) -> list[Hop]:
    """
    Those that are better than we, if we are one of them.

    :param connection: knows our name, and the address that a client has found us at.
    :raises SMTPError: 554 5.4.6, if there is none.
    """
    ours = [hop.preference for hop in hops if _is_us(hop, connection, port)]
    if not ours:
        return hops
    better = [hop for hop in hops if hop.preference < min(ours)]
    if not better:
        raise SMTPError(554, (5, 4, 6), "Mail for this domain loops back to ourselves")
    return better


def _is_us(hop: Hop, connection: IConnection, port: int) -> bool:
    local: Any = connection.local
    # By the port, too: a server for submission may stand beside the mail exchanger of the same machine.
    found_here = getattr(local, "host", None) in hop.addresses and getattr(local, "port", None) == port
    return found_here or hop.host == connection.hostname.lower()


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet; one that has an IPv4 address in it is what that is."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        inner = _inner(parsed)
        if inner is not None:
            return inner.is_global
    return parsed.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour
