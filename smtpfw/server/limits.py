"""
How many clients a server has at a time.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from smtpfw.errors import ServiceNotAvailable, SMTPError

#: RFC 6177: the least that one customer has of IPv6.
_IPV6_PREFIX = 64


class ConnectionLimits:
    """
    How many clients there may be at a time.

    Whoever comes and is one too many counts until it has gone, too: it has a socket, like everybody.

    :param total: all together; 0 for no limit.
    :param per_address: of one IPv4 address or IPv6 /64; 0 for no limit.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._count = 0
        self._by_address: Counter[str] = Counter()

    def enter(self, host: str) -> SMTPError | None:
        """
        A client has come.

        :param host: its IP address; an empty text for a Unix socket, which only the total counts.
        :return: why it can't be served now, or None.
        """
        self._count += 1
        key = _key(host)
        self._by_address[key] += 1
        if 0 < self._total < self._count:
            return ServiceNotAvailable("Too many connections, try again later")
        if key and 0 < self._per_address < self._by_address[key]:
            return SMTPError(421, (4, 7, 0), "Too many connections from your address, try again later")
        return None

    def leave(self, host: str) -> None:
        """It has gone."""
        self._count -= 1
        key = _key(host)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]


def _key(host: str) -> str:
    if ":" not in host:
        return host
    address = ip_address(host.partition("%")[0])
    assert isinstance(address, IPv6Address)
    return str(int(address) >> (128 - _IPV6_PREFIX))
