"""
Preparing names, passwords and traces before they are compared (RFC 3454): SASLprep (RFC 4013), and "trace" (RFC 4505).

Two people who type the same must get the same octets, whatever their keyboard
makes of it; and nothing that cannot be seen may tell two names apart.

Rule: the texts of errors say what kind of character was found, never which one.
It may be a password's.
"""

from __future__ import annotations

import stringprep
from collections.abc import Callable
from unicodedata import ucd_3_2_0

__all__ = ["PreparationError", "prepare_trace", "saslprep"]

_Table = tuple[Callable[[str], bool], str]

#: RFC 4505 section 3.
_PROHIBITED_IN_TRACES: tuple[_Table, ...] = (
    (stringprep.in_table_c21_c22, "a control character"),
    (stringprep.in_table_c3, "a private use character"),
    (stringprep.in_table_c4, "a code point that is no character"),
    (stringprep.in_table_c5, "a surrogate"),
    (stringprep.in_table_c6, "a character that is not plain text"),
    (stringprep.in_table_c8, "a character that changes how text is displayed"),
    (stringprep.in_table_c9, "a tag"),
)

#: RFC 4013 section 2.3. Some spaces come out of the normalization only, so they are looked for as well.
_PROHIBITED: tuple[_Table, ...] = (
    *_PROHIBITED_IN_TRACES,
    (stringprep.in_table_c12, "a space that is not ASCII's"),
    (stringprep.in_table_c7, "a character that describes others"),
)


class PreparationError(ValueError):
    """A text with something in it that is not allowed."""


def saslprep(text: str, *, stored: bool = False) -> str:
    """
    Prepare a name or a password (RFC 4013).

    :param stored: whether the result is to be stored, or takes part in a key; code points that Unicode 3.2 does not
        know are prohibited then, because a later version may normalize them in another way (RFC 3454 section 7).
    :return: the prepared text; it may be empty.
    :raises PreparationError: if it has something in it that is prohibited.
    """
    if text.isascii() and text.isprintable():
        return text
    # RFC 4013 section 2.1. U+200B is in both tables; the spaces are named first.
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in text
        if stringprep.in_table_c12(char) or not stringprep.in_table_b1(char)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    _check(prepared, _PROHIBITED)
    if stored and any(map(stringprep.in_table_a1, prepared)):
        raise PreparationError("it holds a character that Unicode 3.2 does not know")
    return prepared


def prepare_trace(text: str) -> str:
    """
    Check what an anonymous client says of itself; nothing in it is changed (RFC 4505 section 3).

    :raises PreparationError: if it has something in it that is prohibited.
    """
    _check(text, _PROHIBITED_IN_TRACES)
    return text


def _check(text: str, prohibited: tuple[_Table, ...]) -> None:
    for in_table, what in prohibited:
        if any(map(in_table, text)):
            raise PreparationError(f"it holds {what}")
    # RFC 3454 section 6. Two names that look alike on a screen shall be alike.
    if any(map(stringprep.in_table_d1, text)) and (
        any(map(stringprep.in_table_d2, text))
        or not stringprep.in_table_d1(text[0])
        or not stringprep.in_table_d1(text[-1])
    ):
        raise PreparationError("it mixes directions of writing")
