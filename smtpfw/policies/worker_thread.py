"""
A thread for work that blocks on a disk, which is there while there is work.

Rule 1: one job at a time, in the order in which they came; so what they work on
needs no lock.

Rule 2: there is no thread before the first job, since a daemon forks before its
reactor runs, and none after some idle time: nobody has to end it.

Rule 3: whoever asks gets an answer, or is told at once that there will be none:
a disk may hang for ever, and a machine may have no thread left. Then jobs are
refused, and those whose caller has given up are never begun.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Busy", "NoThread", "WorkerThread"]

#: Seconds without a job after which the thread ends.
IDLE = 30.0

#: Jobs that may wait.
MAX_WAITING = 1000


class Busy(Exception):
    """Too many jobs wait already."""


class NoThread(Exception):
    """There is no thread to be had for them."""


class WorkerThread:
    """
    :param name: of the thread.
    :param at_end: called in it before it ends.
    :param reactor: whose thread gets the results; by default the running one.
    :param idle: seconds without a job after which it ends.
    :param max_waiting: jobs that may wait.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        at_end: Callable[[], Any],
        reactor: IReactorThreads | None = None,
        *,
        idle: float = IDLE,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._name = name
        self._at_end = at_end
        self._reactor = reactor
        self._idle = idle
        self._max_waiting = max_waiting
        self._jobs: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        # Guards the jobs, and whether there is a thread for them.
        self._changed = threading.Condition()
        self._running = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Have a function called in the thread.

        :return: a Deferred with what it returns or raises, or :class:`Busy`, or :class:`NoThread`. Cancelling it ends
            the wait; what has begun by then comes to its end.
        """
        # With a canceller, however empty, a cancelled Deferred takes no late answer, and the thread sees that it was.
        answer: Deferred[Any] = Deferred(lambda _: None)
        if self._reactor is None:
            from twisted.internet import reactor  # importing it chooses one, so not before the operator has

            self._reactor = IReactorThreads(reactor)
        try:
            with self._changed:
                if len(self._jobs) >= self._max_waiting:
                    raise Busy("too many wait for it")
                self._ensure_running(self._reactor)
                self._jobs.append((answer, function, arguments))
                self._changed.notify()
        except (Busy, NoThread):
            answer.errback()
        return answer

    def _ensure_running(self, reactor: IReactorThreads) -> None:
        if self._running:
            return
        # A daemon thread: it must not hold up the end of the process, whatever its disk does.
        thread = threading.Thread(target=self._run, args=(reactor,), name=self._name, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            # A limit on processes or memory; the next one tries again.
            raise NoThread(f"no thread for it: {error}") from error
        self._running = True

    def _run(self, reactor: IReactorThreads) -> None:
        while True:
            with self._changed:
                has_work = self._changed.wait_for(lambda: self._jobs, self._idle)
            if has_work:
                self._work(reactor)
                continue
            try:
                self._at_end()
            except Exception:
                self._log.failure("{name}: at the end of its thread", name=self._name)
            with self._changed:
                # Somebody may have come while the door was being closed.
                if not self._jobs:
                    self._running = False
                    return

    def _work(self, reactor: IReactorThreads) -> None:
        # A function of its own: names in a loop would keep the last job alive while nothing comes.
        answer, function, arguments = self._jobs.popleft()
        if answer.called:
            return
        try:
            result = function(*arguments)
        except BaseException:
            # One that wants to end the thread would leave all others without an answer.
            result = Failure()
        reactor.callFromThread(_tell, answer, result)


def _tell(answer: Deferred[Any], result: Any) -> None:
    if not answer.called:
        answer.callback(result)
