"""Who talks before the greeting."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw.errors import SMTPError
from smtpfw.hooks import call_hook
from smtpfw.policies import EarlyTalkers
from tests.policies.fakes import connection


class EarlyTalkersTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.client = connection(clock=self.clock)

    def ask(self, **settings: float) -> Deferred[Any]:
        answer: Deferred[Any] = call_hook(EarlyTalkers(**settings).connect, self.client)
        self.assertNoResult(answer)
        return answer

    def test_who_waits_is_let_in(self) -> None:
        answer = self.ask(delay=2.0)
        self.clock.advance(1.9)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(answer))

    def test_who_does_not_is_refused(self) -> None:
        answer = self.ask()
        self.client.talked_early = True
        self.clock.advance(1.0)
        error = self.failureResultOf(answer, SMTPError).value
        self.assertEqual(str(error), "554 5.5.1 You spoke before the greeting")

    def test_who_goes_leaves_no_timer(self) -> None:
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


@pytest.mark.parametrize("delay", [0, -1, float("nan")])
def test_a_delay_that_is_none(delay: float) -> None:
    with pytest.raises(ValueError, match="nobody could be early"):
        EarlyTalkers(delay)


def test_words() -> None:
    assert EarlyTalkers(2.0).describe() == "The greeting waits 2 s, and whoever talks before it is refused"
    assert repr(EarlyTalkers()) == "EarlyTalkers(delay=1.0)"
