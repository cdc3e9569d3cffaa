"""What the tests of the server's shell have in common: a connection in memory, and its usual words."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.interfaces import IBackend
from smtpfw.testing import MemoryClient

HELLO = b"EHLO me\r\n"
MAIL = b"MAIL FROM:<a@b.test>\r\n"
RCPT = b"RCPT TO:<c@d.test>\r\n"
ENVELOPE = HELLO + MAIL + RCPT
DATA = b"DATA\r\n"
MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"
DOT = b".\r\n"

SENDER_OK = b"250 2.1.0 Sender OK\r\n"
RECIPIENT_OK = b"250 2.1.5 Recipient OK\r\n"
MESSAGE_OK = b"250 2.0.0 Message accepted\r\n"
TRY_AGAIN = b"451 4.3.0 Try again later\r\n"


def make_factory(backend: IBackend, clock: Clock | None = None, **settings: Any) -> SMTPServerFactory:
    extras = {name: settings.pop(name) for name in ("extensions", "tls", "checks") if name in settings}
    return SMTPServerFactory(backend, ServerConfig(hostname="mx.test", **settings), reactor=clock or Clock(), **extras)


def connect(backend: IBackend, clock: Clock | None = None, **settings: Any) -> MemoryClient:
    return MemoryClient.of(make_factory(backend, clock, **settings))


def greeted(backend: IBackend, clock: Clock | None = None, *said: bytes, **settings: Any) -> MemoryClient:
    """A client that has said something already, and read what was answered."""
    clock = clock or Clock()
    client = connect(backend, clock, **settings)
    clock.advance(client.protocol.factory.config.profile.greeting_delay)
    for words in said:
        client.send(words)
    client.received()
    return client


def codes(received: bytes) -> list[bytes]:
    """The code of each reply: those of last lines."""
    return [line[:3] for line in received.split(b"\r\n") if line[3:4] == b" "]
