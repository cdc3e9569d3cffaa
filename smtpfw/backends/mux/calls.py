"""
Several hooks that run at the same time, and one coroutine that looks after them.

Rule 1: a cancellation of the coroutine is never passed to a hook by accident:
it waits for a :class:`Gate`, not for what the hooks returned, and says itself
what a cancellation means.

Rule 2: what a hook raises that is no refusal is logged once, here, and stands for
a temporary failure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpfw.errors import DataReset, SMTPError
from smtpfw.hooks import Acceptance, accepted, call_hook

__all__ = ["Call", "Gate", "Hook", "ask"]

Hook = Callable[..., Any]

_log = Logger()


async def ask(hook: Hook, *arguments: Any) -> Acceptance:
    """Call a hook, and wait for its answer; a cancellation is passed on to it."""
    answer = call_hook(hook, *arguments)
    if isinstance(answer, Deferred):
        answer = await answer
    return accepted(answer)


class Gate:
    """Where the coroutine waits for something to change."""

    def __init__(self) -> None:
        self._waiter: Deferred[None] | None = None

    def changed(self) -> None:
        """Look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    async def until(self, condition: Callable[[], bool], cancelled: Callable[[], None] | None = None) -> None:
        """
        Wait until something is true.

        :param cancelled: what a cancellation means; the wait goes on then. Without it, it ends the wait.
        """
        while not condition():
            self._waiter = Deferred()
            try:
                await self._waiter
            except CancelledError:
                self._waiter = None
                if cancelled is None:
                    raise
                cancelled()


class Call:
    """
    A hook that was called.

    :param gate: hears when it has ended.
    :param judge: makes a value of what it returned, or raises.

    :ivar running: whether it has not answered yet.
    :ivar value: what ``judge`` made of its answer; None before, or if it failed.
    :ivar error: why it failed.
    :ivar broken: whether it was told that the message will not come to its end: then that is all that it can raise.
    """

    def __init__(self, gate: Gate, judge: Callable[[Any], Any]) -> None:
        self._gate = gate
        self._judge = judge
        self._deferred: Deferred[Any] | None = None
        self.running = True
        self.value: Any = None
        self.error: Exception | None = None
        self.broken = False

    def start(self, hook: Hook, *arguments: Any) -> None:
        """Call the hook."""
        try:
            answer = call_hook(hook, *arguments)
            if not isinstance(answer, Deferred):
                self.value = self._judge(answer)
        except Exception:
            self._failed(Failure())
            return
        if isinstance(answer, Deferred):
            self._deferred = answer
            answer.addCallback(self._succeeded).addErrback(self._failed)
        else:
            self.end()

    def cancel(self) -> None:
        """Cancel it, if it still runs."""
        if self.running and self._deferred is not None:
            self._deferred.cancel()

    def end(self) -> None:
        """It has answered."""
        self.running = False
        self._gate.changed()

    def _succeeded(self, answer: Any) -> None:
        self.value = self._judge(answer)
        self.end()

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        assert isinstance(error, Exception)
        self.error = error
        expected = isinstance(error, SMTPError) or (self.broken and isinstance(error, (DataReset, CancelledError)))
        if not expected:
            _log.failure("mux: a hook of a target failed; that counts as a temporary failure", failure)
        self.end()
