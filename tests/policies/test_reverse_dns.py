"""Reverse DNS: names that lead back, names that do not, and names that nobody knows."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names.error import DNSServerError
from twisted.trial.unittest import TestCase

from smtpfw.policies import ReverseDNS
from smtpfw.policies.client_lookup import PASS, UNKNOWN, Verdict
from smtpfw.policies.reverse_dns import MAX_NAMES
from tests.dns.fake_dns import FakeResolver, address, pointer
from tests.policies.fakes import connect, connection, mail

ONE = "192.0.2.1"
SIX = "2001:db8::1"


class ReverseDNSTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()

    def names(self, host: str, *names: str) -> None:
        self.resolver.answers[ip_address(host).reverse_pointer] = [pointer(host, name) for name in names]

    def leads(self, name: str, *hosts: str) -> None:
        self.resolver.answers[name] = [address(name, host) for host in hosts]

    def ask(self, host: str = ONE, **settings: Any) -> Deferred[Verdict]:
        check = ReverseDNS(**settings)
        return Deferred.fromCoroutine(check.ask(ip_address(host), self.resolver, self.clock))

    def verdict(self, host: str = ONE, **settings: Any) -> Verdict:
        return self.successResultOf(self.ask(host, **settings))

    def test_a_name_that_leads_back(self) -> None:
        for host in (ONE, SIX):
            self.names(host, "mx.test")
            self.leads("mx.test", "192.0.2.9", "2001:db8::9", host)
            self.assertEqual(self.verdict(host), PASS)

    def test_another_case(self) -> None:
        self.names(ONE, "MX.Test")
        self.leads("mx.test", ONE)
        self.assertEqual(self.verdict(), PASS)

    def test_no_name(self) -> None:
        self.assertEqual(self.verdict().refused, "Your address 192.0.2.1 has no name in DNS")
        self.names(ONE, "no name", "")
        self.assertTrue(self.verdict(require="name").refused)

    def test_a_name_that_leads_elsewhere(self) -> None:
        self.names(ONE, "mx.test")
        text = "The name of your address 192.0.2.1 in DNS, mx.test, does not lead back to it"
        self.assertEqual(self.verdict().refused, text)
        self.leads("mx.test", "192.0.2.2", "::ffff:192.0.2.1")
        self.assertEqual(self.verdict().refused, text)
        self.assertEqual(self.verdict(require="name"), PASS)

    def test_the_first_few_names(self) -> None:
        names = [f"mx{number}.test" for number in range(MAX_NAMES + 1)]
        self.names(ONE, *names)
        self.leads(names[-1], ONE)
        self.assertTrue(self.verdict().refused)
        self.assertEqual(len(self.resolver.asked), 1 + MAX_NAMES)
        self.leads(names[-2], ONE)
        self.assertEqual(self.verdict(), PASS)

    def test_nobody_knows(self) -> None:
        self.resolver.answers[ip_address(ONE).reverse_pointer] = DNSServerError()
        self.assertEqual(self.verdict(), UNKNOWN)
        self.names(ONE, "a.test", "b.test")
        self.resolver.answers["a.test"] = DNSServerError()
        self.assertEqual(self.verdict(), UNKNOWN)
        self.leads("b.test", ONE)
        self.assertEqual(self.verdict(), PASS)

    def test_one_limit_for_all_questions(self) -> None:
        self.names(ONE, "a.test", "b.test")
        self.resolver.answers |= {"a.test": Deferred, "b.test": Deferred}
        asked = self.ask(timeout=2)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(asked), UNKNOWN)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def test_codes() -> None:
    for at, ask, later, never in (("connect", connect, 421, 554), ("mail", mail, 450, 550)):
        answer = ask(ReverseDNS(at=at), connection(resolver=FakeResolver()))
        assert answer == f"{later} 4.7.25 Your address 192.0.2.1 has no name in DNS"
        answer = ask(ReverseDNS(at=at, permanent=True), connection(resolver=FakeResolver()))
        assert answer == f"{never} 5.7.25 Your address 192.0.2.1 has no name in DNS"


def test_a_mistake() -> None:
    with pytest.raises(ValueError, match="require: 'all' is none of name, confirmed"):
        ReverseDNS(require="all")
