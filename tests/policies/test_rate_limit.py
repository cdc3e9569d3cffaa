"""How much one client may do."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.policies import Rate, RateLimit
from smtpfw.policies.rate_limit import CONNECTIONS, RECIPIENTS
from tests.policies.fakes import connect, connection, mail, rcpt

MESSAGES_REFUSED = "450 4.7.1 Too many messages from your address, try again later"


def limit(clock: Clock | None = None, **settings: Any) -> RateLimit:
    return RateLimit(clock=clock or Clock(), **settings)


def test_messages_of_an_address() -> None:
    clock = Clock()
    check = limit(clock, ip=(2, 60))
    one, other = connection("192.0.2.1"), connection("192.0.2.2")
    assert [mail(check, one) for _ in range(3)] == ["", "", MESSAGES_REFUSED]
    # Another connection is no way round.
    assert mail(check, connection("192.0.2.1")) == MESSAGES_REFUSED
    assert mail(check, other) == ""
    clock.advance(30)
    assert [mail(check, one) for _ in range(2)] == ["", MESSAGES_REFUSED]


def test_only_what_is_counted_counts() -> None:
    client = connection()
    check = limit(ip=(1, 60))
    assert [connect(check, client), rcpt(check, client), connect(check, client), rcpt(check, client)] == [""] * 4
    check = limit(ip=(1, 60), count=CONNECTIONS)
    assert connect(check, client) == ""
    assert connect(check, client) == "421 4.7.0 Too many connections from your address, try again later"
    assert mail(check, client) == rcpt(check, client) == mail(check, client) == ""
    check = limit(ip=(1, 60), count=RECIPIENTS)
    assert mail(check, client) == connect(check, client) == mail(check, client) == rcpt(check, client) == ""
    assert rcpt(check, client) == "450 4.7.1 Too many recipients from your address, try again later"


def test_a_network_and_a_user() -> None:
    check = limit(net=(1, 60), user=(2, 60))
    assert mail(check, connection("192.0.2.1")) == ""
    assert mail(check, connection("192.0.2.77")) == "450 4.7.1 Too many messages from your network, try again later"
    assert mail(check, connection("198.51.100.1", identity="tim")) == ""
    assert mail(check, connection("", identity="TIM")) == ""
    refused = "450 4.7.1 Too many messages from your account, try again later"
    assert mail(check, connection("203.0.113.1", identity="tim")) == refused
    # Nobody in particular has no rate.
    assert [mail(check, connection("")) for _ in range(5)] == [""] * 5


def test_who_is_refused_for_one_kind_is_not_counted_for_another() -> None:
    check = limit(ip=(1, 60), user=(2, 60))
    tim = connection("192.0.2.1", identity="tim")
    assert mail(check, tim) == ""
    assert [mail(check, tim) for _ in range(5)] == [MESSAGES_REFUSED] * 5
    assert mail(check, connection("192.0.2.2", identity="tim")) == ""
    check = limit(ip=(2, 60), user=(1, 60))
    assert mail(check, tim) == ""
    assert [mail(check, tim)[:3] for _ in range(5)] == ["450"] * 5
    assert mail(check, connection("192.0.2.1")) == ""


def test_an_ipv6_host_has_one_rate_for_all_its_addresses() -> None:
    check = limit(ip=(1, 60))
    assert mail(check, connection("2001:db8::1")) == ""
    assert mail(check, connection("2001:db8::2")) == MESSAGES_REFUSED
    check = limit(net=(1, 60), ipv6_prefix=48)
    assert mail(check, connection("2001:db8::1")) == ""
    assert mail(check, connection("2001:db8:0:1::1")).startswith("450")


def test_no_more_clients_are_remembered_than_allowed() -> None:
    check = limit(ip=(1, 60), max_keys=10)
    assert [mail(check, connection(f"10.0.{number}.1")) for number in range(100)] == [""] * 100
    # The last ten have their rate still, and the first is as good as new.
    assert mail(check, connection("10.0.99.1")) == mail(check, connection("10.0.90.1")) == MESSAGES_REFUSED
    assert mail(check, connection("10.0.0.1")) == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no rate is given"),
        ({"ip": (0, 60)}, "ip: 0 in 60 s is no rate"),
        ({"ip": (1, 0)}, "ip: 1 in 0 s is no rate"),
        ({"ip": (1, 60), "count": "mails"}, "'mails' is none of connections, messages, recipients"),
        ({"user": (1, 60), "count": "connections"}, "is not known when it connects"),
        ({"ip": (1, 60), "max_keys": 0}, "max_keys: 0 is below 1"),
        ({"ip": (1, 60), "ipv4_prefix": 40}, "ipv4_prefix: 40 is not within 0 and 32"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        limit(**settings)


def test_words() -> None:
    check = limit(ip=(30, 60), net=Rate(200, 3600), user=(5, 600))
    assert check.describe() == (
        "Messages: at most 30 a minute of one IPv4 address or IPv6 /64, "
        "200 an hour of one IPv4 /24 or IPv6 /64, 5 in 600 s of one user"
    )
    assert repr(limit(ip=(30, 60))) == "RateLimit(ip=(30, 60), count='messages')"
    assert (str(Rate(5, 1)), str(Rate(9, 86400.0)), str(Rate(9, 60.5))) == ("5 a second", "9 a day", "9 in 60.5 s")
