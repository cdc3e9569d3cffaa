"""
How much memory the messages of a server take, all together.
"""

from __future__ import annotations

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """
    Octets of messages that are in memory: those that wait to be read, and those that a session has asked for whole.

    :param limit: above it, memory is short; 0 for no limit.

    :ivar held: how many there are.
    """

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit
        self.held = 0

    @property
    def short(self) -> bool:
        """Whether it is better not to begin another message."""
        return 0 < self._limit <= self.held
