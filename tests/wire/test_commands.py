"""MAIL, RCPT and EHLO lines: one table for each drives parser and formatter."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import BadRecipientSyntax, BadSenderSyntax, LocalProtocolError, SMTPError, SyntaxProblem
from smtpfw.wire.commands import (
    NO_PARAMETERS,
    format_hello,
    format_mail,
    format_rcpt,
    parse_hello,
    parse_mail,
    parse_rcpt,
)
from smtpfw.wire.grammar import NULL_SENDER, Address
from smtpfw.wire.profiles import DEFAULT, LENIENT, PROFILES, STRICT, Profile

Parameters = Mapping[str, str | None]
Parser = Callable[[bytes, Profile], tuple[Address, Parameters]]
Formatter = Callable[[Address, Parameters], bytes]

A = Address("a", "b")
ALL = {"strict", "default", "lenient"}
TOLERANT = {"default", "lenient"}

#: what follows FROM: or TO:, the address, the parameters, and the form in which both are written again.
COMMANDS: list[tuple[str, Address, Parameters, str]] = [
    ("<a@b>", A, {}, "<a@b>"),
    ("<a@b>  ", A, {}, "<a@b>"),
    ('<"a@b"@c>', Address("a@b", "c"), {}, '<"a@b"@c>'),
    ('<"a b> X"@c> SIZE=1', Address("a b> X", "c"), {"SIZE": "1"}, '<"a b> X"@c> SIZE=1'),
    ("<@r1,@r2:a@b> SIZE=1", A, {"SIZE": "1"}, "<a@b> SIZE=1"),
    ("<Postmaster>", Address("Postmaster"), {}, "<Postmaster>"),
    ("<a@[IPv6:::1]>", Address("a", "[IPv6:::1]"), {}, "<a@[IPv6:::1]>"),
    ("<ü@b> SMTPUTF8", Address("ü", "b"), {"SMTPUTF8": None}, "<ü@b> SMTPUTF8"),
    ("<a@b> size=1 Body=8BitMime", A, {"SIZE": "1", "BODY": "8BitMime"}, "<a@b> SIZE=1 BODY=8BitMime"),
    ("<a@b>  Z=1   Y=2 ", A, {"Z": "1", "Y": "2"}, "<a@b> Z=1 Y=2"),
    ("<a@b> AUTH=<>", A, {"AUTH": "<>"}, "<a@b> AUTH=<>"),
    ("<a@b> AUTH=<c@d>", A, {"AUTH": "<c@d>"}, "<a@b> AUTH=<c@d>"),
    ("<a@b> AUTH=e+3Dmc2@b", A, {"AUTH": "e+3Dmc2@b"}, "<a@b> AUTH=e+3Dmc2@b"),
    ("<a@b> MT-PRIORITY=-3", A, {"MT-PRIORITY": "-3"}, "<a@b> MT-PRIORITY=-3"),
    ("<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b", A, {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;a@b"},
     "<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b"),
    ("<a@b> ORCPT=utf-8;ü@b", A, {"ORCPT": "utf-8;ü@b"}, "<a@b> ORCPT=utf-8;ü@b"),
    ("<a@b> 1X-", A, {"1X-": None}, "<a@b> 1X-"),
]  # fmt: skip

#: what follows FROM: or TO:, the profiles that take it, and what the others raise: None is a bad address.
#: All of these are about ``<a@b>`` or nothing at all.
SYNTAX: list[tuple[bytes, set[str], type[SMTPError] | None]] = [
    (b" <a@b>", TOLERANT, SyntaxProblem),
    (b"   <a@b>", TOLERANT, SyntaxProblem),
    (b"a@b", {"lenient"}, SyntaxProblem),
    (b"", set(), SyntaxProblem),
    (b" ", set(), SyntaxProblem),
    # A local part without domain, where bare paths are taken.
    (b"SIZE=1", set(), SyntaxProblem),
    (b"<a@b> SIZE=1 SIZE=1", set(), SyntaxProblem),
    (b"<a@b> SIZE=1 size", set(), SyntaxProblem),
    (b"<a@b> =", set(), SyntaxProblem),
    (b"<a@b> =1", set(), SyntaxProblem),
    (b"<a@b> SIZE=", set(), SyntaxProblem),
    (b"<a@b> SIZE==1", set(), SyntaxProblem),
    (b"<a@b> SIZE=1=2", set(), SyntaxProblem),
    (b"<a@b> SIZE =1", set(), SyntaxProblem),
    (b"<a@b> SI_ZE=1", set(), SyntaxProblem),
    (b"<a@b> -X=1", set(), SyntaxProblem),
    (b"<a@b> \xc3\xbc=1", set(), SyntaxProblem),
    (b"<a@b> X=\xff", set(), SyntaxProblem),
    (b"<a@b> X=\xc2\x85", set(), SyntaxProblem),
    (b"<a@b> X=a\x00", set(), SyntaxProblem),
    (b"<a@b> X=a\tb", set(), SyntaxProblem),
    (b"<a@b> \t", set(), SyntaxProblem),
    (b"<a@b", set(), None),
    (b"<a@b>x", set(), None),
    (b"<a@b>>", set(), None),
    (b"<a@b>SIZE=1", set(), None),
    (b"<a@b>\t", set(), None),
    (b"<a@>", set(), None),
    (b"<@b>", set(), None),
    (b"<.a@b>", set(), None),
    (b"<a@-b>", set(), None),
    (b"<a@%s>" % (b"b" * 64), set(), None),
    (b"<a@%s>" % b".".join([b"b" * 63] * 4 + [b"b"]), set(), None),
    (b"<a@[1.2.3]>", set(), None),
    (b"<a@[IPv6:x]>", set(), None),
    (b"<\xff@b>", set(), None),
]

#: what follows FROM: or TO:, its address, and the profiles that take it; to the others it is a bad address.
ADDRESSES: list[tuple[bytes, Address, set[str]]] = [
    (b"<a@b_c>", Address("a", "b_c"), TOLERANT),
    (b"<a..b@c>", Address("a..b", "c"), {"lenient"}),
    (b"<a.@c>", Address("a.", "c"), {"lenient"}),
    (b"<%s@b>" % (b"a" * 65), Address("a" * 65, "b"), TOLERANT),
]

everyone = pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
both = pytest.mark.parametrize(
    ("parse", "prefix", "bad_address"),
    [(parse_mail, b"FROM:", BadSenderSyntax), (parse_rcpt, b"TO:", BadRecipientSyntax)],
    ids=["mail", "rcpt"],
)


def check_refusal(error: SMTPError, kind: type[SMTPError]) -> None:
    assert type(error) is kind
    assert (error.code, error.enhanced_code) == (501, kind.enhanced_code)
    assert error.message.isascii()
    assert error.message.isprintable()


@everyone
@both
@pytest.mark.parametrize(("text", "address", "parameters", "written"), COMMANDS)
def test_parse(
    text: str,
    address: Address,
    parameters: Parameters,
    written: str,
    parse: Parser,
    prefix: bytes,
    bad_address: type[SMTPError],
    profile: Profile,
) -> None:
    for spelling in (prefix, prefix.lower(), prefix.title()):
        parsed = parse(spelling + text.encode(), profile)
        assert parsed == (address, parameters)
        assert list(parsed[1]) == list(parameters)
        assert parsed[1] or parsed[1] is NO_PARAMETERS


@pytest.mark.parametrize(
    ("write", "prefix"), [(format_mail, b"MAIL FROM:"), (format_rcpt, b"RCPT TO:")], ids=["mail", "rcpt"]
)
@pytest.mark.parametrize(("text", "address", "parameters", "written"), COMMANDS)
def test_format(
    text: str, address: Address, parameters: Parameters, written: str, write: Formatter, prefix: bytes
) -> None:
    assert write(address, parameters) == prefix + written.encode() + b"\r\n"


@everyone
@both
@pytest.mark.parametrize(("text", "takers", "kind"), SYNTAX)
def test_syntax(
    text: bytes,
    takers: set[str],
    kind: type[SMTPError] | None,
    parse: Parser,
    prefix: bytes,
    bad_address: type[SMTPError],
    profile: Profile,
) -> None:
    if profile.name in takers:
        assert parse(prefix + text, profile) == (A, {})
        return
    with pytest.raises(SMTPError) as caught:
        parse(prefix + text, profile)
    bare = profile.bare_paths and text == b"SIZE=1"
    check_refusal(caught.value, bad_address if kind is None or bare else kind)


@everyone
@both
@pytest.mark.parametrize(("text", "address", "takers"), ADDRESSES)
def test_address_by_profile(
    text: bytes,
    address: Address,
    takers: set[str],
    parse: Parser,
    prefix: bytes,
    bad_address: type[SMTPError],
    profile: Profile,
) -> None:
    if profile.name in takers:
        assert parse(prefix + text + b" SIZE=1", profile) == (address, {"SIZE": "1"})
        return
    with pytest.raises(SMTPError) as caught:
        parse(prefix + text, profile)
    check_refusal(caught.value, bad_address)


@everyone
@both
@pytest.mark.parametrize(
    "argument", [b"", b"<a@b>", b"FROM", b"TO", b"FROM <a@b>", b"FROM :<a@b>", b"TO :<a@b>", b"X:<a@b>"]
)
def test_missing_prefix(
    argument: bytes, parse: Parser, prefix: bytes, bad_address: type[SMTPError], profile: Profile
) -> None:
    with pytest.raises(SMTPError) as caught:
        parse(argument, profile)
    check_refusal(caught.value, SyntaxProblem)
    assert prefix.decode() in caught.value.message


@everyone
def test_prefixes_are_not_exchanged(profile: Profile) -> None:
    with pytest.raises(SyntaxProblem):
        parse_mail(b"TO:<a@b>", profile)
    with pytest.raises(SyntaxProblem):
        parse_rcpt(b"FROM:<a@b>", profile)


@everyone
def test_null_path(profile: Profile) -> None:
    assert parse_mail(b"FROM:<>", profile) == (NULL_SENDER, {})
    assert parse_mail(b"FROM:<> SIZE=1", profile) == (NULL_SENDER, {"SIZE": "1"})
    for argument in (b"TO:<>", b"TO:<> NOTIFY=NEVER"):
        with pytest.raises(SMTPError) as caught:
            parse_rcpt(argument, profile)
        check_refusal(caught.value, BadRecipientSyntax)
    assert format_mail(NULL_SENDER) == b"MAIL FROM:<>\r\n"
    with pytest.raises(LocalProtocolError):
        format_rcpt(NULL_SENDER)


def test_bare_path_with_parameters() -> None:
    assert parse_mail(b"FROM:a@b SIZE=1", LENIENT) == (A, {"SIZE": "1"})
    assert parse_rcpt(b"TO: postmaster ", LENIENT) == (Address("postmaster"), {})


def test_no_parameters_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        NO_PARAMETERS["SIZE"] = "1"  # type: ignore[index]


#: an address and parameters that must never reach a peer.
HOSTILE: list[tuple[Address, Parameters]] = [
    (Address("a", "b>\r\nRCPT TO:<c@d"), {}),
    (Address("a", "b\r\nRSET"), {}),
    (Address("a\r\nRSET", "b"), {}),
    (Address("a\x00", "b"), {}),
    (Address("a", "b\x00"), {}),
    (Address("a", "b> SIZE=1"), {}),
    (Address("a", "b> SIZE=1 X=<c@d"), {}),
    (Address("a\u2028", "b"), {}),
    (Address("a", "[x:y]"), {}),
    (Address("a", "b@c"), {}),
    (Address("a", "b..c"), {}),
    (Address("a"), {}),
    (Address("a@b"), {}),
    (Address("", "b"), {}),
    (Address("\ud800", "b"), {}),
    (A, {"X": "1\r\nRSET"}),
    (A, {"X": "1\n"}),
    (A, {"X": "1\r"}),
    (A, {"X": "1\x00"}),
    (A, {"X": "1 Y=2"}),
    (A, {"X": "1 "}),
    (A, {"X": " 1"}),
    (A, {"X": ""}),
    (A, {"X": "1=2"}),
    (A, {"X": "\x85"}),
    (A, {"X": "\ud800"}),
    (A, {"X=1": None}),
    (A, {"X=1": "2"}),
    (A, {"X Y": None}),
    (A, {"X Y": "1"}),
    (A, {"X\r\n": None}),
    (A, {"": None}),
    (A, {" ": None}),
    (A, {"": "1"}),
    (A, {"-X": "1"}),
    (A, {"x": "1", "X": "2"}),
    (A, {"x": "1", "X": "1"}),
]


@pytest.mark.parametrize("write", [format_mail, format_rcpt])
@pytest.mark.parametrize(("address", "parameters"), HOSTILE)
def test_hostile_values_are_not_sent(address: Address, parameters: Parameters, write: Formatter) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        write(address, parameters)
    assert str(caught.value).isprintable()


pieces = st.sampled_from([b"<a@b>", b"<>", b"FROM:", b"TO:", b" ", b" SIZE=1", b" X", b"=", b"<", b">", b"@", b"a",
                          b".", b'"', b"\\", b"\xc3\xbc", b"\xff", b"\x00", b"\t", b"_", b"-", b"[", b"]", b"[1.2.3.4]",
                          b"postmaster", b":", b","])  # fmt: skip
arguments = st.one_of(st.binary(max_size=60), st.lists(pieces, max_size=8).map(b"".join))
profiles = st.sampled_from(list(PROFILES.values()))


@both
@given(argument=arguments, with_prefix=st.booleans(), profile=profiles)
def test_any_argument(
    argument: bytes,
    with_prefix: bool,
    profile: Profile,
    parse: Parser,
    prefix: bytes,
    bad_address: type[SMTPError],
) -> None:
    """Only the documented refusals come out, and what is taken is written as a line that reads the same."""
    try:
        address, parameters = parse(prefix + argument if with_prefix else argument, profile)
    except (SyntaxProblem, bad_address) as error:
        check_refusal(error, type(error))
        return
    line = (format_mail if parse is parse_mail else format_rcpt)(address, parameters)
    assert line.endswith(b"\r\n")
    again = parse(line[5:-2], DEFAULT)
    assert again == (address, parameters)
    assert (format_mail if parse is parse_mail else format_rcpt)(*again) == line


@given(
    st.text(max_size=12), st.text(max_size=12), st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8))
)
def test_any_values_make_one_line_or_none(local_part: str, domain: str, parameters: Parameters) -> None:
    address = Address(local_part, domain)
    try:
        line = format_mail(address, parameters)
    except LocalProtocolError:
        return
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert parse_mail(line[5:-2], DEFAULT)[0] == address


#: a name, and how it may come.
NAMES = [
    ("mx.example.org", b"mx.example.org"),
    ("localhost", b"localhost  "),
    ("my_pc", b" my_pc"),
    ("192.0.2.1", b"192.0.2.1"),
    ("[IPv6:2001:db8::1]", b"[IPv6:2001:db8::1]"),
    ("(what?)", b"(what?)"),
]


@everyone
@pytest.mark.parametrize(("name", "argument"), NAMES)
def test_hello(name: str, argument: bytes, profile: Profile) -> None:
    assert parse_hello(argument, profile) == name
    assert format_hello(name) == f"EHLO {name}\r\n".encode()
    assert format_hello(name, False) == f"HELO {name}\r\n".encode()
    assert format_hello(name, lmtp=True) == f"LHLO {name}\r\n".encode()
    assert parse_hello(format_hello(name)[5:-2], profile) == name


@everyone
def test_hello_of_utf8(profile: Profile) -> None:
    assert parse_hello("bücher.example".encode(), profile) == "bücher.example"


@everyone
@pytest.mark.parametrize("argument", [b"", b"  "])
def test_hello_without_name(argument: bytes, profile: Profile) -> None:
    with pytest.raises(SMTPError) as caught:
        parse_hello(argument, profile)
    check_refusal(caught.value, SyntaxProblem)


@pytest.mark.parametrize("argument", [b"a b", b"a  b c"])
def test_hello_with_several_words(argument: bytes) -> None:
    for profile in (STRICT, DEFAULT):
        with pytest.raises(SMTPError) as caught:
            parse_hello(argument, profile)
        check_refusal(caught.value, SyntaxProblem)
    assert parse_hello(argument, LENIENT) == "a"


@everyone
@pytest.mark.parametrize(
    "argument", [b"a\x00", b"a\tb", b"\x1b[2J", b"a\rb", b"a\x7f", b"\xff", b"\xc2\x85", "a\u2028b".encode(), b"a \x01"]
)
def test_hello_with_control_characters(argument: bytes, profile: Profile) -> None:
    with pytest.raises(SMTPError) as caught:
        parse_hello(argument, profile)
    assert (caught.value.code, caught.value.enhanced_code) == (501, (5, 5, 2))
    assert caught.value.message.isprintable()


@given(st.binary(max_size=30), profiles)
def test_any_hello(argument: bytes, profile: Profile) -> None:
    try:
        name = parse_hello(argument, profile)
    except SMTPError as error:
        codes = (error.code, error.enhanced_code)
    else:
        assert name
        assert name.isprintable()
        assert " " not in name
        return
    assert codes in ((501, (5, 5, 4)), (501, (5, 5, 2)))


@pytest.mark.parametrize("name", ["", " ", "a b", "a\r\nMAIL", "a\x00", "a\n", "\u2028", "bücher.example"])
def test_hello_is_not_sent(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        format_hello(name)
