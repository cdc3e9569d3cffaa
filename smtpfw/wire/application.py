"""
Whom a connection asks, and how answers that take their time are spelled.

The connection knows the rules and nothing else; the application knows what to
do with mail. The Twisted shell is an application; tests have others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from smtpfw.errors import SMTPError
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from smtpfw.wire.transaction import Transaction


class Pending(Enum):
    """Has one member, so that the type checker knows what is left when it is ruled out."""

    PENDING = "pending"


#: The answer is not there yet; :meth:`ServerConnection.resume` will bring it.
PENDING: Final = Pending.PENDING

#: How a question to the application ends: None for the standard reply, a reply of success, or a refusal.
Outcome = Reply | SMTPError | None

#: What a question gives: how it ends, or PENDING.
Answer = Outcome | Pending


class Application(Protocol):
    """
    What a connection asks of those who know what to do with mail.

    The methods never raise: a refusal is a returned SMTPError.
    """

    def hello(self, name: str, extended: bool) -> Answer:
        """EHLO (``extended``) or HELO."""

    def mail(self, sender: Address, options: Options) -> Answer:
        """MAIL, its syntax checked."""

    def rcpt(self, recipient: Address, options: Options) -> Answer:
        """RCPT, its syntax checked."""

    def start_data(self) -> Answer:
        """DATA, or the first BDAT: whether the message may be sent."""

    def message_data(self, data: bytes) -> None:
        """More of the message. Call :meth:`ServerConnection.hold` when it is too much at the moment."""

    def message_failed(self, error: Exception) -> None:
        """The message will not be whole. Called once at most; no :meth:`message_data` follows."""

    def message_refusal(self) -> SMTPError | None:
        """What the backend refuses the message with already, before its end; None if it does not."""

    def judge_message(self, data: bytes) -> Answer:
        """
        The message is whole, and nothing is wrong with its form: whether policy lets it pass.

        :param data: the last octets, which :meth:`message_end` will bring.
        """

    def message_end(self, data: bytes) -> Answer:
        """
        The last octets, perhaps none: the message is whole, or :meth:`message_failed` said why not.

        The answer comes when the backend has nothing to do with the message any more.
        """

    def message_answered(self, transaction: Transaction, size: int, replies: Sequence[Reply]) -> None:
        """
        A message that was read to its end has its answer, for those who keep a log.

        :param size: octets.
        :param replies: one; in LMTP one for each recipient.
        """

    def refused(self, verb: bytes, reply: Reply) -> None:
        """A command was refused, for those who keep a log. ``verb`` is empty where there was no known one."""

    def authenticated(self) -> None:
        """The client has shown who it is, for those who keep a log."""

    def verify(self, text: str) -> Answer:
        """VRFY."""

    def reset(self, reason: str) -> None:
        """The transaction is dropped. ``connection.transaction`` is still there."""

    def can_start_tls(self) -> bool:
        """Whether there is a certificate to begin a handshake with."""

    def start_tls(self) -> None:
        """Begin the handshake, once the reply to STARTTLS is on its way."""

    def end_session(self, reason: str, *, same_client: bool) -> None:
        """
        The session is over, and another one will follow.

        :param reason: in the words of ISession.logout.
        :param same_client: whether that will be with the same client.
        """

    def wait(self, result: Any) -> Answer:
        """Wait for what an extension's verb returned."""

    @property
    def session(self) -> Any:
        """The session, for extensions that ask what it can do."""

    @property
    def client(self) -> Any:
        """Who is at the other end, for extensions that ask where it comes from."""

    def speak_for(self, told: Any) -> None:
        """
        The client speaks for somebody else from now on: open a session, and call :meth:`ServerConnection.greet`.

        :param told: what an extension says of that one.
        """

    def sasl_context(self, mechanisms: Collection[str] | None) -> Any:
        """
        What a SASL mechanism may know of the connection.

        :param mechanisms: those that are offered.
        """

    def read_line(self, limit: int) -> Awaitable[bytes]:
        """
        The next line of the peer, without its line end; for a verb that has more to ask.

        Fails with an SMTPError (500 5.5.6) when it has more than ``limit`` octets. What was written before goes out.
        """

    def pause(self, seconds: float) -> Awaitable[None]:
        """Some time, in which other connections are served."""

    def fault(self, error: Exception) -> Answer:
        """A verb raised what is no refusal: log it, and give what the client is told."""
