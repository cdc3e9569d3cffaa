"""Whom a pattern is for, and which one is for all that another one is for."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.backends.mux.patterns import Pattern, fold
from smtpfw.errors import ConfigError
from smtpfw.wire.grammar import Address


def fits(pattern: str, recipient: str) -> bool:
    address = Address.parse(recipient)
    return Pattern.parse(pattern).fits(fold(address.local_part), fold(address.domain))


@pytest.mark.parametrize(
    ("pattern", "for_these", "not_for_these"),
    [
        (
            "tim@example.org",
            "TIM@Example.ORG",
            "tom@example.org; tim@sub.example.org; tim+x@example.org; tim@example.net",
        ),
        ("example.org", "x@example.org; X@EXAMPLE.org", "x@sub.example.org; x@notexample.org; x@example.organic"),
        ("@example.org", "x@example.org", "x@sub.example.org"),
        ("*@example.org", "x@example.org", "x@sub.example.org"),
        (".example.org", "x@sub.example.org; x@a.b.example.org", "x@example.org; x@notexample.org"),
        ("*.Example.org", "x@sub.example.ORG; x@a.b.example.org", "x@example.org"),
        ("@.example.org", "x@sub.example.org", "x@example.org"),
        ("tim@*.example.org", "tim@sub.example.org", "tom@sub.example.org; tim@example.org"),
        ("tim@*", "tim@example.org; tim@[192.0.2.1]", "tom@example.org; postmaster"),
        ("*", "x@example.org; x@[192.0.2.1]", "postmaster"),
        ("**@*", "x@example.org", "postmaster"),
        ("list-*@example.org", "list-@example.org; LIST-a-b@example.org", "list@example.org; x-list-a@example.org"),
        ("*-list@*", "a-list@example.org; -list@x.test", "list@example.org; a-list-b@example.org"),
        ("a*b*b@x.test", "abb@x.test; aXbXb@x.test; abbb@x.test", "ab@x.test; aXb@x.test; xabb@x.test"),
        ("a*a@x.test", "aa@x.test; aaa@x.test", "a@x.test"),
        ('"a*b"@x.test', '"a*b"@x.test; a*b@x.test', "axb@x.test"),
        ('"*"@x.test', "*@x.test", "x@x.test"),
        ('"Tim B."@x.test', '"tim b."@x.test', '"tim c."@x.test'),
        ("[192.0.2.1]", "x@[192.0.2.1]", "x@[192.0.2.2]"),
        ("@[IPv6:2001:DB8::1]", "x@[ipv6:2001:db8::1]", "x@[ipv6:2001:db8::2]"),
        ("münchen.test", "x@MÜNCHEN.test; x@mu\u0308nchen.test", "x@xn--mnchen-3ya.test"),
        ("jürg*@*.münchen.test", "ju\u0308rgen@x.münchen.test", "jurgen@x.münchen.test"),
        ("postmaster", "postmaster; Postmaster", "postmaster@example.org; x@postmaster"),
        ("@postmaster", "x@postmaster", "postmaster"),
        ("postmaster@*", "postmaster@example.org", "postmaster"),
    ],
)
def test_whom_it_is_for(pattern: str, for_these: str, not_for_these: str) -> None:
    for recipient in for_these.split("; "):
        assert fits(pattern, recipient), recipient
    for recipient in not_for_these.split("; "):
        assert not fits(pattern, recipient), recipient


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "the domain is missing"),
        ("@", "the domain is missing"),
        ("tim@", "the domain is missing"),
        (".", "the domain is missing"),
        ("*.", "the domain is missing"),
        ("..example.org", "a dot at the edge"),
        ("*example.org", "within a domain there is no wildcard"),
        ("*.*.example.org", "within a domain there is no wildcard"),
        ("tim@example.*", "within a domain there is no wildcard"),
        ("tim@mail*.example.org", "within a domain there is no wildcard"),
        ("a b@example.org", "without quotes"),
        ("a@b@example.org", "something behind the address"),
        ("*.[192.0.2.1]", "nothing is below an address literal"),
        ("[192.0.2.*]", "within a domain there is no wildcard"),
        ("example.org ", "something behind the address"),
    ],
)
def test_what_is_none(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Pattern.parse(pattern)
    assert str(raised.value).startswith(f"route {pattern!r}: it is an address, a domain, postmaster, or a pattern")
    assert said in str(raised.value)


def test_many_wildcards_take_no_longer() -> None:
    # An expression with backtracking would need some 64 ** 20 steps.
    pattern = Pattern.parse("*a" * 20 + "*b@x.test")
    assert not pattern.fits("a" * 100_000, "x.test")
    assert pattern.fits("a" * 100_000 + "b", "x.test")


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_wildcards_as_the_shell_has_them(wild: str, local_part: str) -> None:
    if wild:
        assert Pattern.parse(f"{wild}@x.test").fits(local_part, "x.test") is fnmatchcase(local_part, wild)


@pytest.mark.parametrize(
    ("one", "other", "tag", "expected"),
    [
        ("*", "tim@example.org", "", True),
        ("*", "*", "", True),
        ("*", "postmaster", "", False),
        ("postmaster", "postmaster", "", True),
        ("example.org", "*", "", False),
        ("example.org", "tim@example.org", "", True),
        ("example.org", "x*@example.org", "", True),
        ("example.org", ".example.org", "", False),
        (".example.org", "example.org", "", False),
        (".example.org", "x.example.org", "", True),
        (".example.org", ".x.example.org", "", True),
        (".x.example.org", ".example.org", "", False),
        ("tim@*", "tim@.example.org", "", True),
        ("tim@*", "tom@.example.org", "", False),
        ("tim@example.org", "example.org", "", False),
        ("t*@example.org", "tim@example.org", "", True),
        ("t*@example.org", "ti*m@example.org", "", True),
        ("ti*m@example.org", "t*@example.org", "", False),
        ('"t*"@example.org', "t*@example.org", "", False),
        ("t*@example.org", '"t*"@example.org', "", True),
        ("tim@example.org", "tim+*@example.org", "+", True),
        ("t*m@example.org", "tim+*@example.org", "+", True),
        ("tim@example.org", "tim+*@example.org", "", False),
        ("tim@example.org", "tim-*@example.org", "+", False),
        ("tim@example.org", "tim+x@example.org", "+", False),
        ("tim@example.org", "*im+x*@example.org", "+", False),
        ("*m@example.org", "t*m+*@example.org", "+", False),
        ("tim@example.org", "+*@example.org", "+", False),
    ],
)
def test_what_covers_what(one: str, other: str, tag: str, expected: bool) -> None:
    assert Pattern.parse(one).covers(Pattern.parse(other), tag) is expected


NAMES = st.sampled_from(["a", "aa", "ab", "b+a", "a+b"])
LOCAL_PATTERNS = st.sampled_from(["*", "a", "a*", "*a", "a*a", "*a*", "a+*", "b+a"])
DOMAINS = st.sampled_from(["x.test", "y.x.test", "test"])
DOMAIN_PATTERNS = st.sampled_from(["*", ".test", "*.x.test", "x.test", "test"])


@given(LOCAL_PATTERNS, DOMAIN_PATTERNS, LOCAL_PATTERNS, DOMAIN_PATTERNS, NAMES, DOMAINS)
def test_what_covers_another_fits_all_that_it_fits(
    local: str, domain: str, other_local: str, other_domain: str, name: str, at: str
) -> None:
    one, other = Pattern.parse(f"{local}@{domain}"), Pattern.parse(f"{other_local}@{other_domain}")
    if other.fits(name, at) and one.covers(other):
        assert one.fits(name, at)
