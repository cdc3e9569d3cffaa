"""
Octets straight to the socket, for server and client.

``transport.write`` sends on the reactor's next turn: that costs two calls of
epoll_ctl and one more event for each group of replies, a third of all that a
small message costs. Where nothing waits to be sent already, sending at once
gives the same octets in the same order.

This leans on names of Twisted that are not public. It is off for every
transport but Twisted's own TCP connections in clear, and for what the
socket does not take at once, and for every error: ``transport.write`` has the
last word.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp


def can_send_at_once(transport: Any) -> bool:
    """Whether :func:`send_at_once` knows this transport."""
    return type(transport) in (tcp.Server, tcp.Client) and not transport.TLS


def send_at_once(transport: Any, data: bytes) -> bytes:
    """
    Send what the socket takes.

    :return: the rest, for ``transport.write``.
    """
    if transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting or not transport.connected:
        # Something is before us, or behind the last word.
        return data
    try:
        sent = transport.socket.send(data)
    except OSError:
        return data
    return b"" if sent == len(data) else data[sent:]
