"""For how long a pool keeps a connection, and how it sees that one does not work any more."""

from __future__ import annotations

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client.pool import CHECK_TIMEOUT, Pool
from smtpfw.errors import ConnectionFailed
from smtpfw.extensions import Limits, Pipelining
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections  # noqa: F401

# -- how long a connection is kept ---------------------------------------------------


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_connection_is_closed_after_so_many_messages(pipelining: bool) -> None:
    rig = Rig(prompt=False, pipelining=pipelining, max_connections=1, max_messages=2)
    rig.send(*"abcde")
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [["a", "b"], ["c", "d"], ["e"]]
    assert [server.heard[-1] for server in rig.servers] == ["QUIT", "QUIT", "(e)"]
    # QUIT is the last word, behind the last answer.
    assert not any(b"QUIT" in write for write in rig.links[0].client_transport.writes[:-1])
    rig.end()


@pytest.mark.parametrize(
    ("mailmax", "max_messages", "expected"), [(2, 100, 2), (2, 0, 2), (5, 3, 3), (2, 2, 2), (1, 100, 1)]
)
def test_a_connection_is_closed_after_as_many_messages_as_the_server_takes(
    mailmax: int, max_messages: int, expected: int
) -> None:
    """RFC 9422 section 4.1: one MAIL more may be answered by the end of the connection."""
    rig = Rig(max_connections=1, max_messages=max_messages)
    rig.factory.answers["EHLO"] = f"250-mx.test\r\n250-PIPELINING\r\n250 LIMITS MAILMAX={mailmax}\r\n".encode()
    names = [f"a{number}" for number in range(2 * expected)]
    rig.send(*names)
    assert rig.was_sent(*names)
    assert [server.accepted for server in rig.servers] == [names[:expected], names[expected:]]
    assert [server.heard[-1] for server in rig.servers] == ["QUIT", "QUIT"]
    rig.end()


def test_a_real_server_that_states_how_many_messages_it_takes() -> None:
    backend, clock = RecordingBackend(), Clock()
    config = ServerConfig(hostname="mx.test")
    extensions = [Pipelining(), Limits(max_transactions=3)]
    endpoint = MemoryEndpoint(SMTPServerFactory(backend, config, extensions=extensions, reactor=clock))
    pool = Pool(endpoint, config=CONFIG, max_connections=1, reactor=clock)
    endpoint.run(gatherResults([pool.send_mail("a@a.test", "b@b.test", b"x") for _ in range(8)]))
    assert len(backend.messages) == 8
    assert [link.said_by_client.count(b"MAIL FROM") for link in endpoint.links] == [3, 3, 2]
    endpoint.run(pool.close())


def test_messages_that_were_refused_count() -> None:
    rig = Rig(max_messages=2)
    rig.factory.answers["RCPT"] = b"550 no\r\n"
    rig.send("a"), rig.send("b"), rig.send("c")
    assert [server.verbs().count("MAIL") for server in rig.servers] == [2, 1]
    assert rig.servers[0].heard[-1] == "QUIT"
    rig.end()


def test_a_callback_of_the_last_message_gets_another_connection_at_once() -> None:
    rig = Rig(prompt=False, max_messages=1, max_connections=2)
    rig.send("a", then=lambda _: rig.send("b"))
    rig.answer(0, 5)
    assert len(rig.links) == 2
    assert rig.servers[0].asked
    rig.answer_all()
    assert rig.was_sent("a", "b")
    rig.end()


def test_a_connection_is_closed_when_it_is_old() -> None:
    rig = Rig(prompt=False, max_connections=1, max_age=100, max_idle=0, check_after=1000)
    rig.send("a")
    rig.answer_all()
    rig.advance(99)
    rig.send("b")
    rig.answer(0, 3)
    rig.advance(2)
    rig.send("c")
    # It has something to do still; and then nothing more.
    rig.answer(0)
    assert rig.was_sent("b")
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [["a", "b", "c"]]
    assert rig.servers[0].heard[-1] == "QUIT"
    assert rig.pool.open == 0
    rig.end()


def test_an_old_connection_that_is_idle_is_closed_by_the_clock() -> None:
    rig = Rig(max_age=100, max_idle=0)
    rig.send("a")
    rig.advance(99.5)
    assert not rig.servers[0].lost
    rig.advance(0.5)
    assert rig.servers[0].lost
    rig.end()


def test_the_oldest_that_is_idle_is_closed_in_its_time() -> None:
    """It became idle last, and its end comes first."""
    rig = Rig(prompt=False, max_age=100, max_idle=70, check_after=1000)
    rig.send("a")
    rig.answer(0)
    rig.advance(50)
    rig.send("b")
    rig.answer(1, 5)
    assert rig.was_sent("b")
    rig.advance(25)
    rig.answer(0, 4)
    rig.factory.prompt = True
    rig.advance(24)
    assert [server.lost for server in rig.servers] == [False, False]
    rig.advance(1)
    assert [server.lost for server in rig.servers] == [True, False]
    rig.advance(20)
    assert [server.lost for server in rig.servers] == [True, True]
    rig.end()


def test_a_connection_that_nobody_needs_is_closed() -> None:
    rig = Rig(max_idle=60)
    rig.send("a")
    rig.advance(40)
    rig.send("b")
    rig.advance(59)
    assert rig.pool.open == 1
    rig.advance(1)
    assert rig.servers[0].heard[-1] == "QUIT"
    assert rig.pool.open == 0
    rig.send("c")
    assert rig.was_sent("c")
    assert len(rig.links) == 2
    rig.end()


@pytest.mark.parametrize("since", [0.1, 0.3, 1e9 + 0.7, 1234567.891])
def test_an_idle_connection_is_closed_once_whatever_the_fractions_of_time(since: float) -> None:
    rig = Rig(max_idle=60.1, max_age=0)
    rig.advance(since)
    rig.send("a")
    rig.advance(60.1)
    rig.advance(1e-3)
    assert rig.servers[0].lost
    rig.end()


def test_without_limits_nothing_is_closed() -> None:
    rig = Rig(max_idle=0, max_age=0, max_messages=0, check_after=1e9)
    for number in range(150):
        rig.send(f"a{number}")
    rig.advance(1e6)
    rig.send("b")
    assert len(rig.links) == 1
    assert rig.was_sent("b")
    rig.end()


# -- whether it still works ----------------------------------------------------------


def test_a_connection_that_was_idle_is_asked_whether_it_works() -> None:
    rig = Rig()
    rig.send("a")
    rig.advance(15)
    rig.send("b")
    assert "NOOP" not in rig.servers[0].heard
    rig.advance(16)
    rig.send("c")
    assert rig.was_sent("c")
    assert rig.servers[0].verbs()[-5:] == ["NOOP", "MAIL", "RCPT", "DATA", "(c)"]
    assert rig.servers[0].heard.count("NOOP") == 1
    assert len(rig.links) == 1
    rig.end()


def test_no_other_connection_is_opened_for_the_one_that_is_asked() -> None:
    rig = Rig()
    rig.send("a")
    rig.factory.prompt = False
    rig.advance(20)
    rig.send("b")
    assert rig.servers[0].asked
    assert (len(rig.links), rig.pool.waiting) == (1, 1)
    rig.answer(0)
    assert rig.links[0].client_transport.writes[-1].startswith(b"MAIL FROM:<b@")
    # Whoever comes meanwhile gets one for himself.
    rig.send("c")
    assert len(rig.links) == 2
    rig.answer_all()
    rig.end()


@pytest.mark.parametrize("gone", [b"500 what?\r\n", b"421 too late\r\n", b"nonsense\r\n", b"354 more\r\n", b"", None])
@pytest.mark.parametrize("max_connections", [1, 3])
def test_a_message_survives_a_connection_that_does_not_work_any_more(gone: bytes | None, max_connections: int) -> None:
    rig = Rig(max_connections=max_connections)
    rig.send("a")
    rig.advance(20)
    if gone is None:
        # Nothing has come of the end; only what is written shows it.
        rig.servers[0].transport.abortConnection()
    else:
        rig.servers[0].answers["NOOP"] = gone
    rig.send("b")
    rig.advance(CHECK_TIMEOUT)
    assert rig.was_sent("b")
    assert [server.accepted for server in rig.servers] == [["a"], ["b"]]
    assert rig.pool.open == 1
    rig.end()


def test_who_waits_for_a_check_is_told_when_there_is_nobody_any_more() -> None:
    rig = Rig()
    rig.send("a")
    rig.advance(20)
    rig.servers[0].answers["NOOP"] = b""
    rig.send("b")
    rig.endpoint.server_factory = None
    rig.advance(CHECK_TIMEOUT)
    assert type(rig.error("b")) is ConnectionFailed
    rig.end()


def test_a_check_that_is_no_longer_needed_gives_the_connection_back() -> None:
    rig = Rig()
    rig.send("a")
    rig.factory.prompt = False
    rig.advance(20)
    rig.send("b")
    rig.deferreds["b"].cancel()
    rig.answer(0)
    assert rig.pool.unused
    rig.factory.prompt = True
    rig.send("c")
    assert rig.servers[0].accepted == ["a", "c"]
    assert rig.servers[0].heard.count("NOOP") == 1
    rig.end()


def test_several_idle_connections_are_asked_each() -> None:
    rig = Rig(prompt=False, max_connections=3)
    rig.send("a", "b", "c")
    rig.answer_all()
    rig.advance(20)
    rig.send("d", "e")
    assert [server.asked for server in rig.servers].count(True) == 2
    rig.servers[2].answer(b""), rig.servers[1].answer()
    rig.answer_all()
    rig.advance(CHECK_TIMEOUT)
    rig.answer_all()
    assert rig.was_sent("d", "e")
    assert sorted(rig.accepted) == list("abcde")
    rig.end()
