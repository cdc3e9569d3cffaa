"""By MX: a resolver and a network in memory, and a server that passes mail on to whoever DNS names."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IReactorTCP
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw.backends.relay import RelayBackend
from smtpfw.backends.relay.exchangers import is_public
from smtpfw.dns.questions import NotKnown
from smtpfw.testing import Joined, RecordingBackend
from smtpfw.testing.memory import PEER
from tests.backends.relay.helpers import BODY, FAILED, OK, TRUSTED, Sender, script, server, whole


class Zone:
    """
    A resolver that knows some domains.

    :param exchangers: domain -> (preference, host); None for a server that fails.
    :param addresses: host -> addresses.
    """

    def __init__(self, exchangers: dict[str, Any], addresses: dict[str, list[str]]) -> None:
        self.exchangers = exchangers
        self.addresses = addresses

    def lookupMailExchange(self, name: Any, timeout: Any = None) -> Deferred[Any]:
        name = str(name).rstrip(".")
        records = self.exchangers.get(name, ())
        if records is None:
            return fail(DNSServerError())
        if not records and name not in self.addresses:
            return fail(DNSNameError())
        return self._answer(name, dns.MX, [dns.Record_MX(*record) for record in records])

    def lookupAddress(self, name: Any, timeout: Any = None) -> Deferred[Any]:
        found = [one for one in self.addresses.get(str(name), ()) if ":" not in one]
        return self._answer(str(name), dns.A, [dns.Record_A(one) for one in found])

    def lookupIPV6Address(self, name: Any, timeout: Any = None) -> Deferred[Any]:
        found = [one for one in self.addresses.get(str(name), ()) if ":" in one]
        return self._answer(str(name), dns.AAAA, [dns.Record_AAAA(one) for one in found])

    @staticmethod
    def _answer(name: str, kind: int, records: list[Any]) -> Deferred[Any]:
        return succeed(([dns.RRHeader(name, kind, payload=record) for record in records], [], []))


@implementer(IReactorTCP)
class Network(Clock):
    """
    A reactor that leads to servers in memory.

    :param servers: address -> factory.

    :ivar tried: the addresses, in order.
    """

    def __init__(self, servers: dict[str, IProtocolFactory]) -> None:
        super().__init__()
        self.servers = servers
        self.tried: list[str] = []
        self.links: list[Joined] = []

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        assert port == 25
        self.tried.append(host)
        connector = object()
        factory.doStart()
        factory.startedConnecting(connector)
        if host not in self.servers:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return connector
        there = IPv4Address("TCP", host, port)
        client, peer = factory.buildProtocol(there), self.servers[host].buildProtocol(PEER)
        self.links.append(Joined(client, peer, server_address=there))
        return connector

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        raise NotImplementedError

    def flow(self) -> None:
        while any(link.flow() for link in self.links):
            pass

    def end(self) -> None:
        for link in self.links:
            link.client_transport.abortConnection()
            link.flow()


ADDRESSES = {
    "mx1.there.test": ["8.8.8.1"],
    "mx2.there.test": ["8.8.8.2"],
    "other.test": ["8.8.8.3"],
    "inside.test": ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "relay.test": ["8.8.8.9"],
}
EXCHANGERS = {
    "there.test": [(10, "mx1.there.test"), (20, "mx2.there.test")],
    "lost.test": None,
    "null.test": [(0, "")],
    "loop.test": [(10, "relay.test")],
    "backup.test": [(5, "mx2.there.test"), (10, "relay.test"), (20, "mx1.there.test")],
}


def by_mx(servers: dict[str, IProtocolFactory], **settings: Any) -> tuple[Network, Sender]:
    network: Any = Network(servers)
    zone = Zone(EXCHANGERS, ADDRESSES)
    backend = RelayBackend("mx", resolver=zone, reactor=network, trusted=TRUSTED, **settings)
    return network, Sender(backend, network, network)


class MXTests(TestCase):
    def test_the_best_one(self) -> None:
        there = RecordingBackend()
        network, sender = by_mx({"8.8.8.1": server(there)})
        self.assertEqual(sender.mail("b@there.test", "c@THERE.test"), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(len(there.messages[0].recipients), 2)
        self.assertEqual(network.tried, ["8.8.8.1"])

    def test_the_others_in_their_order(self) -> None:
        there = RecordingBackend()
        network, sender = by_mx({"8.8.8.2": server(there)})
        self.assertEqual(sender.mail(), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(network.tried, ["8.8.8.1", "8.8.8.2"])

    def test_an_address_alone(self) -> None:
        network, sender = by_mx({"8.8.8.3": script(*whole())})
        self.assertEqual(sender.mail("b@other.test"), OK)
        self.assertEqual(network.tried, ["8.8.8.3"])

    def test_a_literal(self) -> None:
        network, sender = by_mx({"8.8.8.3": script(*whole())})
        self.assertEqual(sender.mail("b@[8.8.8.3]"), OK)
        self.assertEqual(network.tried, ["8.8.8.3"])

    def test_mail_alone_is_answered_by_us(self) -> None:
        network, sender = by_mx({})
        self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), b"250 2.1.0 Sender OK\r\n")
        self.assertEqual(network.tried, [])

    def test_what_the_next_hop_says_to_mail_is_said_to_rcpt(self) -> None:
        _, sender = by_mx({"8.8.8.3": script(("MAIL", b"550 5.7.1 not from there\r\n"))})
        self.assertEqual(sender.envelope("b@other.test")[1], b"550 5.7.1 not from there\r\n")

    def test_one_domain_at_a_time(self) -> None:
        network, sender = by_mx({"8.8.8.1": script(*whole()), "8.8.8.3": script(*whole())})
        answers = sender.envelope("b@there.test", "c@other.test")
        self.assertEqual(answers[2][:9], b"452 4.5.3")
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), OK)
        self.assertEqual(sender.mail("c@other.test"), OK)
        self.assertEqual(len(network.links), 2)

    def test_a_domain_of_which_nobody_was_accepted_makes_room(self) -> None:
        refusing = script(("MAIL", OK), ("RCPT", b"550 5.1.1 no\r\n"), ("RSET", OK))
        _, sender = by_mx({"8.8.8.1": refusing, "8.8.8.3": script(*whole())})
        answers = sender.envelope("b@there.test", "c@other.test")
        self.assertEqual(answers[1:], [b"550 5.1.1 no\r\n", OK])
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), OK)
        refusing.assert_played()

    def test_what_dns_says(self) -> None:
        network, sender = by_mx({})
        answers = sender.envelope("b@nowhere.test", "b@lost.test", "b@null.test", "b@there.test")
        codes = [b" ".join(answer.split()[:2]) for answer in answers[1:]]
        self.assertEqual(codes, [b"550 5.1.2", b"451 4.4.3", b"556 5.1.10", b"451 4.4.0"])
        # Nobody listens where the last one leads.
        self.assertEqual(network.tried, ["8.8.8.1", "8.8.8.2"])

    def test_the_postmaster_of_no_domain_is_ours(self) -> None:
        _, sender = by_mx({})
        sender.say("MAIL FROM:<a@sender.test>")
        self.assertEqual(sender.say("RCPT TO:<postmaster>")[:9], b"554 5.4.6")

    def test_a_sender_that_vanishes_during_the_look_up(self) -> None:
        waiting: Deferred[Any] = Deferred()
        self.patch(Zone, "lookupMailExchange", lambda *_, **__: waiting)
        network, sender = by_mx({})
        sender.envelope("b@there.test")
        sender.client.disconnect()
        self.assertEqual(sender.factory.connections, set())
        self.assertEqual(network.tried, [])


class OurselvesTests(TestCase):
    def test_the_best_one_is_us(self) -> None:
        network, sender = by_mx({"8.8.8.9": script()})
        self.assertEqual(sender.envelope("b@loop.test")[1][:9], b"554 5.4.6")
        self.assertEqual(network.tried, [])

    def test_only_better_ones(self) -> None:
        network, sender = by_mx({"8.8.8.1": script()})
        self.assertEqual(sender.envelope("b@backup.test")[1], FAILED)
        self.assertEqual(network.tried, ["8.8.8.2"])

    def test_one_that_calls_itself_as_we_do(self) -> None:
        network, sender = by_mx({"8.8.8.3": server(RecordingBackend())})
        network.servers["8.8.8.3"].config = sender.factory.config  # type: ignore[attr-defined]
        self.assertEqual(sender.envelope("b@other.test")[1][:9], b"554 5.4.6")


class PrivateTests(TestCase):
    def test_nobody_is_sent_to_the_servers_behind_us(self) -> None:
        network, sender = by_mx({"127.0.0.1": script()})
        answers = sender.envelope("b@inside.test", "b@[127.0.0.1]", "b@[IPv6:::1]", "b@[10.0.0.1]")
        self.assertEqual([answer[:9] for answer in answers[1:]], [b"550 5.4.4"] * 4)
        self.assertEqual(network.tried, [])

    def test_unless_the_operator_says_so(self) -> None:
        _, sender = by_mx({"127.0.0.1": script(*whole())}, allow_private=True)
        self.assertEqual(sender.mail("b@[127.0.0.1]"), OK)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1"])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "64:ff9b:1:ffff:ffff:ffff:808:808",
        "::ffff:0:7f00:1",
        "::ffff:0:808:808",
        "fec0::1",
        "feff::1",
        "3fff::1",
        "3fff:fff:ffff::1",
        "5f00::1",
        "5f00:ffff::1",
        "2002:7f00:1::",
        "2002:a00:1::",
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


def test_the_systems_resolver_is_asked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = Network({"8.8.8.3": script(*whole(), *whole())})
    made: list[Zone] = []

    def create() -> Zone:
        made.append(Zone(EXCHANGERS, ADDRESSES))
        return made[-1]

    monkeypatch.setattr("smtpfw.client.mx.resolver_with_hosts", create)
    sender = Sender(RelayBackend("mx", reactor=network, trusted=TRUSTED), network, network)
    assert made == []
    assert [sender.mail("b@other.test") for _ in range(2)] == [OK, OK]
    assert len(made) == 2


def test_the_systems_resolver_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NotKnown("nobody can be asked")

    network: Any = Network({})
    monkeypatch.setattr("smtpfw.client.mx.resolver_with_hosts", refuse)
    sender = Sender(RelayBackend("mx", reactor=network, trusted=TRUSTED), network, network)
    assert sender.envelope("b@other.test")[1] == b"451 4.4.3 other.test: nobody can be asked\r\n"
