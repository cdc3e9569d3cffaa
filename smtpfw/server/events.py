"""
What the log is told of a connection: one event for each thing that an operator asks for later.

Rule 1: an event is structured: every name in its format is a field, and the
fields of this table have one meaning wherever they stand.

=============== ======================================================================
``connection``  the id of the connection
``transaction`` the id of the transaction, ``CONNECTION.N``: it stands in Received, too
``peer``        the client's address, ``192.0.2.1:54321``; ``unix`` for a Unix socket
``hello_name``  what the client calls itself
``tls``         version and cipher; empty on a clear line
``identity``    who the client has authenticated as; empty if it has not
``sender``      the reverse-path; empty for the null sender
``recipients``  a list of addresses
``size``        octets of the message
``reply``       what the client was answered, in one line
``replies``     a list of them: LMTP has one for each recipient
``verb``        the command that was answered; empty if it was none that is known
``duration``    seconds: of a transaction from MAIL to its answer, of a connection as a whole
``reason``      how a connection ended, as in ``ISession.logout``
``messages``    how many were accepted on a connection
=============== ======================================================================

Rule 2: what a client said in an exchange of AUTH is never in one, nor is a
command that nobody knows: it may be half of such an exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.logger import Logger

from smtpfw.tls import tls_state
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.server.protocol import SMTPServerProtocol
    from smtpfw.wire.transaction import Transaction


class EventLog:
    """
    The events of a server.

    :param log: where they go.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log

    def connected(self, protocol: SMTPServerProtocol) -> None:
        """A client is there; under implicit TLS it has shaken hands."""
        self._log.info(
            "{connection}: connected from {peer}",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            tls=_tls(protocol),
        )

    def disconnected(self, protocol: SMTPServerProtocol, reason: str, duration: float, messages: int) -> None:
        """It has gone."""
        self._log.info(
            "{connection}: disconnected ({reason}) after {duration:.3f} s, {messages} messages",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            reason=reason,
            duration=duration,
            messages=messages,
        )

    def handshake_failed(self, protocol: SMTPServerProtocol, reason: str) -> None:
        """There will be no TLS with this client."""
        self._log.info(
            "{connection}: TLS handshake with {peer} failed: {reason}",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            reason=reason,
        )

    def authenticated(self, protocol: SMTPServerProtocol) -> None:
        """The client has shown who it is."""
        wire = protocol.wire
        self._log.info(
            "{connection}: {peer} authenticated as {identity} by {mechanism}",
            connection=wire.id,
            peer=protocol.peer_name,
            identity=wire.identity,
            mechanism=wire.mechanism,
            tls=_tls(protocol),
        )

    def refused(self, protocol: SMTPServerProtocol, verb: bytes, reply: Reply) -> None:
        """A command was refused."""
        self._log.info(
            "{connection}: {peer} {verb} refused: {reply}",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            hello_name=protocol.wire.hello_name,
            verb=verb.decode() or "unknown command",
            reply=_line(reply),
        )

    def message(
        self,
        protocol: SMTPServerProtocol,
        transaction: Transaction,
        size: int,
        replies: Sequence[Reply],
        duration: float,
    ) -> None:
        """A message that was sent to its end has its answer, good or bad."""
        wire = protocol.wire
        lines = [_line(reply) for reply in replies]
        self._log.info(
            "{transaction}: {peer} <{sender}> to {to}, {size} octets in {duration:.3f} s: {reply}",
            connection=wire.id,
            transaction=transaction.id,
            peer=protocol.peer_name,
            hello_name=wire.hello_name,
            tls=_tls(protocol),
            identity=wire.identity,
            sender=str(transaction.sender),
            recipients=[str(recipient.address) for recipient in transaction.recipients],
            to=_short(transaction),
            size=size,
            replies=lines,
            reply="; ".join(dict.fromkeys(lines)),
            duration=duration,
        )


def _tls(protocol: SMTPServerProtocol) -> str:
    state = tls_state(protocol.transport) if protocol.wire.tls else None
    return "" if state is None else str(state)


def _line(reply: Reply) -> str:
    """A reply in one line, as the client reads it."""
    return reply.wire[:-2].decode("ascii").replace("\r\n", " / ")


def _short(transaction: Transaction) -> str:
    first, *others = transaction.recipients
    return f"<{first.address}>" + (f" and {len(others)} more" if others else "")
