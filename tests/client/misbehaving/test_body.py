"""
What a peer does while a message is being sent to it: half of one is never ended, so it can't become a whole one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, TimedOut
from smtpfw.testing import abort, close, endless, octets, silence
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog, check_result, told
from tests.client.misbehaving.test_anywhere import ANYWHERE
from tests.client.misbehaving.ways import BODY, CONFIG, Way, way_of

#: More than is written at once, and more than a transport takes.
BIG = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 12_000

#: What the peer does, the error, and whether that is temporary.
ROWS: list[tuple[str, type[Exception], bool, tuple[Any, ...]]] = [
    *((name, expected, True, actions) for name, expected, actions in ANYWHERE),
    ("421", Refused, True, (b"421 4.3.2 shutting down\r\n", silence)),
    ("421 and close", Refused, True, (b"421 4.3.2 shutting down\r\n", close)),
    ("354 again", BrokenPeer, True, (b"354 go on\r\n", silence)),
    ("334", BrokenPeer, True, (b"334 \r\n", silence)),
]
#: What answers a chunk, and nothing within DATA.
DATA_ROWS: list[tuple[str, type[Exception], bool, tuple[Any, ...]]] = [
    ("452", Refused, True, (b"452 4.3.1 full\r\n", silence)),
    ("552", Refused, False, (b"552 5.3.4 too large\r\n", silence)),
    ("554 and close", Refused, False, (b"554 5.6.0 no\r\n", close)),
    ("250 too early", BrokenPeer, True, (b"250 queued\r\n", silence)),
    ("250 twice", BrokenPeer, True, (b"250 queued\r\n250 queued\r\n", silence)),
]

BY_DATA = ["one by one", "pipelined", "by LMTP"]
IN_CHUNKS = ["in chunks", "by LMTP in chunks"]

#: Four of them may wait for their replies.
CHUNKS = replace(CONFIG, chunk_bytes=32 * 1024)


def stop_reading(connection: Any) -> None:
    connection.transport.pauseProducing()


def go_on_reading(dialog: Dialog) -> None:
    dialog.peer.connections[0].transport.resumeProducing()
    dialog.link.flow()


def in_the_middle(way: Way, *actions: Any, body: Any = BIG) -> Dialog:
    """A peer that has taken a little of a message, and then reads no more: so the client has not said all of it."""
    steps = way.script()[:-1]
    dialog = Dialog([*steps, (octets(1000), stop_reading, *actions)], lmtp=way.lmtp, config=CHUNKS)
    dialog.send(body)
    return dialog


def check_half(dialog: Dialog) -> None:
    """What was heard of it is its beginning, and no end."""
    go_on_reading(dialog)
    heard = dialog.peer.in_clear
    assert heard.count(b"Subject:") == 1
    before, _, rest = heard.partition(b"Subject:")
    assert before.count(b"BDAT") <= 1 and b"LAST" not in heard
    assert b"\r\n.\r\n" not in heard
    assert re.sub(rb"BDAT \d+\r\n", b"", b"Subject:" + rest) in BIG


@pytest.mark.parametrize(
    ("way", "expected", "temporary", "actions"),
    [
        pytest.param(way_of(way), *row[1:], id=f"{way}-{row[0]}")
        for way in (*BY_DATA, *IN_CHUNKS)
        for row in (*ROWS, *(DATA_ROWS if way in BY_DATA else ()))
    ],
)
def test_in_the_middle_of_a_message(
    way: Way, expected: type[Exception], temporary: bool, actions: tuple[Any, ...]
) -> None:
    dialog = in_the_middle(way, *actions)
    check_result(dialog.error(expected, "BODY", temporary=temporary))
    # It is closed in good order behind a refusal; who does not read it is left.
    dialog.advance(10)
    check_half(dialog)
    dialog.end()


@pytest.mark.parametrize("way", [*BY_DATA, *IN_CHUNKS])
def test_a_peer_that_reads_no_more(way: str) -> None:
    dialog = in_the_middle(way_of(way), silence)
    dialog.advance(179)
    assert dialog.outcomes[-1] is None
    dialog.advance(1)
    dialog.error(TimedOut, "BODY")
    check_half(dialog)
    dialog.end()


@pytest.mark.parametrize("way", BY_DATA)
def test_a_peer_that_reads_a_little_at_times(way: str) -> None:
    """It is slow, and takes what it gets: each piece has its time."""
    steps = way_of(way).script()[:-1]
    dialog = Dialog([*steps, *[(octets(140_000), stop_reading)] * 9, silence], lmtp=way_of(way).lmtp)
    dialog.send(BIG)
    for _ in range(3):
        taken = len(dialog.heard)
        dialog.advance(179)
        go_on_reading(dialog)
        assert dialog.outcomes[-1] is None
        assert len(dialog.heard) > taken
    dialog.advance(180)
    dialog.error(TimedOut, "BODY")


# -- what is said before the message ---------------------------------------------------------


@pytest.mark.parametrize("way", ["one by one", "pipelined", "by LMTP"])
@pytest.mark.parametrize("body", [BODY, BIG], ids=["small", "big"])
def test_a_message_that_is_answered_before_it_was_sent(way: str, body: bytes) -> None:
    """354 and 250 in one segment: the second can't be the answer to what nobody has read."""
    place = way_of(way).place("DATA")
    script = way_of(way).script(place, b"354 go on\r\n250 queued\r\n", silence)
    dialog = Dialog(script, lmtp=way_of(way).lmtp)
    dialog.send(body)
    # A lone reply has nothing behind it; in a group it could be the next.
    error = dialog.outcomes[-1]
    assert (type(error), error.phase) == (BrokenPeer, "BODY"), repr(error)
    assert b"Subject" not in dialog.heard
    dialog.end()


# -- chunks ------------------------------------------------------------------------------------

#: Between two chunks; what a chunk is answered by otherwise: see test_codes.
BETWEEN: list[tuple[str, type[Exception], tuple[Any, ...]]] = [
    *ANYWHERE,
    ("354", BrokenPeer, (b"354 go on\r\n", silence)),
    ("421", Refused, (b"421 4.3.2 shutting down\r\n", silence)),
]
FIRST = re.compile(rb"BDAT \d+$")


def chunk_script(*keywords: bytes) -> list[Any]:
    steps = way_of("in chunks").script()[:-1]
    steps[1] = (steps[1][0], b"".join(b"250-%s\r\n" % word for word in (b"mx.test", *keywords)) + b"250 CHUNKING\r\n")
    return steps


@pytest.mark.parametrize("lmtp", [False, True])
def test_between_chunks(lmtp: bool) -> None:
    config = replace(CONFIG, pipelining=False)
    for name, expected, actions in BETWEEN:
        with told(name):
            steps = chunk_script()
            if lmtp:
                steps[1] = ("LHLO", steps[1][1])
            dialog = Dialog([*steps, (FIRST, *actions)], lmtp=lmtp, config=config)
            dialog.send(BIG)
            check_result(dialog.error(expected, "BODY"))
            dialog.advance(10)
            assert b"LAST" not in dialog.heard and dialog.heard.count(b"BDAT") == 1
            dialog.end()


@pytest.mark.parametrize("code", [450, 552])
@pytest.mark.parametrize("apart", [False, True])
def test_a_chunk_is_refused(code: int, apart: bool) -> None:
    """Nothing more of the message is said; what was sent ahead gets its replies, and RSET comes before the next."""
    no = b"%d 5.0.0 no\r\n" % code
    replies = [b"250 OK\r\n", no, no, no]
    # The first reply made room for a fifth.
    taken = [(FIRST,), (FIRST,), (FIRST,), (FIRST, replies if apart else b"".join(replies)), (FIRST, no)]
    again = [("RSET", b"250 OK\r\n"), *way_of("in chunks").script()[2:]]
    dialog = Dialog([*chunk_script(b"PIPELINING"), *taken, *again], config=CHUNKS)
    error = dialog.send(BIG)
    assert (type(error), error.phase, error.code) == (Refused, "BODY", code), repr(error)
    check_result(error)
    assert b"LAST" not in dialog.heard
    assert isinstance(dialog.send(), SendResult)
    dialog.peer.assert_played()
    assert dialog.peer.messages[-1] == BODY


# -- the source --------------------------------------------------------------------------------------


async def slow(more: Deferred[bytes]) -> AsyncIterator[bytes]:
    yield BODY[:14]
    yield await more


async def broken(more: Deferred[bytes]) -> AsyncIterator[bytes]:
    yield BODY[:14]
    raise ZeroDivisionError


async def broken_at_once(more: Deferred[bytes]) -> AsyncIterator[bytes]:
    raise ZeroDivisionError
    yield b""


async def broken_later(more: Deferred[bytes]) -> AsyncIterator[bytes]:
    yield BODY[:14]
    await more
    raise ZeroDivisionError


@pytest.mark.parametrize("way", [*BY_DATA, *IN_CHUNKS])
def test_a_source_that_gives_nothing_is_not_the_peers_fault(way: str) -> None:
    more: Deferred[bytes] = Deferred()
    dialog = Dialog(way_of(way).script(), lmtp=way_of(way).lmtp)
    dialog.send(slow(more))
    for _ in range(24):
        dialog.advance(3600)
    assert dialog.outcomes[-1] is None
    more.callback(BODY[14:])
    dialog.link.flow()
    assert isinstance(dialog.outcomes[-1], SendResult)
    assert dialog.peer.messages == [BODY]


@pytest.mark.parametrize("way", BY_DATA)
@pytest.mark.parametrize("source", [broken, broken_at_once, broken_later])
def test_a_source_that_breaks_off_sends_no_end(way: str, source: Callable[[Deferred[bytes]], Any]) -> None:
    more: Deferred[bytes] = Deferred()
    dialog = Dialog([*way_of(way).script()[:-1], silence], lmtp=way_of(way).lmtp)
    dialog.send(source(more))
    if source is broken_later:
        dialog.advance(3600)
        assert dialog.outcomes[-1] is None
        more.callback(b"")
        dialog.link.flow()
    assert type(dialog.outcomes[-1]) is ZeroDivisionError
    assert b"\r\n.\r\n" not in dialog.heard
    dialog.end()


@pytest.mark.parametrize("way", IN_CHUNKS)
@pytest.mark.parametrize("source", [broken, broken_at_once])
def test_a_source_that_breaks_off_before_a_chunk_costs_no_connection(
    way: str, source: Callable[[Deferred[bytes]], Any]
) -> None:
    script = way_of(way).script()
    dialog = Dialog([*script[:-1], ("RSET", b"250 OK\r\n"), *script[2:]], lmtp=way_of(way).lmtp)
    dialog.send(source(Deferred()))
    assert type(dialog.outcomes[-1]) is ZeroDivisionError
    assert b"BDAT" not in dialog.heard
    assert isinstance(dialog.send(), SendResult)
    assert dialog.peer.messages == [BODY]
    dialog.peer.assert_played()


@pytest.mark.parametrize("action", [close, abort, b"421 bye\r\n", b"hello\r\n", endless(b"x")])
@pytest.mark.parametrize("way", [*BY_DATA, *IN_CHUNKS])
def test_a_source_is_closed_when_nobody_wants_it(way: str, action: Any) -> None:
    """Whatever it has open, it hears that it is over."""
    told_so: list[str] = []

    async def source() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"y" * 4000 + b"\r\n"
        finally:
            told_so.append("closed")

    dialog = in_the_middle(way_of(way), action, silence, body=source())
    error = dialog.outcomes[-1]
    assert isinstance(error, (ConnectionFailed, Refused)) and error.phase == "BODY"
    assert told_so == ["closed"]
    dialog.advance(10)
    dialog.end()
