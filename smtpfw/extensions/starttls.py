"""
STARTTLS (RFC 3207): go on over TLS.

Nothing that was said in clear survives: neither what the session knew, nor
what came behind the command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import BadSequence, Refused, SMTPError, SyntaxProblem, TLSFailed
from smtpfw.wire.dialect import Extension
from smtpfw.wire.exchange import Done, Exchange
from smtpfw.wire.phases import MAIL, RCPT, READY, Verb
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.server import ServerConnection

__all__ = ["StartTLS", "StartTLSExchange"]

_READY = Reply(220, "Ready to start TLS", (2, 0, 0))
_SOMETHING_BEHIND = Reply(554, "Nothing may follow STARTTLS in clear", (5, 5, 1))


def _starttls(connection: ServerConnection, argument: bytes) -> None:
    if argument.strip(b" "):
        raise SyntaxProblem("STARTTLS takes no argument")
    if connection.tls:
        raise BadSequence("TLS is on already")
    if not connection.application.can_start_tls():
        raise SMTPError(454, (4, 7, 0), "TLS not available due to a temporary reason")
    if connection.buffered:
        # It would be executed inside TLS if it were kept: whoever sits on the line could speak for the client (RFC 3207
        # section 6, CVE-2011-0411).
        connection.close(_SOMETHING_BEHIND)
        return
    if connection.transaction is not None:
        connection.application.reset("starttls")
        connection.forget_transaction()
    connection.application.end_session("starttls", same_client=True)
    connection.write(_READY)
    connection.begin_anew()
    connection.application.start_tls()


class StartTLS(Extension):
    keyword = "STARTTLS"
    verbs = (Verb("STARTTLS", frozenset({READY, MAIL, RCPT}), before_tls=True, last_in_group=True, serve=_starttls),)

    def advertise(self, connection: ServerConnection) -> str | None:
        return None if connection.tls else ""


class StartTLSExchange(Exchange):
    """The client's side: STARTTLS, and the handshake behind it."""

    __slots__ = ()

    alone = True

    def __init__(self, done: Done) -> None:
        super().__init__("STARTTLS", done)

    def begin(self, connection: ClientConnection) -> None:
        if connection.tls:
            raise BadSequence("TLS is on already")
        if not connection.peer.uses("STARTTLS"):

            def failed() -> TLSFailed:
                return TLSFailed("it does not offer STARTTLS", phase=self.phase, peer=connection.peer_name)

            connection.cancel_waiting(failed)
            raise failed()
        connection.write_line(b"STARTTLS\r\n")

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        if reply.code >= 400:

            def refused() -> Refused:
                return Refused(reply, phase=self.phase, peer=connection.peer_name)

            # What was asked for behind it was meant for a safe line; who hears of the error may ask for something else.
            connection.cancel_waiting(refused)
            self.finish(refused())
            return True
        if reply.code != 220:
            connection.fail(TLSFailed(f"{reply.code} to STARTTLS", phase=self.phase, peer=connection.peer_name))
            return True
        if connection.octets_behind:
            # Whoever sits on the line could have put them there, to be read as if they had come by TLS (RFC 3207
            # section 6, CVE-2021-38371).
            connection.fail(
                TLSFailed("octets in clear behind the answer to STARTTLS", phase=self.phase, peer=connection.peer_name)
            )
            return True
        self.phase = "TLS"
        connection.driver.start_tls()
        return False
