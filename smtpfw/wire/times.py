"""
Times as parameters have them: points in time (RFC 3339), and numbers of seconds.

Rule 1: a point in time is read by one regular expression first, that of RFC 3339
section 5.6: Python's own reader takes weeks, commas, dates alone and digits of
other scripts as well.

Rule 2: the instant counts, not how it was written: it is read into UTC and
written in UTC, so what is written is read as the same.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["MAX_SECONDS", "format_date_time", "parse_date_time", "parse_seconds", "whole_seconds"]

#: RFC 2852 section 4 and RFC 4865 section 3: nine digits at most.
MAX_SECONDS = 999_999_999

_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]++))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_SECONDS = re.compile(r"[0-9]{1,9}")

_NO_DATE_TIME = "must be a date and a time with its offset, as 2026-11-21T19:15:00Z"
_NO_SECONDS = "must be a number of seconds, of 1 to 9 digits"
_LEAP_SECOND = "60"


def parse_date_time(text: str | None) -> datetime:
    """
    Read an RFC 3339 date-time: ``2026-11-21T19:15:00.5+01:00``.

    What is finer than a microsecond is cut off. A leap second, 23:59:60 UTC, is read as the second behind it, as the
    clocks of Unix have it.

    :return: the instant, in UTC.
    :raises ValueError: if it is none, or one before year 1 or behind year 9999.
    """
    match = _DATE_TIME.fullmatch(text or "")
    if match is None:
        raise ValueError(_NO_DATE_TIME)
    date, minute, second, fraction, sign, hours, minutes = match.groups()
    is_leap = second == _LEAP_SECOND
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    micro = (fraction or "0")[:6].ljust(6, "0")
    try:
        local = datetime.fromisoformat(f"{date}T{minute}:{'59' if is_leap else second}.{micro}").replace(tzinfo=UTC)
        instant = local + offset if sign == "-" else local - offset
        if is_leap:
            if (instant.hour, instant.minute) != (23, 59):
                # RFC 3339 section 5.7: they come at the end of a month, in UTC.
                raise ValueError(_NO_DATE_TIME)
            instant += timedelta(seconds=1)
    except (ValueError, OverflowError):
        raise ValueError(_NO_DATE_TIME) from None
    return instant


def format_date_time(instant: datetime | None) -> str:
    """
    The twin of :func:`parse_date_time`, in UTC: ``2026-11-21T18:15:00.500000Z``, without a fraction if there is none.

    :raises ValueError: for one without a zone: nobody knows when that is.
    """
    if instant is None or instant.utcoffset() is None:
        raise ValueError("must be a datetime with its zone")
    try:
        return f"{instant.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"
    except OverflowError:
        raise ValueError("must be a datetime of the years 1 to 9999 in UTC") from None


def parse_seconds(text: str | None) -> int:
    """
    Read a number of seconds.

    :raises ValueError: if it has other characters than 1 to 9 digits.
    """
    if text is None or not _SECONDS.fullmatch(text):
        raise ValueError(_NO_SECONDS)
    return int(text)


def whole_seconds(seconds: float) -> int:
    """
    A time that an operator has set, as it can be said on the wire.

    :raises ValueError: for one that is no whole number of seconds, is below 0, or has more than 9 digits.
    """
    if int(seconds) != seconds or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{seconds:g} is no number of whole seconds from 0 to {MAX_SECONDS}")
    return int(seconds)
