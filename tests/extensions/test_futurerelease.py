"""FUTURERELEASE: both parameters, the maxima as the clock has them, and what a client refuses by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from smtpfw.errors import ConfigError, ExtensionMissing, HeldTooLongForPeer, LocalProtocolError
from smtpfw.extensions import STANDARD, DeliverBy, FutureRelease
from smtpfw.extensions.deliverby import BY, DeliverByTime
from smtpfw.extensions.futurerelease import HOLDFOR, HOLDUNTIL, MAX_INTERVAL, HoldLimits
from smtpfw.testing import RecordingBackend
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.times import MAX_SECONDS
from tests.server.helpers import HELLO, greeted
from tests.wire.client_end import ClientEnd

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class Watch:
    """A clock."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


def client(*said: bytes, honours: bool = True, **arguments: Any) -> tuple[list[Options], Any]:
    seen: list[Options] = []
    backend = RecordingBackend(
        frozenset({"FUTURERELEASE"} if honours else ()), mail=lambda sender, options: seen.append(options)
    )
    extension = FutureRelease(**{"now": Watch(), **arguments})
    return seen, greeted(backend, None, *said, extensions=[extension])


@pytest.mark.parametrize(
    ("arguments", "honours", "line"),
    [
        ({}, True, b"250 FUTURERELEASE 2592000 2026-12-21T12:00:00Z\r\n"),
        ({"max_interval": 3600.0}, True, b"250 FUTURERELEASE 3600 2026-11-21T13:00:00Z\r\n"),
        ({}, False, b"250 mx.test\r\n"),
    ],
)
def test_what_is_offered(arguments: Any, honours: bool, line: bytes) -> None:
    assert client(honours=honours, **arguments)[1].send(HELLO).endswith(line)


def test_each_ehlo_looks_at_the_clock() -> None:
    watch = Watch()
    _, server = client(HELLO, now=watch, max_interval=60)
    watch.time += timedelta(seconds=30, milliseconds=999)
    assert server.send(HELLO).endswith(b"250 FUTURERELEASE 60 2026-11-21T12:01:30Z\r\n")


def test_by_default_the_time_is_now() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    fact = FutureRelease().understand(FutureRelease().advertise(None))  # type: ignore[arg-type]
    assert fact is not None
    assert before <= fact.max_until - timedelta(seconds=MAX_INTERVAL) <= datetime.now(UTC)


TOO_LONG, TOO_LATE = "HOLDFOR is at most 60", "HOLDUNTIL is at most 60 seconds from now"


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ("HOLDFOR=1", ""),
        ("HOLDFOR=0", "HOLDFOR must be a number of seconds from 1 to 999999999"),
        ("HOLDFOR=060", "HOLDFOR must be a number of seconds from 1 to 999999999"),
        ("HOLDFOR=60", ""),
        ("HOLDFOR=61", TOO_LONG),
        ("HOLDFOR=999999999", TOO_LONG),
        ("HOLDFOR=1000000000", "HOLDFOR must be a number of seconds from 1 to 999999999"),
        ("HOLDFOR", "HOLDFOR must be a number of seconds from 1 to 999999999"),
        ("HOLDFOR=-1", "HOLDFOR must be a number of seconds from 1 to 999999999"),
        ("HOLDUNTIL=2026-11-21T12:00:00Z", ""),
        ("HOLDUNTIL=2026-11-21T13:01:00+01:00", ""),
        ("HOLDUNTIL=2026-11-21T11:59:59.9Z", "HOLDUNTIL has passed"),
        ("HOLDUNTIL=2026-11-21T12:01:00.001Z", TOO_LATE),
        ("HOLDUNTIL=tomorrow", "HOLDUNTIL must be a date and a time with its offset, as 2026-11-21T19:15:00Z"),
        ("HOLDFOR=1 HOLDUNTIL=2026-11-21T12:00:01Z", "HOLDFOR and HOLDUNTIL exclude each other"),
        ("HOLDFOR=1 HOLDFOR=1", "The same parameter twice"),
    ],
)
def test_what_is_taken(parameters: str, why: str) -> None:
    seen, server = client(HELLO, max_interval=60)
    expected = f"501 5.5.4 {why}\r\n" if why else "250 2.1.0 Sender OK\r\n"
    assert server.send(f"MAIL FROM:<a@b.test> {parameters}\r\n".encode()).decode() == expected
    assert len(seen) == (0 if why else 1)


def test_a_session_sees_them() -> None:
    seen, server = client(HELLO)
    server.send(
        b"MAIL FROM:<a@b.test> holdfor=60\r\nRSET\r\nMAIL FROM:<a@b.test> HOLDUNTIL=2026-11-22T01:00:00+01:00\r\n"
    )
    assert [options[HOLDFOR] for options in seen] == [60, None]
    assert [options[HOLDUNTIL] for options in seen] == [None, datetime(2026, 11, 22, tzinfo=UTC)]
    assert (NO_OPTIONS[HOLDFOR], NO_OPTIONS[HOLDUNTIL]) == (None, None)


@pytest.mark.parametrize(
    ("parameters", "taken"),
    [
        ("HOLDFOR=60 BY=60;R", True),
        ("HOLDFOR=60 BY=59;R", False),
        ("HOLDFOR=60 BY=59;N", False),
        ("HOLDFOR=1 BY=-1;N", False),
        ("HOLDUNTIL=2026-11-21T12:01:00Z BY=60;R", True),
        ("BY=60;R HOLDUNTIL=2026-11-21T12:01:00.001Z", False),
        ("BY=1;R", True),
    ],
)
def test_what_is_held_for_longer_than_it_may_take(parameters: str, taken: bool) -> None:
    backend = RecordingBackend(frozenset({"FUTURERELEASE", "DELIVERBY"}))
    server = greeted(backend, None, HELLO, extensions=[FutureRelease(now=Watch()), DeliverBy()])
    answer = "250 2.1.0 Sender OK" if taken else "501 5.5.4 The message would be held for longer than BY gives it"
    assert server.send(f"MAIL FROM:<a@b.test> {parameters}\r\n".encode()).decode() == f"{answer}\r\n"


@pytest.mark.parametrize("seconds", [None, 0, -1, 0.5, MAX_SECONDS + 1])
def test_times_that_can_not_be_written(seconds: Any) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds from 1 to 999999999"):
        HOLDFOR.format(seconds)


@pytest.mark.parametrize("seconds", [-1, 0.5, MAX_SECONDS + 1])
def test_intervals_that_can_not_be_said(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"extension FUTURERELEASE: max_interval: .* is no number of whole seconds"):
        FutureRelease(max_interval=seconds)


def test_no_interval_at_all() -> None:
    with pytest.raises(ConfigError, match="max_interval: 0 holds nothing"):
        FutureRelease(max_interval=0)


def test_the_longest_interval() -> None:
    line = FutureRelease(max_interval=MAX_SECONDS, now=Watch()).advertise(None)  # type: ignore[arg-type]
    assert line == "999999999 2058-07-30T13:46:39Z"


# -- the client -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fact"),
    [
        ("60 2026-11-21T12:00:00Z", HoldLimits(60, NOON)),
        ("60  2026-11-21T13:00:00+01:00 ", HoldLimits(60, NOON)),
        ("", None),
        ("60", None),
        ("2026-11-21T12:00:00Z 60", None),
        ("60 soon", None),
    ],
)
def test_what_a_server_says(said: str, fact: HoldLimits | None) -> None:
    assert FutureRelease().understand(said) == fact


LATER = NOON + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("offered", "options", "said"),
    [
        ("60 2026-11-21T12:00:00Z", {HOLDFOR: 60}, b" HOLDFOR=60"),
        ("60 2026-11-21T12:00:00Z", {HOLDFOR: 61}, b""),
        ("60 2026-11-21T12:00:00Z", {HOLDUNTIL: NOON}, b" HOLDUNTIL=2026-11-21T12:00:00Z"),
        ("60 2026-11-21T12:00:00Z", {HOLDUNTIL: LATER}, b""),
        # Who can't be understood may take it.
        ("", {HOLDUNTIL: LATER}, b" HOLDUNTIL=2026-11-21T12:00:01Z"),
    ],
)
def test_a_client_knows_the_maxima_of_the_server(offered: str, options: Any, said: bytes) -> None:
    end = ClientEnd([f"FUTURERELEASE {offered}"])
    told = end.mail(options=Options.of(options))
    if said:
        assert end.said() == [b"MAIL FROM:<a@b.test>" + said + b"\r\n"]
    else:
        error = told.error(HeldTooLongForPeer)
        assert (error.code, error.enhanced_code, error.temporary) == (501, (5, 5, 4), False)
        assert end.said() == []


def test_a_client_says_one_of_them_where_it_is_offered() -> None:
    both = Options.of({HOLDFOR: 1, HOLDUNTIL: LATER})
    assert "exclude each other" in str(ClientEnd(["FUTURERELEASE"]).mail(options=both).error(LocalProtocolError))
    told = ClientEnd().mail(options=Options.of({HOLDFOR: 1}))
    assert told.error(ExtensionMissing).keyword == "FUTURERELEASE"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({HOLDFOR: 60}, True),
        # It is for the server to say what is that close.
        ({HOLDFOR: 61}, True),
        ({HOLDFOR: 62}, False),
        ({HOLDUNTIL: NOON + timedelta(seconds=60.5)}, True),
        ({HOLDUNTIL: NOON + timedelta(seconds=62)}, False),
    ],
)
def test_a_client_does_not_ask_for_what_contradicts_itself(held: Any, said: bool) -> None:
    end = ClientEnd(["FUTURERELEASE", "DELIVERBY"], extensions=[FutureRelease(now=Watch()), DeliverBy()])
    told = end.mail(options=Options.of({**held, BY: DeliverByTime(60, "R")}))
    assert len(end.said()) == said
    if not said:
        assert "held for longer than BY gives it" in str(told.error(LocalProtocolError))


def test_it_stands_in_the_standard_list() -> None:
    assert [one.end_to_end for one in STANDARD if isinstance(one, FutureRelease)] == [True]
