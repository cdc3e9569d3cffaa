"""
Connections to one server, kept and shared by whoever has mail for it.

Rule 1: whoever comes first is served first, by a connection that has nothing to
do; else by a new one, as long as there may be more; else by the first that can
take another message, ahead of the answer to the one before (RFC 2920).

Rule 2: nothing is sent twice. What was given to a connection is answered with
what became of it there; only what no connection has seen waits for another one.

Rule 3: a server that says 421 has too much to do: no new connection is opened
for a while, twice as long each time. So it is where one can't be opened and
there are others.

Rule 4: who waits always hears of something: when a connection can't be opened
and there is no other, all who wait are told why.

Rule 5: a server that states how many messages it takes of a connection (LIMITS,
RFC 9422) gets no more of them on one.

Rule 6: whoever hears of his message may do anything: send another, cancel those
of others, close the pool.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from smtpfw.client.addresses import AnyAddress, AnyOptions
from smtpfw.client.backoff import Backoff
from smtpfw.client.connecting import Connector, Where, connector_of
from smtpfw.client.members import IdleMembers, Member, first_alive
from smtpfw.client.messages import AnyRecipients, outgoing_message
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import ConnectionFailed, LocalProtocolError, Refused
from smtpfw.extensions.limits import Limits
from smtpfw.wire.exchange import Exchange
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import Sending

__all__ = ["Pool"]

#: Seconds that a connection which was idle has to answer NOOP.
CHECK_TIMEOUT = 10.0


class _Job:
    """
    Someone who waits.

    :ivar message: None for who wants a connection for himself.
    :ivar client: who has it, as ``exchange``; None while nobody has.
    :ivar number: which of the messages of that connection it is, from 1.
    """

    __slots__ = ("answer", "client", "exchange", "message", "number")

    def __init__(self, message: OutgoingMessage | None, pool: Pool) -> None:
        self.message = message
        self.answer: Deferred[Any] = Deferred(lambda _: pool._cancel(self))
        self.client: SMTPClientProtocol | None = None
        self.exchange: Exchange | None = None
        self.number = 0


class Pool:
    """
    ::

        pool = Pool("mail.example.org", auth=("me", "secret"))
        result = await pool.send_mail("me@example.org", "you@example.net", message)
        await pool.close()

    :param where: the server, and ``settings`` how to get there: see :func:`~smtpfw.client.connect`; or a Connector.
    :param max_connections: at a time.
    :param max_messages: after how many a connection is closed; 0 for no limit. After fewer, if the server says so.
    :param max_age: after how many seconds it is closed, as soon as it has nothing to do; 0 for no limit.
    :param max_idle: after how many seconds without a message it is closed; 0 for no limit.
    :param check_after: after how many of them it is asked by NOOP whether it still works, before it gets a message; a
        firewall may have forgotten it.
    :raises ValueError: for arguments that make no sense.
    """

    def __init__(
        self,
        where: Where | Connector,
        *,
        max_connections: int = 10,
        max_messages: int = 100,
        max_age: float = 600.0,
        max_idle: float = 60.0,
        check_after: float = 15.0,
        reactor: Any = None,
        **settings: Any,
    ) -> None:
        if max_connections < 1:
            raise ValueError(f"max_connections: {max_connections!r} is none; a pool has at least 1")
        for name, value in {"max_messages": max_messages, "max_age": max_age, "max_idle": max_idle}.items():
            if value < 0:
                raise ValueError(f"{name}: {value!r} is below 0, which is for no limit")
        if isinstance(where, Connector):
            if settings:
                raise ValueError(f"a Connector has its settings already, so give no {', '.join(sorted(settings))}")
            self.connector = where
        else:
            self.connector = connector_of(where, **settings)
        self._max_connections = max_connections
        self._max_messages = max_messages or inf
        self._max_age = max_age or inf
        self._check_after = check_after
        self._clock: Any = reactor
        self._jobs: deque[_Job] = deque()
        self._members: dict[SMTPClientProtocol, Member] = {}
        self._idle = IdleMembers(max_idle, max_age, self._quit)
        # Those that could take a message ahead of an answer.
        self._ready: dict[Member, None] = {}
        self._connecting: set[Deferred[Any]] = set()
        self._checking = 0
        # Somebody is just being told what became of his message; the connection that had it comes free behind that.
        self._answering = 0
        # There is no connection, one could not be opened, and what becomes of those on their way nobody knows.
        self._doubtful = False
        self._backoff = Backoff(self._dispatch)
        self._closing: list[Deferred[None]] | None = None

    # -- messages ---------------------------------------------------------------

    def send_mail(
        self,
        sender: AnyAddress | None,
        recipients: AnyRecipients | None,
        body: Any,
        options: AnyOptions = None,
    ) -> Deferred[SendResult]:
        """
        Send a message by the next connection that is free; arguments and result are those of
        :func:`~smtpfw.client.send_mail`.

        A message that was given to a connection just when the server closed it ends with a ConnectionFailed: nobody
        has it, and it may be sent again.
        """
        try:
            message = outgoing_message(sender, recipients, body, options)
        except (LocalProtocolError, TypeError, ValueError) as error:
            return fail(error)
        return self.send_message(message)

    def send_message(self, message: OutgoingMessage) -> Deferred[SendResult]:
        """The same, for a message that has been made already."""
        return self._put(_Job(message, self))

    # -- connections ------------------------------------------------------------

    def acquire(self) -> Deferred[SMTPClientProtocol]:
        """A connection for oneself, until it is given back by :meth:`release`."""
        return self._put(_Job(None, self))

    def release(self, client: SMTPClientProtocol) -> None:
        """
        Give a connection back. A transaction that is open there is reset; where something is still under way, the
        connection is closed.
        """
        member = self._members.get(client)
        if member is None or not member.lent:
            return
        member.lent = False
        wire = client.wire
        if wire.idle:
            self._take_back(member)
        elif wire.all_told:
            # Whoever gives it back has just heard the last reply, and the connection goes on when that is dealt with.
            client.when_ready(partial(self._take_back, member))
        else:
            client.close()

    def is_fresh(self, client: SMTPClientProtocol) -> bool:
        """Whether nobody had a connection before him who has it for himself now."""
        member = self._members.get(client)
        return member is not None and member.count == 1

    # -- the pool ---------------------------------------------------------------

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._members)

    @property
    def waiting(self) -> int:
        """How many messages no connection has yet, and how many wait for a connection."""
        return len(self._jobs)

    @property
    def unused(self) -> bool:
        """Whether nothing is under way and nobody waits."""
        return not self._jobs and not self._connecting and len(self._idle) == len(self._members)

    def close(self) -> Deferred[None]:
        """
        The end: nothing new is taken, what waits and what is under way comes to its end, each connection says QUIT.

        Connections that somebody has for himself have to be given back; see :meth:`abort`, too.

        :return: a Deferred that fires when all connections are gone.
        """
        if self._closing is None:
            self._closing = []
            self._dispatch()
        if self._is_over:
            return succeed(None)
        answer: Deferred[None] = Deferred()
        self._closing.append(answer)
        return answer

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.abort()
        await self.close()

    def abort(self) -> None:
        """The end at once: who waits gets a ConnectionFailed, or an UnknownOutcome where it may have been sent."""
        if self._closing is None:
            self._closing = []
        self._fail_all(self._closed())
        for connecting in list(self._connecting):
            connecting.cancel()
        for client in list(self._members):
            client.close()
        self._dispatch()

    # -- who waits --------------------------------------------------------------

    def _put(self, job: _Job) -> Deferred[Any]:
        if self._closing is not None:
            return fail(self._closed())
        self._jobs.append(job)
        if not self._answering:
            self._dispatch()
        return job.answer

    def _cancel(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            self._dispatch()
        elif job.client is not None and job.exchange is not None:
            job.client.cancel(job.exchange)

    def _dispatch(self) -> None:
        """Give what waits to connections; open others for the rest."""
        jobs = self._jobs
        while len(jobs) > self._checking and (self._idle or self._ready):
            member = self._next_member(jobs[0])
            if member is None:
                break
            if member in self._idle and self._clock.seconds() - member.since > self._check_after:
                self._check(member)
            else:
                self._give(member)
        while len(jobs) > self._checking + len(self._connecting) and self._may_open():
            self._open()
        if self._closing is not None and not jobs:
            self._leave()

    def _next_member(self, job: _Job) -> Member | None:
        member = first_alive(reversed(self._idle))
        if member is None and job.message is not None and not self._may_open():
            member = first_alive(self._ready)
        return member

    def _give(self, member: Member) -> None:
        job = self._jobs.popleft()
        self._idle.pop(member, None)
        self._ready.pop(member, None)
        member.count = job.number = member.count + 1
        client = member.client
        member.retired = member.count >= self._most_of(client) or self._clock.seconds() - member.born >= self._max_age
        message = job.message
        if message is None:
            member.lent = True
            member.replies = client.wire.replies
            client.wire.wants_ready = False
            job.answer.callback(client)
        else:
            job.client = client
            job.exchange = Sending(message, partial(self._done, job, member))
            client.submit(job.exchange)

    def _most_of(self, client: SMTPClientProtocol) -> float:
        """How many messages a connection is given."""
        stated = client.wire.peer.facts.get(Limits.keyword)
        return min(self._max_messages, getattr(stated, "max_transactions", 0) or inf)

    def _done(self, job: _Job, member: Member, result: Any) -> None:
        if isinstance(result, Exception):
            answer: Any = Failure(result)
        else:
            answer = result
            if self._backoff.seconds:
                self._backoff.worked(member.born)
        # Who sends one message after another gets the same connection, and not a new one each time.
        self._answering += 1
        try:
            job.answer.callback(answer)
        finally:
            self._answering -= 1
        if self._jobs and not self._answering:
            comes_free = member.count == job.number and not member.retired and not member.client.wire.is_over
            if not comes_free and (self._idle or self._ready or self._may_open()):
                self._dispatch()

    def _fail_all(self, error: BaseException) -> None:
        jobs = list(self._jobs)
        self._jobs.clear()
        for job in jobs:
            # Who hears of it first may cancel the others.
            if not job.answer.called:
                job.answer.errback(Failure(error))

    # -- new connections --------------------------------------------------------

    def _may_open(self) -> bool:
        room = len(self._members) + len(self._connecting) < self._max_connections
        return room and not self._doubtful and self._backoff.is_over(self._clock)

    def _open(self) -> None:
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        connecting = self.connector.connect(self._clock)
        self._connecting.add(connecting)
        connecting.addBoth(self._opened, connecting)

    def _opened(self, result: SMTPClientProtocol | Failure, connecting: Deferred[Any]) -> None:
        self._connecting.discard(connecting)
        if isinstance(result, Failure):
            self._could_not_open(result.value)
            return
        member = self._members[result] = Member(result, self._clock.seconds())
        # Mostly this is the midst of its answer to EHLO or AUTH, and it can be used when that is dealt with.
        result.when_ready(partial(self._is_ready, member))
        if result.wire.idle and not result.wire.is_over:
            self._is_ready(member)
        result.disconnected.addCallback(lambda _: self._lost(member))

    def _could_not_open(self, error: Any) -> None:
        others = any(not (member.retired or member.client.wire.is_over) for member in self._members.values())
        if others or _is_421(error):
            self._backoff.begin(self._clock)
        self._doubtful = bool(self._connecting) and not others
        if not (self._connecting or others):
            self._fail_all(error)
        self._dispatch()

    # -- connections of ours ----------------------------------------------------

    def _is_ready(self, member: Member) -> None:
        """It can take another message."""
        idle = member.client.wire.idle
        if member.retired:
            if idle:
                self._quit(member)
            return
        if idle:
            member.since = self._clock.seconds()
            member.is_new = self._doubtful = False
            self._idle[member] = None
            self._ready.pop(member, None)
        else:
            self._ready[member] = None
        if self._jobs:
            if idle or (self._jobs[0].message is not None and not self._may_open()):
                self._give(member)
                self._dispatch()
        elif self._closing is not None:
            self._leave()
        elif idle:
            self._idle.watch(member, self._clock)

    def _take_back(self, member: Member) -> None:
        """Nobody has it for himself any more."""
        client = member.client
        wire = client.wire
        if wire.is_over or not wire.idle:
            return
        if wire.replies != member.replies:
            # Something was asked on it, and answered by another word than 421.
            self._backoff.worked(member.born)
        if wire.transaction is None:
            client.when_ready(partial(self._is_ready, member))
            self._is_ready(member)
        else:
            client.when_ready(partial(self._take_back, member))
            client.reset().addErrback(lambda _: client.close())

    def _check(self, member: Member) -> None:
        """Whether a connection that was idle is still there."""
        client = member.client
        del self._idle[member]
        self._checking += 1

        def alive(_: object) -> None:
            self._checking -= 1

        def gone(_: object) -> None:
            self._checking -= 1
            client.close()
            self._dispatch()

        client.noop().addTimeout(CHECK_TIMEOUT, self._clock).addCallbacks(alive, gone)

    def _quit(self, member: Member) -> None:
        self._idle.pop(member, None)
        member.retired = True
        client = member.client
        client.quit().addErrback(lambda _: client.close())

    def _lost(self, member: Member) -> None:
        del self._members[member.client]
        self._idle.pop(member, None)
        self._ready.pop(member, None)
        over = member.client.wire.over
        if member.is_new and over is not None:
            self._could_not_open(over)
            return
        # Where nothing was asked, a 421 says that it was idle for too long.
        if over is not None and over.phase and _is_421(over):
            self._backoff.begin(self._clock)
        self._dispatch()

    # -- idleness and the end ---------------------------------------------------

    def _leave(self) -> None:
        """Nobody waits any more, and nobody will."""
        for connecting in list(self._connecting):
            connecting.cancel()
        for member in list(self._idle):
            self._quit(member)
        if self._is_over:
            self._backoff.stop()
            self._idle.stop()
            answers, self._closing = self._closing or (), []
            for answer in answers:
                answer.callback(None)

    @property
    def _is_over(self) -> bool:
        return not (self._jobs or self._members or self._connecting)

    def _closed(self) -> ConnectionFailed:
        return ConnectionFailed("the pool is closed", peer=self.connector.destination.text)


def _is_421(error: Any) -> bool:
    return isinstance(error, Refused) and error.code == 421
