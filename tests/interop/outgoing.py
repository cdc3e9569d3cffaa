"""
What our client sends to servers that people have, by which ways and settings; and whether it has arrived.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Awaitable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from smtpfw.client import ClientConfig, SendResult, send_mail
from tests.interop.servers.common import Peer

E = TypeVar("E", bound=Exception)

SENDER = "sender@example.net"

HEADER = (
    b"From: sender@example.net\r\nTo: reader@example.org\r\nSubject: x\r\n"
    b"Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.net>\r\n"
)
MIME = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"

TEXT = HEADER + b"\r\n.one dot\r\n..two\r\n.\r\n...\r\n. \r\n\r\nFrom the beginning\r\n" + b"a" * 998 + b"\r\n\r\n"
EIGHT_BIT = HEADER + MIME + "\r\n.Äpfel, naïve, 日本語\r\n.\r\n\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
UTF8_HEADER = HEADER.replace(b"Subject: x", "Subject: Größe, 世界".encode()) + MIME + "\r\nÄpfel\r\n".encode()

BIG = 25 * 1024 * 1024

#: The lines that servers put in front of a message.
TRACE = (b"received:", b"return-path:", b"delivered-to:", b"x-original-to:", b"envelope-to:", b"delivery-date:")


class Way(NamedTuple):
    """How the connection is protected: what ``send_mail`` is told."""

    name: str
    tls: str
    implicit: bool = False

    def settings(self, peer: Peer) -> dict[str, Any]:
        """What a client is told for it."""
        certificates = {"tls_name": "localhost", "ca": str(peer.ca)} if self.tls != "none" else {}
        return {"tls": self.tls, **certificates}


CLEAR, STARTTLS, IMPLICIT = Way("clear", "none"), Way("STARTTLS", "required"), Way("implicit TLS", "required", True)

#: With and without what makes a client quick.
CONFIGS = {
    "pipelined, BDAT": ClientConfig(),
    "one by one, BDAT": ClientConfig(pipelining=False),
    "pipelined, DATA": ClientConfig(chunking=False),
    "one by one, DATA": ClientConfig(pipelining=False, chunking=False),
}


@cache
def big_message() -> bytes:
    """25 MiB of lines of every length, some of which begin with dots."""
    chance = random.Random(25)
    lines = [b"." * chance.randrange(3) + b64encode(chance.randbytes(chance.randrange(720))) for _ in range(2_000)]
    block = b"\r\n".join(lines) + b"\r\n"
    return HEADER + b"\r\n" + block * (BIG // len(block) + 1)


def check_octets(stored: bytes, message: bytes) -> None:
    """What is stored is the message, behind trace lines."""
    # No assertEqual: it would print 25 MiB.
    assert stored.endswith(message), f"not as it was sent: {stored[:2000]!r}"
    front = stored[: len(stored) - len(message)]
    assert not front or front.endswith(b"\r\n"), front
    for line in front.split(b"\r\n")[:-1]:
        assert line.startswith((b"\t", b" ")) or line.lower().startswith(TRACE), line


async def failure(attempt: Awaitable[Any], kind: type[E]) -> E:
    """The exception that this must end in."""
    try:
        await attempt
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


async def send_to(peer: Peer, recipients: Any, body: Any, way: Way = CLEAR, **settings: Any) -> SendResult:
    """``send_mail`` to a server; ``settings`` are its own, and go before those of the way."""
    told: dict[str, Any] = {"sender": SENDER, **way.settings(peer), **settings}
    return await send_mail(peer.where(implicit=way.implicit), told.pop("sender"), recipients, body, **told)
