"""Networks, and who is let in from them."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address

from smtpfw.policies import AllowedNetworks, Networks
from tests.policies.fakes import connect, connection, mail

REFUSED = "554 5.7.1 Access denied for your address"

INSIDE = [
    (["10.0.0.0/8"], "10.255.0.1"),
    (["10.0.0.0/8"], "::ffff:10.255.0.1"),
    (["10.0.0.0/255.0.0.0"], "10.255.0.1"),
    (["192.0.2.1"], "192.0.2.1"),
    (["2001:db8::/32"], "2001:db8:ffff::1"),
    (["fe80::/10"], "fe80::1%eth0"),
    (["::ffff:10.0.0.0/104"], "10.255.0.1"),
    (["::ffff:0.0.0.0/96"], "10.255.0.1"),
    (["::ffff:192.0.2.1"], "192.0.2.1"),
    (["192.0.2.0/24", "10.0.0.0/8"], "10.0.0.1"),
    (["0.0.0.0/0"], "203.0.113.9"),
    (["unix"], ""),
    ([ip_network("10.0.0.0/8")], "10.0.0.1"),
    ("10.0.0.0/8", "10.0.0.1"),
    (ip_network("2001:db8::/32"), "2001:db8::1"),
]
OUTSIDE = [
    (["10.0.0.0/8"], "11.0.0.1"),
    (["10.0.0.0/8"], "2001:db8::1"),
    (["2001:db8::/32"], "2001:db9::1"),
    (["::/0"], "10.0.0.1"),
    (["0.0.0.0/0", "::/0"], ""),
    (["unix"], "127.0.0.1"),
]


@pytest.mark.parametrize(("networks", "host"), INSIDE)
def test_inside(networks: list[str], host: str) -> None:
    assert Networks(networks).include(connection(host))


@pytest.mark.parametrize(("networks", "host"), OUTSIDE)
def test_outside(networks: list[str], host: str) -> None:
    assert not Networks(networks).include(connection(host))


def test_a_client_without_an_address_need_not_be_one_of_a_unix_socket() -> None:
    client = connection("")
    client.peer = IPv4Address("TCP", "?", 0)
    assert not Networks("unix").include(client)


@pytest.mark.parametrize("text", ["", "10", "10.0.0.0/33", "example.org", "10.0.0.0/8/9", "2001", "unix:/run/x", "any"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="is no network; write an address, or one with a prefix"):
        Networks([text])


@pytest.mark.parametrize("text", ["10.1.2.3/8", "2001:db8::1/32"])
def test_an_address_with_a_prefix_that_it_does_not_fit(text: str) -> None:
    with pytest.raises(ValueError, match=r"could be the network .* or the address .*; write which is meant"):
        Networks([text])


def test_networks_are_values() -> None:
    networks = Networks(["2001:db8::/32", "10.0.0.0/8", "unix", "10.0.0.0/8"])
    assert str(networks) == "10.0.0.0/8, 2001:db8::/32, unix"
    assert repr(networks) == "Networks('10.0.0.0/8, 2001:db8::/32, unix')"
    assert networks == Networks(str(networks).split(", "))
    assert len({networks, Networks(str(networks).split(", "))}) == 1
    assert networks != Networks() and networks != "10.0.0.0/8"
    assert networks and not Networks()


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.integers(0, 2**128 - 1))
def test_what_the_standard_library_says(base: int, prefix: int, host: int) -> None:
    network, address = IPv6Network((base, prefix), strict=False), IPv6Address(host)
    if address.ipv4_mapped is None:
        assert Networks([network]).include(connection(str(address))) == (address in network)


def test_others_are_refused_when_they_connect() -> None:
    check = AllowedNetworks(["10.0.0.0/8"])
    assert connect(check, connection("10.0.0.1")) == ""
    assert connect(check, connection("192.0.2.1")) == REFUSED
    # Who is in is not asked again.
    assert mail(check, connection("192.0.2.1")) == ""


def test_others_may_authenticate() -> None:
    check = AllowedNetworks(["10.0.0.0/8"], except_authenticated=True)
    stranger, tim = connection("192.0.2.1"), connection("192.0.2.1", identity="tim")
    assert connect(check, stranger) == connect(check, tim) == ""
    assert mail(check, stranger) == REFUSED
    assert mail(check, tim) == mail(check, connection("10.0.0.1")) == ""


def test_a_unix_socket_is_let_in_by_name_only() -> None:
    assert connect(AllowedNetworks(["unix"]), connection("")) == ""
    assert connect(AllowedNetworks(["0.0.0.0/0", "::/0"]), connection("")) == REFUSED


def test_no_network_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="nobody could come in"):
        AllowedNetworks([])


def test_words() -> None:
    check = AllowedNetworks(Networks("10.0.0.0/8"))
    assert check.describe() == "Only clients from 10.0.0.0/8 are served"
    assert repr(check) == "AllowedNetworks('10.0.0.0/8', except_authenticated=False)"
    check = AllowedNetworks(["10.0.0.0/8", "unix"], except_authenticated=True)
    assert check.describe() == "Clients from elsewhere than 10.0.0.0/8, unix have to authenticate"
