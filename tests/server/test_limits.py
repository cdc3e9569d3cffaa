"""What all connections share: their number, and the memory of their messages; and what one of them may say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import Session, SessionBackend
from smtpfw.backends.memory import MemoryBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.interfaces import IBody
from smtpfw.memory import MemoryBudget
from smtpfw.server.limits import MAX_REFUSED, ConnectionLimits
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT, codes, greeted, make_factory

FULL = b"421 4.3.2 Too many connections, try again later\r\n"
FULL_FOR_YOU = b"421 4.7.0 Too many connections from your address, try again later\r\n"


def ipv4(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 1025)


def ipv6(host: str) -> IPv6Address:
    return IPv6Address("TCP", host, 1025)


#: A message without a header, of 1000 octets.
BODY_OF_1000 = b"\r\n" + b"x" * 996 + b"\r\n"


class Connections(TestCase):
    def connect(self, peers: list[Any], **settings: Any) -> list[MemoryClient]:
        self.backend = RecordingBackend()
        self.factory = make_factory(self.backend, **settings)
        return [MemoryClient.of(self.factory, peer) for peer in peers]

    def test_one_too_many(self) -> None:
        clients = self.connect([ipv4(f"192.0.2.{n}") for n in range(4)], max_connections=3)
        self.assertEqual([client.received()[:3] for client in clients], [b"220"] * 3 + [b"421"])
        self.assertTrue(clients[3].closed)
        self.assertEqual(len(self.backend.sessions), 3)

    def test_what_it_is_told(self) -> None:
        *_, last = self.connect([ipv4("192.0.2.1"), ipv4("192.0.2.2")], max_connections=1)
        self.assertEqual(last.received(), FULL)
        *_, last = self.connect([ipv4("192.0.2.1")] * 2, max_connections_per_address=1)
        self.assertEqual(last.received(), FULL_FOR_YOU)

    def test_who_goes_makes_room(self) -> None:
        first, refused = self.connect([ipv4("192.0.2.1")] * 2, max_connections=1)
        self.assertTrue(refused.closed)
        first.disconnect()
        self.assertTrue(MemoryClient.of(self.factory).received().startswith(b"220"))

    def test_of_ipv6_a_whole_network_is_one(self) -> None:
        clients = self.connect(
            [ipv6("2001:db8::1"), ipv6("2001:db8::ffff:2"), ipv6("2001:db8:0:1::1")], max_connections_per_address=1
        )
        self.assertEqual([client.received()[:3] for client in clients], [b"220", b"421", b"220"])

    def test_an_ipv4_address_in_ipv6_is_itself(self) -> None:
        clients = self.connect(
            [ipv6("::ffff:192.0.2.1"), ipv6("::ffff:192.0.2.2"), ipv4("192.0.2.1")], max_connections_per_address=1
        )
        self.assertEqual([client.received()[:3] for client in clients], [b"220", b"220", b"421"])

    def test_unix_sockets_have_no_address(self) -> None:
        clients = self.connect([UNIXAddress("")] * 3, max_connections_per_address=1, max_connections=2)
        self.assertEqual([client.received()[:3] for client in clients], [b"220", b"220", b"421"])

    def test_clients_on_this_machine_share_no_address(self) -> None:
        peers = [
            ipv4("127.0.0.1"),
            ipv4("127.0.0.1"),
            ipv4("127.1.2.3"),
            ipv6("::1"),
            ipv6("::1"),
            ipv6("::ffff:127.0.0.1"),
        ]
        clients = self.connect(peers, max_connections_per_address=1, max_connections=5)
        self.assertEqual([client.received()[:3] for client in clients], [b"220"] * 5 + [b"421"])

    def test_no_limit(self) -> None:
        clients = self.connect([ipv4("192.0.2.1")] * 200, max_connections_per_address=0, max_connections=0)
        self.assertEqual({client.received()[:3] for client in clients}, {b"220"})

    def test_a_refused_one_reads_nothing_and_asks_nobody(self) -> None:
        _, refused = self.connect([ipv4("192.0.2.1")] * 2, max_connections=1)
        self.assertEqual(refused.send(ENVELOPE), FULL)
        self.assertEqual(self.backend.events, [])

    def test_who_is_refused_takes_nobodys_place(self) -> None:
        flood = [ipv4("192.0.2.1")] * 10
        self.connect([*flood, ipv4("192.0.2.2")], max_connections=4, max_connections_per_address=2)
        self.assertEqual(len(self.backend.sessions), 3)

    def test_a_flood_is_not_spoken_to(self) -> None:
        limits = ConnectionLimits(1, 0)
        for _ in range(MAX_REFUSED + 1):
            limits.enter("192.0.2.1")
        self.assertFalse(limits.crowded)
        limits.enter("192.0.2.1")
        self.assertTrue(limits.crowded)
        limits.leave("192.0.2.1", refused=True)
        self.assertFalse(limits.crowded)

    def test_who_is_not_spoken_to_is_gone_at_once_and_forgotten(self) -> None:
        self.connect([], max_connections=1)
        self.factory.limits.refused = MAX_REFUSED
        MemoryClient.of(self.factory)
        client = MemoryClient.of(self.factory)
        self.assertEqual((client.received(), client.closed, client.transport.aborted), (b"", True, True))
        self.assertEqual((self.factory.limits.refused, len(self.factory.connections)), (MAX_REFUSED, 1))

    def test_a_crowd_of_those_keeps_nobody_out(self) -> None:
        self.connect([], max_connections_per_address=1)
        self.factory.limits.refused = MAX_REFUSED + 50
        self.assertTrue(MemoryClient.of(self.factory, ipv4("192.0.2.9")).received().startswith(b"220 "))

    @given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%eth0", ""]), max_size=30))
    def test_nothing_is_left(self, hosts: list[str]) -> None:
        limits = ConnectionLimits(3, 2)
        refused = [(host, limits.enter(host) is not None) for host in hosts]
        for host, was_refused in reversed(refused):
            limits.leave(host, refused=was_refused)
        self.assertEqual((limits._count, dict(limits._by_address), limits.refused), (0, {}, 0))


class Memory(TestCase):
    """The budget: what waits to be read counts, and what a session has asked for whole."""

    def setUp(self) -> None:
        self.gate: Deferred[None] = Deferred()

    def sender(self, factory: Any) -> MemoryClient:
        client = MemoryClient.of(factory)
        client.send(ENVELOPE)
        client.received()
        return client

    def test_new_messages_have_to_wait(self) -> None:
        async def data(body: IBody) -> None:
            await body.read()

        factory = make_factory(RecordingBackend(data=data), max_memory_bytes=1000)
        first, second = self.sender(factory), self.sender(factory)
        first.send(DATA)
        first.send(BODY_OF_1000)
        self.assertEqual(factory.memory.held, 1000)
        for words in (DATA, b"BDAT 3 LAST\r\nabc"):
            self.assertTrue(second.send(words).startswith(b"452 4.3.1 "))
            second.send(b"RSET\r\n" + MAIL + RCPT)
            second.received()
        self.assertEqual(codes(first.send(DOT)), [b"250"])
        self.assertEqual(factory.memory.held, 0)
        self.assertEqual(codes(second.send(DATA)), [b"354"])

    def test_who_streams_takes_little(self) -> None:
        async def data(body: IBody) -> None:
            async for _ in body:
                pass

        factory = make_factory(RecordingBackend(data=data), max_memory_bytes=1000)
        client = self.sender(factory)
        client.send(DATA)
        client.send(b"\r\n")
        for _ in range(100):
            client.send(b"x" * 998 + b"\r\n")
            self.assertEqual(factory.memory.held, 0)

    def test_nothing_is_left_however_it_ends(self) -> None:
        async def whole(body: IBody) -> None:
            await body.read()

        async def half(body: IBody) -> None:
            await anext(aiter(body))

        async def waiting(body: IBody) -> None:
            await body.read()
            await Deferred()

        def nothing(body: IBody) -> None:
            return None

        ends = {
            "end": lambda client: client.send(DOT),
            "gone": lambda client: client.disconnect(),
            "gone behind the end": lambda client: (client.send(DOT), client.disconnect()),
            "too large": lambda client: client.send(b"x" * 3000 + b"\r\n" + DOT),
        }
        for hook in (whole, half, nothing):
            for name, end in ends.items():
                factory = make_factory(RecordingBackend(data=hook), max_message_bytes=2000)
                client = self.sender(factory)
                client.send(DATA)
                client.send(MESSAGE)
                client.send(MESSAGE)
                end(client)
                self.assertEqual(factory.memory.held, 0, (hook.__name__, name))
        # Whoever keeps a message keeps its memory.
        factory = make_factory(RecordingBackend(data=waiting))
        client = self.sender(factory)
        client.send(DATA + MESSAGE + DOT)
        client.disconnect()
        self.assertEqual(factory.memory.held, len(MESSAGE))

    def test_a_message_that_was_refused_in_the_middle(self) -> None:
        async def whole(body: IBody) -> None:
            await body.read()

        for settings, end in (
            ({"max_message_bytes": 1000}, lambda client: client.disconnect()),
            ({"max_message_bytes": 1000, "max_discarded_bytes": 100}, lambda client: client.send(b"y" * 998 + b"\r\n")),
        ):
            factory = make_factory(RecordingBackend(data=whole), **settings)
            client = self.sender(factory)
            client.send(DATA)
            client.send(BODY_OF_1000[:898] + b"\r\n")
            self.assertEqual(factory.memory.held, 900)
            client.send(b"x" * 198 + b"\r\n")
            self.assertEqual(factory.memory.held, 0)
            end(client)
            self.assertTrue(client.closed)
            self.assertEqual((factory.memory.held, factory.connections), (0, set()))

    def test_behind_a_mux_as_well(self) -> None:
        async def whole(body: IBody) -> None:
            await body.read()

        one, other = RecordingBackend(data=whole), MemoryBackend()
        factory = make_factory(MuxBackend({"one.test": one, "two.test": other, "postmaster": one}))
        client = MemoryClient.of(factory)
        client.send(HELLO + MAIL + b"RCPT TO:<a@one.test>\r\nRCPT TO:<b@two.test>\r\n" + DATA)
        client.send(BODY_OF_1000)
        # The memory backend takes chunk after chunk, and has a limit of its own.
        self.assertEqual(factory.memory.held, 1000)
        self.assertEqual(codes(client.send(DOT))[-1], b"250")
        self.assertEqual(factory.memory.held, 0)

    def test_a_message_read_after_its_answer_counts_no_more(self) -> None:
        bodies: list[IBody] = []
        factory = make_factory(RecordingBackend(data=bodies.append))
        client = self.sender(factory)
        client.send(DATA + MESSAGE + DOT)
        self.assertEqual(factory.memory.held, 0)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(bodies[0].read())), MESSAGE)
        self.assertEqual(factory.memory.held, 0)

    def test_a_header_that_does_not_end(self) -> None:
        """The checks are to see it whole, so what has come of it waits, whoever reads the message."""

        async def data(body: IBody) -> None:
            async for _ in body:
                pass

        factory = make_factory(RecordingBackend(data=data), max_memory_bytes=1000)
        first, second = self.sender(factory), self.sender(factory)
        first.send(DATA)
        first.send(b"Subject: x\r\n" * 100)
        self.assertEqual(factory.memory.held, 1200)
        self.assertTrue(second.send(DATA).startswith(b"452 4.3.1 "))
        self.assertEqual(codes(first.send(DOT)), [b"250"])
        self.assertEqual(factory.memory.held, 0)

    def test_no_limit(self) -> None:
        budget = MemoryBudget()
        budget.held = 1 << 60
        self.assertFalse(budget.short)

    def test_one_connection_is_paused(self) -> None:
        factory = make_factory(RecordingBackend(data=lambda body: Deferred()), max_buffered_bytes=1000)
        client = self.sender(factory)
        client.send(DATA)
        sent = 0
        while client.transport.reading and sent < 100_000:
            client.send(b"x" * 98 + b"\r\n")
            sent += 100
        self.assertLessEqual(sent, 1700)


class Idlers(TestCase):
    """Commands that lead to no mail."""

    def idle(self, words: bytes, **settings: Any) -> int:
        """How many of them are answered before 421."""
        client = greeted(RecordingBackend(), None, HELLO, **settings)
        for number in range(1000):
            answer = client.send(words)
            if answer.startswith(b"421"):
                self.assertEqual(answer, b"421 4.7.0 Too many commands without mail, closing transmission channel\r\n")
                self.assertTrue(client.closed)
                return number
        return -1

    def test_each_that_leads_nowhere(self) -> None:
        for words in (b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"HELP\r\n", b"EHLO x\r\n", b"HELO x\r\n"):
            # EHLO was the first of a hundred.
            self.assertEqual(self.idle(words), 99, words)

    def test_a_transaction_that_is_dropped_again(self) -> None:
        client = greeted(RecordingBackend(), None, HELLO)
        answers = b"".join(client.send(MAIL + RCPT + b"RSET\r\n") for _ in range(120))
        self.assertEqual(codes(answers).count(b"421"), 1)
        self.assertEqual(codes(answers).index(b"421"), 3 * 99 + 2)

    def test_mail_allows_as_many_again(self) -> None:
        for protocol, hello in (("smtp", HELLO), (LMTP, b"LHLO me\r\n")):
            client = greeted(SessionBackend(Session), None, hello, protocol=protocol)
            for _ in range(5):
                for _ in range(90):
                    client.send(b"NOOP\r\n")
                self.assertEqual(codes(client.send(MAIL + RCPT + DATA + MESSAGE + DOT))[-1], b"250")

    def test_no_limit(self) -> None:
        self.assertEqual(self.idle(b"NOOP\r\n", max_commands_without_mail=0), -1)

    def test_who_says_goodbye_may(self) -> None:
        client = greeted(RecordingBackend(), None, HELLO)
        for _ in range(99):
            client.send(b"NOOP\r\n")
        self.assertTrue(client.send(b"QUIT\r\n").startswith(b"221"))


class Introductions(TestCase):
    def test_who_never_says_who_it_is(self) -> None:
        clock = Clock()
        client = greeted(RecordingBackend(), clock)
        for _ in range(11):
            clock.advance(10)
            self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"250"])
        clock.advance(10)
        self.assertTrue(client.received().startswith(b"421 4.4.2 "))
        self.assertTrue(client.closed)

    def test_then_it_has_the_time_of_any_command(self) -> None:
        clock = Clock()
        client = greeted(RecordingBackend(), clock, HELLO)
        clock.advance(299)
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"250"])

    def test_no_limit(self) -> None:
        clock = Clock()
        client = greeted(RecordingBackend(), clock, greeting_timeout=0)
        clock.advance(299)
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"250"])
