"""
How the octets of a message travel to the peer, behind its envelope: by DATA here, by BDAT in the module of CHUNKING.

By RFC 5321 sections 4.1.1.4 and 4.5.2.

Rule 1: the end is said once, and only of a message that is whole. One that
breaks off in DATA ends with its connection: a final dot would make half a
message a whole one.

Rule 2: a peer that answers before the end has given up. What is left of a
message by DATA can't be taken back from the line, so the connection ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused
from smtpfw.wire.body import DataEncoder, encode_message
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.sending import Sending

__all__ = ["DataTransfer", "Transfer"]


class Transfer:
    """
    One message on its way.

    :ivar full: whether no more should be written for now.
    :ivar unanswered: replies that are due before the answer to the message.
    """

    __slots__ = ("full", "unanswered")

    #: What is said behind the recipients, and has to be answered with 354; empty if the octets follow at once.
    opening = b""

    def __init__(self) -> None:
        self.full = False
        self.unanswered = 0

    def write(self, sending: Sending, data: bytes) -> None:
        """Send some octets of the message, or keep them for the next."""
        raise NotImplementedError

    def write_whole(self, sending: Sending, data: bytes) -> None:
        """Send all octets of a short message."""
        self.write(sending, data)
        self.finish(sending)

    def finish(self, sending: Sending) -> None:
        """That was all; call ``sending.all_sent`` when it has been said."""
        raise NotImplementedError

    def receive(self, sending: Sending, reply: Reply) -> bool:
        """Take a reply to what was said before the end; see :meth:`Exchange.receive`."""
        raise NotImplementedError

    def abandon(self, sending: Sending, error: Exception) -> None:
        """The message will not be whole; end ``sending`` with the error."""
        raise NotImplementedError


class DataTransfer(Transfer):
    """By DATA: dots are stuffed, and no bare CR or LF goes out."""

    __slots__ = ("_connection", "_encoder")

    opening = b"DATA\r\n"

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self._connection = connection
        self._encoder: DataEncoder | None = None

    def write(self, sending: Sending, data: bytes) -> None:
        encoder = self._encoder = self._encoder or DataEncoder()
        self._connection.write(encoder.feed(data))

    def write_whole(self, sending: Sending, data: bytes) -> None:
        self._connection.write(encode_message(data))
        sending.all_sent()

    def finish(self, sending: Sending) -> None:
        self._connection.write((self._encoder or DataEncoder()).finish())
        sending.all_sent()

    def receive(self, sending: Sending, reply: Reply) -> bool:
        connection = self._connection
        if reply.code < 400:
            connection.fail(
                BrokenPeer(f"{reply.code} before the end of the message", phase="BODY", peer=connection.peer_name)
            )
            return False
        error = Refused(reply, phase="BODY", peer=connection.peer_name)
        self.abandon(sending, error)
        return True

    def abandon(self, sending: Sending, error: Exception) -> None:
        sending.give_up(error)
        connection = self._connection
        connection.fail(ConnectionFailed("a message was broken off", phase="BODY", peer=connection.peer_name))
