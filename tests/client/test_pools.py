"""A pool for each server: which are kept, which are closed, and the end of all of them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpfw.client.connecting import connector_of
from smtpfw.client.pools import Pools
from smtpfw.errors import ConnectionFailed
from tests.client.pool_rig import CONFIG, Rig, nothing_in_the_log, quick_collections  # noqa: F401


class Several:
    """Pools, servers that are only reached through them, and one clock."""

    def __init__(self, count: int, *, prompt: bool = True, **settings: Any) -> None:
        self.rigs = [Rig(prompt=prompt) for _ in range(count)]
        self.clock = self.rigs[0].clock
        self.connectors = [connector_of(rig.endpoint, tls="none", config=CONFIG) for rig in self.rigs]
        self.pools = Pools(reactor=self.clock, **settings)
        self.told: dict[str, Any] = {}

    def hear(self, name: str, deferred: Deferred[Any]) -> None:
        deferred.addBoth(lambda result: self.told.__setitem__(name, getattr(result, "value", result)))
        self.flow()

    def send(self, name: str, to: int) -> None:
        self.hear(name, self.pools.of(self.connectors[to]).send_mail(f"{name}@a.test", "b@b.test", b"x"))

    def flow(self) -> None:
        for rig in self.rigs:
            rig.flow()

    def answer_all(self) -> None:
        for rig in self.rigs:
            rig.answer_all()

    @property
    def open(self) -> list[int]:
        """How many connections each server has."""
        return [sum(not server.lost for server in rig.servers) for rig in self.rigs]

    def end(self) -> None:
        self.hear("closed", self.pools.close())
        self.answer_all()
        assert self.told["closed"] is None
        assert self.open == [0] * len(self.rigs)
        assert self.clock.getDelayedCalls() == []


def test_each_server_has_a_pool_that_is_kept() -> None:
    several = Several(2)
    first, second = (several.pools.of(connector) for connector in several.connectors)
    assert first is not second
    several.send("a", 0), several.send("b", 1), several.send("c", 0)
    assert [rig.accepted for rig in several.rigs] == [["a", "c"], ["b"]]
    assert several.open == [1, 1]
    assert several.pools.of(several.connectors[0]) is first
    several.end()


def test_connectors_that_are_equal_share_a_pool() -> None:
    several = Several(1)
    same = connector_of(several.rigs[0].endpoint, tls="none", config=CONFIG)
    other = connector_of(several.rigs[0].endpoint, tls="opportunistic", config=CONFIG)
    assert several.pools.of(same) is several.pools.of(several.connectors[0])
    assert several.pools.of(other) is not several.pools.of(same)


def test_settings_are_those_of_all() -> None:
    several = Several(2, max_messages=1)
    several.send("a", 0), several.send("b", 1)
    assert [rig.servers[0].heard[-1] for rig in several.rigs] == ["QUIT", "QUIT"]
    with pytest.raises(ValueError, match="max_connections"):
        Pools(max_connections=0).of(several.connectors[0])
    several.end()


def test_the_one_that_was_not_asked_for_longest_goes_first() -> None:
    several = Several(4, max_pools=2)
    several.send("a", 0), several.send("b", 1), several.send("c", 0)
    several.send("d", 2)
    assert several.open == [1, 0, 1, 0]
    several.send("e", 3)
    assert several.open == [0, 0, 1, 1]
    several.end()


def test_none_that_has_something_to_do_is_closed() -> None:
    several = Several(4, prompt=False, max_pools=1)
    several.send("a", 0), several.send("b", 1), several.send("c", 2)
    assert several.open == [1, 1, 1, 0]
    several.answer_all()
    assert set(several.told) == set("abc")
    # They are in excess until another is asked for.
    several.send("d", 3)
    several.answer_all()
    assert several.open == [0, 0, 0, 1]
    several.end()


def test_a_connection_that_is_lent_is_something_to_do() -> None:
    several = Several(2, max_pools=1)
    pool = several.pools.of(several.connectors[0])
    several.hear("client", pool.acquire())
    several.send("a", 1)
    assert several.open == [1, 1]
    pool.release(several.told["client"])
    several.send("b", 1)
    assert several.open == [0, 1]
    several.end()


def test_the_end_waits_for_what_is_under_way() -> None:
    several = Several(3, prompt=False, max_pools=2)
    several.send("a", 0), several.send("b", 1)
    several.answer_all()
    several.send("c", 1), several.send("d", 2)
    # The first one is leaving already, and counts, too.
    assert several.rigs[0].servers[0].asked
    several.hear("closed once", several.pools.close())
    several.hear("closed twice", several.pools.close())
    several.rigs[0].answer_all(), several.rigs[2].answer_all()
    assert set(several.told) == set("abd")
    several.rigs[1].answer_all()
    assert several.told["closed once"] is several.told["closed twice"] is None
    several.end()


def test_nothing_is_taken_behind_the_end() -> None:
    several = Several(2)
    several.send("a", 0)
    several.end()
    for to, name in ((0, "b"), (1, "c")):
        several.send(name, to)
        assert isinstance(several.told[name], ConnectionFailed)
        assert several.told[name].args[0] == "the pool is closed"
    assert [len(rig.links) for rig in several.rigs] == [1, 0]
    several.hear("again", several.pools.close())
    assert several.told["again"] is None


def test_the_end_of_none() -> None:
    several = Several(1)
    several.hear("closed", several.pools.close())
    assert several.told == {"closed": None}
    several.end()


def test_the_end_at_once() -> None:
    several = Several(3, prompt=False, max_pools=2)
    several.send("a", 0)
    several.answer_all()
    several.send("b", 1), several.send("c", 2)
    several.hear("closed", several.pools.close())
    several.pools.abort()
    several.flow()
    assert isinstance(several.told["b"], ConnectionFailed)
    assert isinstance(several.told["c"], ConnectionFailed)
    assert several.told["closed"] is None
    assert several.open == [0, 0, 0]
    assert several.clock.getDelayedCalls() == []


def test_who_waits_for_the_end_may_give_up() -> None:
    several = Several(1, prompt=False)
    several.send("a", 0)
    waiting = several.pools.close()
    several.hear("gave up", waiting)
    waiting.cancel()
    assert "gave up" in several.told
    several.answer_all()
    assert hasattr(several.told["a"], "accepted")
    several.end()
