"""
The lines of a peer: how long each may be, who wants the next, and what a line gets that can't be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from smtpfw.wire.buffer import BareNewline, EndlessLine, LineError, LineOverLimit, ReceiveBuffer
from smtpfw.wire.replies import Reply

_BARE_NEWLINE = Reply(500, "lines must end in CRLF", (5, 5, 2))
_TOO_LONG = Reply(500, "Line too long", (5, 5, 2))
_LONG_VERB_TOO_LONG = Reply(500, "Line too long", (5, 5, 6))
_ENDLESS = Reply(421, "Line without an end, closing transmission channel", (4, 7, 0))

#: Called with a line, or with None when it was over its limit.
Take = Callable[[bytes | None], None]


class Lines:
    """
    :param buffer: what has been received.
    :param limit: octets of a line, its end included.
    :param max_lines: limits of single verbs that may be longer.
    """

    __slots__ = ("_buffer", "_limit", "_max_lines", "_take", "_take_limit")

    def __init__(self, buffer: ReceiveBuffer, limit: int, max_lines: Mapping[bytes, int]) -> None:
        self._buffer = buffer
        self._limit = limit
        self._max_lines = max_lines
        self._take: Take | None = None
        self._take_limit = 0

    @property
    def wanted(self) -> bool:
        """Whether a verb waits for the next line."""
        return self._take is not None

    def want(self, take: Take, limit: int) -> None:
        """Give the next line to ``take``, not to a verb; it may have ``limit`` octets."""
        self._take, self._take_limit = take, limit

    def want_none(self) -> None:
        """Nobody waits for a line any more."""
        self._take = None

    def give(self, line: bytes | None) -> None:
        """Give the line to who wants it; None for one that was over its limit."""
        take, self._take = self._take, None
        assert take is not None
        take(line)

    def next(self) -> bytes | None:
        """
        The next line without its line end, or None while it is not whole.

        :raises LineError: as :meth:`ReceiveBuffer.next_line`.
        """
        limit = self._limit
        if self._take is not None:
            limit = self._take_limit
        elif self._max_lines and len(self._buffer) > limit:
            limit = self._max_lines.get(self._buffer.first_word(), limit)
        return self._buffer.next_line(limit)

    def refusal(self, error: LineError) -> tuple[Reply, bool]:
        """What a line gets that can't be used, and whether it is the end of the connection."""
        if isinstance(error, BareNewline):
            # What one program takes for a line end and another does not is how commands are smuggled: no guessing.
            return _BARE_NEWLINE, True
        if isinstance(error, EndlessLine):
            return _ENDLESS, True
        assert isinstance(error, LineOverLimit)
        # RFC 4954 section 6 has a code of its own for the line that may be long.
        return (_LONG_VERB_TOO_LONG if self._buffer.skipped_word in self._max_lines else _TOO_LONG), False
