"""
The thread that does all disk work, many messages to one fsync of a folder.

Rule 1: jobs are done in the order in which they were given. So what is given
after a job finds its effects: a withdrawal removes what a write before it
made, even if nobody waits for that write any more.

Rule 2: the thread takes all jobs that wait, up to a bound, as a group: it writes
and fsyncs each file, then renames each, then fsyncs each folder once, then answers all
of them with one call into the reactor.

Rule 3: a job that fails does not disturb the others of its group; but a folder
whose fsync fails fails for everyone who put a file there.

Rule 4: there is no thread before the first job, since a daemon forks before its reactor runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import Logger

from smtpfw.backends.maildir.delivery import Delivery, Octets
from smtpfw.backends.maildir.failures import StorageError
from smtpfw.backends.maildir.folder import Maildir

__all__ = ["Committer"]

#: Jobs in a group. The first one waits for the last one's fsync: 30 ms on a disk that does 4,000 a second.
DEFAULT_MAX_GROUP = 128


class _Job:
    """
    Something to do, and who waits for it.

    :ivar delivery: what to withdraw when the job fails.
    :ivar commits: whether the delivery is to be published with the group.
    :ivar trouble: a withdrawal that did not work.
    """

    __slots__ = ("commits", "deferred", "delivery", "error", "function", "result", "trouble")

    def __init__(
        self, function: Callable[[], Any], delivery: Delivery | None, commits: bool, deferred: Deferred[Any] | None
    ) -> None:
        self.function = function
        self.delivery = delivery
        self.commits = commits
        self.deferred = deferred
        self.result: Any = None
        self.error: Exception | None = None
        self.trouble: Exception | None = None

    def attempt(self, step: Callable[[], Any]) -> None:
        """Take a step, unless an earlier one failed or nobody waits; when it fails, leave no file behind."""
        if self.error is None:
            try:
                if self.cancelled:
                    raise CancelledError
                self.result = step()
            except Exception as error:
                self.fail(error)

    @property
    def cancelled(self) -> bool:
        """Whether somebody did wait, and does no more. While a job is not answered, only that calls its Deferred."""
        return self.deferred is not None and self.deferred.called

    def fail(self, error: Exception) -> None:
        """Remember the error, and withdraw the delivery."""
        self.error = error
        if self.delivery is not None:
            try:
                self.delivery.withdraw()
            except Exception as trouble:
                self.trouble = trouble


class Committer:
    """
    :param get_reactor: gives the reactor that is called back; first asked when there is something to do.
    :param max_group: jobs in a group, at most.
    """

    _log = Logger()

    def __init__(self, get_reactor: Callable[[], IReactorThreads], max_group: int = DEFAULT_MAX_GROUP) -> None:
        self._get_reactor = get_reactor
        self._max_group = max_group
        # None tells the thread to end.
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped: list[Deferred[None]] = []

    def call(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """
        Have a function called in the thread.

        :return: a Deferred with its result. A StorageError is logged, and becomes the SMTPError that it stands for.
            Cancelling ends the wait; what has not begun by then is left out.
        """
        return self._submit(lambda: function(*args))

    def advance(self, delivery: Delivery, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """As :meth:`call`, for a step of a delivery: when it fails, all files of the delivery are gone."""
        return self._submit(lambda: function(*args), delivery)

    def commit(self, delivery: Delivery, whole: Octets | None = None) -> Deferred[Any]:
        """
        Publish a delivery, durably.

        :param whole: the message, if nothing has been written yet.
        :return: a Deferred that fires when every file is in ``new`` to stay; if it fails, none is.
        """
        if whole is None:
            return self._submit(delivery.finish, delivery, commits=True)
        return self._submit(lambda: delivery.write_whole(whole), delivery, commits=True)

    def prepare(self, delivery: Delivery, whole: Octets | None = None) -> Deferred[Any]:
        """
        Have a delivery written and fsynced in ``tmp``, so that :meth:`commit` has only to publish it.

        :param whole: as in :meth:`commit`.
        :return: a Deferred that fires when every file is in ``tmp`` to stay; if it fails, none is.
        """
        if whole is None:
            return self.advance(delivery, delivery.finish)
        return self.advance(delivery, delivery.write_whole, whole)

    def post(self, function: Callable[[], Any]) -> None:
        """As :meth:`call`, when nobody waits: it cannot be cancelled, and a StorageError is only logged."""
        self._put(_Job(function, None, False, None))

    def catch_up(self) -> Deferred[Any]:
        """A Deferred that fires when all that was given before has been done."""
        return self._submit(lambda: None)

    def stop(self) -> Deferred[None]:
        """
        End the thread when all that was given has been done.

        :return: a Deferred that fires when it has ended. A job that comes later starts it again.
        """
        stopped: Deferred[None] = Deferred()
        if self._thread is None:
            stopped.callback(None)
            return stopped
        self._stopped.append(stopped)
        if len(self._stopped) == 1:
            self._queue.put(None)
        return stopped

    def _submit(
        self, function: Callable[[], Any], delivery: Delivery | None = None, commits: bool = False
    ) -> Deferred[Any]:
        # With a canceller, however empty, a cancelled Deferred does not take a late answer, so it shows that it was.
        deferred: Deferred[Any] = Deferred(lambda _: None)
        self._put(_Job(function, delivery, commits, deferred))
        return deferred

    def _put(self, job: _Job) -> None:
        self._queue.put(job)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        # A daemon thread: a process that ends without stop() has answered nothing of what is lost.
        self._thread = threading.Thread(
            target=self._run, args=(self._get_reactor(),), name="maildir committer", daemon=True
        )
        self._thread.start()

    def _run(self, reactor: IReactorThreads) -> None:
        while self._serve_group(reactor):
            pass
        reactor.callFromThread(self._joined)

    def _serve_group(self, reactor: IReactorThreads) -> bool:
        # A function of its own: names in a loop would keep the last group's messages in memory while nothing comes.
        waiting = [self._queue.get()]
        while len(waiting) < self._max_group:
            try:
                waiting.append(self._queue.get_nowait())
            except Empty:
                break
        group = [job for job in waiting if job is not None]
        _work(group)
        reactor.callFromThread(self._answer, group)
        return len(group) == len(waiting)

    def _joined(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._queue.empty():
            self._queue.put(None)
            self._start()
            return
        stopped, self._stopped = self._stopped, []
        for deferred in stopped:
            deferred.callback(None)

    def _answer(self, group: list[_Job]) -> None:
        errors = (error for job in group for error in (job.error, job.trouble))
        # One fsync of a folder may have failed many jobs: that is one line.
        for failure in dict.fromkeys(error for error in errors if isinstance(error, StorageError)):
            self._log.error("maildir: {problem}", problem=str(failure))
        for job in group:
            if job.deferred is None or job.cancelled:
                continue
            if job.error is None:
                job.deferred.callback(job.result)
            else:
                job.deferred.errback(job.error.reply() if isinstance(job.error, StorageError) else job.error)


def _work(group: list[_Job]) -> None:
    for job in group:
        job.attempt(job.function)
    commits = [(job, job.delivery) for job in group if job.commits and job.delivery is not None]
    folders: dict[str, tuple[Maildir, list[_Job]]] = {}
    for job, delivery in commits:
        job.attempt(delivery.publish)
        if job.error is None:
            for copy in delivery.copies:
                folders.setdefault(copy.maildir.path, (copy.maildir, []))[1].append(job)
    for maildir, jobs in folders.values():
        try:
            maildir.sync_new()
        except Exception as error:
            for job in jobs:
                job.fail(error)
