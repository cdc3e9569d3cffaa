"""One message, as a client sends it: what the peer says of it, and what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import (
    BadSequence,
    BrokenPeer,
    ConnectionFailed,
    ExtensionMissing,
    LocalProtocolError,
    Refused,
    UnknownOutcome,
)
from smtpfw.extensions.dsn import NOTIFY, RET
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.extensions.size import SIZE
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.results import SendResult
from tests.wire.client_end import ClientEnd, Text, Told

OK = b"250 OK\r\n"
GO_ON = b"354 go on\r\n"
UTF8 = "é@d.test"


def options(**values: Any) -> Options:
    return Options.of({{"RET": RET, "SIZE": SIZE, "REQUIRETLS": REQUIRETLS}[name]: values[name] for name in values})


def accepted(result: Any) -> list[bool]:
    assert isinstance(result, SendResult), repr(result)
    return [one.accepted for one in result.recipients]


# -- what the peer says --------------------------------------------------------------------

PEERS = [[], ["PIPELINING"], ["CHUNKING"], ["PIPELINING", "CHUNKING"]]


def replies_until(offers: list[str], phase: str) -> list[bytes]:
    """What comes before a phase is answered."""
    phases = ["MAIL", "RCPT", "DATA", "END"]
    if "CHUNKING" in offers:
        phases.remove("DATA")
    return [GO_ON if one == "DATA" else OK for one in phases[: phases.index(phase)]]


PLACES = [(offers, phase) for offers in PEERS for phase in ("MAIL", "RCPT", "DATA", "END")]
PLACES = [place for place in PLACES if not (place[1] == "DATA" and "CHUNKING" in place[0])]


@pytest.mark.parametrize(("offers", "phase"), PLACES)
def test_421_at_each_step(offers: list[str], phase: str) -> None:
    transcript: list[str] = []
    end = ClientEnd(offers, transcript=transcript)
    told = end.send()
    behind = end.send()
    end.hear(*replies_until(offers, phase))
    said = [line for line in transcript if not line.endswith("octets>")]
    assert end.hear(b"421 4.3.2 closing\r\n") == []
    error = told.error(Refused, phase)
    assert (error.code, error.temporary) == (421, True)
    assert [one.error.code for one in error.result.recipients] == [421]
    behind.error(ConnectionFailed)
    assert len(end.ends) == 1
    # What was not said is not in it.
    assert [line for line in transcript if not line.endswith("octets>")] == [*said, "S: 421 4.3.2 closing"]


def test_421_to_a_recipient_among_several() -> None:
    transcript: list[str] = []
    end = ClientEnd(transcript=transcript)
    told = end.send("c@d.test", "e@d.test", "f@d.test")
    end.hear(OK, OK)
    assert end.hear(b"421 closing\r\n") == []
    error = told.error(Refused, "RCPT")
    assert [one.error.code for one in error.result.recipients] == [421, 421, 421]
    assert transcript[-1] == "S: 421 closing"


@pytest.mark.parametrize(("offers", "phase"), PLACES)
def test_lost_at_each_step(offers: list[str], phase: str) -> None:
    end = ClientEnd(offers)
    told = end.send()
    end.hear(*replies_until(offers, phase))
    end.lose()
    kind = UnknownOutcome if phase == "END" else ConnectionFailed
    error = told.error(kind, phase)
    assert error.temporary
    assert [type(one.error) for one in error.result.recipients] == [kind]


@pytest.mark.parametrize(("offers", "phase"), PLACES)
@pytest.mark.parametrize("reply", [b"354 go on\r\n", b"334 \r\n", b"250\r\n", b"220 OK\r\n"])
def test_replies_that_make_no_sense(offers: list[str], phase: str, reply: bytes) -> None:
    makes_sense = reply.startswith(b"354") if phase == "DATA" else reply.startswith(b"2")
    end = ClientEnd(offers)
    told = end.send()
    end.hear(*replies_until(offers, phase))
    end.hear(reply)
    if makes_sense:
        assert end.ends == []
    else:
        told.error(UnknownOutcome if phase == "END" else BrokenPeer, phase)
        assert len(end.ends) == 1


@pytest.mark.parametrize("reply", [b"354 go on\r\n", b"334 \r\n"])
def test_a_reply_to_rset_that_makes_no_sense(reply: bytes) -> None:
    end = ClientEnd()
    end.wire.needs_reset = True
    told = end.send()
    assert end.said() == [b"RSET\r\n"]
    assert end.hear(reply) == []
    told.error(BrokenPeer, "RSET")


def test_354_to_the_message_to_nobody() -> None:
    """Its answer is still to come, and would be taken for that to the next MAIL."""
    end = ClientEnd(["PIPELINING"])
    told, behind = end.send(), end.send()
    end.hear(OK + b"550 nobody\r\n" + GO_ON, GO_ON)
    # What became of its recipient is known all the same.
    told.error(BrokenPeer, "DATA")
    assert told.outcome.result.recipients[0].error.code == 550
    behind.error(ConnectionFailed)
    assert len(end.ends) == 1


def test_which_error_tells_of_a_message_that_nobody_got() -> None:
    """Where some may be tried again, all may; each says what it got."""
    end = ClientEnd(["PIPELINING"])
    told = end.send("c@d.test", "e@d.test", "f@d.test")
    end.hear(OK, b"550 5.1.1 no\r\n", b"450 4.2.0 later\r\n", b"551 no\r\n", b"554 nobody\r\n")
    error = told.error(Refused, "RCPT")
    assert (error.code, error.temporary) == (450, True)
    assert [one.reply.code for one in error.result.recipients] == [550, 450, 551]


def test_552_to_rcpt_may_be_tried_again() -> None:
    """RFC 5321 section 4.5.3.1.10."""
    end = ClientEnd(["PIPELINING"])
    told = end.send("c@d.test", "e@d.test")
    end.hear(OK, b"550 5.1.1 no\r\n", b"552 too many\r\n", b"554 nobody\r\n")
    assert told.error(Refused, "RCPT").code == 552
    assert told.outcome.temporary


def test_what_a_result_says() -> None:
    end = ClientEnd(["PIPELINING"])
    told = end.send("c@d.test", "e@d.test")
    end.hear(OK * 2, b"550 5.1.1 no\r\n" + GO_ON, b"250 2.0.0 queued as 42\r\n")
    result = told.outcome
    assert (result.text, result.reply.code) == ("queued as 42", 250)
    assert [str(one.recipient) for one in result.accepted] == ["c@d.test"]
    assert [str(one.recipient) for one in result.refused] == ["e@d.test"]
    assert [one.reply.code for one in result.recipients] == [250, 550]


def test_what_a_result_of_lmtp_says() -> None:
    end = ClientEnd(lmtp=True)
    told = end.send("c@d.test", "e@d.test", "c@d.test")
    end.hear(OK * 4 + GO_ON, b"450 later\r\n", b"250 2.0.0 stored as 1\r\n250 2.0.0 stored as 2\r\n")
    result = told.outcome
    assert (result.text, result.reply) == ("stored as 1", None)
    assert [one.reply.code for one in result.recipients] == [450, 250, 250]
    assert accepted(result) == [False, True, True]


def test_421_between_the_answers_of_lmtp() -> None:
    end = ClientEnd(lmtp=True)
    told = end.send("c@d.test", "e@d.test", "f@d.test")
    end.hear(OK * 4 + GO_ON, b"250 stored\r\n", b"421 closing\r\n")
    assert accepted(told.outcome) == [True, False, False]
    errors = [one.error for one in told.outcome.recipients]
    assert [type(error) for error in errors[1:]] == [Refused, UnknownOutcome]


def test_a_chunk_of_lmtp_is_refused_behind_the_last() -> None:
    """Nobody has the message, and nobody is told so by a reply of his own."""
    end = ClientEnd(["CHUNKING", "8BITMIME"], lmtp=True, chunk_bytes=4)
    told = end.send("c@d.test", "e@d.test", body=Text(None))
    end.hear(OK * 3)
    end.write(end.bodies[0], b"one\r\n", b"two", end=True)
    assert end.said() == [b"BDAT 5\r\none\r\nBDAT 5 LAST\r\ntwo\r\n"]
    end.hear(b"552 too large\r\n")
    error = told.error(Refused, "BODY")
    assert [one.error.code for one in error.result.recipients] == [552, 552]


# -- cancelling ------------------------------------------------------------------------------


@pytest.mark.parametrize(("offers", "phase"), PLACES)
def test_cancel_at_each_step(offers: list[str], phase: str) -> None:
    end = ClientEnd(offers)
    told, behind = end.send(), end.send("e@d.test")
    end.hear(*replies_until(offers, phase))
    end.cancel(told)
    assert told.silent
    if phase == "END":
        # All was said, and what comes answers it.
        assert end.ends == []
        end.hear(b"250 queued\r\n")
        assert told.silent and behind.silent
    else:
        # Before that the peer may begin to wait for the message at any moment.
        behind.error(ConnectionFailed)
        assert len(end.ends) == 1
        assert end.said() == []


def test_cancel_before_it_is_said() -> None:
    end = ClientEnd()
    first, second, third = end.send(), end.send("e@d.test"), end.send("f@d.test")
    end.cancel(second)
    end.hear(OK, OK, GO_ON)
    assert end.hear(OK) == [b"MAIL FROM:<a@b.test>\r\n"]
    assert end.hear(OK) == [b"RCPT TO:<f@d.test>\r\n"]
    assert accepted(first.outcome) == [True]
    assert second.silent and third.silent


# -- step by step ------------------------------------------------------------------------------


def begun(end: ClientEnd, *steps: Told) -> None:
    end.hear(*[OK] * len(steps))
    end.said()


def test_the_message_needs_a_recipient() -> None:
    end = ClientEnd(["PIPELINING"])
    end.data().error(BadSequence)
    mail, rcpt, data = end.mail(), end.rcpt(), end.data()
    assert end.said() == [b"MAIL FROM:<a@b.test>\r\n", b"RCPT TO:<c@d.test>\r\n"]
    assert end.hear(OK, b"550 nobody\r\n") == []
    assert mail.outcome.code == 250
    rcpt.error(Refused, "RCPT")
    data.error(BadSequence)


def test_the_transaction_is_known() -> None:
    end = ClientEnd(["PIPELINING"])
    begun(end, end.mail(), end.rcpt())
    transaction = end.wire.transaction
    assert transaction is not None
    assert [str(one) for one in (transaction.sender, *transaction.recipients)] == ["a@b.test", "c@d.test"]
    reset = end.reset()
    end.hear(b"250 reset\r\n")
    assert reset.outcome.code == 250
    assert end.wire.transaction is None


def test_what_a_message_needs_is_found_before_it_is_begun() -> None:
    end = ClientEnd(["PIPELINING"])
    begun(end, end.mail(), end.rcpt())
    assert end.data("é".encode()).error(ExtensionMissing).keyword == "8BITMIME"
    assert end.said() == []
    # The transaction is still there.
    end.data(b"hello")
    assert end.said() == [b"DATA\r\n"]


def test_a_transaction_is_not_forgotten_when_the_message_cannot_travel() -> None:
    end = ClientEnd(["CHUNKING", "BINARYMIME", "8BITMIME"], chunking=False)
    begun(end, end.mail(options=Options({"BODY": "BINARYMIME"})))
    begun(end, end.rcpt())
    end.data(b"hello").error(ExtensionMissing)
    assert end.wire.transaction is not None or end.wire.needs_reset


def test_parameters_of_steps() -> None:
    end = ClientEnd(["DSN", "SIZE 100"])
    end.mail(options=options(RET="HDRS", SIZE=5))
    assert end.said() == [b"MAIL FROM:<a@b.test> RET=HDRS SIZE=5\r\n"]
    end.hear(OK)
    end.rcpt(options=Options.of({NOTIFY: frozenset({"DELAY"})}))
    assert end.said() == [b"RCPT TO:<c@d.test> NOTIFY=DELAY\r\n"]
    end.hear(OK)
    end.mail(options=Options.of({Parameter.flag("ODD"): True})).error(LocalProtocolError)
    end.rcpt(UTF8).error(ExtensionMissing)
    assert end.said() == []


def test_results_of_steps() -> None:
    end = ClientEnd(lmtp=True)
    begun(end, end.mail(), end.rcpt("c@d.test"), end.rcpt("e@d.test"))
    told = end.data()
    end.hear(GO_ON)
    end.hear(OK, b"450 later\r\n")
    assert accepted(told.outcome) == [True, False]
