"""Strings with backslashes in them, taken apart."""

from __future__ import annotations

import pytest

from smtpfw.client.quoting import split_quoted, unquote


@pytest.mark.parametrize(
    ("text", "separator", "pieces"),
    [
        ("", ":", [""]),
        ("a", ":", ["a"]),
        ("a:b,c", ":", ["a", "b,c"]),
        ("a:b,c", ",", ["a:b", "c"]),
        (":", ":", ["", ""]),
        (r"a\:b:c", ":", [r"a\:b", "c"]),
        (r"a\\:b", ":", [r"a\\", "b"]),
        (r"a\,b,c\:", ",", [r"a\,b", r"c\:"]),
    ],
)
def test_where_it_is_split(text: str, separator: str, pieces: list[str]) -> None:
    assert split_quoted(text, separator) == pieces


@pytest.mark.parametrize("text", ["\\", "a:\\", "a\\\\\\"])
def test_a_backslash_that_quotes_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="a backslash at the end quotes nothing"):
        split_quoted(text)


def test_what_is_quoted() -> None:
    assert unquote(r"a\:\\\=b") == r"a:\=b"
