"""
Connections to one server, kept and shared by whoever has mail for it.

Rule 1: whoever comes first is served first, by a connection that has nothing to
do; else by a new one, as long as there may be more; else by the first that can
take another message, ahead of the answer to the one before (RFC 2920).

Rule 2: nothing is sent twice. What was given to a connection is answered with
what became of it there; only what no connection has seen waits for another one.

Rule 3: a server that says 421 has too much to do: no new connection is opened
for a while, twice as long each time.

Rule 4: who waits always hears of something: when a connection can't be opened
and there is no other, all who wait are told why.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from smtpfw.client.addresses import AnyAddress
from smtpfw.client.connecting import Connector, Where, connector_of
from smtpfw.client.messages import AnyOptions, AnyRecipients, outgoing_message
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import ConnectionFailed, LocalProtocolError, Refused
from smtpfw.wire.exchange import Exchange
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import Sending

__all__ = ["Pool"]

#: Seconds without new connections after a 421: the first time, and at most.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

#: Seconds that a connection which was idle has to answer NOOP.
CHECK_TIMEOUT = 10.0


class _Job:
    """
    Someone who waits.

    :ivar message: None for who wants a connection for himself.
    :ivar exchange: what was made of it, once a connection has it.
    """

    __slots__ = ("answer", "exchange", "member", "message")

    def __init__(self, message: OutgoingMessage | None, pool: Pool) -> None:
        self.message = message
        self.answer: Deferred[Any] = Deferred(lambda _: pool._cancel(self))
        self.member: _Member | None = None
        self.exchange: Exchange | None = None


class _Member:
    """
    A connection.

    :ivar born: when it was opened.
    :ivar since: when it became idle.
    :ivar count: how many messages it was given.
    :ivar retired: whether it gets no more of them.
    :ivar lent: whether somebody has it for himself.
    """

    __slots__ = ("born", "client", "count", "lent", "retired", "since")

    def __init__(self, client: SMTPClientProtocol, now: float) -> None:
        self.client = client
        self.born = self.since = now
        self.count = 0
        self.retired = self.lent = False


class Pool:
    """
    ::

        pool = Pool("mail.example.org", auth=("me", "secret"))
        result = await pool.send_mail("me@example.org", "you@example.net", message)
        await pool.close()

    :param where: the server, and ``settings`` how to get there: see :func:`~smtpfw.client.connect`; or a Connector.
    :param max_connections: at a time.
    :param max_messages: after how many a connection is closed; 0 for no limit.
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
        self._max_messages = max_messages
        self._max_age = max_age
        self._max_idle = max_idle
        self._check_after = check_after
        self._reactor = reactor
        self._jobs: deque[_Job] = deque()
        self._members: dict[SMTPClientProtocol, _Member] = {}
        # Those with nothing to do, the longest idle first; and those that could take a message ahead of an answer.
        self._idle: dict[_Member, None] = {}
        self._ready: dict[_Member, None] = {}
        self._connecting: set[Deferred[Any]] = set()
        self._checking = 0
        # Somebody is just being told what became of his message; the connection that had it comes free behind that.
        self._answering = 0
        self._pause = 0.0
        self._paused_until = 0.0
        self._wake: Any = None
        self._reaper: Any = None
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
        wire = client.wire
        if not wire.idle:
            client.close()
        elif wire.transaction is None:
            self._take_back(member)
        else:
            client.reset().addCallbacks(lambda _: self._take_back(member), lambda _: client.close())

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

    def abort(self) -> None:
        """The end at once: who waits gets a ConnectionFailed, or an UnknownOutcome where it may have been sent."""
        self._closing = self._closing or []
        self._fail_all(self._closed())
        for connecting in list(self._connecting):
            connecting.cancel()
        for client in list(self._members):
            client.close()

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
        elif job.member is not None and job.exchange is not None:
            job.member.client.cancel(job.exchange)

    def _dispatch(self) -> None:
        """Give what waits to connections; open others for the rest."""
        jobs = self._jobs
        while len(jobs) > self._checking:
            member = self._next_member(jobs[0])
            if member is None:
                break
            if member in self._idle and self._now() - member.since > self._check_after:
                self._check(member)
            else:
                self._give(member)
        coming = self._checking + len(self._connecting)
        room = self._max_connections - len(self._members) - len(self._connecting)
        for _ in range(min(len(jobs) - coming, room)):
            if not self._may_open():
                break
            self._open()
        if self._closing is not None and not jobs:
            self._leave()

    def _next_member(self, job: _Job) -> _Member | None:
        # The one that was used last, so that those in excess come to their end.
        if self._idle:
            return next(reversed(self._idle))
        full = len(self._members) + len(self._connecting) >= self._max_connections
        if self._ready and job.message is not None and (full or not self._may_open()):
            return next(iter(self._ready))
        return None

    def _give(self, member: _Member) -> None:
        job = self._jobs.popleft()
        self._idle.pop(member, None)
        self._ready.pop(member, None)
        job.member = member
        member.count += 1
        member.retired = member.count == self._max_messages or 0 < self._max_age <= self._now() - member.born
        client = member.client
        message = job.message
        if message is None:
            member.lent = True
            client.wire.wants_ready = False
            job.answer.callback(client)
        else:
            job.exchange = Sending(message, partial(self._done, job))
            client.submit(job.exchange)

    def _done(self, job: _Job, result: Any) -> None:
        if isinstance(result, Exception):
            answer: Any = Failure(result)
        else:
            answer = result
            self._pause = 0.0
        # Who sends one message after another gets the same connection, and not a new one each time.
        self._answering += 1
        try:
            job.answer.callback(answer)
        finally:
            self._answering -= 1

    # -- connections of ours ----------------------------------------------------

    def _now(self) -> float:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        now: float = self._reactor.seconds()
        return now

    def _may_open(self) -> bool:
        left = self._paused_until - self._now() if self._paused_until else 0.0
        if left <= 0:
            return True
        if self._wake is None:
            self._wake = self._reactor.callLater(left, self._wake_up)
        return False

    def _wake_up(self) -> None:
        self._wake = None
        self._dispatch()

    def _open(self) -> None:
        self._now()
        connecting = self.connector.connect(self._reactor)
        self._connecting.add(connecting)
        connecting.addBoth(self._opened, connecting)

    def _opened(self, result: Any, connecting: Deferred[Any]) -> None:
        self._connecting.discard(connecting)
        if isinstance(result, Failure):
            self._could_not_open(result.value)
            return
        member = self._members[result] = _Member(result, self._now())
        result.disconnected.addCallback(lambda _: self._lost(member))
        result.when_ready(partial(self._is_ready, member))
        self._is_ready(member)

    def _could_not_open(self, error: BaseException) -> None:
        if isinstance(error, Refused) and error.code == 421:
            self._back_off()
        if not self._members and not self._connecting:
            self._fail_all(error)
        self._dispatch()

    def _back_off(self) -> None:
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._paused_until = self._now() + self._pause

    def _is_ready(self, member: _Member) -> None:
        """It can take another message."""
        wire = member.client.wire
        if member.lent or wire.is_over:
            return
        if member.retired:
            if wire.idle:
                self._quit(member)
            return
        if wire.idle:
            member.since = self._now()
            self._idle[member] = None
            self._ready.pop(member, None)
        else:
            self._ready[member] = None
        if self._jobs:
            if self._jobs[0].message is not None or wire.idle:
                self._give(member)
            self._dispatch()
        elif self._closing is not None:
            self._leave()
        elif wire.idle:
            self._watch_idle()

    def _take_back(self, member: _Member) -> None:
        member.lent = False
        member.client.wire.wants_ready = True
        self._is_ready(member)

    def _check(self, member: _Member) -> None:
        """Whether a connection that was idle is still there."""
        client = member.client
        del self._idle[member]
        self._checking += 1
        member.lent = True
        checked = client.noop().addTimeout(CHECK_TIMEOUT, self._reactor)
        checked.addCallbacks(lambda _: member, lambda _: client.close()).addCallback(self._checked)

    def _checked(self, member: _Member | None) -> None:
        self._checking -= 1
        if member is not None:
            self._take_back(member)
        self._dispatch()

    def _quit(self, member: _Member) -> None:
        self._idle.pop(member, None)
        member.retired = True
        client = member.client
        client.quit().addErrback(lambda _: client.close())

    def _lost(self, member: _Member) -> None:
        del self._members[member.client]
        self._idle.pop(member, None)
        self._ready.pop(member, None)
        over = member.client.wire.over
        # Where nothing was asked, a 421 says that it was idle for too long.
        if isinstance(over, Refused) and over.code == 421 and over.phase:
            self._back_off()
        self._dispatch()

    # -- idleness and the end ---------------------------------------------------

    def _watch_idle(self) -> None:
        if self._max_idle and self._reaper is None and self._idle:
            longest = next(iter(self._idle))
            due = longest.since + self._max_idle - self._now()
            self._reaper = self._reactor.callLater(max(due, 0.0), self._reap)

    def _reap(self) -> None:
        self._reaper = None
        before = self._now() - self._max_idle
        for member in [member for member in self._idle if member.since <= before]:
            self._quit(member)
        self._watch_idle()

    def _leave(self) -> None:
        """Nobody waits any more, and nobody will."""
        for connecting in list(self._connecting):
            connecting.cancel()
        for member in list(self._idle):
            self._quit(member)
        if self._is_over and self._closing:
            for call in (self._wake, self._reaper):
                if call is not None:
                    call.cancel()
            self._wake = self._reaper = None
            answers, self._closing = self._closing, []
            for answer in answers:
                answer.callback(None)

    @property
    def _is_over(self) -> bool:
        return not (self._jobs or self._members or self._connecting)

    def _closed(self) -> ConnectionFailed:
        return ConnectionFailed("the pool is closed", peer=self.connector.destination.text)

    def _fail_all(self, error: BaseException) -> None:
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            job.answer.errback(Failure(error))
