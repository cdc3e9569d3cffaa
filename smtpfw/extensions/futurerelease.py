"""
FUTURERELEASE (RFC 4865): the message is to be held for so many seconds, or until a point in time, and delivered then.

The parameters are for the session, and for a next hop. Who honours this extension
holds the message, or hands them on; here they are read, and held against the
longest time that was stated. The RFC is for submission: a backend that takes mail
of strangers, too, should not honour it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpfw.errors import ConfigError, HeldTooLongForPeer, LocalProtocolError, SyntaxProblem
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.times import (
    format_date_time,
    format_seconds,
    parse_date_time,
    parse_seconds,
    whole_seconds,
)

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection

__all__ = ["HOLDFOR", "HOLDUNTIL", "MAX_INTERVAL", "FutureRelease", "HoldLimits"]

#: Seconds for which a message may be held: 30 days. James has one day, mox 60.
MAX_INTERVAL = 30 * 86400

#: Seconds for which the message is to be held; None when not given.
HOLDFOR: Parameter[int | None] = Parameter("HOLDFOR", parse=parse_seconds, format=format_seconds, default=None)

#: Until when, in UTC when it was read; None when not given. RFC 4865 erratum 2040: a date-time of RFC 3339.
HOLDUNTIL: Parameter[datetime | None] = Parameter(
    "HOLDUNTIL", parse=parse_date_time, format=format_date_time, default=None
)


class HoldLimits(NamedTuple):
    """
    What a server says of itself.

    :ivar max_interval: seconds.
    :ivar max_until: in UTC.
    """

    max_interval: int
    max_until: datetime


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
    extra_line_octets = 34  # RFC 4865
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
        # RFC 4865 has both. The one is the other, from now on; whole seconds will do.
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
        if fact is None:
            return
        if seconds is not None and seconds > fact.max_interval:
            raise HeldTooLongForPeer(f"The next server holds a message for {fact.max_interval} seconds at most")
        if until is not None and until > fact.max_until:
            raise HeldTooLongForPeer(
                f"The next server holds a message until {format_date_time(fact.max_until)} at most"
            )
