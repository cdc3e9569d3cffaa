"""Whose mail is carried, and what comes back to ourselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import TestCase

from smtpfw.backends.mux import MuxBackend
from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.ourselves import is_us, without_ourselves
from smtpfw.client import Destination, Hop, connector_of
from smtpfw.errors import RelayDenied, SMTPError
from smtpfw.networks import Networks
from smtpfw.testing import RecordingBackend
from tests.backends.mux.helpers import Store
from tests.backends.relay.helpers import DENIED, Hops, Sender, relay_to, server

STRANGER = IPv4Address("TCP", "203.0.113.9", 4000)


def connection(**attributes: Any) -> Any:
    given = {"peer": STRANGER, "peer_host": "203.0.113.9", "identity": "", "mechanism": "", **attributes}
    return SimpleNamespace(**given)


@pytest.mark.parametrize(
    ("trusted", "attributes", "permitted"),
    [
        ((), {}, False),
        ((), {"identity": "tim", "mechanism": "PLAIN"}, True),
        # Whoever comes in by ANONYMOUS is still anybody (RFC 4505).
        ((), {"identity": "anonymous", "mechanism": "ANONYMOUS"}, False),
        ((), {"identity": "anonymous", "mechanism": "anonymous"}, False),
        (["203.0.113.0/24"], {}, True),
        ("203.0.113.9", {}, True),
        (Networks(["203.0.113.0/24"]), {}, True),
        (["198.51.100.0/24"], {}, False),
        (["198.51.100.0/24"], {"identity": "tim", "mechanism": "SCRAM-SHA-256"}, True),
        (["203.0.113.0/24"], {"peer": UNIXAddress(None), "peer_host": ""}, False),
        (["unix"], {"peer": UNIXAddress(None), "peer_host": ""}, True),
        (["203.0.113.0/24"], {"peer_host": "::ffff:203.0.113.9"}, True),
        (["127.0.0.0/8", "::1"], {"peer_host": "::1"}, True),
    ],
)
def test_who_may_send(trusted: Any, attributes: dict[str, Any], permitted: bool) -> None:
    answer = RelayBackend("mx.example.org", trusted=trusted).permit(connection(**attributes))
    assert (answer is None) is permitted
    assert answer is None or isinstance(answer, RelayDenied)


def test_a_server_that_delivers_says_itself_who_may() -> None:
    assert LMTPBackend("unix:/run/lmtp").permit(connection()) is None


class OpenRelayTests(TestCase):
    def test_a_stranger_hears_it_at_rcpt_and_the_next_hop_nothing(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there), peer=STRANGER)
        self.assertEqual(sender.envelope("b@there.test", "c@there.test")[1:], [DENIED, DENIED])
        self.assertEqual(sender.say("DATA")[:9], b"554 5.5.1")
        self.assertEqual(sender.hops.endpoints[0].links, [])

    def test_nobody_is_trusted_by_default(self) -> None:
        sender = relay_to(server(), trusted=())
        self.assertEqual(sender.envelope()[1], DENIED)

    def test_beside_another_backend(self) -> None:
        """Mail for us is anybody's to send, and mail for others is not."""
        inbox, there = Store(), RecordingBackend()
        hops = Hops(server(there))
        one = relay_to(server())
        backend = RelayBackend(hops.destinations, trusted=["198.51.100.0/24"], reactor=one.clock)
        mux = MuxBackend({"relay.test": inbox, "postmaster": inbox}, default=backend)
        sender = Sender(mux, hops, one.clock, peer=STRANGER)
        self.assertEqual(sender.envelope("tim@relay.test", "x@there.test")[1:], [b"250 2.1.5 Recipient OK\r\n", DENIED])
        friend = Sender(mux, hops, one.clock, peer=IPv4Address("TCP", "198.51.100.7", 4000))
        self.assertEqual(friend.mail("x@there.test"), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(len(there.messages), 1)
        self.assertEqual(friend.mail("x@there.test", "tim@relay.test"), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual((len(there.messages), len(inbox.messages)), (2, 1))


# -- ourselves --------------------------------------------------------------------


def client_at(peer: Any, name: str = "hop.test") -> Any:
    """A client that is connected to an address, where somebody calls itself so."""
    transport = SimpleNamespace(getPeer=lambda: peer)
    return SimpleNamespace(transport=transport, wire=SimpleNamespace(peer=SimpleNamespace(name=name)))


HERE = IPv4Address("TCP", "127.0.0.1", 2525)


@pytest.mark.parametrize(
    ("where", "peer", "local", "expected"),
    [
        ("127.0.0.1:2525", HERE, HERE, True),
        ("127.0.0.1:2525", HERE, IPv6Address("TCP", "::ffff:127.0.0.1", 2525), True),
        ("localhost:2525", IPv6Address("TCP", "::1", 2525), IPv6Address("TCP", "::1", 2525), True),
        ("127.0.0.1:2526", IPv4Address("TCP", "127.0.0.1", 2526), HERE, False),
        ("127.0.0.2:2525", IPv4Address("TCP", "127.0.0.2", 2525), HERE, False),
        ("unix:/run/a", UNIXAddress("/run/a"), UNIXAddress("/run/a"), True),
        ("unix:/run/a", UNIXAddress("/run/a"), UNIXAddress("/run/b"), False),
        ("unix:/run/a", UNIXAddress("/run/a"), UNIXAddress(None), False),
        ("unix:/run/a", UNIXAddress(None), UNIXAddress(None), False),
        ("127.0.0.1:2525", HERE, UNIXAddress("/run/b"), False),
    ],
)
def test_a_smarthost_is_us_if_it_stands_where_we_were_found(where: str, peer: Any, local: Any, expected: bool) -> None:
    here = connection(local=local, hostname="hop.test")
    assert is_us(connector_of(where), client_at(peer), here, by_name=False) is expected


def test_an_endpoint_of_somebodys_may_lead_anywhere() -> None:
    (destination,) = Hops(None).destinations
    assert not is_us(connector_of(destination), client_at(HERE), connection(local=HERE, hostname="x"), by_name=False)


def test_a_mail_exchanger_is_us_by_its_name() -> None:
    elsewhere = IPv4Address("TCP", "192.0.2.7", 25)
    connector = connector_of(Destination.parse("192.0.2.7:25"))
    for name, expected in (("mx.test", True), ("MX.test", True), ("other.test", False)):
        here = connection(local=HERE, hostname="mx.TEST")
        assert is_us(connector, client_at(elsewhere, name), here, by_name=True) is expected


A, B, C = Hop("a.test", 10, ("192.0.2.1",)), Hop("b.test", 20, ("192.0.2.2",)), Hop("c.test", 20, ("192.0.2.3",))


@pytest.mark.parametrize(
    ("hostname", "local", "expected"),
    [
        ("elsewhere.test", "198.51.100.1", [A, B, C]),
        ("b.test", "198.51.100.1", [A]),
        ("B.TEST", "198.51.100.1", [A]),
        ("elsewhere.test", "192.0.2.3", [A]),
        ("a.test", "198.51.100.1", None),
        ("elsewhere.test", "192.0.2.1", None),
    ],
)
def test_only_better_ones_than_ourselves(hostname: str, local: str, expected: list[Hop] | None) -> None:
    here = connection(hostname=hostname, local=IPv4Address("TCP", local, 25))
    if expected is None:
        with pytest.raises(SMTPError) as caught:
            without_ourselves([A, B, C], here, 25)
        assert str(caught.value).startswith("554 5.4.6 ")
    else:
        assert without_ourselves([A, B, C], here, 25) == expected


def test_a_server_for_submission_is_not_the_mail_exchanger_beside_it() -> None:
    here = connection(hostname="elsewhere.test", local=IPv4Address("TCP", "192.0.2.1", 587))
    assert without_ourselves([A, B], here, 25) == [A, B]


def test_a_unix_socket_is_no_mail_exchanger() -> None:
    here = connection(hostname="elsewhere.test", local=UNIXAddress("/run/a"))
    assert without_ourselves([A], here, 25) == [A]


def test_behind_routes_nobody_is_asked() -> None:
    backend = RelayBackend("mx.example.org", guarded=False)
    assert backend.permit(connection()) is None
    # So that whoever puts it in front of strangers can see that it does not.
    assert backend.trusted is None
    assert not any("for clients" in line for line in backend.describe())
