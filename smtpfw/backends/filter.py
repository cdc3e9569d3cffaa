"""
A filter: each message is shown to a function, and goes on as that says.

Rule 1: recipients are judged by the backend behind, at RCPT, as ever. The
message is held in memory, so ``max_message_bytes`` bounds what it costs.

Rule 2: the answer is that of whoever keeps the message. Nothing is acknowledged
that is in memory only.

Rule 3: what fails in the function is a temporary failure, and the message comes
again; a filter that is broken lets nothing through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.backends.handler import Envelope
from smtpfw.backends.mux.calls import ask
from smtpfw.backends.mux.target import Target
from smtpfw.body import MessageBody
from smtpfw.hooks import call_hook, notify
from smtpfw.interfaces import IBackend, IBody, IConnection, ISession
from smtpfw.session import Session
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["FilterBackend", "Verdict"]


class Verdict(Enum):
    """What becomes of a message, beside being changed or refused."""

    #: It goes on as it is.
    ACCEPT = "accept"
    #: It goes to the quarantine, and the sender hears that it was accepted.
    QUARANTINE = "quarantine"


Judge = Callable[[Envelope, bytes], Any]


@implementer(IBackend)
class FilterBackend:
    """
    Shows each message to a function before it goes on::

        FilterBackend(judge, RelayBackend("10.0.0.2:10026"), quarantine=MaildirBackend("/var/quarantine"))

    :param judge: called with the :class:`~smtpfw.backends.handler.Envelope` and the message, as bytes. It returns a
        :class:`Verdict`, or None, which accepts; or the message as it is to go on, as bytes; or a Deferred or coroutine
        of one of these. It refuses by raising an :class:`~smtpfw.errors.SMTPError`.
    :param target: where mail goes.
    :param quarantine: where mail goes that is to be looked at by somebody; None if the function never says so.
    """

    def __init__(self, judge: Judge, target: IBackend, quarantine: IBackend | None = None) -> None:
        self.judge = judge
        self.target = target
        self.quarantine = quarantine

    @property
    def honours(self) -> Collection[str]:
        """What the backend behind honours."""
        return self.target.honours

    @property
    def relays(self) -> bool:
        """Whether the backend behind passes mail on to others."""
        return bool(getattr(self.target, "relays", False))

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection."""
        return FilterSession(self, connection)

    async def start(self) -> None:
        """Start the backends behind."""
        for backend in self._backends():
            await maybeDeferred(getattr(backend, "start", _nothing))

    async def stop(self) -> None:
        """Stop the backends behind."""
        for backend in self._backends():
            await maybeDeferred(getattr(backend, "stop", _nothing))

    def describe(self) -> list[str]:
        """What the backends behind say of themselves."""
        name = getattr(self.judge, "__qualname__", repr(self.judge))
        lines = [f"Each message is shown to {name} first."]
        for backend, words in zip(self._backends(), ("Then: ", "In quarantine: "), strict=False):
            describe = getattr(backend, "describe", None)
            lines += [f"{words}{line}" for line in describe()] if describe is not None else [f"{words}{backend!r}"]
        return lines

    def _backends(self) -> list[IBackend]:
        return [self.target] if self.quarantine is None else [self.target, self.quarantine]


class FilterSession(Session):
    """
    :param backend: has the function.
    :param connection: the client's.
    """

    _log = Logger()

    def __init__(self, backend: FilterBackend, connection: IConnection) -> None:
        super().__init__(connection)
        self._backend = backend
        self._target: ISession | None = None

    async def mail(self, sender: Address, options: Options) -> Any:
        """MAIL, as the backend behind answers it."""
        if self._target is None:
            made: Any = call_hook(self._backend.target.new_session, self.connection)
            self._target = await made if isinstance(made, Deferred) else made
        return await ask(self._target.mail, sender, options)

    async def rcpt(self, recipient: Address, options: Options) -> Any:
        """RCPT, as the backend behind answers it."""
        assert self._target is not None
        return await ask(self._target.rcpt, recipient, options)

    async def data(self, body: IBody) -> Any:
        """The message: judged when it is whole."""
        assert self._target is not None
        message = await body.read()
        verdict: Any = call_hook(self._backend.judge, Envelope.of(self.connection), message)
        if isinstance(verdict, Deferred):
            verdict = await verdict
        if verdict is Verdict.QUARANTINE:
            return await self._put_aside(message)
        if isinstance(verdict, bytes):
            message = verdict
        elif verdict not in (None, Verdict.ACCEPT):
            raise TypeError(f"a filter returns a Verdict, bytes or None, not {type(verdict).__name__}")
        return await ask(self._target.data, _body_of(message))

    def reset(self, reason: str) -> None:
        """The transaction is over."""
        if self._target is not None:
            notify(self._not_told, self._target.reset, reason)

    def logout(self, reason: str) -> None:
        """The dialog is over."""
        target, self._target = self._target, None
        if target is not None:
            notify(self._not_told, target.logout, reason)

    async def _put_aside(self, message: bytes) -> Any:
        quarantine, transaction = self._backend.quarantine, self.connection.transaction
        if quarantine is None or transaction is None:
            raise RuntimeError("a message for the quarantine, and there is none")
        self.reset("quarantined")
        target = Target(quarantine, self.connection)
        await target.open(0)
        try:
            await target.mail(transaction)
            for recipient in transaction.recipients:
                await target.rcpt(recipient.address, recipient.options)
            return await ask(target.hook("data"), _body_of(message))
        finally:
            target.logout("quarantined")

    def _not_told(self, failure: Any) -> None:
        self._log.failure("filter: a session could not be told of the end", failure)


def _body_of(message: bytes) -> MessageBody:
    body = MessageBody(_nothing, _nothing)
    body.append(message)
    body.end()
    return body


def _nothing() -> None:
    """Nobody has to be paused: all of it is there."""
