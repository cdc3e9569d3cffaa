"""
What has been received and not yet been used: lines out, octets out.

Rule 1: a line ends in CRLF. A bare LF ends one only where the profile says so,
and a bare CR never does: what one program takes for a line end and another
does not is how commands are smuggled.

Rule 2: a line over its limit is not kept. It is skipped to its CRLF as it
comes, and reported once, so that the session can go on; past
:data:`MAX_SKIPPED` octets without a line end nobody is talking SMTP.
"""

from __future__ import annotations

#: Octets of one line that are skipped before the peer is given up. Precedents: Twisted LineReceiver 16,384;
#: Go textproto and chrj/smtpd 65,536.
MAX_SKIPPED = 65536


class LineError(Exception):
    """A line that can't be used; the children say why."""


class BareNewline(LineError):
    """A line with a bare CR in it, or ended by a bare LF."""


class LineOverLimit(LineError):
    """A line longer than the limit; it has been skipped to its end."""


class EndlessLine(LineError):
    """No line end within :data:`MAX_SKIPPED` octets."""


class ReceiveBuffer:
    """
    Octets in order of arrival.

    :param bare_lf: take a bare LF as the end of a line.
    """

    __slots__ = ("_bare_lf", "_data", "_position", "_searched", "_skipped", "skipped_word")

    def __init__(self, bare_lf: bool = False) -> None:
        self._bare_lf = bare_lf
        self._data = b""
        self._position = 0
        # Up to here there is no LF: a line that comes octet by octet is not searched from its start again.
        self._searched = 0
        self._skipped = 0
        #: The first word of the last line that was skipped, in capitals.
        self.skipped_word = b""

    def __len__(self) -> int:
        return len(self._data) - self._position

    def append(self, data: bytes) -> None:
        if self._position == len(self._data):
            self._data = data
            self._position = self._searched = 0
        else:
            self._data = self._data[self._position :] + data
            self._searched = max(self._searched - self._position, 0)
            self._position = 0

    def put_back(self, data: bytes) -> None:
        """Give back the end of what :meth:`take` gave."""
        self._data = data + self.take()
        self._position = self._searched = 0

    def take(self) -> bytes:
        """All that is there."""
        data = self._data[self._position :] if self._position else self._data
        self.clear()
        return data

    def clear(self) -> None:
        self._data = b""
        self._position = self._searched = 0

    def has_line(self) -> bool:
        """Whether a whole line is there."""
        return self._data.find(b"\n", max(self._position, self._searched)) >= 0

    def first_word(self) -> bytes:
        """The beginning of a line that is not whole yet, up to its first space, in capitals."""
        return self._data[self._position : self._position + 64].partition(b" ")[0].upper()

    def next_line(self, limit: int) -> bytes | None:
        """
        The next line without its line end, or None while it is not whole.

        :param limit: octets of a line, its end included.
        :raises LineError: the line is used up then, but for :class:`EndlessLine`.
        """
        if self._skipped:
            self._skip()
            return None
        data, start = self._data, self._position
        end = data.find(b"\n", self._searched if self._searched > start else start)
        if end < 0:
            self._searched = len(data)
            if self._searched - start > limit:
                self._skip()
            return None
        if end + 1 - start > limit:
            self._skip()
            return None
        self._position = end + 1
        if end > start and data[end - 1] == 13:
            line = data[start : end - 1]
        elif self._bare_lf:
            line = data[start:end]
        else:
            raise BareNewline
        if b"\r" in line:
            raise BareNewline
        if end + 1 == len(data):
            # The segment must not be kept for as long as its peer is idle.
            self.clear()
        return line

    def _skip(self) -> None:
        """Drop octets up to the line's end, then report it."""
        if not self._skipped:
            self.skipped_word = self.first_word()
        ending = b"\n" if self._bare_lf else b"\r\n"
        end = self._data.find(ending, self._position)
        if 0 <= end <= self._position + MAX_SKIPPED - self._skipped:
            self._skipped = 0
            self._position = self._searched = end + len(ending)
            raise LineOverLimit
        # A CR at the very end may be half of the CRLF.
        kept = self._data[-1:] if self._data.endswith(b"\r") else b""
        self._skipped += len(self) - len(kept)
        self._data = kept
        self._position = 0
        self._searched = 0
        if self._skipped > MAX_SKIPPED:
            raise EndlessLine
