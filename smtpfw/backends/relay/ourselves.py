"""
Whether mail would come back to us: each round would hold one connection more, from MAIL on, until there are no more.

By RFC 5321 sections 5.1 and 6.3.

Rule 1: a smarthost is us if it stands at the very address at which this client
has found us. Its name does not count: a filter or a store on the same machine
has the same.

Rule 2: a mail exchanger is us by its name, or by that address. Only those that
are better than we may be asked; where none is, the domain is ours, and its mail
should have gone elsewhere.

A circle of several servers is not seen here. It ends where one of them has no
connection left, and with the count of Received fields.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from smtpfw.client import Connector, Hop, SMTPClientProtocol
from smtpfw.client.hosts import to_address, without_zone
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection

__all__ = ["is_us", "loop_error", "without_ourselves"]


def loop_error() -> SMTPError:
    """What the sender is told."""
    return SMTPError(554, (5, 4, 6), "Mail for this recipient loops back to ourselves")


def is_us(connector: Connector, client: SMTPClientProtocol, connection: IConnection, *, by_name: bool) -> bool:
    """
    Whether a next hop that we are connected to is this server.

    :param connection: of the client whose mail it would be.
    :param by_name: whether what it calls itself tells.
    """
    if by_name and client.wire.peer.name.lower() == connection.hostname.lower():
        return True
    destination = connector.destination
    if not (destination.name or destination.is_local):
        # An endpoint that somebody has made may lead through a tunnel, and its addresses tell nothing.
        return False
    transport: Any = client.transport
    place = _place(connection.local)
    return place is not None and place == _place(transport.getPeer())


def without_ourselves(hops: list[Hop], connection: IConnection, port: int) -> list[Hop]:
    """
    Those that are better than we, if we are one of them.

    :param connection: knows our name, and the address that a client has found us at.
    :param port: where mail exchangers listen.
    :raises SMTPError: 554 5.4.6, if there is none.
    """
    place = _place(connection.local)
    ours = [
        hop.preference
        for hop in hops
        # By the port, too: a server for submission may stand beside the mail exchanger of the same machine.
        if hop.host == connection.hostname.lower() or place in [(address, port) for address in hop.addresses]
    ]
    if not ours:
        return hops
    better = [hop for hop in hops if hop.preference < min(ours)]
    if not better:
        raise loop_error()
    return better


def _place(address: Any) -> Any:
    """An address of Twisted's as a value to be compared; None for one that tells no place."""
    host = getattr(address, "host", None)
    if not host:
        return getattr(address, "name", None) or None
    parsed = to_address(without_zone(host))
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        # A listener of both families sees its IPv4 clients so.
        parsed = parsed.ipv4_mapped
    return str(parsed or host), address.port
