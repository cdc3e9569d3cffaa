"""What checks that ask DNS have in common: where they decide, whom they let in, and what if nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.dns.questions import NotKnown
from smtpfw.errors import SMTPError
from smtpfw.extensions import STANDARD, XClient
from smtpfw.hooks import call_hook
from smtpfw.policies.client_lookup import MAX_OF_NETWORK, PASS, UNKNOWN, ClientLookUp, Verdict
from smtpfw.policies.log_throttle import INTERVAL, LogThrottle
from smtpfw.server.origin import NOBODY_KNOWS
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.testing.memory import PEER
from tests.policies.fakes import OPTIONS, SENDER, connect, connection, mail, rcpt

BAD = Verdict("not you")
UNKNOWN_AT_CONNECT = "421 4.7.1 Your address can't be looked up, try again later"


class Told(ClientLookUp):
    """Has the verdict that it is told, or waits for it."""

    def __init__(self, verdict: Any = BAD, **settings: Any) -> None:
        super().__init__(**settings)
        self.verdict = verdict
        self.asked: list[str] = []
        self.cancelled = 0
        self.waiting: list[Deferred[Verdict]] = []

    async def ask(self, address: IPv4Address | IPv6Address, resolver: Any, clock: Any) -> Verdict:
        self.asked.append(f"{address} {resolver}")
        if self.verdict is not None:
            return self.verdict  # type: ignore[no-any-return]
        self.waiting.append(Deferred())
        try:
            return await self.waiting[-1]
        except CancelledError:
            self.cancelled += 1
            raise


STAGES: dict[str, Callable[[Any, Any], str]] = {"connect": connect, "mail": mail, "rcpt": rcpt}


@pytest.mark.parametrize("at", STAGES)
def test_it_is_decided_there_and_nowhere_else(at: str) -> None:
    check, client = Told(at=at), connection()
    answers = {stage: ask(check, client) for stage, ask in STAGES.items()}
    code = 554 if at == "connect" else 550
    assert answers == {stage: f"{code} 5.7.1 not you" if stage == at else "" for stage in STAGES}
    assert mail(check, client) == answers["mail"] and rcpt(check, client) == answers["rcpt"]
    assert check.asked == ["192.0.2.1 None"]


@pytest.mark.parametrize(
    ("unknown", "at", "answer"),
    [
        ("pass", "connect", ""),
        ("pass", "rcpt", ""),
        ("refuse", "connect", UNKNOWN_AT_CONNECT),
        ("refuse", "mail", "451 4.7.1 Your address can't be looked up, try again later"),
        ("refuse", "rcpt", "451 4.7.1 Your address can't be looked up, try again later"),
    ],
)
def test_nobody_knows(unknown: str, at: str, answer: str) -> None:
    assert STAGES[at](Told(UNKNOWN, unknown=unknown, at=at), connection()) == answer


def test_whom_nobody_asks_about() -> None:
    check = Told(unknown="refuse", except_networks=["203.0.113.0/24", "2001:db8:1::/48"])
    spared = ["", "127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "fd00::1"]
    spared += ["fe80::1%eth0", "::ffff:10.0.0.1", "203.0.113.9", "::ffff:203.0.113.9", "2001:db8:1::9"]
    assert [connect(check, connection(host)) for host in spared] == [""] * len(spared)
    assert check.asked == []
    assert connect(check, connection("172.32.0.1")) and connect(check, connection("2001:db8:2::1"))


def test_who_has_authenticated_is_let_in() -> None:
    for at in ("mail", "rcpt"):
        check, client = Told(at=at), connection(identity="tim")
        assert mail(check, client) == rcpt(check, client) == ""
        assert check.asked == []
        client.mechanism = "ANONYMOUS"
        assert STAGES[at](check, client)


def test_the_resolver_is_its_own_or_that_of_the_server() -> None:
    for check, name in ((Told(), "server"), (Told(resolver="mine"), "mine")):
        connect(check, connection(resolver="server"))
        assert check.asked == [f"192.0.2.1 {name}"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"at": "data"}, "at: 'data' is none of connect, mail, rcpt"),
        ({"unknown": "maybe"}, "unknown: 'maybe' is none of pass, refuse"),
        ({"timeout": 0}, "timeout: 0 is not above 0"),
        ({"except_networks": "x"}, "'x' is no network"),
    ],
)
def test_mistakes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Told(**settings)


def test_the_log_is_told_once_in_a_while() -> None:
    throttle = LogThrottle()
    assert throttle.due("a", 0) and throttle.due("b", 1)
    assert not throttle.due("a", INTERVAL - 1)
    assert throttle.due("a", INTERVAL) and not throttle.due("a", INTERVAL + 1)
    # The clock was set back.
    assert throttle.due("a", 5)


class WaitingTests(TestCase):
    def setUp(self) -> None:
        self.check = Told(None, at="rcpt")
        self.client = connection()

    def ask(self, stage: str) -> Any:
        return call_hook(getattr(self.check, stage), self.client, SENDER, OPTIONS)

    def test_it_begins_at_mail_and_waits_at_rcpt(self) -> None:
        self.assertIsNone(self.ask("mail"))
        self.assertEqual(len(self.check.waiting), 1)
        answer = self.ask("rcpt")
        self.assertNoResult(answer)
        self.check.waiting[0].callback(BAD)
        self.assertEqual(str(self.failureResultOf(answer, SMTPError).value), "550 5.7.1 not you")
        # It is remembered.
        self.assertEqual(rcpt(self.check, self.client), "550 5.7.1 not you")
        self.assertEqual(len(self.check.waiting), 1)

    def test_an_answer_between_mail_and_rcpt(self) -> None:
        self.ask("mail")
        self.check.waiting[0].callback(PASS)
        self.assertIsNone(self.ask("rcpt"))

    def test_who_goes_before_rcpt(self) -> None:
        self.ask("mail")
        self.check.disconnected(self.client)
        self.assertEqual(self.client.context, {})
        self.check.disconnected(self.client)
        # Its questions are on their way all the same.
        self.assertEqual(self.check.cancelled, 0)
        self.check.waiting[0].callback(BAD)
        self.assertIsNone(self.ask("mail"))
        self.assertEqual(len(self.check.waiting), 2)

    def test_who_goes_within_rcpt(self) -> None:
        answer = self.ask("rcpt")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.check.disconnected(self.client)
        self.assertEqual(self.client.context, {})

    def test_one_look_up_for_an_address(self) -> None:
        others = [connection() for _ in range(50)]
        answers = [self.ask("rcpt"), *(call_hook(self.check.rcpt, other, SENDER, OPTIONS) for other in others)]
        self.assertEqual(self.check.asked, ["192.0.2.1 None"])
        answers[1].cancel()
        self.failureResultOf(answers[1], CancelledError)
        self.check.waiting[0].callback(BAD)
        for answer in (answers[0], *answers[2:]):
            self.failureResultOf(answer, SMTPError)

    def test_a_network_has_its_share(self) -> None:
        self.check.unknown = "refuse"

        def come(host: str) -> Any:
            return call_hook(self.check.rcpt, connection(host), SENDER, OPTIONS)

        first = [come(f"192.0.2.{number}") for number in range(MAX_OF_NETWORK)]
        for answer in first[1:]:
            # Who goes does not make room: it is still being looked up.
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        with self.assertRaises(SMTPError) as caught:
            come("192.0.2.99")
        self.assertEqual(caught.exception.code, 451)
        for host in ("198.51.100.1", "2001:db8::1"):
            self.assertNoResult(come(host))
        for waiting in self.check.waiting[:MAX_OF_NETWORK]:
            waiting.callback(PASS)
        self.assertIsNone(self.successResultOf(first[0]))
        self.assertNoResult(come("192.0.2.99"))

    def test_a_fault_is_not_remembered(self) -> None:
        answer = self.ask("rcpt")
        self.check.waiting[0].errback(KeyError("a bug"))
        self.failureResultOf(answer, KeyError)
        answer = self.ask("rcpt")
        self.check.waiting[1].callback(PASS)
        self.assertIsNone(self.successResultOf(answer))


@pytest.mark.parametrize(("unknown", "answer"), [("pass", ""), ("refuse", UNKNOWN_AT_CONNECT)])
def test_nobody_can_be_asked(unknown: str, answer: str) -> None:
    class Server:
        clock = Clock()

        @property
        def resolver(self) -> Any:
            raise NotKnown("the system's settings can't be read")

    client = connection()
    client.server = Server()
    check = Told(unknown=unknown)
    assert connect(check, client) == answer
    assert check.asked == []


@pytest.mark.parametrize(("unknown", "answer"), [("pass", ""), ("refuse", UNKNOWN_AT_CONNECT)])
def test_an_address_that_nobody_knows(unknown: str, answer: str) -> None:
    client = connection("", peer=NOBODY_KNOWS)
    check = Told(unknown=unknown)
    assert connect(check, client) == answer
    assert check.asked == []


def test_a_client_whose_address_the_proxy_does_not_know() -> None:
    for unknown, code in (("pass", b"220"), ("refuse", b"421")):
        # The proxy itself is one that is let in.
        check = Told(unknown=unknown, except_networks=[PEER.host])
        factory = SMTPServerFactory(
            RecordingBackend(),
            ServerConfig(hostname="mx.test"),
            checks=[check],
            reactor=Clock(),
            extensions=[*STANDARD, XClient(PEER.host)],
            resolver="nobody",
        )
        client = MemoryClient.of(factory, PEER)
        client.send(b"EHLO proxy\r\n")
        answer = client.send(b"XCLIENT ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]\r\n")
        assert answer.startswith(code), answer
        assert check.asked == []
