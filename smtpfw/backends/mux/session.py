"""
The session of a mux: which target is asked what.

Rule 1: a target hears what a client would have said to it alone: EHLO once, MAIL
before its first recipient, its own RCPTs, the message or RSET.

Rule 2: AUTH is not passed on. Who a client is must be settled once, by the listener; a
target finds it in ``connection.identity``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.backends.mux.lmtp import as_said, deliver_each, lmtp_hook
from smtpfw.backends.mux.routing import Routing
from smtpfw.backends.mux.target import Target
from smtpfw.backends.mux.two_phase import TwoPhaseDelivery
from smtpfw.errors import MailboxUnavailable, TooManyRecipients, TryAgainLater
from smtpfw.hooks import Acceptance, call_hook
from smtpfw.interfaces import (
    IBody,
    IConnection,
    IHelloSession,
    ILMTPSession,
    IStatusCollector,
    IVerifySession,
)
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Transaction

__all__ = ["MuxSession"]


@implementer(IHelloSession, ILMTPSession, IVerifySession)
class MuxSession:
    """One client's dialog with a :class:`~smtpfw.backends.mux.MuxBackend`."""

    _log = Logger()

    def __init__(self, routes: Routing, connection: IConnection) -> None:
        self._routes = routes
        self._connection = connection
        # In the order in which they were first needed; by identity, for a backend may be equal to another.
        self._targets: dict[int, Target] = {}
        # Whom each accepted recipient of this transaction belongs to, in the order of the RCPTs.
        self._accepted: list[tuple[Address, Target]] = []
        self._hello = 1

    def hello(self, name: str, extended: bool) -> None:
        """Accepted; each target hears of it when it is asked the next time, and what it refuses is its recipients."""
        self._hello += 1

    def mail(self, sender: Address, options: Options) -> None:
        """Accepted; each target is asked with its first recipient."""
        self._accepted = []
        for target in self._targets.values():
            target.forget()

    async def rcpt(self, recipient: Address, options: Options) -> Acceptance:
        """
        Whatever the target of this recipient answers.

        :raises SMTPError: when no route fits, or the one that does refuses.
        :raises TooManyRecipients: when this target's delivery cannot be taken back, and that of another one in this
            transaction cannot either; the client sends to this one in a transaction of its own.
        """
        transaction = self._transaction()
        target = self._target_of(recipient)
        await target.open(self._hello)
        if not target.revocable and "LMTP" not in self._connection.protocol:
            others = (one for one in self._targets.values() if one is not target)
            if any(one.addressed and not one.revocable for one in others):
                raise TooManyRecipients
        await target.mail(transaction)
        told = self._routes.full_address(recipient, self._connection.hostname)
        answer = await target.rcpt(recipient, options, told)
        self._accepted.append((recipient, target))
        return answer

    def data(self, body: IBody) -> Any:
        """
        The message, to one target as it comes, to several by the rules of :mod:`~smtpfw.backends.mux.two_phase`.

        :raises SMTPError: when one of them did not accept; nobody keeps the message then.
        """
        targets = self._addressed()
        if len(targets) == 1:
            return targets[0].hook("data")(body)
        if sum(not target.revocable for target in targets) > 1:
            raise TryAgainLater  # a target has had its session replaced by another kind since RCPT
        return TwoPhaseDelivery(targets, self._transaction().id, getattr(body, "memory", None)).run(body)

    def lmtp_data(self, body: IBody, status: IStatusCollector) -> Any:
        """The message, by the rules of :mod:`~smtpfw.backends.mux.lmtp`."""
        targets = self._addressed()
        if len(targets) == 1:
            return lmtp_hook(targets[0], as_said(targets[0], status))(body)
        return deliver_each(targets, body, status)

    async def verify(self, text: str) -> Any:
        """
        Whatever the target of this address answers; without a domain, or a target that can verify, "cannot".

        :raises SMTPError: when no route fits, or the one that does refuses.
        """
        try:
            address = Address.parse(text.removeprefix("<").removesuffix(">"))
        except ValueError:
            return None
        if not address.domain:
            return None
        target = self._target_of(address)
        await target.open(self._hello)
        if not IVerifySession.providedBy(target.session):
            return None
        answer = call_hook(target.hook("verify"), text)
        return await answer if isinstance(answer, Deferred) else answer

    def reset(self, reason: str) -> None:
        """Every target that has accepted the sender hears of it."""
        self._accepted = []
        for target in self._targets.values():
            target.reset(reason)

    def logout(self, reason: str) -> None:
        """Every session that was made hears of it."""
        for target in self._targets.values():
            target.logout(reason)

    def _target_of(self, recipient: Address) -> Target:
        backend = self._routes.find(recipient, self._connection.hostname, self._connection)
        if backend is None:
            raise MailboxUnavailable
        target = self._targets.get(id(backend))
        if target is None:
            target = self._targets[id(backend)] = Target(backend, self._connection)
        return target

    def _transaction(self) -> Transaction:
        transaction = self._connection.transaction
        if transaction is None:
            raise TryAgainLater  # whatever is in front of this backend has called it between two transactions
        return transaction

    def _addressed(self) -> list[Target]:
        """The targets of the message."""
        transaction = self._transaction()
        if [recipient.address for recipient in transaction.recipients] != [address for address, _ in self._accepted]:
            # To leave one out would lose mail, to guess would send it to somebody else.
            self._log.error(
                "mux: the recipients of transaction {id} are not those that were accepted here: whatever is in front "
                "of this backend must pass on every RCPT, and every refusal",
                id=transaction.id,
            )
            raise TryAgainLater
        for target in self._targets.values():
            if not target.addressed:
                # It has accepted the sender and nobody else: a client of its own would have sent RSET.
                target.reset("rset")
        return list(dict.fromkeys(target for _, target in self._accepted))
