"""QUIT: however it is answered, the connection is over, and a message that was delivered stays delivered."""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, TimedOut
from smtpfw.testing import abort, close, endless, silence
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Call, Dialog
from tests.client.misbehaving.ways import CONFIG, way_of

#: What the peer does, and what becomes of QUIT.
ROWS: list[tuple[str, type[Any], tuple[Any, ...]]] = [
    ("close", ConnectionFailed, (close,)),
    ("reset", ConnectionFailed, (abort,)),
    ("half a reply", ConnectionFailed, (b"221-by", close)),
    ("221 and close", Reply, (b"221 bye\r\n", close)),
    ("221 and reset", Reply, ([b"221 bye\r\n"], silence)),
    ("221 and no close", Reply, (b"221 bye\r\n", silence)),
    ("221 and more", Reply, (b"221 bye\r\n221 bye\r\n", silence)),
    ("250", Reply, (b"250 OK\r\n", silence)),
    ("354", BrokenPeer, (b"354 go on\r\n", silence)),
    ("421", Refused, (b"421 bye\r\n", silence)),
    ("garbage", BrokenPeer, (b"hello\r\n", silence)),
    ("endless reply", BrokenPeer, (endless(b"221-bye\r\n"),)),
    ("silence", TimedOut, (silence,)),
]


@pytest.mark.parametrize(("expected", "actions"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
@pytest.mark.parametrize("way", ["one by one", "pipelined", "in chunks", "by LMTP"])
def test_quit(way: str, expected: type[Any], actions: tuple[Any, ...]) -> None:
    dialog = Dialog([*way_of(way).script(), ("QUIT", *actions)], lmtp=way_of(way).lmtp)
    assert isinstance(dialog.send(), SendResult)
    dialog.ask(dialog.client.quit())
    dialog.advance(CONFIG.quit_timeout)
    # The close waits for the peer's, and not for ever.
    dialog.advance(10)
    if expected is Reply:
        assert isinstance(dialog.outcomes[-1], Reply)
    else:
        dialog.error(expected, "QUIT")
    assert dialog.heard.endswith(b"QUIT\r\n") and dialog.heard.count(b"QUIT") == 1
    dialog.end()


@pytest.mark.parametrize("reply", [b"450 no\r\n", b"500 what?\r\n", b"554 no\r\n"])
def test_a_quit_that_is_refused(reply: bytes) -> None:
    """The connection is there, and whoever asked decides."""
    dialog = Dialog([*way_of("one by one").script(), ("QUIT", reply), ("NOOP", b"250 OK\r\n")])
    dialog.send()
    dialog.ask(dialog.client.quit())
    dialog.error(Refused, "QUIT", temporary=reply.startswith(b"4"))
    assert isinstance(dialog.ask(dialog.client.noop()), Reply)
    dialog.client.close()
    dialog.link.flow()
    assert dialog.clock.getDelayedCalls() == []


def test_what_is_asked_behind_quit_is_not_said() -> None:
    for way in ("one by one", "pipelined"):
        dialog = Dialog([*way_of(way).script()[:2], ("QUIT", b"221 bye\r\n", close)])
        dialog.client.hello()
        quitting, asked = dialog.client.quit(), dialog.client.noop()
        assert isinstance(dialog.ask(quitting), Reply)
        assert isinstance(dialog.ask(asked), ConnectionFailed)
        assert b"NOOP" not in dialog.heard
        dialog.end()


@pytest.mark.parametrize("actions", [pytest.param(row[2], id=row[0]) for row in ROWS])
def test_a_bad_goodbye_changes_nothing(actions: tuple[Any, ...]) -> None:
    """Whoever sends a message by one call has its result, and no connection is left behind it."""
    call = Call([*way_of("pipelined").script(), ("QUIT", *actions)])
    call.advance(CONFIG.quit_timeout)
    call.advance(10)
    assert isinstance(call.outcome, SendResult), repr(call.outcome)
    call.end()


@pytest.mark.parametrize("reply", [b"500 what?\r\n", b"450 no\r\n"])
def test_a_goodbye_that_is_refused_ends_the_one_call(reply: bytes) -> None:
    call = Call([*way_of("pipelined").script(), ("QUIT", reply, silence)])
    assert isinstance(call.outcome, SendResult), repr(call.outcome)
    call.end()
