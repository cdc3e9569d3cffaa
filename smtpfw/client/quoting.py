"""
The quoting of endpoint strings, as Twisted has it: a backslash takes the next character as it is.
"""

from __future__ import annotations

import re

__all__ = ["split_quoted", "unquote"]

_WELL_QUOTED = re.compile(r"(?:[^\\]|\\.)*+")
_PIECES = {separator: re.compile(rf"((?:[^{separator}\\]|\\.)*+){separator}") for separator in ":,"}


def split_quoted(text: str, separator: str = ":") -> list[str]:
    """
    Split at the separators that have no backslash before them; the backslashes stay.

    :param separator: a colon or a comma.
    :raises ValueError: if there is a backslash at the end.
    """
    if not _WELL_QUOTED.fullmatch(text):
        raise ValueError("a backslash at the end quotes nothing; write two for one")
    return _PIECES[separator].findall(text + separator)


def unquote(text: str) -> str:
    """Take the backslashes away."""
    return re.sub(r"\\(.)", r"\1", text)
