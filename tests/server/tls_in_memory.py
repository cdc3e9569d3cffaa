"""Real TLS without sockets: a server's transport that can start TLS, as Twisted's can, and a client of OpenSSL's."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import directlyProvides

from smtpfw import SMTPServerFactory
from smtpfw.testing import MemoryTransport
from smtpfw.testing.memory import PEER
from smtpfw.tls import server_context
from tests.certificates import write_pair


def _make_context() -> Any:
    with TemporaryDirectory() as folder:
        return server_context(str(write_pair(Path(folder))))


#: Of a certificate that is made once for all tests.
CONTEXT = _make_context()


class _Bypass:
    """What the TLS layer has for a transport: the octets themselves."""

    def __init__(self, transport: TLSTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.write_octets(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        self._transport.ending = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        MemoryTransport.registerProducer(self._transport, producer, streaming)

    def unregisterProducer(self) -> None:
        MemoryTransport.unregisterProducer(self._transport)


class TLSTransport(MemoryTransport):
    """
    A memory transport with ``startTLS``, built as ``twisted.internet._newtls`` does it.

    :ivar protocol: whom octets are delivered to; the TLS layer from ``startTLS`` on.
    :ivar ending: whether it is to be closed as soon as the call under way is over, as a reactor would do it.
    """

    ending = False

    tls: TLSMemoryBIOProtocol | None = None

    def startTLS(self, context: Any) -> None:
        producer = self.producer
        self.unregisterProducer()
        self.tls = self.protocol = TLSMemoryBIOProtocol(TLSMemoryBIOFactory(context, False, None), self.protocol, False)
        self.getHandle = self.tls.getHandle
        directlyProvides(self, ISSLTransport)
        self.tls.makeConnection(_Bypass(self))
        if producer is not None:
            self.registerProducer(producer, True)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A TLS transport is a TCP transport by its interface."""

    def write_octets(self, data: bytes) -> None:
        super().write(data)

    def write(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.write(data)
        else:
            super().write(data)

    def loseConnection(self) -> None:
        if self.tls is not None:
            self.tls.loseConnection()
        else:
            self.ending = True

    def settle(self) -> None:
        if self.ending:
            super().loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.tls is not None:
            self.tls.registerProducer(producer, streaming)
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.tls is not None:
            self.tls.unregisterProducer()
        else:
            super().unregisterProducer()


class TLSClient:
    """
    The client's end, in clear until :meth:`start_tls`.

    :param implicit: TLS from the first octet.
    :ivar server: the server's protocol.
    """

    def __init__(self, factory: SMTPServerFactory, *, implicit: bool = False) -> None:
        self.server: Any = factory.buildProtocol(PEER)
        protocol: Protocol = self.server
        if implicit:
            wrapping = TLSMemoryBIOFactory(factory.tls or CONTEXT, False, factory)
            protocol = TLSMemoryBIOProtocol(wrapping, self.server)
        self.transport = TLSTransport(protocol)
        self._tls: SSL.Connection | None = None
        protocol.makeConnection(self.transport)

    def raw(self, data: bytes = b"") -> bytes:
        """Send octets as they are; return those that came."""
        if data and not self.transport.closed:
            self.transport.protocol.dataReceived(data)
        self.transport.settle()
        received: bytes = self.transport.value()
        self.transport.clear()
        return received

    def start_tls(self, pieces: int = 65536, context: SSL.Context | None = None) -> None:
        """Shake hands, sending at most so many octets at once; ``context`` may hold a certificate of the client's."""
        self._tls = SSL.Connection(context or SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        self._tls.set_connect_state()
        for _ in range(4):
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                self._exchange(pieces)
            else:
                self._exchange(pieces)
                return
        raise AssertionError("the handshake does not end")

    def send(self, data: bytes = b"") -> bytes:
        """Send text, in TLS if that is on; return what was answered."""
        if self._tls is None:
            return self.raw(data)
        if data:
            self._tls.send(data)
        self._exchange()
        received = b""
        while True:
            try:
                received += self._tls.recv(65536)
            except SSL.WantReadError:
                return received
            except SSL.ZeroReturnError:
                # The server has said goodbye, and waits for ours.
                self._tls.shutdown()
                self._exchange()
                return received

    def _exchange(self, pieces: int = 65536) -> None:
        assert self._tls is not None
        while True:
            try:
                outgoing = self._tls.bio_read(pieces)
            except SSL.WantReadError:
                outgoing = b""
            incoming = self.raw(outgoing)
            if incoming:
                self._tls.bio_write(incoming)
            if not outgoing:
                return

    @property
    def closed(self) -> bool:
        self.transport.settle()
        return self.transport.closed
