"""
ENHANCEDSTATUSCODES (RFC 2034): every reply line carries a code of RFC 3463.

Replies carry them always; see :mod:`smtpfw.wire.replies` for the three that
do not. So the server's side is its keyword.
"""

from __future__ import annotations

from smtpfw.wire.dialect import Extension

__all__ = ["EnhancedStatusCodes"]


class EnhancedStatusCodes(Extension):
    keyword = "ENHANCEDSTATUSCODES"
