"""Lines out of octets, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.wire.buffer import MAX_SKIPPED, BareNewline, EndlessLine, LineError, LineOverLimit, ReceiveBuffer

LIMIT = 10


def lines(pieces: list[bytes], bare_lf: bool = False, limit: int = LIMIT) -> list[object]:
    """Every line, or the class of the error in its place; an error that closes the connection is the last."""
    buffer = ReceiveBuffer(bare_lf)
    found: list[object] = []
    for piece in pieces:
        buffer.append(piece)
        while True:
            try:
                line = buffer.next_line(limit)
            except LineError as error:
                found.append(type(error))
                if not isinstance(error, LineOverLimit):
                    return found
            else:
                if line is None:
                    break
                found.append(line)
    return found


CASES = [
    (b"", []),
    (b"NOOP", []),
    (b"NOOP\r", []),
    (b"NOOP\r\n", [b"NOOP"]),
    (b"\r\n", [b""]),
    (b"a\r\nb\r\nc", [b"a", b"b"]),
    (b"12345678\r\n", [b"12345678"]),
    (b"123456789\r\nNOOP\r\n", [LineOverLimit, b"NOOP"]),
    (b"1234567890123456\r\nNOOP\r\n", [LineOverLimit, b"NOOP"]),
    (b"a\nNOOP\r\n", [BareNewline]),
    (b"\n", [BareNewline]),
    (b"a\rb\r\n", [BareNewline]),
    (b"a\r\r\n", [BareNewline]),
    # In a line that is skipped nothing but CRLF is an end.
    (b"12345678901\nNOOP\r\nRSET\r\n", [LineOverLimit, b"RSET"]),
    (b"123456789012345\rNOOP\r\nRSET\r\n", [LineOverLimit, b"RSET"]),
    (b"12345678901\r\r\nRSET\r\n", [LineOverLimit, b"RSET"]),
    (b"x" * MAX_SKIPPED + b"\r\nRSET\r\n", [LineOverLimit, b"RSET"]),
    (b"x" * (MAX_SKIPPED + 1) + b"\r\nRSET\r\n", [EndlessLine]),
    (b"x" * (MAX_SKIPPED + 1), [EndlessLine]),
]


@pytest.mark.parametrize(("octets", "expected"), CASES)
def test_lines(octets: bytes, expected: list[object]) -> None:
    assert lines([octets]) == expected
    assert lines([octets[index : index + 1] for index in range(len(octets))]) == expected
    assert lines([octets[:-1], octets[-1:]]) == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"a\nb\r\n\n", [b"a", b"b", b""]),
        (b"a\rb\n", [BareNewline]),
        (b"12345678901\nNOOP\n", [LineOverLimit, b"NOOP"]),
    ],
)
def test_bare_newlines_where_they_are_taken(octets: bytes, expected: list[object]) -> None:
    assert lines([octets], bare_lf=True) == expected
    assert lines([octets[index : index + 1] for index in range(len(octets))], bare_lf=True) == expected


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"x" * 7, b"y" * 12]), max_size=30).map(b"".join),
    st.lists(st.integers(0, 200), max_size=8),
    st.booleans(),
)
def test_cuts_change_nothing(octets: bytes, places: list[int], bare_lf: bool) -> None:
    edges = sorted({place % (len(octets) + 1) for place in places} | {0, len(octets)})
    pieces = [octets[start:end] for start, end in pairwise(edges)]
    assert lines(pieces, bare_lf) == lines([octets], bare_lf)


def test_memory_of_an_endless_line_is_bounded() -> None:
    buffer = ReceiveBuffer()
    for _ in range(MAX_SKIPPED // 1000):
        buffer.append(b"x" * 1000)
        assert buffer.next_line(LIMIT) is None
        assert len(buffer) <= 1


def test_octets_between_lines() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"DATA\r\nbody")
    assert buffer.next_line(LIMIT) == b"DATA"
    assert len(buffer) == 4
    assert buffer.take() == b"body"
    assert buffer.take() == b""
    buffer.append(b"more\r\n.\r\nRSET\r\n")
    data = buffer.take()
    buffer.put_back(data[-6:])
    assert buffer.has_line()
    assert buffer.next_line(LIMIT) == b"RSET"
    assert not buffer.has_line()
    assert len(buffer) == 0


def test_has_line() -> None:
    buffer = ReceiveBuffer()
    assert not buffer.has_line()
    buffer.append(b"NOOP\r")
    assert buffer.next_line(LIMIT) is None
    assert not buffer.has_line()
    buffer.append(b"\n")
    assert buffer.has_line()


def test_first_word() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"NOOP\r\nauth PLAIN xyz")
    assert buffer.next_line(LIMIT) == b"NOOP"
    assert buffer.first_word() == b"AUTH"


def test_clear() -> None:
    buffer = ReceiveBuffer()
    buffer.append(b"NOOP\r\nNO")
    buffer.next_line(LIMIT)
    buffer.clear()
    assert len(buffer) == 0
    buffer.append(b"RSET\r\n")
    assert buffer.next_line(LIMIT) == b"RSET"
