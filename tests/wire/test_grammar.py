"""Addresses, paths and xtext: one table for each, and what must hold for all input."""

from __future__ import annotations

import pickle
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpfw.wire import grammar
from smtpfw.wire.grammar import NULL_SENDER, Address, NoPathError, PathError, decode_xtext, encode_xtext, parse_path
from smtpfw.wire.profiles import DEFAULT, LENIENT, PROFILES, STRICT, Profile

L63, L64 = "a" * 63, "a" * 64
D255 = ".".join([L63, L63, L63, L63])
assert len(D255) == 255

#: path, its address, and the form it is written in again. All profiles agree.
PATHS = [
    ("<>", Address(""), ""),
    ("<user12@example.org>", Address("user12", "example.org"), "user12@example.org"),
    ("<User@Example.ORG>", Address("User", "Example.ORG"), "User@Example.ORG"),
    ("<a@localhost>", Address("a", "localhost"), "a@localhost"),
    ("<a.b+c=d/e@x-1.example>", Address("a.b+c=d/e", "x-1.example"), "a.b+c=d/e@x-1.example"),
    ("<!#$%&'*+-/=?^_`{|}~@b>", Address("!#$%&'*+-/=?^_`{|}~", "b"), "!#$%&'*+-/=?^_`{|}~@b"),
    ("<a@xn--bcher-kva.example>", Address("a", "xn--bcher-kva.example"), "a@xn--bcher-kva.example"),
    ("<a@1.2.3>", Address("a", "1.2.3"), "a@1.2.3"),
    (f"<a@{L63}.b>", Address("a", f"{L63}.b"), f"a@{L63}.b"),
    (f"<a@{D255}>", Address("a", D255), f"a@{D255}"),
    (f"<{L64}@b>", Address(L64, "b"), f"{L64}@b"),
    ("<postmaster>", Address("postmaster"), "postmaster"),
    ("<PostMaster>", Address("PostMaster"), "PostMaster"),
    ("<postmaster@b>", Address("postmaster", "b"), "postmaster@b"),
    # Quoted local parts: the quotes stay exactly when they must.
    ('<"a"@b>', Address("a", "b"), "a@b"),
    ('<"a.b"@c>', Address("a.b", "c"), "a.b@c"),
    ('<"a@b"@c>', Address("a@b", "c"), '"a@b"@c'),
    ('<"a b"@c>', Address("a b", "c"), '"a b"@c'),
    ('<"a..b"@c>', Address("a..b", "c"), '"a..b"@c'),
    ('<"a."@c>', Address("a.", "c"), '"a."@c'),
    ('<".a"@c>', Address(".a", "c"), '".a"@c'),
    ('<"a>b"@c>', Address("a>b", "c"), '"a>b"@c'),
    (r'<"a\"b\\c"@d>', Address('a"b\\c', "d"), r'"a\"b\\c"@d'),
    (r'<"\a\ \@"@b>', Address("a @", "b"), '"a @"@b'),
    # Source routes are dropped.
    ("<@r1:a@b>", Address("a", "b"), "a@b"),
    ("<@r1,@r2.example:a@b>", Address("a", "b"), "a@b"),
    ('<@r1:"a@b"@c>', Address("a@b", "c"), '"a@b"@c'),
    # Address literals.
    ("<a@[192.0.2.1]>", Address("a", "[192.0.2.1]"), "a@[192.0.2.1]"),
    ("<a@[IPv6:2001:db8::1]>", Address("a", "[IPv6:2001:db8::1]"), "a@[IPv6:2001:db8::1]"),
    ("<a@[ipv6:::1]>", Address("a", "[ipv6:::1]"), "a@[ipv6:::1]"),
    ("<a@[IPv6:::ffff:192.0.2.1]>", Address("a", "[IPv6:::ffff:192.0.2.1]"), "a@[IPv6:::ffff:192.0.2.1]"),
    # UTF-8 (RFC 6531).
    ("<bücher@b>", Address("bücher", "b"), "bücher@b"),
    ("<a@bücher.example>", Address("a", "bücher.example"), "a@bücher.example"),
    ("<用户@例子.广告>", Address("用户", "例子.广告"), "用户@例子.广告"),
    ('<"ü ü"@b>', Address("ü ü", "b"), '"ü ü"@b'),
]

#: what no profile takes for an address.
BAD_PATHS = [
    b"<",
    b"<a@b",
    b"< a@b>",
    b"<a@b >",
    b"<<a@b>>",
    b"<a>",
    b"<a",
    b"<postmasters>",
    b"<@>",
    b"<@b>",
    b"<a@>",
    b"<.a@b>",
    b"<a@b@c>",
    b"<a b@c>",
    b"<a,b@c>",
    b"<a\x00@b>",
    b"<a@b\x00>",
    b"<a\r@b>",
    b"<a\t@b>",
    b"<a@.b>",
    b"<a@b.>",
    b"<a@b..c>",
    b"<a@-b>",
    b"<a@b->",
    b"<a@b-.c>",
    b"<a@b.-c>",
    b"<a@b!c>",
    b"<a@b,c>",
    f"<a@{L64}>".encode(),
    f"<a@c.{L64}.b>".encode(),
    f"<a@{'ü' * 32}>".encode(),
    f"<a@{D255}b>".encode(),
    f"<a@{D255[:-2]}.bb>".encode(),
    b'<""@b>',
    b'<"a@b>',
    b'<"a"b@c>',
    b'<a"b"@c>',
    b'<"a\n"@b>',
    b'<"a\\\n"@b>',
    b'<"a\x7f"@b>',
    b'<"a\\"@b>',
    '<"a\\ü"@b>'.encode(),
    b"<@r1>",
    b"<@r1:>",
    b"<@r1,r2:a@b>",
    b"<@r1,:a@b>",
    b"<@r1,@r2,a@b>",
    b"<@r1,@r2@r3:a@b>",
    b"<@-r1:a@b>",
    b"<a@[]>",
    b"<a@[192.0.2.1>",
    b"<a@[192.0.2]>",
    b"<a@[192.0.2.256]>",
    b"<a@[192.0.2.01]>",
    b"<a@[2001:db8::1]>",
    b"<a@[IPv6:192.0.2.1]>",
    b"<a@[IPv6:2001:db8::g]>",
    b"<a@[IPv6:fe80::1%eth0]>",
    b"<a@[IPv6:]>",
    b"<a@[x400:c=de]>",
    b"<a@[192.0.2.1]b>",
    b"<\xff@b>",
    b"<a@\xff>",
    b"<a@\xc0\xaf>",
    b"<\xed\xa0\x80@b>",
    b'<"\xff"@b>',
    "<a\x85@b>".encode(),
    "<a\u2028@b>".encode(),
    "<a@b\u3002c>".encode(),
]

#: path, and the profiles that take it; the others refuse it as a bad address.
PROFILE_PATHS = [
    (b"<a@b_c>", Address("a", "b_c"), {"default", "lenient"}),
    (b"<a@_b.c_>", Address("a", "_b.c_"), {"default", "lenient"}),
    (b"<@r_1:a@b>", Address("a", "b"), {"default", "lenient"}),
    (b"<a..b@c>", Address("a..b", "c"), {"lenient"}),
    (b"<a.@c>", Address("a.", "c"), {"lenient"}),
    (b"<%s@b>" % (b"a" * 65), Address("a" * 65, "b"), {"default", "lenient"}),
    (f"<{'ü' * 33}@b>".encode(), Address("ü" * 33, "b"), {"default", "lenient"}),
    (b'<"%s "@b>' % (b"a" * 62), Address("a" * 62 + " ", "b"), {"default", "lenient"}),
]

#: text without brackets, and what the lenient profile reads: the address and the index behind it.
BARE_PATHS = [
    (b"a@b", Address("a", "b"), 3),
    (b"a@b SIZE=1", Address("a", "b"), 3),
    (b"Postmaster", Address("Postmaster"), 10),
    (b'"a b"@c ', Address("a b", "c"), 7),
    (b"@r:a@b", Address("a", "b"), None),
]

everyone = pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)


@everyone
@pytest.mark.parametrize(("text", "address", "written"), PATHS, ids=lambda value: str(value)[:40])
def test_path(text: str, address: Address, written: str, profile: Profile) -> None:
    octets = text.encode()
    assert parse_path(octets, 0, profile) == (address, len(octets))
    assert parse_path(b"TO:" + octets + b" <x@y>", 3, profile) == (address, len(octets) + 3)
    assert str(address) == written
    assert Address.parse(written) == address


@everyone
@pytest.mark.parametrize("text", BAD_PATHS)
def test_bad_path(text: bytes, profile: Profile) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(text, 0, profile)
    assert not isinstance(caught.value, NoPathError)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@everyone
@pytest.mark.parametrize(("text", "address", "takers"), PROFILE_PATHS)
def test_path_by_profile(text: bytes, address: Address, takers: set[str], profile: Profile) -> None:
    if profile.name in takers:
        assert parse_path(text, 0, profile) == (address, len(text))
        assert Address.parse(str(address)) == address
    else:
        with pytest.raises(PathError) as caught:
            parse_path(text, 0, profile)
        assert not isinstance(caught.value, NoPathError)


@everyone
@pytest.mark.parametrize(("text", "address", "end"), BARE_PATHS)
def test_bare_path(text: bytes, address: Address, end: int | None, profile: Profile) -> None:
    if not profile.bare_paths:
        with pytest.raises(NoPathError):
            parse_path(text, 0, profile)
    elif end is None:
        # A source route belongs into brackets.
        with pytest.raises(PathError):
            parse_path(text, 0, profile)
    else:
        assert parse_path(text, 0, profile) == (address, end)


@pytest.mark.parametrize("text", [b"a@b>", b"a@b\t", b"a", b"a@", b"postmaster,"])
def test_bad_bare_path(text: bytes) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(text, 0, LENIENT)
    assert not isinstance(caught.value, NoPathError)


@everyone
def test_no_path(profile: Profile) -> None:
    for text, start in ((b"", 0), (b"TO:", 3), (b"<a@b>", 5)):
        with pytest.raises(NoPathError):
            parse_path(text, start, profile)


ATEXT = string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~"
pieces = st.sampled_from([b"a", b"B", b"0", b".", b"-", b"_", b"@", b"<", b">", b'"', b"\\", b" ", b":", b",", b"[",
                          b"]", b"+", b"\xc3\xbc", b"\xff", b"\x00", b"192.0.2.1", b"IPv6:", b"::1", b"postmaster",
                          b"a" * 63])  # fmt: skip
path_like = st.one_of(
    st.binary(max_size=80),
    st.lists(pieces, max_size=12).map(lambda parts: b"<" + b"".join(parts) + b">"),
    st.from_regex(rb"\A<[a-zA-Z0-9.+_-]{1,66}@[a-z0-9._-]{1,70}>\Z"),
)
profiles = st.sampled_from(list(PROFILES.values()))


@given(path_like, profiles)
@example(b"<%s@%s>" % (b"a" * 64, b"b" * 63), STRICT)
@example(b"<a@%s>" % b".".join([b"b" * 31, b"c" * 31]), STRICT)
def test_both_ways_agree(text: bytes, profile: Profile) -> None:
    """What the regular expression takes, the functions take alike; and nothing but a PathError comes out."""
    try:
        slow = grammar._parse_any_path(text, 0, profile)
    except PathError:
        slow = None
    try:
        assert parse_path(text, 0, profile) == slow
    except PathError:
        assert slow is None
    if slow is not None and slow[0]:
        # What was read is written so that every reader of the default profile reads the same.
        assert Address.parse(str(slow[0])) == slow[0]
        assert parse_path(f"<{slow[0]}>".encode())[0] == slow[0]


def test_the_ordinary_path_is_read_by_the_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the comparison above would compare the functions with themselves."""
    monkeypatch.delattr(grammar, "_parse_any_path")
    for text in (b"<user12@example.org>", b"<a.b+c@mx-1.example.org>", b"<a@xn--bcher-kva.example>"):
        assert parse_path(text)[1] == len(text)


local_parts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=30)
domains = st.sampled_from(["b", "example.org", "[192.0.2.1]", "[IPv6:::1]", "bücher.example"])


@given(local_parts, domains)
def test_any_local_part_survives(local_part: str, domain: str) -> None:
    address = Address(local_part, domain)
    assert Address.parse(str(address)) == address
    quoted = str(address).startswith('"')
    plain = all(character in ATEXT or character == "." or not character.isascii() for character in local_part)
    assert quoted != (plain and all(local_part.split(".")))


@given(st.text())
def test_parse_raises_value_errors_only(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError as error:
        reason = str(error)
    else:
        assert Address.parse(str(address)) == address
        return
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bob", "the domain is missing"),
        ("<a@b>", "the local part is missing"),
        ("@r:a@b", "the local part is missing"),
        ("a@b ", "behind the address"),
        ("a@b\r\nRCPT TO:<c@d>", "behind the address"),
        ("a@", "the domain is missing"),
        ("a..b@c", "two in a row"),
        ("\ud800@b", "surrogate"),
    ],
)
def test_parse_names_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Address.parse(text)
    assert "\n" not in str(caught.value)


def test_address_is_a_value() -> None:
    address = Address("a", "b")
    assert address == Address("a", "b")
    assert hash(address) == hash(Address("a", "b"))
    assert address != Address("A", "b")
    assert address != Address("a", "B")
    assert address != "a@b"
    assert repr(address) == "Address('a', 'b')"
    assert pickle.loads(pickle.dumps(address)) == address
    with pytest.raises(AttributeError):
        address.other = 1  # type: ignore[attr-defined]


def test_only_the_null_sender_is_false() -> None:
    assert not NULL_SENDER
    assert not Address("")
    assert Address.parse("") == NULL_SENDER
    assert Address("a", "b")
    assert Address("postmaster")
    assert Address("", "b")
    assert str(Address("", "b")) == '""@b'


def test_postmaster_and_ascii() -> None:
    assert Address("POSTmaster").is_postmaster
    assert not Address("postmaster", "b").is_postmaster
    assert not Address("a").is_postmaster
    assert not NULL_SENDER.is_postmaster
    assert Address("a", "b").ascii
    assert not Address("ü", "b").ascii
    assert not Address("a", "ü").ascii


#: text and its xtext.
XTEXT = [
    ("", ""),
    ("abc@example.org", "abc@example.org"),
    ("a+b=c", "a+2Bb+3Dc"),
    ("a b\r\n\x7f\x00", "a+20b+0D+0A+7F+00"),
    ("ü", "+C3+BC"),
    ("!~<>", "!~<>"),
]


@pytest.mark.parametrize(("text", "encoded"), XTEXT)
def test_xtext(text: str, encoded: str) -> None:
    assert encode_xtext(text) == encoded
    assert decode_xtext(encoded) == text


def test_xtext_may_encode_what_it_need_not() -> None:
    assert decode_xtext("+41B") == "AB"


@pytest.mark.parametrize(
    "encoded", ["=", "a=b", "+", "+4", "a+4", "+GG", "+2b", "++2B", "a b", "\x7f", "ü", "+FF", "+C3"]
)
def test_broken_xtext(encoded: str) -> None:
    with pytest.raises(ValueError, match=r"xtext|utf-8"):
        decode_xtext(encoded)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_xtext_round_trip(text: str) -> None:
    encoded = encode_xtext(text)
    assert encoded.isascii()
    assert " " not in encoded
    assert "=" not in encoded
    assert decode_xtext(encoded) == text


def test_default_profile_is_the_default() -> None:
    text = b"<a@b_c>"
    assert parse_path(text) == parse_path(text, 0, DEFAULT)
    with pytest.raises(PathError):
        parse_path(text, 0, STRICT)
