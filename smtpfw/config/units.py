"""
Numbers with units, as an operator writes them: ``10M``, ``30s``.

Parse and format are twins; one table of units serves both directions. A size
is in octets and its units are binary (``1K`` is 1024); a duration is in
seconds; a rate is so many in so many seconds. ``0`` means "no limit" wherever
a setting says so.
"""

from __future__ import annotations

import re

__all__ = [
    "format_duration",
    "format_rate",
    "format_size",
    "parse_count",
    "parse_duration",
    "parse_rate",
    "parse_size",
    "parse_yes_no",
]

_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_DURATIONS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

# ASCII digits only: \d would take those of every script.
_SIZE = re.compile(r"([0-9]{1,18})([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|[smhd]?)")
_COUNT = re.compile(r"[0-9]{1,18}")
_RATE = re.compile(r"([1-9][0-9]{0,8})/((?:[1-9][0-9]{0,8})?)([smhd])")


def parse_size(text: str) -> int:
    """
    Read a number of octets: ``512K``, ``10M``, ``1G`` or plain ``4096``.

    :raises ValueError: says what is expected.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write a number of octets, or one with a unit: 512K, 10M, 1G")
    return int(found.group(1)) * _SIZES[found.group(2).upper()]


def format_size(octets: int | float) -> str:
    """The shortest spelling that :func:`parse_size` reads back to the same number."""
    return _format(octets, _SIZES)


def parse_duration(text: str) -> float:
    """
    Read a time in seconds: ``30s``, ``5m``, ``1h``, ``2d``, ``500ms`` or plain ``30``.

    :raises ValueError: says what is expected.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time; write seconds, or a number with a unit: 30s, 5m, 1h")
    number, unit = float(found.group(1)), found.group(2)
    return number / 1000 if unit == "ms" else number * _DURATIONS[unit]


def format_duration(seconds: int | float) -> str:
    """The shortest spelling that :func:`parse_duration` reads back to the same number."""
    return _format(seconds, _DURATIONS)


def parse_count(text: str) -> int:
    """
    Read a plain number, 0 or more.

    :raises ValueError: says what is expected.
    """
    if _COUNT.fullmatch(text.strip()) is None:
        raise ValueError(f"{text!r} is no number; write 0 or more, in digits")
    return int(text)


def parse_rate(text: str) -> tuple[int, int]:
    """
    Read how many in which time: ``5/s``, ``30/m``, ``100/h``, ``1000/d``, or ``30/10m``.

    :return: the number, and the time in seconds.
    :raises ValueError: says what is expected.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no rate; write how many in which time: 5/s, 30/m, 100/h, 30/10m")
    return int(found.group(1)), int(found.group(2) or 1) * _DURATIONS[found.group(3)]


def format_rate(count: int, seconds: int) -> str:
    """The shortest spelling that :func:`parse_rate` reads back to the same numbers."""
    time = _format(seconds, _DURATIONS)
    # "1m" is "m", but "10m" and "11m" stay.
    return f"{count}/{time[1:] if time[0] == '1' and not time[1].isdigit() else time}"


def parse_yes_no(text: str) -> bool:
    """
    Read ``yes`` or ``no``, ``true`` or ``false``.

    :raises ValueError: for any other word.
    """
    try:
        return {"yes": True, "true": True, "no": False, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no") from None


def _format(number: int | float, units: dict[str, int]) -> str:
    if number and number == int(number):
        for unit, factor in reversed(units.items()):
            if number % factor == 0:
                return f"{int(number) // factor}{unit}"
    return f"{number:g}" if number != int(number) else str(int(number))
