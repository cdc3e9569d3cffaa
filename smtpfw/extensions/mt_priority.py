"""
MT-PRIORITY (RFC 6710): how urgent a message is, from -9 to 9.

The parameter is for the session, and for a next hop: who honours this extension
serves what is urgent first. Who gives a message another priority than was asked
for says so, by :func:`priority_changed`.

Rule: nobody gets ahead of others who is not trusted with it (section 4.1). A
priority above 0 is for clients that have authenticated, those of networks that
are named, and those of LMTP, who are no strangers; of everybody else it is 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from smtpfw.errors import ConfigError
from smtpfw.logins import is_known
from smtpfw.networks import Network, Networks
from smtpfw.wire.config import LMTP
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.server import ServerConnection

__all__ = ["MT_PRIORITY", "MTPriority", "priority_changed"]

#: RFC 6710 section 7: 0 has no sign, and nothing a plus.
_PRIORITY = re.compile(r"0|-?[1-9]")

#: RFC 6710 section 7: priority-profile.
_PROFILE = re.compile(r"[A-Za-z0-9._-]{1,20}")


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
    :param profile: the name of the policy by which priorities are assigned (RFC 6710 section 9.2), ``STANAG4406``;
        empty to tell none, which means ``MIXER``.
    :param trusted: networks whose clients may ask for a priority above 0 without having authenticated: ``10.0.0.0/8``,
        ``2001:db8::1``, ``unix`` for Unix sockets; one or several.
    :raises ConfigError: for a name that can't be said, for what is no network, or networks that are everybody.
    """

    keyword = "MT-PRIORITY"
    mail_parameters = (MT_PRIORITY,)
    extra_line_octets = 15  # RFC 6710 section 3 item 6
    end_to_end = True

    def __init__(self, *, profile: str = "", trusted: Networks | Iterable[Network] | Network = ()) -> None:
        if profile and not _PROFILE.fullmatch(profile):
            raise ConfigError(
                f"extension MT-PRIORITY: profile: {profile[:100]!r} is no name of up to 20 letters, digits, -, _ and ."
            )
        self._profile = profile
        try:
            self._trusted = Networks.of(trusted)
        except ValueError as error:
            raise ConfigError(f"extension MT-PRIORITY: trusted: {error}") from None
        if self._trusted.everybody:
            raise ConfigError("extension MT-PRIORITY: trusted: that is everybody; name the networks of those you know")

    def advertise(self, connection: ServerConnection) -> str:
        return self._profile

    def amend_mail(self, connection: ServerConnection, options: Options) -> tuple[Options, Reply] | None:
        if options[MT_PRIORITY] <= 0 or self._trusts(connection):
            return None
        return Options({**dict(options.items()), MT_PRIORITY.keyword: 0}), priority_changed(0)

    def _trusts(self, connection: ServerConnection) -> bool:
        client = connection.application.client
        # RFC 2033 section 5: LMTP is not spoken with the Internet.
        return is_known(client) or connection.config.protocol == LMTP or self._trusted.include(client)
