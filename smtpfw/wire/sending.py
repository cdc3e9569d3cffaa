"""
One message, from MAIL to its last reply: the transaction as a client sees it.

By RFC 5321 section 3.3, RFC 2920 section 3.1 (pipelining) and RFC 2033
section 4.2 (LMTP).

Rule 1: one refused recipient does not stop the others; each has a result of
its own, and nothing merges them.

Rule 2: where the peer allows it, MAIL, every RCPT and DATA are one write, and
the next message may share a write with the end of this one. Where it does
not, each waits for the reply before it.

Rule 3: once all was said and the answer is missing, nobody knows what became
of the message; see :class:`~smtpfw.errors.UnknownOutcome`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpfw.errors import (
    BrokenPeer,
    ClientError,
    ConnectionFailed,
    LocalProtocolError,
    Refused,
    SMTPError,
    UnknownOutcome,
)
from smtpfw.wire.commands import format_mail, format_rcpt
from smtpfw.wire.exchange import Done, Exchange
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult, SendResult
from smtpfw.wire.transfer import DataTransfer, Transfer

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection

__all__ = ["RSET", "Sending", "refused_reset"]

#: Octets in memory that are written at once; more go out as the peer takes them.
AT_ONCE = 128 * 1024

RSET = b"RSET\r\n"
_DOT = b".\r\n"


class Sending(Exchange):
    """
    :param message: what to send.
    :param done: gets a :class:`SendResult` if the peer has taken the message over for anybody; else an exception, which
        has the result in its ``result``.

    :ivar message: as given.
    :ivar results: one for each recipient.
    """

    __slots__ = (
        "_accepted", "_connection", "_error", "_final", "_index", "_lines", "_named", "_opened", "_take", "_transfer",
        "message", "results",
    )  # fmt: skip

    whole = True

    def __init__(self, message: OutgoingMessage, done: Done) -> None:
        super().__init__("MAIL", done)
        self.message = message
        self.results = [RecipientResult(recipient) for recipient in message.recipients]
        self._transfer: Transfer | None = None
        self._error: Exception | None = None
        # Whose RCPT goes out, and whose was accepted.
        self._named: list[RecipientResult] = []
        self._accepted: list[RecipientResult] = []
        self._lines: list[bytes] = []
        self._index = 0
        self._opened = False
        self._final: Reply | None = None

    def begin(self, connection: ClientConnection) -> None:
        self._connection = connection
        # All that can be wrong with the message is found before the first octet of it goes out.
        self._lines = lines = self._envelope(connection)
        self._transfer = self._choose_transfer(connection)
        if not self._named:
            self._end()
            connection.ended(self)
            return
        # A function and no method: that would be a reference to itself, and keep the message until the collector runs.
        self._take: Callable[[Sending, Reply], bool] = Sending._mail_reply
        if connection.needs_reset or connection.transaction is not None:
            # Somebody has given up a transaction, or begun one step by step and left it.
            connection.needs_reset = connection.stepping = False
            connection.transaction = None
            lines.insert(0, RSET)
            self.phase = "RSET"
            self._take = Sending._reset_reply
        if connection.pipelining:
            if self._transfer.opening:
                lines.append(self._transfer.opening)
                self._opened = True
            connection.write_lines(lines)
            self._lines = []
        else:
            lines.reverse()
            connection.write_line(lines.pop())

    def _envelope(self, connection: ClientConnection) -> list[bytes]:
        message, peer = self.message, connection.peer
        if not message.recipients:
            raise LocalProtocolError("a message needs a recipient")
        lines = [format_mail(message.sender, peer.mail_parameters(connection, message))]
        named = self._named
        for result in self.results:
            recipient = result.recipient
            error = peer.refuse_recipient(len(named), recipient)
            if error is None:
                try:
                    lines.append(format_rcpt(recipient.address, peer.rcpt_parameters(recipient.options)))
                except SMTPError as missing:
                    error = missing
            if error is None:
                named.append(result)
            else:
                result.error = connection.by_us(error)
        return lines

    def _choose_transfer(self, connection: ClientConnection) -> Transfer:
        return connection.peer.transfer(connection, self.message) or DataTransfer(connection)

    def send_to(self, connection: ClientConnection, accepted: list[RecipientResult]) -> None:
        """Begin behind the recipients: these have been accepted."""
        self._connection = connection
        self._transfer = self._choose_transfer(connection)
        connection.transaction = None
        connection.stepping = False
        self._accepted = accepted
        self._recipients_answered()

    # -- replies ------------------------------------------------------------

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        return self._take(self, reply)

    def _reset_reply(self, reply: Reply) -> bool:
        if reply.code >= 300:
            self._connection.fail(refused_reset(self._connection, reply))
            return True
        self._say_next()
        self.phase = "MAIL"
        self._take = Sending._mail_reply
        return False

    def _mail_reply(self, reply: Reply) -> bool:
        code = reply.code
        if code >= 400:
            self._error = self._refused(reply)
            if not self._connection.pipelining:
                return self._end()
        elif code >= 300:
            return self._broken(reply)
        self._say_next()
        self.phase = "RCPT"
        self._take = Sending._rcpt_reply
        return False

    def _rcpt_reply(self, reply: Reply) -> bool:
        result = self._named[self._index]
        self._index += 1
        code = reply.code
        if self._error is None:
            result.reply = reply
        if code < 300:
            self._accepted.append(result)
        elif code >= 400:
            if self._error is None:
                # Else MAIL was refused: that is what this recipient has to hear of, and not that MAIL is missing.
                result.error = self._refused(reply)
            if code == 421:
                # The connection ends here, so nothing else is said.
                return False
        else:
            return self._broken(reply)
        if self._index < len(self._named):
            self._say_next()
            return False
        return self._recipients_answered()

    def _recipients_answered(self) -> bool:
        transfer, connection = self._transfer, self._connection
        assert transfer is not None
        if (self._error is not None or not self._accepted) and not self._opened:
            connection.needs_reset = self._error is None
            return self._end()
        if transfer.opening:
            if not self._opened:
                self._opened = True
                connection.write_line(transfer.opening)
            self.phase = "DATA"
            self._take = Sending._opening_reply
            return False
        return self._send_body()

    def _opening_reply(self, reply: Reply) -> bool:
        code = reply.code
        nobody = self._error is not None or not self._accepted
        if code == 354 and not nobody:
            return self._send_body()
        if code == 354 and not self._accepted and not self._connection.lmtp:
            # RFC 2920 section 3.1: the peer waits for a message to nobody; it gets an empty one.
            self._connection.write(_DOT)
            self.sent = True
            self._take = Sending._reply_to_nothing
            return False
        if code >= 400:
            if not nobody:
                self._error = self._refused(reply)
            # Where MAIL was refused there is nothing to reset, and it does no harm.
            self._connection.needs_reset = True
            return self._end()
        return self._broken(reply)

    def _reply_to_nothing(self, reply: Reply) -> bool:
        return self._broken(reply) if 300 <= reply.code < 400 else self._end()

    def _body_reply(self, reply: Reply) -> bool:
        assert self._transfer is not None
        return self._transfer.receive(self, reply)

    def _final_reply(self, reply: Reply) -> bool:
        assert self._transfer is not None
        if self._transfer.unanswered:
            return self._transfer.receive(self, reply)
        if 300 <= reply.code < 400:
            self._connection.fail(self._unknown(f"{reply.code} in the place of the answer to the message"))
            return True
        if not self._connection.lmtp:
            if reply.code >= 400:
                self._error = self._refused(reply)
            self._final = reply
            return self._end()
        # RFC 2033 section 4.2: one for each recipient that was accepted, in their order.
        result = self._accepted[self._index]
        self._index += 1
        result.reply = reply
        if reply.code >= 400:
            result.error = self._refused(reply)
        return self._index == len(self._accepted) and self._end()

    # -- the body -----------------------------------------------------------

    def _send_body(self) -> bool:
        self.phase = "BODY"
        self._take = Sending._body_reply
        if self._connection.octets_behind:
            # It would be taken for the answer to a message of which the peer has not seen an octet.
            self._connection.fail(
                BrokenPeer("a reply before the message", phase="BODY", peer=self._connection.peer_name)
            )
            return False
        assert self._transfer is not None
        data = self.message.body.data
        if data is not None and len(data) <= AT_ONCE:
            self._transfer.write_whole(self, data)
        else:
            self._connection.driver.send_body(self)
        return False

    def write(self, data: bytes) -> None:
        """Some octets of the message, from whoever was asked by :meth:`Driver.send_body`."""
        if self.phase == "BODY" and self._error is None and self._transfer is not None:
            error = self._connection.peer.watch(data) if self.message.body.eight_bit is None else None
            if error is None:
                self._transfer.write(self, data)
            else:
                self.abandon(error)

    def finish_body(self) -> None:
        """That was all of it."""
        if self.phase == "BODY" and self._error is None and self._transfer is not None:
            self._transfer.finish(self)

    def abandon(self, error: Exception) -> None:
        """It will not be whole; whoever asked gets the error as it is."""
        if self.phase == "BODY" and self._error is None and self._transfer is not None:
            self._transfer.abandon(self, error)

    @property
    def full(self) -> bool:
        """Whether no more should be written for now; :meth:`Driver.more_room` says when."""
        return self._transfer is not None and self._transfer.full

    @property
    def given_up(self) -> bool:
        """Whether whoever asked has been told that the message will not be whole."""
        return self._error is not None

    def all_sent(self) -> None:
        """All of the message has been said."""
        self.phase = "END"
        self.sent = True
        self._index = 0
        self._take = Sending._final_reply
        self._connection.advance()

    # -- the end ------------------------------------------------------------

    def give_up(self, error: Exception) -> None:
        """The message ends here, as its transfer says: whoever asked gets the error."""
        if self._error is None:
            self._error = error
            for result in self._accepted:
                result.error = error
            self._connection.driver.stop_body(self)
            self._end()

    def cancel(self) -> None:
        super().cancel()
        cancelled = self._cancelled()
        if self.phase == "BODY":
            self.abandon(cancelled)
        elif self.phase != "END":
            self.give_up(cancelled)
            if self._connection.is_first(self):
                # The peer may begin to wait for the message at any moment.
                self._connection.fail(cancelled)
            else:
                # Those before it have their answers still to come.
                self._take = Sending._cancelled_reply

    def fail(self, error: Exception) -> None:
        if self.phase == "BODY":
            self._connection.driver.stop_body(self)
        if self.phase == "END" and self._error is None:
            if isinstance(error, Refused):
                # 421: LMTP's first recipient was told, the others were not.
                error = self._unknown("the connection ended with 421 before all replies had come")
            elif not isinstance(error, UnknownOutcome):
                unknown = self._unknown(f"{error.args[0]}, and the answer to the message is missing")
                unknown.__cause__ = error
                error = unknown
            for result in self._accepted[self._index :]:
                result.error = error
        if self._error is None:
            self._error = error
        self._end()

    def _end(self) -> bool:
        """Tell whoever asked."""
        error, lmtp_answered = self._error, self.phase == "END" and self._connection.lmtp
        if error is not None and not lmtp_answered:
            for result in self.results:
                if result.error is None:
                    result.error = error
        self.finish(_outcome(self.results, self._final, error))
        return True

    def _cancelled_reply(self, reply: Reply) -> bool:
        self._connection.fail(self._cancelled())
        return True

    def _cancelled(self) -> ConnectionFailed:
        return ConnectionFailed("cancelled by the caller", phase=self.phase, peer=self._connection.peer_name)

    def _say_next(self) -> None:
        if self._lines:
            self._connection.write_line(self._lines.pop())

    def _refused(self, reply: Reply) -> Refused:
        return Refused(reply, phase=self.phase, peer=self._connection.peer_name)

    def _unknown(self, why: str) -> UnknownOutcome:
        return UnknownOutcome(why, phase="END", peer=self._connection.peer_name)

    def _broken(self, reply: Reply) -> bool:
        connection = self._connection
        connection.fail(
            BrokenPeer(f"{reply.code} does not answer {self.phase}", phase=self.phase, peer=connection.peer_name)
        )
        return True


def refused_reset(connection: ClientConnection, reply: Reply) -> ClientError:
    """RSET has failed: whatever comes behind it could belong to the message before."""
    if reply.code >= 400:
        return Refused(reply, phase="RSET", peer=connection.peer_name)
    return BrokenPeer(f"{reply.code} does not answer RSET", phase="RSET", peer=connection.peer_name)


def _outcome(results: list[RecipientResult], final: Reply | None, error: Exception | None) -> Any:
    """What whoever asked gets: the result, or the exception that says why nobody got the message."""
    result = SendResult(results, final)
    for one in results:
        if one.error is None:
            return result
    if error is None:
        errors = [one.error for one in results if one.error is not None]
        # Where some may be tried again, all may: the mildest says so.
        error = next((one for one in errors if getattr(one, "temporary", False)), errors[0])
    if isinstance(error, ClientError | SMTPError):
        error.result = result
    return error
