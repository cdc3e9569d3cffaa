"""
An endpoint in memory, for clients that connect by themselves.

Rule: each connection is a :class:`~smtpfw.testing.Joined`; what all of them
say flows when told to.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from smtpfw.testing.link import Joined, outcome_of
from smtpfw.testing.memory import HOST, PEER

__all__ = ["MemoryEndpoint"]


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Leads to a server's factory in memory.

    >>> endpoint = MemoryEndpoint(SMTPServerFactory(backend, config, reactor=Clock()))
    >>> endpoint.run(send_mail(endpoint, "a@b.test", ["c@d.test"], b"hello"))

    :param server_factory: any server factory of Twisted, a :class:`~smtpfw.testing.ScriptedPeer` too; None for a port
        on which nobody listens. May be changed at any time.
    :param chunk: octets that arrive at once, at most; by default each write arrives by itself.

    :ivar links: a :class:`~smtpfw.testing.Joined` for each connection, in order.
    """

    def __init__(self, server_factory: IProtocolFactory | None, *, chunk: int | None = None) -> None:
        self.server_factory = server_factory
        self.chunk = chunk
        self.links: list[Joined] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        """See :meth:`IStreamClientEndpoint.connect`."""
        if self.server_factory is None:
            return fail(ConnectionRefusedError("nobody listens there"))
        client: IProtocol | None = protocolFactory.buildProtocol(HOST)
        assert client is not None
        self.links.append(Joined(client, self.server_factory.buildProtocol(PEER), chunk=self.chunk))
        return succeed(client)

    def flow(self) -> bool:
        """
        Let flow what is said on all connections, until nothing moves.

        :return: whether anything has moved.
        """
        moved = False
        while any(link.flow() for link in self.links):
            moved = True
        return moved

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """
        Let flow, and return what a coroutine or a Deferred has come to.

        :raises AssertionError: if it still waits when nothing moves; it is cancelled then. What it fails with is
            raised.
        """
        return outcome_of(awaitable, self.flow)

    @property
    def said_by_clients(self) -> bytes:
        """All octets that went out, as they are on the wire: text in clear, or ciphertext."""
        return b"".join(link.said_by_client for link in self.links)
