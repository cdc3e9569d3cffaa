"""Which target a recipient belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw import Session, SessionBackend
from smtpfw.backends.mux.routes import Routes
from smtpfw.errors import ConfigError
from smtpfw.wire.grammar import Address

TIM, ORG, QUOTED, LITERAL, POST, REST = (SessionBackend(Session) for _ in range(6))
TABLE = {
    "tim@example.org": TIM,
    "Example.ORG": ORG,
    '"Tim B."@example.org': QUOTED,
    "@[IPv6:2001:DB8::1]": LITERAL,
    "postmaster": POST,
    "postmaster@mx.test": TIM,
    "jürgen@münchen.test": TIM,
}


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("tim@example.org", TIM),
        ("TIM@EXAMPLE.org", TIM),
        ("tom@example.org", ORG),
        ("tim+tag@example.org", ORG),
        ("tim@sub.example.org", REST),
        ("tim@example.organic", REST),
        ('"tim b."@example.org', QUOTED),
        ("x@[ipv6:2001:db8::1]", LITERAL),
        ("JÜRGEN@MÜNCHEN.test", TIM),
        ("ju\u0308rgen@mu\u0308nchen.test", TIM),
        ("peter@münchen.test", REST),
        ("postmaster@example.org", ORG),
        ('"x@example.org"@elsewhere.test', REST),
    ],
)
def test_an_address_beats_its_domain_and_that_the_default(recipient: str, found: object) -> None:
    for items in (TABLE.items(), reversed(TABLE.items())):
        assert Routes(dict(items), REST).find(Address.parse(recipient), "mx.test") is found


def test_nobody() -> None:
    assert Routes(TABLE).find(Address("x", "elsewhere.test"), "mx.test") is None


@pytest.mark.parametrize(
    ("left_out", "hostname", "found"),
    [
        ((), "mx.test", POST),
        (("postmaster",), "MX.test", TIM),
        (("postmaster", "postmaster@mx.test"), "example.org", ORG),
        (("postmaster", "postmaster@mx.test"), "mx.test", REST),
    ],
)
def test_the_postmaster_without_a_domain(left_out: tuple[str, ...], hostname: str, found: object) -> None:
    routes = Routes({pattern: target for pattern, target in TABLE.items() if pattern not in left_out}, REST)
    for local_part in ("postmaster", "Postmaster"):
        assert routes.find(Address(local_part), hostname) is found


@pytest.mark.parametrize(
    ("routes", "default", "said"),
    [
        ({"example.org": ORG}, None, "nobody is named for <postmaster>"),
        ({}, None, "nobody is named for <postmaster>"),
        ({"example.org": ORG, "@EXAMPLE.org": TIM}, REST, "mux route @EXAMPLE.org: it is there twice"),
        ({"tim@example.org": ORG, "Tim@example.org": TIM}, REST, "it is there twice"),
        ({"": ORG}, REST, "mux route ''"),
        ({"tim@": ORG}, REST, "mux route 'tim@'"),
        ({"@": ORG}, REST, "mux route '@'"),
        ({"*": ORG}, REST, "an address, a domain or postmaster"),
        ({"a..b": ORG}, REST, "a dot at the edge of the domain"),
        ({"a b@example.org": ORG}, REST, "mux route 'a b@example.org'"),
        ({"example.org": Session}, REST, "is no backend"),
        ({"example.org": ORG}, Session, "mux route default"),
    ],
)
def test_what_is_no_table(routes: dict[str, object], default: object, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Routes(routes, default)  # type: ignore[arg-type]
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_host_called_postmaster() -> None:
    routes = Routes({"@postmaster": ORG}, REST)
    assert routes.find(Address("x", "postmaster"), "mx.test") is ORG
    assert routes.find(Address("postmaster"), "mx.test") is REST


def test_in_words() -> None:
    assert Routes({"b.test": ORG, "Postmaster": ORG, "@a.test": TIM}, ORG).describe() == [
        ("b.test, <postmaster>, everybody else", ORG),
        ("@a.test", TIM),
    ]
    assert Routes({}, ORG).describe() == [("everybody", ORG)]


LOCAL_PARTS = st.sampled_from(["tim", "Tim", "TIM", "tom", "postmaster"])
DOMAINS = st.sampled_from(["a.test", "A.test", "b.a.test", "b.test"])
PATTERNS = st.one_of(DOMAINS, st.builds("@{}".format, DOMAINS), st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS))


@given(st.lists(PATTERNS, unique_by=lambda pattern: pattern.lower().removeprefix("@")), LOCAL_PARTS, DOMAINS)
def test_as_a_search_from_the_narrowest_pattern(patterns: list[str], local_part: str, domain: str) -> None:
    targets = {pattern: SessionBackend(Session) for pattern in patterns}
    folded = {pattern.lower().removeprefix("@"): target for pattern, target in targets.items()}
    expected = folded.get(f"{local_part}@{domain}".lower()) or folded.get(domain.lower()) or REST
    assert Routes(targets, REST).find(Address(local_part, domain), "mx.test") is expected
