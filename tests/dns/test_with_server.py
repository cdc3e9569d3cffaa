"""The resolver against a DNS server on loopback: what comes over TCP, and what the log is told."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.trial.unittest import TestCase

from smtpfw.config.logging import Observer
from smtpfw.dns.questions import Found, NotKnown, look_up
from tests.dns.dns_server import CUT_IN_STREAM, OTHER_IN_STREAM, TRUNCATED, DNSServer, turn

RECORDS = {f"{name}.test": [dns.Record_A("192.0.2.1")] for name in ("a", "b.large", "c.large", "d.large")}
TROUBLE = {".large.test": TRUNCATED, ".half.test": CUT_IN_STREAM, ".other.test": OTHER_IN_STREAM}


class ServerTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.server = DNSServer(RECORDS, TROUBLE)
        self.resolver, self.stop = self.server.listen()
        self.stopped = False
        self.addCleanup(self.end)

    async def end(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.stop()

    def ask(self, name: str, timeout: float = 60) -> Deferred[Found]:
        clock = IReactorTime(reactor)
        return Deferred.fromCoroutine(look_up(self.resolver, name, dns.A, clock=clock, timeout=timeout))

    async def test_several_over_one_connection(self) -> None:
        names = [f"{letter}.large.test" for letter in "bcd"]
        found = await gatherResults([self.ask(name) for name in names])
        self.assertEqual([(one.name, len(one.records)) for one in found], [(name, 1) for name in names])
        self.assertEqual(len(self.server.connections), 1)
        await self.ask("b.large.test")
        self.assertEqual(len(self.server.connections), 1)
        self.assertEqual([how for _, how in self.server.asked], ["udp"] * 3 + ["tcp"] * 3 + ["udp", "tcp"])

    async def test_an_answer_over_tcp_that_ends_in_the_midst_is_none(self) -> None:
        with self.assertRaisesRegex(NotKnown, "no answer in time"):
            await self.ask("a.half.test", 0.2)

    async def test_an_answer_over_tcp_to_another_question(self) -> None:
        with self.assertRaisesRegex(NotKnown, "an answer to another question"):
            await self.ask("a.other.test")

    async def test_a_question_has_a_socket_and_no_line_in_the_log(self) -> None:
        lines: list[bytes] = []
        events: list[Any] = []
        for observer in (Observer(lines.append), events.append):
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
        await self.ask("a.test")
        # The socket is closed in the next turn.
        await turn()
        await turn()
        said = [str(event.get("log_text")) for event in events]
        (port,) = [text.rpartition(" ")[2] for text in said if " starting on " in text]
        # Twisted has said it, and the log of the process leaves it out.
        self.assertIn(f"(UDP Port {port} Closed)", said)
        self.assertEqual(lines, [])
