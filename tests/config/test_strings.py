"""The grammar of endpoint strings, held against Twisted's own reader of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints

from smtpfw.config.strings import Description, parse_description, quote, split_words
from smtpfw.errors import ConfigError


def test_a_string_is_taken_apart() -> None:
    text = r"maildir:/var/mail:eol=lf:a\:b:x=1=2"
    assert parse_description(text) == Description(text, "maildir", ("/var/mail", "a:b"), {"eol": "lf", "x": "1=2"})


def test_a_prefix_alone() -> None:
    assert parse_description("memory") == Description("memory", "memory")


@given(st.text(alphabet="ab:=\\", max_size=20).filter(lambda text: (len(text) - len(text.rstrip("\\"))) % 2 == 0))
def test_it_reads_what_twisted_reads(text: str) -> None:
    arguments, named = endpoints._parse(text)
    try:
        ours = parse_description(text)
    except ConfigError:
        # Twisted takes the last of two values silently.
        names = [name for name in text.split(":") if "=" in name]
        assert len(names) > len(named)
        return
    assert [ours.prefix, *ours.positional] == (arguments or [""])
    assert ours.named == named


@given(st.text())
def test_a_quoted_text_is_one_argument(text: str) -> None:
    assert parse_description(f"x:{quote(text)}").positional == (text,)
    assert parse_description(f"x:y={quote(text)}").named == {"y": text}


def test_words_know_no_names() -> None:
    assert split_words(r"a=b.pem:c\:d.pem") == ["a=b.pem", "c:d.pem"]


@pytest.mark.parametrize("text", ["maildir:/x\\", "\\"])
def test_a_lone_backslash_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="backslash"):
        parse_description(text)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="x= is given twice"):
        parse_description("memory:x=1:x=2")
