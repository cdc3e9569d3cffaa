"""
Networks as an operator writes them, and whether somebody comes from one of them.

Rule: an IPv4 client of a socket for both families is taken for what it is (RFC
4291 section 2.5.5.2), and so are networks that are written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TYPE_CHECKING, Any

from twisted.internet.address import UNIXAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from smtpfw.interfaces import IConnection

__all__ = ["PRIVATE", "UNIX", "Network", "Networks", "client_address", "host_of", "networks_of_proxies"]

#: Stands for the clients of Unix sockets, which have no address.
UNIX = "unix"

Network = str | IPv4Network | IPv6Network


class Networks:
    """
    Some networks. Treat it as immutable.

    :param networks: ``10.0.0.0/8``, ``2001:db8::/32``, single addresses, and :data:`UNIX`; or one of them.
    :raises ValueError: naming the one that is no network.
    """

    __slots__ = ("_ipv4", "_ipv6", "_unix")

    def __init__(self, networks: Iterable[Network] | Network = ()) -> None:
        ipv4: list[IPv4Network] = []
        ipv6: list[IPv6Network] = []
        self._unix = False
        for network in [networks] if isinstance(networks, Network) else networks:
            if network == UNIX:
                self._unix = True
                continue
            parsed = _parse(network)
            if isinstance(parsed, IPv4Network):
                ipv4.append(parsed)
            else:
                ipv6.append(parsed)
        self._ipv4 = tuple(dict.fromkeys(ipv4))
        self._ipv6 = tuple(dict.fromkeys(ipv6))

    @classmethod
    def of(cls, networks: Networks | Iterable[Network] | Network) -> Networks:
        """Those that are given, whether they are read already or not; raises ValueError as the class does."""
        return networks if isinstance(networks, Networks) else cls(networks)

    def include(self, connection: IConnection) -> bool:
        """Whether its client comes from one of them."""
        return self._have(client_address(connection), connection.peer)

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address is of one of them; an IPv4 one as what it is."""
        return any(address in network for network in (self._ipv4 if address.version == 4 else self._ipv6))

    def include_peer(self, peer: IAddress) -> bool:
        """Whether whoever has this address comes from one of them."""
        return self._have(_parse_address(host_of(peer)), peer)

    def _have(self, address: IPv4Address | IPv6Address | None, peer: Any) -> bool:
        if address is None:
            return self._unix and isinstance(peer, UNIXAddress)
        return address in self

    def __iter__(self) -> Iterator[IPv4Network | IPv6Network]:
        """Those that have addresses."""
        return iter((*self._ipv4, *self._ipv6))

    @property
    def everybody(self) -> bool:
        """Whether each client of IPv4, or of IPv6, is among them."""
        # Two halves are the whole, too.
        both = (collapse_addresses(self._ipv4), collapse_addresses(self._ipv6))
        return any(network.prefixlen == 0 for networks in both for network in networks)

    def __bool__(self) -> bool:
        return bool(self._ipv4 or self._ipv6 or self._unix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Networks):
            return NotImplemented
        return (self._ipv4, self._ipv6, self._unix) == (other._ipv4, other._ipv6, other._unix)

    def __hash__(self) -> int:
        return hash((self._ipv4, self._ipv6, self._unix))

    def __str__(self) -> str:
        return ", ".join([*map(str, (*self._ipv4, *self._ipv6)), *([UNIX] if self._unix else [])])

    def __repr__(self) -> str:
        return f"Networks({str(self)!r})"


def _parse(network: Network) -> IPv4Network | IPv6Network:
    text = str(network).strip()
    try:
        parsed = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{network!r} is no network; write an address, or one with a prefix: 192.0.2.1, 10.0.0.0/8, 2001:db8::/32; "
            f"or {UNIX} for Unix sockets"
        ) from None
    host = ip_interface(text).ip
    if host != parsed.network_address:
        # Who means one host must not let in many.
        raise ValueError(f"{network!r} could be the network {parsed} or the address {host}; write which is meant")
    if isinstance(parsed, IPv6Network) and parsed.prefixlen >= 96:
        mapped = parsed.network_address.ipv4_mapped
        if mapped is not None:
            # RFC 4291 section 2.5.5.2: such clients are taken for what they are, so their networks must be, too.
            return IPv4Network((mapped, parsed.prefixlen - 96))
    return parsed


#: Whose addresses nobody has on the Internet (RFC 1122, 1918, 3927, 4193, 4291, 6598), this machine's among them.
PRIVATE = Networks(
    (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.168.0.0/16", "::", "::1", "fc00::/7", "fe80::/10"),
    )
)


def networks_of_proxies(networks: Networks | Iterable[Network] | Network) -> Networks:
    """
    The networks whose clients are believed when they speak for others.

    :raises ValueError: if there are none, one is no network, or they are everybody.
    """
    found = Networks.of(networks)
    if not found:
        raise ValueError("no network is given, so nobody would be believed")
    if found.everybody:
        raise ValueError("that is everybody, and whoever is believed can pass for anybody; name your proxies")
    return found


def host_of(peer: IAddress) -> str:
    """The IP address of a peer as text, an IPv4 one that came over IPv6 as what it is; empty where it has none."""
    host: str = getattr(peer, "host", None) or ""
    return host.removeprefix("::ffff:") if "." in host else host


def client_address(connection: IConnection) -> IPv4Address | IPv6Address | None:
    """The client's address; None for a Unix socket, and where nobody knows it."""
    return _parse_address(connection.peer_host)


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    if not host:
        return None
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address
