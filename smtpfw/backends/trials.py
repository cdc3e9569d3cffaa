"""
What backends try when they are asked whether all is in order: many things that may take long, at the same time.

Rule: nobody waits longer than told. What hangs is left behind, in a thread that
does not keep the process from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

__all__ = ["PATIENCE", "in_parallel"]

#: Seconds that a backend has for all that it tries.
PATIENCE = 8.0

T = TypeVar("T")


def in_parallel(calls: Iterable[Callable[[], T]], seconds: float) -> list[T | Exception]:
    """
    Call each in a thread of its own.

    :param seconds: for all of them together.
    :return: what each has returned or raised; TimeoutError for who is not done.
    """
    trials = [_Trial(call) for call in calls]
    for trial in trials:
        trial.start()
    end = time.monotonic() + seconds
    for trial in trials:
        trial.join(max(end - time.monotonic(), 0.0))
    return [trial.outcome for trial in trials]


class _Trial(threading.Thread, Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.outcome: T | Exception = TimeoutError()

    def run(self) -> None:
        try:
            self.outcome = self._call()
        except Exception as error:
            self.outcome = error
