"""
When a server may be asked for another connection, after it could not have one.

Rule 1: each pause is twice as long as the one before, until a connection that
was opened since then has taken a message, or has been of use to whom it was lent.

Rule 2: what fails within a pause is news of the same trouble, and makes it no
longer: a server that is stopped says 421 on all its connections at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Backoff"]

#: Seconds: the first time, and at most.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Backoff:
    """
    :param wake: called at the end of a pause in which somebody has asked :meth:`is_over`.

    :ivar seconds: how long the last pause was; 0 when all is well.
    """

    __slots__ = ("_call", "_until", "_wake", "seconds")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.seconds = 0.0
        self._until = 0.0
        self._wake = wake
        self._call: Any = None

    def begin(self, clock: Any) -> None:
        """Something has failed."""
        now = clock.seconds()
        if now >= self._until:
            self.seconds = min(self.seconds * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            self._until = now + self.seconds

    def is_over(self, clock: Any) -> bool:
        """Whether it may be tried again."""
        if not self.seconds:
            return True
        left = self._until - clock.seconds()
        if left <= 0:
            return True
        if self._call is None:
            self._call = clock.callLater(left, self._ring)
        return False

    def worked(self, born: float) -> None:
        """A connection that was opened then has been of use."""
        if born >= self._until:
            self.seconds = 0.0

    def stop(self) -> None:
        """Nobody has to be woken any more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _ring(self) -> None:
        self._call = None
        self._wake()
