"""
STARTTLS and the handshake: nothing that was meant for a safe line goes out on another.

By RFC 3207. Who sits on the line can say whatever the peer could, so each of
these rows may be an attack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import BrokenPeer, ClientError, ConnectionFailed, LocalProtocolError, Refused, TimedOut, TLSFailed
from smtpfw.sasl import Login, Plain
from smtpfw.testing import (
    MESSAGE,
    ScriptedPeer,
    abort,
    close,
    endless,
    joined,
    octets,
    silence,
    starttls,
    tls_client,
    tls_server,
)
from smtpfw.tls import client_context
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.dialogs import Dialog
from tests.client.misbehaving.ways import BODY, GREETING, SECRET, Certificates, certificates, way_of

OFFER = ("EHLO me.test", b"250-mx.test\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250 STARTTLS\r\n")
#: The first octets of a handshake have come.
HANDSHAKE = octets(1)
GO = b"220 go\r\n"

Steps = Callable[[Certificates], list[Any]]


def answer(*actions: Any) -> Steps:
    return lambda c: [("STARTTLS", *actions)]


def in_the_handshake(*actions: Any) -> Steps:
    return lambda c: [("STARTTLS", GO), (HANDSHAKE, *actions)]


#: What the peer does, the error, its phase.
ROWS: list[tuple[str, type[ClientError], str, Steps]] = [
    ("421", Refused, "STARTTLS", answer(b"421 4.3.2 bye\r\n", close)),
    ("250", TLSFailed, "STARTTLS", answer(b"250 OK\r\n", silence)),
    ("235", TLSFailed, "STARTTLS", answer(b"235 OK\r\n", silence)),
    ("354", TLSFailed, "STARTTLS", answer(b"354 go on\r\n", silence)),
    ("close", ConnectionFailed, "STARTTLS", answer(close)),
    ("half a reply", ConnectionFailed, "STARTTLS", answer(b"220-go\r\n", close)),
    ("garbage for a reply", BrokenPeer, "STARTTLS", answer(b"hello\r\n", silence)),
    ("endless reply", BrokenPeer, "STARTTLS", answer(endless(b"220-go\r\n"))),
    ("reply behind", TLSFailed, "STARTTLS", lambda c: [("STARTTLS", starttls(c.good, behind=b"250 injected\r\n"))]),
    ("octet behind", TLSFailed, "STARTTLS", lambda c: [("STARTTLS", starttls(c.good, behind=b"2"))]),
    ("line end behind", TLSFailed, "STARTTLS", lambda c: [("STARTTLS", starttls(c.good, behind=b"\r\n"))]),
    ("TLS record behind", TLSFailed, "STARTTLS", lambda c: [("STARTTLS", starttls(c.good, behind=b"\x16\x03\x01"))]),
    ("EHLO's answer behind", TLSFailed, "STARTTLS", lambda c: [("STARTTLS", starttls(c.good, behind=OFFER[1]))]),
    ("another name", TLSFailed, "TLS", lambda c: [("STARTTLS", starttls(c.other))]),
    ("expired", TLSFailed, "TLS", lambda c: [("STARTTLS", starttls(c.expired))]),
    ("close in the handshake", TLSFailed, "TLS", in_the_handshake(close)),
    ("reset in the handshake", TLSFailed, "TLS", in_the_handshake(abort)),
    ("alert in the handshake", TLSFailed, "TLS", in_the_handshake(b"\x15\x03\x03\x00\x02\x02\x28", silence)),
    ("clear words in the handshake", TLSFailed, "TLS", answer([GO, b"250 injected\r\n"], silence)),
    ("clear words later", TLSFailed, "TLS", in_the_handshake(b"250 injected\r\n", silence)),
    ("421 in clear", TLSFailed, "TLS", in_the_handshake(b"421 bye\r\n", close)),
    ("garbage in the handshake", TLSFailed, "TLS", in_the_handshake(b"\0" * 100, silence)),
    ("endless garbage", TLSFailed, "TLS", in_the_handshake(endless(b"\x16\x03\x01\x00\x00"))),
]
#: Cut into octets this is a handshake that does not come to its end.
STALLS = ("TLS record behind", "endless garbage", "line end behind", "octet behind")


def check_nothing_went_out(dialog: Dialog) -> None:
    """In clear there was EHLO and STARTTLS, and the rest of it was for TLS alone."""
    heard = dialog.peer.in_clear
    assert heard.startswith(b"EHLO me.test\r\nSTARTTLS\r\n")
    said = heard + dialog.link.said_by_client + dialog.peer.in_tls
    for word in (b"AUTH", b"AHVzZXIA", SECRET.encode(), b"MAIL", b"Subject"):
        assert word not in said
    assert said.count(b"EHLO") == 2, "once in each"


def asked(dialog: Dialog) -> None:
    client = dialog.client
    dialog.ask(client.hello())
    for deferred in (
        client.start_tls(certificates().trusted),
        client.auth(Plain("user", SECRET)),
        client.send_mail("a@b.test", ["c@d.test"], BODY),
    ):
        dialog.ask(deferred)


def asked_at_once(client: Any) -> list[Any]:
    """TLS, and what needs it, before anything has been said."""
    return [client.start_tls(certificates().trusted), client.auth(Plain("user", SECRET)), client.mail("a@b.test")]


@pytest.mark.parametrize(("expected", "phase", "steps"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_a_line_that_does_not_become_safe(expected: type[ClientError], phase: str, steps: Steps) -> None:
    """Credentials and a message that were asked for behind it never go out in clear, and the connection is over."""
    dialog = Dialog([GREETING.reply, OFFER, *steps(certificates())], name="mx.test")
    asked(dialog)
    dialog.error(expected, phase, index=2)
    check_nothing_went_out(dialog)
    for later in dialog.outcomes[3:]:
        assert type(later) in (ConnectionFailed, expected), repr(later)
    dialog.end()


@pytest.mark.parametrize(
    ("name", "expected", "steps"),
    [pytest.param(row[0], row[1], row[3], id=row[0]) for row in ROWS if row[0] not in STALLS],
)
def test_octet_by_octet(name: str, expected: type[ClientError], steps: Steps) -> None:
    if "endless" in name:
        # It would take as many rounds as there are octets.
        steps = answer(b"220-go\r\n" * 20_000)
        expected = BrokenPeer
    dialog = Dialog([GREETING.reply, OFFER, *steps(certificates())], name="mx.test", chunk=1)
    asked(dialog)
    error = dialog.outcomes[2]
    assert type(error) is expected, repr(error)
    # What comes behind the reply in a segment of its own is the beginning of a handshake that fails.
    assert error.phase in ("STARTTLS", "TLS")
    check_nothing_went_out(dialog)
    dialog.end()


@pytest.mark.parametrize(("reply", "temporary"), [(b"454 4.7.0 not now\r\n", True), (b"502 5.5.1 no\r\n", False)])
def test_a_refusal(reply: bytes, temporary: bool) -> None:
    """The connection is as it was; what was asked behind it isn't said, since it was meant for a safe line."""
    dialog = Dialog([GREETING.reply, OFFER, ("STARTTLS", reply), ("NOOP", b"250 OK\r\n")], name="mx.test")
    client = dialog.client
    for deferred in asked_at_once(client):
        dialog.ask(deferred)
    for index in (1, 2, 3):
        dialog.error(Refused, "STARTTLS", temporary=temporary, index=index)
    check_nothing_went_out(dialog)
    assert not isinstance(dialog.ask(client.noop()), Exception)


def test_a_peer_that_does_not_offer_it() -> None:
    for hello in (
        [("EHLO", b"250 mx.test\r\n")],
        [("EHLO", b"500 no\r\n"), ("HELO", b"250-mx.test\r\n250 STARTTLS\r\n")],
    ):
        dialog = Dialog([GREETING.reply, *hello, silence], name="mx.test")
        for deferred in asked_at_once(dialog.client):
            dialog.ask(deferred)
        for index in (1, 2, 3):
            dialog.error(TLSFailed, "STARTTLS", index=index)
        assert b"STARTTLS" not in dialog.heard and b"MAIL" not in dialog.heard and b"AUTH" not in dialog.heard


@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01", b"\x16\x03\x03\x40\x00"])
def test_a_handshake_that_stalls(behind: bytes) -> None:
    dialog = Dialog([GREETING.reply, OFFER, ("STARTTLS", GO), (HANDSHAKE, behind, silence)], name="mx.test")
    asked(dialog)
    dialog.advance(29)
    assert dialog.outcomes[2] is None
    dialog.advance(1)
    dialog.error(TimedOut, "TLS", index=2)
    check_nothing_went_out(dialog)
    dialog.end()


def test_a_handshake_in_drops() -> None:
    """The whole of it has its time, however often something comes."""
    dialog = Dialog([GREETING.reply, OFFER, ("STARTTLS", GO), (HANDSHAKE, silence)], name="mx.test")
    asked(dialog)
    for octet in b"\x16\x03\x03\x40\x00" + bytes(10):
        dialog.advance(4)
        dialog.peer.connections[0].transport.write(bytes([octet]))
        dialog.link.flow()
    dialog.error(TimedOut, "TLS", index=2)
    dialog.end()


def test_what_was_offered_in_clear_is_forgotten() -> None:
    promised = b"250-mx.test\r\n250-STARTTLS\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"
    script = [
        GREETING.reply,
        ("EHLO", promised),
        ("STARTTLS", starttls(certificates().good)),
        ("EHLO", b"250 mx.test\r\n"),
        *way_of("one by one").script()[2:],
    ]
    dialog = Dialog(script, name="mx.test")
    dialog.ask(dialog.client.start_tls(certificates().trusted))
    assert dialog.client.extension("AUTH") is None
    assert isinstance(dialog.ask(dialog.client.auth(Plain("user", SECRET))), LocalProtocolError)
    assert isinstance(dialog.send(), SendResult)
    dialog.peer.assert_played()
    assert dialog.peer.in_clear == b"EHLO me.test\r\nSTARTTLS\r\n"


def test_a_transaction_is_not_taken_along() -> None:
    """What was agreed on in clear was agreed on with anybody."""
    script = [
        GREETING.reply,
        OFFER,
        ("MAIL", b"250 OK\r\n"),
        ("RCPT", b"250 OK\r\n"),
        ("STARTTLS", starttls(certificates().good)),
        silence,
    ]
    dialog = Dialog(script, name="mx.test")
    client = dialog.client
    for deferred in (client.mail("a@b.test"), client.rcpt("c@d.test"), client.start_tls(certificates().trusted)):
        assert not isinstance(dialog.ask(deferred), Exception)
    assert client.wire.transaction is None
    client.data(BODY).addErrback(lambda failure: None)
    dialog.link.flow()
    assert dialog.peer.in_tls == b"EHLO me.test\r\n"


def test_a_second_starttls() -> None:
    """Within TLS nobody is asked for it, whatever is offered there."""
    script = [GREETING.reply, OFFER, ("STARTTLS", starttls(certificates().good)), OFFER, silence]
    dialog = Dialog(script, name="mx.test")
    for _ in range(2):
        dialog.ask(dialog.client.start_tls(certificates().trusted))
    assert dialog.peer.in_tls in (b"", b"EHLO me.test\r\n")
    assert not isinstance(dialog.outcomes[1], Exception)
    assert "TLS is on already" in str(dialog.outcomes[2])


# -- TLS from the first octet ----------------------------------------------------------------------

#: What a server of smtps: does; there is no clear line before it.
IMPLICIT: list[tuple[str, type[ClientError], str, Steps]] = [
    ("a clear greeting", TLSFailed, "TLS", lambda c: [GREETING.reply, silence]),
    ("a clear refusal", TLSFailed, "TLS", lambda c: [b"554 no\r\n", close]),
    ("close", TLSFailed, "TLS", lambda c: [(HANDSHAKE, close)]),
    ("close at once", TLSFailed, "TLS", lambda c: [close]),
    ("reset", TLSFailed, "TLS", lambda c: [(HANDSHAKE, abort)]),
    ("garbage", TLSFailed, "TLS", lambda c: [(HANDSHAKE, b"\0" * 100, silence)]),
    ("silence", TimedOut, "TLS", lambda c: [silence]),
]


@pytest.mark.parametrize(("expected", "phase", "steps"), [pytest.param(*row[1:], id=row[0]) for row in IMPLICIT])
def test_implicit_tls_that_is_none(expected: type[ClientError], phase: str, steps: Steps) -> None:
    dialog = Dialog(steps(certificates()), name="mx.test", tls=certificates().trusted)
    dialog.ask(dialog.client.auth(Plain("user", SECRET)))
    dialog.send()
    dialog.advance(30)
    dialog.error(expected, phase, index=0)
    assert all(type(later) is ConnectionFailed for later in dialog.outcomes[1:]), dialog.outcomes
    assert b"EHLO" not in dialog.link.said_by_client and b"AUTH" not in dialog.link.said_by_client
    dialog.end()


@pytest.mark.parametrize("context", ["other", "expired", "good"])
def test_implicit_tls(context: str) -> None:
    """The certificate is looked at before the greeting is."""

    def begin(connection: Any) -> None:
        connection.start_tls(getattr(certificates(), context))

    good = [GREETING.reply, OFFER] if context == "good" else []
    dialog = Dialog([begin, *good, silence], name="mx.test", tls=certificates().trusted)
    dialog.ask(dialog.client.hello())
    if context == "good":
        assert not any(isinstance(one, Exception) for one in dialog.outcomes)
        assert dialog.client.wire.tls_verified
        return
    dialog.error(TLSFailed, "TLS", index=0)
    assert dialog.heard == b""
    dialog.end()


@pytest.mark.parametrize("action", [close, abort, b"hello\r\n", b"421 bye\r\n"])
def test_an_end_within_tls_of_an_endpoint(action: Any) -> None:
    """TLS that somebody else has made: nothing of it is the client's handshake."""
    found: list[Any] = []
    client = SMTPClientProtocol(name="mx.test", peer_name="mx.test", clock=Clock())
    client.greeting.addBoth(found.append)
    joined(tls_client(client, certificates().trusted), tls_server(ScriptedPeer([action, silence]), certificates().good))
    (failure,) = found
    assert isinstance(failure.value, (ConnectionFailed, Refused)) and failure.value.phase == "GREETING"


# -- credentials -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [Plain, Login])
def test_a_password_does_not_go_out_in_clear(mechanism: Any) -> None:
    dialog = Dialog([GREETING.reply, OFFER, silence], name="mx.test")
    assert isinstance(dialog.ask(dialog.client.auth(mechanism("user", SECRET))), LocalProtocolError)
    assert dialog.heard == b"EHLO me.test\r\n"


@pytest.mark.parametrize("context", ["good", "other", "expired"])
@pytest.mark.parametrize("mechanism", [Plain, Login])
def test_a_password_does_not_go_to_an_unverified_peer(context: str, mechanism: Any) -> None:
    script = [GREETING.reply, OFFER, ("STARTTLS", starttls(getattr(certificates(), context))), OFFER, silence]
    dialog = Dialog(script, name="mx.test")
    dialog.ask(dialog.client.start_tls(client_context("mx.test", verify=False)))
    assert isinstance(dialog.ask(dialog.client.auth(mechanism("user", SECRET))), LocalProtocolError)
    assert dialog.peer.in_tls == b"EHLO me.test\r\n"
    assert dialog.peer.in_clear == b"EHLO me.test\r\nSTARTTLS\r\n"


def test_a_message_within_tls_is_not_seen_in_clear() -> None:
    steps = [GREETING.reply, OFFER, ("STARTTLS", starttls(certificates().good)), OFFER]
    login = (re.compile(rb"AUTH PLAIN AHVzZXIA"), b"235 OK\r\n")
    mail = way_of("one by one").script()[2:-1]
    dialog = Dialog([*steps, login, *mail, (MESSAGE, b"250 queued\r\n")], name="mx.test")
    asked(dialog)
    assert isinstance(dialog.outcomes[-1], SendResult), dialog.outcomes
    check_clear = dialog.peer.in_clear + dialog.link.said_by_client
    assert b"AHVzZXIA" not in check_clear and b"MAIL" not in check_clear and b"Subject" not in check_clear
