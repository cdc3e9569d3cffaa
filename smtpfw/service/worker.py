"""
One of several processes that serve: what it is told, and its side of the watch.

Rule 1: a worker binds nothing and reads no configuration file. Sockets, log and
the file as it was checked come from the process that has started it, as open
descriptors; where it finds them stands in one variable of the environment.

Rule 2: it obeys its :mod:`~smtpfw.service.link`, and ends when that ends. Of the
signals only SIGTERM means something, a drain: SIGINT and SIGHUP of a terminal
go to all processes, and whoever watches over them will say what it has decided.

Rule 3: each worker has a socket of its own for each TCP listener (see
:meth:`~smtpfw.config.sockets.BoundSocket.spread`), and those of the others for
when one of these is not there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver

from smtpfw.config.descriptors import allow_connections
from smtpfw.config.listeners import adopt
from smtpfw.config.sockets import BoundSocket
from smtpfw.service.generation import Generation
from smtpfw.service.link import Link
from smtpfw.service.privileges import Account
from smtpfw.service.service import SMTPService

__all__ = ["VARIABLE", "Task", "WorkerService"]

#: The variable of the environment with the task.
VARIABLE = "SMTPFW_WORKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    What a worker is to be.

    :ivar number: from 1.
    :ivar workers: how many there are.
    :ivar sockets: the descriptors of each listener's sockets, in the order of the plan.
    :ivar link: the descriptor of its link.
    :ivar log: where to write the log; None if twistd knows.
    :ivar protocol_log: the same.
    :ivar config: the configuration file; None without one.
    """

    number: int
    workers: int
    sockets: Sequence[Sequence[int]]
    link: int
    log: int | None = None
    protocol_log: int | None = None
    config: int | None = None

    def text(self, **more: object) -> str:
        """For the environment."""
        return json.dumps({**asdict(self), **more})

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Task | None:
        """Read it, once: programs that a worker starts are no workers. None in who is none."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        values = json.loads(text)
        task = cls(**{name: values[name] for name in cls.__slots__})
        for descriptor in task.descriptors():
            os.set_inheritable(descriptor, False)
        return task

    def descriptors(self) -> list[int]:
        """All of them."""
        others = (self.link, self.log, self.protocol_log, self.config)
        return [*(one for row in self.sockets for one in row), *(one for one in others if one is not None)]

    def configuration(self) -> bytes | None:
        """What stands in the configuration file."""
        if self.config is None:
            return None
        return os.pread(self.config, os.fstat(self.config).st_size, 0)


class WorkerService(SMTPService):
    """
    Serves one configuration, until it is told to stop.

    :param generation: it gets its sockets here.
    """

    def __init__(
        self,
        generation: Generation,
        reactor: Any,
        task: Task,
        observer: ILogObserver | None = None,
        account: Account | None = None,
    ) -> None:
        self._task = task
        self._link = Link(reactor, socket.socket(fileno=task.link), self._told, self._orphaned)
        self._retired = False
        #: Number of a socket -> those of all listeners that have it.
        self._serving: dict[int, list[BoundSocket]] = {}
        listeners = [listener for listen in generation.plan.listen for listener in listen.listeners]
        self._rows = [[_listening(one) for one in row] for row in task.sockets]
        generation.bind(
            adopt(listener, _own(row, task.number), reactor)
            for listener, row in zip(listeners, self._rows, strict=True)
        )
        super().__init__(generation, reactor, observer=observer, account=account)

    def _accept(self, generation: Generation) -> None:
        generation.take_over()
        allow_connections(sum(listen.config.max_connections for listen in generation.plan.listen))
        self._link.say("ready")

    def _handle_signals(self) -> None:
        self._set_signal_handler(signal.SIGTERM, self._on_signal)
        # No SIG_IGN: programs that we start would inherit it.
        for number in (signal.SIGINT, signal.SIGHUP):
            self._set_signal_handler(number, _overhear)
        self._link.listen()

    def _obey_signal(self) -> None:
        # Under systemd SIGTERM goes to all processes, so it may come besides the word.
        if self._draining is None:
            super()._obey_signal()

    def _told(self, line: str, descriptors: list[int]) -> None:
        word, *numbers = line.split()
        if word == "serve":
            self._serve({int(number) for number in numbers})
        elif word == "log":
            self._log_to(descriptors.pop(0))
        elif word == "retire":
            self._retire()
        elif word == "drain":
            self._obey_signal()
        elif word == "end":
            self._obey_signal()
            super()._obey_signal()

    def _orphaned(self) -> None:
        if self._draining is None:
            self._log.warn("The process that watches over this one has gone")
            self._obey_signal()

    def _serve(self, numbers: set[int]) -> None:
        """Accept from the sockets with these numbers; one that all have in common is everybody's."""
        if self._retired or self._draining is not None:
            return
        for number in set(self._serving).difference(numbers):
            for seat in self._serving.pop(number):
                self._ports.pop(seat).stopListening()
        for number in sorted(numbers.difference(self._serving)):
            self._serving[number] = []
            for row, bound in zip(self._rows, self._generation.sockets, strict=True):
                if number == self._task.number or len(row) > 1:
                    # The reactor closes what it was given, and the socket may be wanted again.
                    seat = BoundSocket(_own(row, number).dup(), bound.factory)
                    seat.endpoint, seat.switch = bound.endpoint, bound.switch
                    self._ports[seat] = seat.start(self._reactor)
                    self._serving[number].append(seat)

    def _retire(self) -> None:
        if self._retired or self._draining is not None:
            return
        self._serve(set())
        self._retired = True
        self._forget_sockets()
        # What has been closed is so in the next turn of the reactor.
        self._reactor.callLater(0, self._link.say, "retired")
        empty: Deferred[Any] = self._generation.retire()
        empty.addCallback(lambda _: self._obey_signal())

    def _log_to(self, descriptor: int) -> None:
        old = self._task.log
        if old is not None:
            # In place: who writes there knows the number only.
            os.dup2(descriptor, old, inheritable=False)
        os.close(descriptor)

    def _discard_sockets(self) -> None:
        self._forget_sockets()

    def _forget_sockets(self) -> None:
        for row in self._rows:
            for one in row:
                one.close()


def _listening(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    # It is so already, but Python does not know, and dup() would end it, for all processes.
    sock.setblocking(False)
    return sock


def _own(row: list[socket.socket], number: int) -> socket.socket:
    return row[number - 1] if len(row) > 1 else row[0]


def _overhear(number: int, frame: FrameType | None) -> None:
    """Take a signal, and do nothing."""
