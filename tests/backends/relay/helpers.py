"""A client, a server that passes its mail on, and the next hops behind it, all in memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.client import Destination
from smtpfw.testing import MESSAGE, MemoryClient, MemoryEndpoint, RecordingBackend, ScriptedPeer
from smtpfw.testing.memory import PEER
from smtpfw.wire.config import LMTP, SMTP

HELLO = b"250-hop.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
GREETING: Sequence[Any] = [b"220 hop.test ESMTP\r\n", ("EHLO", HELLO)]
LMTP_GREETING: Sequence[Any] = [b"220 hop.test LMTP\r\n", ("LHLO", HELLO)]
OK = b"250 2.0.0 OK\r\n"
GO_AHEAD = b"354 Start mail input; end with <CRLF>.<CRLF>\r\n"
BODY = b"Subject: hello\r\n\r\nhello\r\n"
FAILED = b"451 4.4.0 Forwarding failed, try again later\r\n"
DENIED = b"550 5.7.1 Relaying denied\r\n"

#: More than all that is held between the sender and the next hop.
LARGE = (b"x" * 76 + b"\r\n") * 20_000

#: What MemoryClient comes from.
TRUSTED = ["192.0.2.0/24"]


class Hops:
    """
    Next hops in memory.

    :param factories: of each, in their order; None for one that refuses connections.
    """

    def __init__(self, *factories: IProtocolFactory | None, protocol: str = SMTP) -> None:
        self.endpoints = [MemoryEndpoint(factory) for factory in factories]
        self.destinations = [Destination.of(endpoint, protocol=protocol) for endpoint in self.endpoints]

    def flow(self) -> None:
        while any(endpoint.flow() for endpoint in self.endpoints):
            pass

    def end(self) -> None:
        """Close all connections, whatever is under way."""
        for link in [link for endpoint in self.endpoints for link in endpoint.links]:
            link.client_transport.abortConnection()
            link.flow()


class Sender:
    """
    A client of ours.

    :param backend: passes mail on.
    :param hops: are moved with every word of the client's.

    :cvar all: those of the test that runs.
    """

    all: ClassVar[list[Sender]] = []

    def __init__(
        self,
        backend: Any,
        hops: Hops,
        clock: Clock,
        *,
        protocol: str = SMTP,
        peer: Any = PEER,
        max_message_bytes: int = 0,
        **server: Any,
    ) -> None:
        self.all.append(self)
        self.hops = hops
        self.clock = clock
        config = ServerConfig(hostname="relay.test", protocol=protocol, max_message_bytes=max_message_bytes)
        self.factory = SMTPServerFactory(backend, config, reactor=clock, **server)
        self.client = MemoryClient.of(self.factory, peer)
        self.hello = self.say("LHLO me.test" if protocol == LMTP else "EHLO me.test").decode()

    def send(self, data: bytes) -> bytes:
        """Send octets; what is answered once nothing moves any more."""
        answer = self.client.send(data)
        self.hops.flow()
        return answer + self.client.received()

    def say(self, line: str) -> bytes:
        return self.send(line.encode() + b"\r\n")

    def envelope(self, *recipients: str, parameters: str = "") -> list[bytes]:
        """MAIL and RCPTs, each with its answer."""
        answers = [self.say(f"MAIL FROM:<a@sender.test>{parameters}")]
        return answers + [self.say(f"RCPT TO:<{recipient}>") for recipient in recipients or ("b@there.test",)]

    def begin(self, *recipients: str, parameters: str = "") -> None:
        """A transaction up to the 354."""
        for answer in self.envelope(*recipients, parameters=parameters):
            assert answer.startswith(b"250 "), answer
        assert self.say("DATA") == GO_AHEAD

    def mail(self, *recipients: str, body: bytes = BODY, parameters: str = "") -> bytes:
        """A whole transaction; what answers the message."""
        self.begin(*recipients, parameters=parameters)
        return self.send(body + b".\r\n")

    def advance(self, seconds: float) -> bytes:
        """Let time pass; what is said meanwhile."""
        self.clock.advance(seconds)
        self.hops.flow()
        return self.client.received()


def _of_the_listener(settings: dict[str, Any]) -> dict[str, Any]:
    names = {"server_tls": "tls"}
    listeners = ("protocol", "peer", "max_message_bytes", "extensions", *names)
    return {names.get(name, name): settings.pop(name) for name in listeners if name in settings}


def relay_to(*factories: IProtocolFactory | None, clock: Clock | None = None, **settings: Any) -> Sender:
    """A client whose mail is passed on by SMTP; ``through``: by a mux, which stands in front."""
    listener = _of_the_listener(settings)
    clock, hops = clock or Clock(), Hops(*factories)
    through = settings.pop("through", None)
    settings = {"trusted": TRUSTED, "config": DEFAULT_CONFIG, **settings}
    backend: Any = RelayBackend(hops.destinations, reactor=clock, **settings)
    return Sender(backend if through is None else through({}, backend), hops, clock, **listener)


def lmtp_to(*factories: IProtocolFactory | None, clock: Clock | None = None, **settings: Any) -> Sender:
    """A client whose mail is passed on by LMTP."""
    listener = _of_the_listener(settings)
    clock, hops = clock or Clock(), Hops(*factories, protocol=LMTP)
    return Sender(LMTPBackend(hops.destinations, reactor=clock, **settings), hops, clock, **listener)


def server(backend: Any = None, clock: Clock | None = None, *, protocol: str = SMTP, **server: Any) -> Any:
    """A next hop that is a real server."""
    config = ServerConfig(hostname="hop.test", protocol=protocol)
    return SMTPServerFactory(backend or RecordingBackend(), config, reactor=clock or Clock(), **server)


def script(*steps: Any, greeting: Sequence[Any] = GREETING) -> ScriptedPeer:
    """A next hop that has greeted, and then plays a script."""
    return ScriptedPeer([*greeting, *steps])


def whole(reply: bytes = OK, *, recipients: int = 1) -> list[Any]:
    """The steps of a message that goes through up to its answer."""
    return [("MAIL", OK), *[("RCPT", OK)] * recipients, ("DATA", b"354 go on\r\n"), (MESSAGE, reply)]


def without_trace(message: bytes) -> bytes:
    """A message without our Received field."""
    found = re.match(rb"Received: from .*?;\r\n\t[^\r]*\r\n", message, re.DOTALL)
    assert found, message[:200]
    return message[found.end() :]
