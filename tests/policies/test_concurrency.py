"""How many connections at the same time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from smtpfw.policies import Concurrency
from tests.policies.fakes import connect, connection, mail

FROM_ADDRESS = "421 4.7.0 Too many connections from your address, try again later"
FROM_NETWORK = "421 4.7.0 Too many connections from your network, try again later"
OF_USER = "450 4.7.1 Too many connections of your account, try again later"


def held(check: Concurrency) -> tuple[int, int]:
    return sum(check._counts.values()), len(check._held)


def test_of_an_address() -> None:
    check = Concurrency(ip=2)
    clients = [connection("192.0.2.1") for _ in range(3)]
    assert [connect(check, client) for client in clients] == ["", "", FROM_ADDRESS]
    assert connect(check, connection("192.0.2.2")) == ""
    # The one that was refused gives nothing back.
    check.disconnected(clients[2])
    assert connect(check, connection("192.0.2.1")) == FROM_ADDRESS
    check.disconnected(clients[0])
    assert connect(check, connection("192.0.2.1")) == ""


def test_of_a_network() -> None:
    check = Concurrency(ip=2, net=3)
    hosts = ["192.0.2.1", "192.0.2.1", "192.0.2.2"]
    clients = [connection(host) for host in hosts]
    assert [connect(check, client) for client in clients] == [""] * 3
    assert connect(check, connection("192.0.2.1")) == FROM_ADDRESS
    assert connect(check, connection("192.0.2.3")) == FROM_NETWORK
    for client in clients:
        check.disconnected(client)
    assert held(check) == (0, 0)


def test_who_is_refused_for_the_network_is_not_counted_for_the_address() -> None:
    check = Concurrency(ip=1, net=1)
    first, second = connection("192.0.2.1"), connection("192.0.2.2")
    assert (connect(check, first), connect(check, second)) == ("", FROM_NETWORK)
    check.disconnected(first)
    assert connect(check, connection("192.0.2.2")) == ""


def test_of_a_user_from_the_first_mail_on() -> None:
    check = Concurrency(user=1)
    one, other = connection(identity="tim"), connection("198.51.100.1", identity="Tim")
    assert connect(check, one) == connect(check, other) == ""
    assert mail(check, one) == mail(check, one) == ""
    assert mail(check, other) == OF_USER
    assert mail(check, connection()) == ""
    check.disconnected(one)
    assert mail(check, other) == ""
    check.disconnected(other)
    assert held(check) == (0, 0)


def test_who_becomes_another_user_is_the_former_no_more() -> None:
    check = Concurrency(user=1, ip=5)
    client = connection(identity="tim")
    assert connect(check, client) == mail(check, client) == ""
    client.identity = "ann"
    assert mail(check, client) == ""
    assert mail(check, connection(identity="tim")) == ""
    assert mail(check, connection(identity="ann")) == OF_USER
    check.disconnected(client)
    assert mail(check, connection(identity="ann")) == ""


def test_who_becomes_a_user_with_too_many_stays_counted_as_the_former() -> None:
    check = Concurrency(user=1)
    ann, client = connection(identity="ann"), connection(identity="tim")
    assert mail(check, ann) == mail(check, client) == ""
    client.identity = "ann"
    assert mail(check, client) == OF_USER
    check.disconnected(client)
    check.disconnected(ann)
    assert held(check) == (0, 0)


def test_who_was_never_counted_gives_nothing_back() -> None:
    check = Concurrency(ip=1)
    first = connection("192.0.2.1")
    assert connect(check, first) == ""
    # A check before this one has refused it.
    check.disconnected(connection("192.0.2.1"))
    assert connect(check, connection("192.0.2.1")) == FROM_ADDRESS
    check.disconnected(first)
    check.disconnected(first)
    assert held(check) == (0, 0)


def test_a_unix_socket_has_no_address() -> None:
    check = Concurrency(ip=1, net=1)
    assert [connect(check, connection("")) for _ in range(3)] == [""] * 3
    assert held(check) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [({}, "no limit is given"), ({"ip": -1}, "ip: -1 is below 0"), ({"ip": 1, "ipv6_prefix": 200}, "ipv6_prefix: 200")],
)
def test_limits_that_make_no_sense(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Concurrency(**limits)


def test_words() -> None:
    check = Concurrency(ip=10, user=3)
    expected = "Connections at the same time: at most 10 of one IPv4 address or IPv6 /64, 3 of one user"
    assert check.describe() == expected
    assert repr(check) == "Concurrency(ip=10, user=3)"


class Coming(RuleBasedStateMachine):
    """Clients come, authenticate, send and go in any order; what is counted is what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.check = Concurrency(ip=2, net=3, user=2)
        self.clients: list[Any] = []

    @rule(last=st.integers(1, 4))
    def come(self, last: int) -> None:
        client = connection(f"192.0.2.{last}")
        client.counted = connect(self.check, client) == ""
        client.user = ""
        self.clients.append(client)

    @rule(which=st.integers(0, 20), identity=st.sampled_from(["", "tim", "ann"]))
    def send(self, which: int, identity: str) -> None:
        if self.clients:
            client = self.clients[which % len(self.clients)]
            client.identity = identity
            if mail(self.check, client) == "" and identity:
                client.user = identity

    @rule(which=st.integers(0, 20))
    def go(self, which: int) -> None:
        if self.clients:
            self.check.disconnected(self.clients.pop(which % len(self.clients)))

    @invariant()
    def nothing_is_lost(self) -> None:
        counted = sum(client.counted for client in self.clients)
        users = sum(bool(client.user) for client in self.clients)
        total, connections = held(self.check)
        assert total == 2 * counted + users
        assert connections == sum(bool(client.counted or client.user) for client in self.clients)
        assert max(self.check._counts.values(), default=0) <= 3


Coming.TestCase.settings = settings(max_examples=50, stateful_step_count=30)
TestComing = Coming.TestCase
