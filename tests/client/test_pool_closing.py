"""The end of a pool: in good order, and at once."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from smtpfw.client.backoff import FIRST_PAUSE
from smtpfw.errors import ConnectionFailed, Refused, UnknownOutcome
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections  # noqa: F401

BUSY = b"421 4.3.2 too busy\r\n"

# -- closing in good order ----------------------------------------------------------------


def test_closing_what_has_never_been_used() -> None:
    rig = Rig()
    rig.end()
    rig.send("a")
    assert isinstance(rig.error("a"), ConnectionFailed)
    assert rig.error("a").args[0] == "the pool is closed"
    assert isinstance(rig.acquire(), ConnectionFailed)
    assert rig.links == []


def test_closing_waits_for_all_that_was_asked_before() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b", "c")
    rig.acquire()
    rig.answer(0, 4)
    rig.close()
    rig.close("closed, too")
    rig.send("d")
    assert isinstance(rig.error("d"), ConnectionFailed)
    rig.answer_all()
    assert rig.was_sent("a", "b", "c")
    assert "closed" not in rig.told
    client = rig.told["client"]
    client.mail("x@a.test")
    rig.answer_all()
    rig.pool.release(client)
    rig.answer_all()
    assert rig.servers[0].verbs()[-2:] == ["RSET", "QUIT"]
    assert rig.told["closed"] is None
    assert rig.told["closed, too"] is None
    rig.close("closed again")
    assert rig.told["closed again"] is None
    rig.assert_over()


def test_closing_gives_up_connections_that_nobody_waits_for() -> None:
    rig = Rig(slow=True)
    rig.send("a")
    rig.deferreds["a"].cancel()
    rig.close()
    assert rig.told["closed"] is None
    assert rig.slow.waiting == []
    rig.assert_over()


@pytest.mark.parametrize("answers", [0, 1])
def test_closing_in_the_midst_of_connecting(answers: int) -> None:
    rig = Rig(prompt=False)
    rig.factory.greeting = None
    rig.send("a", "b")
    rig.close()
    assert rig.told == {}
    for server in rig.servers:
        server.say(b"220 mx.test\r\n")
    rig.flow()
    rig.answer(0, answers)
    rig.answer_all()
    assert rig.was_sent("a", "b")
    assert rig.told["closed"] is None
    rig.assert_over()


def test_closing_when_nobody_listens() -> None:
    rig = Rig(slow=True, max_connections=2)
    rig.send("a", "b", "c")
    rig.close()
    rig.slow.refuse(), rig.slow.refuse()
    assert [type(rig.told[name]) for name in "abc"] == [ConnectionFailed] * 3
    assert rig.told["closed"] is None
    rig.assert_over()


@pytest.mark.parametrize("works", [True, False])
def test_closing_in_a_pause_waits_for_its_end(works: bool) -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    rig.send("a")
    rig.send("b", "c")
    rig.close()
    assert (rig.pool.waiting, "closed" in rig.told) == (2, False)
    if works:
        rig.factory.greeting = b"220 mx.test\r\n"
    rig.advance(FIRST_PAUSE)
    assert rig.was_sent("b", "c") is works
    assert isinstance(rig.told["b"], Refused) is not works
    assert rig.told["closed"] is None
    rig.assert_over()


def test_closing_in_a_pause_with_nobody_waiting() -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    rig.send("a")
    rig.send("b")
    rig.deferreds["b"].cancel()
    rig.close()
    assert rig.told["closed"] is None
    rig.assert_over()


def test_closing_when_the_last_of_those_who_wait_gives_up() -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    rig.send("a")
    rig.send("b")
    rig.close()
    rig.deferreds["b"].cancel()
    assert rig.told["closed"] is None
    rig.assert_over()


def test_closing_while_a_connection_is_asked_whether_it_works() -> None:
    rig = Rig()
    rig.send("a")
    rig.factory.prompt = False
    rig.advance(20)
    rig.send("b")
    rig.close()
    rig.answer_all()
    assert rig.was_sent("b")
    assert rig.told["closed"] is None
    rig.assert_over()


def test_closing_while_idle_connections_have_a_timer() -> None:
    rig = Rig()
    rig.send("a")
    rig.servers[0].transport.abortConnection()
    rig.flow()
    assert rig.clock.getDelayedCalls() != []
    rig.close()
    rig.assert_over()


@pytest.mark.parametrize("reply", [b"500 what?\r\n", b"nonsense\r\n", b""])
def test_a_server_that_does_not_say_goodbye_holds_nobody_up(reply: bytes) -> None:
    rig = Rig()
    rig.factory.answers["QUIT"] = reply
    rig.send("a")
    rig.close()
    rig.advance(CONFIG.quit_timeout)
    assert rig.told["closed"] is None
    rig.assert_over()


def test_who_waits_for_the_end_may_give_up() -> None:
    rig = Rig(prompt=False)
    rig.send("a")
    rig.close("gave up")
    rig.close()
    rig.deferreds["gave up"].cancel()
    rig.answer_all()
    assert isinstance(rig.told["gave up"], CancelledError)
    assert rig.told["closed"] is None
    rig.assert_over()


# -- closing at once --------------------------------------------------------------------------


def test_the_end_at_once() -> None:
    rig = Rig(prompt=False, max_connections=2)
    rig.send("a", "b")
    rig.answer(0)
    rig.send("c", "d")
    rig.answer(0, 3)
    rig.acquire()
    rig.close()
    rig.pool.abort()
    rig.flow()
    assert type(rig.error("a")) is UnknownOutcome
    assert all(type(rig.error(name)) is ConnectionFailed for name in ("b", "c", "d", "client"))
    assert rig.told["closed"] is None
    assert all(link.client_transport.aborted for link in rig.links)
    rig.assert_over()


def test_the_end_at_once_without_any_connection_is_told_to_who_waits_for_it() -> None:
    rig = Rig(max_connections=1)
    rig.factory.greeting = BUSY
    rig.send("a")
    rig.send("b")
    rig.close()
    rig.pool.abort()
    assert type(rig.error("b")) is ConnectionFailed
    assert rig.told["closed"] is None
    rig.assert_over()


def test_the_end_at_once_of_what_is_being_opened() -> None:
    rig = Rig(slow=True, max_connections=3)
    rig.send("a", "b")
    rig.slow.let()
    rig.pool.abort()
    rig.flow()
    assert type(rig.error("a")) is type(rig.error("b")) is ConnectionFailed
    assert rig.slow.waiting == []
    rig.end()


def test_the_end_at_once_of_what_is_lent_and_idle_and_leaving() -> None:
    rig = Rig(prompt=False, max_connections=3)
    rig.send("a", "b")
    rig.acquire()
    for server in range(3):
        rig.answer(server)
    rig.answer(0, 4), rig.answer(1, 4)
    rig.close()
    assert rig.servers[0].asked
    assert rig.servers[1].asked
    rig.pool.abort()
    rig.flow()
    assert rig.told["closed"] is None
    rig.assert_over()
    rig.pool.abort()
    rig.pool.release(rig.told["client"])
    rig.send("c")
    assert isinstance(rig.error("c"), ConnectionFailed)


def test_the_end_at_once_and_then_in_good_order() -> None:
    rig = Rig(prompt=False)
    rig.send("a")
    rig.answer(0, 2)
    rig.pool.abort()
    rig.close()
    assert rig.told["closed"] is None
    rig.assert_over()
