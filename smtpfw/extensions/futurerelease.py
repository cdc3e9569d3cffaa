"""
FUTURERELEASE (RFC 4865): the message is to be held for so many seconds, or until a point in time, and delivered then.

The parameters are for the session, and for a next hop. Who honours this extension
holds the message, or hands them on; here they are read, and held against the
longest time that was stated, and against that of DELIVERBY. The RFC is for
submission (section 4.2 item 2): a backend that takes mail of strangers, too,
should not honour it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpfw.errors import ConfigError, HeldTooLongForPeer, LocalProtocolError, SyntaxProblem
from smtpfw.extensions.deliverby import BY, DeliverByTime
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.times import (
    MAX_SECONDS,
    format_date_time,
    parse_date_time,
    parse_seconds,
    whole_seconds,
)

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["HOLDFOR", "HOLDUNTIL", "MAX_INTERVAL", "FutureRelease", "HoldLimits", "is_held_too_long"]

#: Seconds for which a message may be held: 30 days. James has one day, mox 60.
MAX_INTERVAL = 30 * 86400

#: RFC 4865 section 3 item 2: future-release-integer.
_SECONDS = re.compile(r"[1-9][0-9]{0,8}")


def _parse_hold(text: str | None) -> int:
    if text is None or not _SECONDS.fullmatch(text):
        raise ValueError(f"must be a number of seconds from 1 to {MAX_SECONDS}")
    return int(text)


def _format_hold(seconds: int | None) -> str:
    text = str(seconds)
    _parse_hold(text)
    return text


#: Seconds for which the message is to be held, at least 1; None when not given.
HOLDFOR: Parameter[int | None] = Parameter("HOLDFOR", parse=_parse_hold, format=_format_hold, default=None)

#: Until when, in UTC when it was read; None when not given. RFC 4865 erratum 2040: a date-time of RFC 3339.
HOLDUNTIL: Parameter[datetime | None] = Parameter(
    "HOLDUNTIL", parse=parse_date_time, format=format_date_time, default=None
)


_HELD_TOO_LONG = "The message would be held for longer than BY gives it"


class HoldLimits(NamedTuple):
    """
    What a server says of itself.

    :ivar max_interval: seconds.
    :ivar max_until: in UTC.
    """

    max_interval: int
    max_until: datetime


def is_held_too_long(by: DeliverByTime | None, held_seconds: float | None) -> bool:
    """Whether a message would be late by DELIVERBY before it is released (RFC 4865 section 5.2)."""
    return by is not None and held_seconds is not None and held_seconds > by.seconds


def _now() -> datetime:
    return datetime.now(UTC)


class FutureRelease(Extension):
    """
    :param max_interval: seconds for which a message may be held.
    :param now: tells the time, as a datetime with its zone.
    :raises ConfigError: for a time that is no whole number of seconds, is not above 0, or has more than nine digits.
    """

    keyword = "FUTURERELEASE"
    mail_parameters = (HOLDFOR, HOLDUNTIL)
    extra_line_octets = 34  # RFC 4865 section 3 item 5
    end_to_end = True

    def __init__(self, *, max_interval: float = MAX_INTERVAL, now: Callable[[], datetime] = _now) -> None:
        try:
            self._max_interval = whole_seconds(max_interval)
        except ValueError as error:
            raise ConfigError(f"extension FUTURERELEASE: max_interval: {error}") from None
        if not self._max_interval:
            raise ConfigError("extension FUTURERELEASE: max_interval: 0 holds nothing; leave the extension out")
        self._now = now

    def advertise(self, connection: ServerConnection) -> str:
        # RFC 4865 section 3 item 3 has both. The one is the other, from now on; whole seconds will do.
        until = self._now().replace(microsecond=0) + timedelta(seconds=self._max_interval)
        return f"{self._max_interval} {format_date_time(until)}"

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        seconds, until = options[HOLDFOR], options[HOLDUNTIL]
        if seconds is not None and until is not None:
            raise SyntaxProblem("HOLDFOR and HOLDUNTIL exclude each other")
        if seconds is not None and seconds > self._max_interval:
            raise SyntaxProblem(f"HOLDFOR is at most {self._max_interval}")
        if until is not None:
            now = self._now()
            if until < now:
                raise SyntaxProblem("HOLDUNTIL has passed")
            if until > now + timedelta(seconds=self._max_interval):
                raise SyntaxProblem(f"HOLDUNTIL is at most {self._max_interval} seconds from now")
        if is_held_too_long(options[BY], self._held(options)):
            raise SyntaxProblem(_HELD_TOO_LONG)

    def _held(self, options: Options) -> float | None:
        until = options[HOLDUNTIL]
        return options[HOLDFOR] if until is None else (until - self._now()).total_seconds()

    def understand(self, argument: str) -> HoldLimits | None:
        """What the server says; None if it can't be read, and then the server judges."""
        interval, _, until = argument.partition(" ")
        try:
            return HoldLimits(parse_seconds(interval), parse_date_time(until.strip(" ")))
        except ValueError:
            return None

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        seconds, until = message.options[HOLDFOR], message.options[HOLDUNTIL]
        if seconds is not None and until is not None:
            raise LocalProtocolError("HOLDFOR and HOLDUNTIL exclude each other")
        held = self._held(message.options)
        # What is closer the server judges: a relay rounds the seconds that are left of BY.
        if held is not None and is_held_too_long(message.options[BY], held - 1):
            raise LocalProtocolError(_HELD_TOO_LONG)
        if fact is None:
            return
        if seconds is not None and seconds > fact.max_interval:
            raise HeldTooLongForPeer(f"The next server holds a message for {fact.max_interval} seconds at most")
        if until is not None and until > fact.max_until:
            raise HeldTooLongForPeer(
                f"The next server holds a message until {format_date_time(fact.max_until)} at most"
            )
