"""The data hook: early answers, bodies that do not come to their end, cancellation, and what is told at the end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import Session, SMTPError
from smtpfw.errors import DataReset, DataTooLarge
from smtpfw.interfaces import IBody
from smtpfw.testing import RecordingBackend
from smtpfw.wire.profiles import STRICT
from tests.server.helpers import (
    DATA,
    DOT,
    ENVELOPE,
    HELLO,
    MAIL,
    MESSAGE,
    MESSAGE_OK,
    RCPT,
    codes,
    greeted,
)


def told(backend: RecordingBackend) -> list[tuple[Any, ...]]:
    """What the session was told of ends."""
    return [event for event in backend.events if event[0] in ("reset", "logout")]


class Early(TestCase):
    def test_a_body_that_is_ignored_is_drained(self) -> None:
        for pieces in ([MESSAGE + DOT], [MESSAGE, MESSAGE, DOT]):
            client = greeted(RecordingBackend(data=lambda body: "whatever"), None, ENVELOPE, DATA)
            received = b"".join(client.send(piece) for piece in pieces)
            self.assertEqual(received, b"250 2.0.0 whatever\r\n")

    def test_the_answer_counts_at_the_true_end(self) -> None:
        async def first_chunk(body: IBody) -> str:
            async for _ in body:
                return "seen enough"
            return "empty"

        client = greeted(RecordingBackend(data=first_chunk), None, ENVELOPE, DATA)
        self.assertEqual(client.send(MESSAGE), b"")
        self.assertEqual(client.send(MESSAGE), b"")
        self.assertEqual(client.send(DOT), b"250 2.0.0 seen enough\r\n")
        self.assertEqual(codes(client.send(MAIL + RCPT)), [b"250", b"250"])

    def test_a_refusal_counts_at_the_true_end(self) -> None:
        def refuse(body: IBody) -> None:
            raise SMTPError(554, (5, 7, 1), "spam")

        for pieces in ([MESSAGE + DOT], [MESSAGE, MESSAGE, DOT]):
            client = greeted(RecordingBackend(data=refuse), None, ENVELOPE, DATA)
            self.assertEqual(b"".join(client.send(piece) for piece in pieces), b"554 5.7.1 spam\r\n")

    def test_of_chunks_each_is_refused(self) -> None:
        def refuse(body: IBody) -> None:
            raise SMTPError(554, (5, 7, 1), "spam")

        client = greeted(RecordingBackend(data=refuse), None, ENVELOPE)
        self.assertEqual(client.send(b"BDAT 2\r\nhi"), b"554 5.7.1 spam\r\n")
        self.assertEqual(client.send(b"BDAT 2 LAST\r\nhi"), b"554 5.7.1 spam\r\n")

    def test_a_bad_form_overrides_a_success(self) -> None:
        for answer in (None, "fine", Deferred):
            backend = RecordingBackend(data=lambda body, answer=answer: answer() if answer is Deferred else answer)
            client = greeted(backend, None, ENVELOPE, DATA, max_message_bytes=30)
            client.send(MESSAGE)
            received = client.send(MESSAGE + DOT)
            if answer is Deferred:
                # It never answers: the client's going is what ends it.
                self.assertEqual(received, b"")
                client.disconnect()
                self.assertEqual(told(backend), [("reset", "disconnected"), ("logout", "disconnected")])
            else:
                self.assertEqual(received, b"552 5.3.4 Message size exceeds the limit\r\n")
                self.assertEqual(told(backend), [("reset", "refused")])

    def test_unread_octets_of_an_early_answer_hold_nothing_up(self) -> None:
        gate: Deferred[None] = Deferred()

        async def one_chunk(body: IBody) -> None:
            async for _ in body:
                break
            await gate

        client = greeted(RecordingBackend(data=one_chunk), None, ENVELOPE, DATA)
        line = b"x" * 998 + b"\r\n"
        client.send(line)
        client.send(line * 120)
        client.send(line * 60 + DOT)
        gate.callback(None)
        self.assertEqual(client.received(), MESSAGE_OK)
        client.send(MAIL + RCPT + DATA)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)


class Reads(TestCase):
    """What ends a message early is raised inside the reads."""

    def run_with(self, *pieces: bytes, **settings: Any) -> tuple[list[BaseException], bytes, RecordingBackend, Any]:
        raised: list[BaseException] = []

        async def data(body: IBody) -> None:
            try:
                await body.read()
            except Exception as error:
                raised.append(error)
                raise

        backend = RecordingBackend(data=data)
        client = greeted(backend, None, ENVELOPE, **settings)
        received = b""
        for piece in pieces:
            received = client.send(piece)
        return raised, received, backend, client

    def test_too_large(self) -> None:
        raised, received, backend, _ = self.run_with(DATA, MESSAGE, MESSAGE, DOT, max_message_bytes=30)
        self.assertIsInstance(raised[0], DataTooLarge)
        self.assertEqual(received, b"552 5.3.4 Message size exceeds the limit\r\n")
        self.assertEqual(told(backend), [("reset", "refused")])

    def test_bare_newline(self) -> None:
        raised, received, _, _ = self.run_with(DATA, b"a\r\n", b"a\nb\r\n", DOT, profile=STRICT)
        self.assertEqual([type(error).__name__ for error in raised], ["MalformedLines"])
        self.assertEqual(received, b"550 5.6.11 Message refused, lines must end in CRLF\r\n")

    def test_rset_within_chunks(self) -> None:
        raised, received, backend, _ = self.run_with(b"BDAT 2\r\nhi", b"RSET\r\n")
        self.assertIsInstance(raised[0], DataReset)
        self.assertEqual(received, b"250 2.0.0 Reset\r\n")
        self.assertEqual(told(backend), [("reset", "rset")])

    def test_ehlo_within_chunks(self) -> None:
        raised, received, backend, _ = self.run_with(b"BDAT 2\r\nhi", HELLO)
        self.assertIsInstance(raised[0], DataReset)
        self.assertEqual(codes(received), [b"250"])
        self.assertEqual(told(backend), [("reset", "ehlo")])

    def test_the_client_goes(self) -> None:
        raised, _, backend, client = self.run_with(DATA, MESSAGE)
        client.disconnect()
        self.assertIsInstance(raised[0], DataReset)
        self.assertEqual(told(backend), [("reset", "disconnected"), ("logout", "disconnected")])

    def test_a_half_close_in_the_body(self) -> None:
        raised, _, backend, client = self.run_with(DATA, MESSAGE)
        self.assertEqual(client.half_close(), b"")
        self.assertTrue(client.closed)
        self.assertIsInstance(raised[0], DataReset)
        self.assertEqual(backend.messages, [])


class OneAtATime(TestCase):
    """Between two chunks the data hook waits for more, while another command is served."""

    def test_a_slow_vrfy_between_two_chunks(self) -> None:
        verified: Deferred[str] = Deferred()
        backend = RecordingBackend(verify=lambda text: verified)
        client = greeted(backend, None, ENVELOPE, b"BDAT 2\r\nab")
        self.assertEqual(client.send(b"VRFY jones\r\nBDAT 2 LAST\r\ncd"), b"")
        verified.callback("<jones@mx.test>")
        self.assertEqual(client.received(), b"250 2.1.5 <jones@mx.test>\r\n" + MESSAGE_OK)
        self.assertEqual([message.body for message in backend.messages], [b"abcd"])

    def test_a_vrfy_does_not_change_the_standard_reply_of_the_message(self) -> None:
        async def data(body: IBody) -> str:
            await body.read()
            return "queued"

        client = greeted(RecordingBackend(data=data), None, ENVELOPE, b"BDAT 2\r\nab", b"VRFY jones\r\n")
        self.assertEqual(client.send(b"BDAT 0 LAST\r\n"), b"250 2.0.0 queued\r\n")

    def test_the_message_is_answered_while_vrfy_waits(self) -> None:
        stored: Deferred[str] = Deferred()
        verified: Deferred[str] = Deferred()
        backend = RecordingBackend(data=lambda body: stored, verify=lambda text: verified)
        client = greeted(backend, None, ENVELOPE, b"BDAT 2\r\nab", b"VRFY jones\r\n")
        stored.callback("stored")
        self.assertEqual(client.received(), b"")
        verified.callback("verified")
        self.assertEqual(client.received(), b"250 2.1.5 verified\r\n")
        self.assertEqual(client.send(b"BDAT 0 LAST\r\n"), b"250 2.0.0 stored\r\n")

    def test_both_are_cancelled_when_the_client_has_gone(self) -> None:
        cancelled: list[str] = []
        stored: Deferred[None] = Deferred(lambda deferred: cancelled.append("data"))
        verified: Deferred[None] = Deferred(lambda deferred: cancelled.append("verify"))
        backend = RecordingBackend(data=lambda body: stored, verify=lambda text: verified)
        client = greeted(backend, None, ENVELOPE, b"BDAT 2\r\nab", b"VRFY jones\r\n")
        client.disconnect()
        self.assertEqual(sorted(cancelled), ["data", "verify"])
        self.assertEqual(told(backend), [("reset", "disconnected"), ("logout", "disconnected")])


class Sessions(TestCase):
    def test_a_failure_of_a_session_without_data_hook_is_not_remembered(self) -> None:
        plain = RecordingBackend(new_session=lambda session: Session(session.connection))
        client = greeted(plain, None, ENVELOPE, DATA, max_message_bytes=30)
        self.assertEqual(codes(client.send(MESSAGE * 2 + DOT)), [b"552"])
        # As after STARTTLS: the next session of this connection is of another kind.
        del plain.answers["new_session"]
        client.protocol._host.open(lambda error: None)
        client.send(MAIL + RCPT + DATA)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)
        self.assertEqual([message.body for message in plain.messages], [MESSAGE])

    def test_a_transaction_that_is_kept_does_not_change(self) -> None:
        kept: list[Any] = []
        backend = RecordingBackend(data=lambda body: kept.append(backend.sessions[0].connection.transaction))
        client = greeted(backend, None, ENVELOPE, DATA, MESSAGE + DOT)
        client.send(b"MAIL FROM:<>\r\n" + RCPT + RCPT + DATA)
        client.send(MESSAGE + DOT)
        self.assertIsNone(backend.sessions[0].connection.transaction)
        first, second = kept
        self.assertEqual((str(first.sender), len(first.recipients)), ("a@b.test", 1))
        self.assertEqual((str(second.sender), len(second.recipients)), ("", 2))
        self.assertNotEqual(first.id, second.id)


class Cancelled(TestCase):
    def test_every_hook_that_waits_when_the_client_has_gone(self) -> None:
        said = {
            "hello": HELLO,
            "mail": HELLO + MAIL,
            "rcpt": ENVELOPE,
            "verify": HELLO + b"VRFY x\r\n",
            "data": ENVELOPE + DATA + MESSAGE,
        }
        for name, words in said.items():
            with self.subTest(hook=name):
                cancelled: list[Any] = []
                waiting: Deferred[Any] = Deferred(cancelled.append)
                backend = RecordingBackend(**{name: lambda *arguments, waiting=waiting: waiting})
                clock = Clock()
                client = greeted(backend, clock, words)
                client.disconnect()
                self.assertEqual(cancelled, [waiting])
                self.assertEqual(told(backend)[-1:], [("logout", "disconnected")])
                self.assertEqual(len([event for event in backend.events if event[0] == "logout"]), 1)
                self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_coroutine_sees_it(self) -> None:
        seen: list[str] = []

        async def mail(*arguments: Any) -> None:
            try:
                await Deferred()
            except CancelledError:
                seen.append("cancelled")
                raise

        client = greeted(RecordingBackend(mail=mail), None, HELLO + MAIL)
        client.disconnect()
        self.assertEqual(seen, ["cancelled"])

    def test_a_coroutine_that_fails_when_it_is_cancelled_is_logged(self) -> None:
        async def mail(*arguments: Any) -> None:
            try:
                await Deferred()
            except CancelledError:
                raise RuntimeError("clumsy") from None

        backend = RecordingBackend(mail=mail)
        greeted(backend, None, HELLO + MAIL).disconnect()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(told(backend), [("logout", "disconnected")])

    def test_not_after_the_true_end(self) -> None:
        cancelled: list[Any] = []
        commit: Deferred[None] = Deferred(cancelled.append)
        done: list[str] = []

        async def data(body: IBody) -> None:
            done.append((await body.read()).decode())
            await commit
            done.append("committed")

        backend = RecordingBackend(data=data)
        client = greeted(backend, None, ENVELOPE, DATA, MESSAGE + DOT)
        client.disconnect()
        self.assertEqual(cancelled, [])
        self.assertEqual(told(backend), [])
        commit.callback(None)
        self.assertEqual(done, [MESSAGE.decode(), "committed"])
        # The message is not reset: it is ours.
        self.assertEqual(told(backend), [("logout", "disconnected")])

    def test_an_early_answer_is_told_that_it_does_not_count(self) -> None:
        backend = RecordingBackend(data=lambda body: None)
        client = greeted(backend, None, ENVELOPE, DATA, MESSAGE)
        client.disconnect()
        self.assertEqual(told(backend), [("reset", "disconnected"), ("logout", "disconnected")])


class Told(TestCase):
    """reset and logout: the reasons, and how often."""

    def test_reasons(self) -> None:
        cases: list[tuple[bytes, list[tuple[str, str]]]] = [
            (HELLO + b"QUIT\r\n", [("logout", "quit")]),
            (ENVELOPE + b"QUIT\r\n", [("reset", "disconnected"), ("logout", "quit")]),
            (ENVELOPE + b"RSET\r\nRSET\r\nQUIT\r\n", [("reset", "rset"), ("logout", "quit")]),
            (ENVELOPE + HELLO + b"QUIT\r\n", [("reset", "ehlo"), ("logout", "quit")]),
            (ENVELOPE + b"HELO x\r\nQUIT\r\n", [("reset", "ehlo"), ("logout", "quit")]),
            (ENVELOPE + b"FOO\r\n" * 20, [("reset", "disconnected"), ("logout", "error")]),
            (ENVELOPE + b"NOOP\n", [("reset", "disconnected"), ("logout", "error")]),
            (ENVELOPE + DATA + MESSAGE + DOT + b"QUIT\r\n", [("logout", "quit")]),
            (b"QUIT\r\n", [("logout", "quit")]),
        ]
        for said, expected in cases:
            with self.subTest(said=said):
                backend = RecordingBackend()
                client = greeted(backend, None, said)
                self.assertTrue(client.closed)
                self.assertEqual(told(backend), expected)

    def test_a_timeout_is_no_quit(self) -> None:
        clock = Clock()
        backend = RecordingBackend()
        client = greeted(backend, clock, ENVELOPE, b"QUIT now\r\n")
        clock.advance(300)
        self.assertEqual(codes(client.received()), [b"421"])
        self.assertEqual(told(backend), [("reset", "timeout"), ("logout", "timeout")])

    def test_data_that_was_refused_is_not_reset(self) -> None:
        def refuse(body: IBody) -> None:
            raise SMTPError(554, (5, 7, 1), "spam")

        backend = RecordingBackend(data=refuse)
        client = greeted(backend, None, ENVELOPE, DATA, MESSAGE + DOT)
        client.disconnect()
        self.assertEqual(told(backend), [("logout", "disconnected")])
