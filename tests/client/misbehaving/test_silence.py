"""Peers that say nothing, or too slowly: each phase has its time limit (RFC 5321 section 4.5.3.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from smtpfw.errors import TimedOut, UnknownOutcome
from smtpfw.testing import silence
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog, Played, told
from tests.client.misbehaving.ways import CONFIG, PLACES, Place, Way, way_of

#: RFC 5321 section 4.5.3.2; for all others it is 5 minutes.
SECONDS = {"DATA": 120, "BODY": 180, "END": 600, "QUIT": 10}


def seconds(place: Place) -> int:
    return SECONDS.get(place.phase, 300)


def expected(place: Place) -> type[Exception]:
    return UnknownOutcome if place.phase == "END" else TimedOut


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
@pytest.mark.parametrize("said", [b"", b"2", b"250-OK\r\n"])
def test_silence(way: Way, place: Place, said: bytes) -> None:
    dialog = Played(way, place, said, silence, asks=place.asked + 1)
    dialog.advance(seconds(place) - 1)
    assert dialog.outcomes[place.asked] is None
    assert not dialog.link.client_transport.closed
    dialog.advance(1)
    dialog.broke(expected(place))
    # Who says nothing may not read either: nothing is left to be sent to it.
    assert dialog.link.client_transport.aborted
    dialog.end()


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
def test_a_reply_in_drops(way: Way, place: Place) -> None:
    """An octet now and then is no answer, and neither is a line of one."""
    for pieces in ([bytes([octet]) for octet in b"250-" + b"x" * 6], [b"250-OK\r\n"] * 10):
        with told(pieces):
            dialog = Played(way, place, silence, asks=place.asked + 1)
            for piece in pieces:
                dialog.advance(seconds(place) - 1)
                dialog.peer.connections[0].transport.write(piece)
                dialog.link.flow()
            dialog.broke(expected(place))
            dialog.end()


def test_silence_while_nothing_is_asked_is_none() -> None:
    dialog = Dialog(way_of("pipelined").script())
    dialog.send()
    dialog.advance(24 * 3600)
    assert not dialog.client.wire.is_over
    assert dialog.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seconds_between", [0, 1, 119, 299])
def test_a_slow_peer_is_none_that_is_silent(seconds_between: int) -> None:
    """Each step has the whole of its time."""
    waits = {"DATA": min(seconds_between, 119)}
    way = way_of("one by one")

    def late(place: Place) -> Any:
        # Octets come from the test; the peer's script waits for the next.
        return (place.expected, b"") if place.expected is not None else b""

    dialog = Dialog([late(place) for place in way.places])
    dialog.ask(dialog.client.send_mail("a@b.test", ["c@d.test"], b"Subject: x\r\n\r\nhello\r\n"))
    for place in way.places:
        dialog.advance(waits.get(place.phase, seconds_between))
        dialog.peer.connections[0].transport.write(place.reply)
        dialog.link.flow()
    assert isinstance(dialog.outcomes[-1], SendResult), dialog.outcomes
    dialog.peer.assert_played()


@pytest.mark.parametrize(
    ("phase", "setting"),
    [
        ("GREETING", "greeting_timeout"),
        ("EHLO", "command_timeout"),
        ("MAIL", "command_timeout"),
        ("RCPT", "command_timeout"),
        ("DATA", "data_timeout"),
        ("END", "end_timeout"),
    ],
)
@pytest.mark.parametrize("limit", [0.5, 7.0, 5000.0])
def test_limits_are_settings(phase: str, setting: str, limit: float) -> None:
    way = way_of("one by one")
    config = replace(CONFIG, **{setting: limit})  # type: ignore[arg-type]
    dialog = Dialog(way.script(way.place(phase), silence), config=config)
    dialog.send()
    dialog.advance(limit - 0.25)
    assert None in dialog.outcomes
    dialog.advance(0.25)
    assert f"{limit:g} seconds" in str(dialog.outcomes[-1 if phase != "GREETING" else 0])
    dialog.end()


def test_no_limit() -> None:
    """0 stands for it."""
    limits = (
        "greeting_timeout", "command_timeout", "data_timeout", "block_timeout", "end_timeout", "quit_timeout",
        "tls_handshake_timeout",
    )  # fmt: skip
    config = ClientConfig(hello_name="me.test", **dict.fromkeys(limits, 0.0))  # type: ignore[arg-type]
    for place in way_of("one by one").places:
        dialog = Dialog(way_of("one by one").script(place, silence), config=config)
        dialog.send()
        dialog.advance(365 * 24 * 3600)
        assert dialog.outcomes[-1] is None
        assert dialog.clock.getDelayedCalls() == []
        dialog.client.close()
        dialog.link.flow()
        dialog.end()
