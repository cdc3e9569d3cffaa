"""
The message on its way through: our Received field, then the octets as they arrive.

Rule 1: a piece is read when the next hop has room for it, and one is held at a
time. So a slow next hop pauses the sender, and a message of any size costs the
same memory.

Rule 2: what ends the message early is raised to whoever sends it on, as it was.
Never does the next hop see an end that the sender has not sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from smtpfw.client import OutgoingBody
from smtpfw.errors import ExtensionMissing
from smtpfw.interfaces import IBody

__all__ = ["passed_on"]

#: Octets of a header section that are looked through, for one end.
_MAX_HEADER = 256 * 1024


def passed_on(body: IBody, received: bytes, *, binary: bool = False, ascii_header: bool = False) -> OutgoingBody:
    """
    What a client can send.

    :param body: as it arrives.
    :param received: whole lines that are put in front (RFC 5321 section 4.4).
    :param binary: whether it is to go as octets without lines (RFC 3030 section 3).
    :param ascii_header: whether UTF-8 in the header section ends it, for the next hop does not take that:
        :class:`~smtpfw.errors.ExtensionMissing`, 550 5.6.7.
    """
    return OutgoingBody(None, lambda: _pieces(body, received, ascii_header), repeatable=False, binary=binary)


async def _pieces(body: IBody, received: bytes, ascii_header: bool) -> AsyncGenerator[bytes, None]:
    header = _HeaderWatch() if ascii_header else None
    front = received
    async for chunk in body:
        if header is not None and header.take(chunk):
            header = None
        if front:
            if chunk[:1] in (b" ", b"\t"):
                # It would go on with our last line, and say there what we did not: so the header ends before it.
                front += b"\r\n"
            chunk, front = front + chunk, b""
        yield chunk
    if front:
        yield front


class _HeaderWatch:
    """Looks for octets over 127 up to the empty line."""

    def __init__(self) -> None:
        self._seen = 0
        # The end of the header may lie across two pieces. The first line has an end before it, so to say.
        self._tail = b"\r\n"

    def take(self, chunk: bytes) -> bool:
        """
        Look at some more of the message; return whether the header is over.

        :raises ExtensionMissing: if it is not ASCII.
        """
        text = self._tail + chunk
        end = text.find(b"\r\n\r\n")
        header = text if end < 0 else text[:end]
        if not header.isascii():
            raise ExtensionMissing(
                "SMTPUTF8", "the header of the message is not ASCII", code=550, enhanced_code=(5, 6, 7)
            )
        self._seen += len(chunk)
        self._tail = text[-3:]
        return end >= 0 or self._seen > _MAX_HEADER
