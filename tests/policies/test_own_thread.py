"""A thread that is there while there is work: order, results, who has given up, and the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from smtpfw.policies import own_thread
from smtpfw.policies.own_thread import Busy, OwnThread

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


class OwnThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.ended = threading.Event()
        self.patch(own_thread, "IDLE", 0.0)
        self.thread = OwnThread("test", self.ended.set, self.reactor)

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
        self.patch(own_thread, "MAX_WAITING", 2)
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

        thread = OwnThread("test", close, self.reactor)
        thread.call(int)
        self.assertTrue(closing.wait(PATIENCE))
        answer = thread.call(int, "8")
        go_on.set()
        self.reactor.run(2)
        self.assertEqual(self.successResultOf(answer), 8)
