"""
MT-PRIORITY (RFC 6710): how urgent a message is, from -9 to 9.

The parameter is for the session, and for a next hop: who honours this extension
serves what is urgent first. Who gives a message another priority than was asked
for says so, by :func:`priority_changed`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from smtpfw.errors import ConfigError
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection

__all__ = ["MT_PRIORITY", "MTPriority", "priority_changed"]

#: RFC 6710 section 6: 0 has no sign, and nothing a plus.
_PRIORITY = re.compile(r"0|-?[1-9]")

#: A word of the answer to EHLO: ehlo-param of RFC 5321 section 4.1.1.1.
_PROFILE = re.compile(r"[!-~]{1,100}")


def _parse(text: str | None) -> int:
    if text is None or not _PRIORITY.fullmatch(text):
        raise ValueError("must be a number from -9 to 9")
    return int(text)


def _format(value: int) -> str:
    text = str(int(value))
    if _parse(text) != value:
        raise ValueError("must be a whole number")
    return text


#: The priority of the message, -9 to 9; 0 when not given.
MT_PRIORITY = Parameter("MT-PRIORITY", parse=_parse, format=_format, default=0)


def priority_changed(value: int) -> Reply:
    """
    What a session returns from ``mail`` when it gives the message another priority than was asked for.

    :param value: the new one.
    :return: 250 2.3.6; its text begins with the value, which clients read (RFC 6710 section 4.1).
    :raises ValueError: for a priority that there is not.
    """
    return Reply(250, f"{_format(value)} is the new priority", (2, 3, 6))


class MTPriority(Extension):
    """
    :param profile: the name of the profile by which priorities are assigned (RFC 6710 section 10.2), ``STANAG4406``;
        empty for none.
    :raises ConfigError: for a name that is no word for EHLO.
    """

    keyword = "MT-PRIORITY"
    mail_parameters = (MT_PRIORITY,)
    extra_line_octets = 15  # RFC 6710 section 3
    end_to_end = True

    def __init__(self, *, profile: str = "") -> None:
        if profile and not _PROFILE.fullmatch(profile):
            raise ConfigError(f"extension MT-PRIORITY: profile: {profile[:100]!r} is no word of printable ASCII")
        self._profile = profile

    def advertise(self, connection: ServerConnection) -> str:
        return self._profile
