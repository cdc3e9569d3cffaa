"""How long a peer may take, phase by phase; and that a backend may take longer."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import SMTPError
from smtpfw.interfaces import IBody
from smtpfw.server.deadlines import Alarms, Deadline
from smtpfw.server.timeouts import REFUSED_TIMEOUT
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.server.helpers import (
    DATA,
    DOT,
    ENVELOPE,
    HELLO,
    MAIL,
    MESSAGE,
    MESSAGE_OK,
    RCPT,
    RECIPIENT_OK,
    SENDER_OK,
    codes,
    connect,
    greeted,
)

LIMITS = {"command_timeout": 50, "data_timeout": 50, "message_timeout": 60, "min_data_rate": 100}
TIMEOUT = b"421 4.4.2 Timeout, closing transmission channel\r\n"


class TimedCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()

    def tearDown(self) -> None:
        # Every test here ends with a connection that is over: nothing of it may be left behind.
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def client(self, *said: bytes, **settings: Any) -> MemoryClient:
        return greeted(self.backend, self.clock, *said, **settings)

    def assert_times_out_after(self, client: MemoryClient, seconds: float) -> None:
        self.clock.advance(seconds - 0.5)
        self.assertEqual(client.received(), b"")
        self.clock.advance(0.5)
        self.assertEqual(client.received(), TIMEOUT)
        self.assertTrue(client.closed)


class Phases(TimedCase):
    def test_the_first_command(self) -> None:
        self.assert_times_out_after(self.client(command_timeout=10), 10)

    def test_each_command(self) -> None:
        client = self.client(command_timeout=10)
        for command in (HELLO, MAIL, b"NOOP\r\n", b"FOO\r\n", RCPT):
            self.clock.advance(9)
            self.assertNotEqual(client.send(command), b"")
        self.assert_times_out_after(client, 10)
        self.assertEqual(self.backend.events[-2:], [("reset", "timeout"), ("logout", "timeout")])

    def test_no_limit(self) -> None:
        client = self.client(HELLO, command_timeout=0)
        self.clock.advance(1_000_000)
        self.assertFalse(client.closed)
        client.disconnect()

    def test_a_read_of_the_body(self) -> None:
        client = self.client(ENVELOPE, DATA, data_timeout=10)
        for _ in range(5):
            self.clock.advance(9)
            client.send(b"x\r\n")
        self.assert_times_out_after(client, 10)
        self.assertEqual(self.backend.messages, [])

    def test_a_chunk(self) -> None:
        client = self.client(ENVELOPE, b"BDAT 100\r\n", data_timeout=10, command_timeout=50)
        self.clock.advance(9)
        client.send(b"x" * 99)
        self.clock.advance(9)
        client.send(b"x")
        self.assert_times_out_after(client, 50)

    def test_a_whole_message(self) -> None:
        client = self.client(ENVELOPE, DATA, data_timeout=10, message_timeout=60)
        for _ in range(6):
            self.clock.advance(9)
            client.send(b"x\r\n")
        self.assert_times_out_after(client, 6)

    def test_each_message_has_its_own_time(self) -> None:
        client = self.client(ENVELOPE, DATA, data_timeout=40, message_timeout=60)
        for _ in range(3):
            self.clock.advance(39)
            # The next message begins in the same segment.
            self.assertEqual(codes(client.send(DOT + MAIL + RCPT + DATA)), [b"250", b"250", b"250", b"354"])
        self.clock.advance(39)
        client.send(b"x\r\n")
        self.assert_times_out_after(client, 21)

    def test_a_rate(self) -> None:
        client = self.client(ENVELOPE, DATA, min_data_rate=100, data_timeout=50)
        # 12,000 octets are good for 120 seconds.
        client.send((b"x" * 98 + b"\r\n") * 120)
        for _ in range(2):
            self.clock.advance(49)
            client.send(b"x")
        self.assert_times_out_after(client, 22.02)

    def test_the_first_minute_is_free(self) -> None:
        client = self.client(ENVELOPE, DATA, min_data_rate=100, data_timeout=50)
        self.clock.advance(49)
        client.send(b"x")
        self.assert_times_out_after(client, 11)

    def test_a_session(self) -> None:
        client = self.client(HELLO, session_timeout=60, command_timeout=50)
        self.clock.advance(49)
        client.send(b"NOOP\r\n")
        client.received()
        self.assert_times_out_after(client, 11)

    def test_a_session_does_not_cut_a_message(self) -> None:
        client = self.client(ENVELOPE, DATA, session_timeout=60, command_timeout=50)
        self.clock.advance(59)
        client.send(MESSAGE)
        self.clock.advance(100)
        self.assertEqual(client.send(DOT), MESSAGE_OK)
        self.clock.advance(1)
        self.assertEqual(client.received(), TIMEOUT)

    def test_refused(self) -> None:
        def refuse(session: Any) -> None:
            raise SMTPError(550, (5, 7, 1), "go away")

        self.backend.answers["new_session"] = refuse
        client = self.client()
        for _ in range(2):
            self.clock.advance(REFUSED_TIMEOUT / 2 - 1)
            self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"503"])
        self.clock.advance(2)
        self.assertEqual(client.received(), b"")
        self.assertTrue(client.closed)


class SlowBackend(TimedCase):
    """The backend takes an hour, twice what any limit allows a peer."""

    def slow(self, hook: str) -> Deferred[Any]:
        gate: Deferred[Any] = Deferred()
        self.backend.answers[hook] = lambda *arguments: gate
        return gate

    def test_every_hook(self) -> None:
        said = {
            "hello": (b"", HELLO),
            "mail": (HELLO, MAIL),
            "rcpt": (HELLO + MAIL, RCPT),
            "verify": (HELLO, b"VRFY x\r\n"),
        }
        for hook, (before, call) in said.items():
            self.backend = RecordingBackend()
            gate = self.slow(hook)
            client = self.client(before, call, **LIMITS)
            self.clock.advance(3600)
            self.assertEqual(client.received(), b"")
            gate.callback(None)
            self.assertEqual(codes(client.received())[-1:], [b"252" if hook == "verify" else b"250"])
            self.assert_times_out_after(client, 50)

    def test_new_session(self) -> None:
        session: list[Any] = []
        gate: Deferred[Any] = Deferred()
        self.backend.answers["new_session"] = lambda made: session.append(made) or gate
        client = connect(self.backend, self.clock, **LIMITS)
        self.clock.advance(3600)
        self.assertFalse(client.closed)
        gate.callback(session[0])
        self.assertEqual(codes(client.received()), [b"220"])
        self.assert_times_out_after(client, 50)

    def test_the_end_of_a_message(self) -> None:
        gate = self.slow("data")
        client = self.client(ENVELOPE, DATA, MESSAGE + DOT, **LIMITS)
        self.clock.advance(3600)
        gate.callback(None)
        self.assertEqual(client.received(), MESSAGE_OK)
        self.assert_times_out_after(client, 50)

    def test_a_session_that_does_not_read(self) -> None:
        gate: Deferred[None] = Deferred()

        async def data(body: IBody) -> None:
            await gate
            await body.read()

        self.backend.answers["data"] = data
        client = self.client(ENVELOPE, DATA, **LIMITS)
        for _ in range(5):
            client.send((b"x" * 998 + b"\r\n") * 50)
        self.assertFalse(client.transport.reading)
        self.clock.advance(3600)
        self.assertFalse(client.closed)
        gate.callback(None)
        self.assertTrue(client.transport.reading)
        # Of its minute the client has used nothing.
        self.clock.advance(49)
        self.assertEqual(client.send(DOT), MESSAGE_OK)
        client.disconnect()


class SlowReader(TimedCase):
    def test_a_last_reply_that_is_not_read(self) -> None:
        client = self.client(HELLO, write_timeout=20)
        # The transport waits for its buffer to be empty, as Twisted's does.
        client.transport.loseConnection = lambda: None
        client.send(b"QUIT\r\n")
        self.clock.advance(19)
        self.assertFalse(client.closed)
        self.clock.advance(1)
        self.assertTrue(client.transport.aborted)

    def test_replies_that_are_not_read(self) -> None:
        client = self.client(HELLO, write_timeout=20)
        client.protocol.pauseProducing()
        self.clock.advance(20)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(self.backend.events[-1], ("logout", "timeout"))


class Leftovers(TimedCase):
    """Whatever ends a connection, tearDown finds no delayed call."""

    def test_every_end(self) -> None:
        endings = [HELLO + b"QUIT\r\n", b"FOO\r\n" * 20, b"NOOP\n", b"x" * 70_000]
        for ending in endings:
            self.assertTrue(self.client(ending).closed)
        for said in (b"", HELLO, ENVELOPE + DATA + MESSAGE, HELLO + MAIL + RCPT):
            self.client(said).disconnect()
            self.client(said).half_close()

    def test_within_a_group(self) -> None:
        gate: Deferred[Any] = Deferred()
        self.backend.answers["rcpt"] = lambda *arguments: gate
        client = self.client(HELLO)
        client.send(MAIL + RCPT + DATA)
        client.disconnect()
        self.assertEqual(client.received(), b"")

    def test_a_group_with_a_pause(self) -> None:
        gate: Deferred[Any] = Deferred()
        self.backend.answers["rcpt"] = lambda *arguments: gate
        client = self.client(HELLO)
        client.send(MAIL + RCPT + DATA)
        self.clock.advance(1)
        gate.callback(None)
        self.assertEqual(client.received()[: len(SENDER_OK + RECIPIENT_OK)], SENDER_OK + RECIPIENT_OK)
        client.disconnect()


class Deadlines(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reached: list[float] = []
        self.deadline = Deadline(Alarms(self.clock), lambda: self.reached.append(self.clock.seconds()))

    def test_later(self) -> None:
        self.deadline.set(10)
        self.clock.advance(5)
        self.deadline.set(10)
        self.clock.advance(9)
        self.assertEqual(self.reached, [])
        self.clock.advance(1)
        self.assertEqual(self.reached, [15])

    def test_sooner(self) -> None:
        self.deadline.set(100)
        self.deadline.set(10)
        self.clock.advance(10)
        self.assertEqual(self.reached, [10])

    def test_never(self) -> None:
        self.deadline.set(10)
        self.deadline.set(0)
        self.clock.advance(10)
        self.assertEqual(self.reached, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again_after_it_was_forgotten(self) -> None:
        self.deadline.set(10)
        self.deadline.clear()
        self.clock.advance(4)
        self.deadline.set(10)
        self.clock.pump([1] * 10)
        self.assertEqual(self.reached, [14])

    def test_many_make_one_delayed_call(self) -> None:
        for _ in range(1000):
            self.deadline.set(10)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadline.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SharedDeadlines(TestCase):
    """Many deadlines have one delayed call between them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.alarms = Alarms(self.clock)
        self.reached: list[int] = []

    def deadline(self, number: int, seconds: float) -> Deadline:
        deadline = Deadline(self.alarms, lambda: self.reached.append(number))
        deadline.set(seconds)
        return deadline

    def test_each_in_its_turn(self) -> None:
        for number, seconds in enumerate((5, 3, 9, 3)):
            self.deadline(number, seconds)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1] * 10)
        self.assertEqual(self.reached, [1, 3, 0, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_fails_keeps_nobody_from_its_own(self) -> None:
        Deadline(self.alarms, lambda: 1 // 0).set(1)
        self.deadline(2, 1)
        self.assertRaises(ZeroDivisionError, self.clock.advance, 1)
        self.clock.advance(0)
        self.assertEqual(self.reached, [2])

    def test_one_that_sets_another_when_it_is_reached(self) -> None:
        other = self.deadline(2, 100)
        first = Deadline(self.alarms, lambda: other.set(1))
        first.set(5)
        self.clock.pump([1] * 6)
        self.assertEqual(self.reached, [2])

    def test_who_has_gone_is_forgotten(self) -> None:
        stays = self.deadline(0, 1000)
        for number in range(1, 10_000):
            self.deadline(number, 500).cancel()
        self.assertLess(len(self.alarms._queue), 200)
        stays.cancel()
        self.assertEqual((self.alarms._queue, self.clock.getDelayedCalls()), ([], []))

    @given(
        st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["set", "clear", "cancel", "wait"]), st.integers(1, 9)))
    )
    def test_as_if_each_had_a_call_of_its_own(self, steps: list[tuple[int, str, int]]) -> None:
        clock, told, wanted = Clock(), [], {}
        alarms = Alarms(clock)
        deadlines = [
            Deadline(alarms, lambda number=number: told.append((clock.seconds(), number))) for number in range(5)
        ]
        expected = []
        for number, step, seconds in [*steps, (0, "wait", 20)]:
            if step == "wait":
                for _ in range(seconds):
                    clock.advance(1)
                    due = [one for one, at in wanted.items() if at == clock.seconds()]
                    expected += [(clock.seconds(), one) for one in due]
                    for one in due:
                        del wanted[one]
            elif step == "set":
                deadlines[number].set(seconds)
                wanted[number] = clock.seconds() + seconds
            else:
                getattr(deadlines[number], step)()
                wanted.pop(number, None)
        self.assertEqual(sorted(told), sorted(expected))
        self.assertEqual(clock.getDelayedCalls(), [])
