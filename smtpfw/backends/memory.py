"""
A backend that keeps accepted messages in memory: for tests, and for looking at what a program sends.

Rule: it never loses what it accepted, for as long as the process lives. When
it is full it refuses (452 4.3.1) instead of forgetting the oldest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zope.interface import implementer

from smtpfw.errors import InsufficientStorage
from smtpfw.interfaces import IBackend, IPrepared, ITwoPhaseSession
from smtpfw.session import Session

if TYPE_CHECKING:
    from smtpfw.interfaces import IBody, IConnection, ISession
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.parameters import Options

__all__ = ["MemoryBackend", "MemorySession", "StoredMessage"]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """
    One accepted message.

    :ivar sender: the reverse-path; false for the null sender.
    :ivar recipients: those that were accepted, in the order of their RCPTs.
    :ivar options: the parameters of MAIL.
    :ivar recipient_options: the parameters of RCPT, one for each of ``recipients``.
    :ivar body: the octets, with CRLF line ends.
    """

    sender: Address
    recipients: tuple[Address, ...]
    options: Options
    recipient_options: tuple[Options, ...]
    body: bytes


@implementer(IBackend)
class MemoryBackend:
    """
    Keeps messages in :attr:`messages`, the oldest first; :meth:`take` makes room.

    :param max_messages: how many at most.
    :param max_bytes: octets of all bodies together.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, max_messages: int = 10_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.messages: list[StoredMessage] = []
        # Messages and octets that are promised room, and not delivered yet.
        self._reserved = (0, 0)
        # The octets of the first so many messages: summed up once, not for each message that comes.
        self._summed = (0, 0)

    def new_session(self, connection: IConnection) -> ISession:
        """Make a session that stores here."""
        return MemorySession(self, connection)

    def room(self) -> int:
        """
        How many octets of a body fit now.

        :raises InsufficientStorage: when there is no place for another message at all.
        """
        reserved_messages, reserved_octets = self._reserved
        if len(self.messages) + reserved_messages >= self.max_messages:
            raise InsufficientStorage
        count, octets = self._summed
        if count > len(self.messages):
            # Somebody took some out.
            count = octets = 0
        octets += sum(len(message.body) for message in self.messages[count:])
        self._summed = (len(self.messages), octets)
        return self.max_bytes - octets - reserved_octets

    def reserve(self, messages: int, octets: int) -> None:
        """Keep room for messages that may come, or, with negative numbers, no longer."""
        self._reserved = (self._reserved[0] + messages, self._reserved[1] + octets)

    def take(self) -> list[StoredMessage]:
        """Take out all messages, to make room."""
        messages, self.messages = self.messages, []
        self._summed = (0, 0)
        return messages

    def describe(self) -> list[str]:
        """Say where mail goes."""
        return [
            f"Mail is kept in memory, {self.max_messages} messages and {self.max_bytes} octets at most; "
            "it is gone when the process ends"
        ]


@implementer(IPrepared)
class PreparedMessage:
    """A message whose room is kept: it can be delivered whatever others store meanwhile."""

    def __init__(self, backend: MemoryBackend, message: StoredMessage) -> None:
        self._backend = backend
        self._message = message
        backend.reserve(1, len(message.body))

    def commit(self) -> None:
        """Deliver it."""
        self.roll_back()
        self._backend.messages.append(self._message)

    def roll_back(self) -> None:
        """Give its room back."""
        self._backend.reserve(-1, -len(self._message.body))


@implementer(ITwoPhaseSession)
class MemorySession(Session):
    """One client's dialog with a :class:`MemoryBackend`."""

    def __init__(self, backend: MemoryBackend, connection: IConnection) -> None:
        super().__init__(connection)
        self._backend = backend

    def mail(self, sender: Address, options: Options) -> None:
        """Refuse at once when there is no room for another message, or none for its declared size."""
        self._check(options.size)

    async def data(self, body: IBody) -> None:
        """Keep the message, or refuse it as soon as it is seen not to fit."""
        (await self.prepare(body)).commit()

    async def prepare(self, body: IBody) -> PreparedMessage:
        """Keep room for the message, or refuse it as soon as it is seen not to fit."""
        transaction = self.connection.transaction
        assert transaction is not None, "a body comes within a transaction"
        room = self._backend.room()
        chunks: list[bytes] = []
        async for chunk in body:
            if body.size > room:
                raise InsufficientStorage
            chunks.append(chunk)
        octets = b"".join(chunks)
        # Others may have stored while this one was coming in.
        self._check(len(octets))
        recipients = transaction.recipients
        return PreparedMessage(
            self._backend,
            StoredMessage(
                transaction.sender,
                tuple(recipient.address for recipient in recipients),
                transaction.options,
                tuple(recipient.options for recipient in recipients),
                octets,
            ),
        )

    def _check(self, octets: int) -> None:
        if octets > self._backend.room():
            raise InsufficientStorage
