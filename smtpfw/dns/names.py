"""
Names in DNS: which are those of hosts, and which can be asked for at all.
"""

from __future__ import annotations

import re

__all__ = ["MAX_NAME", "can_be_asked", "is_name"]

#: RFC 1035 section 2.3.4: of a name as text, without the dot at its end.
MAX_NAME = 253

#: RFC 1034 section 3.5, and the underscores of many.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
#: RFC 3696 section 2: a last label is never all digits. Resolvers take one that is a number, 0x7f and all, for a part
#: of an IPv4 address, and some answer that without DNS.
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!(?:\d+|0x[0-9a-f]*)\Z){_LABEL}")


def is_name(name: str) -> bool:
    """Whether it is the name of a host: A-labels in lower case, without the dot at its end."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def can_be_asked(name: str) -> bool:
    """Whether DNS may have records under it, RFC 2181 section 11: what stands in its labels is its owner's business."""
    return len(name) <= MAX_NAME and name.isascii() and all(0 < len(label) < 64 for label in name.split("."))
