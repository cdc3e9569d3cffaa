"""
What reaches the disk before the reply: the system calls of a server, traced.

For every message: write, fsync of the file, rename into new, fsync of the
folder, and only then the octets of the 250.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.durability.load import CONNECTIONS, make_message
from tests.running import Twistd

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

MESSAGES = 5

_WRITE = re.compile(r"(?:write|pwrite64)\(\d+<([^>]*/Maildir/tmp/[^>]*)>, ")
_ID = re.compile(r"[ \\t]id ([0-9a-f]+\.\d+)")
_FSYNC = re.compile(r"fsync\(\d+<([^>]*)>\)\s+= 0")
_RENAME = re.compile(r'rename\("([^"]*)", "([^"]*)"\)\s+= 0')
_REPLY = re.compile(r'(?:sendto|write)\(\d+<(?:TCP|socket):.*?>, "250 2\.0\.0 stored as (\S+?)\\r\\n')


@dataclass
class File:
    """Where one message's file has got to."""

    transaction: str = ""
    synced: bool = False
    target: str = ""
    durable: bool = False


@dataclass
class Trace:
    """The state of all files while the trace is read."""

    files: dict[str, File] = field(default_factory=dict)
    replied: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        if found := _FSYNC.search(line):
            self._synced(found[1])
        elif found := _RENAME.search(line):
            self._renamed(found[1], found[2])
        elif found := _REPLY.search(line):
            self.replied.append(found[1])
            if not any(file.durable and file.transaction == found[1] for file in self.files.values()):
                self.faults.append(f"a reply before the message was durable: {line}")
        elif found := _WRITE.search(line):
            file = self.files.setdefault(found[1], File())
            if file.synced:
                self.faults.append(f"written after its fsync: {line}")
            if not file.transaction and (transaction := _ID.search(line)):
                file.transaction = transaction[1]

    def _synced(self, path: str) -> None:
        if path.endswith("/Maildir/new"):
            for file in self.files.values():
                file.durable = file.durable or bool(file.target)
        elif path in self.files:
            self.files[path].synced = True

    def _renamed(self, source: str, target: str) -> None:
        file = self.files.get(source, File())
        if not (file.transaction and file.synced):
            self.faults.append(f"renamed before it was written and synced: {source}")
        file.target = target


async def send(port: int, connection: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    rng = random.Random(connection)
    await reader.readuntil(b"\r\n")
    writer.write(b"HELO client\r\n")
    await reader.readuntil(b"\r\n")
    for number in range(MESSAGES):
        writer.write(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        for code in (b"250", b"250", b"354"):
            assert (await reader.readuntil(b"\r\n")).startswith(code)
        writer.write(make_message(f"{connection}.{number}", rng.choice([500, 400_000]), rng) + b".\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"250 2.0.0 stored")
    writer.close()


async def send_all(port: int) -> None:
    await asyncio.gather(*(send(port, connection) for connection in range(CONNECTIONS)))


def test_the_reply_comes_last(tmp_path: Path) -> None:
    output = tmp_path / "trace"
    calls = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendto"
    wrapper = ["strace", "-f", "-yy", "-s", "600", "-e", f"trace={calls}", "-o", str(output)]
    with Twistd("--backend", f"maildir:{tmp_path}/Maildir", wrapper=wrapper) as server:
        asyncio.run(send_all(server.port))
        server.stop()
    trace = Trace()
    for line in whole_lines(output.read_text(errors="replace")):
        trace.read(line)
    assert trace.faults == []
    assert len(set(trace.replied)) == CONNECTIONS * MESSAGES
    assert len(list((tmp_path / "Maildir" / "new").iterdir())) == CONNECTIONS * MESSAGES


def whole_lines(text: str) -> list[str]:
    """Join calls that strace cut in two; a call counts when it ended, but a reply when it began."""
    begun: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith(" <unfinished ...>"):
            begun[pid] = rest.removesuffix(" <unfinished ...>")
            if _REPLY.search(rest):
                lines.append(begun.pop(pid))
        elif found := re.search(r"<\.\.\. \w+ resumed>(.*)", rest):
            if pid in begun:
                lines.append(begun.pop(pid) + found[1])
        else:
            lines.append(rest)
    return lines


def test_the_check_sees_an_early_reply() -> None:
    trace = Trace()
    for line in (
        'write(9</x/Maildir/tmp/1>, "Received: from x\\r\\n\\tby y id 1a.1; now", 40) = 40',
        "fsync(9</x/Maildir/tmp/1>) = 0",
        'rename("/x/Maildir/tmp/1", "/x/Maildir/new/1") = 0',
        'sendto(8<TCP:[127.0.0.1:1->127.0.0.1:2]>, "250 2.0.0 stored as 1a.1\\r\\n", 25, 0, NULL, 0) = 25',
        "fsync(10</x/Maildir/new>) = 0",
    ):
        trace.read(line)
    assert len(trace.faults) == 1
    assert "before the message was durable" in trace.faults[0]
