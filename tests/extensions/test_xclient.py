"""XCLIENT: what it says, from whom it is believed, and who is seen behind it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.check import FunctionCheck
from smtpfw.errors import ConfigError, RelayDenied, SMTPError, SyntaxProblem
from smtpfw.extensions import STANDARD, Auth, XClient
from smtpfw.extensions.xclient import ClientAttributes as Told
from smtpfw.extensions.xclient import parse_xclient
from smtpfw.networks import Networks
from smtpfw.policies import AllowedNetworks, Concurrency
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.server.origin import NOBODY_KNOWS, name_of
from smtpfw.server.proxy import ProxyFactory
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.profiles import STRICT
from smtpfw.wire.trace import received_line
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT, codes
from tests.server.tls_in_memory import CONTEXT, TLSClient

PEER = IPv4Address("TCP", "192.0.2.1", 54321)
LINE = b"XCLIENT NAME=spike.example.net ADDR=203.0.113.9 PORT=56324 PROTO=ESMTP HELO=spike LOGIN=tim\r\n"
ADDR = b"XCLIENT ADDR=203.0.113.9\r\n"
NOT_FOR_YOU = b"550 5.7.0 XCLIENT is not for you\r\n"
OFFER = b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"

SAID = [
    (b"ADDR=203.0.113.9", Told(addr="203.0.113.9")),
    (b"addr=203.0.113.9 Port=1", Told(addr="203.0.113.9", port=1)),
    (b"ADDR=IPV6:2001:DB8:0::9", Told(addr="2001:db8::9")),
    (b"ADDR=ipv6:2001:db8::9", Told(addr="2001:db8::9")),
    (b"ADDR=2001:db8::9", Told(addr="2001:db8::9")),
    (b"ADDR=IPV6:::ffff:203.0.113.9", Told(addr="203.0.113.9")),
    (b"NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] PORT=[unavailable]", Told(name="", addr="", port=0)),
    (b"HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE] PROTO=[UNAVAILABLE]", Told(helo="", login="")),
    (b"DESTADDR=198.51.100.1 DESTPORT=25", Told(dest_addr="198.51.100.1", dest_port=25)),
    (b"DESTADDR=[UNAVAILABLE] DESTPORT=0", Told(dest_addr="", dest_port=0)),
    (b"PROTO=esmtp  HELO=spike.example.net ", Told(helo="spike.example.net")),
    (b"HELO=[203.0.113.9]", Told(helo="[203.0.113.9]")),
    (b"LOGIN=tim@example.org", Told(login="tim@example.org")),
    (b"LOGIN=joe+2Btag", Told(login="joe+tag")),
    # What is no xtext, or none that anybody would write, is what it is.
    (b"LOGIN=joe+tag", Told(login="joe+tag")),
    (b"LOGIN=a+4", Told(login="a+4")),
    (b"LOGIN=a+41", Told(login="a+41")),
    (b"LOGIN=joe+2btag", Told(login="joe+2btag")),
    (b"PROTO=LMTP", Told()),
    (b"LOGIN=two+20words", Told(login="two words")),
    (b"NAME=a_b.example.net PORT=65535", Told(name="a_b.example.net", port=65535)),
]

BROKEN = [
    b"",
    b" ",
    b"ADDR",
    b"ADDR=",
    b"=203.0.113.9",
    b"ADDR=203.0.113.9 ADDR=203.0.113.9",
    b"ADDR=203.0.113.9 addr=203.0.113.8",
    b"ADDR=203.0.113",
    b"ADDR=0203.0.113.9",
    b"ADDR=203.0.113.9/24",
    b"ADDR=IPV6:203.0.113.9x",
    b"ADDR=IPV6:fe80::1+25eth0",
    b"ADDR=IPV6:fe80::1%eth0",
    b"ADDR=localhost",
    b"ADDR=unix",
    b"PORT=65536",
    b"PORT=-1",
    b"PORT=1_0",
    b"PORT=000000",
    b"PROTO=SMTPS",
    b"NAME=two+20words",
    b"NAME=a+0D+0Ab",
    b"NAME=a(b)",
    b"HELO=two+20words",
    b"HELO=a+0Ab",
    b"HELO=" + b"x" * 256,
    b"LOGIN=" + b"x" * 256,
    b"LOGIN=a+00b",
    b"LOGIN=a\x0bADDR=203.0.113.9",
    b"LOGIN=a\x1cADDR=203.0.113.9",
    b"LOGIN=a\tADDR=203.0.113.9",
    b"LOGIN=a+E2+80+A8b",
    b"LOGIN=\xc3\xbc",
    b"COLOUR=blue",
    b"ADDR=203.0.113.9 COLOUR=blue",
]


@pytest.mark.parametrize(("argument", "told"), SAID)
def test_what_is_said(argument: bytes, told: Told) -> None:
    assert parse_xclient(argument) == told


@pytest.mark.parametrize("argument", BROKEN)
def test_what_is_refused(argument: bytes) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse_xclient(argument)
    assert caught.value.message.isascii() and "\n" not in caught.value.message


@given(st.binary(max_size=80) | st.builds(b"ADDR=%b".__mod__, st.binary(max_size=40)))
def test_nothing_else_is_raised(argument: bytes) -> None:
    try:
        told = parse_xclient(argument)
    except SyntaxProblem:
        return
    assert all(text is None or text.isprintable() for text in (told.name, told.addr, told.helo, told.login))


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        ([], "no network"),
        ("10.0.0.1/8", "could be"),
        (["0.0.0.0/0"], "everybody"),
        (Networks(["::/1", "8000::/1"]), "everybody"),
    ],
)
def test_networks_that_make_no_sense(networks: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"extension XCLIENT: .*{words}"):
        XClient(networks)


class XClientCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        self.told: list[dict[str, Any]] = []

    def make_factory(self, *checks: Any, trusted: Any = "192.0.2.0/24", **settings: Any) -> SMTPServerFactory:
        checker = FunctionChecker(lambda username, password: password == "secret")
        return SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test", **settings),
            checks=checks,
            reactor=self.clock,
            tls=CONTEXT,
            extensions=[*STANDARD, Auth(checker, allow_insecure=True), XClient(trusted)],
            log=Logger("smtpfw.server", observer=self.told.append),
        )

    def connect(self, *checks: Any, peer: Any = PEER, **settings: Any) -> MemoryClient:
        client = MemoryClient.of(self.make_factory(*checks, **settings), peer)
        client.received()
        return client

    @property
    def connection(self) -> Any:
        return self.backend.sessions[-1].connection

    def seen(self) -> tuple[Any, ...]:
        connection = self.connection
        proxy = "" if connection.proxy is None else name_of(connection.proxy)
        return connection.peer_host, proxy, connection.identity, connection.hello_name


class Believed(XClientCase):
    def test_all_of_it(self) -> None:
        client = self.connect()
        self.assertIn(OFFER, client.send(HELLO))
        self.assertEqual(client.send(LINE), b"220 mx.test ESMTP smtpfw\r\n")
        connection = self.connection
        self.assertEqual(connection.peer, IPv4Address("TCP", "203.0.113.9", 56324))
        self.assertEqual(connection.local, client.transport.getHost())
        self.assertEqual(self.seen(), ("203.0.113.9", "192.0.2.1:54321", "tim", "spike"))
        self.assertEqual(connection.mechanism, "XCLIENT")
        self.assertEqual(connection.protocol, "SMTP")
        names: list[str] = []
        Deferred.fromCoroutine(connection.look_up_name()).addCallback(names.append)
        self.assertEqual(names, ["spike.example.net"])

    def test_a_session_of_its_own(self) -> None:
        client = self.connect()
        client.send(HELLO)
        first = self.connection
        first.context["mine"] = 1
        client.send(ADDR)
        self.assertEqual(self.backend.events, [("hello", "me"), ("logout", "xclient")])
        self.assertEqual(len(self.backend.sessions), 2)
        self.assertIsNot(self.connection, first)
        self.assertEqual((self.connection.context, self.seen()[2:]), ({}, ("", "")))
        # EHLO is due again, as on a new connection.
        self.assertEqual(codes(client.send(MAIL)), [b"503"])
        self.assertEqual(codes(client.send(ENVELOPE + DATA)), [b"250", b"250", b"250", b"354"])
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"250"])
        self.assertEqual(len(self.backend.messages), 1)

    def test_before_ehlo_and_after_helo(self) -> None:
        for before in (b"", b"HELO me\r\n", HELLO):
            client = self.connect()
            client.send(before)
            self.assertEqual(codes(client.send(ADDR)), [b"220"])

    def test_a_name_that_was_told_counts(self) -> None:
        """Dovecot introduces itself behind XCLIENT."""
        asked: list[str] = []
        client = self.connect(FunctionCheck(hello=lambda connection, name, extended: asked.append(name)))
        client.send(b"XCLIENT HELO=spike.example.net\r\n")
        self.assertEqual(self.seen()[3], "spike.example.net")
        self.assertEqual(codes(client.send(b"EHLO\r\nEHLO proxy.example.org\r\n")), [b"501", b"250"])
        self.assertEqual((asked, self.seen()[3]), (["spike.example.net"], "spike.example.net"))
        client.send(b"XCLIENT HELO=[UNAVAILABLE]\r\nEHLO client.example.net\r\n")
        self.assertEqual((asked[1:], self.seen()[3]), (["client.example.net"], "client.example.net"))

    def test_octet_by_octet_and_at_once(self) -> None:
        whole = HELLO + ADDR + ENVELOPE + DATA + MESSAGE + DOT + b"QUIT\r\n"
        for size in (1, len(whole)):
            client = self.connect()
            said = b"".join(client.send(whole[at : at + size]) for at in range(0, len(whole), size))
            self.assertEqual(codes(said), [b"250", b"220", b"250", b"250", b"250", b"354", b"250", b"221"])
            self.assertEqual(self.connection.peer_host, "203.0.113.9")

    def test_what_is_not_mentioned_stays(self) -> None:
        client = self.connect(trusted=["192.0.2.1", "203.0.113.9"])
        client.send(LINE)
        self.assertEqual(codes(client.send(b"XCLIENT DESTADDR=198.51.100.1 DESTPORT=25\r\n")), [b"220"])
        connection = self.connection
        self.assertEqual(connection.local, IPv4Address("TCP", "198.51.100.1", 25))
        self.assertEqual(connection.peer, IPv4Address("TCP", "203.0.113.9", 56324))
        self.assertEqual(self.seen(), ("203.0.113.9", "192.0.2.1:54321", "tim", "spike"))
        client.send(b"XCLIENT PORT=7\r\n")
        self.assertEqual(self.connection.peer, IPv4Address("TCP", "203.0.113.9", 7))
        client.send(b"XCLIENT LOGIN=[UNAVAILABLE]\r\n")
        self.assertEqual((self.connection.identity, self.connection.mechanism), ("", ""))
        client.send(b"XCLIENT ADDR=IPV6:2001:db8::9\r\n")
        # Neither the port nor the name of another address is its own.
        self.assertEqual(self.connection.peer, IPv6Address("TCP", "2001:db8::9", 0))
        self.assertIsNone(client.protocol.origin.name)

    def test_another_address_is_another_client(self) -> None:
        client = self.connect(trusted=["192.0.2.1", "203.0.113.0/24"])
        # What is said of one client may stand in two lines.
        client.send(b"XCLIENT LOGIN=tim HELO=spike\r\n")
        client.send(ADDR)
        self.assertEqual(self.seen(), ("203.0.113.9", "192.0.2.1:54321", "tim", "spike"))
        client.send(b"XCLIENT ADDR=203.0.113.10\r\n")
        self.assertEqual(self.seen(), ("203.0.113.10", "192.0.2.1:54321", "", ""))
        client.send(b"XCLIENT LOGIN=ann\r\n")
        client.send(b"XCLIENT ADDR=203.0.113.10 LOGIN=joe\r\n")
        self.assertEqual(self.seen()[2], "joe")

    def test_the_longest_line_by_any_profile(self) -> None:
        client = self.connect(profile=STRICT)
        self.clock.advance(1)
        client.received()
        name = b"x" * 63 + b".example.net"
        login = b"+20" * 200 + b"y"
        self.assertEqual(client.send(b"XCLIENT NAME=%b HELO=%b LOGIN=%b\r\n" % (name, name, login)), b"")
        self.clock.advance(1)
        self.assertEqual(codes(client.received())[-1:], [b"220"])
        self.assertEqual(len(self.seen()[2]), 201)

    def test_the_proxys_own_login_is_forgotten(self) -> None:
        client = self.connect()
        client.send(HELLO)
        self.assertEqual(codes(client.send(b"AUTH PLAIN AHByb3h5AHNlY3JldA==\r\n")), [b"235"])
        self.assertEqual(self.connection.identity, "proxy")
        client.send(ADDR)
        self.assertEqual((self.connection.identity, self.connection.mechanism), ("", ""))
        client.send(HELLO)
        self.assertEqual(codes(client.send(b"AUTH PLAIN AHByb3h5AHNlY3JldA==\r\n")), [b"235"])

    def test_a_login_is_one(self) -> None:
        client = self.connect()
        client.send(b"XCLIENT LOGIN=tim\r\n")
        offered = client.send(HELLO)
        self.assertNotIn(b"AUTH", offered)
        self.assertEqual(codes(client.send(b"AUTH PLAIN AHByb3h5AHNlY3JldA==\r\n")), [b"503"])
        self.assertEqual(self.connection.protocol, "ESMTPA")

    def test_nobody_knows_the_address(self) -> None:
        client = self.connect(trusted=["192.0.2.1", "unix"], max_connections_per_address=1)
        self.assertEqual(codes(client.send(b"XCLIENT ADDR=[UNAVAILABLE]\r\n")), [b"220"])
        self.assertIs(self.connection.peer, NOBODY_KNOWS)
        self.assertEqual(self.connection.peer_host, "")
        self.assertEqual([event["peer"] for event in self.told if event["event"] == "speaks_for"][-1], "unknown")
        # Least of all is it a Unix socket.
        self.assertEqual(client.send(ADDR), NOT_FOR_YOU)

    def test_a_unix_socket(self) -> None:
        client = self.connect(peer=UNIXAddress(b""), trusted="unix")
        client.send(b"XCLIENT PORT=7\r\n")
        self.assertEqual((self.seen()[:2], self.connection.peer), (("", "unix"), UNIXAddress(b"")))
        client.send(ADDR)
        self.assertEqual(self.seen()[:2], ("203.0.113.9", "unix"))

    def test_the_received_line(self) -> None:
        client = self.connect()
        client.send(LINE)
        client.send(b"EHLO proxy.example.org\r\n" + MAIL + RCPT)
        first, second, *_ = received_line(self.connection, seconds=0).split(b"\r\n\t")
        self.assertEqual(first, b"Received: from spike ([203.0.113.9])")
        self.assertEqual(second, b"by mx.test with ESMTPA")

    def test_behind_a_proxy_header(self) -> None:
        server = self.make_factory(trusted="203.0.113.0/24")
        client = MemoryClient.of(ProxyFactory(server, "10.0.0.5"), IPv4Address("TCP", "10.0.0.5", 4321))
        client.send(b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 25\r\n")
        self.assertEqual(codes(client.send(b"XCLIENT ADDR=192.0.2.99\r\n")), [b"220"])
        self.assertEqual(self.seen()[:2], ("192.0.2.99", "10.0.0.5:4321"))
        self.assertEqual(self.connection.local.host, "198.51.100.1")


class NotBelieved(XClientCase):
    def test_from_elsewhere(self) -> None:
        client = self.connect(trusted="10.0.0.0/8")
        self.assertEqual(client.send(LINE), NOT_FOR_YOU)
        self.assertNotIn(b"XCLIENT", client.send(HELLO))
        self.assertEqual(client.send(LINE), NOT_FOR_YOU)
        self.assertEqual(self.seen(), ("192.0.2.1", "", "", "me"))
        self.assertEqual(len(self.backend.sessions), 1)

    def test_from_who_is_behind_a_proxy_that_passes_everything_on(self) -> None:
        client = self.connect()
        client.send(ADDR)
        self.assertNotIn(b"XCLIENT", client.send(HELLO))
        self.assertEqual(client.send(b"XCLIENT ADDR=192.0.2.1 LOGIN=root\r\n"), NOT_FOR_YOU)
        self.assertEqual(self.seen(), ("203.0.113.9", "192.0.2.1:54321", "", "me"))

    def test_behind_starttls_either(self) -> None:
        """To forget the address would make the client the proxy, which is trusted."""
        client = TLSClient(self.make_factory())
        client.send(HELLO + LINE)
        client.send(HELLO)
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        self.assertNotIn(b"XCLIENT", client.send(HELLO))
        self.assertEqual(client.send(ADDR), NOT_FOR_YOU)
        # Who it is was said in clear (RFC 3207 section 4.2).
        self.assertEqual(self.seen(), ("203.0.113.9", "192.0.2.1:54321", "", "me"))

    def test_it_changes_nothing_if_it_is_malformed(self) -> None:
        client = self.connect(max_syntax_errors=0)
        client.send(HELLO)
        for argument in BROKEN:
            line = b"XCLIENT NAME=spike.example.net " + argument + b" ADDR\r\n"
            self.assertEqual(codes(client.send(line)), [b"501"], argument)
            self.assertEqual(self.seen(), ("192.0.2.1", "", "", "me"))
        self.assertEqual(self.backend.events, [("hello", "me")])

    def test_within_a_transaction(self) -> None:
        client = self.connect()
        client.send(HELLO + MAIL)
        self.assertEqual(codes(client.send(ADDR)), [b"503"])
        client.send(RCPT)
        self.assertEqual(codes(client.send(ADDR)), [b"503"])
        client.send(b"BDAT 1\r\nx")
        self.assertEqual(codes(client.send(ADDR)), [b"503"])
        client.send(b"RSET\r\n")
        self.assertEqual(codes(client.send(ADDR)), [b"220"])

    def test_before_tls_where_that_is_required(self) -> None:
        client = self.connect(require_tls=True)
        client.send(HELLO)
        self.assertEqual(codes(client.send(ADDR)), [b"530"])


class Asked(XClientCase):
    """Checks, limits and the log see the client."""

    def test_checks_are_asked_anew(self) -> None:
        asked: list[tuple[str, str]] = []
        check = FunctionCheck(
            connect=lambda connection: asked.append(("connect", connection.peer_host)),
            disconnected=lambda connection: asked.append(("disconnected", connection.peer_host)),
        )
        client = self.connect(check)
        client.send(ADDR)
        client.send(b"QUIT\r\n")
        expected = [("connect", "192.0.2.1"), ("disconnected", "192.0.2.1")]
        self.assertEqual(asked, [*expected, *((stage, "203.0.113.9") for stage, _ in expected)])

    def test_who_is_told_goodbye_is_who_was_there(self) -> None:
        told: list[tuple[str, ...]] = []

        def note(name: str, connection: Any) -> None:
            told.append((name, connection.peer_host, connection.identity, connection.hello_name))

        client = self.connect(FunctionCheck(disconnected=lambda connection: note("disconnected", connection)))
        client.send(HELLO)
        client.send(b"AUTH PLAIN AHByb3h5AHNlY3JldA==\r\n")
        self.backend.answers["logout"] = lambda reason: note(reason, self.connection)
        client.send(LINE)
        proxy = ("192.0.2.1", "proxy", "me")
        self.assertEqual(told, [("xclient", *proxy), ("disconnected", *proxy)])
        client.disconnect()
        self.assertEqual(told[2:], [(name, "203.0.113.9", "tim", "spike") for name in ("disconnected",) * 2])

    def test_checks_that_were_not_asked_are_not_told(self) -> None:
        asked: list[tuple[str, str]] = []
        check = FunctionCheck(
            connect=lambda connection: asked.append(("connect", connection.peer_host)),
            disconnected=lambda connection: asked.append(("disconnected", connection.peer_host)),
        )
        factory = self.make_factory(check, max_connections_per_address=1)
        first = MemoryClient.of(factory, PEER)
        first.send(ADDR)
        asked.clear()
        second = MemoryClient.of(factory, PEER)
        self.assertEqual(codes(second.send(ADDR)), [b"220", b"421"])
        self.assertTrue(second.closed)
        self.assertEqual(asked, [("connect", "192.0.2.1"), ("disconnected", "192.0.2.1")])

    def test_a_check_refuses(self) -> None:
        client = self.connect(AllowedNetworks("192.0.2.0/24"))
        client.send(HELLO)
        self.assertEqual(client.send(ADDR), b"554 5.7.1 Access denied for your address\r\n")
        self.assertEqual(codes(client.send(HELLO)), [b"503"])
        self.assertEqual(len(self.backend.sessions), 1)
        # As any client that is refused with 554: it is not kept for long.
        self.clock.advance(31)
        self.assertTrue(client.closed)
        self.assertEqual([event[1] for event in self.backend.events if event[0] == "logout"], ["xclient"])

    def test_a_check_that_waits(self) -> None:
        answers: list[Deferred[None]] = []

        def connect(connection: Any) -> Any:
            if connection.peer_host == "192.0.2.1":
                return None
            answers.append(Deferred())
            return answers[-1]

        client = self.connect(FunctionCheck(connect=connect))
        self.assertEqual(client.send(ADDR + HELLO), b"")
        answers[0].callback(None)
        self.assertEqual(codes(client.received()), [b"220", b"250"])
        client = self.connect(FunctionCheck(connect=connect))
        self.assertEqual(client.send(ADDR + HELLO), b"")
        answers[1].errback(RelayDenied())
        self.assertEqual(codes(client.received()), [b"554", b"503"])

    def test_the_client_goes_while_a_check_waits(self) -> None:
        cancelled: list[object] = []
        waiting: Deferred[None] = Deferred(cancelled.append)
        gone: list[str] = []
        check = FunctionCheck(
            connect=lambda connection: waiting if connection.proxy else None,
            disconnected=lambda connection: gone.append(connection.peer_host),
        )
        client = self.connect(check)
        client.send(ADDR)
        client.disconnect()
        self.assertEqual((cancelled, gone), ([waiting], ["192.0.2.1", "203.0.113.9"]))
        self.assertEqual(len(self.backend.sessions), 1)

    def test_the_backend_refuses_or_breaks(self) -> None:
        for failure, code in ((SMTPError(550, (5, 7, 1), "No"), b"554"), (ValueError("broken"), b"421")):
            client = self.connect()

            def refuse(session: Any, failure: Exception = failure) -> Any:
                raise failure

            self.backend.answers["new_session"] = refuse
            self.assertEqual(codes(client.send(ADDR)), [code])
            del self.backend.answers["new_session"]
            self.assertEqual(client.closed, code == b"421")
        self.assertTrue(any("log_failure" in event for event in self.told))

    def test_limits_count_the_client(self) -> None:
        factory = self.make_factory(max_connections_per_address=2)
        clients = [MemoryClient.of(factory, PEER) for _ in range(2)]
        for client in clients:
            self.assertEqual(codes(client.send(ADDR)), [b"220", b"220"])
        # The proxy's own address is free again, and the client's is not.
        third = MemoryClient.of(factory, PEER)
        self.assertEqual(codes(third.send(ADDR)), [b"220", b"421"])
        self.assertTrue(third.closed)
        self.assertEqual(len(self.backend.sessions), 5)
        clients[0].send(b"QUIT\r\n")
        self.assertEqual(codes(MemoryClient.of(factory, PEER).send(ADDR)), [b"220", b"220"])
        self.assertEqual(factory.limits.refused, 0)

    def test_concurrency_counts_the_client(self) -> None:
        factory = self.make_factory(Concurrency(ip=1))
        first, second = MemoryClient.of(factory, PEER), None
        self.assertEqual(codes(first.send(ADDR)), [b"220", b"220"])
        second = MemoryClient.of(factory, PEER)
        self.assertEqual(codes(second.send(ADDR)), [b"220", b"421"])
        first.disconnect()
        self.assertEqual(codes(MemoryClient.of(factory, PEER).send(ADDR)), [b"220", b"220"])

    def test_the_log(self) -> None:
        client = self.connect()
        client.send(LINE)
        client.send(HELLO + MAIL + b"QUIT\r\n")
        events = [(event["event"], event["peer"]) for event in self.told]
        client_peer = "203.0.113.9:56324"
        self.assertEqual(
            events,
            [
                ("connected", "192.0.2.1:54321"),
                ("speaks_for", client_peer),
                ("authenticated", client_peer),
                ("disconnected", client_peer),
            ],
        )
        self.assertEqual([event["proxy"] for event in self.told[:2]], ["", "192.0.2.1:54321"])
        self.assertEqual((self.told[2]["identity"], self.told[2]["mechanism"]), ("tim", "XCLIENT"))

    def test_the_transcript(self) -> None:
        lines: list[str] = []
        factory = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test"),
            reactor=self.clock,
            extensions=[XClient("192.0.2.1")],
            transcripts=lambda id, host: lines.append,
        )
        MemoryClient.of(factory, PEER).send(ADDR)
        self.assertEqual(
            lines,
            [
                "-- connected from 192.0.2.1:54321",
                "S: 220 mx.test ESMTP smtpfw",
                "C: XCLIENT ADDR=203.0.113.9",
                "-- speaks for 203.0.113.9",
                "S: 220 mx.test ESMTP smtpfw",
            ],
        )

    def test_the_time_for_a_greeting_begins_anew(self) -> None:
        client = self.connect(greeting_timeout=100)
        self.clock.advance(90)
        client.send(ADDR)
        self.clock.advance(90)
        self.assertFalse(client.closed)
        self.clock.advance(11)
        self.assertTrue(client.closed)

    def test_a_server_that_drains(self) -> None:
        client = self.connect()
        client.protocol.factory.stop(30)
        self.assertEqual(codes(client.received()), [b"421"])
        waiting: Deferred[None] = Deferred()
        client = self.connect(FunctionCheck(connect=lambda connection: waiting if connection.proxy else None))
        client.send(ADDR)
        client.protocol.factory.stop(30)
        self.assertEqual(codes(client.received()), [b"421"])
        self.assertTrue(client.closed)
