"""
AUTH: what a peer does in the middle of an exchange, beside what is wrong at any place.

Whoever could not log in sends nothing, secrets cross no line that they should
not, and a peer that asks on after the end is not answered (RFC 4954 section 4).
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ClientError, LocalProtocolError, Refused, TimedOut
from smtpfw.sasl import SCRAM, CramMD5, Login, Plain
from smtpfw.testing import endless, silence
from smtpfw.wire.replies import Reply
from tests.client.misbehaving.dialogs import Dialog, told
from tests.client.misbehaving.ways import AUTH_WAYS, BODY, GREETING, SECRET, SCRAMPeer, Way, challenge, way_of

STAR = re.compile(rb"\*$")
GIVEN_UP = b"501 5.7.0 cancelled\r\n"
DONE = b"235 2.7.0 welcome\r\n"

Row = tuple[str, type[ClientError], bool, list[Any]]

#: What the peer says for the last challenge of each mechanism; the error, and whether it is temporary.
AT_THE_CHALLENGE: list[Row] = [
    ("not base64", BrokenPeer, True, [b"334 !!!\r\n", (STAR, GIVEN_UP, silence)]),
    ("half of base64", BrokenPeer, True, [b"334 abc\r\n", (STAR, GIVEN_UP, silence)]),
    ("8 bit", BrokenPeer, True, [b"334 \xff\xff\xff\xff\r\n", (STAR, GIVEN_UP, silence)]),
    ("text", BrokenPeer, True, [b"334 please go on\r\n", (STAR, GIVEN_UP, silence)]),
    ("the star is ignored", TimedOut, True, [b"334 !!!\r\n", (STAR, silence)]),
    ("the star is accepted", BrokenPeer, True, [b"334 !!!\r\n", (STAR, DONE, silence)]),
    ("the star is a challenge's answer", BrokenPeer, True, [b"334 !!!\r\n", (STAR, challenge(b"again"), silence)]),
    ("the star is answered by 250", BrokenPeer, True, [b"334 !!!\r\n", (STAR, b"250 OK\r\n", silence)]),
    ("421 to the star", BrokenPeer, True, [b"334 !!!\r\n", (STAR, b"421 bye\r\n", silence)]),
    ("several lines", BrokenPeer, True, [b"334-YWJj\r\n334 YWJj\r\n", (STAR, GIVEN_UP, silence)]),
]

#: Where the challenges of a mechanism begin to be read, and how much of the way is before it.
CHALLENGED = [(way, len(way.places) - 4 - 1) for way in AUTH_WAYS if way.name != "PLAIN"]


def log_in(way: Way, script: list[Any]) -> Dialog:
    dialog = Dialog(script, **way.settings)
    for ask in way.asks[1:]:
        dialog.ask(ask(dialog.client))
    return dialog


def check_no_mail(dialog: Dialog) -> None:
    assert b"MAIL" not in dialog.heard
    assert isinstance(dialog.outcomes[-1], ClientError)
    # A star is an answer to a challenge; anywhere else it would be a command.
    assert dialog.heard.count(b"\r\n*\r\n") <= 1
    assert SECRET not in "".join(map(repr, dialog.outcomes))
    assert SECRET not in "".join(map(str, dialog.outcomes))


@pytest.mark.parametrize(("way", "before"), CHALLENGED, ids=[str(way) for way, _ in CHALLENGED])
def test_challenges(way: Way, before: int) -> None:
    """The peer's last challenge in each mechanism is replaced by something that is none."""
    for name, expected, temporary, (said, *rest) in AT_THE_CHALLENGE:
        with told(name):
            places = way.places[:before]
            steps = [(one.expected, one.reply) for one in places[:-1]]
            dialog = log_in(way, [*steps, (places[-1].expected, said), *rest])
            dialog.advance(300)
            dialog.error(expected, "AUTH", temporary=temporary, index=2)
            check_no_mail(dialog)
            dialog.end()


CRAM = ("AUTH CRAM-MD5", challenge(b"<1.2@mx.test>"))
NAME = ("AUTH LOGIN", challenge(b"User Name\0"))
PASSWORD = ("dXNlcg==", challenge(b"Password\0"))
FIRST = ("AUTH SCRAM-SHA-256", challenge(SCRAMPeer.first))
PLAIN = "AUTH PLAIN AHVzZXIAb3BlbiBzZXNhbWU="


def first(octets: bytes) -> list[Any]:
    """A first message of SCRAM that is none: the client gives up before it has proved anything."""
    return [("AUTH SCRAM-SHA-256", challenge(octets)), (STAR, GIVEN_UP, silence)]


def final(octets: bytes) -> list[Any]:
    """A last message of SCRAM by which the peer proves nothing."""
    return [FIRST, ("Yz1iaXdz", challenge(octets)), (STAR, GIVEN_UP, silence)]


SALT = b",s=c2FsdA==,i=4096"
NONCE = SCRAMPeer.first.partition(b",")[0]

#: What is wrong in one mechanism only.
MECHANISMS: list[tuple[str, str, type[ClientError], bool, list[Any]]] = [
    ("PLAIN", "asked for more", BrokenPeer, True, [(PLAIN, challenge(b"more")), (STAR, GIVEN_UP, silence)]),
    ("PLAIN", "accepted twice", BrokenPeer, True, [(PLAIN, DONE + DONE, silence)]),
    ("LOGIN", "accepted at once", BrokenPeer, True, [("AUTH LOGIN", DONE, silence)]),
    ("LOGIN", "accepted without a password", BrokenPeer, True, [NAME, ("dXNlcg==", DONE, silence)]),
    (
        "LOGIN",
        "asked a third time",
        BrokenPeer,
        True,
        [NAME, PASSWORD, ("b3BlbiBzZXNhbWU=", challenge(b"Password\0")), (STAR, GIVEN_UP, silence)],
    ),
    ("LOGIN", "refused between", Refused, False, [NAME, ("dXNlcg==", b"535 5.7.8 who?\r\n", silence)]),
    ("CRAM-MD5", "accepted without an answer", BrokenPeer, True, [("AUTH", DONE, silence)]),
    ("CRAM-MD5", "asked again", BrokenPeer, True, [CRAM, ("dXNlciA", CRAM[1]), (STAR, GIVEN_UP, silence)]),
    ("CRAM-MD5", "challenges without end", BrokenPeer, True, [CRAM, *[("", CRAM[1])] * 2, silence]),
    ("CRAM-MD5", "endless challenge", BrokenPeer, True, [("AUTH", b"334 ", endless(b"x"))]),
    ("SCRAM-SHA-256", "accepted at once", BrokenPeer, True, [("AUTH", DONE, silence)]),
    ("SCRAM-SHA-256", "accepted without its proof", BrokenPeer, True, [FIRST, ("Yz1iaXdz", DONE, silence)]),
    ("SCRAM-SHA-256", "another nonce", BrokenPeer, True, first(b"r=another" + SALT)),
    ("SCRAM-SHA-256", "our nonce alone", BrokenPeer, True, first(NONCE.removesuffix(b"server") + SALT)),
    ("SCRAM-SHA-256", "one round", BrokenPeer, True, first(NONCE + b",s=c2FsdA==,i=1")),
    ("SCRAM-SHA-256", "a billion rounds", BrokenPeer, True, first(NONCE + b",s=c2FsdA==,i=1000000000")),
    ("SCRAM-SHA-256", "no salt", BrokenPeer, True, first(NONCE + b",s=,i=4096")),
    ("SCRAM-SHA-256", "an extension that must be known", BrokenPeer, True, first(b"m=x," + NONCE + SALT)),
    ("SCRAM-SHA-256", "nothing", BrokenPeer, True, first(b"")),
    ("SCRAM-SHA-256", "a wrong proof", BrokenPeer, True, final(b"v=" + b64encode(bytes(32)))),
    ("SCRAM-SHA-256", "no proof", BrokenPeer, True, final(b"")),
    ("SCRAM-SHA-256", "the client's words", BrokenPeer, True, final(b"v=" + NONCE)),
    ("SCRAM-SHA-256", "an error for a proof", Refused, False, [
        FIRST, ("Yz1iaXdz", challenge(b"e=invalid-proof")), (STAR, b"535 5.7.8 no\r\n", silence),
    ]),
    ("SCRAM-SHA-256", "asked on after the proof", BrokenPeer, True, [
        FIRST, ("Yz1iaXdz", challenge(SCRAMPeer.final())), ("", challenge(b"more")), (STAR, GIVEN_UP, silence),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mechanism", "expected", "temporary", "steps"),
    [pytest.param(row[0], *row[2:], id=f"{row[0]}-{row[1]}") for row in MECHANISMS],
)
def test_mechanisms(mechanism: str, expected: type[ClientError], temporary: bool, steps: list[Any]) -> None:
    way = way_of(mechanism)
    dialog = log_in(way, [*way.script()[:2], *steps])
    dialog.advance(10)
    if isinstance(dialog.outcomes[2], Reply):
        # Accepted twice: the login holds, and nothing is said where answers do not belong to questions.
        assert isinstance(dialog.client.wire.over, expected)
    else:
        dialog.error(expected, "AUTH", temporary=temporary, index=2)
    check_no_mail(dialog)
    for connection in dialog.peer.connections:
        # How far it comes with its challenges is the client's choice.
        connection.silent = True
    dialog.end()


@pytest.mark.parametrize("mechanism", [Plain, Login, CramMD5, SCRAM])
def test_what_is_not_offered(mechanism: Any) -> None:
    """Nothing is tried that the peer has not offered, and nothing is sent without: it would look accepted."""
    for hello in (b"250 mx.test\r\n", b"250-mx.test\r\n250 AUTH\r\n", b"250-mx.test\r\n250 AUTH X-FOREIGN =\r\n"):
        dialog = Dialog([GREETING.reply, ("EHLO", hello), silence], name="localhost")
        assert type(dialog.ask(dialog.client.auth(mechanism("user", SECRET)))) is LocalProtocolError
        assert dialog.heard == b"EHLO me.test\r\n"


def test_all_that_was_asked_at_once_hears_of_a_failure() -> None:
    way = way_of("CRAM-MD5")
    dialog = Dialog([*way.script()[:2], CRAM, ("dXNlciA", b"535 5.7.8 no\r\n", silence)])
    client = dialog.client
    for deferred in [
        client.auth(CramMD5("user", SECRET)),
        client.send_mail("a@b.test", ["c@d.test"], BODY),
        client.noop(),
    ]:
        dialog.ask(deferred)
    assert [type(one).__name__ for one in dialog.outcomes[1:]] == ["Refused", "ConnectionFailed", "ConnectionFailed"]
    assert b"MAIL" not in dialog.heard
    dialog.advance(10)
    dialog.end()
