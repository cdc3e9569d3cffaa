"""A process whose output is read as it comes, so that a test waits for a line and not for a time."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.interop.servers.common import TIMEOUT


class LoggedProcess:
    """
    Runs in ``with``, and is ended by SIGTERM.

    :param command: what is run.
    :param environment: its environment.
    :param inherited: file descriptors that it gets, under their own numbers.

    :ivar log: the lines that have come.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int] = ()) -> None:
        self._command = command
        self._environment = environment
        self._inherited = inherited
        self._news = threading.Condition()
        self._ended = False
        self.log: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            pass_fds=self._inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """
        The first line that matches.

        :raises AssertionError: if it ends, or is silent for long, before there is one.
        """
        seek = re.compile(pattern)
        begin = 0
        with self._news:
            while True:
                for line in self.log[begin:]:
                    found = seek.search(line)
                    if found:
                        return found
                begin = len(self.log)
                if self._ended or not self._news.wait(TIMEOUT):
                    raise AssertionError(f"no line {pattern!r} of {self._command[0]}:\n" + "\n".join(self.log))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
