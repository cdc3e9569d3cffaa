"""
The line between a worker and the process that watches over it.

A pair of Unix sockets, on which both say words, a line at a time; a descriptor
can come with a line. The end of it is a message, too: whoever was there is gone.

====================  =======================================================
to a worker
====================  =======================================================
``serve 1 2``         accept from the sockets with these numbers, and no others
``log``               write the log to the descriptor that comes with this
``retire``            accept no more; end when the last client has gone
``drain``             accept no more; end within the grace time
``end``               end at once
--------------------  -------------------------------------------------------
from a worker
--------------------  -------------------------------------------------------
``ready``             everything has started
``retired``           no new connection will come
====================  =======================================================
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import main
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

__all__ = ["Link"]

_OCTETS = 4096
_DESCRIPTORS = 16


@implementer(IReadDescriptor)
class Link:
    """
    One end.

    :param told: called with each line, without its end, and with the descriptors that have come and were not used yet.
    :param lost: called when the other end is gone.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        told: Callable[[str, list[int]], None],
        lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._told = told
        self._lost = lost
        self._line = b""
        self._descriptors: list[int] = []
        sock.setblocking(False)

    def listen(self) -> None:
        """Hear what is said from now on."""
        self._reactor.addReader(self)

    def say(self, line: str, descriptors: Sequence[int] = ()) -> None:
        """
        Say a line. Who is gone, or has not listened for a hundred thousand octets, does not hear it.

        :param descriptors: open files that the other one gets, too.
        """
        try:
            socket.send_fds(self._socket, [f"{line}\n".encode()], descriptors)
        except OSError:
            return

    def close(self) -> None:
        """Hear nothing more."""
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "smtpfw"

    def doRead(self) -> Any:
        try:
            octets, descriptors, _, _ = socket.recv_fds(self._socket, _OCTETS, _DESCRIPTORS)
        except BlockingIOError:
            return None
        except OSError:
            octets, descriptors = b"", []
        self._descriptors += descriptors
        *lines, self._line = (self._line + octets).split(b"\n")
        for line in lines:
            self._told(line.decode("ascii", "replace"), self._descriptors)
        return None if octets else main.CONNECTION_DONE

    def connectionLost(self, reason: object) -> None:
        self._socket.close()
        self._lost()
