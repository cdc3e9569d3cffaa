"""Twisted's resolver, and what is mended of it, with a network that is made up."""

from __future__ import annotations

import errno
import struct
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import ResolverError
from twisted.trial.unittest import SynchronousTestCase

from smtpfw.dns.resolver import SystemResolver

SERVER = ("192.0.2.53", 53)
TIMES = (1, 2)


class Network(Clock):
    """A reactor of which only time and UDP sockets are there."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[dns.Message, Any]] = []
        self.sockets = 100

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> None:
        if not self.sockets:
            raise CannotListenError(interface, port, OSError(errno.EMFILE, "too many open files"))
        self.sockets -= 1
        protocol.makeConnection(
            SimpleNamespace(write=lambda data, _: self._write(data, protocol), stopListening=self._end)
        )

    def _write(self, data: bytes, protocol: Any) -> None:
        message = dns.Message()
        message.fromStr(data)
        self.sent.append((message, protocol))

    def _end(self) -> None:
        self.sockets += 1


class ResolverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.resolver = SystemResolver([SERVER], self.network)

    def ask(self) -> Deferred[Any]:
        return self.resolver.lookupAddress("a.test", TIMES)  # type: ignore[no-any-return]

    def reply(self, *answers: str, question: str = "a.test", cut: int | None = None, peer: Any = SERVER) -> None:
        asked, protocol = self.network.sent[-1]
        message = dns.Message(asked.id, answer=1)
        message.queries = [dns.Query(question)]
        message.answers = [dns.RRHeader(question, payload=dns.Record_A(answer)) for answer in answers]
        protocol.datagramReceived(message.toStr()[:cut], peer)

    def test_an_answer(self) -> None:
        asked = self.ask()
        self.reply("192.0.2.1", question="A.test")
        (answer,), _, _ = self.successResultOf(asked)
        self.assertEqual(answer.payload.dottedQuad(), "192.0.2.1")
        self.assertEqual((self.network.sockets, self.network.getDelayedCalls()), (100, []))

    def test_there_is_no_cache(self) -> None:
        for value in ("192.0.2.1", "192.0.2.2"):
            asked = self.ask()
            self.reply(value)
            self.assertEqual(self.successResultOf(asked)[0][0].payload.dottedQuad(), value)

    def test_a_question_that_could_not_be_sent_is_not_under_way(self) -> None:
        self.network.sockets = 0
        self.assertRaises(CannotListenError, self.ask)
        self.network.sockets = 1
        asked = self.ask()
        self.reply("192.0.2.1")
        self.assertEqual(len(self.successResultOf(asked)[0]), 1)

    def test_an_answer_that_is_cut_in_the_midst_is_none(self) -> None:
        for cut in (5, 12, 15, -1, -5):
            asked = self.ask()
            self.reply("192.0.2.1", cut=cut)
            self.assertNoResult(asked)
            # The whole one may come behind it.
            self.reply("192.0.2.1")
            self.assertEqual(len(self.successResultOf(asked)[0]), 1)

    def test_nonsense_is_none(self) -> None:
        asked = self.ask()
        message, protocol = self.network.sent[-1]
        for data in (
            b"",
            b"\xff" * 600,
            struct.pack("!6H", message.id, 0x8000, 1, 1, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01",
        ):
            protocol.datagramReceived(data, SERVER)
        self.assertNoResult(asked)
        self.network.pump([1, 2])
        self.failureResultOf(asked, TimeoutError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_answer_to_another_question(self) -> None:
        asked = self.ask()
        self.reply("192.0.2.1", question="b.test")
        self.failureResultOf(asked, ResolverError)

    def test_an_answer_of_somebody_else(self) -> None:
        asked = self.ask()
        self.reply("192.0.2.1", peer=("192.0.2.66", 53))
        self.assertNoResult(asked)
        self.reply("192.0.2.1")
        self.successResultOf(asked)

    def test_nobody_answers(self) -> None:
        asked = self.ask()
        self.network.pump([1, 2])
        self.failureResultOf(asked, TimeoutError)
        self.assertEqual((len(self.network.sent), self.network.sockets), (2, 100))
