"""A pool whose server says 421, refuses connections, or does not let us in: what is tried when, and who hears of it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client.backoff import FIRST_PAUSE, LONGEST_PAUSE
from smtpfw.client.pool import Pool
from smtpfw.errors import BrokenPeer, ConnectionFailed, LocalProtocolError, Refused, TimedOut, TLSFailed
from smtpfw.sasl import Plain
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections, step_by_step  # noqa: F401

BUSY = b"421 4.3.2 too busy\r\n"


def pauses(rig: Rig, count: int) -> list[float]:
    """How long it waits with each new connection."""
    found = []
    for _ in range(count):
        before = len(rig.links)
        due = min(call.getTime() for call in rig.clock.getDelayedCalls())
        found.append(due - rig.clock.seconds())
        rig.advance(found[-1] - 0.01)
        assert len(rig.links) == before
        rig.advance(0.02)
        assert len(rig.links) == before + 1
    return found


# -- 421 -------------------------------------------------------------------------


def test_421_in_the_place_of_a_greeting() -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    rig.send("a", "b")
    for name in "ab":
        assert type(rig.error(name)) is Refused
        assert (rig.error(name).code, rig.error(name).phase) == (421, "GREETING")
    # Who comes now waits for the end of the pause.
    rig.send("c", "d")
    assert (len(rig.links), rig.pool.waiting) == (1, 2)
    rig.factory.greeting = b"220 mx.test\r\n"
    rig.advance(FIRST_PAUSE - 0.1)
    assert len(rig.links) == 1
    rig.advance(0.1)
    assert rig.was_sent("c", "d")
    assert len(rig.links) == 2
    rig.end()


def test_the_pause_is_twice_as_long_each_time_up_to_a_limit() -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    for number in range(9):
        rig.send(f"a{number}")
        if number == 0:
            assert type(rig.error("a0")) is Refused
        else:
            assert pauses(rig, 1) == [pytest.approx(min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE))]
            assert type(rig.error(f"a{number}")) is Refused
    rig.end()


@pytest.mark.parametrize(("verb", "phase"), [("MAIL", "MAIL"), ("RCPT", "RCPT"), ("DATA", "DATA"), ("MESSAGE", "END")])
@pytest.mark.parametrize("pipelining", [True, False])
def test_421_to_a_message_is_its_answer_and_others_wait_for_a_while(verb: str, phase: str, pipelining: bool) -> None:
    rig = Rig(max_connections=1, pipelining=pipelining)
    rig.factory.answers[verb] = BUSY
    rig.send("a")
    error = rig.error("a")
    assert type(error) is Refused
    assert (error.code, error.phase) == (421, phase)
    rig.factory.answers.clear()
    rig.send("b")
    assert (len(rig.links), rig.pool.waiting) == (1, 1)
    rig.advance(FIRST_PAUSE)
    assert rig.was_sent("b")
    assert rig.accepted == ["b"]
    rig.end()


def test_the_pause_begins_anew_when_a_connection_that_came_later_has_worked() -> None:
    rig = Rig(max_connections=1)
    rig.factory.answers["MAIL"] = BUSY
    for number in range(3):
        rig.send(f"a{number}")
        rig.advance(4)
    rig.factory.answers.clear()
    rig.send("b")
    assert rig.was_sent("b")
    rig.servers[-1].answers["MAIL"] = BUSY
    rig.send("c"), rig.send("d")
    assert type(rig.error("c")) is Refused
    assert pauses(rig, 1) == [pytest.approx(FIRST_PAUSE)]
    rig.end()


def test_a_loan_that_went_well_ends_the_trouble() -> None:
    """Who only borrows connections, as one does who passes mail on, would else wait for a minute at each new 421."""
    rig = Rig(max_connections=1)
    for number in range(4):
        rig.hear(f"loan {number}", Deferred.fromCoroutine(step_by_step(rig.pool, f"a{number}")))
        rig.flow()
        assert rig.told[f"loan {number}"] is not None
        rig.advance(70)
        rig.factory.answers["MAIL"] = BUSY
        rig.hear(f"busy {number}", Deferred.fromCoroutine(step_by_step(rig.pool, f"b{number}")))
        rig.flow()
        assert rig.error(f"busy {number}").code == 421
        rig.factory.answers.clear()
        rig.acquire(f"next {number}")
        assert pauses(rig, 1) == [pytest.approx(FIRST_PAUSE)]
        rig.pool.release(rig.told[f"next {number}"])
        rig.advance(3600)
    rig.end()


@pytest.mark.parametrize("said", [True, False])
def test_a_loan_that_was_of_no_use_does_not_end_the_trouble(said: bool) -> None:
    """It was given back at once, or within the 421 that ends it."""
    rig = Rig(max_connections=1)
    rig.factory.answers["MAIL"] = BUSY
    rig.send("a")
    for number in range(3):
        rig.acquire(f"c{number}")
        assert pauses(rig, 1) == [pytest.approx(FIRST_PAUSE * 2**number)]
        client = rig.told[f"c{number}"]
        if said:
            client.mail("x@a.test").addErrback(lambda _, client=client: rig.pool.release(client))
            rig.flow()
        else:
            rig.pool.release(client)
            rig.send(f"a{number}")
            assert rig.error(f"a{number}").code == 421
    rig.end()


def test_those_that_go_on_do_not_end_a_pause() -> None:
    """A server that takes two connections and no third says so again and again."""
    rig = Rig(prompt=False, pipelining=False, max_connections=2)
    rig.send("a")
    rig.answer(0)
    rig.factory.greeting = BUSY
    rig.send("b")
    rig.answer(0)
    for number in range(4):
        # Each message is accepted by the one that there is, and another one waits.
        rig.send(f"c{number}")
        before = len(rig.links)
        rig.advance(FIRST_PAUSE * 2**number - 0.01)
        rig.answer(0, 4)
        assert len(rig.links) == before
        rig.advance(0.02)
        assert len(rig.links) == before + 1
    rig.factory.greeting = b"220 mx.test\r\n"
    rig.factory.prompt = True
    rig.advance(20)
    rig.answer_all()
    assert rig.was_sent("a", "b", *(f"c{number}" for number in range(4)))
    rig.end()


def test_421_on_several_connections_is_said_once() -> None:
    """A server that is stopped says it on all of them."""
    rig = Rig(prompt=False, max_connections=4)
    rig.send(*"abcd")
    for server in range(4):
        rig.answer(server)
    for server in range(4):
        rig.answer(server, reply=BUSY)
    assert all(type(rig.error(name)) is Refused for name in "abcd")
    rig.factory.prompt = True
    rig.send("e")
    assert pauses(rig, 1) == [pytest.approx(FIRST_PAUSE)]
    assert rig.was_sent("e")
    rig.end()


@pytest.mark.parametrize("max_connections", [1, 3])
def test_421_when_nothing_was_asked_is_no_reason_to_wait(max_connections: int) -> None:
    """It says that the connection was idle for too long."""
    rig = Rig(max_connections=max_connections)
    rig.send("a")
    rig.servers[0].say(b"421 4.4.2 idle for too long\r\n")
    rig.flow()
    assert rig.pool.open == 0
    rig.send("b")
    assert rig.was_sent("b")
    rig.end()


def test_a_message_does_not_go_to_a_connection_that_is_ending() -> None:
    """421 has come, and the transport is not closed yet."""
    rig = Rig(max_connections=2)
    rig.send("a")
    link = rig.links[0]
    link.client.dataReceived(b"421 4.4.2 idle for too long\r\n")
    assert rig.pool.open == 1
    rig.send("b")
    assert rig.was_sent("b")
    rig.end()


def test_who_sends_again_as_soon_as_he_hears_of_421_waits_too() -> None:
    rig = Rig(max_connections=1)
    rig.factory.answers["MAIL"] = BUSY
    rig.send("a", then=lambda _: rig.send("b"))
    assert (len(rig.links), rig.pool.waiting) == (1, 1)
    rig.factory.answers.clear()
    rig.advance(FIRST_PAUSE)
    assert rig.was_sent("b")
    rig.end()


def test_messages_go_on_over_the_other_connections_meanwhile() -> None:
    rig = Rig(prompt=False, max_connections=2)
    rig.send("a", "b")
    rig.answer(0), rig.answer(1)
    rig.answer(0, reply=BUSY)
    rig.send("c", "d")
    rig.answer_all()
    assert rig.was_sent("b", "c", "d")
    # There may not be another for now, so they are pipelined.
    assert len(rig.links) == 2
    assert b".\r\nMAIL FROM:<c@" in rig.links[1].said_by_client
    rig.end()


def test_a_real_server_that_takes_fewer_connections_than_there_may_be() -> None:
    backend, clock = RecordingBackend(), Clock()
    config = ServerConfig(hostname="mx.test", max_connections_per_address=2)
    endpoint = MemoryEndpoint(SMTPServerFactory(backend, config, reactor=clock))
    pool = Pool(endpoint, config=CONFIG, max_connections=5, reactor=clock)
    sent = [pool.send_mail(f"m{number}@a.test", "b@b.test", b"x") for number in range(20)]
    endpoint.run(gatherResults(sent))
    assert len(backend.messages) == 20
    assert [b"EHLO" in link.said_by_client for link in endpoint.links] == [True] * 2 + [False] * 3
    endpoint.run(pool.close())


# -- no connection --------------------------------------------------------------------------


def test_all_who_wait_hear_that_there_is_no_connection() -> None:
    rig = Rig(slow=True, max_connections=1)
    rig.send("a", "b")
    rig.acquire("c")
    rig.slow.refuse("nobody listens")
    rig.flow()
    for name in "abc":
        error = rig.error(name)
        assert type(error) is ConnectionFailed
        assert (error.phase, error.args[0]) == ("CONNECT", "nobody listens")
    assert rig.slow.waiting == []
    # Nobody waits for the next attempt: it is asked for by another message.
    rig.send("d")
    assert len(rig.slow.waiting) == 1
    rig.slow.let()
    rig.flow()
    assert rig.was_sent("d")
    rig.end()


def test_at_once_and_in_memory_too() -> None:
    rig = Rig()
    rig.endpoint.server_factory = None
    rig.send("a"), rig.send("b")
    assert type(rig.error("a")) is type(rig.error("b")) is ConnectionFailed
    rig.end()


def test_several_attempts_that_fail_one_after_another_are_not_made_again() -> None:
    rig = Rig(slow=True, max_connections=3)
    rig.send("a", "b", "c", "d")
    assert len(rig.slow.waiting) == 3
    rig.slow.refuse()
    rig.flow()
    assert (len(rig.slow.waiting), rig.told) == (2, {})
    # Who comes meanwhile waits for what becomes of the others.
    rig.send("e")
    assert len(rig.slow.waiting) == 2
    rig.slow.refuse()
    rig.advance(10)
    assert (len(rig.slow.waiting), rig.told) == (1, {})
    rig.slow.refuse()
    rig.flow()
    assert list(rig.told) == list("abcde")
    assert rig.slow.waiting == []
    rig.end()


def test_one_of_several_attempts_is_enough() -> None:
    rig = Rig(slow=True, max_connections=3)
    rig.send("a", "b", "c")
    rig.slow.refuse(), rig.slow.refuse()
    rig.slow.let()
    rig.flow()
    assert rig.was_sent("a", "b", "c")
    assert rig.pool.open == 1
    rig.end()


def test_while_there_is_another_connection_they_wait_for_it() -> None:
    rig = Rig(prompt=False, max_connections=3)
    rig.send("a")
    rig.answer(0)
    rig.endpoint.server_factory = None
    rig.send("b")
    assert (rig.told, rig.pool.waiting) == ({}, 1)
    rig.answer_all()
    assert rig.was_sent("a", "b")
    rig.end()


def test_while_there_is_another_connection_it_is_tried_again_in_time() -> None:
    rig = Rig(prompt=False, slow=True, max_connections=2)
    rig.send("a")
    rig.slow.let()
    rig.flow()
    rig.answer(0)
    rig.send("b")
    for pause in (1, 2, 4):
        rig.slow.refuse()
        rig.advance(pause - 0.1)
        assert rig.slow.waiting == []
        rig.advance(0.1)
        assert len(rig.slow.waiting) == 1
    # The other one ends, too: now there is none.
    rig.servers[0].transport.abortConnection()
    rig.flow()
    assert type(rig.error("a")) is ConnectionFailed
    assert "b" not in rig.told
    rig.slow.refuse("nobody listens")
    assert rig.error("b").args[0] == "nobody listens"
    rig.end()


def test_a_connection_that_says_goodbye_is_not_waited_for() -> None:
    rig = Rig(max_connections=2, max_messages=1)
    rig.factory.answers["QUIT"] = b""
    rig.send("a")
    assert rig.pool.open == 1
    rig.endpoint.server_factory = None
    rig.send("b")
    assert type(rig.error("b")) is ConnectionFailed
    rig.advance(10)
    rig.end()


@pytest.mark.parametrize(
    ("verb", "reply", "kind"),
    [
        ("EHLO", b"250 mx.test\r\n250 mx.test\r\n", BrokenPeer),
        ("EHLO", b"250 mx.test\r\nnonsense\r\n", BrokenPeer),
        ("EHLO", b"250 mx.test\r\n421 bye\r\n", BrokenPeer),
        ("EHLO", b"550 no\r\n", Refused),
        ("EHLO", b"451 no\r\n", Refused),
    ],
)
@pytest.mark.parametrize("who", ["message", "client"])
def test_a_connection_that_can_never_be_used_is_none(verb: str, reply: bytes, kind: type, who: str) -> None:
    """Or a server that breaks off behind EHLO would be asked again and again, and nobody told."""
    rig = Rig(max_connections=2)
    rig.factory.answers[verb] = reply
    rig.factory.answers["HELO"] = b"550 no\r\n"
    if who == "message":
        rig.send("x")
    else:
        rig.acquire("x")
    assert type(rig.error("x")) is kind
    assert len(rig.links) == 1
    rig.end()


def test_a_server_that_is_silent() -> None:
    rig = Rig(max_connections=2)
    rig.factory.greeting = b""
    rig.send("a", "b")
    rig.advance(CONFIG.greeting_timeout)
    assert type(rig.error("a")) is type(rig.error("b")) is TimedOut
    rig.end()


# -- not let in -----------------------------------------------------------------------------


def test_a_login_that_fails_is_told_to_all() -> None:
    rig = Rig(max_connections=1, auth=[Plain("me", "secret", allow_clear=True)])
    rig.factory.answers["EHLO"] = b"250-mx.test\r\n250 AUTH PLAIN\r\n"
    rig.factory.answers["AUTH"] = b"535 5.7.8 wrong\r\n"
    rig.send("a", "b")
    for name in "ab":
        assert (rig.error(name).code, rig.error(name).phase) == (535, "AUTH")
    assert len(rig.links) == 1
    rig.end()


def test_a_login_that_fails_while_another_connection_goes_on() -> None:
    rig = Rig(prompt=False, max_connections=2, auth=[Plain("me", "secret", allow_clear=True)])
    rig.factory.answers["EHLO"] = b"250-mx.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"
    rig.factory.answers["AUTH"] = b"235 welcome\r\n"
    rig.send("a", "b")
    rig.answer(0, 2)
    rig.answer(1)
    rig.answer(1, reply=b"454 4.7.0 not now\r\n")
    assert (len(rig.links), rig.told) == (2, {})
    rig.answer_all()
    assert rig.was_sent("a", "b")
    rig.end()


def test_credentials_that_must_not_be_said_are_told_to_all() -> None:
    rig = Rig(max_connections=1, auth=[Plain("me", "secret")])
    rig.factory.answers["EHLO"] = b"250-mx.test\r\n250 AUTH PLAIN\r\n"
    rig.send("a", "b")
    assert isinstance(rig.error("a"), LocalProtocolError)
    assert isinstance(rig.error("b"), LocalProtocolError)
    rig.end()


def test_what_a_server_says_of_tls_is_told_in_one_line() -> None:
    rig = Rig(max_connections=1, tls="required", tls_name="mx.test")
    rig.factory.answers["EHLO"] = b"250-mx.test\r\n250 STARTTLS\r\n"
    rig.factory.answers["STARTTLS"] = b"454-\x1b[2Jnot\r\n454-now\r\n454 " + b"x" * 900 + b"\r\n"
    rig.send("a")
    assert type(rig.error("a")) is TLSFailed
    text = str(rig.error("a"))
    assert text.isprintable()
    assert text.endswith("x ...")
    assert len(text) < 600
    rig.end()


@pytest.mark.parametrize("reply", [b"454 not now\r\n", b"421 bye\r\n", None])
def test_a_line_that_does_not_become_safe_is_told_to_all(reply: bytes | None) -> None:
    rig = Rig(max_connections=1, tls="required", tls_name="mx.test")
    if reply is not None:
        rig.factory.answers.update(EHLO=b"250-mx.test\r\n250 STARTTLS\r\n", STARTTLS=reply)
    rig.send("a", "b")
    assert type(rig.error("a")) is type(rig.error("b")) is TLSFailed
    assert len(rig.links) == 1
    rig.end()
