"""
What a log is written to: a descriptor, or a file that is begun anew when it is long.

Rule: a log that can't be written costs its lines, and nothing else. As soon as
it can be written again, a line says how many are missing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from twisted.python import logfile

__all__ = ["Descriptor", "LineFile", "LogFile"]


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
