"""One message for a thousand recipients: every one of them has its reply, in order, however they are sent."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Address, ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.errors import InsufficientStorage, MailboxUnavailable
from smtpfw.interfaces import IBody, ILMTPSession, IStatusCollector
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP, SMTP
from smtpfw.wire.parameters import Options
from tests.interop import mailboxes
from tests.running import Twistd
from tests.server.helpers import MESSAGE, MESSAGE_OK

MANY = 1000

#: Every so many is refused: by RCPT, and by LMTP at the end of the message.
UNKNOWN, FULL = 7, 5

DATA, BDAT = "DATA", "BDAT"
PIPELINED, ONE_BY_ONE, OCTETS = "pipelined", "one by one", "pipelined, and cut"


def name(number: int) -> str:
    return f"user{number}"


def number_of(recipient: Address) -> int:
    return int(recipient.local_part.removeprefix("user"))


def is_known(number: int) -> bool:
    return number % UNKNOWN != 0


def rcpt(recipient: Address, options: Options) -> str:
    """The hook: says whom it means, so that a reply for another one is seen."""
    if not is_known(number_of(recipient)):
        raise MailboxUnavailable(f"no {recipient.local_part}")
    return f"welcome, {recipient.local_part}"


#: What RCPT is answered for each, and the numbers of those that are accepted.
RCPT_REPLIES = [
    f"250 2.1.5 welcome, {name(number)}" if is_known(number) else f"550 5.1.1 no {name(number)}"
    for number in range(MANY)
]
ACCEPTED = [number for number in range(MANY) if is_known(number)]


def status_reply(number: int) -> str:
    return f"452 4.3.1 {name(number)} is full" if number % FULL == 0 else f"250 2.0.0 {name(number)} has it"


@implementer(ILMTPSession)
class Inbox(Session):
    """Tells each recipient its own answer, the last one first."""

    def rcpt(self, recipient: Address, options: Options) -> str:
        return rcpt(recipient, options)

    async def data(self, body: IBody) -> None:
        await body.read()

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
        await body.read()
        assert self.connection.transaction is not None
        for recipient in reversed(self.connection.transaction.recipients):
            number = number_of(recipient.address)
            full = number % FULL == 0
            outcome = InsufficientStorage(f"{name(number)} is full") if full else f"{name(number)} has it"
            status.set_status(recipient.address, outcome)


class ManyTestCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, backend: Any, protocol: str = SMTP, **settings: Any) -> MemoryClient:
        settings = {"max_recipient_errors": 0, **settings}
        config = ServerConfig(hostname="mx.test", protocol=protocol, **settings)
        self.factory = SMTPServerFactory(backend, config, reactor=self.clock)
        client = MemoryClient.of(self.factory)
        client.send(b"LHLO me\r\n" if protocol == LMTP else b"EHLO me\r\n")
        client.received()
        return client

    def say(self, client: MemoryClient, commands: list[bytes], how: str) -> list[str]:
        """Send commands, or what stands in their place; return the replies, a line each."""
        size = 1 if how == ONE_BY_ONE else len(commands)
        received = b""
        for start in range(0, len(commands), size):
            octets = b"".join(commands[start : start + size])
            step = 1000 if how == OCTETS else len(octets)
            for position in range(0, len(octets), step):
                received += client.send(octets[position : position + step])
            received += self.turn(client)
        return received.decode().splitlines()

    def turn(self, client: MemoryClient) -> bytes:
        """Let the reactor turn until nothing is due at once."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)
        return client.received()


def envelope(numbers: Any = range(MANY)) -> list[bytes]:
    return [b"MAIL FROM:<a@b.test>\r\n", *(f"RCPT TO:<{name(number)}@c.test>\r\n".encode() for number in numbers)]


def message(verb: str) -> list[bytes]:
    """The message, as so many steps as there are replies before the last."""
    if verb == DATA:
        return [b"DATA\r\n", MESSAGE + b".\r\n"]
    half = len(MESSAGE) // 2
    return [
        b"BDAT %d\r\n" % half + MESSAGE[:half],
        b"BDAT %d LAST\r\n" % (len(MESSAGE) - half) + MESSAGE[half:],
    ]


class SMTPTests(ManyTestCase):
    def test_every_one_is_answered_in_order(self) -> None:
        for how, verb in product((PIPELINED, ONE_BY_ONE, OCTETS), (DATA, BDAT)):
            backend = RecordingBackend(rcpt=rcpt)
            client = self.connect(backend)
            replies = self.say(client, envelope(), how)
            self.assertEqual(replies, ["250 2.1.0 Sender OK", *RCPT_REPLIES], how)
            begin, end = message(verb)
            self.assertIn(client.send(begin)[:3], (b"354", b"250"))
            self.assertEqual(client.send(end), MESSAGE_OK)
            (stored,) = backend.messages
            self.assertEqual([number_of(recipient.address) for recipient in stored.recipients], ACCEPTED)
            self.assertEqual(stored.body, MESSAGE)

    def test_a_whole_transaction_in_one_write(self) -> None:
        backend = RecordingBackend(rcpt=rcpt)
        client = self.connect(backend)
        replies = self.say(client, (envelope() + message(BDAT)) * 3, PIPELINED)
        one = [
            "250 2.1.0 Sender OK",
            *RCPT_REPLIES,
            f"250 2.0.0 {len(MESSAGE) // 2} octets",
            "250 2.0.0 Message accepted",
        ]
        self.assertEqual(replies, one * 3)
        self.assertEqual([len(stored.recipients) for stored in backend.messages], [len(ACCEPTED)] * 3)

    def test_hooks_that_wait(self) -> None:
        async def slow(recipient: Address, options: Options) -> str:
            await deferLater(self.clock, 0)
            return rcpt(recipient, options)

        client = self.connect(RecordingBackend(rcpt=slow))
        for how in (PIPELINED, ONE_BY_ONE):
            replies = self.say(client, [*envelope(), b"RSET\r\n"], how)
            self.assertEqual(replies, ["250 2.1.0 Sender OK", *RCPT_REPLIES, "250 2.0.0 Reset"], how)

    def test_one_too_many_leaves_the_transaction_as_it_is(self) -> None:
        backend = RecordingBackend()
        client = self.connect(backend, max_recipients=MANY)
        replies = self.say(client, envelope(range(MANY + 3)), PIPELINED)
        self.assertEqual([line[:9] for line in replies[-4:]], ["250 2.1.5"] + ["452 4.5.3"] * 3)
        self.assertEqual(self.say(client, message(DATA), ONE_BY_ONE)[-1], MESSAGE_OK.decode().strip())
        self.assertEqual(len(backend.messages[0].recipients), MANY)

    def test_who_guesses_addresses_is_stopped(self) -> None:
        client = self.connect(RecordingBackend(rcpt=rcpt), max_recipient_errors=100)
        replies = self.say(client, envelope(range(0, MANY * UNKNOWN, UNKNOWN)), PIPELINED)
        self.assertEqual([line[:3] for line in replies], ["250"] + ["550"] * 99 + ["421"])
        self.assertTrue(client.closed)

    def test_others_have_their_turn(self) -> None:
        client = self.connect(RecordingBackend())
        other = MemoryClient.of(self.factory)
        other.received()
        replies = client.send(b"".join(envelope())).count(b"\r\n")
        self.assertEqual(other.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")
        self.assertLess(replies, MANY)
        self.assertEqual(replies + self.turn(client).count(b"\r\n"), 1 + MANY)


class LMTPTests(ManyTestCase):
    def test_every_one_is_answered_twice(self) -> None:
        expected = [status_reply(number) for number in ACCEPTED]
        for how, verb in product((PIPELINED, ONE_BY_ONE, OCTETS), (DATA, BDAT)):
            client = self.connect(SessionBackend(Inbox), LMTP)
            self.assertEqual(self.say(client, envelope(), how), ["250 2.1.0 Sender OK", *RCPT_REPLIES], how)
            _, *replies = self.say(client, [*message(verb), b"NOOP\r\n"], ONE_BY_ONE)
            self.assertEqual(replies, [*expected, "250 2.0.0 OK"], (how, verb))

    def test_several_messages_in_one_write(self) -> None:
        client = self.connect(SessionBackend(Inbox), LMTP)
        replies = self.say(client, (envelope() + message(BDAT)) * 2, PIPELINED)
        chunk = f"250 2.0.0 {len(MESSAGE) // 2} octets"
        one = ["250 2.1.0 Sender OK", *RCPT_REPLIES, chunk, *map(status_reply, ACCEPTED)]
        self.assertEqual(replies, one * 2)

    def test_the_same_one_a_thousand_times(self) -> None:
        class Counting(Inbox):
            async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                await body.read()
                for number in range(MANY):
                    status.set_status(Address("user1", "c.test"), f"copy {number}")

        client = self.connect(SessionBackend(Counting), LMTP)
        self.say(client, envelope([1] * MANY), PIPELINED)
        _, *replies = self.say(client, message(DATA), ONE_BY_ONE)
        self.assertEqual(replies, [f"250 2.0.0 copy {number}" for number in range(MANY)])

    def test_each_as_soon_as_it_is_known(self) -> None:
        collectors: list[IStatusCollector] = []
        done: Deferred[None] = Deferred()

        class Slow(Inbox):
            async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                await body.read()
                collectors.append(status)
                await done

        client = self.connect(SessionBackend(Slow), LMTP)
        self.say(client, [*envelope(), *message(DATA)], ONE_BY_ONE)
        (status,) = collectors
        for number in ACCEPTED[:-1]:
            status.set_status(Address(name(number), "c.test"))
            self.assertEqual(client.received(), MESSAGE_OK)
        done.callback(None)
        self.assertEqual(client.received(), MESSAGE_OK)

    def test_too_large_for_each(self) -> None:
        client = self.connect(SessionBackend(Inbox), LMTP, max_message_bytes=10)
        self.say(client, envelope(), PIPELINED)
        _, *replies = self.say(client, message(DATA), ONE_BY_ONE)
        self.assertEqual(replies, ["552 5.3.4 Message size exceeds the limit"] * len(ACCEPTED))


#: By the mailboxes' names: every 7th is unknown, every 5th of the others full.
_MAILBOXES = [
    f"{'unknown' if not is_known(number) else 'full' if number % FULL == 0 else 'inbox'}-{number}"
    for number in range(MANY)
]


@pytest.mark.parametrize("hello", ["EHLO", "LHLO"])
@pytest.mark.parametrize("verb", [DATA, BDAT])
def test_on_a_socket(tmp_path: Path, hello: str, verb: str) -> None:
    options = ["--backend", f"tests.interop.mailboxes:Mailboxes:{tmp_path}", "--max-recipient-errors", "0"]
    options += ["--protocol", "lmtp" if hello == "LHLO" else "smtp"]
    rcpts = [f"RCPT TO:<{mailbox}@c.test>\r\n".encode() for mailbox in _MAILBOXES]
    begin, end = message(verb)
    with Twistd(*options) as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        file = client.makefile("rb")

        def say(octets: bytes, replies: int = 1) -> list[str]:
            client.sendall(octets)
            lines: list[str] = []
            while len(lines) < replies:
                line = file.readline()
                assert line, lines[-3:]
                if line[3:4] == b" ":
                    lines.append(line.decode())
            return lines

        def transaction(send: Callable[[list[bytes]], list[str]]) -> list[str]:
            replies = send([b"MAIL FROM:<a@b.test>\r\n", *rcpts])
            say(begin)
            return [*replies, *say(end, len(ACCEPTED) if hello == "LHLO" else 1)]

        say(b"", 1)
        say(f"{hello} me\r\n".encode())
        pipelined = transaction(lambda commands: say(b"".join(commands), len(commands)))
        one_by_one = transaction(lambda commands: [line for command in commands for line in say(command)])
        say(b"QUIT\r\n")
    for replies in (pipelined, one_by_one):
        assert [line[:3] for line in replies[1 : 1 + MANY]] == [
            "550" if mailbox.startswith(mailboxes.UNKNOWN) else "250" for mailbox in _MAILBOXES
        ]
        if hello == "LHLO":
            expected = ["452 4.2.2 " if _MAILBOXES[number].startswith("full") else "250 2.0.0 " for number in ACCEPTED]
            assert [line[:10] for line in replies[1 + MANY :]] == expected
            assert all(
                f"{_MAILBOXES[number]} " in line for number, line in zip(ACCEPTED, replies[1 + MANY :], strict=True)
            )
    # In SMTP these mailboxes take the message, and keep nothing.
    kept = 2 * sum(number % FULL != 0 for number in ACCEPTED) if hello == "LHLO" else 0
    assert len(list(tmp_path.iterdir())) == kept
