"""Where something is wrong, and all that is wrong at once."""

import pytest

from smtpfw.config.places import Place, Problems
from smtpfw.errors import ConfigError

OPTION = Place("--tls")
KEY = Place("listen.mx.tls", "smtpfw.toml", 12)
FILE = Place("", "smtpfw.toml", 1)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (OPTION, "--tls"),
        (KEY, "smtpfw.toml:12: listen.mx.tls"),
        (FILE, "smtpfw.toml:1"),
        (KEY.within("cert"), "smtpfw.toml:12: listen.mx.tls.cert"),
        (FILE.within("tls"), "smtpfw.toml:1: tls"),
    ],
)
def test_how_it_is_told(place: Place, words: str) -> None:
    assert str(place) == words
    assert str(place.error("it is wrong")) == f"{words}: it is wrong"
    assert str(place.error("it is wrong", "x")) == f"{words} x: it is wrong"


def test_an_error_is_one_line_whatever_stands_in_it() -> None:
    assert str(KEY.error("two\nlines", "a\nb")) == r"smtpfw.toml:12: listen.mx.tls 'a\nb': two lines"


def test_all_of_them_in_the_order_of_the_lines() -> None:
    problems = Problems()
    problems.check()
    assert not problems
    for line in (3, 1, 2, 1):
        problems.add(Place("key", "file", line), "wrong")
    problems.add(OPTION, "wrong")
    with problems.at(Place("key", "file", 4), "x"):
        raise ValueError("caught")
    with problems.at(Place("key", "file", 4)):
        raise ConfigError("caught")
    assert problems
    with pytest.raises(ConfigError) as caught:
        problems.check()
    assert str(caught.value).split("\n") == [
        "--tls: wrong",
        "file:1: key: wrong",
        "file:2: key: wrong",
        "file:3: key: wrong",
        "file:4: key x: caught",
        "file:4: key: caught",
    ]


def test_those_of_one_line_stay_in_the_order_in_which_they_were_found() -> None:
    problems = Problems()
    for key in ("b", "a", "b"):
        problems.add(Place(key, "file", 1), "wrong")
    with pytest.raises(ConfigError, match=r"^file:1: b: wrong\nfile:1: a: wrong$"):
        problems.check()


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(ZeroDivisionError), Problems().at(OPTION):
        raise ZeroDivisionError


def test_a_warning_is_no_error() -> None:
    problems = Problems()
    problems.warn(KEY, "odd")
    problems.warn(FILE, "odder")
    assert not problems
    problems.check()
    assert problems.warnings == ("smtpfw.toml:1: odder", "smtpfw.toml:12: listen.mx.tls: odd")
