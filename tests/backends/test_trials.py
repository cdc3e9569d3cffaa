"""Things that are tried at the same time, and some that hang."""

from __future__ import annotations

import threading

from smtpfw.backends.trials import in_parallel


def test_each_has_its_own_outcome() -> None:
    def fail() -> str:
        raise ValueError("no")

    one, two = in_parallel([lambda: "yes", fail], 10)
    assert one == "yes"
    assert isinstance(two, ValueError)
    assert in_parallel([], 10) == []


def test_they_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert sorted(in_parallel([meeting.wait] * 3, 10)) == [0, 1, 2]  # type: ignore[type-var]


def test_nobody_waits_for_one_that_hangs() -> None:
    never = threading.Event()
    hung, done = in_parallel([never.wait, lambda: True], 0.05)
    assert isinstance(hung, TimeoutError)
    assert done is True
    left = [thread for thread in threading.enumerate() if thread.daemon and type(thread).__name__ == "_Trial"]
    assert left
    never.set()
