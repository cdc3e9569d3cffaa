"""The bridge between plain values, Deferreds and coroutines."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from smtpfw.hooks import call_hook, settle


class AtOnce(TestCase):
    def test_values(self) -> None:
        for value in (None, 0, "", "text", [1]):
            self.assertEqual(call_hook(lambda value=value: value), value)

    def test_arguments(self) -> None:
        self.assertEqual(call_hook(lambda *arguments: arguments, 1, "b"), (1, "b"))

    def test_fired_deferreds(self) -> None:
        self.assertEqual(call_hook(defer.succeed, 1), 1)
        with self.assertRaisesRegex(ValueError, "bad"):
            call_hook(defer.fail, ValueError("bad"))

    def test_a_failure_that_was_raised_is_not_logged_as_unhandled(self) -> None:
        with self.assertRaises(ValueError):
            call_hook(defer.fail, ValueError("bad"))
        # Trial collects garbage behind each test, and fails it for a Deferred's unhandled error.

    def test_coroutines(self) -> None:
        async def answer() -> int:
            return 1 + await defer.succeed(1)

        async def failing() -> int:
            await defer.fail(ValueError("bad"))
            return 1

        self.assertEqual(call_hook(answer), 2)
        with self.assertRaisesRegex(ValueError, "bad"):
            call_hook(failing)

    def test_they_cost_no_deferred(self) -> None:
        async def answer() -> int:
            return 1

        with mock.patch.object(Deferred, "__init__", side_effect=AssertionError):
            self.assertIsNone(call_hook(lambda: None))
            self.assertEqual(call_hook(answer), 1)


class Later(TestCase):
    def test_a_deferred(self) -> None:
        waiting: Deferred[int] = Deferred()
        self.assertIs(call_hook(lambda: waiting), waiting)

    def test_a_deferred_that_waits_for_another(self) -> None:
        inner: Deferred[int] = Deferred()
        outer = defer.succeed(None).addCallback(lambda _: inner)
        result = call_hook(lambda: outer)
        self.assertNoResult(result)
        inner.callback(1)
        self.assertEqual(self.successResultOf(result), 1)

    def test_a_coroutine(self) -> None:
        gates: list[Deferred[int]] = [Deferred(), Deferred()]

        async def answer() -> int:
            return await gates[0] + await gates[1]

        result = call_hook(answer)
        gates[0].callback(1)
        self.assertNoResult(result)
        gates[1].callback(2)
        self.assertEqual(self.successResultOf(result), 3)

    def test_errors_go_in_and_come_out(self) -> None:
        seen: list[str] = []
        gates: list[Deferred[Any]] = [Deferred(), Deferred()]

        async def answer() -> None:
            try:
                await gates[0]
            except KeyError:
                seen.append("caught")
            await gates[1]

        result = call_hook(answer)
        gates[0].errback(KeyError("a"))
        self.assertEqual(seen, ["caught"])
        gates[1].errback(ValueError("b"))
        self.failureResultOf(result, ValueError)

    def test_cancelling(self) -> None:
        cancelled: list[Any] = []
        gate: Deferred[None] = Deferred(cancelled.append)
        cleaned: list[str] = []

        async def answer() -> None:
            try:
                await gate
            finally:
                cleaned.append("up")

        result = call_hook(answer)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual((cancelled, cleaned), ([gate], ["up"]))

    def test_the_traceback_names_the_hook(self) -> None:
        gate: Deferred[None] = Deferred()

        async def guilty() -> None:
            await gate
            raise ValueError("bad")

        result = settle(guilty())
        gate.callback(None)
        self.assertIn("in guilty", self.failureResultOf(result).getTraceback().replace("guilty\n", "in guilty\n"))
