"""Token buckets: what they let pass, and what they keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.policies.buckets import Buckets

# A time of the day, as a reactor gives it: large, and with a fraction.
START = 1_790_000_000.37


def take(buckets: Buckets, key: str, now: float) -> bool:
    if not buckets.has(key, now):
        return False
    buckets.take(key, now)
    return True


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (5, 1), (7, 60), (30, 60), (100, 3600), (3, 86400)])
def test_all_at_once_and_then_evenly(count: int, seconds: int) -> None:
    buckets = Buckets(count, seconds, 10)
    assert [take(buckets, "a", START) for _ in range(count + 1)] == [True] * count + [False]
    step = seconds / count
    assert not take(buckets, "a", START + step * 0.99)
    assert take(buckets, "a", START + step * 1.001)
    assert not take(buckets, "a", START + step * 1.5)
    # Asked in vain, it has lost nothing; after a long time it has not more than it holds.
    assert sum(take(buckets, "a", START + seconds * 50) for _ in range(count + 5)) == count


def test_each_has_its_own() -> None:
    buckets = Buckets(1, 60, 10)
    assert take(buckets, "a", START) and take(buckets, "b", START)
    assert not take(buckets, "a", START)


def test_what_is_full_again_is_forgotten() -> None:
    buckets = Buckets(2, 60, 1000)
    for number in range(100):
        take(buckets, f"{number}", START + number)
    # Those of the last minute.
    assert len(buckets) == 60


def test_there_are_never_too_many_and_the_one_idle_longest_goes() -> None:
    buckets = Buckets(2, 60, 3)
    for key in "abc":
        take(buckets, key, START)
    take(buckets, "a", START)
    take(buckets, "d", START)
    assert len(buckets) == 3
    assert not buckets.has("a", START)
    assert take(buckets, "b", START) and take(buckets, "b", START)


def test_asking_keeps_nothing() -> None:
    buckets = Buckets(1, 60, 3)
    assert buckets.has("a", START)
    assert len(buckets) == 0


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    buckets = Buckets(1, 60, 3)
    take(buckets, "a", START)
    assert take(buckets, "a", START - 3600)
    assert not take(buckets, "a", START - 3600)


@given(st.integers(1, 8), st.integers(1, 100), st.lists(st.floats(0, 50, allow_nan=False), min_size=1, max_size=60))
def test_the_rate_is_kept_over_any_time(count: int, seconds: int, gaps: list[float]) -> None:
    buckets = Buckets(count, seconds, 10)
    now, passed = START, []
    for gap in gaps:
        now += gap
        if take(buckets, "a", now):
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = count + (passed[last] - passed[first]) * count / seconds
            assert last - first + 1 <= allowed + 0.001


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 30, allow_nan=False)), max_size=80))
def test_memory_is_bounded(steps: list[tuple[str, float]]) -> None:
    buckets, now = Buckets(2, 20, 4), START
    for key, gap in steps:
        now += gap
        take(buckets, key, now)
        assert len(buckets) <= 4
