"""SASLprep and the profile for traces."""

from __future__ import annotations

import stringprep

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.sasl.saslprep import PreparationError, prepare_trace, saslprep

#: The first six are the examples of RFC 4013 section 3.
PREPARED = [
    ("I\u00adX", "IX"),
    ("user", "user"),
    ("USER", "USER"),
    ("\u00aa", "a"),
    ("\u2168", "IX"),
    ("", ""),
    ("\u00ad", ""),
    ("a\u00a0b\u3000c\u2003d", "a b c d"),
    ("e\u0301", "\u00e9"),
    ("\ufb01", "fi"),
    ("\u0627\u0628", "\u0627\u0628"),
    ("\u06271\u0628", "\u06271\u0628"),
    ("p ss", "p ss"),
    ("\U0001f600", "\U0001f600"),  # unknown to Unicode 3.2: allowed in a question
]

PROHIBITED = [
    ("\u0007", "a control character"),
    ("a\0b", "a control character"),
    ("a\x7f", "a control character"),
    ("a\u0085", "a control character"),
    ("a\n", "a control character"),
    ("\ue000", "a private use character"),
    ("\uffff", "a code point that is no character"),
    ("\ud800", "a surrogate"),
    ("\ufffd", "not plain text"),
    ("\u2ff0", "describes others"),
    ("\u202e", "how text is displayed"),
    ("\U000e0041", "a tag"),
    ("\u06271", "directions"),
    ("1\u0627", "directions"),
    ("\u0627a\u0628", "directions"),
]


@pytest.mark.parametrize(("text", "prepared"), PREPARED)
def test_prepared(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(("text", "what"), PROHIBITED)
@pytest.mark.parametrize("stored", [False, True])
def test_prohibited(text: str, what: str, stored: bool) -> None:
    with pytest.raises(PreparationError, match=what):
        saslprep(text, stored=stored)


def test_stored() -> None:
    assert saslprep("\u2168", stored=True) == "IX"
    with pytest.raises(PreparationError, match=r"Unicode 3\.2"):
        saslprep("pass\U0001f600", stored=True)


@given(st.text(st.characters()), st.booleans())
def test_what_holds_for_all(text: str, stored: bool) -> None:
    try:
        prepared = saslprep(text, stored=stored)
    except PreparationError:
        return
    prepared.encode("utf-8")
    assert not any(char < " " or stringprep.in_table_c12(char) for char in prepared)
    if stored:
        # Preparing is done once, by whoever comes first.
        assert saslprep(prepared, stored=True) == prepared


@given(st.text(st.characters()))
def test_traces(text: str) -> None:
    try:
        assert prepare_trace(text) == text
    except PreparationError:
        assert not (text.isascii() and text.isprintable())


@pytest.mark.parametrize("text", ["", "sirhc", "a\u00a0b", "\u00ad", "\u2ff0", "\U0001f600", "a@b"])
def test_traces_are_not_changed(text: str) -> None:
    assert prepare_trace(text) == text


@pytest.mark.parametrize("text", ["\0", "\r\n", "\ue000", "\uffff", "\ufffd", "\u202e", "\U000e0041", "\u06271"])
def test_prohibited_in_traces(text: str) -> None:
    with pytest.raises(PreparationError):
        prepare_trace(text)
