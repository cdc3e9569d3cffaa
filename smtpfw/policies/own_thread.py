"""
A thread for work that blocks on a disk, which is there while there is work.

Rule 1: one job at a time, in the order in which they came; so what they work on
needs no lock.

Rule 2: there is no thread before the first job, since a daemon forks before its
reactor runs, and none after some idle time: nobody has to end it.

Rule 3: a disk may hang for ever. Then jobs are refused once too many wait, and
those whose caller has given up are never begun.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.python.failure import Failure

__all__ = ["Busy", "OwnThread"]

#: Seconds without a job after which the thread ends.
IDLE = 30.0

#: Jobs that may wait.
MAX_WAITING = 1000


class Busy(Exception):
    """Too many jobs wait already."""


class OwnThread:
    """
    :param name: of the thread.
    :param at_end: called in it before it ends.
    :param reactor: whose thread gets the results; by default the running one.
    """

    def __init__(self, name: str, at_end: Callable[[], Any], reactor: IReactorThreads | None = None) -> None:
        self._name = name
        self._at_end = at_end
        self._reactor = reactor
        self._jobs: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        # Guards the jobs, and whether there is a thread for them.
        self._changed = threading.Condition()
        self._running = False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Have a function called in the thread.

        :return: a Deferred with what it returns or raises, or :class:`Busy`. Cancelling it ends the wait; what has
            begun by then comes to its end.
        """
        # With a canceller, however empty, a cancelled Deferred takes no late answer, and the thread sees that it was.
        answer: Deferred[Any] = Deferred(lambda _: None)
        if self._reactor is None:
            from twisted.internet import reactor  # importing it chooses one, so not before the operator has

            self._reactor = IReactorThreads(reactor)
        with self._changed:
            if len(self._jobs) >= MAX_WAITING:
                answer.errback(Busy("too many wait for it"))
                return answer
            self._jobs.append((answer, function, arguments))
            if self._running:
                self._changed.notify()
            else:
                self._running = True
                # A daemon thread: it must not hold up the end of the process, whatever its disk does.
                threading.Thread(target=self._run, args=(self._reactor,), name=self._name, daemon=True).start()
        return answer

    def _run(self, reactor: IReactorThreads) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._jobs, IDLE):
                    break
            self._work(reactor)
        self._at_end()
        with self._changed:
            if not self._jobs:
                self._running = False
                return
        # Somebody came while the door was being closed.
        self._run(reactor)

    def _work(self, reactor: IReactorThreads) -> None:
        # A function of its own: names in a loop would keep the last job alive while nothing comes.
        answer, function, arguments = self._jobs.popleft()
        if answer.called:
            return
        try:
            result = function(*arguments)
        except Exception:
            result = Failure()
        reactor.callFromThread(_tell, answer, result)


def _tell(answer: Deferred[Any], result: Any) -> None:
    if not answer.called:
        answer.callback(result)
