"""
Mail that goes round in circles carries a Received field of each round (RFC 5321 section 6.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection

__all__ = ["LoopLimit"]

# White space before the colon is the obsolete form (RFC 5322 section 4.5.7).
_RECEIVED = re.compile(rb"(?:\A|\r\n)received[ \t]*+:")
_CANDIDATE = b"\r\nreceived"
_SHORTEST = len(b"Received:\r\n")


@dataclass(frozen=True)
class LoopLimit(Check):
    """
    A message with more than ``max_received`` Received fields in its header gets 554 5.4.6.

    :ivar max_received: RFC 5321 section 6.3 asks for at least 100; Postfix hopcount_limit 50, Exim
        received_headers_max 30.
    :raises ValueError: for less than 1.
    """

    max_received: int = 100

    def __post_init__(self) -> None:
        if self.max_received < 1:
            raise ValueError(f"max_received: {self.max_received} is below 1, so no mail could come from anywhere")

    def message(self, connection: IConnection, header: bytes, size: int) -> None:
        """See :meth:`ICheck.message`."""
        if len(header) < self.max_received * _SHORTEST:
            return
        header = header.lower()
        # It is asked of every message: a search for a fixed text is quick, and cannot find too few. The first line
        # has no line break before it.
        if header.count(_CANDIDATE) < self.max_received:
            return
        if len(_RECEIVED.findall(header)) > self.max_received:
            raise SMTPError(554, (5, 4, 6), "Too many hops: this message goes round in circles")

    def describe(self) -> str:
        """What it does, in words."""
        return f"A message with more than {self.max_received} Received fields is refused as a loop"
