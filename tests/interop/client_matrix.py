"""
What our client does with a server that people have; the same tests for every one of them.

A test case is made of :class:`ClientMatrix`, ``twisted.trial.unittest.TestCase`` and :meth:`ClientMatrix.open_peer`,
which starts the server. What the server offers decides what a test expects:
mail that needs an extension is stored where there is that extension, and is
refused by us, before anything is sent, where there is none.

What arrives must be what was sent, octet for octet, behind trace lines that the
server has put in front.
"""

from __future__ import annotations

import io
import random
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from smtpfw.client import ClientConfig, SendResult, connect, send_mail
from smtpfw.errors import DataTooLarge, ExtensionMissing, Refused, TLSFailed
from smtpfw.sasl import SCRAM, CramMD5, ISASLClient, Login, Plain
from tests.certificates import write_pair
from tests.interop.one_mechanism import OneMechanism
from tests.interop.servers.common import Peer, PeerMissing

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

#: Our clients by the mechanisms that they speak, one of which each is shown alone: SCRAM would take the best.
CLIENTS: dict[str, Callable[[str, str], ISASLClient]] = {
    "PLAIN": Plain,
    "LOGIN": Login,
    "CRAM-MD5": CramMD5,
    "SCRAM-SHA-1": SCRAM,
    "SCRAM-SHA-256": SCRAM,
    "SCRAM-SHA-1-PLUS": SCRAM,
    "SCRAM-SHA-256-PLUS": SCRAM,
}


def client(mechanism: str, username: str, password: str) -> OneMechanism:
    """Logs in by this mechanism and no other."""
    return OneMechanism(mechanism, CLIENTS[mechanism](username, password))


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


class ClientMatrix:
    """
    The tests. Those that the server has nothing for are skipped, and say so.

    :cvar peer: the server, for the whole class.
    """

    timeout = 120.0
    peer: Peer
    _running: AbstractContextManager[Peer]

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        """Start the server; each class has its own."""
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        cls._running = cls.open_peer()
        try:
            cls.peer = cls._running.__enter__()
        except PeerMissing as error:
            raise SkipTest(str(error)) from None

    @classmethod
    def tearDownClass(cls) -> None:
        cls._running.__exit__(None, None, None)

    def ways(self) -> Iterator[Way]:
        """Those that this server has."""
        yield CLEAR
        if self.peer.has("STARTTLS"):
            yield STARTTLS
        if self.peer.smtps_port is not None:
            yield IMPLICIT

    def secured(self) -> list[Way]:
        """Those with TLS; without any there is nothing to test."""
        found = [way for way in self.ways() if way is not CLEAR]
        if not found:
            raise SkipTest(f"{self.peer.name} has no TLS here")
        return found

    async def send(self, recipients: Any, body: Any, way: Way = CLEAR, **settings: Any) -> SendResult:
        """:func:`send_to` this server."""
        return await send_to(self.peer, recipients, body, way, **settings)

    async def stored(self, mailbox: str, number: int = 1) -> list[bytes]:
        """What is in a mailbox; the reactor runs on."""
        return await deferToThread(self.peer.stored, mailbox, number)

    async def test_every_message_by_every_way(self) -> None:
        """Text and 8-bit, with and without TLS, pipelined and not, BDAT and DATA."""
        for way in self.ways():
            for name, config in CONFIGS.items():
                for message in (TEXT, EIGHT_BIT):
                    mailbox = self.peer.fresh()
                    result = await self.send(mailbox, message, way, config=config)
                    assert [(str(each.recipient), each.accepted) for each in result.recipients] == [(mailbox, True)]
                    assert result.text, (way, name)
                    (stored,) = await self.stored(mailbox)
                    check_octets(stored, message)

    async def test_a_last_line_without_its_end_gets_one(self) -> None:
        for name, config in CONFIGS.items():
            mailbox = self.peer.fresh()
            await self.send(mailbox, TEXT + b"the last", config=config)
            (stored,) = await self.stored(mailbox)
            assert stored.endswith(b"\r\nthe last\r\n"), name

    async def test_bare_cr_and_bare_lf(self) -> None:
        """They are line ends, whichever way the message goes."""
        unix = TEXT.replace(b"\r\n", b"\n") + b"old\rMacintosh\r"
        for config in CONFIGS.values():
            mailbox = self.peer.fresh()
            await self.send(mailbox, unix, config=config)
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT + b"old\r\nMacintosh\r\n")

    async def test_chunks_of_every_size(self) -> None:
        """Where the chunks are cut does not matter: in the middle of CRLF, or in front of a dot."""
        if not self.peer.has("CHUNKING"):
            raise SkipTest(f"{self.peer.name} has no CHUNKING")
        for octets in (1, 2, 7, 100, len(TEXT) - 1, len(TEXT)):
            mailbox = self.peer.fresh()
            await self.send(mailbox, TEXT, config=ClientConfig(chunk_bytes=octets))
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT)

    async def test_bodies_of_every_kind(self) -> None:
        """What comes in pieces may be cut anywhere, and has a size that nobody knows."""
        pieces = [EIGHT_BIT[begin : begin + 7] for begin in range(0, len(EIGHT_BIT), 7)]

        async def asynchronous() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        for config in (ClientConfig(), ClientConfig(chunking=False)):
            for body in (EIGHT_BIT, io.BytesIO(EIGHT_BIT), iter(pieces), asynchronous()):
                mailbox = self.peer.fresh()
                await self.send(mailbox, body, config=config)
                (stored,) = await self.stored(mailbox)
                check_octets(stored, EIGHT_BIT)

    async def test_an_email_message(self) -> None:
        """Sender and recipients stand in its header; those of Bcc are written to, and nobody reads of them."""
        message = message_from_bytes(EIGHT_BIT, policy=policy.SMTP)
        mailboxes = [self.peer.fresh() for _ in range(3)]
        for name, mailbox in zip(("To", "Cc", "Bcc"), mailboxes, strict=True):
            del message[name]
            message[name] = mailbox
        result = await self.send(None, message, sender=None)
        assert [str(each.recipient) for each in result.accepted] == mailboxes
        for mailbox in mailboxes:
            (stored,) = await self.stored(mailbox)
            assert stored.endswith(EIGHT_BIT.partition(b"\r\n\r\n")[2])
            received = message_from_bytes(stored)
            assert (received["To"], received["Cc"], received["Bcc"]) == (mailboxes[0], mailboxes[1], None)

    async def test_many_at_once(self) -> None:
        """Twenty connections, each with a message of its own."""
        mailboxes = [self.peer.fresh() for _ in range(20)]
        messages = [EIGHT_BIT + b"%d\r\n" % number for number in range(20)]
        await gatherResults(
            [Deferred.fromCoroutine(self.send(*pair)) for pair in zip(mailboxes, messages, strict=True)],
            consumeErrors=True,
        )
        for mailbox, message in zip(mailboxes, messages, strict=True):
            (stored,) = await self.stored(mailbox)
            check_octets(stored, message)

    async def test_more_than_the_server_takes(self) -> None:
        """It has said how much that is, so nothing is sent."""
        connection = await connect(self.peer.where(), **CLEAR.settings(self.peer))
        limit = int(connection.extension("SIZE") or 0)
        message = TEXT + b"a" * 998 * (limit // 998 + 1)
        mailbox = self.peer.fresh()
        if limit:
            error = await failure(connection.send_mail(SENDER, mailbox, message), DataTooLarge)
            assert not error.temporary
        await connection.quit()
        await connection.disconnected
        if not limit:
            raise SkipTest(f"{self.peer.name} names no limit")
        assert await self.stored(mailbox, 0) == []

    async def test_the_null_sender(self) -> None:
        mailbox = self.peer.fresh()
        await self.send(mailbox, TEXT, sender="")
        (stored,) = await self.stored(mailbox)
        check_octets(stored, TEXT)

    async def test_a_utf8_address(self) -> None:
        mailbox = self.peer.fresh_utf8()
        if self.peer.has("SMTPUTF8"):
            await self.send(mailbox, UTF8_HEADER, STARTTLS if self.peer.has("STARTTLS") else CLEAR)
            (stored,) = await self.stored(mailbox)
            check_octets(stored, UTF8_HEADER)
        else:
            await self.check_not_sent(mailbox, TEXT)

    async def test_a_header_in_utf8(self) -> None:
        mailbox = self.peer.fresh()
        if self.peer.has("SMTPUTF8"):
            await self.send(mailbox, UTF8_HEADER)
            (stored,) = await self.stored(mailbox)
            check_octets(stored, UTF8_HEADER)
        else:
            await self.check_not_sent(mailbox, UTF8_HEADER)

    async def check_not_sent(self, mailbox: str, message: bytes) -> None:
        """We say ourselves that the server has no SMTPUTF8."""
        error = await failure(self.send(mailbox, message), ExtensionMissing)
        assert error.keyword == "SMTPUTF8"
        assert await self.stored(mailbox, 0) == []

    async def test_25_mebibytes(self) -> None:
        """From memory and from a file, in BDAT and in DATA."""
        message = big_message()
        with tempfile.TemporaryFile() as file:
            file.write(message)
            for config in (ClientConfig(), ClientConfig(chunking=False)):
                mailbox = self.peer.fresh()
                file.seek(0)
                await self.send(mailbox, file, list(self.ways())[-1], config=config)
                await self.send(mailbox, message, config=config)
                for stored in await self.stored(mailbox, 2):
                    check_octets(stored, message)

    async def test_500_recipients_of_which_some_are_refused(self) -> None:
        for config in (ClientConfig(), ClientConfig(pipelining=False)):
            recipients = [self.peer.refused() if number % 7 == 3 else self.peer.fresh() for number in range(500)]
            result = await self.send(recipients, EIGHT_BIT, config=config)
            assert [str(each.recipient) for each in result.recipients] == recipients
            for each in result.recipients:
                assert each.accepted == (not str(each.recipient).startswith("nobody")), each
            assert len(result.accepted) == sum(recipient.startswith("u") for recipient in recipients)
            for each in result.refused:
                assert isinstance(each.error, Refused) and each.error.phase == "RCPT", each
                assert each.error.reply.code == 550 and not each.error.temporary
            for each in result.accepted:
                (stored,) = await self.stored(str(each.recipient))
                check_octets(stored, EIGHT_BIT)

    async def test_all_recipients_refused(self) -> None:
        for name, config in CONFIGS.items():
            recipients = [self.peer.refused() for _ in range(3)]
            error = await failure(self.send(recipients, TEXT, config=config), Refused)
            assert (error.phase, error.reply.code, error.temporary) == ("RCPT", 550, False), name
            assert [str(each.recipient) for each in error.result.refused] == recipients

    async def test_several_messages_on_one_connection(self) -> None:
        """After one that is refused, and after one that is dropped by RSET, too."""
        for way in self.ways():
            connection = await connect(self.peer.where(implicit=way.implicit), **way.settings(self.peer))
            first, second = self.peer.fresh(), self.peer.fresh()
            await connection.send_mail(SENDER, [first], TEXT)
            error = await failure(connection.send_mail(SENDER, [self.peer.refused()], TEXT), Refused)
            assert error.phase == "RCPT"
            await connection.mail(SENDER)
            await connection.rcpt(second)
            await connection.reset()
            await connection.noop()
            await connection.send_mail(SENDER, [first, second], EIGHT_BIT)
            await connection.quit()
            await connection.disconnected
            for stored in await self.stored(first, 2):
                check_octets(stored, TEXT if stored.endswith(TEXT) else EIGHT_BIT)
            (stored,) = await self.stored(second)
            check_octets(stored, EIGHT_BIT)

    async def test_a_certificate_of_somebody_else(self) -> None:
        """``required`` stops at a name that is not in it, and at an authority that is not ours."""
        with tempfile.TemporaryDirectory() as folder:
            stranger = str(write_pair(Path(folder)))
            for way in self.secured():
                for settings in ({"tls_name": "other.example"}, {"ca": stranger}):
                    mailbox = self.peer.fresh()
                    await failure(self.send(mailbox, TEXT, way, **settings), TLSFailed)
                    assert await self.stored(mailbox, 0) == [], (way.name, settings)

    async def test_opportunistic_tls_takes_any_certificate(self) -> None:
        if not self.peer.has("STARTTLS"):
            raise SkipTest(f"{self.peer.name} has no STARTTLS")
        mailbox = self.peer.fresh()
        with tempfile.TemporaryDirectory() as folder:
            stranger = str(write_pair(Path(folder)))
            await self.send(mailbox, TEXT, tls="opportunistic", tls_name="localhost", ca=stranger)
        (stored,) = await self.stored(mailbox)
        check_octets(stored, TEXT)

    async def test_every_mechanism_by_every_way(self) -> None:
        """With the right password mail is taken; with a wrong one we are told so, and nothing is sent."""
        mechanisms = sorted(self.peer.mechanisms & CLIENTS.keys())
        if not mechanisms:
            raise SkipTest(f"{self.peer.name} has no AUTH")
        ways = self.ways() if self.peer.clear_auth else self.secured()
        # At once: a wrong password is answered late.
        logins = [Deferred.fromCoroutine(self.check_login(way, name)) for way in ways for name in mechanisms]
        await gatherResults(logins, consumeErrors=True)

    async def check_login(self, way: Way, mechanism: str) -> None:
        """By one mechanism, with the right password and with a wrong one."""
        mailbox = self.peer.fresh()
        await self.send(mailbox, TEXT, way, auth=client(mechanism, self.peer.user, self.peer.password))
        error = await failure(self.send(mailbox, TEXT, way, auth=client(mechanism, self.peer.user, "wrong")), Refused)
        assert (error.phase, error.reply.code) == ("AUTH", 535), (way.name, mechanism, error)
        (stored,) = await self.stored(mailbox)
        check_octets(stored, TEXT)

    async def test_name_and_password_alone(self) -> None:
        """Whichever mechanism is taken: TLS comes first without being asked for."""
        if not self.peer.mechanisms:
            raise SkipTest(f"{self.peer.name} has no AUTH")
        for way in self.secured():
            mailbox = self.peer.fresh()
            await self.send(mailbox, TEXT, way, tls=None, auth=(self.peer.user, self.peer.password))
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT)
