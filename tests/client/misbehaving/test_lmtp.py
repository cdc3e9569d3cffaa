"""LMTP: each recipient has an answer of its own, and they may stop coming at any of them (RFC 2033 section 4.2)."""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, UnknownOutcome
from smtpfw.testing import abort, close, endless, silence
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog
from tests.client.misbehaving.ways import BODY, way_of

RECIPIENTS = ("c@d.test", "e@d.test", "f@d.test")
NO = b"550 5.2.2 full\r\n"

#: What is said behind the message to three recipients, and what each of them gets.
ROWS: list[tuple[str, tuple[Any, ...], list[Any]]] = [
    ("close before all are answered", (b"250 a\r\n", close), [None, UnknownOutcome, UnknownOutcome]),
    ("silence behind the first", (b"250 a\r\n", silence), [None, UnknownOutcome, UnknownOutcome]),
    ("half a reply", (b"250 a\r\n550 5.1", close), [None, UnknownOutcome, UnknownOutcome]),
    ("half a line end", (b"250 a\r\n550 no\r", close), [None, UnknownOutcome, UnknownOutcome]),
    ("421 for the second", (b"250 a\r\n421 bye\r\n", close), [None, Refused, UnknownOutcome]),
    ("354 for the second", (b"250 a\r\n354 go on\r\n", silence), [None, UnknownOutcome, UnknownOutcome]),
    ("garbage for the second", (b"250 a\r\nhello\r\n", silence), [None, UnknownOutcome, UnknownOutcome]),
    ("one refused, close", (b"250 a\r\n" + NO, close), [None, Refused, UnknownOutcome]),
    ("refused, taken, close", (NO + b"250 b\r\n", close), [Refused, None, UnknownOutcome]),
    ("taken last", (NO + NO + b"250 c\r\n", silence), [Refused, Refused, None]),
    ("one too many", (b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n", silence), [None, None, Refused]),
    ("many too many", (b"250 a\r\n250 b\r\n550 c\r\n" + b"250 d\r\n" * 100, silence), [None, None, Refused]),
    ("endless reply for the second", (b"250 a\r\n", endless(b"250-x\r\n")), [None, UnknownOutcome, UnknownOutcome]),
    ("silence behind the second", (b"250 a\r\n" + NO, silence), [None, Refused, UnknownOutcome]),
]


def to_three(*actions: Any, chunks: bool = False) -> Dialog:
    steps = way_of("by LMTP in chunks" if chunks else "by LMTP").script()
    rcpts = [(f"RCPT TO:<{address}>", b"250 OK\r\n") for address in RECIPIENTS]
    dialog = Dialog([*steps[:3], *rcpts, *steps[4:-1], (steps[-1][0], *actions)], lmtp=True)
    dialog.send(recipients=RECIPIENTS)
    dialog.advance(600)
    return dialog


@pytest.mark.parametrize("chunks", [False, True], ids=["data", "chunks"])
@pytest.mark.parametrize(("actions", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_replies(actions: tuple[Any, ...], expected: list[Any], chunks: bool) -> None:
    """Whoever was answered has that answer, whatever comes behind it."""
    dialog = to_three(*actions, chunks=chunks)
    result = dialog.outcomes[-1]
    assert isinstance(result, SendResult), repr(result)
    assert [str(one.recipient) for one in result.recipients] == list(RECIPIENTS)
    assert [one.error and type(one.error) for one in result.recipients] == expected
    assert [one.accepted for one in result.recipients] == [error is None for error in expected]
    for one in result.refused:
        assert isinstance(one.error, (Refused, UnknownOutcome)) and one.error.phase == "END"
    assert dialog.peer.messages == [BODY]
    if not dialog.client.wire.is_over:
        dialog.client.close()
        dialog.link.flow()
    dialog.end()


#: Nobody was taken: then that is an error, and the mildest one.
NOBODY: list[tuple[str, tuple[Any, ...], type[Exception], bool]] = [
    ("close", (close,), UnknownOutcome, True),
    ("reset", (abort,), UnknownOutcome, True),
    ("silence", (silence,), UnknownOutcome, True),
    ("one refused, close", (NO, close), UnknownOutcome, True),
    ("all refused", (NO * 3, silence), Refused, False),
    ("one for now", (NO + b"450 later\r\n" + NO, silence), Refused, True),
    ("421 at once", (b"421 bye\r\n", close), UnknownOutcome, True),
]


@pytest.mark.parametrize("chunks", [False, True], ids=["data", "chunks"])
@pytest.mark.parametrize(("actions", "expected", "temporary"), [pytest.param(*row[1:], id=row[0]) for row in NOBODY])
def test_nobody(actions: tuple[Any, ...], expected: type[Exception], temporary: bool, chunks: bool) -> None:
    dialog = to_three(*actions, chunks=chunks)
    error = dialog.error(expected, "END", temporary=temporary)
    assert [str(one.recipient) for one in error.result.recipients] == list(RECIPIENTS)
    assert not error.result.accepted
    assert all(one.error.phase == "END" for one in error.result.recipients)


def test_too_many_replies_end_the_connection() -> None:
    """The next message would get the one too many for its own."""
    for apart in (False, True):
        pieces = [b"250 a\r\n", b"250 b\r\n", b"250 c\r\n", b"250 d\r\n"]
        dialog = to_three(pieces if apart else b"".join(pieces), silence)
        assert len(dialog.outcomes[-1].accepted) == 3
        assert isinstance(dialog.client.wire.over, BrokenPeer)
        dialog.end()


@pytest.mark.parametrize("action", [close, abort, b"hello\r\n", b"421 bye\r\n"])
def test_a_step_by_step_message_that_is_never_begun(action: Any) -> None:
    """It has no recipients yet, and an empty list of results would look as if all had gone well."""
    way = way_of("step by step by LMTP")
    dialog = Dialog(way.script(way.place("MAIL"), action, silence), lmtp=True)
    for ask in way.asks[1:]:
        dialog.ask(ask(dialog.client))
    error = dialog.outcomes[-1]
    assert isinstance(error, ConnectionFailed), repr(error)
    assert isinstance(dialog.ask(dialog.client.lmtp_data(BODY)), ConnectionFailed)
    dialog.advance(10)
    dialog.end()


def test_a_callback_hears_of_each() -> None:
    way = way_of("step by step by LMTP")
    for actions, expected in (
        ((b"250 OK\r\n", silence), [None]),
        ((NO, silence), [Refused]),
        ((close,), [UnknownOutcome]),
    ):
        heard: list[Any] = []
        dialog = Dialog(way.script(way.place("END"), *actions), lmtp=True)
        for ask in way.asks[1:-1]:
            dialog.ask(ask(dialog.client))
        results = dialog.ask(dialog.client.lmtp_data(BODY, heard.append))
        assert heard == results
        assert [one.error and type(one.error) for one in results] == expected
