"""
What the log is told of a connection: one event for each thing that an operator asks for later.

Rule 1: an event is structured: every name in its format is a field, and the
fields of this table have one meaning wherever they stand.

=============== ======================================================================
``event``       which one: the name of the method here
``connection``  the id of the connection
``transaction`` the id of the transaction, ``CONNECTION.N``: it stands in Received, too
``peer``        the client's address, ``192.0.2.1:54321``; ``unix`` for a Unix socket, ``unknown`` if a proxy says so
``proxy``       the address of the proxy that has told us of the client; empty if there is none
``hello_name``  what the client calls itself
``tls``         version and cipher; empty on a clear line
``identity``    who the client has authenticated as, by ``mechanism``; empty if it has not
``sender``      the reverse-path; empty for the null sender
``recipients``  a list of addresses; ``to`` is the first, and how many others there are
``size``        octets of the message, so far
``reply``       what the client was answered, in one line
``replies``     a list of them: LMTP has one for each recipient
``verb``        the command that was answered; empty if it was none that is known
``command``     the same with its argument, if that is no secret
``duration``    seconds: of a transaction from MAIL on, of a connection as a whole
``reason``      how a connection ended, as in ``ISession.logout``, or a message, as in ``ISession.reset``
``messages``    how many were accepted on a connection
=============== ======================================================================

Rule 2: what a client said in an exchange of AUTH is never in one, nor is a
command that nobody knows: it may be half of such an exchange.

Rule 3: nobody writes a line of his own: what may come from a client is
printable. And a line stays short, however many recipients there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from smtpfw.server.origin import name_of
from smtpfw.wire.replies import Reply
from smtpfw.wire.transcript import printable, show_command

if TYPE_CHECKING:
    from smtpfw.server.protocol import SMTPServerProtocol
    from smtpfw.wire.transaction import Transaction

#: Characters of a command that are shown. A path has 256 at most, and the most of what stands behind it is no news.
MAX_COMMAND = 320

#: Different replies to one message that its line shows; the field ``replies`` has all.
MAX_REPLIES = 3


class EventLog:
    """
    The events of a server.

    :param log: where they go.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log

    def speaks_for(self, protocol: SMTPServerProtocol) -> None:
        """A proxy has said by XCLIENT who the client is; it is ``peer`` from now on."""
        self._log.info(
            "{connection}: {proxy} speaks for {peer}",
            event="speaks_for",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            proxy=_proxy(protocol),
        )

    def connected(self, protocol: SMTPServerProtocol) -> None:
        """A client is there; under implicit TLS it has shaken hands."""
        self._log.info(
            "{connection}: connected from {peer}" + (" by way of {proxy}" if protocol.proxy is not None else ""),
            event="connected",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            proxy=_proxy(protocol),
            tls=protocol.tls,
        )

    def disconnected(self, protocol: SMTPServerProtocol, reason: str, duration: float, messages: int) -> None:
        """It has gone."""
        self._log.info(
            "{connection}: disconnected ({reason}) after {duration:.3f} s, {messages} messages",
            event="disconnected",
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
            event="handshake_failed",
            connection=protocol.wire.id,
            peer=protocol.peer_name,
            reason=printable(reason),
        )

    def proxy_failed(self, peer: str, reason: str) -> None:
        """A proxy has not said whom it speaks for, or not so that it could be understood."""
        self._log.warn(
            "{peer}: no PROXY header: {reason}", event="proxy_failed", connection="", peer=peer, reason=reason
        )

    def authenticated(self, protocol: SMTPServerProtocol) -> None:
        """The client has shown who it is."""
        wire = protocol.wire
        self._log.info(
            "{connection}: {peer} authenticated as {identity} by {mechanism}",
            event="authenticated",
            connection=wire.id,
            peer=protocol.peer_name,
            hello_name=printable(wire.hello_name),
            identity=printable(wire.identity),
            mechanism=wire.mechanism,
            tls=protocol.tls,
        )

    def refused(self, protocol: SMTPServerProtocol, verb: bytes, reply: Reply) -> None:
        """A command was refused; or the connection itself, or a line that is no command: then ``verb`` is empty."""
        wire = protocol.wire
        command = show_command(verb, wire.argument, wire.dialect.verbs) if verb else ""
        if len(command) > MAX_COMMAND:
            command = f"{command[:MAX_COMMAND]}..."
        transaction = wire.transaction
        self._log.info(
            "{connection}: {peer} {command} refused: {reply}" if verb else "{connection}: {peer} refused: {reply}",
            event="refused",
            connection=wire.id,
            transaction="" if transaction is None else transaction.id,
            peer=protocol.peer_name,
            hello_name=printable(wire.hello_name),
            identity=printable(wire.identity),
            sender="" if transaction is None else printable(str(transaction.sender)),
            verb=verb.decode("ascii", "replace"),
            command=command,
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
        lines = [_line(reply) for reply in replies]
        self._log.info(
            "{transaction}: {peer} <{sender}> to {to}, {size} octets in {duration:.3f} s: {reply}",
            event="message",
            **_envelope(protocol, transaction),
            size=size,
            duration=duration,
            replies=lines,
            reply=lines[0] if len(lines) == 1 else _short(lines),
        )

    def aborted(self, protocol: SMTPServerProtocol, reason: str, duration: float) -> None:
        """The transaction under way is dropped, or its client has gone; told only if its message had begun."""
        transaction, message = protocol.wire.transaction, protocol.wire.message
        if transaction is None or message is None:
            return
        self._log.info(
            "{transaction}: {peer} <{sender}> to {to}, aborted ({reason}) after {size} octets and {duration:.3f} s",
            event="aborted",
            **_envelope(protocol, transaction),
            size=message.size,
            duration=duration,
            reason=reason,
        )


def _envelope(protocol: SMTPServerProtocol, transaction: Transaction) -> dict[str, Any]:
    wire = protocol.wire
    recipients = [printable(str(recipient.address)) for recipient in transaction.recipients]
    return {
        "connection": wire.id,
        "transaction": transaction.id,
        "peer": protocol.peer_name,
        "hello_name": printable(wire.hello_name),
        "tls": protocol.tls,
        "identity": printable(wire.identity),
        "sender": printable(str(transaction.sender)),
        "recipients": recipients,
        "to": f"<{recipients[0]}>" + (f" and {len(recipients) - 1} more" if len(recipients) > 1 else ""),
    }


def _proxy(protocol: SMTPServerProtocol) -> str:
    return "" if protocol.proxy is None else name_of(protocol.proxy)


def _line(reply: Reply) -> str:
    """A reply in one line, as the client reads it."""
    return _in_one_line(reply.wire)


@lru_cache(maxsize=64)
def _in_one_line(octets: bytes) -> str:
    return octets[:-2].decode("ascii").replace("\r\n", " / ")


def _short(lines: list[str]) -> str:
    """The different ones among some replies, in one line."""
    different = list(dict.fromkeys(lines))
    others = len(different) - MAX_REPLIES
    return "; ".join(different[:MAX_REPLIES]) + (f"; and {others} others" if others > 0 else "")
