"""
A server's transport in memory, and the client at its other end.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

__all__ = ["HOST", "PEER", "MemoryClient", "MemoryTransport"]

PEER = IPv4Address("TCP", "192.0.2.1", 54321)
HOST = IPv4Address("TCP", "192.0.2.2", 25)


class MemoryTransport(StringTransport):
    """
    Keeps what is written, write by write, and tells its protocol when it is closed.

    :ivar writes: each write, in order.
    :ivar closed: whether the server has closed the connection.
    :ivar aborted: whether it did so without flushing.
    """

    def __init__(self, protocol: Protocol, peer: Any = PEER, host: Any = HOST) -> None:
        super().__init__(hostAddress=host, peerAddress=peer)
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.writes.append(data)
            super().write(data)

    def loseConnection(self) -> None:
        self._lose(ConnectionDone())

    def abortConnection(self) -> None:
        self.aborted = True
        self._lose(ConnectionLost())

    def loseWriteConnection(self) -> None:
        """The peer of these tests closes its side, too, once it sees the end."""
        self._lose(ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.connected = False
            self.protocol.connectionLost(Failure(reason))

    @property
    def reading(self) -> bool:
        """Whether the server reads from its peer at the moment."""
        return self.producerState == "producing"


class MemoryClient:
    """
    The client's end: sends octets, sees octets.

    :param protocol: the server's protocol.
    :param peer: the client's address.
    """

    def __init__(self, protocol: Protocol, peer: Any = PEER) -> None:
        self.transport = MemoryTransport(protocol, peer)
        protocol.makeConnection(self.transport)

    @classmethod
    def of(cls, factory: Factory, peer: Any = PEER) -> MemoryClient:
        """Connect to a server's factory."""
        protocol = factory.buildProtocol(peer)
        assert isinstance(protocol, Protocol)
        return cls(protocol, peer)

    @property
    def protocol(self) -> Any:
        """The server's protocol. Behind a PROXY header it is another one than before."""
        return self.transport.protocol

    def send(self, data: bytes) -> bytes:
        """
        Send octets.

        :return: what the server has answered since the last call of :meth:`received`.
        """
        if not self.transport.closed:
            self.protocol.dataReceived(data)
        return self.received()

    def received(self) -> bytes:
        """What the server has written since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def half_close(self) -> bytes:
        """Say that no more will be sent, as ``nc -N`` does; return what the server answers."""
        if not self.transport.closed and IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        return self.received()

    def disconnect(self) -> None:
        """Go away without a word."""
        self.transport._lose(ConnectionLost())

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self.transport.closed
