"""
What our client does with a server that people have; the same tests for every one of them.

A test case is made of :class:`ClientMatrix`, ``twisted.trial.unittest.TestCase``, :meth:`ClientMatrix.open_peer`, which
starts the server, and a class more for each thing that only some servers have: :class:`WithChunking`,
:class:`WithLimit`, and those of :mod:`tests.interop.secured_matrix`. A test sees to it that none of these is left out.

What arrives must be what was sent, octet for octet, behind trace lines that the
server has put in front. Mail that needs an extension is stored where there is
that extension, and is refused by us, before anything is sent, where there is none.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from email import message_from_bytes, policy
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.threads import deferToThread

from smtpfw.client import ClientConfig, SendResult, connect
from smtpfw.errors import DataTooLarge, ExtensionMissing, Refused
from tests.interop.outgoing import (
    CLEAR,
    CONFIGS,
    EIGHT_BIT,
    IMPLICIT,
    SENDER,
    STARTTLS,
    TEXT,
    UTF8_HEADER,
    Way,
    big_message,
    check_octets,
    failure,
    send_to,
)
from tests.interop.servers.common import Peer
from tests.interop.servers.packages import PeerMissing

#: What decides about tests, of all that a server may say to EHLO within TLS.
KEYWORDS = frozenset({"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE", "AUTH"})


class ClientMatrix:
    """
    The tests that make sense with any server.

    :cvar peer: the server, for the whole class.
    :cvar about: what else a server has to have for the tests of a class.
    """

    timeout = 120.0
    about: frozenset[str] = frozenset()
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

    async def send(self, recipients: Any, body: Any, way: Way = CLEAR, **settings: Any) -> SendResult:
        """:func:`send_to` this server."""
        return await send_to(self.peer, recipients, body, way, **settings)

    async def stored(self, mailbox: str, number: int = 1) -> list[bytes]:
        """What is in a mailbox; the reactor runs on."""
        return await deferToThread(self.peer.stored, mailbox, number)

    async def offered(self) -> dict[str, str]:
        """What the server says to EHLO, of :data:`KEYWORDS`: within TLS, if it has that."""
        way = list(self.ways())[-1]
        connection = await connect(self.peer.where(implicit=way.implicit), **way.settings(self.peer))
        said = {keyword: connection.extension(keyword) for keyword in KEYWORDS}
        await connection.quit()
        await connection.disconnected
        return {keyword: argument for keyword, argument in said.items() if argument is not None}

    async def test_all_that_the_server_has_is_tested(self) -> None:
        """What it offers is what the tests take it for; and what needs a class of its own has it."""
        offered = await self.offered()
        assert offered.keys() - {"AUTH"} == self.peer.extensions & KEYWORDS
        needed = offered.keys() & {"CHUNKING", "AUTH"}
        needed |= {"SIZE"} if int(offered.get("SIZE") or 0) else set()
        needed |= {"TLS"} if list(self.ways()) != [CLEAR] else set()
        assert needed == {word for each in type(self).__mro__ for word in vars(each).get("about", ())}

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
        """Twenty messages, as many of them at once as the server has room for in its queue of connections."""
        mailboxes = [self.peer.fresh() for _ in range(20)]
        messages = [EIGHT_BIT + b"%d\r\n" % number for number in range(20)]
        places = DeferredSemaphore(self.peer.at_once)

        def send(mailbox: str, message: bytes) -> Deferred[SendResult]:
            return Deferred.fromCoroutine(self.send(mailbox, message))

        sent = [places.run(send, *pair) for pair in zip(mailboxes, messages, strict=True)]
        await gatherResults(sent, consumeErrors=True)
        for mailbox, message in zip(mailboxes, messages, strict=True):
            (stored,) = await self.stored(mailbox)
            check_octets(stored, message)

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
        """From a file by DATA, within TLS where there is that; and from memory, by BDAT where there is that."""
        message = big_message()
        mailbox = self.peer.fresh()
        with tempfile.TemporaryFile() as file:
            file.write(message)
            file.seek(0)
            await self.send(mailbox, file, list(self.ways())[-1], config=ClientConfig(chunking=False))
        await self.send(mailbox, message)
        for stored in await self.stored(mailbox, 2):
            check_octets(stored, message)

    async def test_500_recipients_of_which_some_are_refused(self) -> None:
        """And 100, one by one."""
        for number, config in ((500, ClientConfig()), (100, ClientConfig(pipelining=False))):
            recipients = [self.peer.refused() if place % 7 == 3 else self.peer.fresh() for place in range(number)]
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


class WithChunking(ClientMatrix):
    """For servers with CHUNKING."""

    about = frozenset({"CHUNKING"})

    async def test_chunks_of_every_size(self) -> None:
        """Where the chunks are cut does not matter: in the middle of CRLF, or in front of a dot."""
        for octets in (1, 2, 7, 100, len(TEXT) - 1, len(TEXT)):
            mailbox = self.peer.fresh()
            await self.send(mailbox, TEXT, config=ClientConfig(chunk_bytes=octets))
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT)


class WithLimit(ClientMatrix):
    """For servers that say how large a message may be."""

    about = frozenset({"SIZE"})

    async def test_more_than_the_server_takes(self) -> None:
        """It has said how much that is, so nothing is sent."""
        connection = await connect(self.peer.where(), **CLEAR.settings(self.peer))
        limit = int(connection.extension("SIZE") or 0)
        message = TEXT + b"a" * 998 * (limit // 998 + 1)
        mailbox = self.peer.fresh()
        error = await failure(connection.send_mail(SENDER, mailbox, message), DataTooLarge)
        assert not error.temporary
        await connection.quit()
        await connection.disconnected
        assert await self.stored(mailbox, 0) == []
