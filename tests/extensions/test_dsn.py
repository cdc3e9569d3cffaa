"""DSN: one table of cases drives parsers and formatters; and what a session sees of them."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.extensions import DSN, STANDARD
from smtpfw.extensions.dsn import ENVID, MAX_ENVID, MAX_ORCPT, NOTIFY, ORCPT, RET, OriginalRecipient
from smtpfw.testing import RecordingBackend
from smtpfw.wire.commands import format_rcpt, parse_rcpt
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS, Parameter
from smtpfw.wire.profiles import DEFAULT, STRICT
from tests.server.helpers import HELLO, codes, greeted

#: Parameter, what is sent, its value, and how smtpfw writes that where it is not as it was sent.
GOOD: list[tuple[Parameter[Any], str, Any, str | None]] = [
    (RET, "FULL", "FULL", None),
    (RET, "HDRS", "HDRS", None),
    (RET, "hDrS", "HDRS", "HDRS"),
    (ENVID, "QQ314159", "QQ314159", None),
    (ENVID, "a+20b+3Dc+2Bd", "a b=c+d", None),
    (ENVID, "+41", "A", "A"),
    (ENVID, "x" * 100, "x" * 100, None),
    (ENVID, "+20" * 33, " " * 33, None),
    (NOTIFY, "NEVER", frozenset({"NEVER"}), None),
    (NOTIFY, "SUCCESS,FAILURE,DELAY", frozenset({"SUCCESS", "FAILURE", "DELAY"}), None),
    (NOTIFY, "delay,Success", frozenset({"SUCCESS", "DELAY"}), "SUCCESS,DELAY"),
    (NOTIFY, "FAILURE,FAILURE", frozenset({"FAILURE"}), "FAILURE"),
    (ORCPT, "rfc822;Bob@Example.COM", OriginalRecipient("rfc822", "Bob@Example.COM"), None),
    (ORCPT, "RFC822;a+2Bb@c", OriginalRecipient("RFC822", "a+b@c"), None),
    (ORCPT, "rfc822;a;b", OriginalRecipient("rfc822", "a;b"), None),
    (ORCPT, "rfc822;", OriginalRecipient("rfc822", ""), None),
    (ORCPT, r"rfc822;\x{FC}", OriginalRecipient("rfc822", r"\x{FC}"), None),
    (ORCPT, "x400;/S+3Duser/", OriginalRecipient("x400", "/S=user/"), None),
    (ORCPT, "x-Unheard-of;+20", OriginalRecipient("x-Unheard-of", " "), None),
    (ORCPT, f"rfc822;{'x' * 493}", OriginalRecipient("rfc822", "x" * 493), None),
    (ORCPT, r"utf-8;b\x{FC}cher@\x{4F8B}\x{1F4E7}\x{10FFFD}.example",
     OriginalRecipient("utf-8", "bücher@例📧\U0010fffd.example"), None),
    (ORCPT, r"UTF-8;a\x{20}\x{2B}\x{3D}\x{5C}b", OriginalRecipient("UTF-8", "a +=\\b"), None),
    (ORCPT, r"utf-8;\x{fc}", OriginalRecipient("utf-8", "ü"), r"utf-8;\x{FC}"),
    (ORCPT, "utf-8;bücher@例.example", OriginalRecipient("utf-8", "bücher@例.example"),
     r"utf-8;b\x{FC}cher@\x{4F8B}.example"),
    (ORCPT, "utf-8;a+41@b", OriginalRecipient("utf-8", "a+41@b"), r"utf-8;a\x{2B}41@b"),
    (ORCPT, r'utf-8;"a\"b"@c', OriginalRecipient("utf-8", r'"a\"b"@c'), r'utf-8;"a\x{5C}"b"@c'),
    (ORCPT, r"utf-8;\\x{20}", OriginalRecipient("utf-8", r"\ "), r"utf-8;\x{5C}\x{20}"),
]  # fmt: skip

#: Parameter, and what can't be sent as its value.
BAD: list[tuple[Parameter[Any], str | None]] = [
    (RET, None),
    (RET, ""),
    (RET, "BODY"),
    (RET, "FULL,HDRS"),
    (RET, "HDR\u017f"),  # in capitals it is HDRS
    (ENVID, None),
    (ENVID, ""),
    (ENVID, "x" * 101),
    (ENVID, "+20" * 33 + "xx"),  # it is the encoded form that counts
    (ENVID, "a=b"),
    (ENVID, "a b"),
    (ENVID, "a+b"),
    (ENVID, "+0a"),
    (ENVID, "a+0D+0Ab"),
    (ENVID, "a+00b"),
    (ENVID, "a+09b"),
    (ENVID, "a+7Fb"),
    (ENVID, "+C3+BC"),
    (ENVID, "+FF"),
    (ENVID, "ü"),
    (NOTIFY, None),
    (NOTIFY, ""),
    (NOTIFY, "ALWAYS"),
    (NOTIFY, "NEVER,FAILURE"),
    (NOTIFY, "SUCCESS,NEVER"),
    (NOTIFY, "SUCCESS,"),
    (NOTIFY, "\u017fUCCESS"),
    (ORCPT, None),
    (ORCPT, ""),
    (ORCPT, "rfc822"),
    (ORCPT, ";a@b"),
    (ORCPT, "rfc 822;a@b"),
    (ORCPT, "rfc.822;a@b"),
    (ORCPT, "rfc=822;a@b"),
    (ORCPT, "typ\xe9;a@b"),
    (ORCPT, "rfc822;a+b@c"),
    (ORCPT, "rfc822;a=b"),
    (ORCPT, "rfc822;a+0D+0ADATA"),
    (ORCPT, "rfc822;a+00"),
    (ORCPT, "x400;+C3+BC"),
    (ORCPT, "rfc822;bücher"),
    (ORCPT, f"rfc822;{'x' * 494}"),
    (ORCPT, f"utf-8;{'ü' * 248}"),
    (ORCPT, "utf-8;"),
    (ORCPT, "utf-8;a=b"),
    (ORCPT, "utf-8;a b"),
    (ORCPT, "utf-8;a\r\nDATA"),
    (ORCPT, r"utf-8;\x{0A}"),
    (ORCPT, r"utf-8;\x{0D}"),
    (ORCPT, r"utf-8;\x{00}"),
    (ORCPT, r"utf-8;\x{7F}"),
    (ORCPT, r"utf-8;\x{85}"),
    (ORCPT, r"utf-8;\x{2028}"),
    (ORCPT, "utf-8;a\x85b"),
    (ORCPT, "utf-8;a\u2029b"),
    (ORCPT, r"utf-8;\x{41}"),
    (ORCPT, r"utf-8;\x{0FC}"),
    (ORCPT, r"utf-8;\x{D800}"),
    (ORCPT, r"utf-8;\x{110000}"),
    (ORCPT, r"utf-8;\x{}"),
    (ORCPT, r"utf-8;\x{fc"),
    (ORCPT, r"utf-8;\x{FG}"),
]

#: Parameter, and a value that there is no way to write.
UNWRITABLE: list[tuple[Parameter[Any], Any]] = [
    (RET, None),
    (RET, "BODY"),
    (ENVID, None),
    (ENVID, ""),
    (ENVID, "a\r\nDATA"),
    (ENVID, "bücher"),
    (ENVID, "=" * 34),
    (ENVID, "\ud800"),
    (NOTIFY, frozenset()),
    (NOTIFY, frozenset({"NEVER", "DELAY"})),
    (NOTIFY, frozenset({"DELAY", "ALWAYS"})),
    (NOTIFY, frozenset({"DELAY FROB"})),
    (ORCPT, None),
    (ORCPT, OriginalRecipient("", "a@b")),
    (ORCPT, OriginalRecipient("rfc822;a@b NOTIFY", "NEVER")),
    (ORCPT, OriginalRecipient("rfc822;a", "b")),
    (ORCPT, OriginalRecipient("rfc822", "a\r\nDATA")),
    (ORCPT, OriginalRecipient("rfc822", "bücher")),
    (ORCPT, OriginalRecipient("rfc822", "x" * 494)),
    (ORCPT, OriginalRecipient("utf-8", "")),
    (ORCPT, OriginalRecipient("utf-8", "a\nb")),
    (ORCPT, OriginalRecipient("utf-8", "a\x85b")),
    (ORCPT, OriginalRecipient("utf-8", "\ud800")),
    (ORCPT, OriginalRecipient("utf-8", "ü" * 83)),
]


@pytest.mark.parametrize(("parameter", "text", "value", "written"), GOOD)
def test_parse_and_format(parameter: Parameter[Any], text: str, value: Any, written: str | None) -> None:
    assert parameter.parse(text) == value
    assert parameter.format(value) == (written or text)
    assert parameter.parse(written or text) == value


@pytest.mark.parametrize(("parameter", "text"), BAD)
def test_bad_values(parameter: Parameter[Any], text: str | None) -> None:
    with pytest.raises(ValueError, match=r"^(must|needs|holds) "):
        parameter.parse(text)


@pytest.mark.parametrize(("parameter", "value"), UNWRITABLE)
def test_values_that_can_not_be_written(parameter: Parameter[Any], value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parameter.format(value)


def test_defaults() -> None:
    assert [NO_OPTIONS[RET], NO_OPTIONS[ENVID], NO_OPTIONS[ORCPT]] == [None] * 3
    assert NO_OPTIONS[NOTIFY] == frozenset()


# As long as there is room for, if every character had to be encoded: by three octets as xtext, by twelve as UTF-8.
ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
PRINTABLE = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
ATOMS = st.text("abcXYZ019-!#$%&'*+/?^_`{|}~", min_size=1, max_size=9).filter(lambda text: text.lower() != "utf-8")
EVENTS = st.frozensets(st.sampled_from(["SUCCESS", "FAILURE", "DELAY"]), min_size=1)
VALUES: list[tuple[Parameter[Any], st.SearchStrategy[Any]]] = [
    (RET, st.sampled_from(["FULL", "HDRS"])),
    (ENVID, st.text(ASCII, min_size=1, max_size=MAX_ENVID // 3)),
    (NOTIFY, EVENTS | st.just(frozenset({"NEVER"}))),
    (ORCPT, st.builds(OriginalRecipient, ATOMS, st.text(ASCII, max_size=(MAX_ORCPT - 10) // 3))),
    (
        ORCPT,
        st.builds(
            OriginalRecipient,
            st.sampled_from(["utf-8", "UTF-8"]),
            st.text(PRINTABLE, min_size=1, max_size=(MAX_ORCPT - 6) // 12),
        ),
    ),
]


@pytest.mark.parametrize(("parameter", "values"), VALUES)
def test_what_is_written_is_read_as_the_same(parameter: Parameter[Any], values: st.SearchStrategy[Any]) -> None:
    @given(values)
    def check(value: Any) -> None:
        text = parameter.format(value)
        assert text is not None
        assert text.isascii()
        assert parameter.parse(text) == value
        # As it travels: one word of the command line.
        line = format_rcpt(Address("a", "b"), {parameter.keyword: text})
        assert parse_rcpt(line[5:-2], STRICT)[1] == {parameter.keyword: text}

    check()


SHREDS = st.lists(
    st.sampled_from(["rfc822;", "utf-8;", "x;", "+", "+0D", "+0A", "+41", "\\x{", "}", "85", "FC", "D800", "\\", "ü"])
    | st.sampled_from(["NEVER", "SUCCESS", "FULL", "hdrs", ","])
    | st.text(max_size=3)
).map("".join)


@given(SHREDS | st.text() | st.none(), st.sampled_from([RET, ENVID, NOTIFY, ORCPT]))
def test_any_text_is_a_value_or_a_value_error(text: str | None, parameter: Parameter[Any]) -> None:
    with suppress(ValueError):
        value = parameter.parse(text)
        texts = value if isinstance(value, (tuple, frozenset)) else [value]
        assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for text in texts for letter in text)
        with suppress(ValueError):
            # The form of 7 bits may be longer than it was sent.
            assert parameter.parse(parameter.format(value)) == value


def dsn_client(*said: bytes, honours: bool = True, **settings: Any) -> tuple[RecordingBackend, Any]:
    backend = RecordingBackend(frozenset({"DSN"}) if honours else frozenset())
    return backend, greeted(backend, None, *said, **settings)


def test_it_is_offered_where_the_backend_honours_it() -> None:
    for honours in (True, False):
        _, client = dsn_client(honours=honours)
        assert (b"DSN\r\n" in client.send(HELLO)) is honours


def test_a_session_sees_the_values() -> None:
    _, client = dsn_client(HELLO, b"MAIL FROM:<a@b.test> SIZE=7 RET=HDRS ENVID=a+20b\r\n")
    client.send(b"RCPT TO:<c@d.test> NOTIFY=DELAY,success ORCPT=rfc822;c+2Bx@d.test\r\n")
    client.send(b"RCPT TO:<e@f.test>\r\n")
    transaction = client.protocol.wire.transaction
    assert (transaction.options[RET], transaction.options[ENVID], transaction.options.size) == ("HDRS", "a b", 7)
    first, second = (recipient.options for recipient in transaction.recipients)
    assert (first[NOTIFY], first[ORCPT]) == ({"SUCCESS", "DELAY"}, OriginalRecipient("rfc822", "c+x@d.test"))
    assert NOTIFY not in second


def test_the_longest_line() -> None:
    """The sizes that everybody has to take, behind the longest path (RFC 3461 section 5.4)."""
    parameters = b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + b"x" * (500 - len("ORCPT=rfc822;"))
    assert len(parameters) == DSN.extra_line_octets
    start = b"RCPT TO:<c@"
    domain = b".".join([b"d" * 63] * 3)
    assert len(start + domain) < 512
    _, client = dsn_client(HELLO, b"MAIL FROM:<a@b.test>\r\n", profile=STRICT, extensions=[DSN()])
    padding = b" " * (512 - len(start + domain + b">\r\n"))
    line = start + domain + b">" + padding + parameters + b"\r\n"
    assert len(line) == 512 + DSN.extra_line_octets
    assert codes(client.send(line)) == [b"250"]
    assert codes(client.send(line.replace(b" NOTIFY", b"  NOTIFY"))) == [b"500"]


def test_it_stands_in_the_standard_list() -> None:
    assert [extension.end_to_end for extension in STANDARD if isinstance(extension, DSN)] == [True]


def test_it_takes_part_in_lines_only_where_it_is_served() -> None:
    for honours, extra in [(True, DSN.extra_line_octets), (False, 0)]:
        _, client = dsn_client(honours=honours, extensions=[DSN()])
        line = b"NOOP " + b"x" * (DEFAULT.max_command_line + extra - len("NOOP \r\n")) + b"\r\n"
        assert codes(client.send(HELLO + line + b"N" + line)) == [b"250", b"250", b"500"]
