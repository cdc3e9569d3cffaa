"""
Half of the clients stop in the middle, everywhere in a dialog; the others go on sending mail.

    python -m tests.durability.stalls --connections 200 --seconds 3

A server with time limits of so many seconds, and twice that for a whole message, gets half of the connections from
clients of :data:`STALLS`, which stop where it says there and read what comes.
Each has to end at its time limit, with 421 or, where nothing can be said to it,
without a word. The other half sends message after message meanwhile; each has
to be answered 250, soon. At the end the server may have no socket left of
those that it ended, though none of the clients closes its own. Prints a table;
the status is 1 when something is off.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import ssl
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from smtpfw.sasl.users import make_secret
from tests.certificates import write_pair
from tests.durability.load import make_message
from tests.running import Twistd

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = b"DATA\r\n"

#: Of a ClientHello: its record says that more octets follow.
HALF_A_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50

#: Octets of commands whose replies nobody reads; more than sockets and Twisted take until they have the sender wait.
UNREAD = 8 * 1024 * 1024

#: The time limit of a whole message, in limits of the others.
MESSAGE_LIMITS = 2

#: Drips in a limit.
DRIPS = 4

#: Seconds that something may come too late, on a machine that has other work, and too early, by rounding.
SLACK = 2.0
EARLY = 0.05

#: Seconds that the server keeps a connection open after its last words, so that they are read.
CLOSING_TIME = 3.0

#: Seconds that a message of those who do not stall may take.
PATIENCE = 2.0


@dataclass(frozen=True)
class Stall:
    """
    :ivar where: in words.
    :ivar said: what is said first, each answered by a reply that is read.
    :ivar last: what is said then, and not answered.
    :ivar limits: how many of the server's time limits pass until the end.
    :ivar told: whether it is told why.
    :ivar tls: whether TLS starts behind the first two of ``said``.
    :ivar reads: whether it reads.
    :ivar drip: what is said over and over after ``last``, so that no silence is as long as the limit.
    """

    where: str
    said: tuple[bytes, ...] = ()
    last: bytes = b""
    limits: int = 1
    told: bool = True
    tls: bool = False
    reads: bool = True
    drip: bytes = b""


_STARTTLS = (EHLO, b"STARTTLS\r\n")

STALLS = (
    Stall("before EHLO"),
    Stall("in half a first command", (), b"EHLO cli"),
    Stall("after EHLO", (EHLO,)),
    Stall("in half a command", (EHLO,), b"MAIL FRO"),
    Stall("after MAIL", (EHLO, MAIL)),
    Stall("after RCPT", (EHLO, MAIL, RCPT)),
    Stall("after 354", (EHLO, MAIL, RCPT, DATA)),
    Stall("in the middle of a body", (EHLO, MAIL, RCPT, DATA), b"Subject: x\r\n\r\n" + b"x" * 50_000),
    Stall("in a body that drips", (EHLO, MAIL, RCPT, DATA), limits=MESSAGE_LIMITS, drip=b"x\r\n"),
    Stall("in the final dot", (EHLO, MAIL, RCPT, DATA), b"Subject: x\r\n\r\n.\r"),
    Stall("in a chunk", (EHLO, MAIL, RCPT), b"BDAT 100000\r\n" + b"x" * 50_000),
    Stall("between two chunks", (EHLO, MAIL, RCPT, b"BDAT 5\r\nabc\r\n")),
    Stall("in AUTH, after 334", (EHLO, b"AUTH PLAIN\r\n")),
    Stall("in AUTH, in half a response", (EHLO, b"AUTH LOGIN\r\n", b"dGlt\r\n"), b"c2Vj"),
    Stall("after STARTTLS", _STARTTLS, told=False),
    Stall("in the handshake", _STARTTLS, HALF_A_HANDSHAKE, told=False),
    Stall("under TLS, before EHLO", _STARTTLS, tls=True),
    Stall("under TLS, in a body", (*_STARTTLS, EHLO, MAIL, RCPT, DATA), b"Subject: x\r\n", tls=True),
    Stall("pipelining NOOPs without reading", (EHLO,), b"NOOP\r\n" * (UNREAD // 6), told=False, reads=False),
)


@dataclass
class End:
    """
    How a stalled connection ended.

    :ivar since_said: seconds after the last command that was answered; the server got it later, if anything.
    :ivar since_answered: seconds after its answer came; the server sent it sooner, if anything.
    """

    stall: Stall
    since_said: float
    since_answered: float
    last_words: bytes

    def fault(self, limit: float) -> str:
        """What is wrong with it; empty if nothing is."""
        due = self.stall.limits * limit
        if self.since_said < due - EARLY or self.since_answered > due + SLACK:
            return f"after {self.since_answered:.2f} to {self.since_said:.2f} s, not {due:.2f}"
        if self.stall.told and not self.last_words.startswith(b"421 4.4.2 "):
            return f"told {self.last_words[-80:]!r}"
        if not self.stall.told and self.stall.reads and self.last_words:
            return f"told {self.last_words[-80:]!r}, and nothing should have been"
        return ""


@dataclass
class Result:
    """What one run has seen."""

    limit: float
    ends: list[End] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """The last line of a reply."""
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] == b" ":
            return line


async def connect(port: int, small: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """:param small: whether the client's socket takes little, so that it is soon full."""
    client = socket.socket()
    client.setblocking(False)
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=client)


async def stall(port: int, how: Stall, result: Result, leave: asyncio.Event) -> None:
    """One client that stops; it stays until ``leave``, whatever the server does."""
    clock = asyncio.get_running_loop().time
    said = clock()
    reader, writer = await connect(port, small=not how.reads)
    transport = writer.transport
    dripping = None
    try:
        await read_reply(reader)
        for number, words in enumerate(how.said):
            said = clock()
            writer.write(words)
            await read_reply(reader)
            if how.tls and number == 1:
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                await writer.start_tls(context)
        if not how.reads:
            transport.pause_reading()  # type: ignore[attr-defined]
        answered = clock()
        writer.write(how.last)
        if how.drip:
            dripping = asyncio.create_task(drip(writer, how.drip, result.limit / DRIPS))
        try:
            last_words = await reader.read(-1)
        except OSError:
            last_words = b""
        result.ends.append(End(how, clock() - said, clock() - answered, last_words))
        await leave.wait()
    finally:
        if dripping is not None:
            dripping.cancel()
        transport.abort()


async def drip(writer: asyncio.StreamWriter, octets: bytes, pause: float) -> None:
    while True:
        await asyncio.sleep(pause)
        writer.write(octets)


async def send(port: int, name: str, result: Result, enough: asyncio.Event) -> None:
    """One client that goes on sending mail until it is enough, and takes down how long each message took."""
    clock = asyncio.get_running_loop().time
    rng = random.Random(name)
    reader, writer = await connect(port)
    try:
        await expect(reader, b"220")
        writer.write(EHLO)
        await expect(reader, b"250")
        number = 0
        while not enough.is_set():
            number += 1
            began = clock()
            writer.write(MAIL + RCPT + DATA)
            for code in (b"250", b"250", b"354"):
                await expect(reader, code)
            writer.write(make_message(f"{name}.{number}", rng.choice([200, 4000, 50_000]), rng) + b".\r\n")
            await expect(reader, b"250")
            result.times.append(clock() - began)
            await asyncio.sleep(rng.uniform(0.1, 0.4))
        writer.write(b"QUIT\r\n")
        await expect(reader, b"221")
    finally:
        writer.transport.abort()


async def expect(reader: asyncio.StreamReader, code: bytes) -> None:
    line = await asyncio.wait_for(read_reply(reader), 30)
    if not line.startswith(code):
        raise ConnectionError(f"expected {code.decode()}, got {line!r}")


def sockets(pid: int) -> int:
    """How many sockets a process has."""
    links = Path(f"/proc/{pid}/fd")
    count = 0
    for link in links.iterdir():
        try:
            count += str(link.readlink()).startswith("socket:")
        except FileNotFoundError:
            # It has been closed meanwhile.
            continue
    return count


async def load(server: Twistd, connections: int, limit: float) -> Result:
    """Half of the connections stall, the others send."""
    result = Result(limit)
    enough, leave = asyncio.Event(), asyncio.Event()
    before = sockets(server.pid)
    stalled = [
        asyncio.create_task(stall(server.port, STALLS[number % len(STALLS)], result, leave))
        for number in range(connections // 2)
    ]
    senders = [
        asyncio.create_task(send(server.port, str(number), result, enough)) for number in range(connections // 2)
    ]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 2 * max(how.limits for how in STALLS) * limit + 10
    while len(result.ends) < len(stalled) and loop.time() < deadline:
        await asyncio.sleep(0.1)
    enough.set()
    for error in await asyncio.gather(*senders, return_exceptions=True):
        if error is not None:
            result.faults.append(f"a client that did not stall: {error!r}")
    deadline = loop.time() + CLOSING_TIME
    while sockets(server.pid) > before and loop.time() < deadline:
        await asyncio.sleep(0.1)
    left = sockets(server.pid) - before
    if left:
        result.faults.append(f"{left} sockets are left of connections that have ended")
    for number, task in enumerate(stalled):
        where = STALLS[number % len(STALLS)].where
        if task.done() and task.exception() is not None:
            result.faults.append(f"{where}: {task.exception()!r}")
    if len(result.ends) + sum(task.done() for task in stalled) < len(stalled):
        ended = [end.stall.where for end in result.ends]
        result.faults.append(f"some did not end; those that did: {', '.join(sorted(set(ended)))}")
    leave.set()
    _, waiting = await asyncio.wait(stalled, timeout=1)
    for task in waiting:
        task.cancel()
    return result


def run(connections: int, limit: float) -> Result:
    """A server, and this load."""
    with tempfile.TemporaryDirectory(prefix="smtpfw-stalls-") as name:
        folder = Path(name)
        users = folder / "users"
        users.write_text(f"tim:{make_secret('secret')}\n")
        users.chmod(0o600)
        options = ["--backend", f"maildir:{folder}/Maildir", "--tls", str(write_pair(folder))]
        options += ["--auth", f"htpasswd:{users}", "--allow-insecure-auth"]
        for limited in ("greeting", "command", "data", "write", "tls-handshake"):
            options += [f"--{limited}-timeout", f"{limit:g}s"]
        options += ["--message-timeout", f"{MESSAGE_LIMITS * limit:g}s"]
        for unlimited in ("max-connections", "max-connections-per-address", "max-commands-without-mail"):
            options += [f"--{unlimited}", "0"]
        with Twistd(*options) as server:
            result = asyncio.run(load(server, connections, limit))
            status = server.stop()
        if status:
            result.faults.append(f"the server's status is {status}")
        if "Traceback" in server.log:
            result.faults.append(f"the log has a traceback: ...{server.log.partition('Traceback')[2][:2000]}")
        stored = len(list((folder / "Maildir" / "new").iterdir()))
        if stored != len(result.times):
            result.faults.append(f"{len(result.times)} messages were acknowledged, and {stored} are stored")
    result.faults += [f"{end.stall.where}: {fault}" for end in result.ends if (fault := end.fault(limit))]
    if not result.times or max(result.times) > PATIENCE:
        result.faults.append(f"a message took {max(result.times, default=0):.1f} s")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="every time limit of the server but one")
    arguments = parser.parse_args()
    result = run(arguments.connections, arguments.seconds)
    for how in STALLS:
        ends = [end for end in result.ends if end.stall is how]
        if not ends:
            continue
        words = {end.last_words[-60:].decode(errors="replace").strip() for end in ends} if how.reads else {""}
        seconds = [end.since_answered for end in ends]
        print(
            f"{how.where:33} {len(ends):3} ended after {min(seconds):5.2f} to {max(seconds):5.2f} s: "
            f"{'; '.join(words) or '(cut)'}"
        )
    times = sorted(result.times)
    if times:
        print(
            f"{len(times)} messages of {arguments.connections // 2} others were accepted; one took "
            f"{times[len(times) // 2] * 1000:.0f} ms (median), {times[-1] * 1000:.0f} ms at most"
        )
    for fault in result.faults:
        print(f"FAULT: {fault}")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
