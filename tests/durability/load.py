"""
Clients that remember which of their messages were acknowledged, and the check of what was stored.

Each message has a token in its first header line and the SHA-256 of its text
behind it, so a file on disk tells whether it is whole, and whose it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CONNECTIONS = 20

_MARK = re.compile(rb"^X-Token: (\S+) (\d+) ([0-9a-f]{64})\r\n", re.MULTILINE)


def make_message(token: str, size: int, rng: random.Random) -> bytes:
    """A message of about ``size`` octets, CRLF at every line's end."""
    line = rng.randbytes(32).hex().encode() + b"\r\n"
    text = b"\r\n" + line * (size // len(line) + 1)
    digest = hashlib.sha256(text).hexdigest()
    return f"X-Token: {token} {len(text)} {digest}\r\n".encode() + text


@dataclass
class Outcome:
    """What the clients of one run have seen."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: int = 0


async def send_until_gone(port: int, name: str, rng: random.Random, outcome: Outcome, recipients: list[str]) -> None:
    """Send message after message on one connection until the server has gone."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    try:
        await _reply(reader)
        writer.write(b"EHLO client.example\r\n")
        await _reply(reader)
        number = 0
        while True:
            number += 1
            token = f"{name}.{number}"
            size = rng.choice([200, 1000, 1000, 4000, 50_000, 300_000])
            chosen = rng.sample(recipients, rng.randint(1, len(recipients)))
            commands = [b"MAIL FROM:<sender@example.net>"]
            commands += [f"RCPT TO:<{recipient}>".encode() for recipient in chosen]
            writer.write(b"\r\n".join([*commands, b"DATA", b""]))
            for _ in commands:
                await _reply(reader)
            await _reply(reader)
            writer.write(make_message(token, size, rng) + b".\r\n")
            await writer.drain()
            if (await _reply(reader)).startswith(b"250"):
                outcome.acknowledged[token] = len(chosen)
            else:
                outcome.refused += 1
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> bytes:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] == b" ":
            if line.startswith(b"421"):
                raise ConnectionResetError(line)
            return line


@dataclass
class Stored:
    """What the folders hold."""

    #: token -> how often
    whole: dict[str, int] = field(default_factory=dict)
    partial: list[Path] = field(default_factory=list)

    def read(self, files: Iterable[Path]) -> None:
        """Look into files of ``new``."""
        for path in files:
            octets = path.read_bytes()
            mark = _MARK.search(octets)
            if mark is None:
                self.partial.append(path)
                continue
            text = octets[mark.end() :]
            if len(text) != int(mark[2]) or hashlib.sha256(text).hexdigest().encode() != mark[3]:
                self.partial.append(path)
                continue
            token = mark[1].decode()
            self.whole[token] = self.whole.get(token, 0) + 1
