"""A connection of a pool for oneself: waiting for it, having it, giving it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import twisted.internet
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from smtpfw.client.connecting import Connector, connector_of
from smtpfw.client.pool import Pool
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import ConnectionFailed
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections, step_by_step  # noqa: F401


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_connection_is_used_again_when_it_is_given_back_behind_its_last_reply(pipelining: bool) -> None:
    rig = Rig(pipelining=pipelining, max_connections=3)
    for name in ("a", "b"):
        rig.hear(name, Deferred.fromCoroutine(step_by_step(rig.pool, name)))
        rig.flow()
    assert rig.told["a"] is rig.told["b"]
    rig.send("c")
    assert rig.servers[0].accepted == ["a", "b", "c"]
    assert len(rig.links) == 1
    assert "RSET" not in rig.servers[0].heard
    rig.end()


def test_many_take_turns() -> None:
    rig = Rig(max_connections=2)
    for name in "abcdefgh":
        rig.hear(name, Deferred.fromCoroutine(step_by_step(rig.pool, name)))
        rig.send(name.upper())
    assert len(rig.links) == 2
    assert sorted(rig.accepted) == sorted("abcdefghABCDEFGH")
    rig.end()


@pytest.mark.parametrize("max_connections", [1, 3])
def test_it_waits_its_turn_and_opens_no_more_than_it_needs(max_connections: int) -> None:
    rig = Rig(prompt=False, max_connections=max_connections)
    rig.acquire()
    assert (len(rig.links), rig.pool.waiting, "client" in rig.told) == (1, 1, False)
    rig.answer(0)
    assert rig.told["client"] is rig.links[0].client
    assert (len(rig.links), rig.pool.open, rig.pool.waiting) == (1, 1, 0)
    rig.pool.release(rig.told["client"])
    rig.end()


def test_one_at_the_head_gets_the_first_connection_that_is_idle() -> None:
    """Messages stand on the connection ahead of their answers; none of those that came later gets ahead of it."""
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a", "b")
    rig.acquire()
    rig.send("c")
    rig.answer(0, 5)
    assert (list(rig.told), rig.pool.waiting) == (["a"], 2)
    rig.answer(0, 4)
    assert list(rig.told) == ["a", "b", "client"]
    assert (rig.pool.waiting, rig.servers[0].asked) == (1, False)
    rig.pool.release(rig.told["client"])
    rig.answer_all()
    assert rig.was_sent("c")
    rig.end()


def test_messages_behind_one_that_gave_up_go_on() -> None:
    rig = Rig(prompt=False, max_connections=1)
    rig.send("a")
    rig.answer(0, 4)
    rig.acquire()
    rig.send("b")
    assert rig.pool.waiting == 2
    rig.deferreds["client"].cancel()
    rig.flow()
    assert isinstance(rig.told["client"], CancelledError)
    assert rig.links[0].client_transport.writes[-1].startswith(b"MAIL FROM:<b@")
    rig.answer_all()
    rig.end()


def test_nothing_else_goes_over_a_connection_that_is_lent() -> None:
    rig = Rig(max_connections=1, max_idle=10, check_after=1)
    client = rig.acquire()
    rig.send("a")
    client.mail("x@a.test")
    rig.flow()
    rig.advance(1000)
    client.noop()
    rig.flow()
    assert rig.pool.waiting == 1
    assert rig.servers[0].heard[1:] == ["MAIL FROM:<x@a.test>", "NOOP"]
    rig.pool.release(client)
    rig.flow()
    assert rig.was_sent("a")
    rig.end()


# -- giving it back -----------------------------------------------------------------


def test_an_open_transaction_is_reset_before_anything_else() -> None:
    rig = Rig(max_connections=1, prompt=False)
    rig.acquire()
    rig.answer(0)
    client = rig.told["client"]
    client.mail("x@a.test")
    rig.answer_all()
    rig.send("a")
    rig.pool.release(client)
    rig.flow()
    assert rig.links[0].client_transport.writes[-1] == b"RSET\r\n"
    rig.answer(0)
    assert rig.links[0].client_transport.writes[-1].startswith(b"MAIL FROM:<a@")
    rig.answer_all()
    assert rig.servers[0].accepted == ["a"]
    rig.end()


def test_an_open_transaction_is_reset_when_it_is_given_back_in_the_midst_of_a_reply() -> None:
    rig = Rig(max_connections=2)
    client = rig.acquire()
    client.mail("x@a.test").addCallback(lambda _: rig.pool.release(client))
    rig.flow()
    assert rig.servers[0].verbs()[-2:] == ["MAIL", "RSET"]
    assert rig.pool.unused
    rig.send("a")
    assert len(rig.links) == 1
    rig.end()


@pytest.mark.parametrize("reply", [b"500 what?\r\n", b"421 bye\r\n"])
def test_a_connection_that_cannot_be_reset_is_closed(reply: bytes) -> None:
    rig = Rig(max_connections=1)
    client = rig.acquire()
    client.mail("x@a.test")
    rig.flow()
    rig.servers[0].answers["RSET"] = reply
    rig.pool.release(client)
    rig.send("a")
    rig.advance(1)
    assert rig.was_sent("a")
    assert [server.accepted for server in rig.servers] == [[], ["a"]]
    rig.end()


def test_a_connection_with_something_under_way_is_closed() -> None:
    rig = Rig(prompt=False)
    rig.acquire()
    rig.answer(0)
    client = rig.told["client"]
    rig.hear("mail", client.mail("x@a.test"))
    rig.pool.release(client)
    rig.flow()
    assert isinstance(rig.error("mail"), ConnectionFailed)
    assert rig.links[0].client_transport.aborted
    assert rig.pool.open == 0
    rig.end()


def test_a_connection_on_which_something_was_given_up_is_closed() -> None:
    """Its reply is still due."""
    rig = Rig(prompt=False)
    rig.acquire()
    rig.answer(0)
    client = rig.told["client"]
    rig.hear("mail", client.mail("x@a.test"))
    rig.deferreds["mail"].cancel()
    rig.pool.release(client)
    rig.flow()
    assert rig.links[0].client_transport.aborted
    rig.end()


def test_a_connection_with_half_a_message_is_closed() -> None:
    rig = Rig()
    client = rig.acquire()
    client.mail("x@a.test")
    client.rcpt("b@b.test")
    writer = client.data()
    rig.flow()
    writer.write(b"Subject: x\r\n")
    rig.flow()
    rig.pool.release(client)
    rig.hear("data", writer.finish())
    rig.flow()
    assert isinstance(rig.error("data"), ConnectionFailed)
    assert (rig.accepted, rig.pool.open) == ([], 0)
    rig.end()


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize("prompt", [True, False])
def test_giving_back_twice_is_once(transaction: bool, prompt: bool) -> None:
    rig = Rig(max_connections=2)
    client = rig.acquire()
    if transaction:
        client.mail("x@a.test")
        rig.flow()
    rig.factory.prompt = prompt
    rig.pool.release(client)
    rig.pool.release(client)
    rig.flow()
    rig.pool.release(client)
    rig.answer_all()
    assert rig.pool.unused
    assert rig.servers[0].heard.count("RSET") == transaction
    rig.send("a")
    rig.answer_all()
    assert len(rig.links) == 1
    # It is not lent any more, whoever still has it in his hands.
    rig.pool.release(client)
    assert rig.pool.open == 1
    rig.end()


def test_a_connection_of_another_pool_is_left_alone() -> None:
    rig, other = Rig(), Rig()
    client = rig.acquire()
    stranger = other.acquire()
    rig.pool.release(stranger)
    assert not other.pool.unused
    assert not stranger.wire.is_over
    other.pool.release(stranger)
    rig.pool.release(client)
    assert rig.pool.unused
    rig.end()
    other.end()


def test_a_connection_that_is_gone_is_given_back() -> None:
    rig = Rig()
    client = rig.acquire()
    rig.servers[0].transport.abortConnection()
    rig.flow()
    assert rig.pool.open == 0
    rig.pool.release(client)
    rig.acquire("another")
    rig.told["another"].close()
    rig.pool.release(rig.told["another"])
    rig.flow()
    assert rig.pool.open == 0
    rig.send("a")
    assert rig.was_sent("a")
    rig.end()


def test_one_that_was_closed_with_a_transaction_open_is_given_back() -> None:
    rig = Rig()
    client = rig.acquire()
    client.mail("x@a.test")
    rig.flow()
    client.close()
    rig.pool.release(client)
    rig.send("a")
    assert rig.servers[1].accepted == ["a"]
    rig.end()


def test_who_says_quit_himself_leaves_room() -> None:
    rig = Rig(max_connections=1)
    client = rig.acquire()
    rig.send("a")
    rig.hear("quit", client.quit())
    rig.flow()
    assert rig.was_sent("a")
    rig.pool.release(client)
    rig.end()


def test_it_may_be_given_back_at_once() -> None:
    rig = Rig(max_connections=1, prompt=False)
    rig.hear("a", rig.pool.acquire(), lambda client: rig.pool.release(client))
    rig.hear("b", rig.pool.acquire(), lambda client: rig.pool.release(client))
    rig.send("c")
    rig.answer_all()
    assert rig.told["a"] is rig.told["b"]
    assert rig.was_sent("c")
    assert len(rig.links) == 1
    rig.end()


def test_whether_somebody_had_it_before() -> None:
    rig = Rig()
    client = rig.acquire("first")
    assert rig.pool.is_fresh(client)
    rig.pool.release(client)
    assert rig.acquire("second") is client
    assert not rig.pool.is_fresh(client)
    other = rig.acquire("third")
    assert rig.pool.is_fresh(other)
    rig.servers[1].transport.abortConnection()
    rig.flow()
    assert not rig.pool.is_fresh(other)
    rig.pool.release(client)
    rig.end()


def test_loans_count_as_messages() -> None:
    rig = Rig(max_messages=2)
    for _ in range(2):
        rig.hear(f"client {len(rig.told)}", rig.pool.acquire(), rig.pool.release)
        rig.flow()
    assert rig.servers[0].heard[-1] == "QUIT"
    assert rig.pool.open == 0
    rig.end()


def test_one_that_is_retired_is_kept_while_it_is_lent() -> None:
    rig = Rig(max_messages=1)
    client = rig.acquire()
    client.mail("x@a.test")
    rig.flow()
    rig.send("a")
    assert len(rig.links) == 2
    assert "QUIT" not in rig.servers[0].heard
    rig.pool.release(client)
    rig.flow()
    assert rig.servers[0].verbs()[-2:] == ["RSET", "QUIT"]
    rig.end()


def test_giving_up_while_it_is_being_opened() -> None:
    rig = Rig(prompt=False)
    rig.acquire()
    rig.deferreds["client"].cancel()
    assert isinstance(rig.told["client"], CancelledError)
    rig.answer(0)
    # It is there all the same, for the next.
    assert (rig.pool.open, rig.pool.unused) == (1, True)
    rig.factory.prompt = True
    rig.send("a")
    assert len(rig.links) == 1
    rig.end()


def test_whoever_waits_for_a_check_gets_the_connection() -> None:
    rig = Rig(max_connections=3)
    rig.send("a")
    rig.advance(20)
    client = rig.acquire()
    assert client is rig.links[0].client
    assert rig.servers[0].heard[-1] == "NOOP"
    assert len(rig.links) == 1
    rig.pool.release(client)
    rig.end()


# -- connectors of one's own ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thoughtful(Connector):
    """Takes its time after it has connected."""

    delay: float = 0.0
    kept: list[Any]

    def connect(self, reactor: Any = None) -> Deferred[SMTPClientProtocol]:
        async def connect() -> SMTPClientProtocol:
            client = await Connector.connect(self, reactor)
            self.kept.append(client)
            later: Deferred[None] = Deferred()
            reactor.callLater(self.delay, later.callback, None)
            await later
            return client

        return Deferred.fromCoroutine(connect())


@pytest.mark.parametrize("gone", [False, True])
def test_a_connector_may_hand_out_its_client_at_any_time(gone: bool) -> None:
    rig = Rig()
    plain = connector_of(rig.endpoint, tls="none", config=CONFIG)
    kept: list[Any] = []
    fields = {name: getattr(plain, name) for name in Connector.__slots__}
    rig.pool = Pool(_Thoughtful(**fields, delay=5, kept=kept), reactor=rig.clock)
    rig.send("a")
    if gone:
        rig.servers[0].transport.abortConnection()
        rig.flow()
    rig.advance(5)
    if gone:
        assert isinstance(rig.error("a"), ConnectionFailed)
        assert len(rig.links) == 1
    else:
        assert rig.was_sent("a")
    rig.end()


def test_the_clock_of_the_reactor_is_taken_when_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(twisted.internet, "reactor", clock, raising=False)
    rig = Rig()
    rig.clock = clock
    rig.pool = Pool(rig.endpoint, tls="none", config=CONFIG)
    rig.send("a")
    assert rig.was_sent("a")
    rig.advance(60)
    assert rig.pool.open == 0
    rig.end()
