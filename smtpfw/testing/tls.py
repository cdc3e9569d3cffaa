"""
TLS over a stream in memory: real handshakes, certificates and ciphertext, and no socket.

Rule 1: ``startTLS`` does what ``twisted.internet._newtls`` does for a socket,
with the same TLS layer, so what works here works there.

Rule 2: either end may be the TLS client, from the first octet
(:func:`tls_client`, :func:`tls_server`) or from ``startTLS`` on.

Rule 3: no clock. Twisted collects small writes within TLS until the reactor's
next turn; here each is sent at once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolFactory, ISSLTransport, ITLSTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import directlyProvides, implementer

from smtpfw.testing.stream import StreamTransport

__all__ = ["TLSStreamTransport", "tls_client", "tls_server"]


class _Layer(TLSMemoryBIOFactory):
    """Makes TLS layers that collect nothing."""

    protocol = TLSMemoryBIOProtocol

    def __init__(self, context: Any, is_client: bool, factory: IProtocolFactory | None = None) -> None:
        # Without a clock of its own it would import the reactor.
        super().__init__(context, is_client, factory, clock=Clock())  # type: ignore[arg-type]


def tls_client(client: Protocol, context: Any) -> Protocol:
    """
    A client's protocol that speaks TLS from the first octet, for :func:`~smtpfw.testing.joined`.

    :param context: as for ``startTLS``: ``optionsForClientTLS("mx.test", ...)``.
    """
    wrapped = _Layer(context, True, Factory.forProtocol(lambda: client)).buildProtocol(None)
    assert isinstance(wrapped, Protocol)
    return wrapped


def tls_server(factory: IProtocolFactory, context: Any) -> IProtocolFactory:
    """
    A server's factory that speaks TLS from the first octet, for :func:`~smtpfw.testing.joined`.

    :param context: as for ``startTLS``: of :func:`smtpfw.tls.server_context`.
    """
    return _Layer(context, False, factory)


class _Bypass:
    """What the TLS layer has for a transport: the stream itself."""

    def __init__(self, transport: TLSStreamTransport) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        StreamTransport.write(self._transport, data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        StreamTransport.writeSequence(self._transport, pieces)

    def loseConnection(self) -> None:
        StreamTransport.loseConnection(self._transport)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        StreamTransport.registerProducer(self._transport, producer, streaming)

    def unregisterProducer(self) -> None:
        StreamTransport.unregisterProducer(self._transport)


@implementer(ITLSTransport)
class TLSStreamTransport(StreamTransport):
    """
    A stream's end that can start TLS.

    :param is_client: whether it is the client of the connection, and so, normally, of TLS.
    :ivar tls: the TLS layer, from ``startTLS`` on.
    """

    def __init__(self, protocol: Protocol, peer: Any, host: Any, *, is_client: bool) -> None:
        super().__init__(protocol, peer, host)
        self._is_client = is_client
        self.tls: TLSMemoryBIOProtocol | None = None

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:  # noqa: N803
        """
        Speak TLS from now on.

        :param contextFactory: as for a socket's ``startTLS``: ``optionsForClientTLS(...)``, ``server_context(...)`` ...
        :param normal: whether the client of the connection is the client of TLS.
        """
        producer, streaming = self.producer, bool(self.streaming)
        if producer is not None:
            self.unregisterProducer()
        layer = _Layer(contextFactory, self._is_client is normal)
        self.protocol = tls = TLSMemoryBIOProtocol(layer, self.protocol, False)
        self.getHandle = tls.getHandle
        self.getPeerCertificate = tls.getPeerCertificate
        directlyProvides(self, ISSLTransport)
        self.tls = tls
        tls.makeConnection(_Bypass(self))
        if producer is not None:
            self.registerProducer(producer, streaming)

    def write(self, data: bytes) -> None:
        if self.tls is None:
            super().write(data)
        elif self.connected:
            self.tls.write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.tls is None:
            super().loseConnection()
        elif self.connected and not self.disconnecting:
            self.tls.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.tls is None:
            super().registerProducer(producer, streaming)
        else:
            self.tls.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.tls is None:
            super().unregisterProducer()
        else:
            self.tls.unregisterProducer()
