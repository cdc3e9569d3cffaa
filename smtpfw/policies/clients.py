"""
Whom a client is counted as: by its address, its network, or its user name.

One host has as many IPv6 addresses as it likes. What one customer has at least
is a /64 (RFC 6177), so that is the smallest that is counted as one client.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from string import ascii_lowercase, ascii_uppercase

from smtpfw.interfaces import IConnection
from smtpfw.networks import client_address

__all__ = ["KINDS", "Grouping", "fold_case"]

#: By what clients can be told apart, and how a refusal calls that.
KINDS = {"ip": "your address", "net": "your network", "user": "your account"}

#: RFC 6177 section 2.
SMALLEST_IPV6_PREFIX = 64

# ASCII only: by Unicode's rules the Kelvin sign is a K, and one user would pass for another.
_LOWER_CASE = str.maketrans(ascii_uppercase, ascii_lowercase)


def fold_case(text: str) -> str:
    """Small letters for capitals, of ASCII only."""
    return text.translate(_LOWER_CASE)


@dataclass(frozen=True, slots=True)
class Grouping:
    """
    Which clients are counted together.

    :ivar ipv4_prefix, ipv6_prefix: bits that the addresses of one ``net`` have in common.
    :raises ValueError: for a number of bits that an address does not have.
    """

    ipv4_prefix: int = 24
    ipv6_prefix: int = 64

    def __post_init__(self) -> None:
        for name, bits in (("ipv4_prefix", 32), ("ipv6_prefix", 128)):
            value = getattr(self, name)
            if not 0 <= value <= bits:
                raise ValueError(f"{name}: {value} is not within 0 and {bits}")

    def key(self, kind: str, connection: IConnection) -> Hashable:
        """
        Whom a client is counted as.

        :param kind: one of :data:`KINDS`.
        :return: the same value for all that are counted together; None for who is not counted: a client of a Unix
            socket has no address, and one that has not authenticated no account.
        """
        if kind == "user":
            return fold_case(connection.identity) or None
        address = client_address(connection)
        if address is None:
            return None
        if isinstance(address, IPv4Address):
            prefix = 32 if kind == "ip" else self.ipv4_prefix
            return 4, int(address) >> (32 - prefix)
        prefix = SMALLEST_IPV6_PREFIX if kind == "ip" else self.ipv6_prefix
        return 6, int(address) >> (128 - prefix)

    def network(self, address: IPv4Address | IPv6Address) -> IPv4Network | IPv6Network:
        """The ``net`` that a client's address belongs to, for what is written down."""
        if isinstance(address, IPv4Address):
            return IPv4Network((int(address), self.ipv4_prefix), strict=False)
        return IPv6Network((int(address), self.ipv6_prefix), strict=False)

    def describe(self, kind: str) -> str:
        """In words, what one of a kind is."""
        if kind == "ip":
            return f"one IPv4 address or IPv6 /{SMALLEST_IPV6_PREFIX}"
        if kind == "net":
            return f"one IPv4 /{self.ipv4_prefix} or IPv6 /{self.ipv6_prefix}"
        return "one user"
