"""DELIVERBY: the parameter, the least time, and what a client refuses by itself."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import ConfigError, ExtensionMissing, LocalProtocolError, TooSoonForPeer
from smtpfw.extensions import STANDARD, DeliverBy
from smtpfw.extensions.deliverby import BY, DeliverByTime
from smtpfw.testing import RecordingBackend
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.times import MAX_SECONDS
from tests.server.helpers import HELLO, codes, greeted
from tests.wire.client_end import ClientEnd

#: What is sent, its value, and how smtpfw writes that where it is not as it was sent.
GOOD = [
    ("120;R", DeliverByTime(120, "R"), None),
    ("1;R", DeliverByTime(1, "R"), None),
    ("999999999;RT", DeliverByTime(MAX_SECONDS, "R", True), None),
    ("120;N", DeliverByTime(120, "N"), None),
    ("0;NT", DeliverByTime(0, "N", True), None),
    ("-999999999;N", DeliverByTime(-MAX_SECONDS, "N"), None),
    ("+120;nt", DeliverByTime(120, "N", True), "120;NT"),
    ("-0;n", DeliverByTime(0, "N"), "0;N"),
    ("000000120;r", DeliverByTime(120, "R"), "120;R"),
]

BAD = [None, "", "120", "120;", ";R", "120;X", "120;TR", "120;RTT", "120;R;T", "1234567890;N", "+;N", "--1;N", "1.5;N"]
BAD += ["0;R", "-1;R", "+0;RT", " 1;N", "1;N ", "\u0661;N", "1,N", "1;\u0146"]


@pytest.mark.parametrize(("text", "value", "written"), GOOD)
def test_parse_and_format(text: str, value: DeliverByTime, written: str | None) -> None:
    assert BY.parse(text) == value
    assert BY.format(value) == (written or text)


@pytest.mark.parametrize("text", BAD)
def test_bad_values(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"^must be "):
        BY.parse(text)


@pytest.mark.parametrize(
    "value",
    [None, DeliverByTime(0, "R"), DeliverByTime(MAX_SECONDS + 1, "N"), DeliverByTime(1, "r"), DeliverByTime(1, "N T")],
)
def test_values_that_can_not_be_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        BY.format(value)


@given(
    st.builds(DeliverByTime, st.integers(-MAX_SECONDS, MAX_SECONDS), st.just("N"), st.booleans())
    | st.builds(DeliverByTime, st.integers(1, MAX_SECONDS), st.just("R"), st.booleans())
)
def test_what_is_written_is_read_as_the_same(value: DeliverByTime) -> None:
    text = BY.format(value)
    assert text is not None
    assert BY.parse(text) == value
    # RFC 2852 section 2 item 6 counts the blank as well.
    assert len(f" BY={text}") <= DeliverBy.extra_line_octets


@given(st.text() | st.text("0123456789+-;NRTnrt", max_size=14) | st.none())
def test_any_text_is_a_value_or_a_value_error(text: str | None) -> None:
    with suppress(ValueError):
        value = BY.parse(text)
        assert BY.parse(BY.format(value)) == value


def test_not_given() -> None:
    assert NO_OPTIONS[BY] is None


def client(*said: bytes, honours: bool = True, **arguments: Any) -> tuple[list[Any], Any]:
    seen: list[Any] = []
    backend = RecordingBackend(
        frozenset({"DELIVERBY"} if honours else ()), mail=lambda sender, options: seen.append(options)
    )
    return seen, greeted(backend, None, *said, extensions=[DeliverBy(**arguments)])


@pytest.mark.parametrize(
    ("arguments", "honours", "line"),
    [
        ({}, True, b"250 DELIVERBY\r\n"),
        ({"min_by_time": 60}, True, b"250 DELIVERBY 60\r\n"),
        ({"min_by_time": 60.0}, True, b"250 DELIVERBY 60\r\n"),
        ({"min_by_time": 60}, False, b"250 mx.test\r\n"),
    ],
)
def test_what_is_offered(arguments: Any, honours: bool, line: bytes) -> None:
    assert client(honours=honours, **arguments)[1].send(HELLO).endswith(line)


@pytest.mark.parametrize(("by", "code"), [("59;R", b"550"), ("60;R", b"250"), ("59;N", b"250"), ("-1;NT", b"250")])
def test_the_least_time(by: str, code: bytes) -> None:
    seen, server = client(HELLO, min_by_time=60)
    assert codes(server.send(f"MAIL FROM:<a@b.test> BY={by}\r\n".encode())) == [code]
    assert [options[BY] for options in seen] == ([BY.parse(by)] if code == b"250" else [])


@pytest.mark.parametrize("seconds", [-1, 0.5, MAX_SECONDS + 1])
def test_least_times_that_can_not_be_said(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"extension DELIVERBY: min_by_time: .* is no number of whole seconds"):
        DeliverBy(min_by_time=seconds)


def test_it_stands_in_the_standard_list() -> None:
    assert [one.end_to_end for one in STANDARD if isinstance(one, DeliverBy)] == [True]


# -- the client -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "least"),
    [
        *(("", 0), ("60", 60), ("60 ", 60), ("sixty", 0), ("-60", 0), ("9999999999", 0)),
        # It is the first of several options, or not told.
        *(("60,70", 60), ("60,x", 60), ("x,60", 0), (",60", 0)),
    ],
)
def test_what_a_server_says(said: str, least: int) -> None:
    assert DeliverBy().understand(said) == least


@pytest.mark.parametrize(("by", "refused"), [("59;R", True), ("60;RT", False), ("59;N", False), ("-9;NT", False)])
def test_a_client_knows_the_least_time_of_the_server(by: str, refused: bool) -> None:
    end = ClientEnd(["DELIVERBY 60"])
    told = end.mail(options=Options.of({BY: BY.parse(by)}))
    if refused:
        assert str(told.error(TooSoonForPeer)).endswith("returns no message earlier than after 60 seconds")
        assert end.said() == []
    else:
        assert end.said() == [f"MAIL FROM:<a@b.test> BY={by}\r\n".encode()]


def test_a_client_says_it_where_it_is_offered_and_as_it_can_be_said() -> None:
    assert (
        ClientEnd().mail(options=Options.of({BY: DeliverByTime(9, "N")})).error(ExtensionMissing).keyword == "DELIVERBY"
    )
    told = ClientEnd(["DELIVERBY"]).mail(options=Options.of({BY: DeliverByTime(0, "R")}))
    assert "must be above 0 with R" in str(told.error(LocalProtocolError))
