"""LMTP: each target answers its own recipients, position by position."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpfw import Address
from smtpfw.errors import InsufficientStorage, MailboxUnavailable, ServiceNotAvailable, TryAgainLater
from smtpfw.interfaces import IBody, IStatusCollector
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP
from tests.backends.mux.helpers import (
    DOT,
    GO_AHEAD,
    MESSAGE,
    OK,
    RECIPIENT_OK,
    TRY_AGAIN,
    UNKNOWN,
    EachAnswers,
    Store,
    begin,
    by_domain,
    connect,
    raising,
    send,
)

FULL = b"452 4.3.1 Insufficient system storage\r\n"
X = Address("x", "e.test")


async def refuse_the_first_x(body: IBody, status: IStatusCollector) -> None:
    await body.read()
    status.set_status(X, MailboxUnavailable())


class LMTPTests(TestCase):
    def of(self, **targets: Any) -> MemoryClient:
        return connect(by_domain(**targets), protocol=LMTP)

    def begin_data(self, client: MemoryClient, *recipients: str) -> None:
        self.assertEqual(begin(client, *recipients), [RECIPIENT_OK] * len(recipients))
        self.assertTrue(client.send(b"DATA\r\n").startswith(GO_AHEAD))

    def test_mixed_outcomes_and_the_same_address_twice(self) -> None:
        a, b = Store(), RecordingBackend(data=raising(InsufficientStorage()))
        client = self.of(a=a, b=b, e=EachAnswers(refuse_the_first_x))
        recipients = ["x@e.test", "x@b.test", "x@a.test", "x@e.test", "x@a.test", "y@e.test", "x@b.test"]
        self.assertEqual(send(client, *recipients), UNKNOWN + FULL + OK + OK + OK + OK + FULL)
        # Each for itself: what the one stores is not taken back for the other.
        self.assertEqual(a.messages, [(["x", "x"], MESSAGE)])
        self.assertEqual(a.events, ["prepare", "commit"])

    def test_any_number_of_targets_without_two_phases(self) -> None:
        a, b, c = RecordingBackend(), RecordingBackend(), RecordingBackend()
        client = self.of(a=a, b=b, c=c)
        self.assertEqual(send(client, "x@a.test", "x@b.test", "x@c.test"), OK * 3)
        self.assertEqual([target.messages[0].body for target in (a, b, c)], [MESSAGE] * 3)

    def test_one_target(self) -> None:
        self.assertEqual(
            send(self.of(e=EachAnswers(refuse_the_first_x)), "x@e.test", "x@e.test", "y@e.test"), UNKNOWN + OK + OK
        )
        plain = RecordingBackend(data=lambda body: "read " + type(body).__name__)
        self.assertEqual(send(self.of(a=plain), "x@a.test", "y@a.test"), b"250 2.0.0 read MessageBody\r\n" * 2)

    def test_each_as_soon_as_it_is_known(self) -> None:
        slow: Deferred[None] = Deferred()
        collectors: list[IStatusCollector] = []

        def deliver(body: IBody, status: IStatusCollector) -> Deferred[None]:
            collectors.append(status)
            return Deferred()

        client = self.of(a=RecordingBackend(data=lambda body: slow), b=Store(), e=EachAnswers(deliver))
        self.begin_data(client, "x@b.test", "x@e.test", "x@a.test", "y@e.test", "y@b.test")
        self.assertEqual(client.send(MESSAGE + DOT), OK)
        slow.errback(ServiceNotAvailable("full"))
        self.assertEqual(client.received(), b"")
        collectors[0].set_status(X, "kept")
        self.assertEqual(client.received(), b"250 2.0.0 kept\r\n451 4.3.2 full\r\n")
        collectors[0].set_status(Address("y", "e.test"), MailboxUnavailable())
        self.assertEqual(client.received(), UNKNOWN + OK)
        self.assertFalse(client.closed)

    def test_a_fault_is_that_target_s_and_logged_once(self) -> None:
        client = self.of(a=RecordingBackend(data=raising(RuntimeError("a secret"))), b=Store())
        self.assertEqual(send(client, "x@a.test", "x@b.test", "y@a.test"), TRY_AGAIN + OK + TRY_AGAIN)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_target_speaks_for_its_own_recipients_only(self) -> None:
        mistakes: list[str] = []

        async def deliver(body: IBody, status: IStatusCollector) -> None:
            status.set_status(X)
            for address in (X, Address("x", "b.test")):
                try:
                    status.set_status(address)
                except ValueError as error:
                    mistakes.append(str(error))

        client = self.of(e=EachAnswers(deliver), b=Store(prepare=raising(MailboxUnavailable())))
        self.assertEqual(send(client, "x@b.test", "x@e.test"), UNKNOWN + OK)
        self.assertEqual(
            mistakes, ["the status of x@e.test has been set already", "x@b.test is no recipient of this message"]
        )

    def test_the_client_goes_in_the_middle(self) -> None:
        a, b = Store(), RecordingBackend()
        client = self.of(a=a, b=b)
        self.begin_data(client, "x@a.test", "x@b.test")
        client.send(b"x\r\n")
        client.disconnect()
        self.assertEqual((a.messages, b.messages), ([], []))
        self.assertEqual(a.events, ["prepare", "reset disconnected", "logout disconnected"])

    def test_too_large_for_each(self) -> None:
        a, b = Store(), RecordingBackend(data=lambda body: None)
        client = connect(by_domain(a=a, b=b), protocol=LMTP, max_message_bytes=10)
        self.begin_data(client, "x@a.test", "x@b.test")
        client.send(b"x\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), b"552 5.3.4 Message size exceeds the limit\r\n" * 2)
        self.assertEqual(a.messages, [])
        self.assertEqual((a.events[-1], b.events[-1]), ("reset refused", ("reset", "refused")))

    def test_a_collector_that_takes_no_answer_stops_nobody(self) -> None:
        class Broken:
            def set_status(self, recipient: Address, outcome: Any = None) -> None:
                raise ValueError("not now")

        a, slow = Store(), Deferred[None]()
        client = self.of(a=a, b=RecordingBackend(data=lambda body: slow))
        self.begin_data(client, "x@a.test", "x@b.test")
        mux = client.protocol.wire.application.session
        done = Deferred.fromCoroutine(mux.lmtp_data(WholeBody(MESSAGE), Broken()))
        self.assertNoResult(done)
        slow.callback(None)
        # Whoever could not be told of must not be taken for a success.
        self.failureResultOf(done, TryAgainLater)
        self.assertEqual(a.messages, [(["x"], MESSAGE)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


class WholeBody:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.octets
