"""What is added to a submitted message, and what is left alone."""

from __future__ import annotations

import email.utils
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.wire.submission import missing_fields

SECONDS = 1_785_240_000
DATE = b"Date: Mon, 28 Jul 2025 10:00:00 +0000\r\n"
MESSAGE_ID = b"Message-ID: <1@example.org>\r\n"


def added(header: bytes, hostname: str = "mx.example.org") -> list[str]:
    """The names of what is added."""
    return re.findall(r"^([\w-]+):", missing_fields(header, hostname, seconds=SECONDS).decode(), re.MULTILINE)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Subject: x\r\n\r\n", ["Date", "Message-ID"]),
        (b"", ["Date", "Message-ID"]),
        (b"\r\n", ["Date", "Message-ID"]),
        (DATE + b"\r\n", ["Message-ID"]),
        (MESSAGE_ID + b"\r\n", ["Date"]),
        (b"Subject: x\r\n" + MESSAGE_ID + DATE, []),
        (b"DATE : whenever\r\nmessage-id\t:\r\n\r\n", []),
        # Of others, and within others.
        (b"Resent-Date: x\r\nX-Message-ID: y\r\n\r\n", ["Date", "Message-ID"]),
        (b"Subject: about\r\n Date: and time\r\n\r\n", ["Date", "Message-ID"]),
        (b"Dates: x\r\nMessage-IDs: y\r\n\r\n", ["Date", "Message-ID"]),
    ],
)
def test_what_is_missing(header: bytes, expected: list[str]) -> None:
    assert added(header) == expected


def test_the_fields() -> None:
    lines = missing_fields(b"", "mx.example.org", seconds=SECONDS).decode().split("\r\n")
    assert email.utils.parsedate_to_datetime(lines[0].removeprefix("Date: ")).timestamp() == SECONDS
    assert re.fullmatch(r"Message-ID: <[0-9a-f]{32}@mx\.example\.org>", lines[1])
    assert lines[2:] == [""]


def test_no_two_messages_have_the_same_name() -> None:
    assert len({missing_fields(DATE, "mx.example.org") for _ in range(100)}) == 100


@pytest.mark.parametrize("space", [b" ", b"\t"])
def test_a_message_that_begins_with_a_space_does_not_go_on_with_our_line(space: bytes) -> None:
    fields = missing_fields(space + b"forged\r\n" + DATE + MESSAGE_ID, "mx.example.org")
    assert fields.startswith(b"Date: ")
    assert fields.endswith(b"@mx.example.org>\r\n\r\n")


@given(st.lists(st.sampled_from([b"Date", b"Message-ID", b":", b" ", b"\t", b"\r\n", b"x"])).map(b"".join))
def test_they_are_whole_lines_whatever_is_there(header: bytes) -> None:
    fields = missing_fields(header, "mx.example.org")
    assert fields == b"" or fields.endswith(b"\r\n")
    assert set(added(header)) <= {"Date", "Message-ID"}
