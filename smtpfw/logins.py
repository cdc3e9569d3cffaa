"""
Whether a client has logged in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpfw.interfaces import IConnection

__all__ = ["is_known"]


def is_known(connection: IConnection) -> bool:
    """Whether a client has said who it is, and has proved it."""
    # RFC 4505: whoever comes in by ANONYMOUS is still anybody.
    return bool(connection.identity) and connection.mechanism.upper() != "ANONYMOUS"
