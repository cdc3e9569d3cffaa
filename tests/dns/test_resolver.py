"""Twisted's resolver, and what is mended of it, with a network that is made up."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.names.error import DNSNameError, ResolverError
from twisted.trial.unittest import SynchronousTestCase

from smtpfw.dns import system
from smtpfw.dns.questions import NotKnown, look_up
from smtpfw.dns.resolver import UNREADABLE, SystemResolver

SERVER = ("192.0.2.53", 53)
TIMES = (1, 2)


class Network(Clock):
    """A reactor of which only time and UDP sockets are there."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[dns.Message, Any]] = []
        self.servers: list[str] = []
        self.sockets = 100

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> None:
        if not self.sockets:
            raise CannotListenError(interface, port, OSError(errno.EMFILE, "too many open files"))
        self.sockets -= 1
        protocol.makeConnection(
            SimpleNamespace(write=lambda data, server: self._write(data, server, protocol), stopListening=self._end)
        )

    def _write(self, data: bytes, server: tuple[str, int], protocol: Any) -> None:
        self.servers.append(server[0])
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

    def reply(
        self,
        *answers: str,
        question: str = "a.test",
        cut: int | None = None,
        peer: Any = SERVER,
        code: int = dns.OK,
        answer: int = 1,
    ) -> None:
        asked, protocol = self.network.sent[-1]
        message = dns.Message(asked.id, answer=answer, rCode=code)
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

    def test_no_such_name_of_another_question(self) -> None:
        asked = self.ask()
        self.reply(question="b.test", code=dns.ENAME)
        self.assertNotIsInstance(self.failureResultOf(asked, ResolverError).value, DNSNameError)

    def test_a_question_is_no_answer(self) -> None:
        asked = self.ask()
        self.reply("192.0.2.1", answer=0)
        self.failureResultOf(asked, ResolverError)

    def test_a_stream_that_hangs_is_given_up(self) -> None:
        class Stream(StringTransport):
            @property
            def transport(self) -> Stream:
                return self

            def query(self, queries: Any, timeout: Any) -> Deferred[Any]:
                return fail(TimeoutError())

        stream = Stream()
        self.resolver.connections.append(stream)
        self.failureResultOf(self.resolver.queryTCP([dns.Query("a.test")]), TimeoutError)
        self.assertTrue(stream.disconnecting)

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

    def test_so_many_questions_and_no_more(self) -> None:
        self.resolver = SystemResolver([SERVER], self.network, max_questions=2)
        first, second = (self.resolver.lookupAddress(name, TIMES) for name in ("x.test", "a.test"))
        refused = self.failureResultOf(self.resolver.lookupAddress("b.test", TIMES), ResolverError)
        self.assertEqual(str(refused.value), "too many questions are under way")
        # The same question is no other one.
        same = self.ask()
        self.assertEqual((len(self.network.sent), self.resolver.questions), (2, 2))
        self.reply("192.0.2.1")
        for answered in (second, same):
            self.successResultOf(answered)
        again = self.ask()
        self.assertEqual(self.resolver.questions, 2)
        self.network.pump([1, 2])
        for silent in (first, again):
            self.failureResultOf(silent, TimeoutError)
        self.assertEqual(self.resolver.questions, 0)


class SettingsTests(SynchronousTestCase):
    BROKEN = (b"nameserver \xff\n", b"nameserver\n")

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "resolv.conf"
        self.network = Network()

    def of_the_reactor(self, make: Callable[[], Any]) -> Any:
        """One that looks after its file by the global reactor, which ends with the test."""
        scheduler = IReactorTime(reactor)
        before = {*scheduler.getDelayedCalls()}
        made = make()
        for look_again in {*scheduler.getDelayedCalls()} - before:
            self.addCleanup(look_again.cancel)
        return made

    def asks(self, resolver: SystemResolver, name: str) -> str:
        resolver.lookupAddress(name, TIMES).addErrback(lambda _: None)
        return self.network.servers[-1]

    def test_what_cannot_be_read(self) -> None:
        for content in self.BROKEN:
            self.path.write_bytes(content)
            self.assertRaises(UNREADABLE, SystemResolver, None, self.network, path=str(self.path))
        self.assertRaises(UNREADABLE, SystemResolver, None, self.network, path=str(self.path.parent))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_no_file_means_this_machine(self) -> None:
        self.assertEqual(self.asks(SystemResolver(None, self.network, path=str(self.path)), "a.test"), "127.0.0.1")

    def test_it_is_read_again(self) -> None:
        self.path.write_text("nameserver 192.0.2.1\n")
        resolver = SystemResolver(None, self.network, path=str(self.path))
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        for content in self.BROKEN:
            # Twisted looks at the time of the file only.
            self.path.unlink()
            self.path.mkdir()
            self.network.advance(60)
            self.path.rmdir()
            self.path.write_bytes(content)
            self.network.advance(60)
            self.assertEqual(self.asks(resolver, content.hex()), "192.0.2.1")
        self.assertEqual(len([event for event in logged if "path" in event]), 4)
        self.path.write_text("nameserver 192.0.2.2\n")
        self.network.advance(60)
        self.assertEqual(self.asks(resolver, "b.test"), "192.0.2.2")

    def test_who_asks_is_told_that_nobody_can_be_asked_until_it_is_mended(self) -> None:
        path = str(self.path)
        for content in self.BROKEN:
            self.path.write_bytes(content)
            with self.assertRaisesRegex(NotKnown, f"nobody can be asked, .*{path}: "):
                system.system_resolver(path)
        self.path.write_text("nameserver 192.0.2.1\n")
        resolver = self.of_the_reactor(lambda: system.system_resolver(path))
        self.assertIs(system.system_resolver(path), resolver)

    def test_a_name_server_that_is_no_address(self) -> None:
        self.path.write_text("nameserver localhost\n")
        resolver = self.of_the_reactor(lambda: SystemResolver(path=str(self.path)))
        self.failureResultOf(resolver.lookupAddress("a.test", TIMES), InvalidAddressError)
        self.assertEqual(resolver.questions, 0)


class HostsTests(SynchronousTestCase):
    def test_the_file_comes_first(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "hosts"
        path.write_text("192.0.2.7 mx.test\n")
        network = Network()
        self.patch(system, "system_resolver", lambda: SystemResolver([SERVER], network))
        resolver = system.resolver_with_hosts(str(path))

        def ask(name: str, type: int) -> Any:
            return Deferred.fromCoroutine(look_up(resolver, name, type, clock=network, timeout=5))

        (record,) = self.successResultOf(ask("mx.test", dns.A)).records
        self.assertEqual(record.dottedQuad(), "192.0.2.7")
        self.assertEqual(network.sent, [])
        for name, type in (("mx.test", dns.AAAA), ("mx.test", dns.MX), ("other.test", dns.A)):
            ask(name, type).addErrback(lambda _: None)
            query = network.sent[-1][0].queries[0]
            self.assertEqual((str(query.name), query.type), (name, type))
