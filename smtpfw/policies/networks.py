"""
The check that lets the clients of some networks in, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.networks import Network, Networks
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["AllowedNetworks"]


class AllowedNetworks(Check):
    """
    Serve the clients of some networks only; others get 554 5.7.1 when they connect.

    :param networks: see :class:`Networks`. Clients of Unix sockets are let in by ``unix``, not otherwise.
    :param except_authenticated: let others in after all, and refuse their MAIL until they have authenticated.
    :raises ValueError: if there are none, or one is no network.
    """

    def __init__(self, networks: Networks | Iterable[Network] | Network, *, except_authenticated: bool = False) -> None:
        self.networks = Networks.of(networks)
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
