"""
What can go wrong and is no reply: broken rules, messages without an end, settings that can't be used.
"""

from __future__ import annotations

__all__ = ["ConfigError", "DataReset", "LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class DataReset(Exception):
    """
    The message will not come to its end: the client has gone, or sent RSET in the middle of BDAT.

    Raised by the reads of a body. There is nobody left to answer, so it is no :class:`SMTPError`.
    """


class ProtocolError(Exception):
    """The rules of SMTP were broken; the children say by whom."""


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that the protocol does not allow; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol does not allow."""


class ConfigError(Exception):
    """
    A setting that can't be used.

    The message is one line for the operator: which setting, what was given, what would be right.
    """
