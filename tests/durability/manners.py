"""
Clients that send mail until the server stops, each in a manner of its own, and notice how it stops.

Each message has the mark of :mod:`tests.durability.load`. A client takes down
which of its messages were acknowledged, and how its connections have ended:
``421``, ``221``, ``not let in``, or ``cut``, without a word while a reply was due.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.durability.load import Outcome, make_message
from tests.durability.sigkill import USERS

SIZES = (200, 1000, 1000, 4000, 50_000, 300_000)
BIG = 2_000_000

#: A slow client sends its body in so many pieces, with as many seconds between two.
PIECES = 10
PAUSE = 0.1

_EHLO = b"EHLO client.example\r\n"


class Cut(Exception):
    """The connection has ended without a word, while a reply was due."""


class NotLetIn(Exception):
    """It ended before its greeting: nobody has promised anything."""


class Stopped(Exception):
    """The server has said 421."""


class Dialog:
    """
    One connection, on a bare socket: an error of sending must not keep what was received from being read.

    :ivar greeted: whether the server has said anything.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._received = b""
        self.greeted = False

    async def open(self) -> None:
        try:
            await self._loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        except OSError as error:
            raise NotLetIn from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.expect(b"220")
        await self.say(_EHLO)
        await self.expect(b"250")

    async def say(self, octets: bytes) -> None:
        """Send; who is not listened to any more finds out why by reading."""
        try:
            await self._loop.sock_sendall(self._socket, octets)
        except OSError:
            return

    async def _reply(self) -> bytes:
        """The last line of the next reply."""
        while True:
            while (end := self._received.find(b"\r\n")) < 0:
                try:
                    octets = await self._loop.sock_recv(self._socket, 65536)
                except OSError as error:
                    raise self._cut() from error
                if not octets:
                    raise self._cut()
                self._received += octets
                self.greeted = True
            line, self._received = self._received[:end], self._received[end + 2 :]
            if line.startswith(b"421"):
                raise Stopped
            if line[3:4] == b" ":
                return line

    def _cut(self) -> Exception:
        return Cut() if self.greeted else NotLetIn()

    async def expect(self, code: bytes) -> None:
        """
        Read a reply.

        :raises AssertionError: if it is another one than this client has deserved.
        :raises Stopped: if it is a 421.
        :raises Cut: if there is none.
        :raises NotLetIn: if there has not even been a greeting.
        """
        line = await self._reply()
        assert line.startswith(code), f"expected {code.decode()}, got {line!r}"

    def close(self) -> None:
        self._socket.close()


@dataclass
class Message:
    """One message on its way."""

    token: str
    octets: bytes
    recipients: list[str]

    @property
    def envelope(self) -> list[bytes]:
        """Its commands before DATA."""
        return [b"MAIL FROM:<sender@example.net>\r\n", *(f"RCPT TO:<{one}>\r\n".encode() for one in self.recipients)]


class Client:
    """
    Sends messages until the server stops.

    :ivar ends: how its connections have ended.
    """

    def __init__(self, port: int, name: str, rng: random.Random, outcome: Outcome, ends: Counter[str]) -> None:
        self._port = port
        self._name = name
        self._rng = rng
        self._outcome = outcome
        self._number = 0
        self.ends = ends

    def next_message(self, big: bool = False) -> Message:
        self._number += 1
        token = f"{self._name}.{self._number}"
        size = BIG if big else self._rng.choice(SIZES)
        recipients = self._rng.sample(USERS, self._rng.randint(1, len(USERS)))
        return Message(token, make_message(token, size, self._rng), recipients)

    async def acknowledged(self, dialog: Dialog, message: Message) -> None:
        """Read the reply to the end of a message."""
        await dialog.expect(b"250")
        self._outcome.acknowledged[message.token] = len(message.recipients)

    async def run(self, manner: Manner) -> None:
        """
        Connect and send in this manner until the server says that it stops.

        :raises AssertionError: if a reply comes that nothing gave reason for.
        """
        while True:
            dialog = Dialog(self._port)
            try:
                await dialog.open()
                await manner(self, dialog)
                # Only who says QUIT after each message comes here.
                await dialog.expect(b"221")
                self.ends["221"] += 1
            except Stopped:
                self.ends["421"] += 1
                return
            except NotLetIn:
                self.ends["not let in"] += 1
                return
            except Cut:
                self.ends[f"cut ({manner.__name__})"] += 1
                return
            finally:
                dialog.close()


Manner = Callable[[Client, Dialog], Awaitable[None]]


async def one_by_one(client: Client, dialog: Dialog) -> None:
    """A command, its reply, the next command."""
    while True:
        message = client.next_message()
        for command in message.envelope:
            await dialog.say(command)
            await dialog.expect(b"250")
        await dialog.say(b"DATA\r\n")
        await dialog.expect(b"354")
        await dialog.say(message.octets + b".\r\n")
        await client.acknowledged(dialog, message)


async def pipelined(client: Client, dialog: Dialog) -> None:
    """The envelope in one go (RFC 2920)."""
    while True:
        await _send_envelope(dialog, message := client.next_message())
        await dialog.say(message.octets + b".\r\n")
        await client.acknowledged(dialog, message)


async def big(client: Client, dialog: Dialog) -> None:
    """The same, with messages of 2 MB."""
    while True:
        await _send_envelope(dialog, message := client.next_message(big=True))
        await dialog.say(message.octets + b".\r\n")
        await client.acknowledged(dialog, message)


async def slow(client: Client, dialog: Dialog) -> None:
    """The same, with a body that comes in pieces."""
    while True:
        await _send_envelope(dialog, message := client.next_message())
        octets = message.octets + b".\r\n"
        step = len(octets) // PIECES + 1
        for start in range(0, len(octets), step):
            await asyncio.sleep(PAUSE)
            await dialog.say(octets[start : start + step])
        await client.acknowledged(dialog, message)


async def chunks(client: Client, dialog: Dialog) -> None:
    """A whole transaction in one write, by BDAT (RFC 3030)."""
    while True:
        message = client.next_message()
        half, size = len(message.octets) // 2, len(message.octets)
        await dialog.say(
            b"".join(message.envelope)
            + b"BDAT %d\r\n" % half
            + message.octets[:half]
            + b"BDAT %d LAST\r\n" % (size - half)
            + message.octets[half:]
        )
        for _ in (*message.envelope, half):
            await dialog.expect(b"250")
        await client.acknowledged(dialog, message)


async def many_at_once(client: Client, dialog: Dialog) -> None:
    """Three whole transactions in one write."""
    while True:
        messages = [client.next_message() for _ in range(3)]
        await dialog.say(
            b"".join(
                b"".join(message.envelope) + b"BDAT %d LAST\r\n" % len(message.octets) + message.octets
                for message in messages
            )
        )
        for message in messages:
            for _ in message.envelope:
                await dialog.expect(b"250")
            await client.acknowledged(dialog, message)


async def eager(client: Client, dialog: Dialog) -> None:
    """The next envelope in one write with the end of the message."""
    await _send_envelope(dialog, message := client.next_message())
    while True:
        following = client.next_message()
        await dialog.say(message.octets + b".\r\n" + b"".join(following.envelope) + b"DATA\r\n")
        await client.acknowledged(dialog, message)
        for _ in following.envelope:
            await dialog.expect(b"250")
        await dialog.expect(b"354")
        message = following


async def one_each(client: Client, dialog: Dialog) -> None:
    """A connection for each message, ended by QUIT."""
    message = client.next_message()
    for command in message.envelope:
        await dialog.say(command)
        await dialog.expect(b"250")
    await dialog.say(b"DATA\r\n")
    await dialog.expect(b"354")
    await dialog.say(message.octets + b".\r\n")
    await client.acknowledged(dialog, message)
    await dialog.say(b"QUIT\r\n")


async def _send_envelope(dialog: Dialog, message: Message) -> None:
    await dialog.say(b"".join(message.envelope) + b"DATA\r\n")
    for _ in message.envelope:
        await dialog.expect(b"250")
    await dialog.expect(b"354")


MANNERS: tuple[Manner, ...] = (one_by_one, pipelined, big, slow, one_each, chunks, many_at_once, eager)
