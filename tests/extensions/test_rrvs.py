"""RRVS: the parameter of RCPT, what a session refuses for it, and what a client says."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import (
    DomainOwnerChanged,
    ExtensionMissing,
    MailboxOwnerChanged,
    NamedSMTPError,
    OwnerUnknown,
)
from smtpfw.extensions import STANDARD, RecipientValidSince
from smtpfw.extensions.rrvs import RRVS, ValidSince
from smtpfw.testing import RecordingBackend
from smtpfw.wire.parameters import NO_OPTIONS, Options
from tests.server.helpers import HELLO, MAIL, codes, greeted
from tests.wire.client_end import ClientEnd

WHEN = datetime(2014, 4, 3, 23, 1, tzinfo=UTC)

#: What is sent, its value, and how smtpfw writes that where it is not as it was sent.
GOOD = [
    ("2014-04-03T23:01:00Z", ValidSince(WHEN), None),
    ("2014-04-03T23:01:00Z;C", ValidSince(WHEN, "C"), None),
    ("2014-04-03T23:01:00Z;R", ValidSince(WHEN, "R"), None),
    ("2014-04-03t23:01:00z;c", ValidSince(WHEN, "C"), "2014-04-03T23:01:00Z;C"),
    ("2014-04-04T01:01:00+02:00;r", ValidSince(WHEN, "R"), "2014-04-03T23:01:00Z;R"),
    # A leap second is the second behind it.
    ("2016-12-31T23:59:60Z;C", ValidSince(datetime(2017, 1, 1, tzinfo=UTC), "C"), "2017-01-01T00:00:00Z;C"),
]

BAD = [None, "", ";C", "2014-04-03T23:01:00Z;", "2014-04-03T23:01:00Z;X", "2014-04-03T23:01:00Z;CR", "yesterday"]
BAD += ["2014-04-03T23:01:00Z;C;R", "2014-04-03T23:01:00;C", "2014-04-03", "2014-04-03T23:01:00Z ;C", "C"]
# RFC 7293 section 3.1: no fraction of a second.
BAD += ["2014-04-03T23:01:00.5Z", "2014-04-03T23:01:00.0Z;C"]


@pytest.mark.parametrize(("text", "value", "written"), GOOD)
def test_parse_and_format(text: str, value: ValidSince, written: str | None) -> None:
    assert RRVS.parse(text) == value
    assert RRVS.format(value) == (written or text)


@pytest.mark.parametrize("text", BAD)
def test_bad_values(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"^must be a date and a time"):
        RRVS.parse(text)


@pytest.mark.parametrize(
    "value",
    [None, ValidSince(datetime(2014, 4, 3)), ValidSince(WHEN, "X"), ValidSince(WHEN, "c"), ValidSince(WHEN, "C;R")],
)
def test_values_that_can_not_be_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        RRVS.format(value)


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATES = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=ZONES)


@given(st.builds(ValidSince, DATES, st.sampled_from(["", "C", "R"])))
def test_what_is_written_is_read_as_the_same(value: ValidSince) -> None:
    text = RRVS.format(value)
    assert text is not None
    assert RRVS.parse(text) == value._replace(when=value.when.replace(microsecond=0))
    assert len(f" RRVS={text}") <= RecipientValidSince.extra_line_octets


SHREDS = st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([Zz]|[+-][0-9]{2}:[0-9]{2})(;.?)?")


@given(SHREDS | st.text() | st.none())
def test_any_text_is_a_value_or_a_value_error(text: str | None) -> None:
    with suppress(ValueError):
        value = RRVS.parse(text)
        assert RRVS.parse(RRVS.format(value)) == value


def client(*said: bytes, honours: bool = True, **answers: Any) -> Any:
    backend = RecordingBackend(frozenset({"RRVS"} if honours else ()), **answers)
    return greeted(backend, None, *said, extensions=[RecipientValidSince()])


def test_it_is_offered_where_the_backend_honours_it() -> None:
    assert client().send(HELLO).endswith(b"250 RRVS\r\n")
    assert client(honours=False).send(HELLO).endswith(b"250 mx.test\r\n")


def test_a_session_sees_it() -> None:
    server = client(HELLO, MAIL)
    assert (
        codes(server.send(b"RCPT TO:<c@d.test> rrvs=2014-04-03T23:01:00Z;c\r\nRCPT TO:<e@d.test>\r\n")) == [b"250"] * 2
    )
    first, second = server.protocol.wire.transaction.recipients
    assert first.options[RRVS] == ValidSince(WHEN, "C")
    assert RRVS not in second.options
    assert NO_OPTIONS[RRVS] is None


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (MailboxOwnerChanged(), b"550 5.7.17 Mailbox owner has changed\r\n"),
        (DomainOwnerChanged(), b"550 5.7.18 Domain owner has changed\r\n"),
        (OwnerUnknown(), b"550 5.7.19 RRVS test cannot be completed\r\n"),
    ],
)
def test_a_session_refuses(error: NamedSMTPError, reply: bytes) -> None:
    def refuse(recipient: Any, options: Options) -> None:
        if options[RRVS] is not None:
            raise error

    server = client(HELLO, MAIL, rcpt=refuse)
    assert server.send(b"RCPT TO:<c@d.test> RRVS=2014-04-03T23:01:00Z\r\n") == reply
    assert codes(server.send(b"RCPT TO:<c@d.test>\r\n")) == [b"250"]


def test_a_client_says_it_where_it_is_offered() -> None:
    options = Options.of({RRVS: ValidSince(WHEN.astimezone(timezone(timedelta(hours=1))), "R")})
    end = ClientEnd(["RRVS"])
    end.mail()
    end.hear(b"250 2.1.0 OK\r\n")
    end.rcpt(options=options)
    assert end.said() == [b"RCPT TO:<c@d.test> RRVS=2014-04-03T23:01:00Z;R\r\n"]
    end = ClientEnd()
    end.mail()
    end.hear(b"250 2.1.0 OK\r\n")
    error = end.rcpt(options=options).error(ExtensionMissing)
    assert (error.keyword, error.code, error.enhanced_code) == ("RRVS", 550, (5, 7, 19))
    assert end.said() == []


def test_it_stands_in_the_standard_list() -> None:
    assert [one.end_to_end for one in STANDARD if isinstance(one, RecipientValidSince)] == [True]
