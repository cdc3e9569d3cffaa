"""LIMITS: what is stated, and that it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import ConfigError
from smtpfw.extensions import Limits
from smtpfw.extensions.limits import MAX_LIMIT, StatedLimits, format_limits, parse_limits
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import HELLO, MAIL, RCPT, codes, greeted, make_factory

#: What a server says, what it means, and how smtpfw writes that where it is not as it was said.
CASES = [
    ("MAILMAX=1000 RCPTMAX=50000", StatedLimits(1000, 50000), None),
    ("MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=1", StatedLimits(20, 100, 1), None),
    ("RCPTMAX=999999", StatedLimits(0, 999999), None),
    ("", StatedLimits(), None),
    ("RCPTDOMAINMAX=1 rcptmax=2", StatedLimits(0, 2, 1), "RCPTMAX=2 RCPTDOMAINMAX=1"),
    ("  RCPTMAX=2  MAILMAX=3 ", StatedLimits(3, 2), "MAILMAX=3 RCPTMAX=2"),
    ("RCPTMAX=7 RCPTMAX=5 RCPTMAX=6", StatedLimits(0, 5), "RCPTMAX=5"),
    ("RCPTMAX=5 FROBMAX=2 FLAG X=y=z =", StatedLimits(0, 5), "RCPTMAX=5"),
    ("RCPTMAX=0 MAILMAX=07 RCPTDOMAINMAX=1000000", StatedLimits(), ""),
    ("RCPTMAX=-1 MAILMAX=1.5 RCPTDOMAINMAX=\u0661", StatedLimits(), ""),
    ("RCPTMAX MAILMAX= RCPTDOMAINMAX==1", StatedLimits(), ""),
    ("RCPTMAX=5;MAILMAX=3", StatedLimits(), ""),
]


@pytest.mark.parametrize(("text", "limits", "written"), CASES)
def test_parse_and_format(text: str, limits: StatedLimits, written: str | None) -> None:
    assert parse_limits(text) == limits
    assert format_limits(limits) == (text if written is None else written)


@given(st.builds(StatedLimits, *[st.integers(0, MAX_LIMIT)] * 3))
def test_what_is_written_is_read_as_the_same(limits: StatedLimits) -> None:
    assert parse_limits(format_limits(limits)) == limits


@given(st.text() | st.text("RCPTMAXILDON= 0129,;", max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    limits = parse_limits(text)
    assert parse_limits(format_limits(limits)) == limits


@pytest.mark.parametrize("limit", [-1, MAX_LIMIT + 1])
def test_limits_that_can_not_be_stated(limit: int) -> None:
    with pytest.raises(ValueError, match="a limit is 0 to 999999"):
        format_limits(StatedLimits(max_recipients=limit))
    for name in ("max_transactions", "max_recipient_domains"):
        with pytest.raises(ConfigError, match="extension LIMITS: a limit is 0 to 999999"):
            Limits(**{name: limit})


@pytest.mark.parametrize(
    ("max_recipients", "limits", "line"),
    [
        (1000, Limits(), b"250 LIMITS RCPTMAX=1000\r\n"),
        (0, Limits(max_transactions=5), b"250 LIMITS MAILMAX=5\r\n"),
        (0, Limits(), b"250 mx.test\r\n"),
        # More than can be said is no reason to say nothing.
        (5_000_000, Limits(), b"250 LIMITS RCPTMAX=999999\r\n"),
    ],
)
def test_what_is_stated(max_recipients: int, limits: Limits, line: bytes) -> None:
    client = greeted(RecordingBackend(), extensions=[limits], max_recipients=max_recipients)
    assert client.send(HELLO).endswith(line)


def test_without_limits_nothing_is_refused() -> None:
    client = greeted(RecordingBackend(), None, HELLO, extensions=[Limits()])
    for number in range(50):
        recipients = b"".join(b"RCPT TO:<a@%d.test>\r\n" % domain for domain in range(number, number + 20))
        assert codes(client.send(MAIL + recipients + b"RSET\r\n")) == [b"250"] * 22


def test_each_connection_has_its_own_count() -> None:
    limits = Limits(max_transactions=1, max_recipient_domains=1)
    factory = make_factory(RecordingBackend(), extensions=[limits])
    for domain in (b"one", b"two"):
        client = MemoryClient.of(factory)
        client.send(HELLO)
        assert codes(client.send(MAIL + b"RCPT TO:<a@%s.test>\r\nRCPT TO:<a@three.test>\r\n" % domain)) == [
            b"250",
            b"250",
            b"452",
        ]
        assert codes(client.send(b"RSET\r\n" + MAIL)) == [b"250", b"421"]
        assert client.closed


def test_the_domain_is_not_counted_when_it_is_refused_here() -> None:
    client = greeted(RecordingBackend(), None, HELLO + MAIL + RCPT, extensions=[Limits(max_recipient_domains=2)])
    said = b"RCPT TO:<a@b.test>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<a@y.test>\r\nRCPT TO:<a@b.test>\r\n"
    assert codes(client.send(said)) == [b"250", b"452", b"452", b"250"]


def test_each_connection_has_a_count_of_its_own() -> None:
    limits = Limits(max_recipient_domains=1)
    for _ in range(2):
        client = greeted(RecordingBackend(), None, HELLO + MAIL, extensions=[limits])
        assert codes(client.send(RCPT + b"RCPT TO:<a@elsewhere.test>\r\n")) == [b"250", b"452"]
