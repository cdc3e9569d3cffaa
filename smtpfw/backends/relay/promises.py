"""
Which promises of extensions a backend that passes mail on may be told to make.

Rule: only the operator knows what the next hops do. What they offer can change
between two connections, and a promise has been made by then.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from smtpfw.errors import ConfigError, ExtensionMissing
from smtpfw.extensions import DSN, DeliverBy, FutureRelease, MTPriority, RecipientValidSince

__all__ = ["PROMISES", "is_broken", "promises_of"]

#: Keywords whose parameters travel on. REQUIRETLS is not among them: it follows from how the next hops are reached.
PROMISES = tuple(extension.keyword for extension in (DSN, DeliverBy, MTPriority, RecipientValidSince, FutureRelease))


def promises_of(kind: str, keywords: Collection[str] | str) -> frozenset[str]:
    """
    The keywords that an operator has named, in any case; one, or several.

    :param kind: what the backend is called.
    :raises ConfigError: for one that is none of :data:`PROMISES`.
    """
    named = (keywords,) if isinstance(keywords, str) else keywords
    return frozenset(_promise(kind, word) for word in named)


def is_broken(error: Exception) -> bool:
    """Whether a next hop does not offer what the operator has said that it keeps the promise of."""
    return isinstance(error, ExtensionMissing) and error.keyword in PROMISES


def _promise(kind: str, word: str) -> str:
    if word.upper() in PROMISES:
        return word.upper()
    close = difflib.get_close_matches(word.upper(), PROMISES, n=1)
    near = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(f"{kind}: honours: {word!r} is none of {', '.join(PROMISES)}{near}")
