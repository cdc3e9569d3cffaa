"""
The Maildir backend: what it promises, and the session that keeps it.

Rule 1: a 250 after the message means: written, fsynced, renamed into ``new``, and the folder
fsynced, for every recipient. Any other answer means: in no ``new``, for none.

Rule 2: a message is stored once in each distinct folder.

Rule 3: the reactor's thread touches no disk, and holds no more of a message
than one piece.
"""

# One spelling for what the kernel is asked: system calls, by their names.
# ruff: noqa: PTH109

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.backends.maildir.committer import DEFAULT_MAX_GROUP, Committer
from smtpfw.backends.maildir.delivery import Copy, Delivery
from smtpfw.backends.maildir.folder import FileNames, Maildir
from smtpfw.backends.maildir.leftovers import Cleaned, remove_leftovers
from smtpfw.backends.maildir.prepared import PreparedDelivery
from smtpfw.backends.maildir.template import Mailbox, PathTemplate
from smtpfw.backends.maildir.trying import try_out
from smtpfw.errors import ConfigError, MailboxUnavailable, TryAgainLater
from smtpfw.interfaces import IBackend, IBody, IConnection, IPrepared, ISession, ITwoPhaseSession
from smtpfw.wire import trace
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Transaction

__all__ = ["MaildirBackend", "MaildirSession"]

#: A message up to this size is one job; a larger one is written piece by piece, each when the one before is written.
PIECE_BYTES = 128 * 1024

#: How many folders are remembered as existing.
MAX_KNOWN_FOLDERS = 10_000

_EOLS = ("crlf", "lf")

Accepted = tuple[Mailbox, Maildir]


@implementer(IBackend)
class MaildirBackend:
    """
    Stores mail into Maildir folders.

    :param path_template: a path, with ``{user}`` and ``{domain}`` in it or without; a relative one starts from the
        folder that is current now.
    :param eol: ``crlf`` keeps messages as they came; ``lf`` stores them with Unix line ends.
    :param create: whether a missing folder is made for whoever is written to. By default only when the path is the
        same for everybody; otherwise a recipient without a folder is refused with 550 5.1.1, and ``user+tag`` without
        a folder of its own is ``user``.
    :param reactor: for the committer thread; by default the running one.
    :param max_group: messages that share the fsync of a folder, at most.
    :raises ConfigError: naming what cannot be used.
    """

    honours: Collection[str] = ()
    _log = Logger()

    def __init__(
        self,
        path_template: str,
        *,
        eol: str = "crlf",
        create: bool | None = None,
        reactor: IReactorThreads | None = None,
        max_group: int = DEFAULT_MAX_GROUP,
    ) -> None:
        if eol not in _EOLS:
            raise ConfigError(f"maildir eol {eol!r}: it is {' or '.join(_EOLS)}")
        if max_group < 1:
            raise ConfigError(f"maildir max_group {max_group}: it is 1 at least")
        self.template = PathTemplate(path_template, os.getcwd())
        self.eol = eol
        self.create = self.template.fixed if create is None else create
        self._reactor = reactor
        self.committer = Committer(self._get_reactor, max_group)
        self._names = FileNames()
        self._known: dict[str, Maildir] = {}
        self._cleaning: Deferred[None] | None = None
        self._prepared = False
        self._stopping = threading.Event()

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection."""
        self.start()
        return MaildirSession(self, connection)

    def start(self) -> None:
        """
        Begin to :meth:`clean`, and wait for nothing: clients need not, either.

        The one folder of all recipients is made now, so that the log says at once if that can't be done.
        """
        self.clean()
        if self.template.fixed and not self._prepared:
            self._prepared = True
            path = self.template.prefix
            self.committer.post((self.maildir(path) or Maildir(path, self.create)).prepare)

    def clean(self) -> Deferred[None]:
        """
        Remove what earlier processes left in ``tmp``, once; the first connection does it, too.

        :return: a Deferred that fires when that is done; it does not fail.
        """
        if self._cleaning is None:
            reactor = self._get_reactor()
            cleaning = deferToThreadPool(
                reactor, reactor.getThreadPool(), remove_leftovers, self.template, time.time(), self._stopping
            )
            self._cleaning = cleaning.addCallbacks(self._log_cleaned, self._log_not_cleaned)
        return self._cleaning

    def stop(self) -> Deferred[None]:
        """
        Commit everything that was accepted, and end the threads.

        :return: a Deferred that fires when they have ended.
        """
        self._stopping.set()
        both = DeferredList([self._cleaning or succeed(None), self.committer.stop()])
        return both.addCallback(lambda _: None)

    def describe(self) -> list[str]:
        """Sentences for the operator: where mail goes, and what a 250 is worth."""
        absent = "made if it is missing" if self.create else "never made: a recipient without it is refused with 550"
        return [
            f"Mail goes into the Maildir {self.template}, which is {absent}; lines end in {self.eol.upper()}.",
            "A 250 means: written, fsynced, renamed into new, folder fsynced.",
        ]

    def check(self) -> list[str]:
        """
        Try whether mail could be stored; nothing stays behind. Blocks.

        :return: what may not be meant.
        :raises ConfigError: a line for each folder that can't take mail.
        """
        return try_out(self.template, self.create)

    def maildir(self, path: str) -> Maildir | None:
        """The folder at a path, if it was there when we looked last, or may be made."""
        maildir = self._known.get(path)
        if self.create:
            return maildir or self.remember(Maildir(path, create=True))
        return maildir if maildir is not None and maildir.known else None

    def remember(self, maildir: Maildir) -> Maildir:
        """Keep what is known about a folder."""
        if len(self._known) >= MAX_KNOWN_FOLDERS:
            self._known.clear()
        self._known[maildir.path] = maildir
        return maildir

    def existing(self, mailboxes: list[Mailbox]) -> Accepted | None:
        """The first of several mailboxes whose folder is there. Blocks."""
        for mailbox in mailboxes:
            maildir = Maildir(mailbox.path, self.create)
            if maildir.exists():
                return mailbox, maildir
        return None

    def delivery(self, targets: list[Accepted], transaction: Transaction, received: bytes) -> Delivery:
        """A message on its way into the distinct folders among ``targets``."""
        # The octets of BINARYMIME are no lines.
        unix_newlines = self.eol == "lf" and transaction.options.body != "BINARYMIME"
        return_path = trace.return_path(str(transaction.sender))
        copies: dict[str, Copy] = {}
        for mailbox, maildir in targets:
            if mailbox.path not in copies:
                whose = b""
                if self.template.per_user:
                    whose = trace.delivered_to(str(Address(mailbox.user, mailbox.domain)))
                copies[mailbox.path] = Copy(maildir, return_path + whose + received)
        return Delivery(list(copies.values()), self._names, unix_newlines)

    def _get_reactor(self) -> IReactorThreads:
        if self._reactor is None:
            from twisted.internet import reactor  # importing it chooses one, so not before the operator has

            self._reactor = IReactorThreads(reactor)
        return self._reactor

    def _log_cleaned(self, cleaned: Cleaned) -> None:
        if cleaned.files:
            self._log.info(
                "maildir: removed {files} files older than 36 hours from tmp below {prefix}",
                files=cleaned.files,
                prefix=self.template.prefix,
            )
        for failure in cleaned.failures:
            self._log.error("maildir: {problem}", problem=str(failure))

    def _log_not_cleaned(self, failure: Failure) -> None:
        self._log.failure("maildir: the cleaning of tmp below {prefix} broke off", failure, prefix=self.template.prefix)


@implementer(ITwoPhaseSession)
class MaildirSession:
    """One client's dialog with a :class:`MaildirBackend`."""

    _log = Logger()

    def __init__(self, backend: MaildirBackend, connection: IConnection) -> None:
        self._backend = backend
        self._connection = connection
        # What each accepted recipient came to; the fallback from user+tag is not decided a second time.
        self._accepted: dict[Address, Accepted] = {}

    def mail(self, sender: Address, options: Options) -> None:
        """Accepted; who may send is not for storage to say."""
        self._accepted.clear()

    def rcpt(self, recipient: Address, options: Options) -> object:
        """
        Accepted if there is, or may be made, a folder.

        :raises MailboxUnavailable: when there is none, or the name is not safe in a path.
        """
        backend = self._backend
        mailboxes = backend.template.mailboxes(recipient.local_part, recipient.domain or self._connection.hostname)
        own = mailboxes[0]
        maildir = backend.maildir(own.path)
        if maildir is None:
            return self._look_up(recipient, mailboxes)
        self._accepted[recipient] = own, maildir
        return None

    async def data(self, body: IBody) -> str:
        """
        Store the message.

        :return: a text with the transaction's id.
        :raises InsufficientStorage: when a disk is full.
        :raises TryAgainLater: when a disk does not do what it should.
        """
        transaction = self._transaction()
        await self._take(body, transaction, self._backend.committer.commit)
        return _stored_as(transaction)

    async def prepare(self, body: IBody) -> IPrepared:
        """
        Store the message in ``tmp`` only.

        :raises InsufficientStorage: when a disk is full.
        :raises TryAgainLater: when a disk does not do what it should.
        """
        transaction, committer = self._transaction(), self._backend.committer
        delivery = await self._take(body, transaction, committer.prepare)
        return PreparedDelivery(committer, delivery, _stored_as(transaction))

    async def _take(self, body: IBody, transaction: Transaction, finish: Callable[..., Deferred[Any]]) -> Delivery:
        """
        Write the message as it arrives.

        :param finish: the committer's last step: called with the delivery, and with the message if it is a small one.
        """
        received = trace.received_line(self._connection)
        delivery = self._backend.delivery(self._targets(transaction), transaction, received)
        committer = self._backend.committer
        submitted = False
        piece = bytearray()
        try:
            async for chunk in body:
                if not (piece or submitted) and chunk[:1] in (b" ", b"\t"):
                    # It would go on with our last line, and say there what we did not: so the header ends before it.
                    piece += b"\r\n"
                piece += chunk
                if len(piece) >= PIECE_BYTES:
                    submitted = True
                    await committer.advance(delivery, delivery.append, piece)
                    piece = bytearray()
            if not submitted:
                submitted = True
                await finish(delivery, piece)
            else:
                await committer.advance(delivery, delivery.append, piece, True)
                # Each in a job of its own, so that other people's mail does not wait for a large one with many folders.
                for copy in delivery.copies[1:]:
                    await committer.advance(delivery, delivery.duplicate, copy)
                await finish(delivery)
        except BaseException as error:
            if submitted:
                # What the thread was given and has not done yet is before this in its queue, so nothing stays.
                committer.post(delivery.withdraw)
                if not isinstance(error, (CancelledError, GeneratorExit)):
                    await committer.catch_up()
            raise
        return delivery

    def reset(self, reason: str) -> None:
        """Nothing is kept on disk between hooks."""
        self._accepted.clear()

    def logout(self, reason: str) -> None:
        """Nothing is kept."""

    async def _look_up(self, recipient: Address, mailboxes: list[Mailbox]) -> None:
        found: Accepted | None = await self._backend.committer.call(self._backend.existing, mailboxes)
        if found is None:
            raise MailboxUnavailable
        mailbox, maildir = found
        self._accepted[recipient] = mailbox, self._backend.remember(maildir)

    def _transaction(self) -> Transaction:
        transaction = self._connection.transaction
        if transaction is None:
            raise TryAgainLater  # whatever is in front of this backend has called it between two transactions
        return transaction

    def _targets(self, transaction: Transaction) -> list[Accepted]:
        try:
            return [self._accepted[recipient.address] for recipient in transaction.recipients]
        except KeyError as missing:
            # To leave it out would lose mail, to guess would store somebody else's.
            self._log.error(
                "maildir: {recipient} is in transaction {id}, but was never asked about: whatever is in front of this "
                "backend must pass on every RCPT",
                recipient=str(missing.args[0]),
                id=transaction.id,
            )
            raise TryAgainLater from None


def _stored_as(transaction: Transaction) -> str:
    return f"stored as {transaction.id}"
