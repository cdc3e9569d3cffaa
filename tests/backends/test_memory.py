"""The backends without a disk: what they keep, and that a full one refuses instead of forgetting."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.memory import MemoryBackend, MemorySession
from smtpfw.errors import InsufficientStorage
from smtpfw.interfaces import IBackend, ITwoPhaseSession
from smtpfw.session import overridden
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.transaction import Recipient, Transaction

SENDER = Address("me", "example.org")
RECIPIENTS = [Recipient(Address(name, "example.org"), NO_OPTIONS) for name in ("you", "her")]


class Body:
    """A body in chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.size += len(chunk)
            yield chunk


def session_of(backend: MemoryBackend) -> MemorySession:
    transaction = Transaction("t1", SENDER, NO_OPTIONS)
    transaction.recipients += RECIPIENTS
    return backend.new_session(SimpleNamespace(transaction=transaction))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("backend", [MemoryBackend(), DiscardBackend()])
def test_both_are_backends(backend: IBackend) -> None:
    assert verifyObject(IBackend, backend)
    assert verifyObject(ITwoPhaseSession, backend.new_session(SimpleNamespace()))  # type: ignore[arg-type]


def test_no_hook_of_discard_needs_to_be_called() -> None:
    session = DiscardBackend().new_session(SimpleNamespace())  # type: ignore[arg-type]
    assert [overridden(session, name) for name in ("mail", "rcpt", "data", "reset", "logout")] == [None] * 5


class MemoryTests(TestCase):
    async def test_a_message_is_kept_whole(self) -> None:
        backend = MemoryBackend()
        await session_of(backend).data(Body(b"Subject: x\r\n", b"\r\nhello\r\n"))  # type: ignore[arg-type]
        (message,) = backend.messages
        self.assertEqual(message.sender, SENDER)
        self.assertEqual(message.recipients, (Address("you", "example.org"), Address("her", "example.org")))
        self.assertEqual(message.recipient_options, (NO_OPTIONS, NO_OPTIONS))
        self.assertEqual(message.body, b"Subject: x\r\n\r\nhello\r\n")

    async def test_a_full_one_refuses_and_forgets_nothing(self) -> None:
        backend = MemoryBackend(max_messages=1)
        await session_of(backend).data(Body(b"one"))  # type: ignore[arg-type]
        with self.assertRaises(InsufficientStorage):
            session_of(backend).mail(SENDER, NO_OPTIONS)
        with self.assertRaises(InsufficientStorage):
            await session_of(backend).data(Body(b"two"))  # type: ignore[arg-type]
        self.assertEqual([message.body for message in backend.messages], [b"one"])
        backend.messages.clear()
        await session_of(backend).data(Body(b"two"))  # type: ignore[arg-type]
        self.assertEqual([message.body for message in backend.messages], [b"two"])

    async def test_octets_are_limited_to_the_last_one(self) -> None:
        backend = MemoryBackend(max_bytes=4)
        with self.assertRaises(InsufficientStorage):
            await session_of(backend).data(Body(b"123", b"45"))  # type: ignore[arg-type]
        self.assertEqual(backend.messages, [])
        await session_of(backend).data(Body(b"12", b"34"))  # type: ignore[arg-type]
        self.assertEqual(len(backend.messages), 1)

    def test_a_declared_size_that_does_not_fit_is_refused_at_once(self) -> None:
        session = session_of(MemoryBackend(max_bytes=4))
        session.mail(SENDER, Options({"SIZE": 4}))
        with self.assertRaises(InsufficientStorage):
            session.mail(SENDER, Options({"SIZE": 5}))

    async def test_two_that_come_in_together_do_not_fill_it_twice(self) -> None:
        backend = MemoryBackend(max_bytes=4)
        waiting: Deferred[None] = Deferred()

        class Slow(Body):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                self.size = 3
                yield b"123"
                await waiting

        slow = Deferred.fromCoroutine(session_of(backend).data(Slow()))  # type: ignore[arg-type]
        await session_of(backend).data(Body(b"abc"))  # type: ignore[arg-type]
        waiting.callback(None)
        with self.assertRaises(InsufficientStorage):
            await slow
        self.assertEqual([message.body for message in backend.messages], [b"abc"])

    async def test_prepared_is_not_kept_yet_and_has_its_room(self) -> None:
        backend = MemoryBackend(max_bytes=5, max_messages=2)
        one = await session_of(backend).prepare(Body(b"123"))  # type: ignore[arg-type]
        self.assertEqual(backend.messages, [])
        with self.assertRaises(InsufficientStorage):
            await session_of(backend).data(Body(b"456"))  # type: ignore[arg-type]
        two = await session_of(backend).prepare(Body(b""))  # type: ignore[arg-type]
        with self.assertRaises(InsufficientStorage):
            await session_of(backend).data(Body(b""))  # type: ignore[arg-type]
        two.roll_back()
        one.commit()
        self.assertEqual([message.body for message in backend.messages], [b"123"])
        await session_of(backend).data(Body(b"45"))  # type: ignore[arg-type]
        self.assertEqual([message.body for message in backend.messages], [b"123", b"45"])
