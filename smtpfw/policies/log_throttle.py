"""
What the log is told once in a while, however often it happens: a broken name server must not fill a disk.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["LogThrottle"]

#: Seconds. An operator who looks into the log finds it there, and it is no flood.
INTERVAL = 600.0


class LogThrottle:
    """
    Lets one line of a kind through, and no other of the same kind for a while.

    Treat kinds as what an operator has chosen: there is no bound on them, so no client may choose one.
    """

    __slots__ = ("_said",)

    def __init__(self) -> None:
        self._said: dict[Hashable, float] = {}

    def due(self, kind: Hashable, now: float) -> bool:
        """
        Whether to say it.

        :param now: seconds of any clock that goes on.
        """
        before = self._said.get(kind)
        if before is not None and before <= now < before + INTERVAL:
            return False
        self._said[kind] = now
        return True
