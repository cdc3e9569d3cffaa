"""Whom a client is counted as."""

from __future__ import annotations

import pytest

from smtpfw.networks import client_address
from smtpfw.policies.clients import Grouping, fold_case
from tests.policies.fakes import connection

SAME = [
    ("ip", "192.0.2.1", "192.0.2.1"),
    ("ip", "192.0.2.1", "::ffff:192.0.2.1"),
    ("ip", "192.0.2.1", "::ffff:c000:201"),
    ("ip", "2001:db8::1", "2001:db8::ffff:1"),
    ("ip", "fe80::1%eth0", "fe80::2%eth0"),
    ("net", "192.0.2.1", "192.0.2.255"),
    ("net", "2001:db8::1", "2001:db8:0:0:1::"),
]
DIFFERENT = [
    ("ip", "192.0.2.1", "192.0.2.2"),
    ("ip", "2001:db8::1", "2001:db8:0:1::1"),
    ("net", "192.0.2.1", "192.0.3.1"),
    ("net", "2001:db8::1", "2001:db8:0:1::1"),
    # The same bits, and another protocol.
    ("net", "0.0.1.1", "0:0:0:1::"),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_counted_as_one(kind: str, one: str, other: str) -> None:
    grouping = Grouping()
    assert grouping.key(kind, connection(one)) == grouping.key(kind, connection(other)) is not None


@pytest.mark.parametrize(("kind", "one", "other"), DIFFERENT)
def test_counted_apart(kind: str, one: str, other: str) -> None:
    grouping = Grouping()
    assert grouping.key(kind, connection(one)) != grouping.key(kind, connection(other))


def test_a_network_may_be_larger() -> None:
    grouping = Grouping(ipv4_prefix=16, ipv6_prefix=48)
    assert grouping.key("net", connection("192.0.2.1")) == grouping.key("net", connection("192.0.3.1"))
    assert grouping.key("net", connection("2001:db8::1")) == grouping.key("net", connection("2001:db8:0:1::1"))


@pytest.mark.parametrize("prefixes", [{"ipv4_prefix": 33}, {"ipv6_prefix": 129}, {"ipv4_prefix": -1}])
def test_a_prefix_that_no_address_has(prefixes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="is not within 0 and"):
        Grouping(**prefixes)


def test_who_is_not_counted() -> None:
    grouping = Grouping()
    socket = connection("", identity="tim")
    assert grouping.key("ip", socket) is grouping.key("net", socket) is None
    assert grouping.key("user", socket) == "tim"
    assert grouping.key("user", connection()) is None


def test_a_user_is_one_in_any_case() -> None:
    grouping = Grouping()
    assert grouping.key("user", connection(identity="Tim")) == grouping.key("user", connection(identity="tIM"))


def test_only_ascii_is_folded() -> None:
    assert fold_case("Tim.KÄSE@B") == "tim.kÄse@b"
    # The Kelvin sign; str.lower makes a k of it.
    assert fold_case("\u212aim") == "\u212aim"


def test_an_address_that_came_over_ipv6() -> None:
    assert str(client_address(connection("::ffff:c000:201"))) == "192.0.2.1"
    assert client_address(connection("")) is None
