"""Sizes and durations: one table of cases for both directions, and the words of the refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.config.units import (
    format_duration,
    format_rate,
    format_size,
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
)

SIZES = [
    ("0", 0),
    ("1", 1),
    ("1023", 1023),
    ("1K", 1024),
    ("512K", 524288),
    ("10M", 10485760),
    ("50M", 52428800),
    ("1G", 1073741824),
    ("2T", 2199023255552),
]
DURATIONS = [("0", 0), ("1s", 1), ("30s", 30), ("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172800), ("1.5", 1.5)]
RATES = [
    ("5/s", (5, 1)),
    ("30/m", (30, 60)),
    ("100/h", (100, 3600)),
    ("1000/d", (1000, 86400)),
    ("30/10m", (30, 600)),
    ("1/15s", (1, 15)),
    ("2/11h", (2, 39600)),
]


@pytest.mark.parametrize(("text", "octets"), SIZES)
def test_sizes_are_read_and_written(text: str, octets: int) -> None:
    assert parse_size(text) == octets
    assert format_size(octets) == text


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations_are_read_and_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["10MB", "10MiB", "10m", " 10M "])
def test_other_spellings_of_a_size(text: str) -> None:
    assert parse_size(text) == 10 * 1024 * 1024


def test_other_spellings_of_a_duration() -> None:
    assert parse_duration("500ms") == 0.5
    assert parse_duration("300") == 300


@pytest.mark.parametrize("text", ["", "M", "10X", "-1", "1.5M", "1e3", "٣", "10 M", "nan", "9" * 30])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="512K, 10M, 1G"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "s", "5x", "-5s", "1e3", "inf", "٣s", "5 m", "5M"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="30s, 5m, 1h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "1K", "-1", "1.0", "١"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        parse_count(text)


@pytest.mark.parametrize(("text", "rate"), RATES)
def test_rates_are_read_and_written(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate
    assert format_rate(*rate) == text


def test_other_spellings_of_a_rate() -> None:
    assert parse_rate(" 30/1m ") == parse_rate("30/60s") == parse_rate("30/m")


@pytest.mark.parametrize(
    "text", ["", "30", "30/", "/m", "0/m", "30/0m", "-1/m", "1.5/m", "30/M", "30/ m", "30/x", "٣/m"]
)
def test_what_is_no_rate_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="5/s, 30/m, 100/h, 30/10m"):
        parse_rate(text)


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_every_rate_survives_writing_and_reading(count: int, seconds: int) -> None:
    assert parse_rate(format_rate(count, seconds)) == (count, seconds)


@given(st.integers(0, 10**15))
def test_every_size_survives_writing_and_reading(octets: int) -> None:
    assert parse_size(format_size(octets)) == octets


@given(st.integers(0, 10**9))
def test_every_duration_survives_writing_and_reading(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
