"""What may share a write with what, and what a transaction that was given up leaves behind (RFC 2920)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused
from smtpfw.wire.client import ClientConnection
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import Sending
from tests.wire.client_end import GREETING, ClientEnd, Told, hello_reply, message

OK = b"250 OK\r\n"
GO_ON = b"354 go on\r\n"
ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
BODY = b"hello\r\n.\r\n"

#: What is said, and whether something else may follow in the same write (RFC 2920 section 3.1).
ASKED: list[tuple[str, Callable[[ClientEnd], Told], bytes, bool]] = [
    ("MAIL", lambda end: end.mail(), b"MAIL FROM:<a@b.test>\r\n", True),
    ("RCPT", lambda end: end.rcpt(), b"RCPT TO:<c@d.test>\r\n", True),
    ("RSET", lambda end: end.reset(), b"RSET\r\n", True),
    ("HELP", lambda end: end.command(b"HELP"), b"HELP\r\n", True),
    ("NOOP", lambda end: end.command(b"NOOP"), b"NOOP\r\n", False),
    ("VRFY", lambda end: end.command(b"VRFY x"), b"VRFY x\r\n", False),
    ("QUIT", lambda end: end.command(b"QUIT"), b"QUIT\r\n", False),
    ("EXPN", lambda end: end.command(b"EXPN x"), b"EXPN x\r\n", False),
    ("message", lambda end: end.send(), ENVELOPE, False),
    # Nobody knows what it is.
    ("any", lambda end: end.command(b"XODD", raw=True), b"XODD\r\n", False),
    ("raw RSET", lambda end: end.command(b"RSET", raw=True), b"RSET\r\n", False),
    ("EHLO", lambda end: end.hello(), b"EHLO me.test\r\n", False),
]
#: What waits for all replies; a message waits where a transaction may be open that is made step by step.
ALONE = ("EHLO",)
AFTER = {"MAIL": ("message", "MAIL")}


@pytest.mark.parametrize(
    ("first", "second"), [pytest.param(one, two, id=f"{one[0]}-{two[0]}") for one, two in product(ASKED, ASKED)]
)
def test_what_may_share_a_write(first: Any, second: Any) -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    # Hello is not answered, so both wait.
    first[1](end)
    second[1](end)
    if first[0] == "EHLO":
        assert end.said() == [b"EHLO me.test\r\n"]
        return
    end.said()
    together = first[3] and second[0] not in (*ALONE, *AFTER.get(first[0], ()))
    assert end.hear(hello_reply("PIPELINING")) == [first[2] + second[2] if together else first[2]]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("offers", [[], ["PIPELINING"]])
def test_where_nothing_may(offers: list[str], pipelining: bool) -> None:
    """The peer has to offer it, and we have to want it."""
    end = ClientEnd(offers, pipelining=pipelining)
    assert end.wire.pipelining is bool(offers and pipelining)
    end.mail()
    end.rcpt()
    said = end.said()
    assert (len(said) == 2) is end.wire.pipelining
    assert said + end.hear(OK) == [b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n"]


def test_replies_of_a_group_may_come_together() -> None:
    end = ClientEnd(["PIPELINING"])
    mail, first, second, noop = end.mail(), end.rcpt(), end.rcpt("e@d.test"), end.command(b"NOOP")
    end.hear(b"250 1\r\n550 2\r\n250-3\r\n250 4\r\n250 5\r\n")
    first.error(Refused, "RCPT")
    assert [one.outcome.text for one in (mail, second, noop)] == ["1", "3\n4", "5"]


def test_what_is_behind_the_last_of_a_group_answers_nothing() -> None:
    """At that moment nothing else has been said."""
    end = ClientEnd(["PIPELINING"])
    mail = end.mail()
    end.hear(OK + OK)
    assert mail.outcome.code == 250
    assert len(end.ends) == 1


@pytest.mark.parametrize("following", [one for one in ASKED if one[0] != "EHLO"], ids=lambda row: row[0])
def test_a_reply_to_what_is_only_about_to_be_said(following: Any) -> None:
    """It came with the reply that has made us say it, so it can't be the answer; all that follow would be shifted."""
    end = ClientEnd(["PIPELINING"])
    first, second = end.command(b"NOOP"), following[1](end)
    end.said()
    assert end.hear(b"250 one\r\n250 two\r\n") == []
    assert first.outcome.text == "one"
    assert isinstance(second.outcome, BrokenPeer)


def test_421_behind_the_reply_that_was_due() -> None:
    end = ClientEnd(["PIPELINING"])
    first, second = end.command(b"NOOP"), end.send()
    end.said()
    assert end.hear(b"250 one\r\n421 closing\r\n") == []
    assert first.outcome.text == "one"
    assert second.error(Refused).code == 421


def test_a_message_that_is_asked_for_late_shares_no_write() -> None:
    """The end of the message before has been said by then; the envelope may go out all the same."""
    end = ClientEnd(["PIPELINING"])
    first = end.send()
    end.hear(OK * 2 + GO_ON)
    second = end.send()
    assert end.said() == [ENVELOPE]
    end.hear(b"250 one\r\n" + OK * 2 + GO_ON)
    assert end.hear(b"550 two\r\n") == []
    assert first.outcome.text == "one"
    second.error(Refused, "END")


def test_only_one_message_is_ahead() -> None:
    end = ClientEnd(["PIPELINING"])
    end.send()
    end.send()
    end.send()
    assert end.said() == [ENVELOPE]
    assert end.hear(OK * 2 + GO_ON) == [BODY + ENVELOPE]
    assert end.hear(OK) == []
    assert end.hear(OK * 2 + GO_ON) == [BODY + ENVELOPE]


def test_who_is_asked_for_more_shares_the_write() -> None:
    """As a pool does it: what is submitted when the connection says that it is ready."""
    end = ClientEnd(["PIPELINING"])
    more = [1, 2]
    sent: list[Told] = []

    def ready() -> None:
        if more:
            more.pop()
            told = Told()
            sent.append(told)
            end.wire.submit(Sending(message(), told))

    end.on_ready = ready
    end.wire.wants_ready = True
    sent.append(end.send())
    assert end.said() == [ENVELOPE]
    assert end.hear(OK * 2 + GO_ON) == [BODY + ENVELOPE]
    assert end.hear(OK, OK * 2 + GO_ON) == [BODY + ENVELOPE]
    end.hear(OK, OK * 2 + GO_ON, OK)
    assert [isinstance(told.outcome, SendResult) for told in sent] == [True] * 3


def test_a_step_behind_a_message() -> None:
    end = ClientEnd(["PIPELINING"])
    end.send()
    end.mail("x@b.test")
    end.rcpt("y@d.test")
    end.data()
    end.said()
    assert end.hear(OK * 2 + GO_ON) == [BODY + b"MAIL FROM:<x@b.test>\r\nRCPT TO:<y@d.test>\r\n"]
    assert end.hear(OK) == []
    assert end.hear(OK * 2) == [b"DATA\r\n"]


def test_a_message_that_is_refused_leaves_the_next_where_it_is() -> None:
    end = ClientEnd(["PIPELINING"])
    first, second = end.send(), end.send()
    end.hear(OK * 2 + GO_ON)
    end.hear(b"550 no\r\n" + OK * 2 + GO_ON, b"250 two\r\n")
    first.error(Refused, "END")
    assert second.outcome.text == "two"


# -- what is to be reset ---------------------------------------------------------------------


def all_refused(end: ClientEnd) -> None:
    """A transaction is open that nobody wants."""
    end.send()
    replies = [OK, b"550 nobody\r\n"]
    if end.wire.pipelining and not end.wire.peer.offers("CHUNKING"):
        replies.append(b"554 nobody\r\n")
    end.hear(*replies)


NEXT: list[tuple[str, Callable[[ClientEnd], Told], bytes, bool]] = [
    ("message", lambda end: end.send(), b"MAIL FROM:<a@b.test>\r\n", True),
    ("MAIL", lambda end: end.mail(), b"MAIL FROM:<a@b.test>\r\n", True),
    ("RSET", lambda end: end.reset(), b"RSET\r\n", False),
    ("NOOP", lambda end: end.command(b"NOOP"), b"NOOP\r\n", False),
    ("QUIT", lambda end: end.command(b"QUIT"), b"QUIT\r\n", False),
    ("EHLO", lambda end: end.hello(), b"EHLO me.test\r\n", False),
]


@pytest.mark.parametrize("offers", [[], ["PIPELINING"], ["CHUNKING"], ["PIPELINING", "CHUNKING"]])
@pytest.mark.parametrize("following", NEXT, ids=lambda row: row[0])
def test_rset_where_it_is_needed(offers: list[str], following: Any) -> None:
    end = ClientEnd(offers)
    all_refused(end)
    assert end.wire.needs_reset
    following[1](end)
    said = b"".join(end.said())
    assert said.startswith(b"RSET\r\n" if following[3] else following[2])
    assert said.count(b"RSET") == (following[3] or following[0] == "RSET")
    if following[3] and not end.wire.pipelining:
        assert end.hear(OK) == [following[2]]
    elif following[3]:
        assert following[2] in said
    # It is needed once, and no more after EHLO and RSET.
    if following[0] in ("RSET", "EHLO"):
        end.hear(hello_reply(*offers) if following[0] == "EHLO" else OK)
    assert end.wire.needs_reset is (following[0] in ("NOOP", "QUIT"))


@pytest.mark.parametrize("offers", [[], ["PIPELINING"]])
@pytest.mark.parametrize(("first", "second"), list(product(["send", "mail"], repeat=2)))
def test_rset_and_two_that_need_it(offers: list[str], first: str, second: str) -> None:
    """It is said once, before the first of them, and both are said; a MAIL that is left alone is reset in turn."""
    end = ClientEnd(offers)
    all_refused(end)
    end.command(b"NOOP")
    getattr(end, first)()
    getattr(end, second)()
    end.said()
    replies = [OK] * 5 if first == "mail" else [OK, OK, OK, OK, GO_ON, OK]
    said = b"".join(end.hear(*replies))
    assert said.startswith(b"RSET\r\nMAIL")
    left_alone = first == "mail"
    assert (said.count(b"RSET"), said.count(b"MAIL")) == (2 if left_alone else 1, 2)


def test_rset_behind_which_a_message_cannot_be_said() -> None:
    """What is refused here neither uses up the RSET nor says it."""
    end = ClientEnd(["PIPELINING"])
    all_refused(end)
    end.send(sender="é@d.test")
    assert end.said() == []
    assert end.wire.needs_reset
    end.send()
    assert end.said() == [b"RSET\r\n" + ENVELOPE]


def test_the_reply_to_rset_is_not_that_of_mail() -> None:
    end = ClientEnd(["PIPELINING"])
    all_refused(end)
    told = end.send()
    end.hear(b"250 reset\r\n", b"550 5.7.1 no\r\n", b"503 no\r\n", b"503 no\r\n")
    assert told.error(Refused, "MAIL").code == 550


def test_a_step_waits_for_no_reset_of_its_own() -> None:
    end = ClientEnd(["PIPELINING"])
    all_refused(end)
    mail = end.mail()
    assert end.said() == [b"RSET\r\nMAIL FROM:<a@b.test>\r\n"]
    end.hear(b"250 reset\r\n250 sender\r\n")
    assert mail.outcome.text == "sender"


@pytest.mark.parametrize("ask", ["send", "mail"])
def test_rset_refused(ask: str) -> None:
    """What follows could belong to the transaction before, with its recipients."""
    end = ClientEnd(["PIPELINING"])
    all_refused(end)
    told = getattr(end, ask)()
    end.hear(b"500 what\r\n" + OK)
    assert isinstance(told.outcome, Refused | ConnectionFailed)
    assert [type(error) for error in end.ends] == [Refused]


def transaction_left(end: ClientEnd, replies: list[bytes]) -> bool:
    end.send("c@d.test", "e@d.test")
    end.hear(*replies)
    assert end.wire.idle
    return end.wire.needs_reset


NO = b"550 no\r\n"
LEFT: list[tuple[list[str], list[bytes], bool]] = [
    ([], [NO], False),
    ([], [OK, NO, NO], True),
    ([], [OK, OK, NO, NO], True),
    ([], [OK, OK, OK, GO_ON, OK], False),
    ([], [OK, OK, OK, GO_ON, NO], False),
    (["PIPELINING"], [NO, NO, NO, NO], True),
    (["PIPELINING"], [NO, NO, NO, GO_ON, NO], False),
    (["PIPELINING"], [OK, NO, NO, NO], True),
    (["PIPELINING"], [OK, NO, NO, GO_ON, OK], False),
    (["PIPELINING"], [OK, OK, NO, NO], True),
    (["PIPELINING"], [OK, OK, NO, GO_ON, NO], False),
    (["CHUNKING"], [NO], False),
    (["CHUNKING"], [OK, NO, NO], True),
    (["CHUNKING"], [OK, OK, NO, NO], False),
    (["PIPELINING", "CHUNKING"], [NO, NO, NO], False),
    (["PIPELINING", "CHUNKING"], [OK, NO, NO], True),
    (["PIPELINING", "CHUNKING"], [OK, OK, NO, OK], False),
    (["PIPELINING", "CHUNKING"], [OK, OK, NO, NO], False),
]


@pytest.mark.parametrize(("offers", "replies", "left"), LEFT)
def test_what_a_message_leaves_behind(offers: list[str], replies: list[bytes], left: bool) -> None:
    assert transaction_left(ClientEnd(offers), replies) is left


def test_what_a_message_of_lmtp_leaves_behind() -> None:
    end = ClientEnd(lmtp=True)
    assert transaction_left(end, [OK, NO, NO, b"503 nobody\r\n"])
    assert not transaction_left(end, [OK, OK, OK, NO, GO_ON, OK])


@pytest.mark.parametrize("offers", [[], ["PIPELINING"]])
@pytest.mark.parametrize("reply", [OK, b"550 nobody\r\n"])
def test_a_message_behind_steps_that_come_to_nothing(offers: list[str], reply: bytes) -> None:
    """The peer would answer 503 to a second MAIL, and the message would be refused for good."""
    end = ClientEnd(offers)
    end.mail()
    end.hear(OK)
    end.rcpt()
    end.hear(reply)
    end.send()
    assert b"".join(end.said()) == b"RSET\r\n" + (ENVELOPE if offers else b"")
    assert end.wire.transaction is None


def test_the_transaction_of_steps_and_of_messages() -> None:
    end = ClientEnd()
    end.mail()
    end.hear(OK)
    end.rcpt()
    end.hear(OK)
    wire: ClientConnection = end.wire
    assert wire.transaction is not None and not wire.needs_reset
    data = end.data()
    end.hear(b"451 later\r\n")
    data.error(Refused, "DATA")
    assert wire.transaction is None and wire.needs_reset
    end.reset()
    end.hear(OK)
    assert not wire.needs_reset


@pytest.mark.parametrize(
    ("offers", "opening"), [(["PIPELINING"], [GO_ON]), (["PIPELINING", "CHUNKING"], []), ([], [GO_ON])]
)
def test_a_message_does_not_mix_with_a_transaction_that_is_made_step_by_step(
    offers: list[str], opening: list[bytes]
) -> None:
    """What is asked for without waiting: a transaction, a message of its own, and more of the first."""
    end = ClientEnd(offers)
    asked = [
        end.mail("first@b.test"),
        end.send(sender="second@b.test"),
        end.rcpt("third@d.test"),
        end.data(b"mine\r\n"),
    ]
    said = b"".join(end.said())
    assert said == b"MAIL FROM:<first@b.test>\r\n"
    # To MAIL; to RSET, MAIL and RCPT of the message; to the message; to RCPT.
    said += b"".join(end.hear(OK, OK, OK, OK, *opening, OK, b"503 MAIL first\r\n"))
    assert said.count(b"RSET\r\nMAIL FROM:<second@b.test>") == 1
    assert [type(one.outcome).__name__ for one in asked] == ["Reply", "SendResult", "Refused", "BadSequence"]
    assert b"mine" not in said


@pytest.mark.parametrize("refused", [b"550 no\r\n", b"421 no\r\n"])
def test_a_transaction_that_never_began_is_nothing_to_wait_for(refused: bytes) -> None:
    end = ClientEnd(["PIPELINING"])
    end.mail()
    end.said()
    end.hear(refused)
    end.send()
    assert end.said() == ([ENVELOPE] if refused.startswith(b"550") else [])
