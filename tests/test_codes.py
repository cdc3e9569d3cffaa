"""The reply codes: that none we send is missing, and that they serve wherever a number does."""

from __future__ import annotations

import re

import pytest

from smtpfw.codes import ReplyCode, standard_text
from smtpfw.errors import SMTPError
from smtpfw.wire.replies import CANNOT_VERIFY, START_MAIL_INPUT, Reply
from tests.test_layers import modules

#: Where a code is written: in a reply, in an error, on the class of an error.
_CODE = re.compile(r"(?:\bReply\(|\bSMTPError\(|^    code = )([2-5]\d\d)\b", re.MULTILINE)

#: RFC 5321 section 4.2.3.
OF_RFC_5321 = "211 214 220 221 250 251 252 354 421 450 451 452 455 500 501 502 503 504 550 551 552 553 554 555"


def test_every_code_of_the_rfc_has_a_name() -> None:
    assert {int(code) for code in OF_RFC_5321.split()} <= set(ReplyCode)


def test_every_code_that_is_sent_has_a_name() -> None:
    sent = {int(code) for _, path in modules() for code in _CODE.findall(path.read_text())}
    assert {220, 235, 250, 334, 354, 421, 454, 538, 555} <= sent
    assert sent <= set(ReplyCode)


def test_names_and_texts_are_not_shared() -> None:
    # An alias, two names for one number, would have the text of the first.
    assert len(ReplyCode.__members__) == len(set(ReplyCode))
    assert len({code.text for code in ReplyCode} - {""}) == len(ReplyCode)


@pytest.mark.parametrize("code", ReplyCode)
def test_every_text_goes_into_one_line(code: ReplyCode) -> None:
    assert Reply(code, code.text).wire.count(b"\r\n") == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (250, "Requested mail action okay, completed"),
        (ReplyCode.BAD_SEQUENCE, "Bad sequence of commands"),
        (554, "Transaction failed"),
        (299, "Requested action completed"),
        (399, "More information is needed to go on"),
        (400, "Requested action not taken, try again later"),
        (599, "Requested action not taken"),
    ],
)
def test_standard_text(code: int, text: str) -> None:
    assert standard_text(code) == text


@pytest.mark.parametrize("code", [0, 199, 600, -250])
def test_no_reply_code(code: int) -> None:
    with pytest.raises(ValueError, match="a reply code is 200 to 599"):
        standard_text(code)


def test_what_is_sent_is_the_number() -> None:
    assert Reply(ReplyCode.OK, "fine").wire == b"250 2.0.0 fine\r\n"
    assert Reply(ReplyCode.OK, "fine") == Reply(250, "fine")
    assert str(SMTPError(ReplyCode.MAILBOX_UNAVAILABLE, (5, 1, 1), "nobody")) == "550 5.1.1 nobody"
    assert [ReplyCode(reply.code).text for reply in (CANNOT_VERIFY, START_MAIL_INPUT)] == [
        CANNOT_VERIFY.text,
        START_MAIL_INPUT.text,
    ]
