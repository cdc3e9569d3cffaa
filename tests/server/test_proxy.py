"""The PROXY protocol: what a header is, who may send one, and who is seen behind it."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.check import FunctionCheck
from smtpfw.client import SMTPClientProtocol
from smtpfw.errors import ConfigError
from smtpfw.policies import AllowedNetworks
from smtpfw.server.proxy import Header, HeaderError, ProxyFactory, ProxyProtocol, read_header
from smtpfw.testing import MemoryClient, RecordingBackend, joined, tls_client, tls_server
from smtpfw.tls import client_context
from smtpfw.wire.config import ClientConfig
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MESSAGE, codes
from tests.server.tls_in_memory import CONTEXT

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

CLIENT, FRONT = IPv4Address("TCP", "203.0.113.9", 56324), IPv4Address("TCP", "198.51.100.1", 25)
CLIENT6, FRONT6 = IPv6Address("TCP", "2001:db8::9", 56324), IPv6Address("TCP", "2001:db8::1", 25)
PROXY = IPv4Address("TCP", "10.0.0.5", 4321)
ELSEWHERE = IPv4Address("TCP", "192.0.2.77", 4321)

V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 25\r\n"
IPV4 = socket.inet_aton("203.0.113.9") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 56324, 25)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 56324, 25)
)
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9")
    + socket.inet_pton(socket.AF_INET6, "::ffff:198.51.100.1")
    + struct.pack("!HH", 56324, 25)
)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/front".ljust(108, b"\0")


def v2(family: int, addresses: bytes, *, command: int = 0x21, more: bytes = b"") -> bytes:
    rest = addresses + more
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


V2 = v2(0x11, IPV4)

#: Octets -> whom they name.
HEADERS = {
    "v1 IPv4": (V1, (CLIENT, FRONT)),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::9 2001:DB8:0::1 56324 25\r\n", (CLIENT6, FRONT6)),
    "v1 mapped": (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 56324 25\r\n", (CLIENT, FRONT)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown, addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "v1 unknown, the longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2 IPv4": (V2, (CLIENT, FRONT)),
    "v2 IPv6": (v2(0x21, IPV6), (CLIENT6, FRONT6)),
    "v2 mapped": (v2(0x21, MAPPED), (CLIENT, FRONT)),
    "v2 with more in it": (v2(0x11, IPV4, more=b"\x03\0\x04\x11\x22\x33\x44"), (CLIENT, FRONT)),
    "v2 the longest": (v2(0x11, IPV4, more=b"\x04\xff\xf0" + b"\0" * 0xFFF0), (CLIENT, FRONT)),
    "v2 local": (v2(0, b"", command=0x20), None),
    "v2 local with addresses": (v2(0x11, IPV4, command=0x20), None),
    "v2 unspecified": (v2(0, b""), None),
    "v2 unspecified, more in it": (v2(0, b"", more=b"\x03\0\x04\x11\x22\x33\x44"), None),
    "v2 unspecified transport": (v2(0x10, IPV4), None),
    "v2 Unix socket": (v2(0x31, UNIX), None),
}

BROKEN = {
    "something else": b"EHLO me\r\n",
    "TLS": b"\x16\x03\x01\x02\x00",
    "a letter": b"Q",
    "no space": b"PROXYTCP4 203.0.113.9 198.51.100.1 56324 25\r\n",
    "small letters": b"proxy TCP4 203.0.113.9 198.51.100.1 56324 25\r\n",
    "v1 too long": b"PROXY UNKNOWN " + b"x" * 94,
    "v1 too long by one": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1 UDP": b"PROXY UDP4 203.0.113.9 198.51.100.1 56324 25\r\n",
    "v1 no port": b"PROXY TCP4 203.0.113.9 198.51.100.1 56324\r\n",
    "v1 one thing more": b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 25 1\r\n",
    "v1 two spaces": b"PROXY TCP4  203.0.113.9 198.51.100.1 56324 25\r\n",
    "v1 a port that is too large": b"PROXY TCP4 203.0.113.9 198.51.100.1 65536 25\r\n",
    "v1 a port with a sign": b"PROXY TCP4 203.0.113.9 198.51.100.1 +5632 25\r\n",
    "v1 a port of other digits": "PROXY TCP4 203.0.113.9 198.51.100.1 ٢٥ 25\r\n".encode(),
    "v1 no address": b"PROXY TCP4 203.0.113 198.51.100.1 56324 25\r\n",
    "v1 a name": b"PROXY TCP4 localhost 198.51.100.1 56324 25\r\n",
    "v1 another family": b"PROXY TCP4 2001:db8::9 2001:db8::1 56324 25\r\n",
    "v1 another family of one": b"PROXY TCP6 2001:db8::9 198.51.100.1 56324 25\r\n",
    "v1 unknown and more": b"PROXY UNKNOWNS\r\n",
    "v1 nothing": b"PROXY \r\n",
    "v2 another version": v2(0x11, IPV4, command=0x11),
    "v2 another command": v2(0x11, IPV4, command=0x22),
    "v2 another family": v2(0x41, IPV4),
    "v2 another transport": v2(0x13, IPV4),
    "v2 UDP": v2(0x12, IPV4),
    "v2 addresses that end too early": v2(0x11, IPV4[:11]),
    "v2 a Unix socket that ends too early": v2(0x31, UNIX[:100]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header(name: str) -> None:
    octets, ends = HEADERS[name]
    expected = Header(ends, len(octets))
    assert read_header(octets) == expected
    assert read_header(octets + V1 + b"\0") == expected
    assert all(read_header(octets[:end]) is None for end in range(len(octets)))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_none(name: str) -> None:
    with pytest.raises(HeaderError):
        read_header(BROKEN[name])


@given(st.binary(max_size=300) | st.builds(bytes.__add__, st.sampled_from([SIGNATURE, b"PROXY "]), st.binary()))
def test_it_never_raises_anything_else(octets: bytes) -> None:
    try:
        header = read_header(octets)
    except HeaderError:
        return
    assert header is None or header.octets <= len(octets)


class ProxyCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        self.told: list[dict[str, Any]] = []

    def make_server(self, *checks: Any, **settings: Any) -> SMTPServerFactory:
        return SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test", **settings),
            checks=checks,
            reactor=self.clock,
            tls=CONTEXT,
            log=Logger("smtpfw.server", observer=self.told.append),
        )

    def connect(self, *checks: Any, peer: Any = PROXY, proxies: Any = "10.0.0.0/8", **settings: Any) -> MemoryClient:
        self.server = self.make_server(*checks, **settings)
        return MemoryClient.of(ProxyFactory(self.server, proxies), peer)

    def logged(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["event"] == name]


class Headers(ProxyCase):
    def test_the_client_is_who_is_named(self) -> None:
        for name, (octets, ends) in HEADERS.items():
            client = self.connect()
            self.assertEqual(client.received(), b"", name)
            self.assertEqual(self.backend.sessions, [], name)
            self.assertTrue(client.send(octets).startswith(b"220 "), name)
            connection = self.backend.sessions.pop().connection
            host = client.transport.getHost()
            peer, local, proxy = (*ends, PROXY) if ends else (PROXY, host, None)
            self.assertEqual((connection.peer, connection.local, connection.proxy), (peer, local, proxy), name)
            self.assertEqual(connection.peer_host, peer.host)
            self.assertEqual(connection.state.peer, peer)
            self.assertEqual(client.send(b"QUIT\r\n"), b"221 2.0.0 Closing transmission channel\r\n")

    def test_in_any_fragments_with_commands_behind_it(self) -> None:
        whole = V1 + ENVELOPE + DATA + MESSAGE + DOT
        for octets in (whole, V2 + whole[len(V1) :]):
            for size in (1, 2, 7, len(V1), len(V1) + 1, len(octets)):
                self.backend = RecordingBackend()
                client = self.connect()
                said = b"".join(client.send(octets[at : at + size]) for at in range(0, len(octets), size))
                self.assertEqual(codes(said), [b"220", b"250", b"250", b"250", b"354", b"250"])
                self.assertEqual(self.backend.messages[0].body, MESSAGE)
                self.assertEqual(self.backend.sessions[0].connection.peer, CLIENT)

    def test_what_is_none_is_closed_without_a_word(self) -> None:
        for name, octets in BROKEN.items():
            client = self.connect()
            self.assertEqual(client.send(octets), b"", name)
            self.assertTrue(client.transport.aborted, name)
            self.assertEqual(client.send(V1), b"")
            self.assertEqual([event["peer"] for event in self.logged("proxy_failed")], ["10.0.0.5:4321"], name)
            self.assertEqual((self.backend.sessions, self.server.arriving), ([], set()))
            self.told.clear()

    def test_none_in_time(self) -> None:
        client = self.connect(proxy_timeout=7.0)
        client.send(V1[:-1])
        self.clock.advance(6.9)
        self.assertFalse(client.closed)
        self.clock.advance(0.2)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.received(), b"")
        (event,) = self.logged("proxy_failed")
        self.assertEqual(
            (event["peer"], event["reason"]), ("10.0.0.5:4321", "none has come in time; does it send one?")
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_in_time_leaves_no_clock_behind(self) -> None:
        client = self.connect(greeting_timeout=0, command_timeout=0)
        client.send(V1)
        self.clock.advance(60)
        self.assertFalse(client.closed)
        client.send(b"QUIT\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_there_is_no_limit_of_time_if_it_is_0(self) -> None:
        client = self.connect(proxy_timeout=0)
        self.clock.advance(1e6)
        self.assertTrue(client.send(V1).startswith(b"220 "))

    def test_who_goes_before_it_is_forgotten(self) -> None:
        client = self.connect()
        client.send(V1[:9])
        client.disconnect()
        self.assertEqual((self.server.arriving, self.clock.getDelayedCalls(), self.told), (set(), [], []))

    def test_it_is_no_command_later_on(self) -> None:
        client = self.connect()
        client.send(V1)
        self.assertEqual(client.send(V1), b"500 5.5.1 Command not recognized\r\n")
        self.assertEqual(self.backend.sessions[0].connection.peer, CLIENT)
        self.assertEqual(client.send(SIGNATURE)[:4], b"500 ")

    def test_a_greeting_that_waits_for_a_check(self) -> None:
        waiting: Deferred[None] = Deferred()
        client = self.connect(FunctionCheck(connect=lambda connection: waiting))
        self.assertEqual(client.send(V1 + HELLO), b"")
        waiting.callback(None)
        self.assertEqual(codes(client.received()), [b"220", b"250"])


class Networks(ProxyCase):
    def test_from_elsewhere_it_is_a_mistake(self) -> None:
        client = self.connect(peer=ELSEWHERE)
        self.assertTrue(client.received().startswith(b"220 "))
        self.assertEqual(client.send(V1), b"500 5.5.1 Command not recognized\r\n")
        connection = self.backend.sessions[0].connection
        self.assertEqual((connection.peer, connection.proxy), (ELSEWHERE, None))

    def test_a_binary_one_from_elsewhere(self) -> None:
        client = self.connect(peer=ELSEWHERE)
        self.assertEqual(codes(client.send(V2))[:2], [b"220", b"500"])
        self.assertEqual(self.backend.sessions[0].connection.peer, ELSEWHERE)

    def test_before_tls_from_elsewhere(self) -> None:
        server = self.make_server()
        factory = ProxyFactory(server, "10.0.0.5", tls_server(server, CONTEXT))
        for header in (V1, V2):
            client = SMTPClientProtocol(ClientConfig(), clock=self.clock)
            link = joined(_Preceded(client, header), factory, client_address=ELSEWHERE)
            self.assertTrue(link.server_transport.closed)
            self.assertEqual(self.backend.sessions, [])
            (event,) = self.logged("handshake_failed")
            self.assertEqual(event["peer"], "192.0.2.77:4321")
            self.told.clear()

    def test_families_and_sockets(self) -> None:
        mapped = IPv6Address("TCP", "::ffff:10.0.0.5", 4321)
        for peer, proxies, name in (
            (mapped, "10.0.0.5", "10.0.0.5:4321"),
            (IPv6Address("TCP", "2001:db8::5", 4321), ["192.0.2.0/24", "2001:db8::5"], "[2001:db8::5]:4321"),
            (UNIXAddress(b""), "unix", "unix"),
        ):
            client = self.connect(peer=peer, proxies=proxies)
            client.send(V1)
            self.assertEqual(self.backend.sessions.pop().connection.proxy, peer)
            self.assertEqual(self.logged("connected")[-1]["proxy"], name)

    def test_a_unix_socket_is_of_no_network(self) -> None:
        self.assertTrue(self.connect(peer=UNIXAddress(b"")).received().startswith(b"220 "))

    def test_settings_that_make_no_sense(self) -> None:
        server = self.make_server()
        for networks, words in (
            ([], "no network"),
            ("10.0.0.1/8", "could be the network"),
            (["0.0.0.0/1", "128.0.0.0/1"], "everybody"),
            ("::/0", "everybody"),
            ("proxy.test", "no network"),
        ):
            error = self.assertRaises(ConfigError, ProxyFactory, server, networks)
            self.assertIn(words, str(error))
            self.assertTrue(str(error).startswith("proxy: "))


class Seen(ProxyCase):
    """Checks, limits and the log see the client."""

    def test_by_checks(self) -> None:
        for network, code in (("203.0.113.0/24", b"220"), ("10.0.0.0/8", b"554")):
            client = self.connect(AllowedNetworks(network))
            self.assertEqual(codes(client.send(V1)), [code])

    def test_by_limits(self) -> None:
        server = self.make_server(max_connections_per_address=1)
        factory = ProxyFactory(server, "10.0.0.5")
        first = MemoryClient.of(factory, PROXY)
        self.assertEqual(codes(first.send(V1)), [b"220"])
        self.assertEqual(codes(MemoryClient.of(factory, PROXY).send(V1)), [b"421"])
        other = V1.replace(b"203.0.113.9", b"203.0.113.8")
        self.assertEqual(codes(MemoryClient.of(factory, PROXY).send(other)), [b"220"])
        first.send(b"QUIT\r\n")
        self.assertEqual(codes(MemoryClient.of(factory, PROXY).send(V1)), [b"220"])

    def test_by_the_log(self) -> None:
        client = self.connect()
        client.send(V1 + ENVELOPE + DATA + MESSAGE + DOT)
        client.send(b"QUIT\r\n")
        (connected,) = self.logged("connected")
        self.assertEqual((connected["peer"], connected["proxy"]), ("203.0.113.9:56324", "10.0.0.5:4321"))
        self.assertTrue(connected["log_format"].endswith("connected from {peer} by way of {proxy}"))
        self.assertEqual({event["peer"] for event in self.told}, {"203.0.113.9:56324"})

    def test_by_the_transcript(self) -> None:
        lines: list[str] = []
        server = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test"),
            reactor=self.clock,
            transcripts=lambda id, host: lines.append(host) or lines.append,  # type: ignore[func-returns-value]
        )
        MemoryClient.of(ProxyFactory(server, "10.0.0.5"), PROXY).send(V1)
        self.assertEqual(lines[:2], ["203.0.113.9", "-- connected from 203.0.113.9:56324"])


class Handing(ProxyCase):
    def joined(self, factory: Any, client: Any, chunk: int | None = None) -> Any:
        link = joined(client, factory, client_address=PROXY, chunk=chunk)
        self.addCleanup(link.client_transport.abortConnection)
        return link

    def send(self, client: SMTPClientProtocol, link: Any) -> None:
        result = link.run(client.send_mail("a@b.test", ["c@d.test"], MESSAGE))
        self.assertEqual(result.text, "Message accepted")
        connection = self.backend.sessions[-1].connection
        self.assertEqual((connection.peer, connection.local), (CLIENT, FRONT))
        self.assertEqual(self.backend.messages[-1].body, MESSAGE)

    def client(self) -> SMTPClientProtocol:
        return SMTPClientProtocol(ClientConfig(hello_name="me.test"), clock=self.clock)

    def test_starttls_behind_it(self) -> None:
        for header in (V1, V2):
            for chunk in (None, 1):
                client = self.client()
                # What goes out first is the proxy's.
                link = self.joined(ProxyFactory(self.make_server(), "10.0.0.5"), _Preceded(client, header), chunk)
                link.run(client.hello())
                link.run(client.start_tls(client_context("mx.test", verify=False)))
                self.send(client, link)
                self.assertTrue(self.backend.sessions[-1].connection.tls)

    def test_implicit_tls_behind_it(self) -> None:
        for header in (V1, V2):
            for chunk in (None, 1):
                server, client = self.make_server(), self.client()
                factory = ProxyFactory(server, "10.0.0.5", tls_server(server, CONTEXT))
                outer = tls_client(client, client_context("mx.test", verify=False))
                link = self.joined(factory, _Preceded(outer, header), chunk)
                self.send(client, link)
                self.assertTrue(self.backend.sessions[-1].connection.tls)

    def test_nothing_may_be_wrapped_around_it(self) -> None:
        outer = WrappingFactory(ProxyFactory(self.make_server(), "10.0.0.5"))
        outer.protocol = ProtocolWrapper
        client = MemoryClient.of(outer, PROXY)
        self.assertTrue(client.transport.aborted)
        (event,) = self.logged("proxy_failed")
        self.assertIn("outermost", event["reason"])

    def test_a_factory_that_refuses(self) -> None:
        class Nobody(Factory):
            def buildProtocol(self, addr: Any) -> Protocol | None:
                return None

        client = MemoryClient.of(ProxyFactory(self.make_server(), "10.0.0.5", Nobody()), PROXY)
        client.send(V1)
        self.assertTrue(client.closed)

    def test_other_factories_are_started_and_stopped(self) -> None:
        inner = Factory()
        factory = ProxyFactory(self.make_server(), "10.0.0.5", inner)
        factory.doStart()
        self.assertEqual(inner.numPorts, 1)
        factory.doStop()
        self.assertEqual((inner.numPorts, factory.numPorts), (0, 0))


class _Preceded(Protocol):
    """A client's protocol behind a proxy: a header goes out before anything of its own."""

    def __init__(self, client: Any, header: bytes) -> None:
        self._client = client
        self._header = header

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._header)
        transport.protocol = self._client
        self._client.makeConnection(transport)


class Stopping(ProxyCase):
    def test_who_has_not_said_yet_is_not_waited_for(self) -> None:
        client = self.connect()
        stopped: list[Any] = []
        self.server.stop(30).addCallback(stopped.append)
        self.assertTrue(client.transport.aborted)
        self.assertEqual((stopped, self.logged("proxy_failed")), ([None], []))

    def test_a_server_that_retires_serves_them(self) -> None:
        client = self.connect()
        self.assertIsInstance(client.protocol, ProxyProtocol)
        empty: list[Any] = []
        self.server.when_empty().addCallback(empty.append)
        client.send(V1)
        self.assertEqual(empty, [])
        client.send(b"QUIT\r\n")
        self.assertEqual(empty, [None])
