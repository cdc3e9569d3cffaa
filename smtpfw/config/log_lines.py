"""
How a line of the log looks: as text, and as JSON.

Rule: nothing in a line can begin another, or move the cursor of who reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import LogEvent, formatEvent, formatTime

from smtpfw.wire.transcript import printable

__all__ = ["FORMATS", "format_json", "format_text", "utc"]


class Clock:
    """Formats times; most come in the second of the one before."""

    def __init__(self, format: Callable[[int], str]) -> None:
        self._format = format
        self._second = -1
        self._text = ""

    def show(self, second: int) -> str:
        """The time, to the second."""
        if second != self._second:
            self._text = self._format(second)
            self._second = second
        return self._text


_local = Clock(lambda second: formatTime(float(second)))
utc = Clock(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))


def _message(event: LogEvent) -> str:
    if "log_flattened" not in event:
        try:
            text: str = event["log_format"].format_map(event)
        except Exception:
            # It has a format that only Twisted knows, calls in it say; or none.
            pass
        else:
            return text
    return formatEvent(event)


def _traceback(event: LogEvent) -> str:
    try:
        return str(event["log_failure"].getTraceback())
    except Exception as error:
        return f"(there is no traceback: {type(error).__name__})"


def _as_text(value: object) -> str:
    try:
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    except Exception:
        return f"({type(value).__name__}, which can't be shown)"


def _level(event: LogEvent) -> str:
    return getattr(event.get("log_level"), "name", "-")


def format_text(event: LogEvent) -> str:
    """
    An event as Twisted's text logs show it: ``2026-11-21T12:34:56+0000 [smtpfw.server#info] ...``.

    :return: the lines with their ends, those behind the first indented; empty for an event that says nothing.
    """
    text = _message(event)
    if "log_failure" in event:
        text = f"{text}\n{_traceback(event)}"
    if not text:
        return ""
    if not text.isprintable():
        text = "\n\t".join(printable(line.expandtabs()) for line in text.split("\n"))
    when = event.get("log_time")
    system = event.get("log_system")
    shown = f"{event.get('log_namespace', '-')}#{_level(event)}" if system is None else printable(_as_text(system))
    if "worker" in event:
        shown = f"{shown} worker={event['worker']}"
    return f"{'-' if when is None else _local.show(int(when))} [{shown}] {text}\n"


_encode = json.JSONEncoder(default=_as_text, allow_nan=False, separators=(",", ":")).encode

#: What events of twisted.python.log have in them beside what was logged.
_LEGACY = frozenset({"failure", "format", "isError", "system", "why"})


def format_json(event: LogEvent) -> str:
    """
    An event as one object of JSON, in ASCII and without control characters.

    First ``time`` (UTC, with milliseconds), ``level``, ``namespace``, ``worker``, its number, if one of several says
    it, ``event`` if it has a name, and ``message``, the text; then the fields of the event; ``traceback`` in the end
    if there is one. A value that JSON does not know becomes a text.

    :return: a line with its end; empty for an event that says nothing.
    """
    text = _message(event)
    failed = "log_failure" in event
    if not (text or failed):
        return ""
    when = event.get("log_time", 0.0)
    record: dict[str, Any] = {
        "time": f"{utc.show(int(when))}.{int(when * 1000) % 1000:03d}Z",
        "level": _level(event),
        "namespace": _as_text(event.get("log_namespace", "-")),
    }
    for name in ("worker", "event"):
        if name in event:
            record[name] = event[name]
    record["message"] = text
    left_out = _LEGACY if event.get("log_namespace") == "log_legacy" else ()
    for name, value in event.items():
        if not (name.startswith("log_") or name in left_out):
            record.setdefault(name, value)
    if failed:
        record["traceback"] = _traceback(event)
    try:
        return _encode(record) + "\n"
    except (TypeError, ValueError, RecursionError):
        return _encode({name: _encodable(value) for name, value in record.items()}) + "\n"


def _encodable(value: object) -> object:
    try:
        _encode(value)
    except (TypeError, ValueError, RecursionError):
        return _as_text(value)
    return value


FORMATS: dict[str, Callable[[LogEvent], str]] = {"text": format_text, "json": format_json}
