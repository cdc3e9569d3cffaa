"""One SMTP message to several targets: all of them, or none."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpfw import Reply, Session, SessionBackend
from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.memory import MemoryBackend
from smtpfw.errors import (
    DataReset,
    InsufficientStorage,
    MailboxUnavailable,
    ServiceNotAvailable,
    SMTPError,
    TransactionFailed,
)
from smtpfw.interfaces import IBody
from smtpfw.testing import RecordingBackend
from tests.backends.mux.helpers import (
    DOT,
    LARGE,
    MESSAGE,
    OK,
    TRY_AGAIN,
    Reads,
    Store,
    begin,
    bodies,
    by_domain,
    connect,
    names,
    nothing,
    of,
    raising,
    rcpt,
    send,
)


class AcceptedTests(TestCase):
    def test_all_get_the_same(self) -> None:
        targets = Store(), RecordingBackend(), MemoryBackend(), DiscardBackend()
        client = of(*targets)
        self.assertEqual(client.send(MESSAGE + DOT), OK)
        self.assertEqual(bodies(*targets[:3]), [[MESSAGE]] * 3)

    def test_a_large_one_in_pieces(self) -> None:
        targets = Store(), RecordingBackend(), MemoryBackend()
        client = of(*targets)
        for position in range(0, len(LARGE), 50_000):
            self.assertEqual(client.send(LARGE[position : position + 50_000]), b"")
        self.assertEqual(client.send(DOT), OK)
        self.assertEqual(bodies(*targets), [[LARGE]] * 3)

    def test_bdat(self) -> None:
        a, b = Store(), RecordingBackend()
        client = connect(by_domain(a=a, b=b))
        begin(client, "x@a.test", "x@b.test")
        self.assertEqual(client.send(b"BDAT 4\r\nabcd"), b"250 2.0.0 4 octets\r\n")
        self.assertTrue(client.send(b"VRFY x@a.test\r\n").startswith(b"252 "))
        self.assertEqual(client.send(b"BDAT 2 LAST\r\nef"), OK)
        self.assertEqual(bodies(a, b), [[b"abcdef"]] * 2)

    def test_one_target_gets_the_body_itself(self) -> None:
        a = RecordingBackend(data=lambda body: "read " + type(body).__name__)
        self.assertEqual(of(a).send(MESSAGE + DOT), b"250 2.0.0 read MessageBody\r\n")
        b = Store()
        self.assertEqual(send(connect(by_domain(b=b)), "x@b.test"), OK)
        self.assertEqual(b.events, ["prepare", "commit"])

    def test_what_they_say_is_said_in_one(self) -> None:
        a, b = Store(commit=lambda: "stored as 7"), Store(commit=lambda: "stored as 7")
        c = RecordingBackend(data=lambda body: Reply(250, "queued as 9"))
        self.assertEqual(of(a, b, c).send(MESSAGE + DOT), b"250 2.0.0 stored as 7; queued as 9\r\n")

    def test_the_one_that_cannot_be_taken_back_comes_between(self) -> None:
        prepared: Deferred[None] = Deferred()
        answered: Deferred[None] = Deferred()
        committed: Deferred[None] = Deferred()
        steps: list[str] = []

        async def prepare(body: IBody) -> bytes:
            octets: bytes = await body.read()
            await prepared
            return octets

        async def data(body: IBody) -> None:
            async for _ in body:
                steps.append("chunk")
            steps.append("whole")
            await answered

        a, b = Store(prepare=prepare, commit=lambda: committed), Store()
        client = of(a, RecordingBackend(data=data), b)
        self.assertEqual(client.send(MESSAGE + DOT), b"")
        self.assertEqual(steps, ["chunk"])
        prepared.callback(None)
        self.assertEqual(steps, ["chunk", "whole"])
        self.assertEqual((a.events, b.events), (["prepare"], ["prepare"]))
        answered.callback(None)
        self.assertEqual((a.events, b.events), (["prepare", "commit"], ["prepare", "commit"]))
        self.assertEqual(client.received(), b"")
        committed.callback(None)
        self.assertEqual(client.received(), OK)

    def test_plain_sessions_of_every_kind(self) -> None:
        class Plain(Session):
            answer: Any = None

            def data(self, body: IBody) -> Any:
                return type(self).answer

        for answer in (None, "kept", Deferred(), "coroutine"):
            session = type("Plain", (Plain,), {"answer": answer})
            if answer == "coroutine":

                async def data(self: Any, body: IBody) -> str:
                    return "kept"

                session.data = data
            a = Store()
            client = of(a, SessionBackend(session))
            received = client.send(MESSAGE + DOT)
            if isinstance(answer, Deferred):
                self.assertEqual((received, a.messages), (b"", []))
                answer.callback("kept")
                received = client.received()
            self.assertEqual(received, b"250 2.0.0 kept\r\n" if answer is not None else OK)
            self.assertEqual(bodies(a), [[MESSAGE]])

    def test_several_messages_on_one_connection(self) -> None:
        a, b = Store(), RecordingBackend()
        client = of(a, b)
        client.send(MESSAGE + DOT)
        for _ in range(2):
            self.assertEqual(send(client, "x@a.test", "y@b.test"), OK)
        self.assertEqual(bodies(a, b), [[MESSAGE] * 3] * 2)
        self.assertEqual(a.events, ["prepare", "commit"] * 3)


class RefusedTests(TestCase):
    """One fails: nobody keeps the message."""

    def check_refused(self, received: bytes, expected: bytes, *stores: Store) -> None:
        self.assertEqual(received, expected)
        for store in stores:
            self.assertEqual(store.messages, [])
            self.assertEqual(store.events, ["prepare", "roll_back"])

    def test_at_the_end(self) -> None:
        async def prepare(body: IBody) -> bytes:
            await body.read()
            raise InsufficientStorage

        a, b, reads = Store(), Store(prepare=prepare), Reads()
        received = of(a, b, RecordingBackend(data=reads)).send(MESSAGE + DOT)
        # The code is 451, whatever the kind of storage; its detail and words stay.
        self.check_refused(received, b"451 4.3.1 Insufficient system storage\r\n", a)
        self.assertEqual(b"".join(reads.chunks), MESSAGE)
        self.assertEqual(reads.ended, "DataReset")
        self.assertEqual(b.events, ["prepare"])

    def test_before_anything_is_read(self) -> None:
        a, reads = Store(), Reads()
        client = of(a, RecordingBackend(data=reads), Store(prepare=raising(TransactionFailed("no"))))
        for _ in range(40):
            self.assertEqual(client.send(LARGE[:64000]), b"")
        self.assertEqual(len(b"".join(reads.chunks)), 40 * 64000)
        self.check_refused(client.send(DOT), b"554 5.0.0 no\r\n", a)
        self.assertEqual(reads.ended, "DataReset")

    def test_after_half_of_it(self) -> None:
        async def data(body: IBody) -> None:
            async for _ in body:
                raise MailboxUnavailable("not like this")

        a, b = Store(), Store()
        client = of(a, RecordingBackend(data=data), b)
        client.send(LARGE)
        self.check_refused(client.send(LARGE + DOT), b"550 5.1.1 not like this\r\n", a, b)

    def test_the_one_that_sees_the_end_last(self) -> None:
        for error, expected in (
            (TransactionFailed("no"), b"554 5.0.0 no\r\n"),
            (SMTPError(450, "4.2.0", "busy"), b"451 4.2.0 busy\r\n"),
            (ServiceNotAvailable(), TRY_AGAIN),
        ):

            async def data(body: IBody, error: Exception = error) -> None:
                await body.read()
                raise error

            a = Store()
            client = of(a, RecordingBackend(data=data))
            self.check_refused(client.send(MESSAGE + DOT), expected, a)
            self.assertFalse(client.closed)

    def test_permanent_only_if_every_failure_is(self) -> None:
        no, later = TransactionFailed("no"), InsufficientStorage("later")
        never = MailboxUnavailable("never")
        for errors, expected in (
            ((no, never), b"554 5.0.0 no\r\n"),
            ((no, later), b"451 4.3.1 later\r\n"),
            ((later, no), b"451 4.3.1 later\r\n"),
        ):
            a = Store()
            received = of(a, *[Store(prepare=raising(error)) for error in errors]).send(MESSAGE + DOT)
            self.check_refused(received, expected, a)

    def test_a_fault_is_logged_and_temporary(self) -> None:
        a, b = Store(), Store(prepare=raising(RuntimeError("a secret")))
        self.check_refused(of(a, b).send(MESSAGE + DOT), TRY_AGAIN, a)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_what_is_no_answer(self) -> None:
        class Forgetful(Store):
            def new_session(self, connection: Any) -> Any:
                session = super().new_session(connection)
                session.prepare = lambda body: None
                return session

        a = Store()
        self.check_refused(of(a, Forgetful()).send(MESSAGE + DOT), TRY_AGAIN, a)
        b = Store()
        self.check_refused(of(b, RecordingBackend(data=lambda body: 7)).send(MESSAGE + DOT), TRY_AGAIN, b)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_when_all_have_refused_the_rest_is_not_waited_for(self) -> None:
        a, b = Store(prepare=raising(TransactionFailed("no"))), RecordingBackend(data=raising(TransactionFailed("no")))
        client = connect(by_domain(a=a, b=b))
        begin(client, "x@a.test", "x@b.test")
        self.assertEqual(client.send(b"BDAT 4\r\nabcd"), b"554 5.0.0 no\r\n")

    def test_one_that_had_accepted_early_hears_that_it_does_not_count(self) -> None:
        async def prepare(body: IBody) -> bytes:
            await body.read()
            raise InsufficientStorage

        a, b = RecordingBackend(data=lambda body: None), Store(prepare=prepare)
        client = of(a, b)
        self.assertTrue(client.send(MESSAGE + DOT).startswith(b"451 4.3.1 "))
        self.assertEqual(a.events[-1], ("reset", "refused"))
        client.disconnect()
        self.assertEqual(names(a)[-2:], ["reset", "logout"])

    def test_one_that_waits_for_something_else_is_cancelled(self) -> None:
        cancelled: list[Any] = []

        def data(body: IBody) -> Deferred[None]:
            return Deferred(cancelled.append)

        a, b = Store(prepare=raising(TransactionFailed("no"))), RecordingBackend(data=data)
        self.assertEqual(of(a, b).send(MESSAGE + DOT), b"554 5.0.0 no\r\n")
        self.assertEqual(len(cancelled), 1)

    def test_its_own_cleaning_up_is_waited_for(self) -> None:
        cleaned: Deferred[None] = Deferred()

        async def data(body: IBody) -> None:
            try:
                await body.read()
            except DataReset:
                await cleaned
                raise

        class Stubborn(Deferred[None]):
            def cancel(self) -> None:
                """Not now."""

        cleaned = Stubborn()
        a, b = Store(), Store(prepare=raising(TransactionFailed("no")))
        client = of(a, b, RecordingBackend(data=data))
        self.assertEqual(client.send(MESSAGE + DOT), b"")
        self.assertEqual(a.events, ["prepare"])
        cleaned.callback(None)
        self.check_refused(client.received(), b"554 5.0.0 no\r\n", a)

    def test_a_commit_that_fails(self) -> None:
        a, b, c = Store(), Store(commit=raising(TransactionFailed("no"))), Store(commit=raising(RuntimeError()))
        self.assertEqual(of(a, b, c).send(MESSAGE + DOT), TRY_AGAIN)
        self.assertEqual(bodies(a, b, c), [[MESSAGE], [], []])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_roll_back_that_fails_does_not_stop_the_others(self) -> None:
        a, b = Store(roll_back=raising(RuntimeError())), Store()
        received = of(a, b, Store(prepare=raising(TransactionFailed("no")))).send(MESSAGE + DOT)
        self.check_refused(received, b"554 5.0.0 no\r\n", a, b)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_message_itself_is_refused(self) -> None:
        a, early, reads = Store(), Store(prepare=lambda body: Deferred.fromCoroutine(nothing())), Reads()
        client = of(a, early, RecordingBackend(data=reads), max_message_bytes=10)
        client.send(b"x\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), b"552 5.3.4 Message size exceeds the limit\r\n")
        self.assertEqual((a.messages, early.messages, reads.ended), ([], [], "DataTooLarge"))
        self.assertEqual(early.events, ["prepare", "roll_back", "reset refused"])
        self.assertEqual(a.events, ["prepare", "reset refused"])


class NestedTests(TestCase):
    def test_a_mux_in_a_mux(self) -> None:
        a, b, c = Store(), RecordingBackend(), Store()
        inner = by_domain(a=a, b=b)
        client = connect(by_domain(a=inner, b=inner, c=c))
        self.assertEqual(send(client, "x@a.test", "x@b.test", "x@c.test"), OK)
        self.assertEqual(bodies(a, b, c), [[MESSAGE]] * 3)
        c.answers["prepare"] = raising(InsufficientStorage())
        self.assertTrue(send(client, "x@a.test", "x@b.test", "x@c.test").startswith(b"451 4.3.1 "))
        self.assertEqual([len(target.messages) for target in (a, b, c)], [1, 1, 1])
        self.assertEqual(rcpt(client, "x@a.test")[:3], b"503")
