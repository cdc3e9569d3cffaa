"""Questions to DNS: what counts in an answer, what is none, and what nobody knows."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError, ResolverError
from twisted.trial.unittest import TestCase

from smtpfw.dns.questions import MAX_ALIASES, Found, NotAName, NotKnown, look_up, reverse_names
from tests.dns.fake_dns import FakeResolver, address, alias, pointer


class LookUpTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()

    def ask(self, name: str = "a.test", answer: Any = None, type: int = dns.A) -> Deferred[Found]:
        if answer is not None:
            self.resolver.answers[name] = answer
        return Deferred.fromCoroutine(look_up(self.resolver, name, type, clock=self.clock, timeout=5))

    def found(self, answer: Any) -> list[str]:
        return [str(ip_address(record.address)) for record in self.successResultOf(self.ask(answer=answer)).records]

    def trouble(self, answer: Any) -> str:
        return str(self.failureResultOf(self.ask(answer=answer), NotKnown).value)

    def test_records_in_their_order(self) -> None:
        records = [address("a.test", "192.0.2.2"), address("a.test", "192.0.2.1")]
        self.assertEqual(self.found(records), ["192.0.2.2", "192.0.2.1"])

    def test_names_are_compared_without_case(self) -> None:
        self.assertEqual(self.found([address("A.tEST", "192.0.2.1")]), ["192.0.2.1"])
        self.assertEqual(self.resolver.asked, ["a.test"])

    def test_other_names_and_other_types_do_not_count(self) -> None:
        text = dns.RRHeader("a.test", dns.TXT, payload=dns.Record_TXT(b"127.0.0.2"))
        self.assertEqual(self.found([text, address("b.test", "192.0.2.1"), address("a.test", "2001:db8::1")]), [])

    def test_there_is_none(self) -> None:
        self.assertEqual(self.successResultOf(self.ask(answer=DNSNameError())), Found("a.test", [], exists=False))
        self.assertEqual(self.successResultOf(self.ask(answer=[])), Found("a.test", []))

    def test_what_is_behind_an_alias(self) -> None:
        self.assertEqual(self.found([alias("a.test", "B.test"), address("b.TEST", "192.0.2.1")]), ["192.0.2.1"])
        self.assertEqual(self.resolver.asked, ["a.test"])
        self.resolver.answers["b.test"] = [address("b.test", "192.0.2.2")]
        self.assertEqual(self.found([alias("a.test", "b.test")]), ["192.0.2.2"])
        self.resolver.answers["b.test"] = []
        self.assertEqual(self.successResultOf(self.ask(answer=[alias("a.test", "B.test.")])), Found("b.test", []))
        gone = [alias("a.test", "gone.test")]
        self.assertEqual(self.successResultOf(self.ask(answer=gone)), Found("gone.test", [], exists=False))

    def test_an_alias_of_what_is_no_name(self) -> None:
        for target in ("", "a..test", "é.test", "x" * 64 + ".test"):
            self.failureResultOf(self.ask(answer=[alias("a.test", target)]), NotAName)
        self.assertEqual(set(self.resolver.asked), {"a.test"})
        # RFC 2317 has a slash in them.
        self.assertEqual(self.found([alias("a.test", "1/25.test"), address("1/25.test", "192.0.2.1")]), ["192.0.2.1"])

    def test_aliases_without_an_end(self) -> None:
        self.assertEqual(self.trouble([alias("a.test", "a.test")]), "a circle or too many of aliases")
        for number in range(MAX_ALIASES + 2):
            self.resolver.answers[f"{number}.test"] = [alias(f"{number}.test", f"{number + 1}.test")]
        self.resolver.asked.clear()
        self.assertEqual(self.trouble([alias("a.test", "0.test")]), "a circle or too many of aliases")
        self.assertEqual(len(self.resolver.asked), MAX_ALIASES + 1)

    def test_a_referral_says_nothing(self) -> None:
        self.resolver.authority = [dns.RRHeader("test", dns.NS, payload=dns.Record_NS("ns.test"))]
        self.assertEqual(self.trouble([]), "a referral instead of A of a.test")
        self.resolver.authority.append(dns.RRHeader("test", dns.SOA, payload=dns.Record_SOA()))
        self.assertEqual(self.found([]), [])

    def test_who_does_not_know(self) -> None:
        for error, words in (
            (DNSServerError(), "the name server failed (SERVFAIL)"),
            (DNSQueryRefusedError(), "the name server refused"),
            (TimeoutError(), "no answer in time"),
            (CannotListenError("", 1, OSError()), "no socket to ask with"),
            (InvalidAddressError("ns", "no address"), "a name server that is set is no address"),
            (ResolverError("too many"), "too many"),
            (ResolverError(), "DNS can't be asked (ResolverError)"),
            (NotImplementedError(), "DNS can't be asked (NotImplementedError)"),
        ):
            self.assertEqual(self.trouble(error), words)

    def test_a_fault_is_a_fault(self) -> None:
        self.failureResultOf(self.ask(answer=KeyError("a bug")), KeyError)

        def breaks() -> None:
            raise OSError("no network")

        self.assertEqual(self.trouble(breaks), "DNS can't be asked (OSError)")

    def test_no_answer_and_one_that_is_late(self) -> None:
        late: Deferred[Any] = Deferred()
        asked = self.ask(answer=lambda: late)
        self.clock.advance(4.9)
        self.assertNoResult(asked)
        self.clock.advance(0.2)
        self.assertEqual(str(self.failureResultOf(asked, NotKnown).value), "no answer in time")
        late.callback(([], [], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_time_is_for_all_questions_together(self) -> None:
        first: Deferred[Any] = Deferred()
        self.resolver.answers["b.test"] = lambda: Deferred()
        asked = self.ask(answer=lambda: first)
        self.clock.advance(4)
        first.callback(([alias("a.test", "b.test")], [], []))
        self.assertNoResult(asked)
        self.clock.advance(1.1)
        self.failureResultOf(asked, NotKnown)

    def test_who_gives_up_and_who_shares(self) -> None:
        shared: Deferred[Any] = Deferred()
        asked = self.ask(answer=lambda: shared)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertFalse(shared.called)
        taken: Deferred[Any] = Deferred()
        asked = self.ask(answer=lambda: taken)
        taken.cancel()
        self.failureResultOf(asked, NotKnown)


class ReverseTests(TestCase):
    def names(self, host: str, *targets: str) -> list[str]:
        question = ip_address(host).reverse_pointer
        resolver = FakeResolver({question: [pointer(host, target) for target in targets]})
        asked = reverse_names(resolver, ip_address(host), clock=Clock(), timeout=5)
        return self.successResultOf(Deferred.fromCoroutine(asked))

    def test_each_once_and_names_only(self) -> None:
        names = self.names("192.0.2.1", "a.test.", "b c.test", "x" * 64 + ".test", "b.test", "a.test", "c..test")
        self.assertEqual(names, ["a.test", "b.test"])
        self.assertEqual(self.names("2001:db8::1", "a.test"), ["a.test"])
        self.assertEqual(self.names("2001:db8::1"), [])
