"""
A client and a server joined in memory.

Rule 1: octets flow when told to, until nothing moves; the same test gives the
same order of calls each time. No reactor, no threads, no sleeping.

Rule 2: each write arrives by itself, or cut into pieces of a given size. Who
does not read holds the other up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from smtpfw.testing.memory import HOST, PEER
from smtpfw.testing.stream import StreamTransport
from smtpfw.testing.tls import TLSStreamTransport

__all__ = ["Joined", "joined", "outcome_of"]


def joined(
    client: IProtocol,
    server_factory: IProtocolFactory,
    *,
    chunk: int | None = None,
    client_address: Any = PEER,
    server_address: Any = HOST,
) -> Joined:
    """
    Connect a client's protocol with a server, and let flow what they say at once.

    >>> link = joined(protocol, SMTPServerFactory(backend, config, reactor=Clock()))
    >>> result = link.run(protocol.send_mail("a@b.test", ["c@d.test"], b"hello"))

    :param client: a protocol that is not connected yet. For TLS from the first octet see
        :func:`~smtpfw.testing.tls_client`.
    :param server_factory: any server factory of Twisted; :class:`~smtpfw.testing.ScriptedPeer` is one. If it refuses
        the connection, the client sees it closed.
    :param chunk: octets that arrive at once, at most; 1 cuts all that is said into octets. By default each write
        arrives by itself.
    """
    server = server_factory.buildProtocol(client_address)
    link = Joined(client, server, chunk=chunk, client_address=client_address, server_address=server_address)
    link.flow()
    return link


class Joined:
    """
    A connection in memory. Made by :func:`joined`.

    :ivar client, server: the protocols; ``server`` is None if its factory has refused.
    :ivar client_transport, server_transport: what they write to; each has ``writes``, ``closed``, ``aborted``,
        ``pause_writing()`` and ``resume_writing()``.
    :ivar chunk: octets that arrive at once, at most; may be changed at any time.
    """

    def __init__(
        self,
        client: Any,
        server: Any,
        *,
        chunk: int | None = None,
        client_address: Any = PEER,
        server_address: Any = HOST,
    ) -> None:
        self.client = client
        self.server = server
        self.chunk = chunk
        self.client_transport = TLSStreamTransport(client, server_address, client_address, is_client=True)
        self.server_transport = TLSStreamTransport(server, client_address, server_address, is_client=False)
        self._flowing = False
        client.makeConnection(self.client_transport)
        if server is None:
            self.server_transport.closed = True
        else:
            server.makeConnection(self.server_transport)

    @property
    def said_by_client(self) -> bytes:
        """All octets that the client has put on the wire: text in clear, or ciphertext."""
        return b"".join(self.client_transport.writes)

    @property
    def said_by_server(self) -> bytes:
        """All octets that the server has put on the wire."""
        return b"".join(self.server_transport.writes)

    def flow(self) -> bool:
        """
        Let octets, pauses and ends have their effect until nothing moves.

        Call it after whatever makes one of the two say something: a method of the client, a clock, a Deferred. What a
        protocol raises is raised here.

        :return: whether anything has moved.
        """
        if self._flowing:
            return False
        self._flowing = True
        moved = False
        try:
            while self._step():
                moved = True
        finally:
            self._flowing = False
        return moved

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """
        Let flow, and return what a coroutine or a Deferred of one side has come to.

        :raises AssertionError: if it still waits when nothing moves; it is cancelled then. What it fails with is
            raised.
        """
        return outcome_of(awaitable, self.flow)

    def _step(self) -> bool:
        client, server = self.client_transport, self.server_transport
        moved = [
            client.settle(),
            server.settle(),
            self._carry(client, server),
            self._carry(server, client),
        ]
        return any(moved)

    def _carry(self, source: StreamTransport, target: StreamTransport) -> bool:
        if source.closed and source.aborted and not target.closed:
            target.lose(ConnectionLost())
            return True
        if target.closed:
            return self._carry_to_nobody(source, target)
        if not target.reading:
            return False
        if source.holds:
            target.protocol.dataReceived(source.take(self.chunk))
            return True
        if source.ask_producer():
            return True
        if source.finished and not source.end_told:
            source.end_told = True
            target.receive_end()
            return True
        return False

    def _carry_to_nobody(self, source: StreamTransport, target: StreamTransport) -> bool:
        """As TCP has it: who goes on writing to an end that is closed is told so by a reset."""
        moved = source.discard()
        if source.closed:
            return moved
        if target is self.server_transport and self.server is None:
            source.lose(ConnectionDone())
            return True
        if moved and target.end_told:
            source.lose(ConnectionLost())
        return moved


def outcome_of(awaitable: Awaitable[Any], flow: Callable[[], object]) -> Any:
    """See :meth:`Joined.run`."""
    outcome: list[Any] = []
    deferred = awaitable if isinstance(awaitable, Deferred) else ensureDeferred(awaitable)  # type: ignore[arg-type]
    deferred.addBoth(outcome.append)
    flow()
    if not outcome:
        deferred.cancel()
        raise AssertionError("nothing moves, and there is no result")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]
