"""DNS block lists: weights, what counts, what is an error of the list, and when nobody is waited for any more."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.names.error import DNSServerError
from twisted.trial.unittest import TestCase

from smtpfw.policies import DNSBL
from smtpfw.policies.client_lookup import PASS, UNKNOWN, Verdict
from smtpfw.policies.dnsbl import _Tally
from smtpfw.policies.zones import Zone
from tests.dns.fake_dns import FakeResolver, address, listed
from tests.policies.fakes import connect, connection, mail

ONE = "1.2.0.192.one.test"
TWO = "1.2.0.192.two.test"
GOOD = "1.2.0.192.good.test"


class DNSBLTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.late: dict[str, Deferred[Any]] = {}

    def wait_for(self, *names: str) -> None:
        for name in names:
            self.late[name] = Deferred()
            self.resolver.answers[name] = lambda name=name: self.late[name]

    def say(self, name: str, *values: str) -> None:
        self.late[name].callback(([address(name, value) for value in values], [], []))

    def ask(self, *zones: str, threshold: int = 1, host: str = "192.0.2.1") -> Deferred[Verdict]:
        check = DNSBL(zones, threshold=threshold)
        return Deferred.fromCoroutine(check.ask(ip_address(host), self.resolver, self.clock))

    def verdict(self, *zones: str, **settings: Any) -> Verdict:
        return self.successResultOf(self.ask(*zones, **settings))

    def test_listed_and_unlisted(self) -> None:
        self.resolver.answers |= listed((ONE, "127.0.0.2"))
        self.assertEqual(self.verdict("one.test").refused, "Your address 192.0.2.1 is listed by one.test")
        self.assertEqual(self.verdict("two.test"), PASS)
        self.assertEqual(self.resolver.asked, [ONE, TWO])

    def test_ipv6(self) -> None:
        name = Zone.parse("one.test").question(ip_address("2001:db8::1"))
        self.resolver.answers |= listed((name, "127.0.0.2"))
        self.assertEqual(
            self.verdict("one.test", host="2001:db8::1").refused, "Your address 2001:db8::1 is listed by one.test"
        )

    def test_weights(self) -> None:
        self.resolver.answers |= listed((ONE, "127.0.0.2"), (TWO, "127.0.0.2"), (GOOD, "127.0.0.2"))
        self.assertEqual(self.verdict("one.test", "missing.test", threshold=2), PASS)
        self.assertIn("one.test, two.test", self.verdict("one.test", "two.test", threshold=2).refused)
        self.assertTrue(self.verdict("one.test*2", "missing.test", threshold=2).refused)
        self.assertEqual(self.verdict("one.test*2", "good.test*-1", threshold=2), PASS)

    def test_answers_that_weigh_more_than_others(self) -> None:
        self.resolver.answers |= listed((ONE, "127.0.0.10"))
        zones = ("one.test/127.0.0.2-3*2", "one.test/127.0.0.10-11")
        self.assertEqual(self.verdict(*zones, threshold=2), PASS)
        self.resolver.answers |= listed((ONE, "127.0.0.10"), (ONE, "127.0.0.3"))
        self.assertTrue(self.verdict(*zones, threshold=3).refused)
        # One question for each list.
        self.assertEqual(self.resolver.asked, [ONE, ONE])

    def test_what_is_an_error_of_the_list(self) -> None:
        for answers in (["127.255.255.254"], ["127.0.0.2", "127.255.255.252"], ["203.0.113.5"]):
            self.resolver.answers |= {ONE: [address(ONE, answer) for answer in answers]}
            self.assertEqual(self.verdict("one.test"), UNKNOWN)
        self.resolver.answers[ONE] = DNSServerError()
        self.assertEqual(self.verdict("one.test"), UNKNOWN)

    def test_what_one_does_not_know_may_not_matter(self) -> None:
        self.resolver.answers |= {ONE: DNSServerError()} | listed((TWO, "127.0.0.2"))
        self.assertTrue(self.verdict("one.test", "two.test").refused)
        self.assertEqual(self.verdict("one.test", "three.test*2", threshold=2), PASS)
        self.assertEqual(self.verdict("one.test", "three.test*2"), UNKNOWN)

    def test_a_list_of_the_allowed_that_does_not_know(self) -> None:
        self.resolver.answers |= {GOOD: DNSServerError()} | listed((TWO, "127.0.0.2"))
        self.assertEqual(self.verdict("two.test", "good.test*-1"), UNKNOWN)
        self.assertTrue(self.verdict("two.test*3", "good.test*-1").refused)
        self.assertEqual(self.verdict("three.test", "good.test*-1"), PASS)

    def test_who_can_change_nothing_is_not_waited_for(self) -> None:
        self.wait_for(ONE, TWO, GOOD)
        asked = self.ask("one.test*2", "two.test", "good.test*-1", threshold=2)
        self.say(ONE, "127.0.0.2")
        self.assertNoResult(asked)
        self.say(GOOD)
        self.assertTrue(self.successResultOf(asked).refused)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.say(TWO)

    def test_all_are_asked_at_the_same_time_with_one_limit(self) -> None:
        self.wait_for(ONE, TWO)
        asked = self.ask("one.test", "two.test")
        self.assertEqual(self.resolver.asked, [ONE, TWO])
        self.clock.advance(5)
        self.assertEqual(self.successResultOf(asked), UNKNOWN)

    def test_who_goes_meanwhile(self) -> None:
        self.wait_for(ONE, TWO)
        asked = self.ask("one.test", "two.test")
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # Others may wait for the same answers.
        self.assertFalse(self.late[ONE].called)

    def test_a_fault_ends_it(self) -> None:
        self.wait_for(TWO)
        self.resolver.answers[ONE] = KeyError("a bug")
        self.failureResultOf(self.ask("one.test", "two.test"), KeyError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def test_codes() -> None:
    resolver = FakeResolver(listed((ONE, "127.0.0.2")))
    for at, ask in (("connect", connect), ("mail", mail)):
        answer = ask(DNSBL("one.test", at=at), connection(resolver=resolver))
        assert answer == "554 5.7.1 Your address 192.0.2.1 is listed by one.test"


def test_a_key_is_not_told() -> None:
    zone = "abcdefghij0123456789abcdef.bl.test"
    check = DNSBL(zone)
    answer = connect(check, connection(resolver=FakeResolver(listed((f"1.2.0.192.{zone}", "127.0.0.2")))))
    assert "by bl.test" in answer
    assert all("abcdef" not in text for text in (answer, check.describe(), repr(check)))


@pytest.mark.parametrize(
    ("zones", "threshold", "words"),
    [
        ([], 1, "no list is given"),
        (["x"], 1, "'x' is no zone"),
        (["one.test", "one.test"], 1, "one.test is given twice"),
        (["one.test"], 0, "threshold: 0 is below 1"),
        (["one.test", "good.test*-5"], 2, "all lists together weigh 1, so nobody could reach 2"),
    ],
)
def test_mistakes(zones: list[str], threshold: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DNSBL(zones, threshold=threshold)


def test_what_is_certain_stays_so() -> None:
    zones = [Zone("a.test", weight=2), Zone("b.test"), Zone("c.test", weight=-1)]
    tally = _Tally(zones, 2)
    assert not tally.certain
    tally.note(None, zones[:1])
    assert (tally.lowest, tally.highest) == (-1, 3)
    tally.note([], zones[2:])
    assert (tally.lowest, tally.highest, tally.certain) == (0, 3, False)
    tally.note([], zones[1:2])
    assert (tally.lowest, tally.highest, tally.certain) == (0, 2, True)
