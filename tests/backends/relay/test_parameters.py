"""Parameters of MAIL and RCPT on their way through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from smtpfw.backends.relay.parameters import TRACE_OCTETS, for_mail, for_rcpt
from smtpfw.errors import ExtensionMissing
from smtpfw.extensions.dsn import OriginalRecipient
from smtpfw.testing import MESSAGE, RecordingBackend, ScriptedPeer
from smtpfw.wire.parameters import NO_OPTIONS, Options
from tests.backends.relay.helpers import BODY, OK, Sender, relay_to, server, without_trace


class Hop:
    def __init__(self, *keywords: str) -> None:
        self.keywords = keywords

    def extension(self, keyword: str) -> str | None:
        return "" if keyword in self.keywords else None


ORIGINAL = OriginalRecipient("rfc822", "x@y.test")
DSN_MAIL = {"RET": "HDRS", "ENVID": "7"}
DSN_RCPT = {"NOTIFY": frozenset({"FAILURE"}), "ORCPT": ORIGINAL}


@pytest.mark.parametrize(
    ("given", "offered", "said"),
    [
        ({}, ("SIZE", "8BITMIME"), {}),
        ({"SIZE": 1000}, ("SIZE",), {"SIZE": 1000 + TRACE_OCTETS}),
        ({"SIZE": 0}, ("SIZE",), {}),
        ({"SIZE": 1000}, (), {}),
        ({"BODY": "7BIT"}, ("8BITMIME",), {"BODY": "7BIT"}),
        ({"BODY": "8BITMIME"}, ("8BITMIME",), {"BODY": "8BITMIME"}),
        ({"BODY": "8BITMIME"}, (), {}),
        ({"BODY": "BINARYMIME"}, ("CHUNKING", "BINARYMIME"), {"BODY": "BINARYMIME"}),
        ({"SMTPUTF8": True}, ("SMTPUTF8",), {"SMTPUTF8": True}),
        ({"SMTPUTF8": True}, (), {}),
        ({"REQUIRETLS": True}, (), {"REQUIRETLS": True}),
        (DSN_MAIL, ("DSN",), DSN_MAIL),
        (DSN_MAIL, (), {}),
        ({"AUTH": "x", "X-OWN": "y"}, ("AUTH", "X-OWN"), {}),
    ],
)
def test_mail(given: dict[str, Any], offered: Iterable[str], said: dict[str, Any]) -> None:
    assert for_mail(Options(given), Hop(*offered), 0.0) == Options(said)


@pytest.mark.parametrize(
    ("given", "offered", "said"),
    [
        ({}, ("DSN",), {}),
        (DSN_RCPT, ("DSN",), DSN_RCPT),
        (DSN_RCPT, (), {}),
        ({"NOTIFY": frozenset({"SUCCESS"})}, ("DSN",), {"NOTIFY": frozenset({"SUCCESS"})}),
        ({"NOTIFY": frozenset({"FAILURE", "DELAY"})}, (), {}),
        ({"X-OWN": "y"}, ("DSN", "X-OWN"), {}),
    ],
)
def test_rcpt(given: dict[str, Any], offered: Iterable[str], said: dict[str, Any]) -> None:
    assert for_rcpt(Options(given), Hop(*offered)) == Options(said)


@pytest.mark.parametrize("event", ["SUCCESS", "NEVER"])
def test_a_promise_that_nobody_would_keep(event: str) -> None:
    with pytest.raises(ExtensionMissing) as caught:
        for_rcpt(Options({"NOTIFY": frozenset({event})}), Hop())
    assert caught.value.keyword == "DSN"


def test_a_binary_message_is_not_rewritten() -> None:
    with pytest.raises(ExtensionMissing) as caught:
        for_mail(Options({"BODY": "BINARYMIME"}), Hop("8BITMIME"), 0.0)
    assert caught.value.enhanced_code == (5, 6, 3)


def test_nothing_costs_nothing() -> None:
    assert for_mail(NO_OPTIONS, Hop("DSN"), 0.0) is NO_OPTIONS
    assert for_rcpt(NO_OPTIONS, Hop("DSN")) is NO_OPTIONS


# -- in a dialog ----------------------------------------------------------------


def peer(*keywords: str, steps: Iterable[Any] = ()) -> ScriptedPeer:
    """A next hop that offers this."""
    lines = ["hop.test", "PIPELINING", *keywords]
    hello = "".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines).encode()
    return ScriptedPeer([b"220 hop.test ESMTP\r\n", ("EHLO", hello), *steps])


WHOLE = [("MAIL", OK), ("RCPT", OK), ("DATA", b"354 go on\r\n"), (MESSAGE, OK)]


def send(hop: ScriptedPeer, mail: str = "", rcpt: str = "", body: bytes = BODY, **settings: Any) -> list[bytes]:
    """What the sender hears, up to the first refusal."""
    sender = relay_to(hop, **settings)
    answers: list[bytes] = []
    for line in (f"MAIL FROM:<a@sender.test>{mail}", f"RCPT TO:<b@there.test>{rcpt}", "DATA"):
        answers.append(sender.say(line))
        if answers[-1][:1] not in b"23":
            return answers
    return [*answers, sender.send(body + b".\r\n")]


@pytest.mark.parametrize(
    ("offered", "mail", "expected"),
    [
        (["8BITMIME"], "", b"MAIL FROM:<a@sender.test> BODY=8BITMIME"),
        (["8BITMIME"], " BODY=7BIT", b"MAIL FROM:<a@sender.test> BODY=7BIT"),
        ([], " BODY=8BITMIME", b"MAIL FROM:<a@sender.test>"),
        (["SIZE 5000"], " SIZE=100", b"MAIL FROM:<a@sender.test> SIZE=356"),
        (["8BITMIME", "SMTPUTF8"], " SMTPUTF8", b"MAIL FROM:<a@sender.test> SMTPUTF8 BODY=8BITMIME"),
        ([], " SMTPUTF8", b"MAIL FROM:<a@sender.test>"),
        (["DSN"], " RET=HDRS ENVID=a+2Bb", b"MAIL FROM:<a@sender.test> RET=HDRS ENVID=a+2Bb"),
    ],
)
def test_the_words_on_the_wire(offered: list[str], mail: str, expected: bytes) -> None:
    hop = peer(*offered, steps=WHOLE)
    assert send(hop, mail, honours=["DSN"])[-1] == OK
    assert hop.commands[1] == expected


def test_notifications() -> None:
    hop = peer("DSN", steps=WHOLE)
    assert send(hop, rcpt=" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@y.test", honours=["DSN"])[-1] == OK
    assert hop.commands[2] == b"RCPT TO:<b@there.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@y.test"


def test_notifications_that_the_next_hop_does_not_know() -> None:
    answers = send(peer(steps=[("MAIL", OK)]), rcpt=" NOTIFY=SUCCESS", honours=["DSN"])
    assert answers[-1] == b"554 5.3.3 The next server does not offer DSN: NOTIFY was asked for\r\n"


def test_what_the_operator_promises_is_offered() -> None:
    assert "DSN" not in relay_to(peer()).hello
    assert "DSN" in relay_to(peer(), honours=["DSN"]).hello


def test_octets_over_127_do_not_go_where_they_are_not_taken() -> None:
    hop = peer(steps=WHOLE[:3])
    answers = send(hop, " BODY=8BITMIME", body=b"x: y\r\n\r\n\xc3\xa4\r\n")
    assert answers[-1] == b"554 5.6.3 The next server does not offer 8BITMIME: the message has octets over 127\r\n"
    # It was told that a message comes, and has not seen one.
    assert b"\r\n.\r\n" not in hop.in_clear
    assert hop.connections[0].lost is not None
    # Without any, what was declared makes no difference.
    assert send(peer(steps=WHOLE), " BODY=8BITMIME")[-1] == OK


def test_utf8_in_the_header() -> None:
    expected = b"550 5.6.7 The next server does not offer SMTPUTF8: the header of the message is not ASCII\r\n"
    hop = peer("8BITMIME", steps=WHOLE[:3])
    answers = send(hop, " SMTPUTF8 BODY=8BITMIME", body="Subject: grüße\r\n\r\nx\r\n".encode())
    assert answers[-1] == expected
    assert b"\r\n.\r\n" not in hop.in_clear
    # In the text it does not matter.
    hop = peer("8BITMIME", steps=WHOLE)
    assert send(hop, " SMTPUTF8 BODY=8BITMIME", body="Subject: x\r\n\r\ngrüße\r\n".encode())[-1] == OK
    assert send(peer("8BITMIME", steps=WHOLE), " SMTPUTF8", body="\r\ngrüße\r\n".encode())[-1] == OK


def test_utf8_in_addresses() -> None:
    sender = relay_to(peer("8BITMIME"))
    missing = b"550 5.6.7 The next server does not offer SMTPUTF8: the sender's address is not ASCII\r\n"
    assert sender.say("MAIL FROM:<ä@sender.test> SMTPUTF8") == missing
    sender = relay_to(peer("8BITMIME", steps=[("MAIL", OK)]))
    sender.say("MAIL FROM:<a@sender.test> SMTPUTF8")
    assert sender.say("RCPT TO:<ü@there.test>")[:9] == b"553 5.6.7"
    hop = peer("8BITMIME", "SMTPUTF8", steps=WHOLE)
    sender = relay_to(hop)
    sender.say("MAIL FROM:<ä@sender.test> SMTPUTF8")
    assert sender.say("RCPT TO:<ü@there.test>") == OK
    assert hop.commands[1:3] == [
        "MAIL FROM:<ä@sender.test> SMTPUTF8 BODY=8BITMIME".encode(),
        "RCPT TO:<ü@there.test>".encode(),
    ]


def binary(sender: Sender) -> bytes:
    sender.envelope(parameters=" BODY=BINARYMIME")
    return sender.send(b"BDAT 14 LAST\r\nx: y\r\n\r\n\x00\r\xff\n.\r")


def test_binary_octets() -> None:
    there = RecordingBackend()
    assert binary(relay_to(server(there))) == b"250 2.0.0 Message accepted\r\n"
    assert without_trace(there.messages[0].body) == b"x: y\r\n\r\n\x00\r\xff\n.\r"
    assert there.messages[0].options.body == "BINARYMIME"


@pytest.mark.parametrize("offered", [["8BITMIME"], ["8BITMIME", "CHUNKING"], ["8BITMIME", "BINARYMIME"]])
def test_binary_octets_that_the_next_hop_does_not_take(offered: list[str]) -> None:
    sender = relay_to(peer(*offered))
    assert sender.say("MAIL FROM:<a@sender.test> BODY=BINARYMIME")[:9] == b"554 5.6.3"


def test_size_is_told_and_judged_there() -> None:
    hop = peer("SIZE 1000", steps=[("MAIL", b"552 5.3.4 too large\r\n")])
    assert send(hop, " SIZE=900")[-1] == b"552 5.3.4 too large\r\n"
    assert hop.commands[1] == b"MAIL FROM:<a@sender.test> SIZE=1156"
