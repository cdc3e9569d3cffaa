"""
No mail from strangers: MAIL waits for AUTH, except from networks that are trusted.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpfw.check import Check
from smtpfw.errors import AuthRequired
from smtpfw.interfaces import IConnection
from smtpfw.networks import Network, Networks
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["RequireAuth"]


class RequireAuth(Check):
    """
    MAIL of a client that has not authenticated gets 530 5.7.0 (RFC 4954 section 6).

    :param except_networks: whose clients need not; see :class:`~smtpfw.networks.Networks`.
    :raises ValueError: if one of them is no network.
    """

    def __init__(self, except_networks: Networks | Iterable[Network] | Network = ()) -> None:
        self.except_networks = Networks.of(except_networks)

    def mail(self, connection: IConnection, sender: Address, options: Options) -> None:
        """See :meth:`ICheck.mail`."""
        if not connection.identity and not self.except_networks.include(connection):
            raise AuthRequired

    def describe(self) -> str:
        """What it does, in words."""
        return "MAIL needs AUTH" + (f", except from {self.except_networks}" if self.except_networks else "")

    def __repr__(self) -> str:
        return f"RequireAuth({str(self.except_networks)!r})"
