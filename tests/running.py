"""Runs ``twistd smtpfw`` as a process on a free loopback port, for tests and scripts that need the real thing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent

#: Seconds until a server that has not said where it listens is given up.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

_LISTENING = re.compile(r"Listening (?:for LMTP )?on 127\.0\.0\.1:(\d+)")
_TCP = ("tcp:", "smtps:tcp:")


class Twistd:
    """
    A server in a process of its own; use it in ``with``.

    :param arguments: options of smtpfw, ``--listen`` or ``--config`` among them only if another than a free port is
        wanted.
    :param wrapper: a command to run it under, such as strace.
    :param folder: where it runs.
    :param listeners: how many listeners of TCP there are, if that can't be seen in the arguments.

    :ivar port: where it listens.
    :ivar ports: the same for several listeners of TCP, in their order.
    """

    def __init__(
        self, *arguments: str, wrapper: Sequence[str] = (), folder: Path | None = None, listeners: int = 1
    ) -> None:
        listen = () if {"--listen", "--config"}.intersection(arguments) else ("--listen", "tcp:0:interface=127.0.0.1")
        self._command = [*wrapper, *_twistd(), "-n", "--pidfile=", "smtpfw", *listen, *arguments]
        self._wrapped = bool(wrapper)
        self._folder = folder or Path(tempfile.gettempdir())
        self._lines: list[str] = []
        self._listening = threading.Event()
        self._expected = max(listeners, sum(word.startswith(_TCP) for word in self._command))
        self.ports: list[int] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(START_TIMEOUT) or len(self.ports) < self._expected:
            self._process.kill()
            self._end()
            raise RuntimeError(f"{' '.join(self._command)} does not listen:\n{self.log}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def pid(self) -> int:
        """The server's process, not the wrapper's."""
        pid = self._process.pid
        if self._wrapped:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return pid

    @property
    def log(self) -> str:
        """What it has printed."""
        return "".join(self._lines)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """
        End it by a signal.

        :return: its exit status.
        """
        os.kill(self.pid, number)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._end()
            raise RuntimeError(f"signal {number} did not end it:\n{self.log}") from None
        self._end()
        return status

    def _end(self) -> None:
        self._process.wait()
        self._reader.join(STOP_TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            found = _LISTENING.search(line)
            if found:
                self.ports.append(int(found[1]))
                if len(self.ports) == self._expected:
                    self._listening.set()
        self._listening.set()


def _twistd() -> list[str]:
    # The twistd of this interpreter, whether or not its folder is on the PATH.
    return [str(Path(sys.executable).with_name("twistd"))]
