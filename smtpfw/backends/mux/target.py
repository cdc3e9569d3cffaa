"""
One target of a mux on one connection: its session, and how far the transaction has got there.

Rule 1: the session is made when the first recipient asks for it, and kept for the
life of the connection.

Rule 2: what is asked once in a transaction (a new session, EHLO, MAIL) is not
asked again for the next recipient when it was refused: a dead next hop must not
cost its timeout for each of a thousand recipients.

Rule 3: the session finds a transaction that holds its own recipients only.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure

from smtpfw.backends.mux.calls import Hook, ask
from smtpfw.errors import SMTPError, TryAgainLater
from smtpfw.hooks import Acceptance, call_hook, notify
from smtpfw.interfaces import IBackend, IConnection, IHelloSession, ISession, ITwoPhaseSession
from smtpfw.session import check_data, overridden
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Recipient, Transaction

__all__ = ["Target"]


class Target:
    """
    :param backend: makes the session.
    :param connection: the one of the mux.

    :ivar session: None before it is needed.
    :ivar transaction: with the recipients that this target has accepted; None before it has accepted the sender.
    :ivar said: these recipients as the client says them.
    """

    _log = Logger()

    def __init__(self, backend: IBackend, connection: IConnection) -> None:
        self.session: ISession | None = None
        self.transaction: Transaction | None = None
        self.said: list[Address] = []
        self._backend = backend
        self._connection = connection
        self._refusal: SMTPError | None = None
        # Which EHLO of the client the session has heard of.
        self._heard = 0

    @property
    def revocable(self) -> bool:
        """Whether its delivery can be taken back."""
        return ITwoPhaseSession.providedBy(self.session)

    @property
    def addressed(self) -> bool:
        """Whether it has accepted a recipient of this transaction."""
        return self.transaction is not None and bool(self.transaction.recipients)

    def hook(self, name: str) -> Hook:
        """A hook of the session."""
        hook: Hook = getattr(self.session, name)
        return hook

    async def open(self, hello: int) -> None:
        """
        Have a session, and let it know how the client has introduced itself.

        :param hello: the number of the client's last EHLO; each is told once.
        """
        await self._once(self._open, hello)

    async def mail(self, transaction: Transaction) -> None:
        """MAIL, unless it was accepted already."""
        if self.transaction is None:
            await self._once(ask, self.hook("mail"), transaction.sender, transaction.options)
            self.transaction = Transaction(transaction.id, transaction.sender, transaction.options)

    async def rcpt(self, recipient: Address, options: Options, told: Address | None = None) -> Acceptance:
        """
        RCPT; who is accepted is in the transaction from now on.

        :param told: how the session is told of the recipient, if not as the client says it.
        """
        told = recipient if told is None else told
        answer = await ask(self.hook("rcpt"), told, options)
        assert self.transaction is not None
        self.transaction.recipients.append(Recipient(told, options))
        self.said.append(recipient)
        return answer

    def forget(self) -> None:
        """The transaction is over for the session, too; another one begins."""
        self.transaction = None
        self.said = []
        self._refusal = None

    def reset(self, reason: str) -> None:
        """The transaction ends without an answer to its message."""
        if self.transaction is not None and self.session is not None and overridden(self.session, "reset") is not None:
            notify(self._not_told, self.session.reset, reason)
        self.forget()

    def logout(self, reason: str) -> None:
        """The dialog is over."""
        session, self.session = self.session, None
        if session is not None:
            notify(self._not_told, session.logout, reason)

    def replace(self, session: ISession) -> None:
        """Ask another session from the next question on."""
        before, self.session = self.session, session
        if before is not None:
            notify(self._not_told, before.logout, "replaced")

    async def _once(self, step: Hook, *arguments: Any) -> None:
        if self._refusal is not None:
            refusal = self._refusal
            raise SMTPError(refusal.code, refusal.enhanced_code, refusal.message)
        try:
            await step(*arguments)
        except Exception as error:
            self._refusal = error if isinstance(error, SMTPError) else TryAgainLater()
            raise

    async def _open(self, hello: int) -> None:
        if self.session is None:
            try:
                session = call_hook(self._backend.new_session, TargetConnection(self._connection, self))
                session = await session if isinstance(session, Deferred) else session
                check_data(session, "LMTP" in self._connection.protocol)
                self.session = session
            except SMTPError as error:
                # At connect 421 would close; here it is one target of several, and the client's others go on.
                raise SMTPError(451, error.enhanced_code, error.message) if error.code == 421 else error from None
        if self._heard != hello and IHelloSession.providedBy(self.session):
            connection = self._connection
            await ask(self.hook("hello"), connection.hello_name, connection.protocol != "SMTP")
            self._heard = hello

    def _not_told(self, failure: Failure) -> None:
        self._log.failure(
            "mux: {connection}: reset or logout of a target failed; the client does not notice",
            failure,
            connection=self._connection.id,
        )


class TargetConnection(proxyForInterface(IConnection, "_connection")):  # type: ignore[misc]
    """
    The connection as the session of a target sees it: its own transaction and session; the rest, ``context`` too, is
    the client's connection as it is.
    """

    def __init__(self, connection: IConnection, target: Target) -> None:
        super().__init__(connection)
        self._target = target

    @property
    def transaction(self) -> Transaction | None:
        # Behind the answer to a message there is none, until the next one.
        return None if self._connection.transaction is None else self._target.transaction

    @property
    def session(self) -> ISession | None:
        return self._target.session

    @session.setter
    def session(self, session: ISession) -> None:
        self._target.replace(session)
