"""A thread that is there while there is work: order, results, who has given up, and the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from smtpfw.policies.worker_thread import Busy, NoThread, WorkerThread

#: Seconds that a test waits for a thread, which comes much sooner.
PATIENCE = 10.0


class Reactor:
    """Collects what threads want to have called."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], Any]] = []
        self._came = threading.Condition()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        with self._came:
            self._calls.append(lambda: function(*arguments))
            self._came.notify()

    def run(self, number: int) -> None:
        for _ in range(number):
            with self._came:
                assert self._came.wait_for(lambda: self._calls, PATIENCE)
                call = self._calls.pop(0)
            call()


class WorkerThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.ended = threading.Event()
        self.thread = self.make(self.ended.set)

    def make(self, at_end: Callable[[], Any], max_waiting: int = 100) -> WorkerThread:
        return WorkerThread("test", at_end, self.reactor, idle=0.0, max_waiting=max_waiting)

    def hold(self) -> threading.Event:
        """Keep the thread busy; return what lets it go on."""
        begun, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            go_on.wait(PATIENCE)

        self.thread.call(wait)
        self.assertTrue(begun.wait(PATIENCE))
        return go_on

    def test_results_in_their_order(self) -> None:
        go_on = self.hold()
        done: list[int] = []
        answers = [self.thread.call(done.append, number) for number in range(5)]
        answers.append(self.thread.call(threading.get_ident))
        go_on.set()
        self.reactor.run(7)
        self.assertEqual(done, [0, 1, 2, 3, 4])
        self.assertNotEqual(self.successResultOf(answers[5]), threading.get_ident())

    def test_what_is_raised(self) -> None:
        answer = self.thread.call(int, "x")
        self.reactor.run(1)
        self.failureResultOf(answer, ValueError)

    def test_who_has_given_up_is_left_out(self) -> None:
        go_on = self.hold()
        done: list[int] = []
        given_up, other = self.thread.call(done.append, 1), self.thread.call(done.append, 2)
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        go_on.set()
        self.reactor.run(2)
        self.assertEqual(done, [2])
        self.assertIsNone(self.successResultOf(other))

    def test_who_gives_up_while_it_is_being_done(self) -> None:
        begun, go_on = threading.Event(), threading.Event()

        def work() -> int:
            begun.set()
            go_on.wait(PATIENCE)
            return 1

        answer = self.thread.call(work)
        self.assertTrue(begun.wait(PATIENCE))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        go_on.set()
        self.reactor.run(1)

    def test_too_many_wait(self) -> None:
        self.thread = self.make(self.ended.set, max_waiting=2)
        go_on = self.hold()
        answers = [self.thread.call(int) for _ in range(2)]
        self.failureResultOf(self.thread.call(int), Busy)
        go_on.set()
        self.reactor.run(3)
        self.assertEqual([self.successResultOf(answer) for answer in answers], [0, 0])

    def test_it_ends_and_begins_again(self) -> None:
        for _ in range(3):
            answer = self.thread.call(int, "7")
            self.reactor.run(1)
            self.assertEqual(self.successResultOf(answer), 7)
            self.assertTrue(self.ended.wait(PATIENCE))
            self.ended.clear()

    def test_who_comes_while_it_ends(self) -> None:
        closing, go_on = threading.Event(), threading.Event()

        def close() -> None:
            closing.set()
            go_on.wait(PATIENCE)

        thread = self.make(close)
        thread.call(int)
        self.assertTrue(closing.wait(PATIENCE))
        answer = thread.call(int, "8")
        go_on.set()
        self.reactor.run(2)
        self.assertEqual(self.successResultOf(answer), 8)

    def test_many_come_while_it_ends(self) -> None:
        ends: list[int] = []

        def close() -> None:
            # Each time it ends somebody comes, more often than the stack is deep.
            ends.append(0)
            if len(ends) < 3000:
                thread.call(int)

        thread = self.make(close)
        thread.call(int)
        self.reactor.run(3000)
        self.assertGreaterEqual(len(ends), 2999)

    def test_no_thread_can_be_started(self) -> None:
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", refuse)
        for _ in range(2):
            answer = self.thread.call(int)
            self.assertEqual(
                str(self.failureResultOf(answer, NoThread).value), "no thread for it: can't start new thread"
            )
        self.patch(threading.Thread, "start", start)
        answer = self.thread.call(int, "7")
        # None of those that were refused is done now.
        self.reactor.run(1)
        self.assertEqual(self.successResultOf(answer), 7)

    def test_an_end_that_fails(self) -> None:
        ended = threading.Semaphore(0)
        threads: list[threading.Thread] = []

        def close() -> None:
            threads.append(threading.current_thread())
            ended.release()
            raise ValueError("the disk is broken")

        thread = self.make(close)
        for number in (1, 2):
            answer = thread.call(int, str(number))
            self.reactor.run(1)
            self.assertEqual(self.successResultOf(answer), number)
            self.assertTrue(ended.acquire(timeout=PATIENCE))
        for one in threads:
            # It tells the log of it after that.
            one.join(PATIENCE)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(threads))

    def test_a_job_that_wants_to_end_the_thread(self) -> None:
        for _ in range(2):
            answer = self.thread.call(sys.exit)
            self.reactor.run(1)
            self.failureResultOf(answer, SystemExit)
