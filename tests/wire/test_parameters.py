"""Parameters of MAIL and RCPT, and the options that they become."""

from __future__ import annotations

import pytest

from smtpfw.errors import SMTPError, SyntaxProblem, UnknownParameter
from smtpfw.wire.parameters import NO_OPTIONS, Options, Parameter, parse_options

FLAG = Parameter.flag("FLAG")
BODY = Parameter.choice("BODY", "7BIT", "8BITMIME", default="7BIT")
NUMBER = Parameter("NUMBER", parse=lambda text: int(text or "x"), format=str, default=3)
KNOWN = {parameter.keyword: parameter for parameter in (FLAG, BODY, NUMBER)}


def test_values() -> None:
    options = parse_options({"FLAG": None, "BODY": "8bitmime", "NUMBER": "42"}, KNOWN)
    assert (options[FLAG], options[BODY], options[NUMBER]) == (True, "8BITMIME", 42)
    assert FLAG in options


def test_defaults() -> None:
    options = parse_options({"FLAG": None}, KNOWN)
    assert (options[BODY], options[NUMBER]) == ("7BIT", 3)
    assert BODY not in options
    assert NO_OPTIONS[FLAG] is False


def test_without_parameters_there_is_one_object() -> None:
    assert parse_options({}, KNOWN) is NO_OPTIONS


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"FLAG": "1"}, "FLAG takes no value"),
        ({"BODY": None}, "BODY must be one of 7BIT, 8BITMIME"),
        ({"BODY": "9BIT"}, "BODY must be one of 7BIT, 8BITMIME"),
        # In capitals it is the word.
        ({"BODY": "8b\u0131tmime"}, "BODY must be one of 7BIT, 8BITMIME"),
        ({"NUMBER": "many"}, "NUMBER invalid literal"),
    ],
)
def test_bad_values(raw: dict[str, str | None], message: str) -> None:
    with pytest.raises(SyntaxProblem, match=message) as raised:
        parse_options(raw, KNOWN)
    assert (raised.value.code, str(raised.value.enhanced_code)) == (501, "5.5.4")


def test_unknown() -> None:
    with pytest.raises(UnknownParameter, match="OTHER") as raised:
        parse_options({"FLAG": None, "OTHER": None}, KNOWN)
    assert (raised.value.code, str(raised.value.enhanced_code)) == (555, "5.5.4")


def test_a_refusal_of_its_own_passes() -> None:
    def parse(text: str | None) -> str:
        raise SMTPError(552, (5, 3, 4), "too large")

    parameter = Parameter("SIZE", parse=parse, format=str, default="")
    with pytest.raises(SMTPError, match="too large"):
        parse_options({"SIZE": "1"}, {"SIZE": parameter})


def test_format_is_the_twin_of_parse() -> None:
    for parameter, value in ((FLAG, True), (BODY, "8BITMIME"), (NUMBER, 42)):
        assert parameter.parse(parameter.format(value)) == value


def test_properties_that_every_program_asks_for() -> None:
    assert (NO_OPTIONS.body, NO_OPTIONS.size, NO_OPTIONS.utf8, NO_OPTIONS.require_tls, NO_OPTIONS.auth) == (
        "7BIT",
        0,
        False,
        False,
        None,
    )
    options = Options({"BODY": "8BITMIME", "SIZE": 9, "SMTPUTF8": True, "REQUIRETLS": True, "AUTH": "x"})
    assert (options.body, options.size, options.auth) == ("8BITMIME", 9, "x")
    assert options.utf8 and options.require_tls


def test_equality() -> None:
    assert Options({"SIZE": 1}) == Options({"SIZE": 1}) != Options({"SIZE": 2})
    assert len({Options({"SIZE": 1}), Options({"SIZE": 1})}) == 1
    assert Options() != {}
    assert repr(Options({"SIZE": 1})) == "Options({'SIZE': 1})"
