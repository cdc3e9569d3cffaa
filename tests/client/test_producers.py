"""A producer of Twisted's, read piece by piece."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import aclosing
from io import BytesIO, StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock, Cooperator
from twisted.protocols.basic import FileSender
from twisted.trial.unittest import TestCase
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface.verify import verifyObject

from smtpfw.client.bodies import outgoing_body


class Manual:
    """A push producer that a test writes with."""

    length = UNKNOWN_LENGTH

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.finished: Deferred[None] | None = Deferred()
        self.consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None] | None:
        self.calls.append("start")
        self.consumer = consumer
        return self.finished

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")

    def end(self) -> None:
        assert self.finished is not None
        self.finished.callback(None)


class Looping(Manual):
    """
    Writes in a loop until it is paused, and would not bear to be resumed in the midst of that.

    :ivar depth: how many loops there were at once.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = list(pieces)
        self.paused = True
        self.loops = self.depth = 0

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.loops += 1
        self.depth = max(self.depth, self.loops)
        while self.pieces and not self.paused:
            self.consumer.write(self.pieces.pop(0))
        self.loops -= 1
        if not self.pieces and not self.loops:
            self.end()


class Reader:
    """
    Reads as a client does.

    :ivar pieces: what it has got.
    :ivar done: fires at the end of the body.
    """

    def __init__(self, producer: Any) -> None:
        self.chunks = outgoing_body(producer).chunks()
        self.pieces: list[bytes] = []
        self.done = Deferred.fromCoroutine(self._read())

    async def _read(self) -> None:
        async for piece in self.chunks:
            self.pieces.append(piece)
            await self._room()

    async def _room(self) -> None:
        """It has room at once."""


class SlowReader(Reader):
    """Reads one piece, and another one each time that it is told to."""

    def __init__(self, producer: Any) -> None:
        self.rooms: list[Deferred[None]] = []
        super().__init__(producer)

    async def _room(self) -> None:
        self.rooms.append(Deferred())
        await self.rooms[-1]

    def go_on(self) -> None:
        self.rooms.pop(0).callback(None)


class Pushing(TestCase):
    def test_the_consumer(self) -> None:
        producer = Manual()
        Reader(producer)
        verifyObject(IConsumer, producer.consumer)

    def test_what_is_known_beforehand(self) -> None:
        producer = Manual()
        body = outgoing_body(producer)
        self.assertEqual((body.data, body.size, body.eight_bit, body.utf8_header), (None,) * 4)
        self.assertFalse(body.repeatable)
        self.assertEqual(producer.calls, [])
        producer.length = 5  # type: ignore[assignment]
        self.assertEqual(outgoing_body(producer).size, 5)

    def test_a_reader_that_keeps_up_never_pauses(self) -> None:
        producer = Manual()
        reader = Reader(producer)
        producer.consumer.write(b"one")
        self.assertEqual(reader.pieces, [b"one"])
        producer.consumer.write(b"")
        producer.consumer.write(b"two")
        self.assertNoResult(reader.done)
        producer.end()
        self.successResultOf(reader.done)
        self.assertEqual(reader.pieces, [b"one", b"two"])
        self.assertEqual(producer.calls, ["start"])

    def test_a_slow_reader_gets_one_piece_after_another(self) -> None:
        producer = Manual()
        reader = SlowReader(producer)
        producer.consumer.write(b"one")
        # It has a piece, and its hands full.
        self.assertEqual((reader.pieces, producer.calls), ([b"one"], ["start", "pause"]))
        reader.go_on()
        self.assertEqual(producer.calls, ["start", "pause", "resume"])
        producer.consumer.write(b"two")
        self.assertEqual(producer.calls, ["start", "pause", "resume", "pause"])
        # Some write on all the same.
        producer.consumer.write(b"three")
        self.assertEqual(producer.calls, ["start", "pause", "resume", "pause"])
        reader.go_on()
        self.assertEqual((reader.pieces, len(producer.calls)), ([b"one", b"two", b"three"], 4))
        reader.go_on()
        self.assertEqual(producer.calls[4:], ["resume"])
        producer.end()
        self.successResultOf(reader.done)

    def test_what_was_written_before_the_end_is_read(self) -> None:
        producer = Manual()
        reader = SlowReader(producer)
        for piece in (b"one", b"two", b"three"):
            producer.consumer.write(piece)
        producer.end()
        producer.consumer.write(b"behind the end")
        for _ in range(3):
            reader.go_on()
        self.successResultOf(reader.done)
        self.assertEqual(reader.pieces, [b"one", b"two", b"three"])
        self.assertEqual(producer.calls, ["start", "pause"])

    def test_all_at_once(self) -> None:
        class AtOnce(Manual):
            def startProducing(self, consumer: Any) -> Deferred[None]:
                for piece in (b"one", b"two"):
                    consumer.write(piece)
                return succeed(None)

        reader = Reader(AtOnce())
        self.successResultOf(reader.done)
        self.assertEqual(reader.pieces, [b"one", b"two"])

    def test_a_coroutine(self) -> None:
        class Async(Manual):
            async def startProducing(self, consumer: Any) -> None:  # type: ignore[override]
                consumer.write(b"one")
                assert self.finished is not None
                await self.finished
                consumer.write(b"two")

        producer = Async()
        reader = Reader(producer)
        self.assertNoResult(reader.done)
        producer.end()
        self.successResultOf(reader.done)
        self.assertEqual(reader.pieces, [b"one", b"two"])

    def test_a_loop_is_never_entered_again_out_of_its_own_write(self) -> None:
        pieces = [b"%d" % number for number in range(2000)]
        for reader_of in (Reader, SlowReader):
            producer = Looping(pieces)
            reader = reader_of(producer)
            producer.resumeProducing()
            while isinstance(reader, SlowReader) and reader.rooms:
                reader.go_on()
            self.successResultOf(reader.done)
            self.assertEqual(reader.pieces, pieces)
            self.assertEqual(producer.depth, 1)

    def test_a_buffer_may_be_filled_again(self) -> None:
        producer = Manual()
        reader = SlowReader(producer)
        buffer = bytearray(b"one")
        producer.consumer.write(b"zero")
        producer.consumer.write(buffer)
        buffer[:] = b"two"
        reader.go_on()
        self.assertEqual(reader.pieces, [b"zero", b"one"])
        producer.end()


class Failing(TestCase):
    def test_a_failure_is_raised_as_it_was(self) -> None:
        error = OSError("no more")
        producer = Manual()
        reader = Reader(producer)
        producer.consumer.write(b"one")
        assert producer.finished is not None
        producer.finished.errback(error)
        self.assertIs(self.failureResultOf(reader.done).value, error)
        self.assertEqual(producer.calls, ["start"])

    def test_a_failure_of_the_start_is_raised_as_it_was(self) -> None:
        error = OSError("nothing")

        class Dead(Manual):
            def startProducing(self, consumer: Any) -> Deferred[None]:
                raise error

        producer = Dead()
        self.assertIs(self.failureResultOf(Reader(producer).done).value, error)
        self.assertEqual(producer.calls, [])

    def test_a_failure_to_resume_is_raised_as_it_was(self) -> None:
        error = OSError("stuck")

        class Stuck(Manual):
            def resumeProducing(self) -> None:
                raise error

        producer = Stuck()
        reader = SlowReader(producer)
        producer.consumer.write(b"one")
        reader.go_on()
        self.assertIs(self.failureResultOf(reader.done).value, error)
        self.assertEqual(producer.calls, ["start", "pause", "stop"])

    def test_what_is_no_octets_stops_it(self) -> None:
        producer = Manual()
        reader = Reader(producer)
        producer.consumer.write("text")
        failure = self.failureResultOf(reader.done, TypeError)
        self.assertEqual(str(failure.value), "a body is made of bytes, not of str")
        self.assertEqual(producer.calls, ["start", "stop"])

    def test_a_cancelled_reader_stops_it(self) -> None:
        producer = Manual()
        reader = Reader(producer)
        reader.done.cancel()
        self.failureResultOf(reader.done, CancelledError)
        self.assertEqual(producer.calls, ["start", "stop"])
        # What it still says goes nowhere, and is nobody's unhandled error.
        producer.consumer.write(b"one")
        assert producer.finished is not None
        producer.finished.errback(OSError("stopped"))
        producer.finished = None
        gc.collect()
        self.assertEqual((producer.calls, self.flushLoggedErrors()), (["start", "stop"], []))

    def test_a_reader_that_leaves_stops_it(self) -> None:
        producer = Manual()
        reader = SlowReader(producer)
        producer.consumer.write(b"one")
        # A cancelled reader that was not waiting for a piece closes what it has read from.
        reader.done.cancel()
        self.failureResultOf(reader.done, CancelledError)
        self.assertEqual(producer.calls, ["start", "pause"])
        self.successResultOf(Deferred.fromCoroutine(reader.chunks.aclose()))
        self.assertEqual(producer.calls, ["start", "pause", "stop"])

    def test_what_has_been_stopped_is_not_paused(self) -> None:
        async def first_piece() -> bytes:
            async with aclosing(outgoing_body(producer).chunks()) as chunks:
                return await anext(chunks)

        producer = Manual()
        piece = Deferred.fromCoroutine(first_piece())
        producer.consumer.write(b"one")
        self.assertEqual(self.successResultOf(piece), b"one")
        self.assertEqual(producer.calls, ["start", "stop"])

    def test_at_its_end_it_is_not_stopped(self) -> None:
        producer = Manual()
        chunks = outgoing_body(producer).chunks()
        first = Deferred.fromCoroutine(anext(chunks))
        producer.consumer.write(b"one")
        self.assertEqual(self.successResultOf(first), b"one")
        producer.end()
        self.successResultOf(Deferred.fromCoroutine(chunks.aclose()))
        self.assertNotIn("stop", producer.calls)

    def test_what_was_never_read_is_never_started(self) -> None:
        producer = Manual()
        self.successResultOf(Deferred.fromCoroutine(outgoing_body(producer).chunks().aclose()))
        self.assertEqual(producer.calls, [])


class Pull:
    """Writes one piece each time that it is asked: at once, or when the test says so."""

    def __init__(self, pieces: Iterable[bytes], at_once: bool = True) -> None:
        self.pieces = list(pieces)
        self.at_once = at_once
        self.asked = 0
        self.stopped = False
        self.finished: Deferred[None] = Deferred()
        self.consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.finished

    def resumeProducing(self) -> None:
        self.asked += 1
        if self.at_once:
            self.write()

    def write(self) -> None:
        if self.pieces:
            self.consumer.write(self.pieces.pop(0))
        else:
            self.finished.callback(None)

    def stopProducing(self) -> None:
        self.stopped = True


class Pulling(TestCase):
    def test_it_is_asked_for_each_piece(self) -> None:
        producer = Pull([b"one", b"", b"two"])
        reader = SlowReader(producer)
        self.assertEqual((reader.pieces, producer.asked), ([b"one"], 1))
        reader.go_on()
        self.assertEqual((reader.pieces, producer.asked), ([b"one", b"two"], 3))
        reader.go_on()
        self.successResultOf(reader.done)

    def test_it_may_take_its_time(self) -> None:
        producer = Pull([b"one", b"two"], at_once=False)
        reader = Reader(producer)
        for asked, pieces in ((1, [b"one"]), (2, [b"one", b"two"])):
            self.assertEqual(producer.asked, asked)
            producer.write()
            self.assertEqual(reader.pieces, pieces)
        producer.write()
        self.successResultOf(reader.done)

    def test_many_pieces_need_no_deep_stack(self) -> None:
        pieces = [b"%d" % number for number in range(5000)]
        for producer in (Pull(pieces), Pull(pieces, at_once=False)):
            reader = Reader(producer)
            while not producer.at_once and not producer.finished.called:
                producer.write()
            self.successResultOf(reader.done)
            self.assertEqual(reader.pieces, pieces)

    def test_it_is_stopped(self) -> None:
        producer = Pull([b"one"], at_once=False)
        reader = Reader(producer)
        reader.done.cancel()
        self.failureResultOf(reader.done, CancelledError)
        self.assertTrue(producer.stopped)


class Registering(TestCase):
    def test_a_producer_that_names_a_pull_producer(self) -> None:
        class Sends:
            length = 200_000

            def startProducing(self, consumer: Any) -> Deferred[Any]:
                return FileSender().beginFileTransfer(BytesIO(b"x" * 200_000), consumer)

        self.assertEqual(outgoing_body(Sends()).size, 200_000)
        reader = Reader(Sends())
        self.successResultOf(reader.done)
        self.assertEqual(b"".join(reader.pieces), b"x" * 200_000)

    def test_the_one_that_is_named_is_paused_and_stopped(self) -> None:
        first, second = Manual(), Manual()
        reader = SlowReader(first)
        first.consumer.registerProducer(second, True)
        first.consumer.write(b"one")
        reader.go_on()
        self.successResultOf(Deferred.fromCoroutine(aclose_of(reader)))
        self.assertEqual((first.calls, second.calls), (["start"], ["pause", "resume", "stop"]))

    def test_without_a_deferred_it_ends_when_it_unregisters(self) -> None:
        producer = Manual()
        producer.finished = None
        reader = Reader(producer)
        producer.consumer.registerProducer(producer, True)
        producer.consumer.write(b"one")
        self.assertNoResult(reader.done)
        producer.consumer.unregisterProducer()
        self.successResultOf(reader.done)
        self.assertEqual((reader.pieces, producer.calls), ([b"one"], ["start"]))

    def test_it_may_have_unregistered_by_the_time_it_has_started(self) -> None:
        class AtOnce(Manual):
            def startProducing(self, consumer: Any) -> None:
                consumer.registerProducer(self, False)
                consumer.write(b"one")
                consumer.unregisterProducer()

        producer = AtOnce()
        reader = Reader(producer)
        self.successResultOf(reader.done)
        self.assertEqual((reader.pieces, producer.calls), ([b"one"], []))

    def test_with_a_deferred_it_ends_when_that_fires(self) -> None:
        producer = Manual()
        reader = SlowReader(producer)
        producer.consumer.registerProducer(producer, False)
        self.assertEqual(producer.calls, ["start", "resume"])
        producer.consumer.write(b"one")
        producer.consumer.unregisterProducer()
        reader.go_on()
        self.assertNoResult(reader.done)
        producer.end()
        self.successResultOf(reader.done)
        self.assertEqual((reader.pieces, producer.calls), ([b"one"], ["start", "resume"]))

    def test_what_has_unregistered_is_not_stopped(self) -> None:
        producer = Manual()
        reader = Reader(producer)
        producer.consumer.registerProducer(producer, True)
        producer.consumer.unregisterProducer()
        reader.done.cancel()
        self.failureResultOf(reader.done, CancelledError)
        self.assertEqual(producer.calls, ["start"])


async def aclose_of(reader: Reader) -> None:
    """Cancel a reader that waits for a piece; close what it read from."""
    reader.done.addErrback(lambda failure: failure.trap(CancelledError))
    reader.done.cancel()
    await reader.chunks.aclose()


class OfTwistedWeb(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cooperator = Cooperator(scheduler=lambda tick: self.clock.callLater(0, tick))
        self.addCleanup(self.cooperator.stop)

    def producer(self, file: Any) -> FileBodyProducer:
        return FileBodyProducer(file, cooperator=self.cooperator, readSize=10)

    def test_it_is_a_body(self) -> None:
        file = BytesIO(b"0123456789" * 3 + b"x")
        producer = self.producer(file)
        self.assertEqual(outgoing_body(producer).size, 31)
        reader = Reader(producer)
        self.clock.pump([0] * 6)
        self.successResultOf(reader.done)
        self.assertEqual(reader.pieces, [b"0123456789"] * 3 + [b"x"])
        self.assertTrue(file.closed)

    def test_it_waits_for_its_reader(self) -> None:
        file = BytesIO(b"0123456789" * 3)
        reader = SlowReader(self.producer(file))
        for position in (10, 20, 30):
            self.clock.pump([0] * 5)
            self.assertEqual(file.tell(), position)
            reader.go_on()
        self.clock.advance(0)
        self.successResultOf(reader.done)
        self.assertEqual(b"".join(reader.pieces), b"0123456789" * 3)

    def test_it_is_stopped_when_nobody_reads_on(self) -> None:
        for cooperated in (0, 1):
            file = BytesIO(b"0123456789" * 3)
            reader = SlowReader(self.producer(file))
            self.clock.pump([0] * cooperated)
            self.successResultOf(Deferred.fromCoroutine(aclose_of(reader)))
            self.assertTrue(file.closed)
            self.clock.pump([0] * 5)
            self.assertEqual(len(reader.pieces), cooperated)

    def test_its_failures_are_raised(self) -> None:
        error = OSError("no more")

        class Broken(BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise error

        reader = Reader(self.producer(Broken(b"x")))
        self.clock.pump([0] * 3)
        self.assertIs(self.failureResultOf(reader.done).value, error)

    def test_a_text_file_in_it_is_refused(self) -> None:
        file = StringIO("text")
        reader = Reader(self.producer(file))
        self.clock.pump([0] * 3)
        self.failureResultOf(reader.done, TypeError)
        self.assertTrue(file.closed)


@given(st.lists(st.one_of(st.binary(max_size=4), st.none()), max_size=20), st.booleans())
def test_nothing_is_lost_or_reordered(steps: list[bytes | None], obeys: bool) -> None:
    """None: the reader goes on, if it can; else the producer writes, unless it is paused and obeys."""
    producer = Manual()
    reader = SlowReader(producer)
    written = []
    for step in steps:
        if step is None:
            if reader.rooms:
                reader.go_on()
        elif not obeys or producer.calls[-1] != "pause":
            written.append(step)
            producer.consumer.write(step)
            if obeys:
                assert sum(map(len, written)) - sum(map(len, reader.pieces)) <= len(step)
    producer.end()
    while reader.rooms:
        reader.go_on()
    assert reader.pieces == [piece for piece in written if piece]
    assert reader.done.called
    assert "stop" not in producer.calls
