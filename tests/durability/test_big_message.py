"""A message far larger than the memory that it may take."""

from __future__ import annotations

import pytest

from benchmarks import big_message


@pytest.mark.parametrize("how", ["data", "bdat"])
def test_a_large_message_is_streamed(how: str) -> None:
    peak, _, same = big_message.run(192, how)
    assert same
    assert peak < 100 * big_message.MEBIBYTE
