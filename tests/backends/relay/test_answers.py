"""What the sender hears: the table of replies and errors, and one answer made of several."""

from __future__ import annotations

import pytest

from smtpfw.backends.relay.answers import answer_of, is_ours, merged, said
from smtpfw.errors import (
    NO_ENHANCED_CODE,
    BrokenPeer,
    ConfigError,
    ConnectionFailed,
    DataReset,
    DataTooLarge,
    ExtensionMissing,
    LocalProtocolError,
    Refused,
    SMTPError,
    TimedOut,
    TLSFailed,
    UnknownOutcome,
)
from smtpfw.wire.replies import Reply

FORWARDING_FAILED = "451 4.4.0 Forwarding failed, try again later"
NOT_LET_IN = "451 4.7.0 The next server does not let us in, try again later"


def refused(code: int, text: str = "because", enhanced: str = "", phase: str = "RCPT") -> Refused:
    codes = tuple(map(int, enhanced.split("."))) if enhanced else NO_ENHANCED_CODE
    return Refused(Reply(code, text, codes), phase=phase)  # type: ignore[arg-type]


def test_what_is_said_is_cut() -> None:
    """A next hop may say very much, for each recipient; the sender hears the first of it."""
    for text in ("x" * 2000, "one\ntwo " * 250):
        assert answer_of(refused(550, text)).message == text
        assert answer_of(refused(421, text)).message == text
        assert said(Reply(250, text, (2, 0, 0))) == Reply(250, text, (2, 0, 0))
    for text in ("x" * 2001, "y" * 500_000, "one\ntwo\n" * 10_000):
        short = text[:2000] + " ..."
        for error, code in ((refused(550, text), 550), (refused(421, text), 451), (refused(552, text), 452)):
            assert (answer_of(error).code, answer_of(error).message) == (code, short)
        assert said(Reply(250, text, (2, 1, 5))) == Reply(250, short, (2, 1, 5))
        # Of what is no plain 250 with an enhanced code, the text alone.
        assert said(Reply(252, text, (2, 5, 2))) == short
        assert said(Reply(250, text, NO_ENHANCED_CODE)) == short
        assert merged([Reply(250, text, (2, 0, 0))]) == Reply(250, short, (2, 0, 0))


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "BODY", "END"])
@pytest.mark.parametrize(
    ("code", "enhanced", "expected"),
    [
        (450, "4.2.0", "450 4.2.0 because"),
        (451, "", "451 because"),
        (452, "4.3.1", "452 4.3.1 because"),
        (501, "5.1.3", "501 5.1.3 because"),
        (550, "5.1.1", "550 5.1.1 because"),
        (550, "", "550 because"),
        (554, "5.7.1", "554 5.7.1 because"),
        (555, "5.5.4", "555 5.5.4 because"),
    ],
)
def test_what_is_said_of_the_message_is_passed_on(phase: str, code: int, enhanced: str, expected: str) -> None:
    error = refused(code, enhanced=enhanced, phase=phase)
    assert not is_ours(error)
    answer = answer_of(error)
    assert type(answer) is SMTPError
    assert str(answer) == expected


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "BODY", "END"])
@pytest.mark.parametrize(
    ("code", "enhanced", "expected"),
    [
        (421, "4.3.2", "451 4.4.2 because"),
        (421, "", "451 4.4.2 because"),
        (454, "4.7.0", NOT_LET_IN),
        (530, "5.7.0", NOT_LET_IN),
        (534, "5.7.9", NOT_LET_IN),
        (535, "5.7.8", NOT_LET_IN),
        (538, "5.7.11", NOT_LET_IN),
        (502, "5.5.1", FORWARDING_FAILED),
        (503, "5.5.1", FORWARDING_FAILED),
    ],
)
def test_what_is_said_of_us_is_for_the_operator(phase: str, code: int, enhanced: str, expected: str) -> None:
    error = refused(code, enhanced=enhanced, phase=phase)
    assert is_ours(error)
    assert str(answer_of(error)) == expected


@pytest.mark.parametrize("phase", ["CONNECT", "GREETING", "EHLO", "LHLO", "HELO", "RSET", ""])
@pytest.mark.parametrize("code", [450, 550, 554])
def test_a_refusal_before_the_message_says_nothing_of_it(phase: str, code: int) -> None:
    assert is_ours(refused(code, phase=phase))
    assert str(answer_of(refused(code, phase=phase))) == FORWARDING_FAILED


@pytest.mark.parametrize("phase", ["STARTTLS", "TLS", "AUTH"])
@pytest.mark.parametrize("code", [454, 504, 535, 550])
def test_nor_does_a_refused_login(phase: str, code: int) -> None:
    assert is_ours(refused(code, phase=phase))
    assert str(answer_of(refused(code, phase=phase))) == NOT_LET_IN


def test_552_to_rcpt_is_too_many_for_now() -> None:
    assert str(answer_of(refused(552))) == "452 4.5.3 because"
    assert str(answer_of(refused(552, enhanced="5.2.2"))) == "452 4.2.2 because"
    assert str(answer_of(refused(552, enhanced="5.3.4", phase="MAIL"))) == "552 5.3.4 because"
    assert str(answer_of(refused(552, enhanced="5.3.4", phase="END"))) == "552 5.3.4 because"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("lost", phase="RCPT"),
        TimedOut("late", phase="BODY"),
        TLSFailed("expired", phase="TLS"),
        BrokenPeer("what?", phase="DATA"),
        LocalProtocolError("no way to log in"),
        ConfigError("no such file"),
    ],
)
def test_what_goes_wrong_on_the_way_is_temporary(error: Exception) -> None:
    assert is_ours(error)
    assert str(answer_of(error)) == FORWARDING_FAILED


def test_nobody_knows() -> None:
    error = UnknownOutcome("lost", phase="END")
    assert is_ours(error)
    assert str(answer_of(error)).startswith("451 4.4.2 The next server has not said whether")


@pytest.mark.parametrize(
    "error",
    [DataTooLarge(), SMTPError(556, (5, 1, 10), "null"), ExtensionMissing("8BITMIME", "x", enhanced_code=(5, 6, 3))],
)
def test_a_refusal_of_ours_is_itself(error: SMTPError) -> None:
    assert not is_ours(error)
    assert answer_of(error) is error


@pytest.mark.parametrize("error", [DataReset("gone"), ZeroDivisionError()])
def test_anything_else_is_not_for_the_sender(error: Exception) -> None:
    with pytest.raises(type(error)):
        answer_of(error)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (None, None),
        (Reply(250, "ok", (2, 1, 0)), Reply(250, "ok", (2, 1, 0))),
        (Reply(251, "ok", (2, 1, 5)), Reply(251, "ok", (2, 1, 5))),
        (Reply(252, "ok", (2, 1, 5)), "ok"),
        (Reply(250, "ok", NO_ENHANCED_CODE), "ok"),
        (Reply(250, "", NO_ENHANCED_CODE), None),
    ],
)
def test_yes(reply: Reply | None, expected: object) -> None:
    assert said(reply) == expected


YES = Reply(250, "one", (2, 0, 0))
NO = SMTPError(550, (5, 1, 1), "nobody")
LATER = SMTPError(452, (4, 2, 2), "full")


@pytest.mark.parametrize("outcomes", [[YES], [YES, YES], [YES, Reply(250, "two")]])
def test_all_have_it(outcomes: list[Reply]) -> None:
    assert merged(outcomes) is YES


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([NO], "550 5.1.1 nobody"),
        ([NO, SMTPError(554, (5, 7, 1), "no")], "550 5.1.1 nobody"),
        ([YES, NO], "550 5.1.1 nobody"),
        ([LATER], "451 4.2.2 full"),
        ([YES, LATER], "451 4.2.2 full"),
        ([NO, YES, LATER], "451 4.2.2 full"),
        ([NO, LATER], "451 4.2.2 full"),
    ],
)
def test_somebody_has_not(outcomes: list[Reply | SMTPError], expected: str) -> None:
    with pytest.raises(SMTPError) as caught:
        merged(outcomes)
    assert str(caught.value) == expected


def test_nobody_is_no_success() -> None:
    with pytest.raises(ValueError, match="nobody"):
        merged([])


def test_what_is_no_answer_is_raised() -> None:
    with pytest.raises(DataReset):
        merged([YES, DataReset("gone")])
