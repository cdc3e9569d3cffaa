"""
Where the log goes, and how a line of it looks.

Rule 1: where twistd was told to log to, there we log. Is that a file or the
terminal, an observer of ours writes all lines of the process, in the place of
twistd's: it is faster, and it knows JSON. With ``--logger`` and ``--syslog``
they decide, and what can't be had then is refused.

Rule 2: a log that can't be written costs its lines, and nothing else. As soon
as it can be written again, a line says how many are missing.

Rule 3: nothing in a line can begin another, or move the cursor of who reads it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, formatTime
from twisted.python import logfile
from zope.interface import implementer

from smtpfw.config.places import Place
from smtpfw.config.settings import BY_NAME
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError
from smtpfw.wire.transcript import printable

__all__ = [
    "LineFile",
    "LogFile",
    "Observer",
    "ProtocolLog",
    "format_json",
    "format_text",
    "make_observer",
    "make_protocol_log",
    "make_worker_observer",
    "shared_protocol_log",
]

_PROTOCOL_LOG = Place("--protocol-log")

#: What twistd takes when a daemon is told nothing.
_DEFAULT_FILE = "twistd.log"


class LineFile:
    """
    Takes lines. It never raises: lines that can't be written are counted, and lost.

    :param write: takes octets, or raises OSError or ValueError.
    :param complain: makes the line that says how many were lost.
    """

    def __init__(self, write: Callable[[bytes], object], complain: Callable[[int], str]) -> None:
        self._write = write
        self._complain = complain
        self._lost = 0

    def put(self, line: str) -> None:
        """Write a line; it has its line end."""
        try:
            if self._lost:
                self._write(self._complain(self._lost).encode())
                self._lost = 0
            self._write(line.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):
            self._lost += 1


class Descriptor:
    """Writes to a file descriptor, without a buffer that would fail later, and once more when the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, octets: bytes) -> None:
        """
        Write it all.

        :raises OSError: if that is not possible. What comes next begins a new line.
        """
        if self._torn:
            octets = b"\n" + octets
        written = 0
        try:
            while written < len(octets):
                written += os.write(self._descriptor, octets[written:] if written else octets)
        finally:
            self._torn = written < len(octets) if written else self._torn


class LogFile(logfile.LogFile):
    """
    twistd's kind of log file, which several processes can write to: each line goes to its end.

    :ivar reopened: these are called with the descriptor when another file has been begun.
    """

    reopened: list[Callable[[int], None]]

    def fileno(self) -> int:
        """The descriptor of the file that is written to now."""
        return self._file.fileno()

    def shouldRotate(self) -> bool:
        """Whether it is as long as it may be, by what all have written."""
        return bool(self.rotateLength) and os.fstat(self.fileno()).st_size >= self.rotateLength

    def _openFile(self) -> None:
        super()._openFile()  # type: ignore[no-untyped-call]
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(self.fileno(), fcntl.F_SETFL, flags | os.O_APPEND)
        for call in self.__dict__.setdefault("reopened", []):
            call(self.fileno())


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
_utc = Clock(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))


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
        "time": f"{_utc.show(int(when))}.{int(when * 1000) % 1000:03d}Z",
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


@implementer(ILogObserver)
class Observer:
    """
    Writes events as lines.

    :param write: takes octets, or raises OSError.
    :param format: makes the line, with its end; an empty one is not written.
    :param level: events below it are left out.
    :param worker: the number of the process, if several write to the same place; it becomes a field of each event.

    :ivar destination: where it goes, if other processes may write there, too.
    """

    destination: LogFile | Descriptor | None = None

    def __init__(
        self,
        write: Callable[[bytes], object],
        format: Callable[[LogEvent], str] = format_text,
        level: Any = LogLevel.info,
        worker: int = 0,
    ) -> None:
        self._worker = worker
        self._format = format
        self._left_out = frozenset(other for other in LogLevel.iterconstants() if other < level)
        self._file = LineFile(write, self._complain)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") in self._left_out:
            return
        if self._worker:
            event = {**event, "worker": self._worker}
        line = self._format(event)
        if line:
            self._file.put(line)

    def _complain(self, lost: int) -> str:
        return self._format(
            {
                "log_format": "{lost} lines of the log could not be written",
                "log_level": LogLevel.warn,
                "log_namespace": __name__,
                "log_time": time.time(),
                "lost": lost,
            }
        )


def make_observer(values: Mapping[str, Any], twistd: Mapping[str, Any] | None) -> Observer | None:
    """
    What writes the log of the process.

    :param values: those of the settings ``log_format`` and ``log_level``.
    :param twistd: its own options; None when the service is run by something else.
    :return: None if whoever runs us has an observer of its own.
    :raises ConfigError: if it has one, and we would have to write otherwise; or if the file can't be opened.
    """
    destination = None if twistd is None else _destination(twistd)
    if destination is None:
        for name in ("log_format", "log_level"):
            setting = BY_NAME[name]
            if values[name] != setting.default:
                place = values.place_of(name) if isinstance(values, Values) else Place(f"--{setting.option}")
                raise place.error(
                    "it is for logs that twistd writes to a file or the terminal; "
                    "its --logger and --syslog have formats of their own"
                )
        return None
    return _observer(values, destination)


def make_worker_observer(values: Mapping[str, Any], descriptor: int, worker: int) -> Observer:
    """
    What writes the log of a worker.

    :param values: as for :func:`make_observer`.
    :param descriptor: where the process that watches over it writes to.
    :param worker: its number.
    """
    return _observer(values, Descriptor(descriptor), worker)


def _observer(values: Mapping[str, Any], destination: LogFile | Descriptor, worker: int = 0) -> Observer:
    level = LogLevel.levelWithName(values["log_level"])
    observer = Observer(destination.write, FORMATS[values["log_format"]], level, worker)
    observer.destination = destination
    return observer


def _destination(twistd: Mapping[str, Any]) -> LogFile | Descriptor | None:
    """The file or the terminal that twistd would write to; None if it would do something else."""
    if "nodaemon" not in twistd or twistd.get("logger") or twistd.get("syslog"):
        return None
    name, foreground = twistd.get("logfile"), twistd["nodaemon"]
    if name == "-" or (foreground and not name):
        # A daemon has no terminal; twistd says so.
        return _stdout() if foreground else None
    try:
        file: LogFile = LogFile.fromFullPath(name or _DEFAULT_FILE)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ConfigError(f"--logfile {name or _DEFAULT_FILE}: {error.strerror}") from None
    _rotate_on_signal(file)
    return file


def _stdout() -> Descriptor | None:
    try:
        # What was printed so far comes first.
        sys.stdout.flush()
        return Descriptor(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        # It is closed, or something that somebody has put in its place.
        return None


def _rotate_on_signal(file: Any) -> None:
    """As twistd does for the file that it opens itself: without a handler the signal would end the process."""
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:

        def rotate(number: int, frame: object) -> None:
            from twisted.internet import reactor

            reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

        signal.signal(signal.SIGUSR1, rotate)


class ProtocolLog:
    """
    Writes down what is said on all connections: a line for each of theirs, behind the time and their id.

    :param write: takes octets, or raises OSError.
    :param now: the time, in seconds since 1970.

    :ivar descriptor: of the file, if other processes may write there, too.
    """

    descriptor: int | None = None

    def __init__(self, write: Callable[[bytes], object], now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._file = LineFile(write, lambda lost: f"{self._stamp()} - -- {lost} lines could not be written\n")

    def __call__(self, connection_id: str, peer_host: str) -> Callable[[str], None]:
        """What takes the lines of one connection; see :data:`smtpfw.server.transcripts.Transcripts`."""
        return lambda line: self._file.put(f"{self._stamp()} {connection_id} {line}\n")

    def _stamp(self) -> str:
        now = self._now()
        return f"{_utc.show(int(now))}.{int(now * 1000) % 1000:03d}Z"


def make_protocol_log(
    path: str | None, twistd: Mapping[str, Any] | None, place: Place = _PROTOCOL_LOG
) -> ProtocolLog | None:
    """
    The protocol log that the operator asks for.

    :param path: a file, ``stderr``, or None for no log.
    :param twistd: its own options, if it runs us.
    :param place: where that stands.
    :raises ConfigError: if it can't be opened.
    """
    if path is None:
        return None
    if path == "stderr":
        if twistd is not None and not twistd.get("nodaemon", True):
            raise place.error("a daemon has none; give a file, or twistd its -n", path)
        return shared_protocol_log(sys.stderr.fileno())
    try:
        # Who writes to whom is nobody else's business.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, place, error) from None
    return shared_protocol_log(descriptor)


def try_protocol_log(path: str, place: Place = _PROTOCOL_LOG) -> None:
    """
    Try whether the file of a protocol log could be opened, and make none.

    :param path: a file; it may be absent.
    :param place: where that stands.
    :raises ConfigError: if it could not.
    """
    folder = Path(path).parent
    try:
        if Path(path).exists():
            if not Path(path).is_fifo():
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        elif not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        elif not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise _cannot_open(path, place, error) from None


def _cannot_open(path: str, place: Place, error: Exception) -> ConfigError:
    return place.error((getattr(error, "strerror", None) or str(error)).lower(), path)


def shared_protocol_log(descriptor: int) -> ProtocolLog:
    """The protocol log in a file that is open already, for several processes perhaps."""
    log = ProtocolLog(Descriptor(descriptor).write)
    log.descriptor = descriptor
    return log
