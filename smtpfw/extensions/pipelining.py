"""
PIPELINING (RFC 2920): commands may be sent before the replies to earlier ones have come.

The connection answers in order whatever a client sends ahead, so the server's
side is its keyword. Which verb must end a group stands in
:mod:`smtpfw.wire.phases`.
"""

from __future__ import annotations

from smtpfw.wire.dialect import Extension

__all__ = ["Pipelining"]


class Pipelining(Extension):
    keyword = "PIPELINING"
