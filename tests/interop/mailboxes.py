"""
The server's side of the tests with Postfix, run by ``--backend``: mailboxes whose names say what becomes of their mail.

What stands before the first hyphen of the local part decides; the rest tells
mailboxes apart. :data:`ANSWERS` is the table. Mail that is accepted is written
into the folder, a file for each recipient and message: ``NAME.TRANSACTION-NUMBER``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zope.interface import implementer

from smtpfw import Session
from smtpfw.errors import MailboxUnavailable, SMTPError
from smtpfw.interfaces import IBackend, IBody, IConnection, ILMTPSession, IStatusCollector
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

#: What is said to the recipient at the end of the message, by the first word of its name. Any other is accepted.
ANSWERS = {
    "full": (452, "4.2.2", "{} is over quota"),
    "later": (451, "4.2.1", "{} is locked for a moment"),
    "refused": (550, "5.7.1", "{} does not want this"),
    "gone": (550, "5.2.1", "{} is disabled"),
}

#: The first word of a name that is refused at RCPT already.
UNKNOWN = "unknown"


def first_word(local_part: str) -> str:
    return local_part.partition("-")[0]


@implementer(ILMTPSession)
class MailboxSession(Session):
    """Answers each recipient as the table says, the last one first."""

    def __init__(self, connection: IConnection, folder: Path) -> None:
        super().__init__(connection)
        self._folder = folder

    def rcpt(self, recipient: Address, options: Options) -> None:
        if first_word(recipient.local_part) == UNKNOWN:
            raise MailboxUnavailable(f"{recipient.local_part} is not here")

    async def data(self, body: IBody) -> None:
        """By SMTP all have one answer, and it is yes; nothing is kept."""
        await body.read()

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
        octets = await body.read()
        transaction = self.connection.transaction
        assert transaction is not None
        for number, recipient in reversed(list(enumerate(transaction.recipients))):
            outcome = self._deliver(recipient.address, f"{transaction.id}-{number}", octets)
            status.set_status(recipient.address, outcome)

    def _deliver(self, recipient: Address, id: str, octets: bytes) -> Any:
        name = recipient.local_part
        answer = ANSWERS.get(first_word(name))
        if answer is not None:
            code, enhanced_code, text = answer
            return SMTPError(code, enhanced_code, text.format(name))
        (self._folder / f"{name}.{id}").write_bytes(octets)
        return f"{name} has it"


@implementer(IBackend)
class Mailboxes:
    """
    :param folder: where accepted mail goes.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def new_session(self, connection: IConnection) -> MailboxSession:
        """See :meth:`IBackend.new_session`."""
        return MailboxSession(connection, self._folder)
