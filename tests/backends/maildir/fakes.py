"""A connection, a body, and a kernel that records what it is asked and fails on demand."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.maildir.backend import MaildirSession
from smtpfw.interfaces import IBody, IConnection
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Recipient, Transaction

OPTIONS = Options({})


@implementer(IConnection)
@dataclass
class FakeConnection:
    id: str = "c1"
    hostname: str = "mx.example.org"
    peer: Any = None
    local: Any = None
    peer_host: str = "192.0.2.1"
    hello_name: str = "client.example"
    protocol: str = "ESMTP"
    tls: str = ""
    seconds_since_mail: float = 0.0
    transaction: Transaction | None = None
    context: dict[Any, Any] = field(default_factory=dict)

    def close(self) -> None:
        raise AssertionError("a backend that stores closes nothing")


@implementer(IBody)
class FakeBody:
    """Gives its parts: bytes are chunks, an exception is raised, a Deferred is waited for."""

    def __init__(self, *parts: bytes | Exception | Deferred[None]) -> None:
        self.parts = parts
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            if isinstance(part, Deferred):
                await part
            else:
                self.size += len(part)
                yield part


@implementer(IReactorThreads)
class RecordingReactor:
    """The real reactor; each call into it from a thread goes on the record."""

    def __init__(self, record: list[str]) -> None:
        self._record = record

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._record.append("answer")
        reactor.callFromThread(function, *args, **kwargs)

    def getThreadPool(self) -> Any:
        return reactor.getThreadPool()

    def callInThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        reactor.callInThread(function, *args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        reactor.suggestThreadPoolSize(size)


class MaildirTestCase(TestCase):
    """A folder, a backend, a record of system calls, and the backend's log."""

    CALLS = ("mkdir", "open", "write", "pread", "fsync", "close", "rename")

    def setUp(self) -> None:
        # Not trial's mktemp(): under pytest it stays in the current folder.
        self.root = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.root)
        self.record: list[str] = []
        self.fail_at = -1
        self.fault: Exception | None = None
        self.on_call: Callable[[str], None] = lambda line: None
        self._events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self._events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self._events.append)
        for name in self.CALLS:
            self.patch(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(first, int):
                try:
                    path = str(Path(f"/proc/self/fd/{first}").readlink())
                except FileNotFoundError:
                    return real(first, *args, **kwargs)
            else:
                path = str(first)
            if not f"{path}/".startswith(f"{self.root}/"):
                return real(first, *args, **kwargs)
            line = f"{name} {self.nameless(path)}"
            index = len(self.record)
            self.record.append(line)
            self.on_call(line)
            if index != self.fail_at or self.fault is None:
                return real(first, *args, **kwargs)
            if name == "close":  # the kernel takes the descriptor in any case
                real(first)
            raise self.fault

        return call

    def nameless(self, path: str) -> str:
        """A path below the root, which is ``.``; the name of a message is ``*``."""
        if path == str(self.root):
            return "."
        *folders, name = path.removeprefix(f"{self.root}/").split("/")
        return "/".join([*folders, "*" if "P" + str(os.getpid()) in name else name])

    def backend(self, template: str = "{user}", **kwargs: Any) -> MaildirBackend:
        backend = MaildirBackend(str(self.root / template), **kwargs)
        self.addCleanup(backend.stop)
        return backend

    def session(self, backend: MaildirBackend, **kwargs: Any) -> MaildirSession:
        session = backend.new_session(FakeConnection(**kwargs))
        assert isinstance(session, MaildirSession)
        return session

    async def ready_to_send(
        self, backend: MaildirBackend, *recipients: str, sender: str = "a@client.example", **kwargs: Any
    ) -> MaildirSession:
        """A session after MAIL and RCPT."""
        transaction = Transaction("t1", Address.parse(sender), OPTIONS)
        session = self.session(backend, transaction=transaction, **kwargs)
        assert session.mail(transaction.sender, OPTIONS) is None
        for text in recipients:
            address = Address(text) if "@" not in text else Address.parse(text)
            answer: Any = session.rcpt(address, OPTIONS)
            if answer is not None:
                await answer
            transaction.recipients.append(Recipient(address, OPTIONS))
        return session

    async def deliver(
        self, backend: MaildirBackend, recipients: list[str], *parts: bytes | Exception | Deferred[None], **kwargs: Any
    ) -> str:
        session = await self.ready_to_send(backend, *recipients, **kwargs)
        return await session.data(FakeBody(*parts))

    def files(self, subfolder: str) -> list[Path]:
        """Every file in any ``tmp`` or ``new``."""
        return sorted(path for path in self.root.rglob(f"{subfolder}/*") if path.is_file())

    def stored(self) -> list[bytes]:
        """What is in any ``new``; and nothing may be in ``tmp``."""
        self.assertEqual(self.files("tmp"), [])
        return [path.read_bytes() for path in self.files("new")]

    def logged(self) -> list[str]:
        """The lines that the backend logged."""
        return [
            str(event["log_format"]).format(**event)
            for event in self._events
            if str(event["log_namespace"]).startswith("smtpfw.backends.maildir")
        ]
