"""
Networks as an operator writes them, and the check that lets only those in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_interface, ip_network

from twisted.internet.address import UNIXAddress

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.policies.clients import client_address
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["UNIX", "AllowedNetworks", "Networks"]

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

    def include(self, connection: IConnection) -> bool:
        """Whether its client comes from one of them."""
        address = client_address(connection)
        if address is None:
            return self._unix and isinstance(connection.peer, UNIXAddress)
        networks = self._ipv4 if address.version == 4 else self._ipv6
        return any(address in network for network in networks)

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


class AllowedNetworks(Check):
    """
    Serve the clients of some networks only; others get 554 5.7.1 when they connect.

    :param networks: see :class:`Networks`. Clients of Unix sockets are let in by ``unix``, not otherwise.
    :param except_authenticated: let others in after all, and refuse their MAIL until they have authenticated.
    :raises ValueError: if there are none, or one is no network.
    """

    def __init__(self, networks: Networks | Iterable[Network] | Network, *, except_authenticated: bool = False) -> None:
        self.networks = networks if isinstance(networks, Networks) else Networks(networks)
        self.except_authenticated = except_authenticated
        if not self.networks:
            raise ValueError("no network is given, so nobody could come in")

    def connect(self, connection: IConnection) -> None:
        """See :meth:`ICheck.connect`."""
        if not self.except_authenticated and not self.networks.include(connection):
            raise _refusal()

    def mail(self, connection: IConnection, sender: Address, options: Options) -> None:
        """See :meth:`ICheck.mail`."""
        if self.except_authenticated and not connection.identity and not self.networks.include(connection):
            raise _refusal()

    def describe(self) -> str:
        """What it does, in words."""
        if self.except_authenticated:
            return f"Clients from elsewhere than {self.networks} have to authenticate"
        return f"Only clients from {self.networks} are served"

    def __repr__(self) -> str:
        return f"AllowedNetworks({str(self.networks)!r}, except_authenticated={self.except_authenticated})"


def _refusal() -> SMTPError:
    # Postfix access_map_reject_code: 554 at whatever command.
    return SMTPError(554, (5, 7, 1), "Access denied for your address")
