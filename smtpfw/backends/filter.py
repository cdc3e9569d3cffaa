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

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.backends.handler import Envelope
from smtpfw.backends.mux.calls import Hook, ask
from smtpfw.backends.mux.target import Target
from smtpfw.backends.several import check_all, start_all, stop_all
from smtpfw.body import MessageBody
from smtpfw.hooks import call_hook, notify
from smtpfw.interfaces import (
    IBackend,
    IBody,
    IConnection,
    IHelloSession,
    ILMTPSession,
    ISession,
    IStatusCollector,
)
from smtpfw.session import Session, check_data
from smtpfw.wire.body import ChunkDecoder
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

    Over SMTP the backend behind gives one answer for all recipients; over LMTP one for each, if it can.

    :param judge: called with the :class:`~smtpfw.backends.handler.Envelope` and the message, as bytes. It returns a
        :class:`Verdict`, or None, which accepts; or the message as it is to go on, as bytes; or a Deferred or coroutine
        of one of these. It refuses by raising an :class:`~smtpfw.errors.SMTPError`.
    :param target: where mail goes.
    :param quarantine: where mail goes that is to be looked at by somebody; None if the function never says so.
    """

    _log = Logger()

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

    @property
    def trusted(self) -> Any:
        """Whose clients the backend behind trusts; None if it does not ask who they are."""
        return getattr(self.target, "trusted", None)

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection."""
        return FilterSession(self, connection)

    async def start(self) -> None:
        """
        Start the backends behind.

        :raises Exception: what one that can't start has raised; the one before it has been stopped again.
        """
        await start_all(self._backends(), self._log)

    async def stop(self) -> None:
        """Stop the backends behind, both at the same time; one that fails is logged."""
        await stop_all(self._backends(), self._log)

    def check(self) -> list[str]:
        """
        Ask the backends behind whether they could take mail. Blocks.

        :return: what they say.
        :raises ConfigError: what they raise, together.
        """
        return check_all(self._backends())

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


@implementer(IHelloSession, ILMTPSession)
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
        # Whether the backend behind has heard of the client's last EHLO.
        self._introduced = False

    def hello(self, name: str, extended: bool) -> None:
        """Accepted; the backend behind hears of it at MAIL."""
        self._introduced = False

    async def mail(self, sender: Address, options: Options) -> Any:
        """MAIL, as the backend behind answers it."""
        connection = self.connection
        if self._target is None:
            made: Any = call_hook(self._backend.target.new_session, connection)
            made = await made if isinstance(made, Deferred) else made
            check_data(made, "LMTP" in connection.protocol)
            self._target = made
        target = self._target
        if not self._introduced and IHelloSession.providedBy(target):
            await ask(target.hello, connection.hello_name, connection.protocol != "SMTP")
        self._introduced = True
        return await ask(target.mail, sender, options)

    async def rcpt(self, recipient: Address, options: Options) -> Any:
        """RCPT, as the backend behind answers it."""
        assert self._target is not None
        return await ask(self._target.rcpt, recipient, options)

    async def data(self, body: IBody) -> Any:
        """The message: judged when it is whole."""
        assert self._target is not None
        return await self._judged(body, self._target.data)

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> Any:
        """The same for a client of LMTP: the backend behind answers each recipient, if it can."""
        target = self._target
        assert target is not None
        if not ILMTPSession.providedBy(target):
            return await self.data(body)
        lmtp_data = target.lmtp_data
        return await self._judged(body, lambda message: lmtp_data(message, status))

    def reset(self, reason: str) -> None:
        """The transaction is over."""
        if self._target is not None:
            notify(self._not_told, self._target.reset, reason)

    def logout(self, reason: str) -> None:
        """The dialog is over."""
        target, self._target = self._target, None
        if target is not None:
            notify(self._not_told, target.logout, reason)

    async def _judged(self, body: IBody, deliver: Hook) -> Any:
        message = await body.read()
        try:
            verdict: Any = call_hook(self._backend.judge, Envelope.of(self.connection), message)
            if isinstance(verdict, Deferred):
                verdict = await verdict
            if isinstance(verdict, bytes):
                message = self._as_text(verdict)
            elif verdict not in (None, Verdict.ACCEPT, Verdict.QUARANTINE):
                raise TypeError(f"a filter returns a Verdict, bytes or None, not {type(verdict).__name__}")
        except BaseException:
            # The answer is ours, and nobody else tells the backend behind that it will not get the message.
            self.reset("refused")
            raise
        if verdict is Verdict.QUARANTINE:
            self.reset("quarantined")
            return await self._put_aside(message)
        return await ask(deliver, _body_of(message))

    def _as_text(self, message: bytes) -> bytes:
        """With the line ends of mail: what Python writes has those of Unix, and a body never holds a bare LF."""
        transaction = self.connection.transaction
        if transaction is not None and transaction.options.body == "BINARYMIME":
            return message
        return ChunkDecoder().feed(message)

    async def _put_aside(self, message: bytes) -> Any:
        quarantine, transaction = self._backend.quarantine, self.connection.transaction
        if quarantine is None or transaction is None:
            raise RuntimeError("a message for the quarantine, and there is none")
        target = Target(quarantine, self.connection)
        try:
            await target.open(0)
            # One answer for all recipients, in LMTP, too.
            check_data(target.session, lmtp=False)
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
