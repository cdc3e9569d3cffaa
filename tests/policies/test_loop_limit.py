"""How often a message has been received already."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.policies import LoopLimit
from tests.policies.fakes import connection, refusal

REFUSED = "554 5.4.6 Too many hops: this message goes round in circles"
FOLDED = b"Received: from a.test\r\n\tby b.test\r\n received: x\r\n"


def judge(check: LoopLimit, header: bytes) -> str:
    return refusal(check.message, connection(), header, len(header))


@pytest.mark.parametrize("name", [b"Received:", b"RECEIVED:", b"received :", b"Received\t:"])
def test_fields_are_counted(name: bytes) -> None:
    field = name + b" from a.test by b.test\r\n"
    assert judge(LoopLimit(), field * 100 + b"Subject: x\r\n\r\n") == ""
    assert judge(LoopLimit(), field * 101 + b"\r\n") == REFUSED
    assert judge(LoopLimit(), b"Subject: x\r\n" + field * 101 + b"\r\n") == REFUSED
    assert judge(LoopLimit(), b"Subject: x\r\n" + field * 100 + b"\r\n") == ""


def test_a_folded_field_is_one() -> None:
    assert judge(LoopLimit(3), FOLDED * 3 + b"\r\n") == ""
    assert judge(LoopLimit(3), FOLDED * 4 + b"\r\n") == REFUSED


@pytest.mark.parametrize(
    "line",
    [
        b"Received-SPF: pass",
        b"X-Received: by x",
        b" Received: x",
        b"Subject: Received: x",
        b"Receive: x",
        b"receivedx: y",
    ],
)
def test_others_are_not(line: bytes) -> None:
    assert judge(LoopLimit(1), (line + b"\r\n") * 5 + b"\r\n") == ""


def test_only_a_true_line_end_begins_a_field() -> None:
    # BINARYMIME carries octets as they are.
    assert judge(LoopLimit(1), b"Subject: x\nReceived: a\rReceived: b\nReceived: c\r\n\r\n") == ""


def test_a_message_without_a_header() -> None:
    assert judge(LoopLimit(1), b"\r\n") == judge(LoopLimit(1), b"") == ""


_LINES = st.sampled_from(
    [b"Received: a", b"received\t: b", b" received: c", b"Received-SPF: d", b"To: e", b"RECEIVED:"]
)


@given(st.lists(_LINES, max_size=12), st.integers(1, 6))
def test_as_a_reader_of_lines_counts(lines: list[bytes], limit: int) -> None:
    header = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    expected = sum(re.match(rb"(?i)received[ \t]*:", line) is not None for line in lines)
    assert (judge(LoopLimit(limit), header) == REFUSED) == (expected > limit)


def test_a_limit_that_is_none() -> None:
    with pytest.raises(ValueError, match="is below 1"):
        LoopLimit(0)


def test_words() -> None:
    assert LoopLimit().describe() == "A message with more than 100 Received fields is refused as a loop"
    assert repr(LoopLimit(50)) == "LoopLimit(max_received=50)"
