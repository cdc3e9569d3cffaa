"""
What a message lacks when it comes from who has written it: Date and Message-ID (RFC 6409 sections 8.2 and 8.3).

Rule 1: what is there stays as it is, however odd; so do From and Sender, which
are for the author to say.

Rule 2: a message gets a field only if its whole header section was seen, for a
second Date, or a second Message-ID, is worse than none (RFC 5322 section 3.6).
"""

from __future__ import annotations

import re
import secrets
import time

from smtpfw.wire.trace import date_time

__all__ = ["missing_fields"]

#: RFC 5322 section 4.5: the obsolete syntax has spaces before the colon.
_DATE = re.compile(rb"^date[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:", re.IGNORECASE | re.MULTILINE)

_SPACE = (b" ", b"\t")


def missing_fields(header: bytes | bytearray, hostname: str, *, seconds: float | None = None) -> bytes:
    """
    The lines that belong in front of a message.

    :param header: its header section, to the empty line or to its end.
    :param hostname: our own name, for the Message-ID.
    :param seconds: the time of arrival, seconds since the epoch; by default now.
    :return: whole lines, CRLF included; empty if nothing is missing.
    """
    # A first line that goes on with nothing is no field, so the message has no header, and that of ours ends before it.
    headless = header[:1] in _SPACE
    fields = b""
    if headless or _DATE.search(header) is None:
        fields += b"Date: " + date_time(int(time.time() if seconds is None else seconds)) + b"\r\n"
    if headless or _MESSAGE_ID.search(header) is None:
        # Nothing in it tells of the client, nor how many messages there are.
        fields += b"Message-ID: <" + secrets.token_hex(16).encode() + b"@" + hostname.encode("ascii") + b">\r\n"
    return fields + b"\r\n" if headless else fields
