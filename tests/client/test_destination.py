"""Where a client connects to: the strings, what Twisted makes of them, what is refused; and the client's own name."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from smtpfw.client import destination, own_name
from smtpfw.client.destination import Destination
from smtpfw.client.own_name import hello_name

#: What is written, and what it is: text, name, protocol, implicit TLS, local.
FORMS = [
    ("mx.example.org", "mx.example.org:25", "mx.example.org", "smtp", False, False),
    ("mx.example.org:587", "mx.example.org:587", "mx.example.org", "smtp", False, False),
    ("MX.Example.ORG.:0587", "mx.example.org:587", "mx.example.org", "smtp", False, False),
    ("mail_relay:2525", "mail_relay:2525", "mail_relay", "smtp", False, False),
    ("1and1.example:65535", "1and1.example:65535", "1and1.example", "smtp", False, False),
    ("bücher.example", "xn--bcher-kva.example:25", "xn--bcher-kva.example", "smtp", False, False),
    ("BÜCHER\u3002example", "xn--bcher-kva.example:25", "xn--bcher-kva.example", "smtp", False, False),
    ("xn--bcher-kva.example", "xn--bcher-kva.example:25", "xn--bcher-kva.example", "smtp", False, False),
    ("faß.example", "xn--fa-hia.example:25", "xn--fa-hia.example", "smtp", False, False),
    ("localhost:2525", "localhost:2525", "localhost", "smtp", False, True),
    ("localhost.example.org", "localhost.example.org:25", "localhost.example.org", "smtp", False, False),
    ("192.0.2.1", "192.0.2.1:25", "192.0.2.1", "smtp", False, False),
    ("[192.0.2.1]:26", "192.0.2.1:26", "192.0.2.1", "smtp", False, False),
    ("127.8.8.8:26", "127.8.8.8:26", "127.8.8.8", "smtp", False, True),
    ("2001:db8::1", "[2001:db8::1]:25", "2001:db8::1", "smtp", False, False),
    ("2001:DB8:0::1:25", "[2001:db8::1:25]:25", "2001:db8::1:25", "smtp", False, False),
    ("[2001:db8::1]:26", "[2001:db8::1]:26", "2001:db8::1", "smtp", False, False),
    ("[IPv6:2001:db8::1]", "[2001:db8::1]:25", "2001:db8::1", "smtp", False, False),
    ("[::1]", "[::1]:25", "::1", "smtp", False, True),
    ("fe80::1%eth0", "[fe80::1%eth0]:25", "fe80::1", "smtp", False, False),
    ("tcp:mx.example.org", "mx.example.org:25", "mx.example.org", "smtp", False, False),
    ("TCP:port=26:mx.example.org", "mx.example.org:26", "mx.example.org", "smtp", False, False),
    ("tcp:[2001:db8::1]:26", "[2001:db8::1]:26", "2001:db8::1", "smtp", False, False),
    (r"tcp:2001\:db8\:\:1:26", "[2001:db8::1]:26", "2001:db8::1", "smtp", False, False),
    (r"tcp:host=[2001\:db8\:\:1]:port=26", "[2001:db8::1]:26", "2001:db8::1", "smtp", False, False),
    ("tcp:m:25:bindAddress=192.0.2.9", "tcp:m:25:bindAddress=192.0.2.9", "m", "smtp", False, False),
    (r"tcp:m:bindAddress=2001\:db8\:\:9", "tcp6:m:25:bindAddress=[2001:db8::9]", "m", "smtp", False, False),
    ("tcp:[::1]:25:bindAddress=[::1]", "tcp:[::1]:25:bindAddress=[::1]", "::1", "smtp", False, True),
    ("tcp6:mx.example.org:26", "tcp6:mx.example.org:26", "mx.example.org", "smtp", False, False),
    ("tcp6:[2001:db8::1]:26", "[2001:db8::1]:26", "2001:db8::1", "smtp", False, False),
    ("tcp:unix:26", "tcp:unix:26", "unix", "smtp", False, False),
    ("smtps", "tcp:smtps:25", "smtps", "smtp", False, False),
    ("smtps:mx.example.org", "smtps:mx.example.org:465", "mx.example.org", "smtp", True, False),
    ("SMTPS:[2001:db8::1]:466", "smtps:[2001:db8::1]:466", "2001:db8::1", "smtp", True, False),
    ("smtps:tcp:mx.example.org", "smtps:mx.example.org:465", "mx.example.org", "smtp", True, False),
    ("unix:/run/x", "unix:/run/x", "", "smtp", False, True),
    (r"unix:path=/run/a\:b\=c \\d", r"unix:/run/a\:b\=c \\d", "", "smtp", False, True),
    ("lmtp:unix:/run/x", "lmtp:unix:/run/x", "", "lmtp", False, True),
    ("LMTP:tcp:localhost:24", "lmtp:localhost:24", "localhost", "lmtp", False, True),
    ("lmtp:mx.example.org", "lmtp:mx.example.org:24", "mx.example.org", "lmtp", False, False),
    ("lmtp:2001:db8::1", "lmtp:[2001:db8::1]:24", "2001:db8::1", "lmtp", False, False),
    ("lmtp:smtps:mx.example.org", "lmtp:smtps:mx.example.org:24", "mx.example.org", "lmtp", True, False),
    ("smtps:unix:/run/x", "smtps:unix:/run/x", "", "smtp", True, True),
    ("TLS:MX.example.org:465", "tls:MX.example.org:465", "mx.example.org", "smtp", False, False),
    ("tls:localhost:465:30:trustRoots=/a b", "tls:localhost:465:30:trustRoots=/a b", "localhost", "smtp", False, False),
    ("ssl:192.0.2.1:465:hostname=mx.org", "ssl:192.0.2.1:465:hostname=mx.org", "mx.org", "smtp", False, False),
    ("lmtp:ssl:host=mx.org:port=24", "lmtp:ssl:host=mx.org:port=24", "mx.org", "lmtp", False, False),
]

LONG_LABEL = "a" * 63
PATH = "/" + "p" * (destination._MAX_PATH - 1)

#: What is refused, and a part of the reason.
REFUSED = [
    ("", "the host is missing"),
    (":25", "the host is missing"),
    ("tcp:", "the host is missing"),
    ("tcp::25", "the host is missing"),
    ("smtps:", "the host is missing"),
    ("lmtp:smtps:", "the host is missing"),
    ("tls::465", "the host is missing"),
    ("25", "is no host"),
    ("tcp:25", "is no host"),
    ("mx:", "the port is missing; ports are 1 to 65535"),
    ("[::1]:", "the port is missing"),
    ("tls:mx", "the port is missing"),
    ("mx:0", "no port 0; ports are 1 to 65535"),
    ("mx:65536", "no port 65536"),
    ("tls:mx:65536", "no port 65536"),
    ("mx:" + "9" * 5000, "no number"),
    ("mx:-25", "the port is '-25', no number"),
    ("mx:smtp", "the port is 'smtp', no number"),
    ("mx:+25", "no number"),
    ("mx:\u0662\u0665", "no number"),
    ("tcp:mx:x", "no number"),
    ("mx.example.org :25", "a space in the host"),
    (" mx.example.org", "a space in the host"),
    ("mx.example.org: 25", "the port is ' 25', no number"),
    ("mx.example.org\n:25", "a character that can't be seen"),
    ("mx.example.org\0", "a character that can't be seen"),
    ("mx\x7f", "a character that can't be seen"),
    ("mx\u2028.org", "a character that can't be seen"),
    ("mx\u202e.org", "a character that can't be seen"),
    ("mx\u00a0.org", "a character that can't be seen"),
    ("mx\ud800", "a character that can't be seen"),
    ("unix:/run/x\r\n", "a character that can't be seen"),
    ("user@mx", "is no host"),
    ("-mx", "is no host"),
    ("mx-.org", "is no host"),
    ("mx..org", "is no host"),
    (".", "is no host"),
    ("mx.org..", "is no host"),
    (LONG_LABEL + "a", "is no host"),
    (".".join([LONG_LABEL] * 4), "is no host"),
    ("ü" * 100_000, "is no host"),
    ("ü_.org", "is no host"),
    ("127.1", "is no host"),
    ("192.0.2.256", "is no host"),
    ("0x7f.0.0.1", "is no host"),
    ("0x7f000001", "is no host"),
    ("2130706433", "is no host"),
    ("mx.0x", "is no host"),
    ("\uff11.2.3.4", "is no host"),
    ("[mx]:25", "no IP address in the brackets"),
    ("[]", "no IP address in the brackets"),
    ("[192.0.2.1%eth0]", "no IP address in the brackets"),
    ("[::1", "no IPv6 address"),
    ("[::1]25", "no IPv6 address"),
    ("2001:db8::1::2", "no IPv6 address"),
    ("fe80::1%a:b", "no IPv6 address"),
    ("mx:25:26", "no IPv6 address"),
    ("onion:x:25", "begins with no type of destination"),
    ("::", "not the address of a host"),
    ("0.0.0.0:25", "not the address of a host"),
    ("224.0.0.1", "not the address of a host"),
    ("[ff02::1]:25", "not the address of a host"),
    ("::ffff:192.0.2.1", "write 192.0.2.1"),
    ("smtp://mx.example.org", "no URL"),
    ("smtps://mx.example.org:465", "no URL"),
    ("unix:", "the path is missing"),
    ("unix:/a:b", r"colons within one take a backslash"),
    ("unix:/a=b", r"an equals sign itself is \\="),
    ("unix:/a:path=/b", "too many arguments"),
    ("unix:/a:timeout=9", "no argument timeout="),
    ("unix:/a\\", "quotes nothing"),
    ("unix:" + PATH + "p", "octets at most"),
    ("unix:" + PATH[:-1] + "ü", "octets at most"),
    ("tcp:mx:25:26", "too many arguments"),
    ("tcp:mx:25:bindaddress=192.0.2.9", "no argument bindaddress="),
    ("tcp:mx:25:bindAddress=eth0", "an address of this machine"),
    ("tcp:mx:25:bindAddress=", "an address of this machine"),
    ("tcp:mx:port=25:port=26", "port= is given twice"),
    ("tcp:192.0.2.1:25:bindAddress=[::1]", "IPv4 and IPv6 don't meet"),
    ("tcp:[::1]:25:bindAddress=127.0.0.1", "IPv4 and IPv6 don't meet"),
    ("tcp6:mx:25:bindAddress=127.0.0.1", "IPv4 and IPv6 don't meet"),
    ("tcp6:127.0.0.1", "IPv4 and IPv6 don't meet"),
    ("smtps:tls:mx:465", "TLS within TLS"),
    ("smtps:ssl:mx:465", "TLS within TLS"),
    ("smtps:lmtp:mx", "lmtp: stands before smtps:"),
    ("lmtp:lmtp:mx", "lmtp: stands before smtps:"),
    ("smtps:smtps:mx", "lmtp: stands before smtps:"),
    ("lmtp:mx:25", "RFC 2033"),
    ("lmtp:tcp:[::1]:25", "RFC 2033"),
]


@pytest.mark.parametrize(("where", "text", "name", "protocol", "implicit_tls", "is_local"), FORMS)
def test_forms(where: str, text: str, name: str, protocol: str, implicit_tls: bool, is_local: bool) -> None:
    found = Destination.parse(where)
    assert (found.text, found.name, found.protocol) == (text, name, protocol)
    assert (found.implicit_tls, found.is_local) == (implicit_tls, is_local)
    assert str(found) == text


@pytest.mark.parametrize(("where", "reason"), REFUSED)
def test_refused(where: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Destination.parse(where)
    message = str(caught.value)
    # It may go to a log: one line, none that is as long as an attacker likes.
    assert message.isprintable() and message.isascii() and len(message) < 1000
    assert message.startswith(f"{where[:80]!a}: ")


@pytest.mark.parametrize("where", [*(form[0] for form in FORMS), "unix:" + PATH])
def test_the_text_gives_the_same_again(where: str) -> None:
    found = Destination.parse(where)
    again = Destination.parse(found.text, default_port=1)
    assert again == found and hash(again) == hash(found) and again.text == found.text


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("mx", "mx:587"),
        ("::1", "[::1]:587"),
        ("tcp:mx", "mx:587"),
        ("tcp6:mx", "tcp6:mx:587"),
        ("mx:25", "mx:25"),
        ("smtps:mx", "smtps:mx:465"),
        ("lmtp:mx", "lmtp:mx:24"),
    ],
)
def test_default_port(where: str, text: str) -> None:
    assert Destination.parse(where, default_port=587).text == text


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_default_port_that_is_none(port: int) -> None:
    with pytest.raises(ValueError, match=f"no port {port}"):
        Destination.parse("mx", default_port=port)


def test_it_is_a_key() -> None:
    same = ["mx.example.org", "MX.example.org.:25", "tcp:mx.example.org", "tcp:host=mx.example.org:port=25"]
    others = ["mx.example.org:26", "smtps:mx.example.org:25", "lmtp:mx.example.org:26", "tcp6:mx.example.org:25"]
    others += ["tcp:mx.example.org:25:bindAddress=192.0.2.9", "unix:mx.example.org", "mx.example.com"]
    assert len({Destination.parse(where) for where in same}) == 1
    assert len({Destination.parse(where) for where in (*same, *others)}) == 1 + len(others)


def test_it_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Destination.parse("mx").name = "localhost"  # type: ignore[misc]


WORDS = ["lmtp:", "smtps:", "tcp:", "tcp6:", "unix:", "tls:", "ssl:", ":", "=", "\\", "[", "]", "25", "0", "mx", ".org"]
WORDS += ["192.0.2.1", "2001:db8::1", "::1", "%", "eth0", "bindAddress=", "host=", "port=", "path=", "ü", "/run", " "]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=10).map("".join)))
@example("[::1]]:25")
@example("tcp:[:\\]:25")
@example("tcp:[2001\\\\:db8]:25")
@example("unix:\\\\\\:")
def test_anything_is_a_destination_or_a_value_error(where: str) -> None:
    try:
        found = Destination.parse(where)
    except ValueError:
        return
    assert found.text.isprintable()
    assert Destination.parse(found.text) == found
    if not found.text.removeprefix("lmtp:").removeprefix("smtps:").startswith(("unix:", "tls:", "ssl:")):
        assert found.text.isascii() and " " not in found.text


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20))
def test_any_path(path: str) -> None:
    quoted = path.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
    reactor = Reactor()
    connect(Destination.parse(f"unix:{quoted}"), reactor)
    assert reactor.unixClients[0][0] == path


def test_the_longest_path_is_what_the_system_takes() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        with pytest.raises(OSError, match="too long"):
            one.connect(PATH + "p")
        with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
            one.connect(PATH)


@implementer(IHostnameResolver)
class Resolver:
    """Has one address of each family for every name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[Any]] | None = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(None)
        resolutionReceiver.addressResolved(IPv6Address("TCP", "2001:db8::1", portNumber))
        resolutionReceiver.addressResolved(IPv4Address("TCP", "192.0.2.1", portNumber))
        resolutionReceiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class Reactor(MemoryReactorClock):
    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()

    def installNameResolver(self, resolver: Any) -> Any:
        raise NotImplementedError


def connect(where: Destination, reactor: Reactor) -> Any:
    """Make the endpoint and let it try all that it has."""
    endpoint = where.endpoint(reactor, 7)
    endpoint.connect(Factory.forProtocol(Protocol))
    reactor.advance(1)
    return endpoint


V6, V4 = "2001:db8::1", "192.0.2.1"


@pytest.mark.parametrize(
    ("where", "kind", "asked", "tried", "bind_address"),
    [
        ("mx.example.org:26", HostnameEndpoint, ["mx.example.org"], [V6, V4], None),
        ("smtps:tcp:mx.example.org:26", HostnameEndpoint, ["mx.example.org"], [V6, V4], None),
        ("lmtp:faß.example:26", HostnameEndpoint, ["xn--fa-hia.example"], [V6, V4], None),
        ("tcp:mx:26:bindAddress=192.0.2.9", HostnameEndpoint, ["mx"], [V6, V4], ("192.0.2.9", 0)),
        ("192.0.2.7:26", TCP4ClientEndpoint, [], ["192.0.2.7"], None),
        ("tcp:192.0.2.7:26:bindAddress=0.0.0.0", TCP4ClientEndpoint, [], ["192.0.2.7"], ("0.0.0.0", 0)),
        ("[2001:db8::7]:26", TCP6ClientEndpoint, [], ["2001:db8::7"], None),
        ("[fe80::7%eth0]:26", TCP6ClientEndpoint, [], ["fe80::7%eth0"], None),
        ("tcp:[::1]:26:bindAddress=[::1]", TCP6ClientEndpoint, [], ["::1"], ("::1", 0)),
        # What HostnameEndpoint refuses: the reactor looks it up.
        ("mail_relay:26", TCP4ClientEndpoint, [], ["mail_relay"], None),
        ("ab--cd.example:26", TCP4ClientEndpoint, [], ["ab--cd.example"], None),
        ("xn--ls8h.example:26", TCP4ClientEndpoint, [], ["xn--ls8h.example"], None),
    ],
)
def test_endpoints(
    where: str, kind: type[Any], asked: list[str], tried: list[str], bind_address: tuple[str, int] | None
) -> None:
    reactor = Reactor()
    endpoint = connect(Destination.parse(where), reactor)
    assert type(endpoint) is kind
    assert reactor.nameResolver.asked == asked
    attempts = [(host, port, timeout, bound) for host, port, _, timeout, bound in reactor.tcpClients]
    assert attempts == [(host, 26, 7, bind_address) for host in tried]


@pytest.mark.parametrize("where", ["tcp6:mx:26", "tcp6:mail_relay", "tcp:mx:26:bindAddress=[::1]"])
def test_ipv6_alone(where: str) -> None:
    # It looks the name up in a thread as soon as it connects.
    assert type(Destination.parse(where).endpoint(Reactor(), 7)) is TCP6ClientEndpoint


def test_a_unix_socket() -> None:
    reactor = Reactor()
    endpoint = connect(Destination.parse(r"lmtp:unix:/run/a\:b"), reactor)
    assert type(endpoint) is UNIXClientEndpoint
    ((path, _, timeout, check_pid),) = reactor.unixClients
    assert (path, timeout, bool(check_pid)) == ("/run/a:b", 7, False)


def test_strings_of_twisted() -> None:
    reactor = Reactor()
    connect(Destination.parse("tls:mx.example.org:465"), reactor)
    assert reactor.nameResolver.asked == ["mx.example.org"]
    assert [client[:2] for client in reactor.tcpClients] == [(V6, 465), (V4, 465)]
    connect(Destination.parse("ssl:192.0.2.7:465"), reactor)
    assert reactor.sslClients[0][:2] == ("192.0.2.7", 465)


@pytest.mark.parametrize("where", ["tls:mx:465:bind=192.0.2.9", "ssl:mx:465:certKey=/nothing/here"])
def test_strings_that_twisted_does_not_take(where: str) -> None:
    found = Destination.parse(where)
    with pytest.raises(ValueError, match="Twisted does not take these arguments") as caught:
        found.endpoint(Reactor(), 7)
    assert str(caught.value).startswith(repr(where))


class Plugin:
    """A client endpoint that somebody has installed."""

    prefix = "onion"
    endpoint: Any = None

    @classmethod
    def parseStreamClient(cls, reactor: Any, *arguments: str, **named: str) -> Any:
        return (arguments, named)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    with (
        patch.object(destination, "getPlugins", lambda interface: [Plugin]),
        patch.object(endpoints, "getPlugins", lambda interface: [Plugin]),
    ):
        yield


def test_plugins_of_twisted() -> None:
    with installed():
        found = Destination.parse("lmtp:smtps:Onion:abc:26:a=b")
        assert (found.text, found.name, found.is_local) == ("lmtp:smtps:Onion:abc:26:a=b", "", False)
        assert found.endpoint(Reactor(), 7) == (("abc", "26"), {"a": "b"})
        assert Destination.parse("onion:abc").endpoint(Reactor(), 7) == (("abc",), {})
        # A host may have that name.
        assert Destination.parse("onion:26").name == "onion"


@implementer(IStreamClientEndpoint)
class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    def connect(self, protocolFactory: Any) -> Any:
        raise NotImplementedError


def test_an_endpoint_that_is_there() -> None:
    one, other = Unhashable(), Unhashable()
    found = Destination.of(one)
    assert found.endpoint(Reactor(), 7) is one
    assert (found.text, found.name, found.protocol) == ("Unhashable", "", "smtp")
    assert (found.implicit_tls, found.is_local) == (False, False)
    assert found == Destination.of(one) and hash(found) == hash(Destination.of(one))
    assert found != Destination.of(other) and found != Destination.of(one, protocol="lmtp")
    assert Destination.of(one, protocol="lmtp").protocol == "lmtp"


def test_the_text_of_an_endpoint() -> None:
    reactor = Reactor()
    assert (
        Destination.of(HostnameEndpoint(reactor, "mx.example.org", 25)).text == "<HostnameEndpoint mx.example.org:25>"
    )
    assert Destination.of(TCP4ClientEndpoint(reactor, "192.0.2.1", 25)).text == "TCP4ClientEndpoint"
    assert Destination.of(UNIXClientEndpoint(reactor, "/run/x")).is_local


@pytest.mark.parametrize("where", ["mx.example.org", b"mx.example.org", None, ("mx.example.org", 25)])
def test_what_is_no_endpoint(where: Any) -> None:
    with pytest.raises(TypeError, match=f"or an IStreamClientEndpoint, not of the class {type(where).__name__}"):
        Destination.of(where)


def test_a_protocol_that_is_none() -> None:
    with pytest.raises(ValueError, match="'esmtp' is neither smtp nor lmtp"):
        Destination.of(Unhashable(), protocol="esmtp")


def test_without_the_package_idna() -> None:
    with patch.dict(sys.modules, {"idna": None}):
        assert Destination.parse("BÜCHER.example").name == "xn--bcher-kva.example"
        # Twisted does the same without it, and takes underscores then.
        reactor = Reactor()
        assert type(connect(Destination.parse("mail_relay"), reactor)) is HostnameEndpoint
        assert reactor.nameResolver.asked == ["mail_relay"]


class Machine:
    """What a machine knows of itself; asking DNS is an error."""

    def __init__(self, patching: pytest.MonkeyPatch, folder: Path) -> None:
        self._patching = patching
        self._hosts = folder / "hosts"
        self.asked = 0

        def ask(*arguments: Any) -> Any:
            raise AssertionError("that asks DNS")

        for name in ("getfqdn", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getaddrinfo", "getnameinfo"):
            patching.setattr(socket, name, ask)
        patching.setattr(own_name, "_HOSTS", self._hosts)

    def is_called(self, name: str, hosts: str | bytes | None = None) -> None:
        def answer() -> str:
            self.asked += 1
            return name

        self._patching.setattr(socket, "gethostname", answer)
        if hosts is not None:
            self._hosts.write_bytes(hosts.encode() if isinstance(hosts, str) else hosts)
        own_name.full_name.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    yield Machine(monkeypatch, tmp_path)
    own_name.full_name.cache_clear()


@pytest.mark.parametrize(
    ("name", "hosts", "expected"),
    [
        ("mx.example.org", None, "mx.example.org"),
        ("MX.Example.org", "127.0.0.1 localhost\n", "MX.Example.org"),
        ("mx", "127.0.0.1 localhost\n127.0.1.1 mx.example.org mx\n", "mx.example.org"),
        ("mx", "127.0.1.1\tmx mx.example.org # MX\n", "mx.example.org"),
        ("MX", "::1 localhost mx.example.org mx\n", "mx.example.org"),
        ("mx", "192.0.2.1 mx\n192.0.2.1 mx.example.org mx\n", "mx.example.org"),
        ("mx", b"192.0.2.1 \xff\n\n192.0.2.1 mx.example.org mx", "mx.example.org"),
    ],
)
def test_the_full_name(machine: Machine, name: str, hosts: str | bytes | None, expected: str) -> None:
    machine.is_called(name, hosts)
    assert hello_name() == hello_name("192.0.2.1") == expected


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("mx", None),
        ("mx", ""),
        ("mx", "127.0.0.1 localhost mx\n"),
        ("mx", "# 192.0.2.1 mx.example.org mx\n"),
        ("mx", "192.0.2.1 mxx.example.org mxx\n"),
        ("mx", "192.0.2.1 other.example.org # mx\n"),
        ("localhost", "127.0.0.1 localhost.localdomain localhost\n::1 localhost\n"),
        ("localhost.localdomain", None),
        ("LOCALHOST.example.org", None),
        ("mx.localdomain", None),
        ("mx.localhost", None),
        ("192.0.2.1", "192.0.2.1 mx.example.org mx\n"),
        ("mx_1.example.org", None),
        ("mx.example.org\r\nQUIT", None),
        ("mx..org", None),
        ("ü.example.org", None),
        ("a." * 127 + "org", None),
        ("", None),
    ],
)
def test_no_full_name(machine: Machine, name: str, hosts: str | None) -> None:
    machine.is_called(name, hosts)
    assert hello_name("192.0.2.1") == "[192.0.2.1]"


@pytest.mark.parametrize(
    ("local_host", "literal"),
    [
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:DB8::1", "[IPv6:2001:db8::1]"),
        ("fe80::1%eth0", "[IPv6:fe80::1]"),
        ("::ffff:192.0.2.1", "[192.0.2.1]"),
        ("::1", "[IPv6:::1]"),
        ("", "[127.0.0.1]"),
        ("0.0.0.0", "[127.0.0.1]"),
        ("::", "[127.0.0.1]"),
        ("/run/x", "[127.0.0.1]"),
        ("mx.example.org", "[127.0.0.1]"),
    ],
)
def test_address_literals(machine: Machine, local_host: str, literal: str) -> None:
    machine.is_called("mx")
    assert hello_name(local_host) == literal


def test_the_name_is_looked_for_once(machine: Machine) -> None:
    machine.is_called("mx")
    assert [hello_name("192.0.2.1"), hello_name("192.0.2.2"), hello_name()] == [
        "[192.0.2.1]",
        "[192.0.2.2]",
        "[127.0.0.1]",
    ]
    assert machine.asked == 1
