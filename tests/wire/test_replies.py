"""Replies: to bytes and back, and what no text can do."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpfw.errors import (
    ENHANCED_CODE_NOT_SET,
    NO_ENHANCED_CODE,
    EnhancedCode,
    MailboxUnavailable,
    RemoteProtocolError,
    SMTPError,
)
from smtpfw.wire.replies import MAX_REPLY_LINE, Reply, ReplyReader

#: Both ways.
TWINS = [
    (Reply(250, "OK"), b"250 2.0.0 OK\r\n"),
    (Reply(250, "queued", (2, 6, 0)), b"250 2.6.0 queued\r\n"),
    (Reply(220, "mx.test ESMTP", NO_ENHANCED_CODE), b"220 mx.test ESMTP\r\n"),
    (Reply(250, "mx.test\nSIZE 10\nPIPELINING", NO_ENHANCED_CODE), b"250-mx.test\r\n250-SIZE 10\r\n250 PIPELINING\r\n"),
    (Reply(354, "go on"), b"354 go on\r\n"),
    (Reply(334), b"334 \r\n"),
    (Reply(550, "one\ntwo", (5, 7, 1)), b"550-5.7.1 one\r\n550 5.7.1 two\r\n"),
    (Reply(250), b"250 2.0.0\r\n"),
    (Reply(550, "\nbehind an empty line", (5, 0, 0)), b"550-5.0.0\r\n550 5.0.0 behind an empty line\r\n"),
]


@pytest.mark.parametrize(("reply", "wire"), TWINS)
def test_twins(reply: Reply, wire: bytes) -> None:
    assert reply.wire == wire
    reader = ReplyReader()
    results = [reader.feed(line) for line in wire.split(b"\r\n")[:-1]]
    assert results[:-1] == [None] * (len(results) - 1)
    assert results[-1] == reply
    assert results[-1] is not None
    assert results[-1].text == reply.text
    assert (results[-1].code, results[-1].enhanced_code) == (reply.code, reply.enhanced_code)


LINE = re.compile(rb"550([ -])5\.7\.1(?: [ -~]*)?\r\n")


@given(st.text(max_size=2000))
@example("a\r\n250 OK\r\n354 go")
@example("x" * 2000)
@example("word " * 300)
@example("\x85\u2028\u2029")
@example("\r")
def test_no_text_ends_a_reply(text: str) -> None:
    lines = Reply(550, text, (5, 7, 1)).wire.splitlines(keepends=True)
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches)
    assert [match[1] for match in matches if match] == [b"-"] * (len(lines) - 1) + [b" "]
    assert all(len(line) <= MAX_REPLY_LINE for line in lines)


@given(st.text(st.sampled_from("ab \t"), max_size=1500))
def test_wrapping_loses_no_word(text: str) -> None:
    lines = Reply(550, text.replace("\t", "\n"), (5, 7, 1)).wire.decode().splitlines()
    assert "".join(line[10:].replace(" ", "") for line in lines) == text.replace(" ", "").replace("\t", "")


def test_a_line_is_cut_at_a_space() -> None:
    text = "x" * 300 + " " + "y" * 300
    assert Reply(250, text).wire == b"250-2.0.0 " + b"x" * 300 + b"\r\n250 2.0.0 " + b"y" * 300 + b"\r\n"


def test_control_characters_are_dropped() -> None:
    assert Reply(250, "a\x00b\x1b[2Jc\x7fd\te").wire == b"250 2.0.0 ab[2Jcde\r\n"


def test_octets_over_127_are_not_sent() -> None:
    assert Reply(250, "h\xe9").wire == b"250 2.0.0 h?\r\n"


@pytest.mark.parametrize("code", [0, 99, 199, 600, 1000])
def test_codes_out_of_range(code: int) -> None:
    with pytest.raises(ValueError, match="a reply code is 200 to 599"):
        Reply(code)


def test_the_classes_of_both_codes_agree() -> None:
    with pytest.raises(ValueError, match=r"5\.1\.1 does not belong to the class of 250"):
        Reply(250, "", (5, 1, 1))


def test_default_enhanced_codes() -> None:
    assert [Reply(code, "", ENHANCED_CODE_NOT_SET).enhanced_code for code in (250, 354, 450, 550)] == [
        (2, 0, 0),
        NO_ENHANCED_CODE,
        (4, 0, 0),
        (5, 0, 0),
    ]


def test_from_error() -> None:
    assert Reply.from_error(MailboxUnavailable()).wire == b"550 5.1.1 No such mailbox here\r\n"
    assert Reply.from_error(SMTPError(450, None, "later")).wire == b"450 4.0.0 later\r\n"


def test_equality() -> None:
    assert Reply(250, "OK") == Reply(250, "OK", (2, 0, 0))
    assert len({Reply(250, "OK"), Reply(250, "OK"), Reply(250, "KO")}) == 2
    assert Reply(250, "OK") != "250 OK"
    assert repr(Reply(250, "OK")) == "Reply(250, 'OK', (2, 0, 0))"


def test_positive() -> None:
    assert [Reply(code).positive for code in (250, 354, 421, 550)] == [True, True, False, False]


@pytest.mark.parametrize(
    "lines",
    [
        [b"hello"],
        [b""],
        [b"25 OK"],
        [b"199 OK"],
        [b"600 OK"],
        [b"250_OK"],
        [b"\xb2\xb5\xb0 OK"],
        [b"250-one", b"251 two"],
        [b"250-one", b"two"],
    ],
)
def test_what_is_no_reply(lines: list[bytes]) -> None:
    reader = ReplyReader()
    for line in lines[:-1]:
        assert reader.feed(line) is None
    with pytest.raises(RemoteProtocolError):
        reader.feed(lines[-1])


def test_what_is_read_leniently() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250") == Reply(250, "", NO_ENHANCED_CODE)
    # A class that is not the reply's: text.
    reply = reader.feed(b"550 4.1.1 text")
    assert reply is not None
    assert (reply.enhanced_code, reply.text) == (NO_ENHANCED_CODE, "4.1.1 text")
    reply = reader.feed(b"250 \xff\xfe")
    assert reply is not None
    assert reply.text == "\ufffd\ufffd"


def test_an_endless_reply() -> None:
    reader = ReplyReader(max_lines=10)
    for _ in range(10):
        assert reader.feed(b"250-more") is None
    with pytest.raises(RemoteProtocolError, match="more than 10 lines"):
        reader.feed(b"250-more")


def test_one_reader_for_many_replies() -> None:
    reader = ReplyReader()
    assert reader.feed(b"250-2.0.0 a") is None
    first = reader.feed(b"250 2.0.0 b")
    assert first == Reply(250, "a\nb")
    assert reader.feed(b"550 5.1.1 c") == Reply(550, "c", EnhancedCode(5, 1, 1))
