"""
Whatever callers, servers, the network and the clock do, in any order: what a pool promises.

Nothing is sent twice, nobody who waits is forgotten, each hears once and the
truth, there are no more connections than allowed, and the end comes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import CancelledError

from smtpfw.client.members import first_alive
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import UnknownOutcome
from tests.client.pool_rig import Rig, Server, nothing_in_the_log, quick_collections  # noqa: F401

#: What a server may say instead of yes; mostly it says yes.
REPLIES = [None] * 9 + [b"451 later\r\n", b"550 no\r\n", b"421 busy\r\n", b"nonsense\r\n", b"354 more\r\n"]


class PoolMachine(RuleBasedStateMachine):
    """A pool of at most three connections; the names of messages count up."""

    @initialize(
        pipelining=st.booleans(),
        max_connections=st.integers(1, 3),
        max_messages=st.integers(0, 3),
        max_age=st.sampled_from([0, 30]),
        slow=st.booleans(),
    )
    def begin(self, **settings: Any) -> None:
        self.limit = settings["max_connections"]
        self.rig = Rig(prompt=False, **settings)
        self.lent: list[SMTPClientProtocol] = []
        self.count = 0
        self.ends = False

    def name(self) -> str:
        self.count += 1
        return f"m{self.count}"

    def pick(self, number: int, things: list[Any]) -> Any:
        return things[number % len(things)]

    # -- callers ------------------------------------------------------------------

    @rule(often=st.integers(0, 2))
    def send(self, often: int) -> None:
        """And again from the callback, as often."""

        def again(_: object) -> None:
            if often and not self.ends:
                self.send(often=often - 1)

        self.rig.send(self.name(), then=again)

    @rule()
    def acquire(self) -> None:
        def got(client: Any) -> None:
            if isinstance(client, SMTPClientProtocol):
                self.lent.append(client)

        self.rig.hear(self.name(), self.rig.pool.acquire(), got)

    @precondition(lambda self: self.lent)
    @rule(number=st.integers(0, 5), what=st.sampled_from(["mail", "noop", "quit", "close", "reset"]))
    def use(self, number: int, what: str) -> None:
        client = self.pick(number, self.lent)
        if what == "close":
            client.close()
            return
        asked = client.mail("lent@a.test") if what == "mail" else getattr(client, what)()
        asked.addErrback(lambda _: None)

    @precondition(lambda self: self.lent)
    @rule(number=st.integers(0, 5), twice=st.booleans())
    def release(self, number: int, twice: bool) -> None:
        client = self.pick(number, self.lent)
        self.lent.remove(client)
        self.rig.pool.release(client)
        if twice and client not in self.lent:
            self.rig.pool.release(client)

    @property
    def waiting(self) -> list[str]:
        return [name for name in self.rig.deferreds if name not in self.rig.told and name != "closed"]

    @precondition(lambda self: self.waiting)
    @rule(number=st.integers(0, 50))
    def cancel(self, number: int) -> None:
        self.rig.deferreds[self.pick(number, self.waiting)].cancel()

    @precondition(lambda self: not self.ends)
    @rule(at_once=st.booleans(), chance=st.integers(0, 5))
    def end(self, at_once: bool, chance: int) -> None:
        if chance == 0:
            self.ends = True
            self.rig.close()
            if at_once:
                self.rig.pool.abort()

    # -- servers, network, time ------------------------------------------------------

    @property
    def asked(self) -> list[Server]:
        return [server for server in self.rig.servers if server.asked]

    @precondition(lambda self: self.asked)
    @rule(number=st.integers(0, 5), count=st.integers(1, 6), reply=st.sampled_from(REPLIES))
    def answer(self, number: int, count: int, reply: bytes | None) -> None:
        """Some times yes, and then that."""
        server = self.pick(number, self.asked)
        for left in range(count, 0, -1):
            self.rig.flow()
            if server.asked:
                server.answer(reply if left == 1 else None)

    @precondition(lambda self: any(not server.lost for server in self.rig.servers))
    @rule(number=st.integers(0, 5), how=st.sampled_from(["abort", "close", "421", "accept and abort"]))
    def break_off(self, number: int, how: str) -> None:
        server = self.pick(number, [server for server in self.rig.servers if not server.lost])
        if how == "close":
            server.transport.loseConnection()
        elif how == "421":
            server.say(b"421 closing\r\n")
        else:
            if server.asked and how != "abort":
                server.answer()
            server.transport.abortConnection()

    @rule(listens=st.booleans())
    def listen(self, listens: bool) -> None:
        self.rig.endpoint.server_factory = self.rig.factory if listens else None

    @precondition(lambda self: self.rig.slow.waiting)
    @rule(lets=st.booleans())
    def connected(self, lets: bool) -> None:
        if lets:
            self.rig.slow.let()
        else:
            self.rig.slow.refuse()

    @rule(seconds=st.sampled_from([0.3, 1, 5, 11, 16, 61, 301, 700]))
    def wait(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    # -- what is promised -----------------------------------------------------------------

    @invariant()
    def promises(self) -> None:
        rig = self.rig
        rig.flow()
        alive = [link for link in rig.links if not link.client_transport.closed]
        assert len(alive) + len(rig.slow.waiting) <= self.limit
        assert rig.pool.open <= self.limit
        assert len(set(rig.accepted)) == len(rig.accepted), "delivered twice"
        sent = [line for server in rig.servers for line in server.heard if line.startswith("(")]
        assert len(set(sent)) == len(sent), "sent twice"
        for name in rig.accepted:
            told = rig.told[name]
            assert hasattr(told, "accepted") or isinstance(told, CancelledError | UnknownOutcome), told
        for name, told in rig.told.items():
            if hasattr(told, "accepted"):
                assert name in rig.accepted
        if rig.pool.waiting > rig.pool._checking:
            assert first_alive(rig.pool._idle) is None, "somebody waits, and somebody has nothing to do"
        assert not (self.ends and rig.pool._is_over and rig.clock.getDelayedCalls())

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig, self.ends = self.rig, True
        rig.flow()
        if "closed" not in rig.deferreds:
            rig.close()
        self.listen(True)
        for _ in range(100):
            for client in self.lent:
                rig.pool.release(client)
            self.lent.clear()
            while rig.slow.waiting:
                rig.slow.let()
            rig.answer_all()
            self.promises()
            if "closed" in rig.told:
                break
            rig.clock.advance(5)
        assert len(rig.told) == len(rig.deferreds), "somebody was forgotten"
        assert rig.told["closed"] is None
        rig.assert_over()


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=80, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow])
