"""Real handshakes in memory: our servers with a client of the standard library, and our clients with our servers."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from zope.interface import implementer


class Transport:
    """As much of a TLS transport as says what was agreed on."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def getHandle(self) -> object:
        return self._handle


def handshake(
    context: Any, client: ssl.SSLContext, session: ssl.SSLSession | None = None, name: str | None = "localhost"
) -> tuple[SSL.Connection, ssl.SSLObject]:
    """
    Shake hands in memory, then say one octet, so that the client gets its tickets.

    :param context: of a server, or what makes its connections.
    :param name: what the client asks for.
    """
    server = connection_of(context)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    shake(server, peer, to_client, to_server)
    return server, peer


def connection_of(context: Any) -> SSL.Connection:
    """The server's side of a connection that begins."""
    if isinstance(context, CertificateOptions):
        server = SSL.Connection(context.getContext(), None)
    else:
        server = context.serverConnectionForTLS(None)
    server.set_accept_state()
    return server


def shake(server: SSL.Connection, peer: ssl.SSLObject, to_client: ssl.MemoryBIO, to_server: ssl.MemoryBIO) -> None:
    """Bring a handshake to its end, wherever it is; then say one octet."""
    # One round more than a handshake has in which the client must repeat its hello.
    for step in (peer.do_handshake, server.do_handshake) * 3:
        with contextlib.suppress(ssl.SSLWantReadError, SSL.WantReadError):
            step()
        carry(server, to_client, to_server)
    server.send(b"x")
    carry(server, to_client, to_server)
    assert peer.read(1) == b"x"


def carry(server: SSL.Connection, to_client: ssl.MemoryBIO, to_server: ssl.MemoryBIO) -> None:
    """Let both sides have what the other has sent."""
    if to_server.pending:
        server.bio_write(to_server.read())
    with contextlib.suppress(SSL.WantReadError):
        to_client.write(server.bio_read(65536))


def any_client(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client of one version that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


VERSIONS = [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]


@implementer(IHandshakeListener)
class End(Protocol):
    """
    One end of a connection.

    :ivar shaken: whether its handshake is over.
    :ivar lost: why the connection has ended, if it has.
    """

    shaken = False
    lost: BaseException | None = None

    def handshakeCompleted(self) -> None:
        self.shaken = True

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.lost = reason.value

    def over_tls(self, context: Any, is_client: bool) -> Any:
        """The protocol that stands before it."""
        return TLSMemoryBIOFactory(context, is_client, Factory.forProtocol(lambda: self), Clock()).buildProtocol(None)


def join(client_context: Any, server_context: Any) -> tuple[End, End]:
    """Let a client and a server shake hands, if they can; return both."""
    client, server = End(), End()
    outer_client, outer_server = client.over_tls(client_context, True), server.over_tls(server_context, False)
    connect(outer_server, FakeTransport(outer_server, True), outer_client, FakeTransport(outer_client, False))
    return client, server


def octet_by_octet(client_context: Any, server_context: Any) -> Iterator[tuple[End, End]]:
    """Let them shake hands slowly; yield both after each octet."""
    client, server = End(), End()
    outer_client, outer_server = client.over_tls(client_context, True), server.over_tls(server_context, False)
    to_server, to_client = StringTransport(), StringTransport()
    outer_server.makeConnection(to_client)
    outer_client.makeConnection(to_server)
    while to_server.value() or to_client.value():
        for sent, receiver in ((to_server, outer_server), (to_client, outer_client)):
            octets = sent.value()
            sent.clear()
            for octet in octets:
                receiver.dataReceived(bytes((octet,)))
                yield client, server
