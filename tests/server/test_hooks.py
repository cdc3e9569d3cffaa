"""Every hook in every way to answer, and what the client gets for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import Reply, Session, SessionBackend, SMTPError
from smtpfw.errors import ConfigError
from smtpfw.extensions import DSN
from smtpfw.server.protocol import GROUP_PATIENCE
from smtpfw.testing import MemoryClient, RecordingBackend, RecordingSession
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
    TRY_AGAIN,
    codes,
    connect,
    greeted,
)

Outcome = Callable[[], Any]


def ways(outcome: Outcome) -> Iterator[tuple[str, Callable[..., Any], Callable[[], None]]]:
    """Each way in which a hook may answer: its name, the hook, and what makes a hook that waits go on."""
    yield "value", lambda *arguments: outcome(), lambda: None
    yield "fired Deferred", lambda *arguments: maybeDeferred(outcome), lambda: None

    unfired: Deferred[Any] = Deferred()
    yield "unfired Deferred", lambda *arguments: unfired, lambda: maybeDeferred(outcome).chainDeferred(unfired)

    async def coroutine(*arguments: Any) -> Any:
        return outcome()

    yield "coroutine", coroutine, lambda: None

    gate: Deferred[None] = Deferred()

    async def suspended(*arguments: Any) -> Any:
        await gate
        return outcome()

    yield "coroutine that waits", suspended, lambda: gate.callback(None)

    async def after_fired(*arguments: Any) -> Any:
        await maybeDeferred(lambda: None)
        return outcome()

    yield "coroutine that waits for what is there", after_fired, lambda: None


def raising(error: Exception) -> Outcome:
    def outcome() -> Any:
        raise error

    return outcome


#: What is said before, what calls the hook, and the standard reply.
CALLS = {
    "mail": (HELLO, MAIL, SENDER_OK),
    "rcpt": (HELLO + MAIL, RCPT, RECIPIENT_OK),
    "data": (ENVELOPE + DATA, MESSAGE + DOT, MESSAGE_OK),
    "verify": (
        HELLO,
        b"VRFY jones\r\n",
        b"252 2.0.0 Cannot VRFY user, but will accept message and attempt delivery\r\n",
    ),
}
ENHANCED = {"mail": b"2.1.0", "rcpt": b"2.1.5", "data": b"2.0.0", "verify": b"2.1.5"}


class Answers(TestCase):
    def check(self, hook_name: str, outcome: Outcome, expected: bytes) -> None:
        said, call, _ = CALLS[hook_name]
        for way, hook, go in ways(outcome):
            with self.subTest(hook=hook_name, way=way):
                client = greeted(RecordingBackend(**{hook_name: hook}), None, said)
                early = client.send(call)
                go()
                self.assertEqual(early + client.received(), expected)
                self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")

    def test_none_is_the_standard_reply(self) -> None:
        for name, (_, _, standard) in CALLS.items():
            self.check(name, lambda: None, standard)

    def test_a_reply_is_sent(self) -> None:
        for name in CALLS:
            self.check(name, lambda: Reply(250, "two\nlines", (2, 6, 0)), b"250-2.6.0 two\r\n250 2.6.0 lines\r\n")

    def test_a_text_is_success(self) -> None:
        for name in CALLS:
            self.check(name, lambda: "queued as 42", b"250 " + ENHANCED[name] + b" queued as 42\r\n")

    def test_a_refusal(self) -> None:
        for name in CALLS:
            self.check(
                name, raising(SMTPError(450, (4, 2, 1), "busy\r\n221 bye")), b"450-4.2.1 busy\r\n450 4.2.1 221 bye\r\n"
            )

    def test_any_other_exception(self) -> None:
        for name in CALLS:
            self.check(name, raising(RuntimeError("secret")), TRY_AGAIN)
        failures = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(len(failures), len(CALLS) * 6)
        self.assertIn("RuntimeError: secret", failures[0].getTraceback())

    def test_a_value_of_no_known_kind(self) -> None:
        for name in CALLS:
            self.check(name, lambda: 250, TRY_AGAIN)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), len(CALLS) * 6)

    def test_hello_refuses_and_a_later_one_succeeds(self) -> None:
        for way, hook, go in ways(raising(SMTPError(550, (5, 7, 1), "Not you"))):
            with self.subTest(way=way):
                backend = RecordingBackend(hello=hook)
                client = greeted(backend)
                early = client.send(HELLO)
                go()
                self.assertEqual(early + client.received(), b"550 5.7.1 Not you\r\n")
                self.assertEqual(codes(client.send(MAIL)), [b"503"])
                del backend.answers["hello"]
                self.assertEqual(codes(client.send(HELLO + MAIL)), [b"250", b"250"])

    def test_the_text_of_hello_is_not_shown(self) -> None:
        for _, hook, go in ways(lambda: "queued"):
            client = greeted(RecordingBackend(hello=hook))
            client.send(b"HELO me\r\n")
            go()
            self.assertEqual(client.protocol.wire.hello_name, "me")
            self.assertNotIn(b"queued", client.received())

    def test_reset_and_logout_cannot_refuse(self) -> None:
        for name in ("reset", "logout"):
            for error in (SMTPError(550, None, "no"), RuntimeError("secret")):
                for way, hook, go in ways(raising(error)):
                    with self.subTest(hook=name, way=way):
                        client = greeted(RecordingBackend(**{name: hook}), None, ENVELOPE)
                        self.assertEqual(client.send(b"RSET\r\nQUIT\r\n"), b"250 2.0.0 Reset\r\n" + QUIT_ANSWER)
                        go()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, SMTPError)), 24)

    def test_hooks_that_are_not_overridden_are_not_called(self) -> None:
        def boom(*arguments: Any) -> None:
            raise AssertionError("called")

        for name in ("mail", "rcpt", "data", "reset"):
            with mock.patch.object(Session, name, boom):
                client = greeted(SessionBackend(Session), None, ENVELOPE + b"RSET\r\n" + MAIL + RCPT + DATA)
                self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)


QUIT_ANSWER = b"221 2.0.0 Closing transmission channel\r\n"


class Promises(TestCase):
    def offered(self, backend: Any) -> bytes:
        return connect(backend).send(HELLO)

    def test_of_a_session_class(self) -> None:
        class Desk(Session):
            honours = frozenset({"DELIVERBY"})

        self.assertIn(b"DELIVERBY", self.offered(SessionBackend(Desk)))
        self.assertNotIn(b"DSN", self.offered(SessionBackend(Desk)))
        self.assertIn(b"DSN", self.offered(SessionBackend(Desk, honours={"DSN"})))
        self.assertNotIn(b"DELIVERBY", self.offered(SessionBackend(Desk, honours=())))
        self.assertIn(b"DSN", self.offered(SessionBackend(lambda connection: Desk(connection), honours={"DSN"})))

    def test_a_text_is_no_list(self) -> None:
        error = self.assertRaises(ConfigError, connect, SessionBackend(Session, honours="DSN"))
        self.assertEqual(str(error), "honours of SessionBackend is a text; write {'DSN'}")

    def test_what_is_no_extension(self) -> None:
        for extensions in (["DSN"], [DSN]):
            error = self.assertRaises(ConfigError, connect, SessionBackend(Session), extensions=extensions)
            self.assertIn("is no Extension; an instance is meant", str(error))


class NewSession(TestCase):
    def test_every_way(self) -> None:
        backend = RecordingBackend()
        for way, hook, go in ways(lambda: RecordingSession(backend, mock.sentinel.connection)):
            with self.subTest(way=way):
                client = connect(SessionBackend(hook))
                go()
                self.assertEqual(client.received(), b"220 mx.test ESMTP smtpfw\r\n")

    def test_commands_wait_for_it(self) -> None:
        session: Deferred[Session] = Deferred()
        client = connect(SessionBackend(lambda connection: session))
        self.assertEqual(client.send(HELLO + MAIL), b"")
        session.callback(Session(mock.sentinel.connection))
        self.assertEqual(codes(client.received()), [b"220", b"250", b"250"])

    def test_refused(self) -> None:
        cases = [
            (SMTPError(421, (4, 7, 0), "too many"), b"421 4.7.0 too many\r\n", True),
            (SMTPError(550, (5, 7, 1), "go away"), b"554 5.7.1 go away\r\n", False),
            (SMTPError(450, (4, 7, 1), "later"), b"554 5.0.0 later\r\n", False),
        ]
        for error, expected, closed in cases:
            for way, hook, go in ways(raising(error)):
                with self.subTest(error=str(error), way=way):
                    client = connect(SessionBackend(hook))
                    go()
                    self.assertEqual(client.received(), expected)
                    self.assertEqual(client.closed, closed)

    def test_after_554_only_quit_is_served(self) -> None:
        client = greeted(SessionBackend(raising_hook(SMTPError(550, (5, 7, 1), "go away"))))
        self.assertEqual(codes(client.send(HELLO + b"NOOP\r\nFOO\r\n")), [b"503", b"503", b"503"])
        self.assertEqual(codes(client.send(b"QUIT\r\n")), [b"221"])
        self.assertTrue(client.closed)

    def test_failed(self) -> None:
        for way, hook, go in ways(raising(RuntimeError("secret"))):
            with self.subTest(way=way):
                client = connect(SessionBackend(hook))
                go()
                self.assertEqual(client.received(), b"421 4.3.0 Service not available, try again later\r\n")
                self.assertTrue(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 6)

    def test_no_session_is_a_failure(self) -> None:
        for way, hook, go in ways(lambda: None):
            with self.subTest(way=way):
                client = connect(SessionBackend(hook))
                go()
                self.assertEqual(client.received(), b"421 4.3.0 Service not available, try again later\r\n")
                self.assertTrue(client.closed)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 6)

    def test_the_client_goes_before_it_is_there(self) -> None:
        cancelled: list[Any] = []
        session: Deferred[Session] = Deferred(cancelled.append)
        client = connect(SessionBackend(lambda connection: session))
        client.disconnect()
        self.assertEqual(cancelled, [session])

    def test_a_session_that_comes_too_late_is_logged_out(self) -> None:
        backend = RecordingBackend()
        shield: Deferred[Any] = Deferred(lambda deferred: deferred.callback(RecordingSession(backend, mock.sentinel.c)))
        client = connect(SessionBackend(lambda connection: shield))
        client.disconnect()
        self.assertEqual(backend.events, [("logout", "disconnected")])
        self.assertEqual(client.received(), b"")


def raising_hook(error: Exception) -> Callable[..., Any]:
    outcome = raising(error)
    return lambda *arguments: outcome()


class Order(TestCase):
    def test_replies_keep_the_order_of_their_commands(self) -> None:
        waiting: list[Deferred[Any]] = []

        def rcpt(*arguments: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        client = greeted(RecordingBackend(rcpt=rcpt), None, HELLO)
        client.send(MAIL + RCPT + RCPT + b"FOO\r\n")
        # One at a time: the second RCPT is not asked before the first is answered.
        self.assertEqual(len(waiting), 1)
        waiting[0].callback("first")
        self.assertEqual(len(waiting), 2)
        waiting[1].callback("second")
        self.assertEqual(
            client.received(),
            SENDER_OK + b"250 2.1.5 first\r\n250 2.1.5 second\r\n500 5.5.1 Command not recognized\r\n",
        )

    def test_a_pipelined_group_is_one_write(self) -> None:
        client = greeted(RecordingBackend(), None, HELLO)
        client.transport.writes.clear()
        received = client.send(MAIL + RCPT * 50 + DATA)
        self.assertEqual(client.transport.writes, [received])
        self.assertEqual(codes(received), [b"250"] * 51 + [b"354"])

    def test_a_group_with_slow_hooks_is_one_write(self) -> None:
        clock = Clock()
        gates: list[Deferred[Any]] = []

        async def rcpt(*arguments: Any) -> None:
            gates.append(Deferred())
            await gates[-1]

        client = greeted(RecordingBackend(rcpt=rcpt), clock, HELLO)
        client.transport.writes.clear()
        client.send(MAIL + RCPT + RCPT + DATA)
        for index in range(2):
            clock.advance(GROUP_PATIENCE / 4)
            self.assertEqual(client.transport.writes, [])
            gates[index].callback(None)
        self.assertEqual(len(client.transport.writes), 1)
        self.assertEqual(codes(client.received()), [b"250", b"250", b"250", b"354"])

    def test_patience_has_an_end(self) -> None:
        clock = Clock()
        gate: Deferred[Any] = Deferred()
        client = greeted(RecordingBackend(rcpt=lambda *arguments: gate), clock, HELLO)
        client.send(MAIL + RCPT + DATA)
        clock.advance(GROUP_PATIENCE)
        self.assertEqual(client.received(), SENDER_OK)
        gate.callback(None)
        self.assertEqual(codes(client.received()), [b"250", b"354"])

    def test_who_waits_for_each_answer_gets_it_at_once(self) -> None:
        gate: Deferred[Any] = Deferred()
        client = greeted(RecordingBackend(rcpt=lambda *arguments: gate), None, HELLO)
        # The slow command is the last of the group: nothing is gained by holding its neighbours back.
        self.assertEqual(client.send(MAIL + RCPT), SENDER_OK)
        gate.callback(None)
        self.assertEqual(client.received(), RECIPIENT_OK)


class Close(TestCase):
    """``connection.close()`` from within a hook: the replies that are due are written first."""

    def closing(self, name: str, wait: bool) -> tuple[MemoryClient, bytes]:
        gate: Deferred[None] = Deferred()
        if not wait:
            gate.callback(None)

        async def hook(*arguments: Any) -> None:
            await gate
            backend.sessions[0].connection.close()

        backend = RecordingBackend(**{name: hook})
        said, call, _ = CALLS[name]
        client = greeted(backend, None, said)
        received = client.send(call + b"NOOP\r\n")
        if wait:
            self.assertEqual(received, b"")
            gate.callback(None)
            received = client.received()
        return client, received

    def test_the_answer_of_the_hook_is_written_and_nothing_else(self) -> None:
        for name, (_, _, standard) in CALLS.items():
            for wait in (False, True):
                with self.subTest(hook=name, wait=wait):
                    client, received = self.closing(name, wait)
                    self.assertEqual(received, standard)
                    self.assertTrue(client.closed)

    def test_within_a_message_it_is_read_to_its_end_however_it_is_cut(self) -> None:
        async def data(body: Any) -> str:
            backend.sessions[-1].connection.close()
            return f"kept {len(await body.read())}"

        backend = RecordingBackend(data=data)
        for pieces in ([MESSAGE + DOT + b"NOOP\r\n"], [MESSAGE, DOT + b"NOOP\r\n"], [MESSAGE[:5], MESSAGE[5:], DOT]):
            client = greeted(backend, None, ENVELOPE, DATA)
            answer = b"".join(client.send(piece) for piece in pieces)
            self.assertEqual(answer, b"250 2.0.0 kept %d\r\n" % len(MESSAGE))
            self.assertTrue(client.closed)

    def test_within_reset(self) -> None:
        backend = RecordingBackend(reset=lambda reason: backend.sessions[0].connection.close())
        client = greeted(backend, None, ENVELOPE)
        self.assertEqual(client.send(b"RSET\r\n" + MAIL), b"250 2.0.0 Reset\r\n")
        self.assertTrue(client.closed)
        self.assertEqual(backend.events[-2:], [("reset", "rset"), ("logout", "error")])

    def test_from_outside(self) -> None:
        backend = RecordingBackend()
        client = greeted(backend, None, ENVELOPE + DATA)
        backend.sessions[0].connection.close()
        self.assertTrue(client.closed)
        self.assertEqual(backend.events[-2:], [("reset", "disconnected"), ("logout", "error")])
