"""Targets that record what they are asked and do as they are told, and a dialog with a mux in front of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from smtpfw import ServerConfig, Session, SMTPServerFactory
from smtpfw.backends.mux import MuxBackend
from smtpfw.interfaces import IBackend, IBody, IConnection, ILMTPSession, IPrepared, IStatusCollector, ITwoPhaseSession
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"
DOT = b".\r\n"
OK = b"250 2.0.0 Message accepted\r\n"
RECIPIENT_OK = b"250 2.1.5 Recipient OK\r\n"
TRY_AGAIN = b"451 4.3.0 Try again later\r\n"
UNKNOWN = b"550 5.1.1 No such mailbox here\r\n"
GO_AHEAD = b"354 "


@implementer(IBackend)
class Store:
    """
    Prepares, commits and rolls back in memory.

    :param answers: by the name of a step: a function that returns or raises what the step shall. ``prepare`` takes the
        body, and what it returns stands for its octets.

    :ivar events: every step.
    :ivar messages: what was committed: the recipients' local parts and the octets.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, **answers: Callable[..., Any]) -> None:
        self.answers = answers
        self.events: list[str] = []
        self.messages: list[tuple[list[str], bytes]] = []
        self.connections: list[IConnection] = []

    def new_session(self, connection: IConnection) -> Any:
        self.connections.append(connection)
        return StoreSession(self, connection)

    def step(self, name: str) -> Any:
        self.events.append(name)
        answer = self.answers.get(name)
        return None if answer is None else answer()


@implementer(ITwoPhaseSession)
class StoreSession(Session):
    def __init__(self, store: Store, connection: IConnection) -> None:
        super().__init__(connection)
        self._store = store

    async def prepare(self, body: IBody) -> Any:
        self._store.events.append("prepare")
        prepare = self._store.answers.get("prepare")
        octets = await (body.read() if prepare is None else prepare(body))
        transaction = self.connection.transaction
        assert transaction is not None
        return Prepared(self._store, [one.address.local_part for one in transaction.recipients], octets)

    async def data(self, body: IBody) -> Any:
        await (await self.prepare(body)).commit()

    def reset(self, reason: str) -> None:
        self._store.step(f"reset {reason}")

    def logout(self, reason: str) -> None:
        self._store.step(f"logout {reason}")


@implementer(IPrepared)
class Prepared:
    def __init__(self, store: Store, names: list[str], octets: bytes) -> None:
        self._store = store
        self._message = names, octets

    async def commit(self) -> Any:
        answer = self._store.step("commit")
        if hasattr(answer, "__await__"):
            answer = await answer
        self._store.messages.append(self._message)
        return answer

    def roll_back(self) -> Any:
        return self._store.step("roll_back")


class EachAnswers(RecordingBackend):
    """
    Its sessions answer each LMTP recipient by themselves.

    :param deliver: takes the body and the status collector.
    """

    def __init__(self, deliver: Callable[[IBody, IStatusCollector], Any], **answers: Callable[..., Any]) -> None:
        super().__init__(**answers)
        self.deliver = deliver

    def new_session(self, connection: IConnection) -> Any:
        return EachSession(self, connection)


@implementer(ILMTPSession)
class EachSession(Session):
    def __init__(self, backend: EachAnswers, connection: IConnection) -> None:
        super().__init__(connection)
        self._backend = backend

    def lmtp_data(self, body: IBody, status: IStatusCollector) -> Any:
        return self._backend.deliver(body, status)

    def data(self, body: IBody) -> Any:
        raise AssertionError("an LMTP session is not asked like this")


def raising(error: Exception) -> Callable[..., Any]:
    """A hook that raises."""

    def hook(*arguments: Any) -> Any:
        raise error

    return hook


def connect(backend: IBackend, **settings: Any) -> MemoryClient:
    """A client that has introduced itself."""
    client = MemoryClient.of(SMTPServerFactory(backend, ServerConfig(hostname="mx.test", **settings), reactor=Clock()))
    client.send(b"LHLO me\r\n" if settings.get("protocol") == LMTP else b"EHLO me\r\n")
    client.received()
    return client


def rcpt(client: MemoryClient, recipient: str) -> bytes:
    """One RCPT, and its reply."""
    return client.send(f"RCPT TO:<{recipient}>\r\n".encode())


def begin(client: MemoryClient, *recipients: str) -> list[bytes]:
    """MAIL and RCPTs; the replies to the latter."""
    assert client.send(b"MAIL FROM:<me@client.test>\r\n") == b"250 2.1.0 Sender OK\r\n"
    return [rcpt(client, recipient) for recipient in recipients]


def send(client: MemoryClient, *recipients: str, message: bytes = MESSAGE) -> bytes:
    """A whole transaction; what answers the message."""
    for answer in begin(client, *recipients):
        assert answer == RECIPIENT_OK, answer
    assert client.send(b"DATA\r\n").startswith(GO_AHEAD)
    return client.send(message + DOT)


def by_domain(**targets: Any) -> MuxBackend:
    """A mux of one-label domains; the first takes the bare postmaster, too."""
    return MuxBackend(
        {"postmaster": next(iter(targets.values())), **{f"{name}.test": t for name, t in targets.items()}}
    )


def names(backend: RecordingBackend) -> list[str]:
    """Which hooks were called."""
    return [name for name, _ in backend.events]


#: Longer than what a leg and the body in front of it hold together.
LARGE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n" * 16384


def of(*targets: Any, **settings: Any) -> MemoryClient:
    """A client that is in the middle of DATA for one recipient at each target."""
    client = connect(by_domain(**dict(zip("abcd", targets, strict=False))), **settings)
    begin_data(client, len(targets))
    return client


def begin_data(client: MemoryClient, count: int) -> None:
    answers = begin(client, *[f"x@{name}.test" for name in "abcd"[:count]])
    assert answers == [RECIPIENT_OK] * count
    assert client.send(b"DATA\r\n").startswith(GO_AHEAD)


def bodies(*targets: Any) -> list[list[bytes]]:
    """What each target keeps."""
    return [[m[1] if isinstance(m, tuple) else m.body for m in target.messages] for target in targets]


class Reads:
    """
    A ``data`` hook that keeps what it reads and how that ended.

    :ivar chunks: what it has read.
    :ivar ended: ``whole``, or the name of the error.
    """

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ended = ""

    async def __call__(self, body: IBody) -> None:
        try:
            async for chunk in body:
                self.chunks.append(chunk)
        except BaseException as error:
            self.ended = type(error).__name__
            raise
        self.ended = "whole"


async def nothing() -> bytes:
    return b""


def of_recipients(mux: Any, *recipients: str) -> MemoryClient:
    """A client that is behind its RCPTs."""
    client = connect(mux)
    for answer in begin(client, *recipients):
        assert answer == RECIPIENT_OK
    return client
