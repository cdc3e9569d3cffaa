"""
What the tests of the pool have in common: a pool, a clock, and servers that answer when the test says so.

Rule: a server is asked for its next answer by the test, or answers at once; in
both cases it takes what a client has said in order, and knows by its own
means which messages it has taken over.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.client.pool import Pool
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.testing import Joined, MemoryEndpoint
from smtpfw.wire.config import ClientConfig

CONFIG = ClientConfig(hello_name="me.test")


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """A collection for each test is quick if it looks at the objects of that test only."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_in_the_log() -> Iterator[None]:
    """No traceback, and no Deferred that failed and that nobody could hear of."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None:
            found.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert found == []


class Server(Protocol):
    """
    :ivar heard: what it was asked, line by line; a message is ``(name)``, by its sender.
    :ivar accepted: names of the messages that it has taken over.
    :ivar answers: verb -> what it says instead of yes; ``MESSAGE`` is the end of a message.
    """

    transport: Any
    factory: Servers

    def connectionMade(self) -> None:
        self.heard: list[str] = []
        self.accepted: list[str] = []
        self.answers: dict[str, bytes] = dict(self.factory.answers)
        self.lost = False
        self._buffer = b""
        self._sender = ""
        self._recipients = 0
        self._in_data = False
        self.factory.servers.append(self)
        if self.factory.greeting is not None:
            self.say(self.factory.greeting)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if self.factory.prompt:
            self.answer_all()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = True

    def say(self, octets: bytes) -> None:
        self.transport.write(octets)
        if octets.startswith(b"421"):
            self.transport.loseConnection()

    @property
    def asked(self) -> bool:
        """Whether there is something to answer."""
        return not self.lost and (b"\r\n.\r\n" in self._buffer if self._in_data else b"\r\n" in self._buffer)

    def answer_all(self) -> None:
        while self.asked and self.answer():
            pass

    def answer(self, reply: bytes | None = None) -> bool:
        """Answer what comes next; False for a silence."""
        if self._in_data:
            _, _, self._buffer = self._buffer.partition(b"\r\n.\r\n")
            self._in_data = False
            verb = "MESSAGE"
            self.heard.append(f"({self._sender})")
        else:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            text = line.decode()
            verb = text.partition(" ")[0]
            self.heard.append(text)
        if verb in ("MAIL", "RSET", "EHLO"):
            self._recipients = 0
        if verb == "MAIL":
            self._sender = text.partition("<")[2].partition("@")[0]
        if reply is None:
            reply = self.answers.get(verb, self.factory.usual(verb))
            if verb == "DATA" and not self._recipients:
                reply = b"503 nobody\r\n"
        if verb == "RCPT" and reply.startswith(b"2"):
            self._recipients += 1
        if verb == "DATA" and reply.startswith(b"354"):
            self._in_data = True
        if verb == "MESSAGE" and reply.startswith(b"2"):
            self.accepted.append(self._sender)
        if reply:
            self.say(reply)
        if verb == "QUIT" and reply:
            self.transport.loseConnection()
        return bool(reply)

    def verbs(self) -> list[str]:
        return [line.partition(" ")[0] for line in self.heard]


class Servers(Factory):
    """
    :ivar prompt: whether they answer at once.
    :ivar answers: of those that come; see :class:`Server`.
    """

    def __init__(self, *, pipelining: bool = True, prompt: bool = True) -> None:
        self.pipelining = pipelining
        self.prompt = prompt
        self.greeting: bytes | None = b"220 mx.test\r\n"
        self.answers: dict[str, bytes] = {}
        self.servers: list[Server] = []

    def buildProtocol(self, addr: Any) -> Server:
        server = Server()
        server.factory = self
        return server

    def usual(self, verb: str) -> bytes:
        if verb == "EHLO":
            return b"250-mx.test\r\n250 PIPELINING\r\n" if self.pipelining else b"250 mx.test\r\n"
        return {"DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n")


@implementer(IStreamClientEndpoint)
class SlowEndpoint:
    """Connects when it is told to."""

    def __init__(self, endpoint: MemoryEndpoint) -> None:
        self._endpoint = endpoint
        self.waiting: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connecting: Deferred[Any] = Deferred(lambda one: self.waiting.remove((protocolFactory, one)))
        self.waiting.append((protocolFactory, connecting))
        return connecting

    def let(self) -> None:
        """The first that waits is connected."""
        factory, connecting = self.waiting.pop(0)
        self._endpoint.connect(factory).chainDeferred(connecting)

    def refuse(self, why: str = "refused") -> None:
        self.waiting.pop(0)[1].errback(OSError(why))


async def step_by_step(pool: Pool, sender: str) -> SMTPClientProtocol:
    """Borrow a connection, and send a message on it."""
    client = await pool.acquire()
    try:
        await client.mail(f"{sender}@a.test")
        await client.rcpt("b@b.test")
        await client.data(b"Subject: x\r\n\r\nx\r\n")
    finally:
        pool.release(client)
    return client


class Rig:
    """
    A pool and the servers that it connects to.

    :ivar told: name -> what came of it, in the order in which it was heard.
    """

    def __init__(
        self, *, pipelining: bool = True, prompt: bool = True, slow: bool = False, tls: str = "none", **settings: Any
    ) -> None:
        self.clock = Clock()
        self.factory = Servers(pipelining=pipelining, prompt=prompt)
        self.endpoint = MemoryEndpoint(self.factory)
        self.slow = SlowEndpoint(self.endpoint)
        settings.setdefault("config", CONFIG)
        self.pool = Pool(self.slow if slow else self.endpoint, tls=tls, reactor=self.clock, **settings)
        self.told: dict[str, Any] = {}
        self.deferreds: dict[str, Deferred[Any]] = {}

    @property
    def servers(self) -> list[Server]:
        return self.factory.servers

    @property
    def links(self) -> list[Joined]:
        return self.endpoint.links

    @property
    def accepted(self) -> list[str]:
        """What was taken over, by all servers."""
        return [name for server in self.servers for name in server.accepted]

    def flow(self) -> None:
        self.endpoint.flow()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flow()

    def hear(self, name: str, deferred: Deferred[Any], then: Callable[[Any], object] | None = None) -> Deferred[Any]:
        """Note what comes of something; ``then`` is called within."""
        assert name not in self.deferreds
        self.deferreds[name] = deferred

        def tell(result: Any) -> Any:
            assert name not in self.told, "told twice"
            self.told[name] = result.value if isinstance(result, Failure) else result
            if then is not None:
                then(result)

        deferred.addBoth(tell)
        return deferred

    def send(self, *names: str, body: Any = None, then: Callable[[Any], object] | None = None) -> None:
        """Send messages; what comes of each stands in ``told``."""
        for name in names:
            text = f"Subject: {name}\r\n\r\n{name}\r\n".encode() if body is None else body
            self.hear(name, self.pool.send_mail(f"{name}@a.test", "b@b.test", text), then)
        self.flow()

    def acquire(self, name: str = "client") -> Any:
        self.hear(name, self.pool.acquire())
        self.flow()
        return self.told.get(name)

    def close(self, name: str = "closed") -> None:
        self.hear(name, self.pool.close())
        self.flow()

    def answer(self, server: int = -1, count: int = 1, reply: bytes | None = None) -> None:
        """Have a server give its next answers."""
        for _ in range(count):
            self.servers[server].answer(reply)
            self.flow()

    def answer_all(self) -> None:
        """Have all servers answer until nothing is asked any more."""
        self.flow()
        while asked := [server for server in self.servers if server.asked]:
            for server in asked:
                server.answer()
            self.flow()

    def error(self, name: str) -> Any:
        error = self.told[name]
        assert isinstance(error, Exception), error
        return error

    def was_sent(self, *names: str) -> bool:
        return all(hasattr(self.told.get(name), "accepted") for name in names)

    def end(self) -> None:
        """Close it, and see to it that nothing is left."""
        if "closed" not in self.told:
            self.factory.prompt = True
            self.close()
            for server in self.servers:
                server.answer_all()
            self.flow()
        assert self.told["closed"] is None
        self.assert_over()

    def assert_over(self) -> None:
        assert (self.pool.open, self.pool.waiting) == (0, 0)
        assert self.clock.getDelayedCalls() == []
        assert all(link.client_transport.closed for link in self.links)
