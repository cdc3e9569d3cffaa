"""Where mail for a domain goes: order, implicit and null MX, aliases, literals, bounds, and what DNS fails to say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.names import client, common, dns, error
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from smtpfw.client.mx import MAX_ALIASES, Hop, look_up_mx
from smtpfw.errors import BadDestination, LookupFailed, NoRoute, NullMX, SMTPError

METHODS = {"lookupMailExchange": "MX", "lookupAddress": "A", "lookupIPV6Address": "AAAA"}


def mx(preference: int, host: str) -> dns.Record_MX:
    return dns.Record_MX(preference, host.encode("latin-1"))


def a(address: str) -> dns.Record_A:
    return dns.Record_A(address)


def aaaa(address: str) -> dns.Record_AAAA:
    return dns.Record_AAAA(address)


def cname(name: str) -> dns.Record_CNAME:
    return dns.Record_CNAME(name.encode("latin-1"))


def header(owner: str, record: Any) -> dns.RRHeader:
    return dns.RRHeader(owner.encode(), record.TYPE, dns.IN, 60, record)


class Resolver:
    """
    Answers from a dict: a name has records, or an exception for all questions; a name that is not there is NXDOMAIN.

    ``answers`` and ``failures`` say for one question, (kind, name), what comes instead.
    """

    def __init__(self, zone: dict[str, Any] | None = None) -> None:
        self.zone = zone or {}
        self.answers: dict[tuple[str, str], Deferred[Any]] = {}
        self.failures: dict[tuple[str, str], Exception] = {}
        self.asked: list[tuple[str, str]] = []
        self.referring = False

    def __getattr__(self, method: str) -> Callable[..., Deferred[Any]]:
        kind = METHODS[method]
        return lambda name, timeout: self.answer(kind, name)

    def answer(self, kind: str, name: str) -> Deferred[Any]:
        self.asked.append((kind, name))
        if (kind, name) in self.failures:
            return fail(self.failures[kind, name])
        if (kind, name) in self.answers:
            return self.answers[kind, name]
        records = self.zone.get(name, error.DNSNameError())
        if isinstance(records, Exception):
            return fail(records)
        wanted = [record for record in records if record.TYPE in (getattr(dns, kind), dns.CNAME)]
        authority = [header("example.org", dns.Record_NS(b"ns.example.net"))] if self.referring else []
        return succeed(([header(name, record) for record in wanted], authority, []))


def hosts(hops: list[Hop]) -> list[str]:
    return [hop.host for hop in hops]


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def start(self, domain: str, resolver: Any, **arguments: Any) -> Deferred[list[Hop]]:
        return Deferred.fromCoroutine(look_up_mx(domain, resolver, clock=self.clock, **arguments))

    def look_up(self, domain: str, zone: Any, **arguments: Any) -> list[Hop]:
        """The hops, at once, and without a timer left behind."""
        resolver = zone if isinstance(zone, Resolver) else Resolver(zone)
        found = self.successResultOf(self.start(domain, resolver, **arguments))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return found

    def refusal(self, expected: type[SMTPError], domain: str, zone: Any, **arguments: Any) -> str:
        resolver = zone if isinstance(zone, Resolver) else Resolver(zone)
        failure = self.failureResultOf(self.start(domain, resolver, **arguments), expected)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(failure.value.message.isprintable() and failure.value.message.isascii())
        return str(failure.value)


class OrderTests(Case):
    ZONE = {  # noqa: RUF012
        "example.org": [mx(20, "late.example.org"), mx(5, "first.example.org"), mx(20, "LATER.example.org.")],
        "first.example.org": [a("192.0.2.1"), a("192.0.2.2"), aaaa("2001:db8::1"), a("192.0.2.1")],
        "late.example.org": [a("192.0.2.3")],
        "later.example.org": [aaaa("2001:db8::3")],
    }

    def test_preference_and_families(self) -> None:
        first, *rest = self.look_up("example.org", self.ZONE)
        self.assertEqual(first, Hop("first.example.org", 5, ("2001:db8::1", "192.0.2.1", "192.0.2.2")))
        self.assertCountEqual(
            rest, [Hop("late.example.org", 20, ("192.0.2.3",)), Hop("later.example.org", 20, ("2001:db8::3",))]
        )

    def test_equals_are_shuffled_by_the_source_that_is_given(self) -> None:
        orders = {tuple(hosts(self.look_up("example.org", self.ZONE, random=Random(seed)))) for seed in range(20)}
        first, late, later = "first.example.org", "late.example.org", "later.example.org"
        self.assertEqual(orders, {(first, late, later), (first, later, late)})
        same = {tuple(hosts(self.look_up("example.org", self.ZONE, random=Random(7)))) for _ in range(5)}
        self.assertEqual(len(same), 1)

    def test_a_host_with_two_records_counts_once_with_the_better(self) -> None:
        records = [mx(30, "m.example.org"), mx(10, "M.example.org")]
        for both in (records, records[::-1]):
            zone = {"example.org": both, "m.example.org": [a("192.0.2.1")]}
            self.assertEqual(self.look_up("example.org", zone), [Hop("m.example.org", 10, ("192.0.2.1",))])

    def test_bounded_hosts_are_the_best_and_no_others_are_asked_for(self) -> None:
        zone: dict[str, Any] = {f"m{number}.example.org": [a("192.0.2.1")] for number in range(50)}
        zone["example.org"] = [mx(number, f"m{number}.example.org") for number in reversed(range(50))]
        resolver = Resolver(zone)
        self.assertEqual(
            hosts(self.look_up("example.org", resolver, max_hosts=2)), ["m0.example.org", "m1.example.org"]
        )
        self.assertEqual(len(resolver.asked), 1 + 2 * 2)
        self.assertEqual(len(self.look_up("example.org", Resolver(zone))), 10)

    def test_bounded_addresses_hold_both_families(self) -> None:
        zone = {"example.org": [aaaa(f"2001:db8::{n}") for n in range(1, 9)] + [a(f"192.0.2.{n}") for n in range(1, 9)]}
        (hop,) = self.look_up("example.org", zone, max_addresses=3)
        self.assertEqual(hop.addresses, ("2001:db8::1", "192.0.2.1", "2001:db8::2"))

    def test_addresses_of_no_host_are_left_out(self) -> None:
        for bad in (a("0.0.0.0"), a("224.0.0.1"), aaaa("::"), aaaa("ff02::1"), aaaa("::ffff:127.0.0.1")):
            (hop,) = self.look_up("example.org", {"example.org": [bad, a("192.0.2.1")]})
            self.assertEqual(hop.addresses, ("192.0.2.1",))
            self.refusal(BadDestination, "example.org", {"example.org": [bad]})


class MissingTests(Case):
    def test_implicit(self) -> None:
        self.assertEqual(
            self.look_up("example.org", {"example.org": [a("192.0.2.1"), aaaa("2001:db8::1")]}),
            [Hop("example.org", 0, ("2001:db8::1", "192.0.2.1"))],
        )

    def test_neither_mx_nor_address(self) -> None:
        text = self.refusal(BadDestination, "example.org", {"example.org": []})
        self.assertEqual(text, "550 5.1.2 example.org: neither a mail exchanger nor an address")

    def test_no_implicit_mx_beside_unusable_ones(self) -> None:
        resolver = Resolver({"example.org": [mx(10, "gone.example.org"), a("192.0.2.1")]})
        text = self.refusal(NoRoute, "example.org", resolver)
        self.assertEqual(text, "550 5.4.4 example.org: no mail exchanger has an address")
        self.assertNotIn(("A", "example.org"), resolver.asked)

    def test_null_mx(self) -> None:
        for root in ("", "."):
            resolver = Resolver({"example.org": [mx(0, root), a("192.0.2.1")]})
            text = self.refusal(NullMX, "example.org", resolver)
            self.assertEqual(text, "556 5.1.10 example.org: the domain does not accept mail")
            self.assertEqual(resolver.asked, [("MX", "example.org")])

    def test_null_mx_beside_others_counts_for_nothing(self) -> None:
        zone = {"example.org": [mx(0, ""), mx(10, "m.example.org")], "m.example.org": [a("192.0.2.1")]}
        self.assertEqual(hosts(self.look_up("example.org", zone)), ["m.example.org"])

    def test_an_exchanger_that_points_to_nothing_is_skipped(self) -> None:
        zone = {
            "example.org": [mx(1, "gone.example.org"), mx(2, "empty.example.org"), mx(3, "m.example.org")],
            "empty.example.org": [],
            "m.example.org": [a("192.0.2.1")],
        }
        self.assertEqual(hosts(self.look_up("example.org", zone)), ["m.example.org"])

    def test_names_that_are_none_are_skipped_and_never_asked_for(self) -> None:
        bad = ["192.0.2.9", "a b.example.org", "a\r\nb.example.org", "-a.example.org", "m\xe9.example.org", "a..b"]
        for name in [*bad, "x" * 64 + ".org"]:
            resolver = Resolver(
                {"example.org": [mx(1, name), mx(2, "m.example.org")], "m.example.org": [a("192.0.2.1")]}
            )
            self.assertEqual(hosts(self.look_up("example.org", resolver)), ["m.example.org"], name)
            self.assertEqual({asked for _, asked in resolver.asked}, {"example.org", "m.example.org"})
            text = self.refusal(NoRoute, "example.org", {"example.org": [mx(1, name)]})
            self.assertEqual(text, "550 5.4.4 example.org: no mail exchanger has the name of a host")

    def test_answers_under_another_name_do_not_count(self) -> None:
        resolver = Resolver({"example.org": [a("192.0.2.1")]})
        stray = header("victim.example", mx(1, "attacker.example"))
        resolver.answers["MX", "example.org"] = succeed(([stray], [], []))
        self.assertEqual(hosts(self.look_up("example.org", resolver)), ["example.org"])

    def test_records_of_other_kinds_do_not_count(self) -> None:
        resolver = Resolver({"example.org": [a("192.0.2.1")]})
        signature = dns.RRHeader(b"example.org", 46, dns.IN, 60, dns.UnknownRecord(b"signed"))
        resolver.answers["MX", "example.org"] = succeed(([signature, header("example.org", a("192.0.2.9"))], [], []))
        self.assertEqual(self.look_up("example.org", resolver), [Hop("example.org", 0, ("192.0.2.1",))])

    def test_the_case_of_an_answer_does_not_matter(self) -> None:
        resolver = Resolver({"m.example.org": [a("192.0.2.1")]})
        resolver.answers["MX", "example.org"] = succeed(([header("eXample.ORG", mx(1, "M.example.org"))], [], []))
        self.assertEqual(hosts(self.look_up("example.org", resolver)), ["m.example.org"])


class AliasTests(Case):
    def test_an_alias_is_processed_as_if_it_were_the_name(self) -> None:
        zone = {
            "example.org": [cname("Other.example.net.")],
            "other.example.net": [mx(10, "m.example.net")],
            "m.example.net": [cname("real.example.net")],
            "real.example.net": [a("192.0.2.1")],
        }
        self.assertEqual(self.look_up("example.org", zone), [Hop("m.example.net", 10, ("192.0.2.1",))])

    def test_implicit_behind_an_alias(self) -> None:
        zone = {"example.org": [cname("other.example.net")], "other.example.net": [a("192.0.2.1")]}
        self.assertEqual(self.look_up("example.org", zone), [Hop("other.example.net", 0, ("192.0.2.1",))])

    def test_the_whole_chain_in_one_answer(self) -> None:
        resolver = Resolver({"m.example.net": [a("192.0.2.1")]})
        chain = [
            header("c.example.net", mx(1, "m.example.net")),
            header("b.example.net", cname("c.example.net")),
            header("example.org", cname("b.example.net")),
        ]
        resolver.answers["MX", "example.org"] = succeed((chain, [], []))
        self.assertEqual(hosts(self.look_up("example.org", resolver)), ["m.example.net"])
        self.assertEqual([asked for asked in resolver.asked if asked[0] == "MX"], [("MX", "example.org")])

    def test_a_circle_ends_and_is_temporary(self) -> None:
        resolver = Resolver({"a.example": [cname("b.example")], "b.example": [cname("a.example")]})
        self.assertIn("451 4.4.3 a.example: a circle", self.refusal(LookupFailed, "a.example", resolver))
        self.assertEqual(len(resolver.asked), 2)
        self.refusal(LookupFailed, "a.example", {"a.example": [cname("a.example")]})

    def test_a_circle_in_one_answer_ends(self) -> None:
        resolver = Resolver()
        circle = [header("a.example", cname("b.example")), header("b.example", cname("a.example"))]
        resolver.answers["MX", "a.example"] = succeed((circle, [], []))
        self.refusal(LookupFailed, "a.example", resolver)

    def test_the_bound(self) -> None:
        zone: dict[str, Any] = {f"n{n}.example": [cname(f"n{n + 1}.example")] for n in range(MAX_ALIASES + 1)}
        zone |= {f"n{MAX_ALIASES + 1}.example": [a("192.0.2.1")]}
        resolver = Resolver(zone)
        self.refusal(LookupFailed, "n0.example", resolver)
        self.assertEqual(len(resolver.asked), MAX_ALIASES + 1)
        self.assertEqual(hosts(self.look_up("n1.example", zone)), [f"n{MAX_ALIASES + 1}.example"])

    def test_an_alias_of_nothing_or_of_no_name(self) -> None:
        text = self.refusal(BadDestination, "example.org", {"example.org": [cname("gone.example")]})
        self.assertEqual(text, "550 5.1.2 example.org: there is no gone.example")
        self.refusal(BadDestination, "example.org", {"example.org": [cname("a\nb.example")]})


class DoubtTests(Case):
    def test_no_such_domain(self) -> None:
        for exception in (error.DNSNameError(), error.AuthoritativeDomainError()):
            text = self.refusal(BadDestination, "example.org", {"example.org": exception})
            self.assertEqual(text, "550 5.1.2 example.org: there is no example.org")

    def test_whatever_else_is_temporary(self) -> None:
        doubts = [
            error.DNSServerError(), error.DNSQueryRefusedError(), error.DNSFormatError(), error.DNSUnknownError(),
            error.DNSNotImplementedError(), error.DomainError(), error.ResolverError(), error.DNSQueryTimeoutError(1),
            TimeoutError(), OSError("no network"), ConnectError(), NotImplementedError(), CancelledError(),
        ]  # fmt: skip
        for doubt in doubts:
            text = self.refusal(LookupFailed, "example.org", {"example.org": doubt})
            self.assertIn("451 4.4.3 example.org: cannot look up MX of example.org (", text)
            zone = {"example.org": [mx(1, "gone.example"), mx(2, "m.example")], "m.example": doubt}
            text = self.refusal(LookupFailed, "example.org", zone)
            self.assertIn("example.org: cannot look up AAAA of m.example (", text)
            implicit = Resolver({"example.org": []})
            implicit.failures["A", "example.org"] = doubt
            self.assertIn("cannot look up A of", self.refusal(LookupFailed, "example.org", implicit))

    def test_the_reason_is_the_cause(self) -> None:
        doubt = error.DNSServerError()
        failure = self.failureResultOf(self.start("example.org", Resolver({"example.org": doubt})), LookupFailed)
        self.assertIs(failure.value.__cause__, doubt)
        self.assertTrue(failure.value.temporary)

    def test_a_fault_of_the_resolver_is_no_doubt(self) -> None:
        self.failureResultOf(self.start("example.org", Resolver({"example.org": KeyError("x")})), KeyError)
        zone = {"example.org": [mx(1, "m.example")], "m.example": KeyError("x")}
        self.failureResultOf(self.start("example.org", Resolver(zone)), KeyError)

    def test_one_good_host_or_family_is_enough(self) -> None:
        resolver = Resolver({"example.org": [mx(1, "ill.example"), mx(2, "m.example")], "m.example": [a("192.0.2.1")]})
        resolver.zone["ill.example"] = error.DNSServerError()
        resolver.failures["AAAA", "m.example"] = error.DNSServerError()
        self.assertEqual(self.look_up("example.org", resolver), [Hop("m.example", 2, ("192.0.2.1",))])

    def test_a_referral_says_nothing(self) -> None:
        resolver = Resolver({"example.org": []})
        resolver.referring = True
        self.assertIn("a referral instead of MX", self.refusal(LookupFailed, "example.org", resolver))

    def test_name_servers_beside_the_start_of_the_zone_are_no_referral(self) -> None:
        resolver = Resolver({"example.org": [a("192.0.2.1")]})
        soa = dns.Record_SOA(b"ns.example.org", b"root.example.org")
        authority = [header("example.org", record) for record in (soa, dns.Record_NS(b"ns.example.org"))]
        resolver.answers["MX", "example.org"] = succeed(([], authority, []))
        self.assertEqual(hosts(self.look_up("example.org", resolver)), ["example.org"])


class TimeTests(Case):
    def test_silence_ends_at_the_time_limit(self) -> None:
        resolver = Resolver()
        resolver.answers["MX", "example.org"] = Deferred()
        looking = self.start("example.org", resolver, timeout=7)
        self.clock.advance(6.9)
        self.assertNoResult(looking)
        self.clock.advance(0.2)
        self.assertIn("(TimeoutError)", str(self.failureResultOf(looking, LookupFailed).value))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        resolver.answers["MX", "example.org"].callback(([], [], []))  # too late, and nobody minds

    def test_the_limit_is_for_all_questions_together(self) -> None:
        resolver = Resolver({"example.org": []})
        slow: Deferred[Any] = Deferred()
        resolver.answers["MX", "a.example"] = slow
        resolver.answers["MX", "b.example"] = Deferred()
        looking = self.start("a.example", resolver, timeout=10)
        self.clock.advance(6)
        slow.callback(([header("a.example", cname("b.example"))], [], []))
        self.clock.advance(3.9)
        self.assertNoResult(looking)
        self.clock.advance(0.2)
        self.failureResultOf(looking, LookupFailed)

    def test_what_is_known_at_the_end_is_used(self) -> None:
        resolver = Resolver({"example.org": [mx(1, "dumb.example"), mx(2, "m.example")], "m.example": [a("192.0.2.1")]})
        resolver.answers["A", "dumb.example"] = Deferred()
        resolver.answers["AAAA", "dumb.example"] = Deferred()
        looking = self.start("example.org", resolver, timeout=10)
        self.assertNoResult(looking)
        self.clock.advance(10)
        self.assertEqual(hosts(self.successResultOf(looking)), ["m.example"])

    def test_no_question_without_time(self) -> None:
        resolver = Resolver({"example.org": []})
        self.assertIn("no time left", self.refusal(LookupFailed, "example.org", resolver, timeout=0))
        self.assertEqual(resolver.asked, [])

    def test_cancelling_ends_the_waiting_and_not_the_shared_question(self) -> None:
        ended: list[Failure] = []
        resolver = Resolver({"example.org": [mx(1, "m.example")]})
        for kind in ("A", "AAAA"):
            question: Deferred[Any] = Deferred()
            question.addErrback(ended.append)
            resolver.answers[kind, "m.example"] = question
        looking = self.start("example.org", resolver)
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertEqual((ended, self.clock.getDelayedCalls()), ([], []))


class NameTests(Case):
    def test_u_labels_case_and_the_trailing_dot(self) -> None:
        zone = {"xn--bcher-kva.example": [a("192.0.2.1")]}
        for domain in ("bücher.example", "BÜCHER.Example.", "xn--bcher-kva.example", "XN--Bcher-kva.example."):
            self.assertEqual(hosts(self.look_up(domain, zone)), ["xn--bcher-kva.example"])

    def test_u_labels_without_the_package(self) -> None:
        zone = {"xn--bcher-kva.example": [a("192.0.2.1")]}
        with patch.dict(sys.modules, {"idna": None}):
            self.assertEqual(hosts(self.look_up("Bücher.example.", zone)), ["xn--bcher-kva.example"])
            self.refusal(BadDestination, "bü" * 40 + ".example", {})

    def test_hosts_that_are_addresses_in_disguise(self) -> None:
        zone = {"example.org": [mx(1, "0x7f.1"), mx(2, "127.0.0.0x1"), mx(3, "mx.org")], "mx.org": [a("192.0.2.1")]}
        self.assertEqual(hosts(self.look_up("example.org", zone)), ["mx.org"])

    def test_no_names(self) -> None:
        bad = [
            "", ".", "..", "a..b", ".example.org", "example.org..", "a b.org", "a\0b.org", "a\r\nb.org", "-a.org",
            "a-.org", "x" * 64 + ".org", "a." * 126 + "org", "ü" * 300, "a/b.org", "192.0.2.1", "example.org\n",
            "\u2028.org", "ü..org", "\ud800.org", "xn--ü.org", "a@b.org",
            # Resolvers that answer without DNS take these for IPv4 addresses.
            "0x7f.0x1", "0x7f000001", "127.0.0.0x1", "a.0x",
        ]  # fmt: skip
        for domain in bad:
            resolver = Resolver()
            text = self.refusal(BadDestination, domain, resolver)
            self.assertTrue(text.startswith("550 5.1.2 ") and text.endswith("not a domain name"), text)
            self.assertEqual(resolver.asked, [])

    def test_the_codec_never_sees_a_long_name(self) -> None:
        with patch("smtpfw.client.hosts.to_a_labels", return_value="example.org") as codec:
            self.refusal(BadDestination, "ü" * 255, {})
            codec.assert_not_called()
            self.look_up("ü" * 253 + ".", {"example.org": [a("192.0.2.1")]})
            codec.assert_called_once_with("ü" * 253, uts46=True)

    def test_long_names_and_underscores(self) -> None:
        longest = ".".join(["x" * 63, "x" * 63, "x" * 63, "x" * 61])
        self.assertEqual(len(longest), 253)
        for domain in (longest, longest + ".", "_dmarc.example.org", "a", "3com.example", "1.2.example"):
            name = domain.removesuffix(".")
            self.assertEqual(hosts(self.look_up(domain, {name: [a("192.0.2.1")]})), [name])

    def test_literals_need_no_dns(self) -> None:
        resolver = Resolver()
        self.assertEqual(self.look_up("[192.0.2.1]", resolver), [Hop("[192.0.2.1]", 0, ("192.0.2.1",))])
        self.assertEqual(
            self.look_up("[IPv6:2001:DB8::0:1]", resolver), [Hop("[IPv6:2001:DB8::0:1]", 0, ("2001:db8::1",))]
        )
        self.assertEqual(resolver.asked, [])

    def test_no_literals(self) -> None:
        bad = [
            "[", "[]", "[192.0.2.1", "[192.0.2]", "[192.0.2.1]x", "[2001:db8::1]", "[IPv6:192.0.2.1]",
            "[IPv6:fe80::1%eth0]", "[x-tag:data]", "[192.0.2.1\r\n]", "[0.0.0.0]", "[IPv6:::]",
            "[IPv6:::ffff:127.0.0.1]", "[224.0.0.1]",
        ]  # fmt: skip
        for literal in bad:
            self.refusal(BadDestination, literal, {})


@pytest.mark.parametrize("source", [None, Random(1)])
def test_the_shuffle_reaches_every_equal(source: Random | None) -> None:
    zone: dict[str, Any] = {f"m{number}.example": [a("192.0.2.1")] for number in range(3)}
    zone["example.org"] = [mx(10, f"m{number}.example") for number in range(3)]
    first = set()
    for _ in range(200):
        first.add(now(look_up_mx("example.org", Resolver(zone), clock=Clock(), random=source))[0].host)
    assert first == {"m0.example", "m1.example", "m2.example"}


def now(looking: Coroutine[Any, Any, list[Hop]]) -> list[Hop]:
    """What a look-up gives that has nothing to wait for."""
    results: list[list[Hop]] = []
    Deferred.fromCoroutine(looking).addCallback(results.append)
    return results[0]


class Zone(FileAuthority):
    """A zone of Twisted's, from memory."""

    def __init__(self, records: dict[str, list[Any]]) -> None:
        common.ResolverBase.__init__(self)
        self._cache: dict[Any, Any] = {}
        self.soa = (b"example.org", dns.Record_SOA(b"ns.example.org", b"root.example.org"))
        self.records = {name.encode(): entries for name, entries in records.items()}


class Server(DNSServerFactory):
    """A server of Twisted's that cuts what does not fit into a datagram (RFC 1035 section 4.2.1); its own does not."""

    noisy = False
    cut = 0

    def sendReply(self, protocol: Any, message: Any, address: Any) -> None:
        if address is not None and len(message.toStr()) > 512:
            message.trunc, message.answers, message.additional = 1, [], []
            self.cut += 1
        super().sendReply(protocol, message, address)


class RealServerTests(TestCase):
    """The same against a name server on loopback, by UDP and, where an answer is cut short, by TCP."""

    RECORDS = {  # noqa: RUF012
        "example.org": [mx(20, "b.example.org"), mx(10, "a.example.org")],
        "a.example.org": [a("192.0.2.1"), aaaa("2001:db8::1")],
        "b.example.org": [cname("c.example.org")],
        "c.example.org": [a("192.0.2.3")],
        "alias.example.org": [cname("example.org")],
        "plain.example.org": [a("192.0.2.4")],
        "null.example.org": [mx(0, "")],
        "lost.example.org": [mx(10, "gone.example.org")],
        "large.example.org": [mx(n, f"a-very-long-name-of-a-mail-exchanger-{n}.example.org") for n in range(60)],
        "a-very-long-name-of-a-mail-exchanger-0.example.org": [a("192.0.2.5")],
    }

    def setUp(self) -> None:
        server = Server(authorities=[Zone(self.RECORDS)])
        tcp = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.addCleanup(tcp.stopListening)
        number = tcp.getHost().port
        udp = reactor.listenUDP(number, dns.DNSDatagramProtocol(server), interface="127.0.0.1")
        self.addCleanup(udp.stopListening)
        self.resolver = client.Resolver(servers=[("127.0.0.1", number)])
        self.server = server

    async def look_up(self, domain: str) -> list[Hop]:
        return await look_up_mx(domain, self.resolver, clock=reactor)

    async def test_all(self) -> None:
        exchangers = [
            Hop("a.example.org", 10, ("2001:db8::1", "192.0.2.1")),
            Hop("b.example.org", 20, ("192.0.2.3",)),
        ]
        self.assertEqual(await self.look_up("example.org"), exchangers)
        self.assertEqual(await self.look_up("Alias.Example.org."), exchangers)
        self.assertEqual(await self.look_up("plain.example.org"), [Hop("plain.example.org", 0, ("192.0.2.4",))])
        for domain, expected in [
            ("null.example.org", NullMX),
            ("lost.example.org", NoRoute),
            ("nowhere.example.org", BadDestination),
        ]:
            with self.assertRaises(expected):
                await self.look_up(domain)

    async def test_an_answer_too_large_for_a_datagram(self) -> None:
        hops = await self.look_up("large.example.org")
        self.assertEqual(hops, [Hop("a-very-long-name-of-a-mail-exchanger-0.example.org", 0, ("192.0.2.5",))])
        self.assertEqual(self.server.cut, 1)
        self.assertEqual(len(self.resolver.connections), 1)
        for protocol in self.resolver.connections:
            closed: Deferred[None] = Deferred()
            self.patch(self.resolver, "connectionLost", lambda _, closed=closed: closed.callback(None))
            protocol.transport.loseConnection()
            await closed
