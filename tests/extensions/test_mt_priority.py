"""MT-PRIORITY: the parameter, the name of a profile, and a priority that the session changes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import ConfigError, LocalProtocolError
from smtpfw.extensions import STANDARD, MTPriority
from smtpfw.extensions.mt_priority import MT_PRIORITY, priority_changed
from smtpfw.testing import RecordingBackend
from smtpfw.wire.parameters import NO_OPTIONS, Options
from tests.server.helpers import HELLO, codes, greeted
from tests.wire.client_end import ClientEnd

VALUES = range(-9, 10)
BAD = [None, "", "-0", "+1", "+0", "00", "01", "-01", "10", "-10", "1.0", "high", " 1", "1 ", "\u0661", "--1", "-"]


@pytest.mark.parametrize("value", VALUES)
def test_parse_and_format(value: int) -> None:
    assert MT_PRIORITY.parse(str(value)) == value
    assert MT_PRIORITY.format(value) == str(value)
    assert len(f" MT-PRIORITY={value}") <= MTPriority.extra_line_octets


@pytest.mark.parametrize("text", BAD)
def test_bad_values(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a number from -9 to 9"):
        MT_PRIORITY.parse(text)


@pytest.mark.parametrize("value", [-10, 10, 1.5])
def test_values_that_can_not_be_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a "):
        MT_PRIORITY.format(value)
    with pytest.raises(ValueError, match=r"^must be a "):
        priority_changed(value)


@given(st.text() | st.text("-+0123456789", max_size=3))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert MT_PRIORITY.format(MT_PRIORITY.parse(text)) == text


def test_not_given() -> None:
    assert NO_OPTIONS[MT_PRIORITY] == 0


def client(*said: bytes, honours: bool = True, profile: str = "", **answers: Any) -> tuple[RecordingBackend, Any]:
    backend = RecordingBackend(frozenset({"MT-PRIORITY"} if honours else ()), **answers)
    return backend, greeted(backend, None, *said, extensions=[MTPriority(profile=profile)])


@pytest.mark.parametrize(
    ("profile", "honours", "line"),
    [
        ("", True, b"250 MT-PRIORITY\r\n"),
        ("STANAG4406", True, b"250 MT-PRIORITY STANAG4406\r\n"),
        ("STANAG4406", False, b"250 mx.test\r\n"),
    ],
)
def test_what_is_offered(profile: str, honours: bool, line: bytes) -> None:
    assert client(profile=profile, honours=honours)[1].send(HELLO).endswith(line)


@pytest.mark.parametrize("profile", ["two words", "line\r\nX", "\xfcber", "x" * 101, "\x00"])
def test_profiles_that_can_not_be_said(profile: str) -> None:
    with pytest.raises(ConfigError, match=r"extension MT-PRIORITY: profile: .* is no word of printable ASCII"):
        MTPriority(profile=profile)


@pytest.mark.parametrize("value", [-9, 0, 9])
def test_a_session_may_change_it(value: int) -> None:
    _, server = client(HELLO, mail=lambda sender, options: priority_changed(value))
    said = b"250 2.3.6 %d is the new priority\r\n" % value
    assert server.send(b"MAIL FROM:<a@b.test> MT-PRIORITY=4\r\n") == said


def test_a_session_sees_it() -> None:
    seen: list[Options] = []
    _, server = client(HELLO, mail=lambda sender, options: seen.append(options))
    assert codes(server.send(b"MAIL FROM:<a@b.test> mt-priority=-3\r\n")) == [b"250"]
    assert seen[0][MT_PRIORITY] == -3


def test_a_client_says_it() -> None:
    end = ClientEnd(["MT-PRIORITY MIXER"])
    told = end.mail(options=Options.of({MT_PRIORITY: -9}))
    assert end.said() == [b"MAIL FROM:<a@b.test> MT-PRIORITY=-9\r\n"]
    end.hear(b"250 2.3.6 -4 is the new priority\r\n")
    assert (told.outcome.enhanced_code, told.outcome.text) == ((2, 3, 6), "-4 is the new priority")
    told = ClientEnd(["MT-PRIORITY"]).mail(options=Options.of({MT_PRIORITY: 10}))
    assert "must be a number from -9 to 9" in str(told.error(LocalProtocolError))


def test_it_stands_in_the_standard_list() -> None:
    assert [one.end_to_end for one in STANDARD if isinstance(one, MTPriority)] == [True]
