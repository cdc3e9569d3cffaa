"""
Which connections are written down, and where to: asked once for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpfw.wire.transcript import Transcript

if TYPE_CHECKING:
    from smtpfw.server.protocol import SMTPServerProtocol

#: Called with the id of a connection and the client's IP address, which is empty for a Unix socket; returns what takes
#: each line of the dialog, without a line end, or None if this one is not to be written down.
Transcripts = Callable[[str, str], Callable[[str], None] | None]


def begin_transcript(protocol: SMTPServerProtocol, transcripts: Transcripts) -> None:
    """Write down a connection, if it is wanted. Whoever fails at it must not cost the client its mail."""
    wire = protocol.wire
    try:
        take = transcripts(wire.id, protocol.peer_host)
        if take is None:
            return
        take(f"-- connected from {protocol.peer_name}")
    except Exception:
        _give_up(protocol)
        return
    take_line = take

    def write(line: str) -> None:
        if wire.transcript is None:
            return
        try:
            take_line(line)
        except Exception:
            wire.transcript = None
            _give_up(protocol)

    wire.transcript = Transcript(write, wire.dialect.verbs)


def _give_up(protocol: SMTPServerProtocol) -> None:
    protocol.log.failure("{connection}: the transcript has failed, and ends", connection=protocol.wire.id)
