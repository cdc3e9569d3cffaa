"""
One message to several hooks at the same time, as it arrives.

Rule 1: the slowest governs. No chunk is read before everyone who still reads has room for it,
so memory is bounded and the client feels who is slow.

Rule 2: who has answered, or failed, before the end is fed no more, and stops nobody else.

Rule 3: a message that does not come to its end ends for everybody, in the way in which it ended; and nothing
goes on before every hook has come to its own end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError

from smtpfw.backends.mux.calls import Call, Gate, Hook
from smtpfw.body import MessageBody
from smtpfw.errors import DataReset
from smtpfw.interfaces import IBody
from smtpfw.memory import MemoryBudget

__all__ = ["HIGH_WATER", "Leg", "Tee", "ended"]

#: Octets that a target may be behind; then the others wait, and the client with them.
HIGH_WATER = 64 * 1024


class Leg(Call):
    """
    A hook that reads the message.

    :param hook: called with the body.
    :param memory: counts what it keeps; that of the body that it is fed from.
    :param on_end: called when it has answered.
    """

    def __init__(
        self,
        gate: Gate,
        judge: Callable[[Any], Any],
        hook: Hook,
        memory: MemoryBudget | None,
        on_end: Callable[[Leg], None] | None = None,
    ) -> None:
        super().__init__(gate, judge)
        self.body = MessageBody(gate.changed, gate.changed, HIGH_WATER, memory)
        self._hook = hook
        self._on_end = on_end

    def read(self) -> None:
        """Call the hook."""
        self.start(self._hook, self.body)

    def feed(self, chunk: bytes) -> None:
        """Give it the next octets, if it still wants them."""
        if self.running:
            self.body.append(chunk)

    def break_off(self, error: BaseException) -> None:
        """The message ends here for this one."""
        if self.running:
            self.broken = True
            self.body.fail(error)

    def end(self) -> None:
        """It has answered."""
        # First: dropping what waits makes room, and whoever feeds goes on at once.
        self.running = False
        self.body.drop()
        on_end, self._on_end = self._on_end, None
        try:
            if on_end is not None:
                on_end(self)
        finally:
            # Whoever waits for this one must not wait for ever, whatever becomes of its answer.
            super().end()


class Tee:
    """
    :param gate: of all its legs.
    """

    def __init__(self, gate: Gate, legs: Iterable[Leg]) -> None:
        self._gate = gate
        self.legs = list(legs)

    async def feed(self, body: IBody) -> None:
        """
        Call the hooks, and give them the message, but not its end.

        Returns early when everybody has answered, and somebody has failed: the rest changes nothing.

        :raises Exception: what ended the message early; no hook runs any more then.
        """
        for leg in self.legs:
            leg.read()
        try:
            async for chunk in body:
                for leg in self.legs:
                    leg.feed(chunk)
                await self._gate.until(self._have_room)
                if ended(self.legs) and any(leg.error for leg in self.legs):
                    return
        except Exception as error:
            await self._break_off(error)
            raise

    async def end(self, legs: Iterable[Leg]) -> None:
        """Give some the end of the message, and wait for their answers."""
        legs = list(legs)
        for leg in legs:
            leg.body.end()
        # The message is theirs now, and nothing tears its commit.
        await self._gate.until(lambda: ended(legs), cancelled=lambda: None)

    async def abort(self, leg: Leg) -> None:
        """End the message for one as if its client had gone, and wait for it."""
        leg.break_off(DataReset("the message was refused elsewhere"))
        leg.cancel()
        await self._gate.until(lambda: not leg.running, cancelled=leg.cancel)

    def _have_room(self) -> bool:
        return not any(leg.body.full for leg in self.legs)

    async def _break_off(self, error: Exception) -> None:
        gone = isinstance(error, CancelledError)
        for leg in self.legs:
            leg.break_off(DataReset("disconnected") if gone else error)
        if gone:
            self._cancel()
        await self._gate.until(lambda: ended(self.legs), cancelled=self._cancel)

    def _cancel(self) -> None:
        for leg in self.legs:
            leg.cancel()


def ended(calls: Iterable[Call]) -> bool:
    """Whether none of them runs any more."""
    return not any(call.running for call in calls)
