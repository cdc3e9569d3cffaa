"""
The steps of a transaction for whoever wants to take them one by one: MAIL, RCPT, the message, RSET.

:class:`~smtpfw.wire.sending.Sending` takes them all at once. Here the
connection keeps the transaction between them: whom the peer has accepted, and
by which parameters.

Rule: what a step says depends on what the peer offers, which is known when the
step begins, not when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import BadSequence, ExtensionMissing, LocalProtocolError
from smtpfw.wire.commands import format_mail, format_rcpt
from smtpfw.wire.exchange import Command, Done
from smtpfw.wire.grammar import NULL_SENDER, Address
from smtpfw.wire.message import Content, OutgoingMessage
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult
from smtpfw.wire.sending import RSET, Sending, refused_reset
from smtpfw.wire.transaction import Recipient, Transaction

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection

__all__ = ["BodyStep", "MailStep", "QuitStep", "RcptStep", "ResetStep", "VerifyStep"]


class MailStep(Command):
    """MAIL: a transaction begins if the peer accepts it. One that is open there is reset first."""

    __slots__ = ("_options", "_resets", "_sender")
    whole = True

    def __init__(self, sender: Address, options: Options, done: Done) -> None:
        super().__init__(b"MAIL\r\n", done)
        self._sender = sender
        self._options = options
        self._resets = False

    def line(self, connection: ClientConnection) -> bytes:
        # Nobody knows the message yet.
        message = OutgoingMessage(self._sender, (), options=self._options)
        return format_mail(self._sender, connection.peer.mail_parameters(connection, message))

    def begin(self, connection: ClientConnection) -> None:
        self._line = self.line(connection)
        self._resets = connection.needs_reset or connection.transaction is not None
        if self._resets:
            # It would take the recipients of what comes now.
            connection.needs_reset = False
            connection.transaction = None
            self.phase = "RSET"
            connection.write_lines([RSET, self._line] if connection.pipelining else [RSET])
        else:
            connection.write_line(self._line)
        self.sent = connection.pipelining
        connection.stepping = True

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        if self._resets:
            return self._reset(connection, reply)
        connection.stepping = reply.code < 300 or connection.transaction is not None
        return super().receive(connection, reply)

    def _reset(self, connection: ClientConnection, reply: Reply) -> bool:
        if reply.code >= 300:
            # What follows could belong to the message before.
            connection.fail(refused_reset(connection, reply))
            return True
        self._resets = False
        self.phase = "MAIL"
        if not connection.pipelining:
            connection.write_line(self._line)
        return False

    def accepted(self, connection: ClientConnection, reply: Reply) -> None:
        connection.transaction = Transaction("", self._sender, self._options)


class RcptStep(Command):
    """RCPT: one more recipient if the peer accepts it."""

    __slots__ = ("_recipient",)

    def __init__(self, recipient: Recipient, done: Done) -> None:
        super().__init__(b"RCPT\r\n", done)
        self._recipient = recipient

    def line(self, connection: ClientConnection) -> bytes:
        transaction, peer = connection.transaction, connection.peer
        error = peer.refuse_recipient(len(transaction.recipients) if transaction else 0, self._recipient)
        if error is not None:
            raise error
        return format_rcpt(self._recipient.address, peer.rcpt_parameters(self._recipient.options))

    def accepted(self, connection: ClientConnection, reply: Reply) -> None:
        if connection.transaction is not None:
            connection.transaction.recipients.append(self._recipient)


class ResetStep(Command):
    """RSET: there is no transaction any more."""

    __slots__ = ()

    def __init__(self, done: Done) -> None:
        super().__init__(RSET, done)

    def accepted(self, connection: ClientConnection, reply: Reply) -> None:
        connection.transaction = None
        connection.needs_reset = connection.stepping = False


class VerifyStep(Command):
    """VRFY; what is not ASCII needs SMTPUTF8 (RFC 6531 section 3.7.4.2)."""

    __slots__ = ("_ascii",)

    def __init__(self, text: str, done: Done) -> None:
        self._ascii = text.isascii()
        super().__init__(f"VRFY {text}{'' if self._ascii else ' SMTPUTF8'}\r\n".encode(), done)

    def line(self, connection: ClientConnection) -> bytes:
        if not (self._ascii or connection.peer.uses("SMTPUTF8")):
            raise ExtensionMissing("SMTPUTF8", "the name is not ASCII")
        return super().line(connection)


class QuitStep(Command):
    """QUIT, for which nobody has to be introduced."""

    __slots__ = ()
    needs_hello = False

    def __init__(self, done: Done) -> None:
        super().__init__(b"QUIT\r\n", done)


class BodyStep(Sending):
    """
    The message, to those whom the peer has accepted.

    :param content: the message.
    """

    __slots__ = ()

    alone = True
    whole = False

    def __init__(self, content: Content, done: Done) -> None:
        super().__init__(OutgoingMessage(NULL_SENDER, (), content), done)

    def begin(self, connection: ClientConnection) -> None:
        transaction = connection.transaction
        if transaction is None or not transaction.recipients:
            raise BadSequence("No recipient has been accepted")
        content = self.message.body
        if content.binary and transaction.options.body != "BINARYMIME":
            # RFC 3030 section 3: the peer would take it for lines of text.
            raise LocalProtocolError("the message is binary, and MAIL did not say so: give it BODY=BINARYMIME")
        if content.utf8_header and not transaction.options.utf8:
            # RFC 6531 section 3.2.
            raise LocalProtocolError("the header of the message is UTF-8, and MAIL did not say so: give it SMTPUTF8")
        self.message = OutgoingMessage(transaction.sender, transaction.recipients, content, transaction.options)
        connection.peer.check_content(self.message)
        self.results = [RecipientResult(recipient) for recipient in transaction.recipients]
        self.send_to(connection, self.results)
