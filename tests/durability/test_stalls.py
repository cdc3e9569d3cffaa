"""The script with clients that stop in the middle: a short run of it, and that it sees what is wrong."""

from __future__ import annotations

import pytest

from tests.durability import stalls

LIMIT = 1.0


def test_stalled_clients_end_and_the_others_are_served() -> None:
    result = stalls.run(2 * len(stalls.STALLS), LIMIT)
    assert result.faults == []
    assert {end.stall for end in result.ends} == set(stalls.STALLS)
    assert len(result.times) > 3 * len(stalls.STALLS)


TOLD, CUT = b"421 4.4.2 Timeout\r\n", b""


@pytest.mark.parametrize(
    ("where", "since_said", "since_answered", "last_words", "right"),
    [
        ("after EHLO", 1.01, 0.9, TOLD, True),
        ("after EHLO", 0.9, 0.9, TOLD, False),
        ("after EHLO", 9.0, 9.0, TOLD, False),
        ("after EHLO", 1.0, 1.0, CUT, False),
        ("after STARTTLS", 1.0, 1.0, CUT, True),
        ("after STARTTLS", 1.0, 1.0, TOLD, False),
        ("in a body that drips", 1.0, 1.0, TOLD, False),
    ],
)
def test_the_check(where: str, since_said: float, since_answered: float, last_words: bytes, right: bool) -> None:
    (stall,) = [stall for stall in stalls.STALLS if stall.where == where]
    assert (stalls.End(stall, since_said, since_answered, last_words).fault(LIMIT) == "") is right
