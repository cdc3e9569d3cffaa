"""Messages given up, connections lost, and what callers do when they hear of it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from smtpfw.client.backoff import FIRST_PAUSE
from smtpfw.errors import ConnectionFailed, TimedOut, UnknownOutcome
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections  # noqa: F401

BIG = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 20_000
BUSY = b"421 4.3.2 too busy\r\n"


# -- giving up ---------------------------------------------------------------------


def test_a_message_that_was_given_up_while_it_waited_is_never_sent() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b", "c")
    rig.deferreds["b"].cancel()
    assert isinstance(rig.told["b"], CancelledError)
    assert rig.pool.waiting == 2
    rig.answer_all()
    assert rig.accepted == ["a", "c"]
    rig.end()


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("answers", [1, 2, 3])
def test_a_message_that_is_given_up_on_its_way_costs_its_connection(answers: int, pipelining: bool) -> None:
    """The server may begin to wait for it at any moment."""
    rig = Rig(prompt=False, max_connections=1, pipelining=pipelining)
    rig.send("a", "b")
    rig.answer(0, answers)
    rig.deferreds["a"].cancel()
    rig.flow()
    assert isinstance(rig.told["a"], CancelledError)
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [[], ["b"]]
    rig.end()


def test_a_message_that_is_given_up_while_its_octets_go_out_is_not_delivered() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", body=BIG)
    rig.send("b")
    rig.answer(0, 3)
    rig.links[0].server_transport.pauseProducing()
    rig.answer(0)
    rig.deferreds["a"].cancel()
    rig.links[0].server_transport.resumeProducing()
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [[], ["b"]]
    rig.end()


def test_a_message_that_is_given_up_behind_its_end_is_delivered_all_the_same() -> None:
    """It can't be taken back; its connection goes on."""
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b")
    rig.answer(0, 4)
    rig.deferreds["a"].cancel()
    assert isinstance(rig.told["a"], CancelledError)
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [["a", "b"]]
    rig.end()


def test_giving_up_one_does_not_make_the_one_before_it_unknown() -> None:
    """b stands behind the end of a, whose answer is still to come."""
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b", "c")
    rig.answer(0, 4)
    rig.deferreds["b"].cancel()
    rig.flow()
    assert isinstance(rig.told["b"], CancelledError)
    assert "a" not in rig.told
    rig.answer_all()
    assert rig.was_sent("a", "c")
    assert rig.accepted == ["a", "c"]
    rig.end()


def test_time_outs_of_callers_end_messages_where_they_are() -> None:
    rig = Rig(prompt=False, max_connections=1)
    for name in "abc":
        rig.hear(name, rig.pool.send_mail(f"{name}@a.test", "b@b.test", b"x").addTimeout(5, rig.clock))
    rig.flow()
    rig.answer(0)
    rig.advance(5)
    assert all(type(rig.told[name]).__name__ == "TimeoutError" for name in "abc")
    assert rig.pool.waiting == 0
    rig.answer_all()
    assert rig.accepted == []
    rig.end()


# -- lost connections -----------------------------------------------------------------


def test_a_connection_is_lost_with_messages_pipelined() -> None:
    """Of the one that was at its end nobody knows; the one behind it was certainly not delivered; others go on."""
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b", "c")
    rig.answer(0, 4)
    rig.servers[0].transport.abortConnection()
    rig.flow()
    assert type(rig.error("a")) is UnknownOutcome
    assert type(rig.error("b")) is ConnectionFailed
    assert "c" not in rig.told
    rig.answer_all()
    assert [server.accepted for server in rig.servers] == [[], ["c"]]
    assert "b" not in rig.servers[1].heard
    rig.end()


def test_a_server_that_goes_away_again_and_again_is_tried_once_for_each_message() -> None:
    rig = Rig(max_connections=1)
    rig.factory.answers["MAIL"] = b"nonsense\r\n"
    rig.send(*"abcd")
    assert all(isinstance(rig.error(name), ConnectionFailed) for name in "abcd")
    assert len(rig.links) == 4
    rig.end()


def test_a_message_that_is_never_answered() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b", "c")
    rig.answer(0, 4)
    rig.advance(CONFIG.end_timeout)
    assert type(rig.error("a")) is UnknownOutcome
    assert type(rig.error("b")) is ConnectionFailed
    rig.factory.prompt = True
    rig.servers[-1].answer_all()
    rig.flow()
    assert rig.was_sent("c")
    rig.end()


def test_who_sends_again_because_of_a_lost_connection_is_served() -> None:
    """Within the news of the loss the old connection still counts."""
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", then=lambda _: rig.send("again"))
    rig.answer(0, 2)
    rig.servers[0].transport.abortConnection()
    rig.flow()
    assert type(rig.error("a")) is ConnectionFailed
    rig.answer_all()
    assert rig.was_sent("again")
    rig.end()


def test_who_sends_again_because_of_a_time_out_gets_another_idle_connection_at_once() -> None:
    rig = Rig(prompt=False, max_connections=2, max_idle=0, check_after=1e9)
    rig.send("a", "b")
    rig.answer(0), rig.answer(1)
    rig.answer(1, 4)
    rig.deferreds["a"].addErrback(lambda _: None)
    again: list[Any] = []
    rig.deferreds["a"].addBoth(lambda _: again.append(rig.pool.send_mail("c@a.test", "b@b.test", b"x")))
    before = len(rig.links[1].client_transport.writes)
    rig.clock.advance(CONFIG.command_timeout)
    assert type(rig.error("a")) is TimedOut
    assert rig.links[1].client_transport.writes[before:][0].startswith(b"MAIL FROM:<c@")
    rig.answer_all()
    assert rig.accepted == ["b", "c"]
    rig.end()


# -- what callbacks do ---------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["close", "abort", "cancel", "acquire"])
@pytest.mark.parametrize("reply", [None, b"550 no\r\n", BUSY, b"nonsense\r\n"])
@pytest.mark.parametrize("max_connections", [1, 2])
def test_whoever_hears_of_his_message_may_do_anything(deed: str, reply: bytes | None, max_connections: int) -> None:
    rig = Rig(prompt=False, max_connections=max_connections)

    def act(_: object) -> None:
        if deed == "close":
            rig.close()
        elif deed == "abort":
            rig.pool.abort()
        elif deed == "cancel":
            for name in "bcd":
                rig.deferreds[name].cancel()
        else:
            rig.hear("client", rig.pool.acquire(), lambda client: rig.pool.release(client))

    rig.send("a", then=act)
    rig.send("b", "c", "d")
    for _ in range(4):
        rig.answer(0)
    rig.answer(0, reply=reply)
    rig.answer_all()
    rig.advance(FIRST_PAUSE)
    rig.answer_all()
    assert set("abcd") <= set(rig.told)
    if deed in ("close", "acquire"):
        assert sum(rig.was_sent(name) for name in "bcd") >= 2
    assert sorted(rig.accepted) == [name for name in "abcd" if rig.was_sent(name)] or deed in ("abort", "cancel")
    rig.end()


@pytest.mark.parametrize("deed", ["close", "abort", "cancel", "send"])
@pytest.mark.parametrize("slow", [True, False])
def test_whoever_hears_that_there_is_no_connection_may_do_anything(deed: str, slow: bool) -> None:
    rig = Rig(slow=slow, max_connections=1)
    rig.factory.greeting = BUSY
    if not slow:
        # They wait for the end of a pause, and then for a port on which nobody listens.
        rig.send("first")
        rig.endpoint.server_factory = None

    def act(_: object) -> None:
        if deed == "close":
            rig.close()
        elif deed == "abort":
            rig.pool.abort()
        elif deed == "cancel":
            rig.deferreds["b"].cancel()
        else:
            rig.send("d")

    rig.send("a", then=act)
    rig.send("b", "c")
    if slow:
        rig.slow.refuse()
    else:
        rig.advance(FIRST_PAUSE)
    assert isinstance(rig.told["b"], CancelledError if deed == "cancel" else ConnectionFailed)
    assert type(rig.error("c")) is ConnectionFailed
    if slow and deed == "send":
        rig.slow.refuse()
    assert ("d" in rig.told) is (deed == "send")
    rig.end()


@pytest.mark.parametrize("deed", ["close", "abort", "send"])
def test_whoever_gets_a_connection_may_do_anything(deed: str) -> None:
    rig = Rig(max_connections=1)

    def act(client: Any) -> None:
        if deed == "close":
            rig.close()
        elif deed == "abort":
            rig.pool.abort()
        else:
            rig.send("b")
        rig.pool.release(client)

    rig.hear("client", rig.pool.acquire(), act)
    rig.send("a")
    assert "a" in rig.told
    assert rig.was_sent("a") is (deed != "abort")
    rig.end()


def test_a_callback_that_fails_disturbs_nobody() -> None:
    rig = Rig(max_connections=1)

    def fail(_: object) -> None:
        raise RuntimeError("of the caller")

    rig.send("a", then=fail)
    rig.send("b")
    caught: list[Any] = []
    rig.deferreds["a"].addErrback(caught.append)
    assert caught[0].type is RuntimeError
    assert rig.was_sent("b")
    rig.end()
