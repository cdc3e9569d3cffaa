"""RFC 3339 and numbers of seconds: one table of cases drives parsers and formatters."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.wire.times import (
    MAX_SECONDS,
    format_date_time,
    parse_date_time,
    parse_seconds,
    whole_seconds,
)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


#: What is sent, the instant, and how smtpfw writes that where it is not as it was sent.
GOOD = [
    ("2014-04-03T23:01:00Z", utc(2014, 4, 3, 23, 1), None),
    ("0001-01-01T00:00:00Z", utc(1, 1, 1), None),
    ("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999999), None),
    ("2014-04-03t23:01:00z", utc(2014, 4, 3, 23, 1), "2014-04-03T23:01:00Z"),
    ("2014-04-03T23:01:00+02:30", utc(2014, 4, 3, 20, 31), "2014-04-03T20:31:00Z"),
    ("2014-04-03T23:01:00-23:59", utc(2014, 4, 4, 23, 0), "2014-04-04T23:00:00Z"),
    ("2014-04-03T23:01:00-00:00", utc(2014, 4, 3, 23, 1), "2014-04-03T23:01:00Z"),
    ("2014-04-03T23:01:00.5Z", utc(2014, 4, 3, 23, 1, 0, 500000), "2014-04-03T23:01:00.500000Z"),
    ("2014-04-03T23:01:00.1234569Z", utc(2014, 4, 3, 23, 1, 0, 123456), "2014-04-03T23:01:00.123456Z"),
    ("2012-02-29T00:00:00Z", utc(2012, 2, 29), None),
    # A leap second is the second behind it, at any offset.
    ("2016-12-31T23:59:60Z", utc(2017, 1, 1), "2017-01-01T00:00:00Z"),
    ("2016-12-31T23:59:60.25Z", utc(2017, 1, 1, 0, 0, 0, 250000), "2017-01-01T00:00:00.250000Z"),
    ("1990-12-31T15:59:60-08:00", utc(1991, 1, 1), "1991-01-01T00:00:00Z"),
]

BAD = [
    None,
    "",
    "2014-04-03",
    "2014-04-03T23:01:00",
    "2014-04-03 23:01:00Z",
    "2014-04-03T23:01Z",
    "20140403T230100Z",
    "2014-W14-4T23:01:00Z",
    "2014-04-03T23:01:00,5Z",
    "2014-04-03T23:01:00.Z",
    "2014-04-03T23:01:00+0200",
    "2014-04-03T23:01:00+24:00",
    "2014-04-03T23:01:00+02:60",
    "2014-04-03T24:00:00Z",
    "2014-04-03T23:60:00Z",
    "2014-04-03T23:01:61Z",
    "2014-04-03T23:01:60Z",
    "2013-02-29T00:00:00Z",
    "2014-00-03T23:01:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
    "9999-12-31T23:59:60Z",
    "+2014-04-03T23:01:00Z",
    "2014-04-03T23:01:00Z ",
    "2014-04-03T23:01:00Z\r\nDATA",
    "\u0662014-04-03T23:01:00Z",
    "\uff12014-04-03T23:01:00Z",
    "now",
]


@pytest.mark.parametrize(("text", "instant", "written"), GOOD)
def test_parse_and_format(text: str, instant: datetime, written: str | None) -> None:
    assert parse_date_time(text) == instant
    assert parse_date_time(text).tzinfo is UTC
    assert format_date_time(instant) == (written or text)


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_date_time(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"^must be a date and a time"):
        parse_date_time(text)


@pytest.mark.parametrize(
    "instant",
    [None, datetime(2014, 4, 3), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
)
def test_instants_that_can_not_be_written(instant: Any) -> None:
    with pytest.raises(ValueError, match="must be a datetime"):
        format_date_time(instant)


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES))
def test_what_is_written_is_read_as_the_same(instant: datetime) -> None:
    assert parse_date_time(format_date_time(instant)) == instant
    # As others write it, in its own zone.
    assert parse_date_time(instant.isoformat()) == instant


SHREDS = st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-6][0-9](\.[0-9]*)?([Zz]|[+-][0-9:]{5})?")


@given(SHREDS | st.text())
def test_any_text_is_an_instant_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        instant = parse_date_time(text)
        assert parse_date_time(format_date_time(instant)) == instant


@given(st.integers(0, MAX_SECONDS))
def test_seconds(seconds: int) -> None:
    assert parse_seconds(str(seconds)) == seconds
    assert whole_seconds(float(seconds)) == seconds


def test_seconds_with_zeros_in_front() -> None:
    assert parse_seconds("000000007") == 7


@pytest.mark.parametrize("text", [None, "", "-1", "+1", "1.0", "1e3", "1000000000", " 1", "\u0661", "1_0"])
def test_what_is_no_number_of_seconds(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds"):
        parse_seconds(text)


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, 0.5])
def test_numbers_that_can_not_be_written(seconds: Any) -> None:
    with pytest.raises(ValueError, match="whole seconds from 0 to 999999999"):
        whole_seconds(seconds)
