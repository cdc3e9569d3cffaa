"""
How many clients a server has at a time.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address

from smtpfw.errors import ServiceNotAvailable, SMTPError

#: Clients at a time that are told that they are too many. Each has a socket for it, and under TLS a handshake first.
MAX_REFUSED = 200

#: RFC 6177: the least that one customer has of IPv6.
_IPV6_PREFIX = 64


class ConnectionLimits:
    """
    How many clients there may be at a time.

    Whoever is one too many is told so, and takes nobody's place: one address, or one flood, must not keep the others
    out. Those who wait to hear it are so many at most, too.

    :param total: all together; 0 for no limit.
    :param per_address: of one IPv4 address or IPv6 /64; 0 for no limit.

    :ivar refused: how many have been told that they are too many, and are not gone yet.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._count = 0
        self._by_address: Counter[str] = Counter()
        self.refused = 0
        #: Set when nobody else shall be served.
        self.closed = False

    def enter(self, host: str) -> SMTPError | None:
        """
        A client has come.

        :param host: its IP address; an empty text for a Unix socket. Only the total counts those of this machine.
        :return: why it can't be served now, or None.
        """
        key = _key(host)
        error: SMTPError | None = None
        if self.closed:
            error = ServiceNotAvailable("Service is shutting down, try again later")
        elif key and 0 < self._per_address <= self._by_address[key]:
            error = SMTPError(421, (4, 7, 0), "Too many connections from your address, try again later")
        elif 0 < self._total <= self._count:
            error = ServiceNotAvailable("Too many connections, try again later")
        if error is None:
            self._count += 1
            self._by_address[key] += 1
        else:
            self.refused += 1
        return error

    def leave(self, host: str, *, refused: bool) -> None:
        """
        It has gone.

        :param refused: whether it was one too many.
        """
        if refused:
            self.refused -= 1
            return
        self._count -= 1
        key = _key(host)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]

    @property
    def crowded(self) -> bool:
        """Whether so many are being told that they are too many that the next is not worth a word."""
        return self.refused > MAX_REFUSED


def _key(host: str) -> str:
    """Whose connections are counted together; empty for those that are counted in all only."""
    if host.startswith("127.") or host == "::1":
        # Whoever is on this machine speaks for many: a proxy, a web mailer, a test.
        return ""
    if ":" not in host:
        return host
    address = ip_address(host.partition("%")[0])
    assert isinstance(address, IPv6Address)
    return str(int(address) >> (128 - _IPV6_PREFIX))
