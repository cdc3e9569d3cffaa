"""Errors that are replies."""

from __future__ import annotations

import pickle

import pytest

from smtpfw import errors
from smtpfw.codes import ReplyCode
from smtpfw.errors import (
    BrokenPeer,
    ClientError,
    ConnectionFailed,
    EnhancedCode,
    MailboxUnavailable,
    NamedSMTPError,
    Refused,
    SMTPError,
    TimedOut,
    TLSFailed,
    UnknownOutcome,
)
from smtpfw.wire.replies import Reply

NAMED = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, NamedSMTPError) and value is not NamedSMTPError
]


@pytest.mark.parametrize("named", NAMED)
def test_named_children(named: type[NamedSMTPError]) -> None:
    error = named()
    assert 400 <= error.code <= 599
    # RFC 2034 section 4: the classes of both codes agree.
    assert error.enhanced_code.klass == error.code // 100
    assert error.message and error.message.isprintable()
    assert named("other words").message == "other words"
    assert named("other words").code == error.code
    assert named.message == error.message


def test_there_are_some() -> None:
    assert MailboxUnavailable in NAMED and len(NAMED) >= 15


def test_defaults() -> None:
    error = SMTPError()
    assert (error.code, error.enhanced_code.klass, error.temporary) == (451, 0, True)
    assert str(error) == "451 Requested action aborted: local error in processing"
    assert str(SMTPError(550, (5, 7, 1), "no")) == "550 5.7.1 no"
    assert not SMTPError(550).temporary


@pytest.mark.parametrize("code", [0, 220, 250, 399, 600])
def test_a_refusal_is_of_class_4_or_5(code: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        SMTPError(code)


@pytest.mark.parametrize(("code", "enhanced_code"), [(550, (4, 0, 0)), (450, (5, 0, 0)), (450, (2, 0, 0))])
def test_the_classes_agree(code: int, enhanced_code: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="does not belong to the class"):
        SMTPError(code, enhanced_code)


def test_an_own_child() -> None:
    class Greylisted(NamedSMTPError):
        code = 450
        enhanced_code = EnhancedCode(4, 7, 1)
        message = "Come again"

    assert str(Greylisted()) == "450 4.7.1 Come again"


def test_instances_do_not_share_their_words() -> None:
    MailboxUnavailable("words of one")
    assert MailboxUnavailable().message == MailboxUnavailable.message != "words of one"


def test_a_plain_error_can_be_pickled() -> None:
    error = SMTPError(550, (5, 7, 1), "no")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("text", ["2.0.0", "4.7.10", "5.999.999"])
def test_enhanced_codes(text: str) -> None:
    assert str(EnhancedCode.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "5", "5.1", "5.1.1.1", "3.0.0", "1.0.0", "5.1000.0", "5.-1.0", "5.+1.0", "5. 1.0", "5.1.x", "5.\u0661.0"],
)
def test_what_is_no_enhanced_code(text: str) -> None:
    with pytest.raises(ValueError, match="enhanced status code"):
        EnhancedCode.parse(text)


def test_a_code_alone_has_its_standard_text() -> None:
    assert str(SMTPError(550)) == "550 Requested action not taken: mailbox unavailable"
    assert SMTPError(ReplyCode.INSUFFICIENT_STORAGE).message == ReplyCode.INSUFFICIENT_STORAGE.text
    assert SMTPError().message.startswith("Requested action aborted")


#: What a peer may say to whoever reads a log, and what is left of it.
SAID = [
    ("no", "no"),
    ("first\nsecond", "first second"),
    ("\x1b[2J\x07\x00\r\n\t.", " [2J     ."),
    ("\u202egro.elpmaxe\u2028\x85", " gro.elpmaxe  "),
    ("caf\u00e9", "caf\u00e9"),
    ("x" * 500, "x" * 500),
    ("x" * 501, "x" * 500 + " ..."),
    ("x\n" * 100_000, "x " * 250 + " ..."),
]


@pytest.mark.parametrize(("text", "shown"), SAID)
@pytest.mark.parametrize("kind", [ClientError, ConnectionFailed, TimedOut, TLSFailed, BrokenPeer, UnknownOutcome])
def test_what_is_shown_of_a_peer_is_one_line(kind: type[ClientError], text: str, shown: str) -> None:
    error = kind(text, phase="EHLO", peer="mx.test:25")
    assert str(error) == f"mx.test:25: EHLO: {shown}"
    assert error.args[0] == text


@pytest.mark.parametrize(("text", "shown"), SAID[:6])
def test_a_refusal_is_shown_as_one_line_and_has_all_that_was_said(text: str, shown: str) -> None:
    error = Refused(Reply(550, text, EnhancedCode(5, 7, 1)), phase="RCPT", peer="mx.test:25")
    # The limit is one for the codes and the text together.
    assert str(error)[:500] == f"mx.test:25 refused RCPT: 550 5.7.1 {shown}"[:500]
    assert str(error).isprintable()
    assert error.reply.text == error.message == text


def test_a_long_refusal_is_cut() -> None:
    error = Refused(Reply(550, "x" * 100_000), phase="RCPT", peer="mx.test:25")
    assert str(error) == f"mx.test:25 refused RCPT: 550 5.0.0 {'x' * 490} ..."
