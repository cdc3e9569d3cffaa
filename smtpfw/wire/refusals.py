"""
What a line of the peer gets that no verb serves: because it can't be read, or says nothing that is allowed now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.wire.buffer import EndlessLine, LineError, LineOverLimit
from smtpfw.wire.config import SMTP
from smtpfw.wire.lines import Lines
from smtpfw.wire.phases import NOT_IMPLEMENTED, REFUSED
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection

_BAD_COMMAND_LINE = Reply(500, "Command line is empty or begins with a space", (5, 5, 2))


def refuse_line(connection: ServerConnection, lines: Lines, error: LineError) -> None:
    """Answer a line that can't be used, or end the connection with it."""
    transcript = connection.transcript
    if lines.wanted and isinstance(error, LineOverLimit):
        if transcript is not None:
            transcript.response(None)
        lines.give(None)
        return
    if transcript is not None:
        transcript.bad_line(error)
    connection.verb = connection.argument = b""
    if connection.phase is REFUSED and not isinstance(error, EndlessLine):
        connection.write(connection.dialect.out_of_phase[REFUSED])
        return
    reply, over = lines.refusal(error)
    connection.write(reply)
    if over:
        connection.close()


def refuse_verb(connection: ServerConnection, verb: bytes) -> None:
    """Answer a command that is not in the table of the moment."""
    dialect = connection.dialect
    name = verb.decode("ascii", "replace")
    if not (name in dialect.verbs or name in NOT_IMPLEMENTED):
        # It may be anything, half of an exchange of AUTH among it.
        connection.verb = connection.argument = b""
    if not verb and connection.phase is not REFUSED:
        connection.write(_BAD_COMMAND_LINE)
        return
    nobody_left = connection.recipient_refused and connection.config.protocol == SMTP
    connection.write(dialect.why_not(name, connection.phase, connection.tls_first, nobody_left))
