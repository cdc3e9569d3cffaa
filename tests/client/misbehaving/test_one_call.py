"""The one call that sends a message, to peers that misbehave: one attempt, one connection, and nothing in clear."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, LocalProtocolError, Refused, TimedOut, TLSFailed, UnknownOutcome
from smtpfw.testing import abort, close, octets, silence, starttls
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Call
from tests.client.misbehaving.ways import GREETING, SECRET, Certificates, Place, Way, certificates, way_of

WAYS = ["one by one", "pipelined", "in chunks"]
PLACES = [(way_of(way), place) for way in WAYS for place in way_of(way).places]
SECONDS = {"DATA": 120, "END": 600}

#: What is done, and what that is before the end of the message.
ACTIONS: list[tuple[Any, type[Exception]]] = [
    (close, ConnectionFailed),
    (abort, ConnectionFailed),
    (b"hello\r\n", BrokenPeer),
    (b"421 4.3.2 bye\r\n", Refused),
    (silence, TimedOut),
]


@pytest.mark.parametrize(("way", "place"), PLACES, ids=str)
@pytest.mark.parametrize(("action", "expected"), ACTIONS, ids=["close", "abort", "garbage", "421", "silence"])
def test_one_call_is_one_attempt(way: Way, place: Place, action: Any, expected: type[Exception]) -> None:
    if action is abort and place.ahead:
        # It overtakes the replies to what was sent ahead, so that it comes in no step.
        place = way.place("MAIL")
    call = Call(way.script(place, action, silence))
    if action is silence:
        call.advance(SECONDS.get(place.phase, 300))
    call.advance(10)
    if place.phase == "END" and expected is not Refused:
        expected = UnknownOutcome
    assert type(call.outcome) is expected, repr(call.outcome)
    assert call.outcome.phase == place.phase
    assert call.outcome.temporary
    if place.phase in ("MAIL", "RCPT", "DATA", "END"):
        (one,) = call.outcome.result.recipients
        assert isinstance(one.error, expected)
    call.end()


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "END"])
def test_a_refusal_is_followed_by_a_goodbye(phase: str) -> None:
    way = way_of("one by one")
    call = Call([*way.script(way.place(phase), b"550 5.7.1 no\r\n"), ("QUIT", b"221 bye\r\n", close)])
    assert (type(call.outcome), call.outcome.phase, call.outcome.temporary) == (Refused, phase, False)
    assert call.outcome.result.recipients[0].error is call.outcome
    call.end()


# -- TLS, by policy ---------------------------------------------------------------------------------

OFFER = ("EHLO me.test", b"250-mx.test\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250 STARTTLS\r\n")
Steps = Callable[[Certificates], list[Any]]


def started(context: str, *behind: Any) -> Steps:
    return lambda c: [OFFER, ("STARTTLS", starttls(getattr(c, context))), *behind]


#: What is before MAIL when TLS is required and credentials are given; and how that ends.
REQUIRED: list[tuple[str, type[Exception], Steps]] = [
    ("not offered", TLSFailed, lambda c: [("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"), silence]),
    ("HELO only", TLSFailed, lambda c: [("EHLO", b"502 no\r\n"), ("HELO", b"250 mx.test\r\n"), silence]),
    ("refused for now", TLSFailed, lambda c: [OFFER, ("STARTTLS", b"454 4.7.0 later\r\n", silence)]),
    ("refused", TLSFailed, lambda c: [OFFER, ("STARTTLS", b"502 5.5.1 no\r\n", silence)]),
    ("another code", TLSFailed, lambda c: [OFFER, ("STARTTLS", b"250 OK\r\n", silence)]),
    ("close", ConnectionFailed, lambda c: [OFFER, ("STARTTLS", close)]),
    ("silence", TimedOut, lambda c: [OFFER, ("STARTTLS", silence)]),
    ("behind", TLSFailed, lambda c: [OFFER, ("STARTTLS", starttls(c.good, behind=b"250-x\r\n"))]),
    ("another name", TLSFailed, started("other")),
    ("expired", TLSFailed, started("expired")),
    ("no handshake", TimedOut, lambda c: [OFFER, ("STARTTLS", b"220 go\r\n", silence)]),
    ("EHLO refused within TLS", Refused, started("good", ("EHLO", b"554 no\r\n", silence))),
    ("no AUTH within TLS", LocalProtocolError, started("good", ("EHLO", b"250 mx.test\r\n"), silence)),
    (
        "535",
        Refused,
        started("good", ("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"), ("AUTH PLAIN", b"535 5.7.8 no\r\n", silence)),
    ),
]


@pytest.mark.parametrize(("expected", "steps"), [pytest.param(*row[1:], id=row[0]) for row in REQUIRED])
def test_required_never_falls_back(expected: type[Exception], steps: Steps) -> None:
    c = certificates()
    call = Call([GREETING.reply, *steps(c)], tls="required", tls_name="mx.test", ca=c.ca, auth=("user", SECRET))
    call.advance(300)
    assert type(call.outcome) is expected, repr(call.outcome)
    assert SECRET not in str(call.outcome)
    for word in (b"AUTH", b"MAIL", b"Subject", b64encode(b"\0user\0" + SECRET.encode())):
        assert word not in call.endpoint.said_by_clients
    assert b"MAIL" not in call.peer.in_tls
    call.end()


def test_required_by_default_where_there_are_credentials_or_authorities() -> None:
    """Nobody has to ask for it, so nobody can forget to."""
    c = certificates()
    for settings in ({"auth": ("user", SECRET)}, {"ca": c.ca}, {"ca": c.ca, "auth": ("user", SECRET)}):
        call = Call(
            [GREETING.reply, ("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"), silence], tls_name="mx.test", **settings
        )
        assert isinstance(call.outcome, TLSFailed), repr(call.outcome)
        assert call.peer.in_clear == b"EHLO me.test\r\n"
        call.end()


MAIL = [*way_of("one by one").script()[2:], ("QUIT", b"221 bye\r\n", close)]
HELLO = ("EHLO", b"250 mx.test\r\n")

#: What is before MAIL when TLS is taken where it is offered, whoever it is with; and where the message goes.
OPPORTUNISTIC: list[tuple[str, str, Steps]] = [
    ("not offered", "in_clear", lambda c: [HELLO]),
    ("refused for now", "in_clear", lambda c: [OFFER, ("STARTTLS", b"454 4.7.0 later\r\n")]),
    ("refused", "in_clear", lambda c: [OFFER, ("STARTTLS", b"502 no\r\n")]),
    ("good", "in_tls", started("good", HELLO)),
    ("another name", "in_tls", started("other", HELLO)),
    ("expired", "in_tls", started("expired", HELLO)),
]


@pytest.mark.parametrize(("where", "steps"), [pytest.param(*row[1:], id=row[0]) for row in OPPORTUNISTIC])
def test_opportunistic(where: str, steps: Steps) -> None:
    call = Call([GREETING.reply, *steps(certificates()), *MAIL], tls="opportunistic", tls_name="mx.test")
    assert isinstance(call.outcome, SendResult), repr(call.outcome)
    assert b"Subject" in getattr(call.peer, where)
    assert (b"Subject" in call.endpoint.said_by_clients) is (where == "in_clear")
    call.end()


#: What is no refusal, but somebody who plays with the line, or a peer that is broken.
BREAKS: list[tuple[str, Steps]] = [
    ("another code", lambda c: [OFFER, ("STARTTLS", b"250 OK\r\n", silence)]),
    ("behind", lambda c: [OFFER, ("STARTTLS", starttls(c.good, behind=b"250 x\r\n"))]),
    ("clear words for a handshake", lambda c: [OFFER, ("STARTTLS", [b"220 go\r\n", b"250 x\r\n"], silence)]),
    ("close", lambda c: [OFFER, ("STARTTLS", b"220 go\r\n", close)]),
    ("reset", lambda c: [OFFER, ("STARTTLS", b"220 go\r\n"), (octets(1), abort)]),
    ("silence", lambda c: [OFFER, ("STARTTLS", b"220 go\r\n", silence)]),
]


@pytest.mark.parametrize("steps", [pytest.param(row[1], id=row[0]) for row in BREAKS])
def test_opportunistic_does_not_go_on_in_clear_if_tls_breaks(steps: Steps) -> None:
    call = Call([GREETING.reply, *steps(certificates())], tls="opportunistic")
    call.advance(30)
    assert isinstance(call.outcome, (TLSFailed, TimedOut)), repr(call.outcome)
    assert call.outcome.temporary
    assert b"MAIL" not in call.endpoint.said_by_clients
    call.end()


def test_none_says_nothing_of_it() -> None:
    call = Call([GREETING.reply, OFFER, *MAIL], tls="none")
    assert isinstance(call.outcome, SendResult)
    assert b"STARTTLS" not in call.peer.in_clear
    call.end()
