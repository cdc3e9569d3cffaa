"""
Bodies on the wire: what DATA and BDAT wrap around the octets of a message, taken off and put on.

By RFC 5321 section 4.5.2 (transparency), section 2.3.8 (lines) and section
4.5.3.1.6 (their length), and RFC 3030 section 2 (BDAT). Decoders and encoders
are twins.

Rule 1: CRLF.CRLF ends DATA, and nothing else does. What one server takes for
the end and the next one does not is how a message is smuggled in behind
another (CVE-2023-51764, CVE-2023-51765, CVE-2023-51766).

Rule 2: a line of DATA begins behind a true CRLF, and at the start. Dots are
taken off first and newlines mended afterwards: the other way round a bare
newline before a dot would gain the power of a CRLF.

Rule 3: no text that is given out, to the application or to the peer, holds a
bare CR or a bare LF, however the input was cut.

Rule 4: whole chunks: find, count, replace, rfind; no loop per octet or line,
and no octet is kept to be read again with the next chunk. What has to be
remembered of the chunks before is a number or a flag, so the cost is linear
in the octets, however they are cut.
"""

from __future__ import annotations

from smtpfw.errors import LineTooLong, MalformedLines, SMTPError
from smtpfw.wire.profiles import NORMALIZE, REJECT

__all__ = [
    "BinaryDecoder",
    "ChunkDecoder",
    "ChunkJunk",
    "ChunkSizeUnknown",
    "DataDecoder",
    "DataEncoder",
    "encode_message",
    "format_bdat",
    "parse_bdat",
]

#: Digits of a chunk's size. RFC 3030 sets no bound; this is the one of SIZE (RFC 1870 section 3).
MAX_SIZE_DIGITS = 20

_LF = 10
_CRLF = b"\r\n"
_CRLF_DOT = b"\r\n."
_END = b"\r\n.\r\n"
# How a chunk may stop in the middle of the end, the longest first.
_BEGINNINGS_OF_END = tuple(_END[:length] for length in (4, 3, 2, 1))


class ChunkDecoder:
    """
    The text of BDAT chunks; the edges of the chunks mean nothing.

    :param bare_newlines: ``normalize``: every bare CR and every bare LF becomes CRLF, which can double the size of a
        chunk; ``reject``: the first one is an error.
    :param max_text_line: octets of a line, its end not included; 0 for no limit. Bare newlines end a line, too.

    :ivar size: octets so far, as they would count for SIZE (RFC 1870 section 5): before newlines are normalized.
    :ivar error: the first thing that was found wrong, :class:`~smtpfw.errors.MalformedLines` or
        :class:`~smtpfw.errors.LineTooLong`, or None. The decoder goes on all the same.
    """

    __slots__ = ("_after_cr", "_column", "_max_text_line", "_reject", "error", "size")

    def __init__(self, bare_newlines: str = NORMALIZE, max_text_line: int = 0) -> None:
        self._reject = bare_newlines == REJECT
        self._max_text_line = max_text_line
        # The last octet was a CR. It was given out as CRLF: that is right whether its LF follows or not.
        self._after_cr = False
        # Octets of the line that is not at its end yet.
        self._column = 0
        self.size = 0
        self.error: type[SMTPError] | None = None

    def feed(self, data: bytes) -> bytes:
        """
        Decode some octets.

        :return: the text of these octets, in whole lines or not; empty once something was found wrong under ``reject``.
        """
        self.size += len(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
            else:
                self._found_bare_newline()
        if self._reject and self.error is not None:
            return b""
        if data.endswith(b"\r"):
            self._after_cr = True
            data += b"\n"
        if not data.count(_CRLF) == data.count(b"\r") == data.count(b"\n"):
            if self._reject:
                self._refuse(data)
                return b""
            data = _normalized(data)
        if self._max_text_line and self.error is None:
            self._measure(data)
        return data

    def finish(self) -> bytes:
        """
        Say that this was all: under ``reject`` a CR as the last octet is found wrong here.

        :return: what was held back; nothing ever is.
        """
        if self._after_cr:
            self._found_bare_newline()
        return b""

    def _found_bare_newline(self) -> None:
        if self._reject and self.error is None:
            self.error = MalformedLines

    def _refuse(self, data: bytes) -> None:
        """Name what is wrong first with text that holds a bare newline: this one, or a long line before it."""
        if self._max_text_line:
            self._measure(data[: data.replace(_CRLF, b"..").replace(b"\r", b"\n").find(b"\n")])
        self._found_bare_newline()

    def _measure(self, data: bytes) -> None:
        """
        Look for a line over the limit, in text without a bare newline.

        It hops to the last line end within reach of a line that begins here. Two hops are longer than the limit
        together, so short lines cost nothing.
        """
        limit = self._max_text_line
        start = -self._column
        while len(data) - start > limit:
            end = data.rfind(b"\n", max(start, 0), start + limit + len(_CRLF))
            if end < 0:
                self.error = LineTooLong
                return
            start = end + 1
        self._column = len(data) - (data.rfind(b"\n", max(start, 0)) + 1 or start)


class DataDecoder(ChunkDecoder):
    """
    The text of DATA, its transparency undone (RFC 5321 section 4.5.2).

    Parameters, ``size`` and ``error`` are those of :class:`ChunkDecoder`; neither stuffing nor the final dot is in
    ``size``.

    :ivar finished: whether the true end has been read.
    :ivar rest: the octets behind the end, which are commands again; empty before.
    """

    __slots__ = ("_matched", "finished", "rest")

    def __init__(self, bare_newlines: str = NORMALIZE, max_text_line: int = 0) -> None:
        super().__init__(bare_newlines, max_text_line)
        # Octets of the end that the input stops with. At the start it is as if a CRLF had come before: the first line
        # may begin with a dot, and that dot may be the final one.
        self._matched = len(_CRLF)
        self.finished = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """
        Decode some octets, up to the end of the message.

        :return: all of the text that is certain by now.
        :raises RuntimeError: behind the end; those octets are in ``rest``.
        """
        if self.finished:
            raise RuntimeError("the message is at its end, this belongs to the commands")
        if not data:
            return b""
        matched = self._matched
        given = 0
        if data[0] == _END[matched] or matched == 4:
            # The octets before may now become a stuffed dot or the end; or, if they were ".\r", the CR is text. The
            # CRLF that they begin with is text in any case, and was given out.
            data = _END[:matched] + data
            given = min(matched, len(_CRLF))
        # Few messages have a line with a dot, and where there is none, there is no end.
        dot = data.find(_CRLF_DOT)
        end = data.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            self.finished = True
            self.rest = data[end + len(_END) :]
            data = data[: end + len(_CRLF)]
        else:
            self._matched = matched = _length_of_beginning(data)
            if matched > len(_CRLF):
                data = data[: len(_CRLF) - matched]
        if dot >= 0 and dot != end:
            data = data.replace(_CRLF_DOT, _CRLF)
        return super().feed(data[given:])


def _length_of_beginning(data: bytes) -> int:
    """How many octets of the end of DATA stand at the end of ``data``."""
    for beginning in _BEGINNINGS_OF_END:
        if data.endswith(beginning):
            return len(beginning)
    return 0


class BinaryDecoder:
    """
    The octets of BDAT chunks with BODY=BINARYMIME: as they were sent (RFC 3030 section 3).

    :ivar size: octets so far.
    :ivar error: always None.
    """

    __slots__ = ("error", "size")

    def __init__(self) -> None:
        self.size = 0
        self.error: type[SMTPError] | None = None

    def feed(self, data: bytes) -> bytes:
        """Count some octets."""
        self.size += len(data)
        return data

    def finish(self) -> bytes:
        """Say that this was all; nothing was held back."""
        return b""


class DataEncoder:
    """
    A message on its way out by DATA, the twin of :class:`DataDecoder`.

    What one message holds can't end it early, nor make the receiver read on differently: dots are stuffed, and every
    bare CR and bare LF becomes CRLF, across any edge of the chunks.
    """

    __slots__ = ("_at_line_start", "_text")

    def __init__(self) -> None:
        # What we send is held to the rule for what we take.
        self._text = ChunkDecoder(NORMALIZE)
        self._at_line_start = True

    def feed(self, data: bytes) -> bytes:
        """Encode some octets of the message."""
        data = self._text.feed(data)
        if not data:
            return b""
        stuffed = data.replace(_CRLF_DOT, b"\r\n..")
        if self._at_line_start and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = data.endswith(b"\n")
        return stuffed

    def finish(self) -> bytes:
        """The final dot, with a CRLF before it when the message does not end in one; an empty message needs none."""
        return b".\r\n" if self._at_line_start else _END


def encode_message(data: bytes) -> bytes:
    """What :class:`DataEncoder` makes of a whole message, the final dot with it."""
    if not data.count(_CRLF) == data.count(b"\r") == data.count(b"\n"):
        data = _normalized(data)
    data = data.replace(_CRLF_DOT, b"\r\n..")
    if data.startswith(b"."):
        data = b"." + data
    return data + (b".\r\n" if not data or data.endswith(b"\n") else _END)


def _normalized(data: bytes) -> bytes:
    return data.replace(_CRLF, b"\n").replace(b"\r", b"\n").replace(b"\n", _CRLF)


class ChunkSizeUnknown(ValueError):
    """BDAT without a readable size: nobody knows where the next command begins."""


class ChunkJunk(ValueError):
    """
    BDAT with a size and something behind it that is not LAST: the octets will come all the same.

    :ivar size: how many.
    """

    def __init__(self, size: int) -> None:
        super().__init__("only LAST may follow the size of a chunk")
        self.size = size


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """
    Read what follows ``BDAT ``: ``1000`` or ``1000 LAST``.

    :return: the octets of the chunk, and whether it is the last one.
    :raises ChunkSizeUnknown: if there is no number of at most :data:`MAX_SIZE_DIGITS` digits.
    :raises ChunkJunk: if there is anything but LAST behind it.
    """
    digits, _, word = argument.strip(b" ").partition(b" ")
    # int() alone would take "+1", "1_000" and other whitespace around it.
    if not digits.isdigit() or len(digits) > MAX_SIZE_DIGITS:
        raise ChunkSizeUnknown("BDAT needs the size of the chunk")
    size = int(digits)
    word = word.lstrip(b" ").upper()
    if word not in (b"", b"LAST"):
        raise ChunkJunk(size)
    return size, word == b"LAST"


def format_bdat(size: int, last: bool = False) -> bytes:
    """
    The line ``BDAT 1000`` or ``BDAT 1000 LAST``, CRLF included.

    :raises ValueError: for a size that :func:`parse_bdat` would not take.
    """
    if not 0 <= size < 10**MAX_SIZE_DIGITS:
        raise ValueError(f"no size of a chunk: {size}")
    return b"BDAT %d LAST\r\n" % size if last else b"BDAT %d\r\n" % size
