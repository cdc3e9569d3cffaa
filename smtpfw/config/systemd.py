"""
Telling systemd how we are: the protocol of sd_notify(3), without its library.

A service of ``Type=notify`` gets the path of a datagram socket in
``NOTIFY_SOCKET``, and sends assignments to it, one a line: ``READY=1``,
``STOPPING=1``, ``STATUS=text``, ``MAINPID=number``.

Rule: whoever is not there, or does not listen, changes nothing. Nothing is
raised, and nobody waits longer than a second.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["SOCKET", "notify"]

#: The variable with the path of the socket.
SOCKET = "NOTIFY_SOCKET"

#: Seconds for a systemd whose queue is full.
PATIENCE = 1.0


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """
    Tell the state: ``notify("READY=1\\nSTATUS=Listening on 3 ports")``.

    With ``NotifyAccess=main`` only the process that systemd started may: neither a worker nor a daemon that has gone
    into the background, unless the first one has told its ``MAINPID`` before.

    :param state: one or more assignments, each on a line of its own.
    :return: whether it was sent; False without a systemd that wants to know.
    """
    path = environ.get(SOCKET, "")
    if path[:1] not in ("/", "@"):
        # Unset, or of a kind that is not for processes, such as vsock:.
        return False
    # A name that begins with @ is an abstract one, which has NUL in its place (unix(7)).
    address = os.fsencode("\0" + path[1:] if path[0] == "@" else path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(PATIENCE)
            sender.sendto(state.encode("utf-8", "replace"), address)
    except (OSError, ValueError):
        return False
    return True
