"""
What ends a connection wherever it happens: half replies, endless ones, what is no reply, an end without one, and 421.

Each ends in one error of the right kind and phase, for whoever had asked; what
was asked behind it is not said. What must never happen is the same for all:
see :class:`~tests.client.misbehaving.dialogs.Played`.
"""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, TLSFailed, UnknownOutcome
from smtpfw.testing import abort, close, endless, silence
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog, Played, told
from tests.client.misbehaving.ways import AUTH_WAYS, BODY, PLACES, WAYS, Place, Way, way_of

#: What the peer does, and the error that is; behind the end of a message nobody knows what became of it.
ANYWHERE: list[tuple[str, type[Exception], tuple[Any, ...]]] = [
    ("close", ConnectionFailed, (close,)),
    ("reset", ConnectionFailed, (abort,)),
    ("half a code and close", ConnectionFailed, (b"25", close)),
    ("half a line and close", ConnectionFailed, (b"250 OK", close)),
    ("half a line end and close", ConnectionFailed, (b"250 OK\r", close)),
    ("half a reply and close", ConnectionFailed, (b"250-OK\r\n", close)),
    ("half a reply and reset", ConnectionFailed, (b"250-OK\r\n", abort)),
    ("endless reply", BrokenPeer, (endless(b"250-more\r\n"),)),
    ("endless reply of a refusal", BrokenPeer, (endless(b"550-no\r\n"),)),
    ("endless line", BrokenPeer, (endless(b"x"),)),
    ("endless line of a reply", BrokenPeer, (b"250 ", endless(b"x"))),
    ("endless empty lines", BrokenPeer, (endless(b"\r\n"),)),
    ("code changes", BrokenPeer, (b"250-OK\r\n251 OK\r\n", silence)),
    ("code changes class", BrokenPeer, (b"250-OK\r\n550 no\r\n", silence)),
    ("code changes to 421", BrokenPeer, (b"250-OK\r\n421 no\r\n", silence)),
    ("no reply at all", BrokenPeer, (b"hello\r\n", silence)),
    ("HTTP", BrokenPeer, (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", close)),
    ("SSH", BrokenPeer, (b"SSH-2.0-OpenSSH_9.9\r\n", silence)),
    ("TLS", BrokenPeer, (b"\x15\x03\x01\x00\x02\x02\x46\r\n", silence)),
    ("NUL", BrokenPeer, (b"\x00\r\n", silence)),
    ("8 bit", BrokenPeer, (b"\xff\xfe\xff\r\n", silence)),
    ("digits of another script", BrokenPeer, ("٢٥٠ OK\r\n".encode(), silence)),
    ("empty line", BrokenPeer, (b"\r\n", silence)),
    ("leading space", BrokenPeer, (b" 250 OK\r\n", silence)),
    ("two digits", BrokenPeer, (b"25 OK\r\n", silence)),
    ("four digits", BrokenPeer, (b"2500 OK\r\n", silence)),
    ("code below", BrokenPeer, (b"199 OK\r\n", silence)),
    ("code above", BrokenPeer, (b"600 OK\r\n", silence)),
    ("code of HTTP's kind", BrokenPeer, (b"100-continue\r\n", silence)),
    ("sign for a code", BrokenPeer, (b"+25 OK\r\n", silence)),
    ("no separator", BrokenPeer, (b"250OK\r\n", silence)),
    ("bare LF", BrokenPeer, (b"250 OK\n250 OK\r\n", silence)),
    ("bare CR", BrokenPeer, (b"250 OK\r250 OK\r\n", silence)),
]


def rows(place: Place) -> list[tuple[str, type[Exception], tuple[Any, ...]]]:
    """What is wrong there. A reset overtakes the replies to what was sent ahead, so there it comes in no step."""
    return [
        (name, UnknownOutcome if place.phase == "END" else expected, actions)
        for name, expected, actions in ANYWHERE
        if not (abort in actions and place.ahead)
    ]


@pytest.mark.parametrize("way", [*WAYS, *AUTH_WAYS], ids=str)
@pytest.mark.parametrize("chunk", [None, 1])
def test_a_peer_that_behaves(way: Way, chunk: int | None) -> None:
    """Without it, none of what follows would prove anything."""
    dialog = Dialog(way.script(), lmtp=way.lmtp, chunk=chunk, **way.settings)
    for ask in way.asks[1:]:
        assert not isinstance(dialog.ask(ask(dialog.client)), Exception), dialog.outcomes
    assert dialog.peer.messages in ([BODY], [BODY, b""], [])
    dialog.client.close()
    dialog.link.flow()
    assert dialog.clock.getDelayedCalls() == []
    dialog.peer.assert_played()


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
def test_anywhere(way: Way, place: Place) -> None:
    for name, expected, actions in rows(place):
        with told(name):
            dialog = Played(way, place, *actions)
            dialog.broke(expected)
            dialog.end()


@pytest.mark.parametrize(("way", "place"), [pair for pair in PLACES if pair[0].name != "within TLS"], ids=str)
def test_anywhere_octet_by_octet(way: Way, place: Place) -> None:
    for name, expected, actions in rows(place):
        # A reset overtakes what it comes behind.
        if abort not in actions and not name.startswith("endless"):
            with told(name):
                dialog = Played(way, place, *actions, chunk=1)
                dialog.broke(expected)
                dialog.end()


# -- 421 at any point -------------------------------------------------------------------


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
@pytest.mark.parametrize("behind", [(close,), (silence,), (b"250 OK\r\n", silence)], ids=["close", "stay", "go on"])
def test_421(way: Way, place: Place, behind: tuple[Any, ...]) -> None:
    dialog = Played(way, place, b"421-4.3.2 shutting down\r\n421 4.3.2 now\r\n", *behind)
    # Who is still there 10 seconds later is left.
    dialog.advance(10)
    error = dialog.broke(Refused, phase="BODY" if str(place) == "BODY" else "")
    assert (error.code, str(error.enhanced_code), error.reply.text) == (421, "4.3.2", "shutting down\nnow")
    dialog.end()


def test_nothing_is_said_behind_421() -> None:
    way = way_of("one by one")
    dialog = Dialog(way.script(way.place("RCPT"), b"421 4.3.2 shutting down\r\n", silence))
    dialog.send(recipients=("c@d.test", "e@d.test"))
    error = dialog.error(Refused, "RCPT")
    assert [type(one.error) for one in error.result.recipients] == [Refused, Refused]
    assert dialog.peer.in_clear.endswith(b"RCPT TO:<c@d.test>\r\n")
    dialog.end()


@pytest.mark.parametrize("way", ["one by one", "pipelined", "in chunks", "by LMTP"])
def test_421_while_nothing_is_asked(way: str) -> None:
    dialog = Dialog([*way_of(way).script(), b"421 4.4.2 idle for too long\r\n", close], lmtp=way_of(way).lmtp)
    assert isinstance(dialog.send(), SendResult)
    assert dialog.client.wire.is_over
    assert isinstance(dialog.client.wire.over, Refused)
    dialog.end()


@pytest.mark.parametrize("said", [b"250 OK\r\n", b"hello\r\n", b"354 go on\r\n", b"x" * 20_000 + b"\r\n"])
def test_what_comes_while_nothing_is_asked(said: bytes) -> None:
    """It is not kept for the next question."""
    dialog = Dialog([*way_of("one by one").script(), said, silence])
    assert isinstance(dialog.send(), SendResult)
    assert type(dialog.client.wire.over) is BrokenPeer
    dialog.end()


def test_421_that_begins_before_the_next_question() -> None:
    dialog = Dialog([*way_of("one by one").script(), b"421 4.4", ("NOOP", b".2 idle for too long\r\n", close)])
    dialog.send()
    dialog.ask(dialog.client.noop())
    dialog.error(Refused, "NOOP")
    dialog.end()


# -- what is asked at once --------------------------------------------------------------


@pytest.mark.parametrize("way", ["one by one", "pipelined"])
@pytest.mark.parametrize("action", [close, abort, b"hello\r\n", b"421 bye\r\n"])
def test_all_that_was_asked_at_once_hears_of_the_end(way: str, action: Any) -> None:
    """Every Deferred fires, whoever was asked and whoever was not."""
    dialog = Dialog(way_of(way).script(way_of(way).place("MAIL"), action, silence))
    client = dialog.client
    for deferred in (
        client.mail("a@b.test"),
        client.rcpt("c@d.test"),
        client.data(BODY),
        client.reset(),
        client.noop(),
        client.verify("user"),
        client.command("HELP"),
        client.quit(),
    ):
        dialog.ask(deferred)
    assert all(type(one) in (ConnectionFailed, BrokenPeer, Refused) for one in dialog.outcomes[1:]), dialog.outcomes
    assert dialog.outcomes[1].phase == "MAIL"
    assert b"Subject" not in dialog.peer.in_clear
    dialog.end()


@pytest.mark.parametrize("action", [close, b"554 go away\r\n", b"hello\r\n"])
def test_nobody_has_to_listen_to_the_greeting(action: Any) -> None:
    """What went wrong is told to whoever has asked for something; it does not stand in the log besides."""
    dialog = Dialog([action, silence], listen=False)
    assert isinstance(dialog.ask(dialog.client.noop()), ConnectionFailed)
    dialog.end()


def test_refused_tls_is_no_reply() -> None:
    """STARTTLS has an error of its own for what is neither 220 nor a refusal."""
    way = way_of("within TLS")
    for reply in (b"250 OK\r\n", b"354 go on\r\n", b"334 \r\n", b"235 OK\r\n"):
        dialog = Played(way, way.place("STARTTLS"), reply, silence)
        dialog.broke(TLSFailed)
        dialog.end()
