"""
Replies that are well-formed and do not say what they should: every code at every place.

What a code is at a place is one row of a table; a refusal leaves the
connection as it was, and the next message goes through on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, TLSFailed, UnknownOutcome
from smtpfw.testing import MESSAGE, silence
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog, Played, said_before, told
from tests.client.misbehaving.ways import AUTH_WAYS, BODY, GREETING, PLACES, WAYS, Place, Way, way_of

CODES = (
    200, 211, 214, 220, 221, 235, 250, 251, 252, 299, 300, 334, 354, 399, 400, 432, 450, 451, 452, 454, 455, 499,
    500, 501, 502, 503, 504, 521, 530, 534, 535, 538, 550, 551, 552, 553, 554, 555, 599,
)  # fmt: skip
SUCCESS = range(200, 300)


class Row(NamedTuple):
    """
    :ivar right: the codes that go on.
    :ivar wrong: what any other below 400 is; the connection ends.
    :ivar ends: whether a refusal ends the connection, too.
    """

    right: Iterable[int]
    wrong: type[Exception]
    ends: bool = False


TABLE = {
    "GREETING": Row([220], BrokenPeer, ends=True),
    # Servers that do not know it are asked by HELO: that is a test of its own.
    "EHLO": Row([250, 500, 501, 502, 504, 550], BrokenPeer),
    "HELO": Row([250], BrokenPeer),
    "LHLO": Row([250], BrokenPeer),
    "STARTTLS": Row([220], TLSFailed),
    "AUTH": Row([235, 334], BrokenPeer, ends=True),
    "MAIL": Row(SUCCESS, BrokenPeer),
    "RCPT": Row(SUCCESS, BrokenPeer),
    "DATA": Row([354], BrokenPeer),
    "BODY": Row(SUCCESS, BrokenPeer),
    "END": Row(SUCCESS, UnknownOutcome),
    "NOOP": Row(SUCCESS, BrokenPeer),
    "RSET": Row(SUCCESS, BrokenPeer),
    "VRFY": Row(SUCCESS, BrokenPeer),
    "QUIT": Row(SUCCESS, BrokenPeer),
}


def wrong_codes(place: Place) -> list[int]:
    return [code for code in CODES if code < 400 and code not in TABLE[place.phase].right]


def refusals(place: Place) -> list[int]:
    return [code for code in CODES if code >= 400 and code not in TABLE[place.phase].right]


def is_temporary(place: Place, code: int) -> bool:
    # RFC 5321 section 4.5.3.1.10: 552 to RCPT is "too many for now".
    return code < 500 or (code == 552 and place.phase == "RCPT")


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
def test_wrong_codes(way: Way, place: Place) -> None:
    for code in wrong_codes(place):
        with told(code):
            dialog = Played(way, place, b"%d 2.0.0 OK\r\n" % code, silence)
            dialog.broke(TABLE[place.phase].wrong)
            dialog.end()


def answers_to_the_rest(way: Way, place: Place) -> list[Any]:
    """What was sent ahead is answered, too."""
    places = list(way.places)
    behind = places[places.index(place) + 1 :]
    group = [one for one in behind if one.ahead and one.asked == place.asked and one.phase != "END"]
    return [(one.expected, b"503 5.5.1 no\r\n") for one in group]


def to_noop(place: Place) -> list[tuple[bytes, bytes]]:
    """What is said when something else is asked for behind a refusal: without a hello that was accepted, hello."""
    hello = [(b"LHLO me.test" if place.phase == "LHLO" else b"EHLO me.test", b"250 mx.test\r\n")]
    return [*(hello if "LO" in place.phase else []), (b"NOOP", b"250 OK\r\n")]


#: Where a chunk is refused and the rest is on its way already; see test_a_chunk_is_refused_and_the_last_is_sent.
CHUNK_AHEAD = ("in several chunks, pipelined", "BODY")


@pytest.mark.parametrize(
    ("way", "place"), [pair for pair in PLACES if (str(pair[0]), str(pair[1])) != CHUNK_AHEAD], ids=str
)
def test_refusals(way: Way, place: Place) -> None:
    for code in refusals(place):
        with told(code):
            ends = TABLE[place.phase].ends
            behind = [silence] if ends else [*answers_to_the_rest(way, place), *to_noop(place)]
            reply = b"%d-no\r\n%d-\r\n%d or\r\n" % (code, code, code)
            dialog = Played(way, place, reply, asks=None if ends else place.asked + 1, behind=behind)
            error = dialog.broke(Refused, temporary=is_temporary(place, code))
            assert (error.code, error.reply.text) == (code, "no\n\nor")
            if ends:
                # It is closed in good order, so the peer has its time.
                dialog.advance(10)
                dialog.end()
            else:
                assert not isinstance(dialog.ask(dialog.client.noop()), Exception), dialog.outcomes
                assert dialog.heard == said_before(way, place) + b"".join(
                    b"%s\r\n" % said for said, _ in to_noop(place)
                )
                dialog.peer.assert_played()


#: Where, and whether the peer may have a transaction open then, which is reset before the next.
NEXT = [
    ("one by one", "MAIL", False),
    ("one by one", "RCPT", True),
    ("one by one", "DATA", True),
    ("one by one", "END", False),
    ("pipelined", "MAIL", True),
    ("pipelined", "RCPT", True),
    ("pipelined", "DATA", True),
    ("pipelined", "END", False),
    ("in chunks", "MAIL", False),
    ("in chunks", "RCPT", True),
    ("in chunks", "END", False),
    ("in several chunks", "BODY", True),
    ("in several chunks", "END", False),
    ("in several chunks, pipelined", "END", False),
    ("by LMTP", "MAIL", True),
    ("by LMTP", "RCPT", True),
    ("by LMTP", "DATA", True),
    ("by LMTP", "END", False),
    ("by LMTP, one by one", "RCPT", True),
    ("by LMTP in chunks", "END", False),
]


@pytest.mark.parametrize(("way_name", "place_name", "reset"), NEXT)
def test_the_next_message_goes_through(way_name: str, place_name: str, reset: bool) -> None:
    way = way_of(way_name)
    place = way.place(place_name)
    again = [(one.expected, one.reply) for one in way.places[2:]]
    behind = [*answers_to_the_rest(way, place), *([("RSET", b"250 OK\r\n")] if reset else []), *again]
    dialog = Played(way, place, b"550 no\r\n", behind=behind)
    dialog.error(Refused, place.phase, temporary=False)
    result = dialog.send()
    assert isinstance(result, SendResult), repr(result)
    assert BODY in dialog.peer.messages[-2:]
    dialog.peer.assert_played()


@pytest.mark.parametrize("reply", [b"550 no\r\n", b"354 go on\r\n", b"503 no\r\n"])
@pytest.mark.parametrize("way_name", ["one by one", "pipelined"])
def test_a_reset_that_is_refused(way_name: str, reply: bytes) -> None:
    """Whatever comes behind it could belong to the message before."""
    way = way_of(way_name)
    place = way.place("RCPT")
    rest = answers_to_the_rest(way, place)
    dialog = Played(way, place, b"550 no\r\n", behind=[*rest, ("RSET", reply, silence)])
    dialog.send()
    expected = BrokenPeer if reply.startswith(b"354") else Refused
    dialog.error(expected, "RSET", temporary=expected is BrokenPeer)
    dialog.advance(10)
    assert dialog.heard.count(b"Subject:") == 0
    assert dialog.link.client_transport.closed
    assert dialog.clock.getDelayedCalls() == []


def test_a_chunk_is_refused_and_the_last_is_sent() -> None:
    """Whether the last one is then a message of its own is anybody's guess, so nothing more is said."""
    way = way_of("in several chunks, pipelined")
    place = way.place("BODY")
    for code in refusals(place):
        dialog = Played(way, place, b"%d no\r\n" % code, silence)
        dialog.broke(Refused, temporary=code < 500, phase="BODY")
        dialog.end()


# -- EHLO, HELO, LHLO --------------------------------------------------------------------


@pytest.mark.parametrize("code", [500, 501, 502, 504, 550])
@pytest.mark.parametrize("second", [421, 450, 500, 502, 554])
def test_an_ehlo_that_is_refused_twice(code: int, second: int) -> None:
    hello = [("EHLO me.test", b"%d no\r\n" % code), ("HELO me.test", b"%d no\r\n" % second, silence)]
    dialog = Dialog([GREETING.reply, *hello])
    dialog.send()
    dialog.error(Refused, "HELO", temporary=second < 500)
    assert dialog.heard == b"EHLO me.test\r\nHELO me.test\r\n"


def test_an_lhlo_that_is_refused_is_not_tried_as_helo() -> None:
    for code in (500, 502, 550):
        dialog = Dialog([GREETING.reply, ("LHLO me.test", b"%d no\r\n" % code, silence)], lmtp=True)
        dialog.send()
        dialog.error(Refused, "LHLO", temporary=False)
        assert dialog.heard == b"LHLO me.test\r\n"


def test_ehlo_is_said_again_after_it_was_refused() -> None:
    """The connection is there, and the next message says hello for itself."""
    way = way_of("one by one")
    steps = way.script()
    dialog = Dialog([steps[0], ("EHLO", b"451 later\r\n"), *steps[1:]])
    dialog.send()
    dialog.error(Refused, "EHLO")
    assert isinstance(dialog.send(), SendResult)
    dialog.peer.assert_played()


# -- more replies than questions ----------------------------------------------------------

#: What was sent ahead is answered in one go: there nobody can tell an answer too many from the next.
LONE = [
    (way, place)
    for way, place in PLACES
    if place.phase not in ("END", "QUIT", "STARTTLS", "BODY")
    and not callable(place.reply)
    and not any(one.ahead for one in way.places if one.asked == place.asked)
]


@pytest.mark.parametrize(("way", "place"), LONE, ids=str)
@pytest.mark.parametrize("extra", [b"250 extra\r\n", b"250 one\r\n250 two\r\n250 three\r\n"])
def test_extra_replies_are_the_answer_to_nothing(way: Way, place: Place, extra: bytes) -> None:
    """Whoever takes them for the answer to what comes next believes that a message has arrived that nobody has read."""
    dialog = Played(way, place, place.reply + extra, silence)
    dialog.advance(3600)
    assert isinstance(dialog.client.wire.over, BrokenPeer)
    for outcome in dialog.outcomes[place.asked + 1 :]:
        error = outcome[0].error if isinstance(outcome, list) else outcome
        assert isinstance(error, Exception), repr(outcome)
    assert b"Subject:" not in dialog.heard
    dialog.end()


@pytest.mark.parametrize("way", ["one by one", "in chunks", "by LMTP"])
@pytest.mark.parametrize("apart", [False, True])
def test_extra_replies_behind_a_message_are_not_the_answer_to_the_next(way: str, apart: bool) -> None:
    place = way_of(way).place("END")
    actions = ([place.reply, b"250 extra\r\n"] if apart else place.reply + b"250 extra\r\n", silence)
    dialog = Played(way_of(way), place, *actions)
    assert isinstance(dialog.outcomes[-1], SendResult)
    assert isinstance(dialog.client.wire.over, BrokenPeer)
    dialog.end()


# -- what was sent ahead ------------------------------------------------------------------


def test_all_recipients_refused_and_354_all_the_same() -> None:
    """RFC 2920 section 3.1: then only the dot is sent, and whatever is said to it, nobody got the message."""
    steps = way_of("pipelined").script()
    for reply in (b"250 queued\r\n", b"554 no recipients\r\n"):
        dialog = Dialog([*steps[:3], ("RCPT", b"550 no\r\n"), steps[4], (MESSAGE, reply, silence)])
        dialog.send()
        dialog.error(Refused, "RCPT", temporary=False)
        assert dialog.peer.messages == [b""]
        dialog.client.close()
        dialog.link.flow()
        dialog.end()


@pytest.mark.parametrize("lmtp", [False, True])
def test_mail_refused_and_the_rest_accepted(lmtp: bool) -> None:
    """A peer that refuses the sender and waits for the message all the same: it gets none, and the connection ends."""
    way = way_of("by LMTP" if lmtp else "pipelined")
    steps = way.script()
    dialog = Dialog([*steps[:2], ("MAIL", b"550 no\r\n"), *steps[3:5], silence], lmtp=lmtp)
    dialog.send()
    dialog.error(Refused, "MAIL", temporary=False)
    assert isinstance(dialog.client.wire.over, BrokenPeer)
    assert b"Subject:" not in dialog.heard
    dialog.end()


def test_all_are_right_ways() -> None:
    """A phase without a row would not be tested."""
    phases = {place.phase for way in (*WAYS, *AUTH_WAYS) for place in way.places}
    assert phases == set(TABLE)
    assert issubclass(TLSFailed, ConnectionFailed) and not issubclass(UnknownOutcome, ConnectionFailed)
