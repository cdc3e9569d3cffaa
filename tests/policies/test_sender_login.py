"""Who may use which sender."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import TestCase

from smtpfw import Address
from smtpfw.errors import SMTPError, TryAgainLater
from smtpfw.hooks import call_hook
from smtpfw.policies import SenderBelongsToLogin
from smtpfw.wire.grammar import NULL_SENDER
from tests.policies.fakes import OPTIONS, connection, mail

OWNERS = {
    "tim": ["sales@example.org", "@tim.test"],
    "ann@example.org": "info@example.org",
    "odd": ["", "@", "not an address", '"a b"@example.org'],
}

OWN = [
    ("tim@example.org", "tim@example.org"),
    ("Tim@Example.ORG", "tIM@example.org"),
    ("tim", "tim@example.org"),
    ("tim", "TIM@Example.Org"),
    ("tim", "tim@example.net"),
    ("tim", "sales@example.org"),
    ("tim", "whatever@TIM.test"),
    ("ann@example.org", "info@example.org"),
    ("ann@example.org", "ann@example.org"),
    ("odd", '"a b"@example.org'),
    ('"a b"@c.test', '"a b"@c.test'),
    # No identity: another check's business.
    ("", "anybody@anywhere.test"),
]
FOREIGN = [
    ("tim@example.org", "ann@example.org"),
    ("tim@example.org", "tim@example.net"),
    ("tim@example.org", "tim+news@example.org"),
    ("tim", "tim@elsewhere.test"),
    ("tim", "sales@example.net"),
    ("tim", "whatever@sub.tim.test"),
    ("tim", "ann@example.org"),
    ("ann@example.org", "sales@example.org"),
    ("ann", "info@example.org"),
    ("kim", "\u212aim@example.org"),
    ("\u212aim", "kim@example.org"),
    ("stra\u00dfe", "strasse@example.org"),
    ("odd", "a@b.test"),
    ("@example.org", "ann@example.org"),
    # The postmaster without a domain is not the one of a domain that somebody has.
    ("odd", "postmaster"),
    ("postmaster", "postmaster"),
]
DOMAINS = ["Example.org", "@example.net"]


def address(text: str) -> Address:
    return Address.parse(text) if "@" in text else Address(text)


@pytest.mark.parametrize(("identity", "sender"), OWN)
def test_own(identity: str, sender: str) -> None:
    check = SenderBelongsToLogin(OWNERS, domains=DOMAINS)
    assert mail(check, connection(identity=identity), address(sender)) == ""


@pytest.mark.parametrize(("identity", "sender"), FOREIGN)
def test_foreign(identity: str, sender: str) -> None:
    check = SenderBelongsToLogin(OWNERS, domains=DOMAINS)
    expected = f"553 5.7.1 Sender address <{address(sender)}> is not yours"
    assert mail(check, connection(identity=identity), address(sender)) == expected


def test_the_null_sender_is_everybodys() -> None:
    assert mail(SenderBelongsToLogin(), connection(identity="tim"), NULL_SENDER) == ""


def test_without_owners_and_domains_a_bare_name_has_nothing() -> None:
    check = SenderBelongsToLogin()
    assert mail(check, connection(identity="tim"), Address("tim", "example.org")).startswith("553 5.7.1")


def test_one_domain_is_not_its_letters() -> None:
    check = SenderBelongsToLogin(domains="example.org")
    assert check.domains == ("example.org",)


def test_a_mapping_may_change() -> None:
    owners: dict[str, str] = {}
    check = SenderBelongsToLogin(owners)
    tim, sales = connection(identity="tim"), Address("sales", "example.org")
    assert mail(check, tim, sales).startswith("553")
    owners["tim"] = "sales@example.org"
    assert mail(check, tim, sales) == ""


async def _later(identity: str) -> list[str]:
    return OWNERS["tim"] if identity == "tim" else []  # type: ignore[return-value]


@pytest.mark.parametrize("owners", [OWNERS.get, _later, lambda identity: succeed(OWNERS.get(identity))])
def test_a_function_of_any_kind(owners: Any) -> None:
    check = SenderBelongsToLogin(owners)
    assert mail(check, connection(identity="tim"), Address("sales", "example.org")) == ""
    assert mail(check, connection(identity="bob"), Address("sales", "example.org")).startswith("553 5.7.1")


def test_a_function_may_refuse_in_its_own_words() -> None:
    check = SenderBelongsToLogin(lambda identity: fail(TryAgainLater()))
    assert mail(check, connection(identity="tim"), Address("x", "y.test")) == "451 4.3.0 Try again later"


def test_a_function_is_not_asked_without_need() -> None:
    def owners(identity: str) -> None:
        raise AssertionError

    check = SenderBelongsToLogin(owners)
    assert mail(check, connection(identity="tim@b.test"), Address("tim", "b.test")) == ""
    assert mail(check, connection(identity="tim@b.test"), NULL_SENDER) == ""
    assert mail(check, connection(), Address("tim", "b.test")) == ""


class WaitingTests(TestCase):
    def ask(self) -> tuple[Deferred[Any], Deferred[Any]]:
        self.cancelled: list[Deferred[Any]] = []
        asked: Deferred[Any] = Deferred(self.cancelled.append)
        check = SenderBelongsToLogin(lambda identity: asked)
        answer = call_hook(check.mail, connection(identity="tim"), Address("x", "y.test"), OPTIONS)
        self.assertNoResult(answer)
        return asked, answer

    def test_it_is_waited_for(self) -> None:
        asked, answer = self.ask()
        asked.callback("x@y.test")
        self.assertIsNone(self.successResultOf(answer))
        asked, answer = self.ask()
        asked.callback(None)
        self.assertEqual(self.failureResultOf(answer, SMTPError).value.code, 553)

    def test_it_is_cancelled_with_the_check(self) -> None:
        asked, answer = self.ask()
        answer.cancel()
        self.assertEqual(self.cancelled, [asked])
        self.failureResultOf(answer, CancelledError)


def test_words() -> None:
    check = SenderBelongsToLogin(domains=["example.org", "example.net"])
    assert check.describe() == (
        "Authenticated clients send under their own addresses only, "
        "names without a domain have theirs in example.org, example.net"
    )
    assert SenderBelongsToLogin().describe() == "Authenticated clients send under their own addresses only"
    # Who owns what is nobody's business in a log.
    assert repr(SenderBelongsToLogin(OWNERS)) == "SenderBelongsToLogin(owners=..., domains=())"
