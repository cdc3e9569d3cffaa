"""
A backend that remembers everything that it was asked, and answers as it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zope.interface import implementer

from smtpfw.interfaces import IBackend, IBody, IConnection, IHelloSession, IVerifySession
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Recipient

__all__ = ["RecordedMessage", "RecordingBackend", "RecordingSession"]


@dataclass(slots=True)
class RecordedMessage:
    """One message that was accepted."""

    sender: Address
    options: Options
    recipients: list[Recipient]
    body: bytes


@implementer(IBackend)
class RecordingBackend:
    """
    :param answers: what a hook does, by its name: a function that takes the hook's arguments and returns or raises
        what the hook shall.
    :param honours: see :class:`~smtpfw.interfaces.IBackend`.

    :ivar messages: what was accepted.
    :ivar events: every call of a hook, as ``("mail", "a@b")``.
    :ivar sessions: in the order of their making.
    """

    def __init__(self, honours: frozenset[str] = frozenset(), **answers: Callable[..., Any]) -> None:
        self.honours = honours
        self.answers = answers
        self.messages: list[RecordedMessage] = []
        self.events: list[tuple[Any, ...]] = []
        self.sessions: list[RecordingSession] = []

    def new_session(self, connection: IConnection) -> Any:
        """See :meth:`IBackend.new_session`."""
        session = RecordingSession(self, connection)
        self.sessions.append(session)
        return self.answers["new_session"](session) if "new_session" in self.answers else session


@implementer(IHelloSession, IVerifySession)
class RecordingSession:
    """
    :ivar connection: as the backend was given it.
    """

    def __init__(self, backend: RecordingBackend, connection: IConnection) -> None:
        self.connection = connection
        self._backend = backend

    def _event(self, name: str, shown: Any, *arguments: Any) -> Any:
        self._backend.events.append((name, shown))
        answer = self._backend.answers.get(name)
        return answer(*arguments) if answer is not None else None

    def hello(self, name: str, extended: bool) -> Any:
        """See :meth:`IHelloSession.hello`."""
        return self._event("hello", name, name, extended)

    def mail(self, sender: Address, options: Options) -> Any:
        """See :meth:`ISession.mail`."""
        return self._event("mail", str(sender), sender, options)

    def rcpt(self, recipient: Address, options: Options) -> Any:
        """See :meth:`ISession.rcpt`."""
        return self._event("rcpt", str(recipient), recipient, options)

    def verify(self, text: str) -> Any:
        """See :meth:`IVerifySession.verify`."""
        return self._event("verify", text, text)

    def reset(self, reason: str) -> Any:
        """See :meth:`ISession.reset`."""
        return self._event("reset", reason, reason)

    def logout(self, reason: str) -> Any:
        """See :meth:`ISession.logout`."""
        return self._event("logout", reason, reason)

    def data(self, body: IBody) -> Any:
        """See :meth:`ISession.data`."""
        answer = self._backend.answers.get("data")
        self._backend.events.append(("data", ""))
        return self._store(body) if answer is None else answer(body)

    async def _store(self, body: IBody) -> None:
        transaction = self.connection.transaction
        assert transaction is not None
        octets = await body.read()
        self._backend.messages.append(
            RecordedMessage(transaction.sender, transaction.options, list(transaction.recipients), octets)
        )
