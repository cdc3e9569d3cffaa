"""
The end of a connection after our last word, which the client should still get to read.

Rule: what we end ourselves on a clear line, we half-close, and read on for a
while: closing with unread input makes TCP reset the connection, and our last
reply may be lost with it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport

__all__ = ["LINGER_OCTETS", "LINGER_SECONDS", "Parting"]

#: Seconds and octets of input that are read and thrown away.
LINGER_SECONDS = 2.0
LINGER_OCTETS = 4 * 1024 * 1024


class Parting:
    """
    :param transport: everything has been written to it.
    """

    __slots__ = ("_clock", "_late", "_left", "_transport")

    def __init__(self, transport: Any, clock: IReactorTime) -> None:
        self._transport = transport
        self._clock = clock
        self._left = LINGER_OCTETS
        self._late: IDelayedCall | None = None

    def begin(self, reason: str, *, tls: bool) -> None:
        """
        End it.

        :param reason: why, in the words of ISession.logout.
        :param tls: whether the line is encrypted.
        """
        transport = self._transport
        if reason in ("error", "shutdown") and ITCPTransport.providedBy(transport) and not tls:
            self._late = self._clock.callLater(LINGER_SECONDS, self.end)
            transport.loseWriteConnection()
            return
        if reason == "shutdown":
            # By TLS the peer is to say that it closes, too; one that says nothing must not hold up the end.
            self._late = self._clock.callLater(LINGER_SECONDS, transport.abortConnection)
        transport.loseConnection()

    def take(self, octets: int) -> None:
        """So many have come, and are thrown away."""
        self._left -= octets
        if self._left < 0:
            self.end()

    def end(self) -> None:
        """Wait no longer."""
        self.cancel()
        self._transport.loseConnection()

    def cancel(self) -> None:
        """Leave no delayed call behind."""
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
