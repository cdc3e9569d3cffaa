"""
Where the log of the process goes.

Rule: where twistd was told to log to, there we log. Is that a file or the
terminal, an observer of ours writes all lines of the process, in the place of
twistd's: it is faster, and it knows JSON. With ``--logger`` and ``--syslog``
they decide, and what can't be had then is refused.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from smtpfw.config.log_files import Descriptor, LineFile, LogFile
from smtpfw.config.log_lines import FORMATS, format_text
from smtpfw.config.places import Place
from smtpfw.config.settings import BY_NAME
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError

__all__ = ["Observer", "make_observer", "make_worker_observer"]

#: What twistd takes when a daemon is told nothing.
_DEFAULT_FILE = "twistd.log"

#: What Twisted's ports say when a socket opens and when it closes, whatever a protocol wants: for each question to DNS
#: there is one, see :mod:`smtpfw.dns.resolver`.
_SOCKETS_OF_DNS = re.compile(r"_QuestionProtocol starting on [0-9]+|\(UDP Port [0-9]+ Closed\)")


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
        if event.get("log_namespace") == "log_legacy" and _SOCKETS_OF_DNS.fullmatch(str(event.get("log_text"))):
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
