"""
The protocol log: what is said on all connections, in a file of its own.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smtpfw.config.log_files import Descriptor, LineFile
from smtpfw.config.log_lines import utc
from smtpfw.config.places import Place
from smtpfw.errors import ConfigError

__all__ = ["ProtocolLog", "make_protocol_log", "shared_protocol_log", "try_protocol_log"]

_PROTOCOL_LOG = Place("--protocol-log")


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
        return f"{utc.show(int(now))}.{int(now * 1000) % 1000:03d}Z"


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
