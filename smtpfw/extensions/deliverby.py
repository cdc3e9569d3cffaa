"""
DELIVERBY (RFC 2852): the message is to be delivered within so many seconds, or returned, or its sender is to be told.

Mode R returns a message that is late; mode N has a notice sent, and goes on. The
parameter is for the session, and for a next hop. Who honours this extension does
what the mode says, or hands the parameter on with the time that is left; here it
is read, and a time that is too short from the start is refused.

Rule: a formatter reads what it wrote with the parser before it lets it go, so
both keep the same rules.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpfw.errors import ConfigError, DeliveryTimeExpired, TooSoonForPeer
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.times import parse_seconds, whole_seconds

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["BY", "NOTIFY", "RETURN", "DeliverBy", "DeliverByTime"]

#: The modes of RFC 2852 section 4: go on and tell the sender, or return the message.
NOTIFY = "N"
RETURN = "R"

_BY = re.compile(r"([+-]?)([0-9]{1,9});([NRnr])([Tt]?)")


class DeliverByTime(NamedTuple):
    """
    When a message is late, and what becomes of it then.

    :ivar seconds: from now. Below 0, with ``N`` only, for one that is late already.
    :ivar mode: ``N`` or ``R``.
    :ivar trace: whether each relay shall send a notification, too (RFC 2852 section 4).
    """

    seconds: int
    mode: str
    trace: bool = False


def _parse(text: str | None) -> DeliverByTime:
    match = _BY.fullmatch(text or "")
    if match is None:
        raise ValueError("must be a number of seconds of 1 to 9 digits, a semicolon, N or R, and T for a trace")
    sign, digits, mode, trace = match.groups()
    seconds, mode = int(sign + digits), mode.upper()
    if mode == RETURN and seconds <= 0:
        raise ValueError("must be above 0 with R")
    return DeliverByTime(seconds, mode, bool(trace))


def _format(value: DeliverByTime | None) -> str:
    if value is None:
        raise ValueError("needs a value")
    text = f"{value.seconds};{value.mode}{'T' if value.trace else ''}"
    if _parse(text) != value:
        raise ValueError("a mode that is neither N nor R")
    return text


#: A :class:`DeliverByTime`; None when not given.
BY: Parameter[DeliverByTime | None] = Parameter("BY", parse=_parse, format=_format, default=None)


class DeliverBy(Extension):
    """
    :param min_by_time: seconds: a message that is to be returned earlier is refused at once, since it could not be
        delivered in time; 0 for no limit.
    :raises ConfigError: for a time that is no whole number of seconds, or has more than nine digits.
    """

    keyword = "DELIVERBY"
    mail_parameters = (BY,)
    extra_line_octets = 17  # RFC 2852 section 2 item 5
    end_to_end = True

    def __init__(self, *, min_by_time: float = 0) -> None:
        try:
            self._min_by_time = whole_seconds(min_by_time)
        except ValueError as error:
            raise ConfigError(f"extension DELIVERBY: min_by_time: {error}") from None

    def advertise(self, connection: ServerConnection) -> str:
        return str(self._min_by_time or "")

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        if _is_too_soon(options[BY], self._min_by_time):
            # RFC 2852 section 3: 55z. The sender would have to ask for a longer time, so trying again is no use.
            raise DeliveryTimeExpired(f"No message is returned earlier than after {self._min_by_time} seconds here")

    def understand(self, argument: str) -> int:
        """The server's least time in seconds; 0 if it names none."""
        # RFC 2852 section 2 item 3: options between commas, of which the first is this one, or is empty.
        try:
            return parse_seconds(argument.partition(",")[0].strip(" "))
        except ValueError:
            return 0

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        if _is_too_soon(message.options[BY], fact):
            raise TooSoonForPeer(f"The next server returns no message earlier than after {fact} seconds")


def _is_too_soon(by: DeliverByTime | None, least: int) -> bool:
    return by is not None and by.mode == RETURN and by.seconds < least
