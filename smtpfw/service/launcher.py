"""
How a worker is started, and what is known of it while it runs.

Rule 1: it is the same command, with the same options, in the same folder; and
it finds the same modules. What it is to be stands in its environment, see
:class:`~smtpfw.service.worker.Task`.

Rule 2: what a worker prints, and what Python prints when it dies, is in the log.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpfw.config.logging import Observer
from smtpfw.config.protocol_log import ProtocolLog
from smtpfw.config.systemd import SOCKET as NOTIFY_SOCKET
from smtpfw.service.link import Link
from smtpfw.service.worker import VARIABLE, Task

__all__ = ["Launcher", "Worker"]

#: Seconds that the last words of a worker are waited for.
LAST_WORDS = 1.0

#: Octets of a line that a worker prints; there may be no end of it.
_MAX_LINE = 8192

# sys.path first: it may be that Twisted is found by it only, and the current folder does not belong there.
_RUN = (
    "import json, os, sys; "
    f"sys.path[:] = json.loads(os.environ['{VARIABLE}'])['path']; "
    "from twisted.scripts.twistd import run; run()"
)

#: What twistd's options mean for each process, and not only for the first.
_TWISTD = ("reactor", "logger", "prefix")

#: What systemd says to the process that it has started.
_NOT_INHERITED = {NOTIFY_SOCKET, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"}


@dataclass(kw_only=True)
class Launcher:
    """
    How workers are started.

    :ivar words: our own options, as they were given.
    :ivar twistd: twistd's.
    :ivar observer: writes the log.
    :ivar protocol_log: the other log.
    """

    reactor: Any
    words: list[str]
    twistd: Mapping[str, Any]
    observer: Observer | None = None
    protocol_log: ProtocolLog | None = None
    folder: Path = field(default_factory=Path.cwd)
    path: list[str] = field(default_factory=lambda: [str(Path(entry).absolute()) for entry in sys.path])

    def start(
        self, worker: Worker, number: int, workers: int, sockets: list[list[int]], config: int | None
    ) -> socket.socket:
        """
        Start a process.

        :return: our end of the link.
        :raises OSError: if the system has no more processes, or files, for us.
        """
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            descriptors: dict[int, Any] = {0: null, 1: "r", 2: "r"}

            def give(descriptor: int) -> int:
                descriptors[len(descriptors)] = descriptor
                return len(descriptors) - 1

            log = None if self.observer is None else self.observer.destination
            protocol_log = None if self.protocol_log is None else self.protocol_log.descriptor
            task = Task(
                number=number,
                workers=workers,
                sockets=[[give(one) for one in row] for row in sockets],
                link=give(theirs.fileno()),
                log=None if log is None else give(log.fileno()),
                protocol_log=None if protocol_log is None else give(protocol_log),
                config=None if config is None else give(config),
            )
            environ = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
            environ[VARIABLE] = task.text(path=self.path)
            self.reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-c", _RUN, *self._twistd(), "smtpfw", *self.words],
                environ,
                # A folder that we are in already may be one that we could not enter again.
                None if Path.cwd() == self.folder else str(self.folder),
                childFDs=descriptors,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(null)
        return ours

    def _twistd(self) -> list[str]:
        words = ["--nodaemon", "--pidfile="]
        words += [f"--{name}={self.twistd[name]}" for name in _TWISTD if self.twistd.get(name)]
        return [*words, "--syslog"] if self.twistd.get("syslog") else words


class Worker(ProcessProtocol):
    """
    A process.

    :param reactor: watches over it.
    :param told: called with a line that it says over its link.
    :param ended: called when it has ended, with what is known about that, in words.
    """

    _log = Logger()

    def __init__(
        self,
        number: int,
        reactor: Any,
        told: Callable[[Worker, str], None],
        ended: Callable[[Worker, str], None],
    ) -> None:
        self._reactor = reactor
        self._late: IDelayedCall | None = None
        self.number = number
        self.ready = False
        self.retired: Deferred[None] = Deferred()
        self.serves: tuple[int, ...] = ()
        self.since = time.monotonic()
        self.pid = 0
        self.link: Link | None = None
        self._told = told
        self._ended = ended
        self._lines = {1: b"", 2: b""}

    def begin(self, sock: socket.socket) -> None:
        """Hear what it says."""
        self.pid = self.transport.pid  # type: ignore[union-attr]
        self.link = Link(self._reactor, sock, lambda line, _: self._told(self, line), lambda: None)
        self.link.listen()

    def say(self, line: str, descriptors: Iterable[int] = ()) -> None:
        """Tell it something."""
        if self.link is not None:
            self.link.say(line, list(descriptors))

    def has_retired(self) -> None:
        """Let nobody wait for that any longer."""
        if not self.retired.called:
            self.retired.callback(None)

    def kill(self) -> None:
        """End it, whatever it does."""
        # There is no transport's number any more as soon as the system may give it to another process.
        if self.transport is not None and self.transport.pid is not None:
            os.kill(self.transport.pid, signal.SIGKILL)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        """It has printed something."""
        *lines, rest = (self._lines[childFD] + data).split(b"\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], b""
        self._lines[childFD] = rest
        for line in lines:
            self._print(line)

    def processExited(self, reason: Failure) -> None:
        """It has ended. Its last words come first, but a program that it has started may hold what they come by."""
        if self.link is not None:
            self.link.close()
            self._late = self._reactor.callLater(LAST_WORDS, self._over, reason.value)

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and nothing more will be printed."""
        for rest in self._lines.values():
            self._print(rest)
        if self._late is not None and self._late.active():
            self._late.cancel()
            self._over(reason.value)

    def _over(self, value: Any) -> None:
        self.has_retired()
        if isinstance(value, ProcessDone):
            how = "has ended"
        elif value.signal is not None:
            how = f"was ended by {_name(value.signal)}"
        else:
            how = f"has ended with status {value.exitCode}"
        self._ended(self, how)

    def _print(self, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip()
        if text:
            self._log.warn("Worker {number} prints: {text}", number=self.number, text=text)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
