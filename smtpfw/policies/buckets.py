"""
Token buckets, one for each client, in bounded memory.

A bucket holds ``count`` tokens and is full at first. Who does something takes
one out; over ``seconds`` a whole bucketful comes back, evenly. So ``count`` may
come at once, and after that no more than the rate.

Rule 1: one number and one time for each client, however much it does.

Rule 2: a bucket that is full again need not be kept. When there are too many
all the same, the one that was used the longest ago goes; its client is as
good as new, and that is the lesser evil: the others keep theirs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["Buckets"]


class Buckets:
    """
    :param count: tokens that a bucket holds.
    :param seconds: until an empty one is full again.
    :param max_keys: buckets that are kept.
    """

    __slots__ = ("_buckets", "_count", "_max_keys", "_seconds")

    def __init__(self, count: int, seconds: float, max_keys: int) -> None:
        self._count = count
        self._seconds = seconds
        self._max_keys = max_keys
        # Tokens, and when they were that many; the one that was used the longest ago first.
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def has(self, key: Hashable, now: float) -> bool:
        """Whether there is a token to take."""
        return self._level(key, now) >= 1

    def take(self, key: Hashable, now: float) -> None:
        """Take one; ask :meth:`has` first."""
        self._buckets[key] = (self._level(key, now) - 1, now)
        self._buckets.move_to_end(key)
        self._forget(now)

    def _level(self, key: Hashable, now: float) -> float:
        level, when = self._buckets.get(key, (self._count, now))
        if now < when:
            # The clock of the machine was set back. Waiting for it to come round again could take hours.
            return self._count
        return min(self._count, level + (now - when) * self._count / self._seconds)

    def _forget(self, now: float) -> None:
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        # One comes at a time, so two that go are enough, and nobody waits for many.
        for _ in range(2):
            key, (_, when) = next(iter(self._buckets.items()))
            if now - when < self._seconds:
                return
            del self._buckets[key]

    def __len__(self) -> int:
        return len(self._buckets)
