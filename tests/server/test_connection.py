"""The connection object: what a session may know of its client, and do to it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpfw import FunctionCheck, Reply, ServerConfig, Session, SMTPError, SMTPServerFactory
from smtpfw.dns.questions import NotKnown
from smtpfw.extensions import STANDARD
from smtpfw.interfaces import IConnection, IHelloSession
from smtpfw.server import factory
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.testing.memory import HOST, PEER
from smtpfw.wire.dialect import Extension
from smtpfw.wire.phases import READY, Verb
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT, codes, greeted


class Told(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()

    def greet(self, *said: bytes, **settings: Any) -> tuple[MemoryClient, Any]:
        client = greeted(self.backend, self.clock, *said, **settings)
        return client, self.backend.sessions[-1].connection


class Facts(Told):
    def test_it_provides_the_interface(self) -> None:
        _, connection = self.greet()
        verifyObject(IConnection, connection)

    def test_state(self) -> None:
        _, connection = self.greet(HELLO)
        state = connection.state
        self.assertEqual((state.hello_name, state.local, state.peer, state.tls_state), ("me", HOST, PEER, None))
        self.assertIs(connection.tls_state, None)
        self.assertEqual(connection.tls, "")

    def test_state_does_not_change_later(self) -> None:
        client, connection = self.greet(HELLO)
        before = connection.state
        client.send(b"EHLO somebody.else\r\n")
        self.assertEqual(before.hello_name, "me")
        self.assertEqual(connection.state.hello_name, "somebody.else")

    def test_since_mail(self) -> None:
        client, connection = self.greet(HELLO)
        for _ in range(2):
            self.clock.advance(7)
            client.send(MAIL)
            self.assertEqual(connection.seconds_since_mail, 0.0)
            self.clock.advance(1.5)
            self.assertEqual(connection.seconds_since_mail, 1.5)
            client.send(b"RSET\r\n")

    def test_the_server_and_its_connections(self) -> None:
        client, connection = self.greet()
        self.assertIs(connection.server, client.protocol.factory)
        self.assertEqual(connection.server.connections, {client.protocol})

    def test_ids(self) -> None:
        client, connection = self.greet(ENVELOPE)
        self.assertEqual(connection.transaction.id, f"{connection.id}.1")
        client.send(b"RSET\r\n" + MAIL)
        self.assertEqual(connection.transaction.id, f"{connection.id}.2")
        other = greeted(self.backend, self.clock)
        self.assertNotEqual(other.protocol.wire.id, connection.id)

    def test_protocol(self) -> None:
        for said, protocol in ((b"HELO me\r\n", "SMTP"), (HELLO, "ESMTP")):
            _, connection = self.greet(said)
            self.assertEqual(connection.protocol, protocol)


class Replaced(Told):
    def test_the_next_question_is_for_the_other(self) -> None:
        told: list[str] = []

        class Other(Session):
            def mail(self, sender: Any, options: Any) -> str:
                return "the other one"

            def logout(self, reason: str) -> None:
                told.append(reason)

        client, connection = self.greet(HELLO)
        other = Other(connection)
        connection.session = other
        self.assertIs(connection.session, other)
        self.assertEqual(self.backend.events[-1], ("logout", "replaced"))
        self.assertEqual(client.send(MAIL), b"250 2.1.0 the other one\r\n")
        client.send(b"QUIT\r\n")
        self.assertEqual(told, ["quit"])
        self.assertEqual(self.backend.events.count(("logout", "replaced")), 1)

    def test_from_within_a_hook(self) -> None:
        class Strict(Session):
            def rcpt(self, recipient: Any, options: Any) -> None:
                raise SMTPError(550, (5, 7, 1), "not from you")

        def hello(name: str, extended: bool) -> None:
            connection = self.backend.sessions[-1].connection
            connection.session = Strict(connection)

        self.backend.answers["hello"] = hello
        client, _ = self.greet()
        self.assertEqual(codes(client.send(ENVELOPE)), [b"250", b"250", b"550"])

    def test_by_a_check_that_is_being_asked(self) -> None:
        class Other(Session):
            def mail(self, sender: Any, options: Any) -> str:
                return "the other one"

        def choose(connection: Any, *rest: Any) -> None:
            connection.session = Other(connection)

        factory = SMTPServerFactory(
            self.backend, ServerConfig(hostname="mx.test"), checks=[FunctionCheck(mail=choose)], reactor=self.clock
        )
        client = MemoryClient.of(factory)
        client.send(HELLO)
        self.assertEqual(client.send(MAIL), b"250 2.1.0 the other one\r\n")
        self.assertEqual(self.backend.events[-1], ("logout", "replaced"))

    def test_not_within_a_transaction(self) -> None:
        client, connection = self.greet(HELLO)
        for said in (MAIL, RCPT, DATA, MESSAGE):
            client.send(said)
            with self.assertRaises(RuntimeError):
                connection.session = Session(connection)
        self.assertTrue(client.send(DOT).startswith(b"250"))
        self.assertEqual(self.backend.messages[0].body, MESSAGE)
        connection.session = Session(connection)

    def test_one_that_is_half_a_session_takes_nothing_over(self) -> None:
        @implementer(IHelloSession)
        class Half(Session):
            pass

        client, connection = self.greet(HELLO)
        with self.assertRaises(TypeError):
            connection.session = Half(connection)
        client.send(ENVELOPE + DATA + MESSAGE + DOT)
        self.assertEqual(len(self.backend.messages), 1)

    def test_what_is_no_session(self) -> None:
        client, connection = self.greet(HELLO)
        before = connection.session
        with self.assertRaises(TypeError):
            connection.session = None
        self.assertIs(connection.session, before)
        client.send(MAIL)
        self.assertEqual(self.backend.events[-1], ("mail", "a@b.test"))


class Rejected(Told):
    def test_between_commands(self) -> None:
        client, connection = self.greet(HELLO)
        connection.reject()
        self.assertTrue(client.received().startswith(b"421 4.3.2 "))
        self.assertTrue(client.closed)
        self.assertEqual(self.backend.events[-1], ("logout", "error"))

    def test_from_within_a_hook_the_answer_is_the_rejection(self) -> None:
        def mail(sender: Any, options: Any) -> str:
            self.backend.sessions[-1].connection.reject(SMTPError(550, (5, 7, 1), "go away"))
            return "never shown"

        self.backend.answers["mail"] = mail
        client, _ = self.greet(HELLO)
        self.assertEqual(client.send(MAIL + RCPT), b"550 5.7.1 go away\r\n")
        self.assertTrue(client.closed)

    def test_while_a_hook_waits(self) -> None:
        gate: Deferred[None] = Deferred()
        self.backend.answers["mail"] = lambda *arguments: gate
        client, connection = self.greet(HELLO)
        client.send(MAIL)
        connection.reject()
        self.assertEqual(codes(client.received()), [b"421"])
        self.assertTrue(client.closed)


class WrittenReplies(Told):
    def test_before_the_answer(self) -> None:
        def mail(sender: Any, options: Any) -> None:
            self.backend.sessions[-1].connection.write_reply(Reply(250, "one\nmoment", (2, 0, 0)))

        self.backend.answers["mail"] = mail
        client, _ = self.greet(HELLO)
        self.assertEqual(client.send(MAIL), b"250-2.0.0 one\r\n250 2.0.0 moment\r\n250 2.1.0 Sender OK\r\n")

    def test_while_a_hook_waits_it_goes_at_once(self) -> None:
        gate: Deferred[None] = Deferred()
        self.backend.answers["mail"] = lambda *arguments: gate
        client, connection = self.greet(HELLO)
        client.send(MAIL)
        connection.write_reply(Reply(250, "wait", (2, 0, 0)))
        self.assertEqual(client.received(), b"250 2.0.0 wait\r\n")

    def test_when_all_is_said(self) -> None:
        client, connection = self.greet(HELLO)
        client.send(b"QUIT\r\n")
        connection.write_reply(Reply(250, "late", (2, 0, 0)))
        self.assertEqual(client.received(), b"")


class Lines(Told):
    """A verb of one's own that has more to ask, answered by the session."""

    def greet_with_verb(self, ask: Callable[[Any], Any]) -> MemoryClient:
        class Ask(Extension):
            keyword = "XASK"
            verbs = (
                Verb(
                    "XASK",
                    frozenset({READY}),
                    last_in_group=True,
                    serve=lambda wire, argument: ask(wire.application.session.connection),
                ),
            )

        client, _ = self.greet(HELLO, extensions=[*STANDARD[:2], Ask()])
        return client

    def test_a_line_is_read(self) -> None:
        async def ask(connection: Any) -> Reply:
            connection.write_reply(Reply(354, "your name?"))
            line = await connection.read_line()
            return Reply(250, f"hello {line.decode()}", (2, 0, 0))

        client = self.greet_with_verb(ask)
        self.assertEqual(client.send(b"XASK\r\n"), b"354 your name?\r\n")
        self.assertEqual(
            client.send(b"MAIL FROM:<x@y.z>\r\nNOOP\r\n").splitlines()[0], b"250 2.0.0 hello MAIL FROM:<x@y.z>"
        )
        self.assertEqual([event for event in self.backend.events if event[0] == "mail"], [])

    def test_a_line_that_is_too_long(self) -> None:
        async def ask(connection: Any) -> Reply:
            await connection.read_line(limit=10)
            return Reply(250, "fine", (2, 0, 0))

        client = self.greet_with_verb(ask)
        client.send(b"XASK\r\n")
        self.assertEqual(client.send(b"x" * 20 + b"\r\n")[:9], b"500 5.5.6")
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"250"])

    def test_not_when_nothing_is_asked(self) -> None:
        _, connection = self.greet(HELLO)
        self.assertRaises(RuntimeError, connection.read_line)


class Pause(Told):
    def test_others_are_served(self) -> None:
        async def mail(sender: Any, options: Any) -> None:
            await self.backend.sessions[0].connection.pause(2)

        client, _ = self.greet(HELLO)
        other, _ = self.greet(HELLO)
        self.backend.answers["mail"] = mail
        self.assertEqual(client.send(MAIL), b"")
        self.assertEqual(codes(other.send(b"NOOP\r\n")), [b"250"])
        self.clock.advance(2)
        self.assertEqual(codes(client.received()), [b"250"])


class Resolver:
    """Answers what it is told, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def lookupPointer(self, name: str, timeout: Any = None) -> Any:
        self.asked.append(name)
        return self.answer() if callable(self.answer) else succeed((self.answer, [], []))


#: What PEER is asked for by.
POINTER = str(ip_address(PEER.host).reverse_pointer)


def pointer(name: str, owner: str = POINTER) -> dns.RRHeader:
    return dns.RRHeader(owner, dns.PTR, payload=dns.Record_PTR(name.encode()))


class Names(Told):
    def look_up(self, answer: Any, peer: Any = PEER) -> tuple[Any, Resolver]:
        resolver = Resolver(answer)
        factory = SMTPServerFactory(
            self.backend, ServerConfig(hostname="mx.test"), reactor=self.clock, resolver=resolver
        )
        MemoryClient.of(factory, peer)
        connection = self.backend.sessions[-1].connection
        return Deferred.fromCoroutine(connection.look_up_name()), resolver

    def name(self, answer: Any, peer: Any = PEER) -> tuple[str, list[str]]:
        found, resolver = self.look_up(answer, peer)
        return self.successResultOf(found), resolver.asked

    def test_ipv4_and_ipv6(self) -> None:
        self.assertEqual(self.name([pointer("mail.example.net")]), ("mail.example.net", ["1.2.0.192.in-addr.arpa"]))
        owner = ip_address("2001:db8::1").reverse_pointer
        name, asked = self.name([pointer("six.example.net", owner)], IPv6Address("TCP", "2001:db8::1%eth0", 9))
        self.assertEqual((name, asked), ("six.example.net", [owner]))

    def test_a_unix_socket_has_none(self) -> None:
        self.assertEqual(self.name([pointer("x.example")], UNIXAddress("")), ("", []))

    def test_the_first_pointer_behind_an_alias(self) -> None:
        # RFC 2317: who has a part of a network has its names elsewhere.
        alias = dns.RRHeader(POINTER, dns.CNAME, payload=dns.Record_CNAME(b"1.0/25.2.0.192.in-addr.arpa"))
        names = [pointer(f"{name}.example", "1.0/25.2.0.192.IN-ADDR.arpa") for name in "ab"]
        self.assertEqual(self.name([alias, *names])[0], "a.example")

    def test_a_pointer_of_another_address_is_not_believed(self) -> None:
        self.assertEqual(self.name([pointer("a.example", "9.2.0.192.in-addr.arpa")])[0], "")

    def test_what_is_no_name_is_not_believed(self) -> None:
        for bad in ("a b.example", "a\r\nb", "x" * 300, "", "naïve.example"):
            self.assertEqual(self.name([pointer(bad)])[0], "")

    def test_no_answer(self) -> None:
        for error in (DNSNameError("x"), DNSServerError("x"), OSError("no network")):
            self.assertEqual(self.name(lambda error=error: fail(error))[0], "")
        self.assertEqual(self.name([])[0], "")

    def test_nobody_can_be_asked(self) -> None:
        def refuse() -> None:
            raise NotKnown("the settings can't be read")

        self.patch(factory, "system_resolver", refuse)
        MemoryClient.of(SMTPServerFactory(self.backend, ServerConfig(hostname="mx.test"), reactor=self.clock), PEER)
        found = Deferred.fromCoroutine(self.backend.sessions[-1].connection.look_up_name())
        self.assertEqual(self.successResultOf(found), "")

    def test_who_gives_up_takes_the_answer_from_nobody(self) -> None:
        cancelled: list[Any] = []
        found, _ = self.look_up(lambda: Deferred(cancelled.append))
        found.cancel()
        self.failureResultOf(found, CancelledError)
        # Twisted's resolver asks once for all who want to know the same.
        self.assertEqual(cancelled, [])

    def test_another_one_who_takes_the_answer_away(self) -> None:
        shared: Deferred[Any] = Deferred()
        found, _ = self.look_up(lambda: shared)
        shared.cancel()
        self.assertEqual(self.successResultOf(found), "")

    def test_no_answer_in_time(self) -> None:
        found, _ = self.look_up(Deferred)
        self.assertNoResult(found)
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(found), "")

    def test_asked_once_for_each_connection(self) -> None:
        owner = "9.2.0.192.in-addr.arpa"
        found, resolver = self.look_up([pointer("a.example", owner)], IPv4Address("TCP", "192.0.2.9", 1))
        self.assertEqual(self.successResultOf(found), "a.example")
        again = Deferred.fromCoroutine(self.backend.sessions[-1].connection.look_up_name())
        self.assertEqual(self.successResultOf(again), "a.example")
        self.assertEqual(len(resolver.asked), 1)

    def test_a_fault_is_no_absence(self) -> None:
        found, _ = self.look_up(lambda: fail(Failure(ValueError("a bug"))))
        self.failureResultOf(found, ValueError)
