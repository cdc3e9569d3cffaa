"""
STARTTLS (RFC 3207): go on over TLS.

The verb is here; the rule that nothing said in clear survives is in
:meth:`smtpfw.wire.server.ServerConnection.begin_tls`, where it is tested
without TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import BadSequence, SyntaxProblem
from smtpfw.wire.dialect import Extension
from smtpfw.wire.phases import MAIL, RCPT, READY, Verb

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection


def _starttls(connection: ServerConnection, argument: bytes) -> None:
    if argument.strip(b" "):
        raise SyntaxProblem("STARTTLS takes no argument")
    if connection.tls:
        raise BadSequence("TLS is on already")
    if not connection.extended:
        raise BadSequence("Not available after HELO, send EHLO")
    connection.begin_tls()


class StartTLS(Extension):
    keyword = "STARTTLS"
    verbs = (Verb("STARTTLS", frozenset({READY, MAIL, RCPT}), before_tls=True, last_in_group=True, serve=_starttls),)

    def advertise(self, connection: ServerConnection) -> str | None:
        return None if connection.tls else ""
