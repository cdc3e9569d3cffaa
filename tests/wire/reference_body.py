"""
Bodies octet by octet: slow, and so plain that one can see that it is right. Tests and benchmarks hold the real codecs
against it.

A function takes all octets that have come so far and starts over each time, so it has no state that could be wrong
at the edge of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpfw.errors import LineTooLong, MalformedLines, SMTPError
from smtpfw.wire.profiles import NORMALIZE, REJECT

CR, LF, DOT = b"\r", b"\n", b"."


@dataclass
class Decoded:
    """What a decoder must have given and found, with just these octets."""

    text: bytes = b""
    size: int = 0
    finished: bool = False
    rest: bytes = b""
    error: type[SMTPError] | None = None


def octet_at(octets: bytes, position: int) -> bytes:
    """One octet, or nothing where there is none."""
    return octets[position : position + 1] if position >= 0 else b""


def decode_data(octets: bytes, bare_newlines: str = NORMALIZE, max_text_line: int = 0) -> Decoded:
    """What has come after the 354."""
    unstuffed = bytearray()
    finished, rest = False, b""
    for position in range(len(octets)):
        octet = octet_at(octets, position)
        behind_crlf = octet_at(octets, position - 2) == CR and octet_at(octets, position - 1) == LF
        if octet == DOT and (position == 0 or behind_crlf):
            ahead = octets[position + 1 : position + 3]
            if ahead == CR + LF:
                finished, rest = True, octets[position + 3 :]
                break
            if ahead in (b"", CR):
                # Whether this dot is stuffing or the end is not known yet.
                break
            continue
        unstuffed += octet
    decoded = decode_chunks(bytes(unstuffed), bare_newlines, max_text_line)
    decoded.finished, decoded.rest = finished, rest
    return decoded


def decode_chunks(
    octets: bytes, bare_newlines: str = NORMALIZE, max_text_line: int = 0, whole: bool = False
) -> Decoded:
    """
    The octets of some BDAT chunks, joined.

    :param whole: nothing will follow, so a CR at the end is a bare one.
    """
    text = bytearray()
    errors: list[type[SMTPError]] = []
    column = 0
    for position in range(len(octets)):
        octet = octet_at(octets, position)
        before, after = octet_at(octets, position - 1), octet_at(octets, position + 1)
        if octet == LF and before == CR:
            # The CR before it has ended the line.
            continue
        if octet in (CR, LF):
            text += CR + LF
            column = 0
            undecided = octet == CR and after == b"" and not whole
            if bare_newlines == REJECT and not (octet == CR and after == LF) and not undecided:
                errors.append(MalformedLines)
        else:
            text += octet
            column += 1
            if max_text_line and column > max_text_line:
                errors.append(LineTooLong)
    return Decoded(bytes(text), len(octets), error=errors[0] if errors else None)


def encode_data(octets: bytes) -> bytes:
    """The whole message, as it follows the 354."""
    lines = decode_chunks(octets, whole=True).text
    encoded = bytearray()
    at_line_start = True
    for position in range(len(lines)):
        octet = octet_at(lines, position)
        if octet == DOT and at_line_start:
            encoded += DOT
        encoded += octet
        at_line_start = octet == LF
    if not at_line_start:
        encoded += CR + LF
    return bytes(encoded + DOT + CR + LF)
