"""One SMTP message to several targets: who is slow, and a client that goes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from smtpfw import Session
from smtpfw.backends.mux.tee import HIGH_WATER
from smtpfw.body import ConsumerGone
from smtpfw.errors import (
    InsufficientStorage,
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
    nothing,
    of,
    of_recipients,
    raising,
    send,
)


class SlowTests(TestCase):
    """The slowest governs, and memory is bounded."""

    def test_a_slow_reader_pauses_the_client(self) -> None:
        clock = Clock()
        read: list[bytes] = []

        async def data(body: IBody) -> None:
            async for chunk in body:
                read.append(chunk)
                await deferLater(clock, 1, lambda: None)

        a = Store()
        client = of(a, RecordingBackend(data=data), Store(prepare=raising(InsufficientStorage())))
        sent = 0
        while client.transport.reading:
            client.send(LARGE[:32000])
            sent += 32000
            self.assertLess(sent, 20 * HIGH_WATER)
        while not client.transport.reading:
            clock.advance(1)
        client.send(DOT)
        while not (received := client.received()):
            clock.advance(1)
        self.assertTrue(received.startswith(b"451 4.3.1 "))
        self.assertEqual(len(b"".join(read)), sent)
        self.assertEqual(a.events, ["prepare", "roll_back"])

    def test_nobody_is_further_ahead_than_the_bound(self) -> None:
        arrived: Deferred[None] = Deferred()

        async def data(body: IBody) -> None:
            await arrived
            self.assertEqual(len(await body.read()), 20 * 32000)

        reads = Reads()

        async def prepare(body: IBody) -> bytes:
            await reads(body)
            return b""

        client = of(Store(prepare=prepare), RecordingBackend(data=data))
        for _ in range(20):
            client.send(LARGE[:32000])
        self.assertLessEqual(len(b"".join(reads.chunks)), HIGH_WATER + 2 * 65536)
        self.assertFalse(client.transport.reading)
        arrived.callback(None)
        self.assertTrue(client.transport.reading)
        self.assertEqual(client.send(DOT), OK)

    def test_one_that_never_reads_does_not_stop_the_others(self) -> None:
        answered: Deferred[None] = Deferred()
        a = Store()
        client = of(a, RecordingBackend(data=lambda body: answered))
        for position in range(0, len(LARGE), 64000):
            client.send(LARGE[position : position + 64000])
        self.assertFalse(client.transport.reading)
        answered.callback(None)
        self.assertEqual(client.send(DOT), OK)
        self.assertEqual(bodies(a), [[LARGE]])

    def test_a_consumer(self) -> None:
        class Consumer:
            def __init__(self) -> None:
                self.written: list[bytes] = []

            def registerProducer(self, producer: Any, streaming: bool) -> None:
                self.producer = producer

            def unregisterProducer(self) -> None:
                self.producer = None

            def write(self, data: bytes) -> None:
                self.written.append(data)
                self.producer.pauseProducing()

        consumer = Consumer()
        a = Store()
        client = of(a, RecordingBackend(data=lambda body: body.deliver_to(consumer)))
        for _ in range(10):
            client.send(LARGE[:32000])
        self.assertEqual(len(consumer.written), 1)
        while consumer.producer is not None and len(b"".join(consumer.written)) < 320_000:
            consumer.producer.resumeProducing()
        self.assertEqual(client.send(DOT), b"")
        consumer.producer.resumeProducing()
        self.assertEqual(client.received(), OK)
        self.assertEqual(b"".join(consumer.written), LARGE[:32000] * 10)
        self.assertIsNone(consumer.producer)

    def test_a_consumer_that_stops(self) -> None:
        class Consumer:
            def registerProducer(self, producer: Any, streaming: bool) -> None:
                self.producer = producer

            def unregisterProducer(self) -> None:
                """Nothing to do."""

            def write(self, data: bytes) -> None:
                """Thrown away."""

        for message in (b"", MESSAGE):
            consumer = Consumer()
            a = Store()
            client = of(a, RecordingBackend(data=lambda body, consumer=consumer: body.deliver_to(consumer)))
            client.send(b"x\r\n" + message)
            consumer.producer.stopProducing()
            self.assertEqual(client.send(DOT), TRY_AGAIN)
            self.assertEqual(a.events, ["prepare", "roll_back"])
        self.assertEqual(len(self.flushLoggedErrors(ConsumerGone)), 2)

    def test_message(self) -> None:
        async def data(body: IBody) -> str:
            return str((await body.message())["Subject"])

        self.assertEqual(of(Store(), RecordingBackend(data=data)).send(MESSAGE + DOT), b"250 2.0.0 hello\r\n")

    def test_mistakes_of_a_reader(self) -> None:
        async def data(body: IBody) -> None:
            await body.read()
            await body.read()

        self.assertEqual(of(Store(), RecordingBackend(data=data)).send(MESSAGE + DOT), TRY_AGAIN)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class GoneTests(TestCase):
    """The client goes before the true end: nothing is stored anywhere."""

    def test_in_the_middle(self) -> None:
        for chunk in (b"", b"x\r\n", LARGE[:HIGH_WATER]):
            a, b, reads = Store(), Store(), Reads()
            client = of(a, RecordingBackend(data=reads), b)
            client.send(chunk)
            client.disconnect()
            for store in (a, b):
                self.assertEqual(store.messages, [])
                self.assertNotIn("commit", store.events)
                self.assertEqual(store.events[-2:], ["reset disconnected", "logout disconnected"])
            self.assertIn(reads.ended, ("DataReset", ""))
            self.assertEqual(client.received(), b"")

    def test_while_a_slow_one_holds_all(self) -> None:
        cancelled: list[Any] = []
        a = Store()
        reads = Reads()

        async def prepare(body: IBody) -> bytes:
            await reads(body)
            return b""

        client = of(a, Store(prepare=prepare), RecordingBackend(data=lambda body: Deferred(cancelled.append)))
        client.send(LARGE)
        client.disconnect()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(a.messages, [])
        self.assertEqual(reads.ended, "DataReset")
        self.assertEqual(a.events, ["prepare", "reset disconnected", "logout disconnected"])

    def test_one_that_had_prepared_early_is_rolled_back(self) -> None:
        rolled_back: Deferred[None] = Deferred()
        a = Store(prepare=lambda body: Deferred.fromCoroutine(nothing()), roll_back=lambda: rolled_back)
        b = Store()
        client = of(a, b)
        client.send(b"x\r\n")
        client.disconnect()
        # What was begun is not torn by the client's going.
        self.assertEqual(a.events, ["prepare", "roll_back"])
        rolled_back.callback(None)
        self.assertEqual(a.events[2:], ["reset disconnected", "logout disconnected"])
        self.assertEqual((a.messages, b.messages), ([], []))

    def test_rset_between_two_chunks(self) -> None:
        a, reads = Store(), Reads()
        client = connect(by_domain(a=a, b=RecordingBackend(data=reads)))
        begin(client, "x@a.test", "x@b.test")
        client.send(b"BDAT 4\r\nabcd")
        self.assertEqual(client.send(b"RSET\r\n"), b"250 2.0.0 Reset\r\n")
        self.assertEqual((a.events, reads.ended), (["prepare", "reset rset"], "DataReset"))
        self.assertEqual(send(client, "x@a.test"), OK)

    def test_after_the_true_end_it_is_delivered(self) -> None:
        prepared: Deferred[bytes] = Deferred()
        answered: Deferred[None] = Deferred()
        a, b = Store(prepare=lambda body: prepared), RecordingBackend(data=lambda body: answered)
        client = of(a, b)
        client.send(MESSAGE + DOT)
        client.disconnect()
        prepared.callback(MESSAGE)
        self.assertEqual(a.messages, [])
        answered.callback(None)
        self.assertEqual(bodies(a), [[MESSAGE]])
        self.assertEqual(a.events, ["prepare", "commit", "logout disconnected"])

    def test_a_session_in_front_that_hides_a_recipient(self) -> None:
        a, b = Store(), Store()
        mux = by_domain(a=a, b=b)
        client = connect(mux)
        begin(client, "x@a.test", "x@b.test")
        client.protocol.wire.transaction.recipients.pop()
        client.send(b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), TRY_AGAIN)
        self.assertEqual((a.events, b.events), ([], []))

    def test_a_target_that_has_become_another_kind(self) -> None:
        a, b = Store(), RecordingBackend()
        client = of_recipients(by_domain(a=a, b=b), "x@a.test", "x@b.test")
        view: Any = a.connections[0]
        view.session = Session(view)
        client.send(b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), TRY_AGAIN)
        self.assertEqual((a.messages, b.messages), ([], []))
