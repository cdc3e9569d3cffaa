"""The body of a message as a session reads it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpfw.body import HIGH_WATER, ConsumerGone, MessageBody
from smtpfw.errors import DataReset, DataTooLarge
from smtpfw.interfaces import IBody


class Door:
    """Counts what a body asks of its connection."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.body = MessageBody(lambda: self.events.append("hold"), lambda: self.events.append("release"))


@implementer(IConsumer)
class SlowConsumer:
    """Asks for a pause at each write, and takes no more until it is told to."""

    def __init__(self, slow: bool = True) -> None:
        self.slow = slow
        self.producer: Any = None
        self.written: list[bytes] = []
        self.unregistered = 0

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        verifyObject(IPushProducer, producer)
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.unregistered += 1

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.slow:
            self.producer.pauseProducing()


def reading(coroutine: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


async def collect(body: MessageBody) -> list[bytes]:
    return [chunk async for chunk in body]


class Reading(TestCase):
    def test_it_is_a_body(self) -> None:
        verifyObject(IBody, Door().body)

    def test_iteration_gives_chunk_after_chunk(self) -> None:
        body = Door().body
        body.append(b"one")
        chunks = reading(collect(body))
        body.append(b"two")
        body.append(b"")
        self.assertNoResult(chunks)
        body.append(b"three")
        body.end()
        self.assertEqual(self.successResultOf(chunks), [b"one", b"two", b"three"])
        self.assertEqual(body.size, 11)

    def test_a_whole_message_is_not_waited_for(self) -> None:
        for chunks in ([], [b"one"], [b"one", b"two"]):
            body = Door().body
            for chunk in chunks:
                body.append(chunk)
            body.end()
            coroutine = body.read()
            # No Deferred, no reactor: the first step is the last one.
            with self.assertRaises(StopIteration) as stopped:
                coroutine.send(None)
            self.assertEqual(stopped.exception.value, b"".join(chunks))

    def test_a_single_chunk_is_not_copied(self) -> None:
        body = Door().body
        chunk = b"x" * 1000
        body.append(chunk)
        body.end()
        self.assertIs(self.successResultOf(reading(body.read())), chunk)

    def test_read_gives_what_has_not_been_read(self) -> None:
        async def first_and_rest() -> tuple[bytes, bytes]:
            async for chunk in body:
                return chunk, await body.read()
            raise AssertionError("an empty body")

        body = Door().body
        for chunk in (b"one", b"two", b"three"):
            body.append(chunk)
        body.end()
        self.assertEqual(self.successResultOf(reading(first_and_rest())), (b"one", b"twothree"))

    def test_reading_on_behind_the_end_is_a_mistake(self) -> None:
        for read in ("read", "message"):
            body = Door().body
            body.append(b"Subject: one\r\n\r\n")
            body.end()
            self.successResultOf(reading(body.read()))
            self.failureResultOf(reading(getattr(body, read)()), RuntimeError)

    def test_message(self) -> None:
        body = Door().body
        body.append(b"Subject: =?utf-8?q?h=C3=A9?=\r\n")
        message = reading(body.message())
        body.append(b"\r\ntext\r\n")
        body.end()
        self.assertEqual(self.successResultOf(message)["Subject"], "h\xe9")

    def test_one_reader_only(self) -> None:
        body = Door().body
        first, second = reading(body.read()), reading(body.read())
        self.failureResultOf(second, RuntimeError)
        body.append(b"x")
        body.end()
        self.assertEqual(self.successResultOf(first), b"x")

    def test_a_reader_that_is_cancelled_makes_room_for_another(self) -> None:
        body = Door().body
        first = reading(body.read())
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = reading(body.read())
        body.append(b"x")
        body.end()
        self.assertEqual(self.successResultOf(second), b"x")


class Ends(TestCase):
    def test_an_error_is_raised_by_every_read(self) -> None:
        for error in (DataReset("disconnected"), DataTooLarge()):
            body = Door().body
            waiting = reading(body.read())
            body.append(b"some")
            body.fail(error)
            self.assertIs(self.failureResultOf(waiting).value, error)
            for read in (body.read, body.message, lambda body=body: collect(body)):
                self.assertIs(self.failureResultOf(reading(read())).value, error)

    def test_what_was_not_read_before_an_error_is_not_given_out(self) -> None:
        body = Door().body
        body.append(b"some")
        body.fail(DataReset("disconnected"))
        self.failureResultOf(reading(collect(body)), DataReset)

    def test_the_first_error_counts(self) -> None:
        body = Door().body
        body.fail(DataTooLarge())
        body.fail(DataReset("disconnected"))
        body.append(b"more")
        self.failureResultOf(reading(body.read()), DataTooLarge)
        self.assertEqual(body.size, 0)

    def test_no_error_after_the_end(self) -> None:
        body = Door().body
        body.append(b"all")
        body.end()
        body.fail(DataReset("disconnected"))
        self.assertEqual(self.successResultOf(reading(body.read())), b"all")


class BackPressure(TestCase):
    def test_hold_and_release(self) -> None:
        door = Door()
        piece = b"x" * (HIGH_WATER // 4)
        for _ in range(4):
            door.body.append(piece)
        self.assertEqual(door.events, [])
        door.body.append(b"y")
        door.body.append(b"z")
        self.assertEqual(door.events, ["hold"])
        taking = door.body.__aiter__()
        for _ in range(2):
            self.successResultOf(reading(taking.__anext__()))
        # Half of it and two octets are left.
        self.assertEqual(door.events, ["hold"])
        self.successResultOf(reading(taking.__anext__()))
        self.assertEqual(door.events, ["hold", "release"])

    def test_nothing_is_held_back_behind_the_end(self) -> None:
        for ending in ("end", "drop", "fail"):
            door = Door()
            door.body.append(b"x" * (HIGH_WATER + 1))
            if ending == "fail":
                door.body.fail(DataReset("rset"))
            else:
                getattr(door.body, ending)()
            self.assertEqual(door.events, ["hold", "release"])


class Delivery(TestCase):
    def test_to_a_quick_consumer(self) -> None:
        body, consumer = Door().body, SlowConsumer(slow=False)
        done = body.deliver_to(consumer)
        body.append(b"one")
        body.append(b"two")
        self.assertNoResult(done)
        body.end()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(consumer.written, [b"one", b"two"])
        self.assertEqual(consumer.unregistered, 1)

    def test_a_slow_consumer_sets_the_pace(self) -> None:
        door, consumer = Door(), SlowConsumer()
        done = door.body.deliver_to(consumer)
        for _ in range(3):
            door.body.append(b"x" * (HIGH_WATER // 2))
        self.assertEqual(len(consumer.written), 1)
        door.body.append(b"y")
        # The connection holds the peer back, as the consumer does us.
        self.assertEqual(door.events, ["hold"])
        for _ in range(3):
            consumer.producer.resumeProducing()
        self.assertEqual(door.events, ["hold", "release"])
        door.body.end()
        consumer.producer.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(sum(map(len, consumer.written)), door.body.size)

    def test_pause_twice_and_resume_twice(self) -> None:
        body, consumer = Door().body, SlowConsumer()
        done = body.deliver_to(consumer)
        body.append(b"one")
        consumer.producer.pauseProducing()
        consumer.producer.resumeProducing()
        consumer.producer.resumeProducing()
        body.append(b"two")
        consumer.producer.resumeProducing()
        body.end()
        self.successResultOf(done)
        self.assertEqual(consumer.written, [b"one", b"two"])

    def test_an_error_of_the_body(self) -> None:
        body, consumer = Door().body, SlowConsumer(slow=False)
        done = body.deliver_to(consumer)
        body.append(b"one")
        body.fail(DataTooLarge())
        self.failureResultOf(done, DataTooLarge)
        self.assertEqual(consumer.unregistered, 1)

    def test_a_consumer_that_stops(self) -> None:
        for paused in (False, True):
            body, consumer = Door().body, SlowConsumer(slow=paused)
            done = body.deliver_to(consumer)
            body.append(b"one")
            consumer.producer.stopProducing()
            body.append(b"two")
            self.failureResultOf(done, ConsumerGone)
            self.assertEqual(consumer.unregistered, 1)

    def test_a_consumer_that_stops_before_the_end_has_not_taken_it_whole(self) -> None:
        body, consumer = Door().body, SlowConsumer(slow=False)
        done = body.deliver_to(consumer)
        body.append(b"one")
        consumer.producer.stopProducing()
        body.end()
        self.failureResultOf(done, ConsumerGone)

    def test_cancelled_while_the_consumer_is_slow(self) -> None:
        body, consumer = Door().body, SlowConsumer()
        done = body.deliver_to(consumer)
        body.append(b"one")
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(consumer.unregistered, 1)
        consumer.producer.resumeProducing()
