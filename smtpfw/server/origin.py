"""
Where a connection comes from, where somebody else than its socket says so: a proxy, by PROXY or by XCLIENT.

Rule: whoever is believed was named by the operator. What is told here has the
form of what it says it is; whether it is true, only the proxy knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from smtpfw.extensions.xclient import ClientAttributes
from smtpfw.networks import host_of

__all__ = ["NOBODY_KNOWS", "Origin", "UnknownAddress", "name_of"]


@implementer(IAddress)
class UnknownAddress:
    """Stands for the address of a client that nobody knows; no network has it."""

    def __repr__(self) -> str:
        return "UnknownAddress()"


NOBODY_KNOWS = UnknownAddress()


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class Origin:
    """
    The ends of a connection, as a proxy tells them. A factory gets it in the place of the socket's address.

    :ivar peer: the client's address.
    :ivar local: the address that the client has connected to.
    :ivar proxy: the address of who says so.
    :ivar name: the name of the client's address, as the proxy has found it; empty if there is none, None if it has not
        said.
    """

    peer: IAddress
    local: IAddress
    proxy: IAddress
    name: str | None = None

    def after(self, told: ClientAttributes) -> Self:
        """The same, with what XCLIENT says; what it does not mention stays."""
        # A name belongs to the address that it was found for.
        name = told.name if told.name is not None or told.addr is not None else self.name
        return replace(
            self,
            peer=_end(self.peer, told.addr, told.port),
            local=_end(self.local, told.dest_addr, told.dest_port),
            name=name,
        )


def _end(before: IAddress, addr: str | None, port: int | None) -> IAddress:
    if addr is None and port is None:
        return before
    host = host_of(before) if addr is None else addr
    if not host:
        # A Unix socket has no port that could be another one.
        return before if addr is None else NOBODY_KNOWS
    if port is None:
        port = 0 if addr is not None else getattr(before, "port", 0)
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def name_of(peer: IAddress) -> str:
    """
    An address as a log shows it: ``192.0.2.1:54321``, without a port that is not known.

    ``unix`` or ``unknown`` stands for one that has no host.
    """
    host, port = host_of(peer), getattr(peer, "port", 0)
    if not host:
        return "unknown" if peer is NOBODY_KNOWS else "unix"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host
