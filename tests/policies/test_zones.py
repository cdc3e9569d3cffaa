"""Lists as an operator writes them, and what counts in their answers."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.dns.names import can_be_asked
from smtpfw.policies.zones import ANY, Zone, trouble_of

GOOD = [
    ("zen.example.org", Zone("zen.example.org")),
    ("ZEN.example.org.", Zone("zen.example.org")),
    ("bl.test*2", Zone("bl.test", weight=2)),
    ("bl.test*+2", Zone("bl.test", weight=2)),
    ("wl.test*-3", Zone("wl.test", weight=-3)),
    ("bl.test/127.0.0.2", Zone("bl.test", ((127, 127), (0, 0), (0, 0), (2, 2)))),
    ("bl.test/127.0.0.2-11*2", Zone("bl.test", ((127, 127), (0, 0), (0, 0), (2, 11)), 2)),
    ("wl.test/127.0.0-255.1-3*-2", Zone("wl.test", ((127, 127), (0, 0), (0, 255), (1, 3)), -2)),
]


@pytest.mark.parametrize(("text", "zone"), GOOD)
def test_good(text: str, zone: Zone) -> None:
    assert Zone.parse(text) == zone
    assert Zone.parse(str(zone)) == zone


_RANGES = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: (min(pair), max(pair)))


@given(st.tuples(st.just((127, 127)), _RANGES, _RANGES, _RANGES) | st.just(ANY), st.integers(-9999, 9999).filter(bool))
def test_twins(answers: tuple[tuple[int, int], ...], weight: int) -> None:
    zone = Zone("bl.example.test", answers, weight)
    assert Zone.parse(str(zone)) == zone


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no zone"),
        ("zen", "'zen' is no zone"),
        ("bl test.org", "is no zone"),
        ("bl..test", "is no zone"),
        ("a." * 100 + "test", "is no zone"),
        ("bl.test*", "'' is no weight; write bl.test*2"),
        ("bl.test*0", "'0' is no weight"),
        ("bl.test*two", "'two' is no weight"),
        ("bl.test*1.5", "'1.5' is no weight"),
        ("bl.test/", "'' are no answers"),
        ("bl.test/2", "'2' are no answers"),
        ("bl.test/127.0.0.256", "are no answers"),
        ("bl.test/127.0.0.9-2", "are no answers"),
        ("bl.test/10.0.0.2", "are no answers"),
        ("bl.test/127.0.0.2/8", "are no answers"),
    ],
)
def test_bad(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^'") as caught:
        Zone.parse(text)
    assert words in str(caught.value)


def test_the_question() -> None:
    # The examples of RFC 5782 sections 2.1 and 2.4.
    assert Zone.parse("bad.example.com").question(ip_address("192.0.2.99")) == "99.2.0.192.bad.example.com"
    assert Zone.parse("ugly.example.com").question(ip_address("2001:db8:1:2:3:4:567:89ab")) == (
        "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com"
    )


def test_the_longest_question_is_a_name() -> None:
    zone = Zone.parse("a." * 92 + "test")
    assert can_be_asked(zone.question(ip_address("2001:db8::1")))


def answers(*texts: str) -> list[IPv4Address]:
    return [IPv4Address(text) for text in texts]


def test_what_counts() -> None:
    some = Zone.parse("bl.test/127.0.0.2-11")
    assert some.lists(answers("127.0.0.2")) and some.lists(answers("127.0.0.50", "127.0.0.11"))
    assert not some.lists(answers("127.0.0.12", "127.0.1.2")) and not some.lists([])
    assert Zone.parse("bl.test").lists(answers("127.9.8.7"))


def test_answers_that_are_none() -> None:
    assert trouble_of([]) == trouble_of(answers("127.0.0.2", "127.255.254.1")) == ""
    assert "127.255.255.254, an error" in trouble_of(answers("127.0.0.2", "127.255.255.254"))
    assert "192.0.2.7, which is outside of 127.0.0.0/8" in trouble_of(answers("192.0.2.7"))


def test_a_key_is_not_shown() -> None:
    zone = Zone.parse("abcdefghij0123456789abcdef.zen.dq.example.net*2")
    assert zone.shown == "zen.dq.example.net"
    assert "abcdef" not in repr(zone) and repr(zone) == "<Zone zen.dq.example.net*2>"
