"""
Deadlines of many connections, which one delayed call of the reactor looks after.

A delayed call for each connection would cost more memory than all that an idle
connection needs otherwise, and one that is moved at each command more time than
the command. So a deadline only notes its new moment, and looks at it when the
old one is reached; and the old ones stand in a queue that they share.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Entries in the queue that are never worth cleaning up.
_FEW = 64


class Alarms:
    """
    The queue.

    :param clock: the reactor, or a clock of a test.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Of equal moments the first comes first; and deadlines are not compared.
        self._queue: list[tuple[float, int, Deadline]] = []
        self._numbers = count()
        # How many deadlines have an entry that counts. Another entry of the same one is stale, and is passed over.
        self._live = 0
        self._call: IDelayedCall | None = None
        self._due = 0.0

    def seconds(self) -> float:
        """Now."""
        return self._clock.seconds()

    def put(self, deadline: Deadline, at: float) -> None:
        """Look at ``deadline`` at that moment; an entry that it has already, and that is later, is stale then."""
        if not deadline.queued:
            self._live += 1
        deadline.queued = at
        heappush(self._queue, (at, next(self._numbers), deadline))
        self._clean()
        self._wake_at(at)

    def remove(self, deadline: Deadline) -> None:
        """Look at it no more."""
        if not deadline.queued:
            return
        deadline.queued = 0.0
        self._live -= 1
        if not self._live:
            self._queue.clear()
            if self._call is not None:
                self._call.cancel()
                self._call = None
        else:
            self._clean()

    def _clean(self) -> None:
        if len(self._queue) > max(_FEW, 2 * self._live):
            # Whoever has gone must not be kept in memory until its time would have come.
            self._queue = [entry for entry in self._queue if entry[2].queued == entry[0]]
            heapify(self._queue)

    def _wake_at(self, at: float) -> None:
        delay = max(0.0, at - self._clock.seconds())
        if self._call is None:
            self._call = self._clock.callLater(delay, self._ring)
        elif self._due > at:
            self._call.reset(delay)
        else:
            return
        self._due = at

    def _ring(self) -> None:
        self._call = None
        # What the reactor makes of a delay may be a little before the moment that was meant.
        now = max(self._clock.seconds(), self._due)
        try:
            while self._queue and self._queue[0][0] <= now:
                at, _, deadline = heappop(self._queue)
                if deadline.queued == at:
                    deadline.queued = 0.0
                    self._live -= 1
                    deadline.look(now)
        finally:
            if self._live:
                self._wake_at(self._queue[0][0])
            else:
                self._queue.clear()


class Deadline:
    """
    One moment, and what happens when it is reached.

    :param alarms: of the server.
    :param expired: called once for each moment that is reached.

    :ivar queued: when it will be looked at; 0 for never. :class:`Alarms` sets it.
    """

    __slots__ = ("_alarms", "_at", "_expired", "queued")

    def __init__(self, alarms: Alarms, expired: Callable[[], None]) -> None:
        self._alarms = alarms
        self._expired = expired
        self._at = 0.0
        self.queued = 0.0

    def set(self, seconds: float) -> None:
        """Reach it so many seconds from now; 0 for never."""
        if not seconds:
            self.clear()
            return
        self._at = self._alarms.seconds() + seconds
        if not self.queued or self.queued > self._at:
            self._alarms.put(self, self._at)

    def clear(self) -> None:
        """Forget it, and keep its place in the queue for the next."""
        self._at = 0.0

    def cancel(self) -> None:
        """Leave nothing behind."""
        self._at = 0.0
        self._alarms.remove(self)

    def look(self, now: float) -> None:
        """See whether the moment has come, or was moved."""
        if self._at > now:
            self._alarms.put(self, self._at)
        elif self._at:
            self._at = 0.0
            self._expired()
