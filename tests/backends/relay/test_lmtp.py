"""Next hops that speak LMTP: an answer for each recipient, for senders of LMTP and of SMTP."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Session
from smtpfw.client import LMTPClientProtocol, RecipientResult
from smtpfw.errors import InsufficientStorage, MailboxUnavailable, SMTPError
from smtpfw.interfaces import IBody, ILMTPSession, IStatusCollector
from smtpfw.testing import MESSAGE, RecordingBackend, abort, close, silence
from smtpfw.wire.config import LMTP
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from tests.backends.relay.helpers import (
    BODY,
    FAILED,
    GO_AHEAD,
    LMTP_GREETING,
    OK,
    Sender,
    lmtp_to,
    script,
    server,
    without_trace,
)

UNKNOWN = b"451 4.4.2 The next server has not said whether it took the message, try again later\r\n"

#: By local part: what the store says of the message.
OUTCOMES: dict[str, Any] = {
    "yes": None,
    "named": "stored as 7",
    "full": InsufficientStorage("full"),
    "gone": MailboxUnavailable("gone"),
    "spam": SMTPError(554, (5, 7, 1), "spam"),
}


class Store(RecordingBackend):
    """A server that delivers, as the local parts say."""

    def new_session(self, connection: Any) -> Any:
        return StoreSession(self, connection)


@implementer(ILMTPSession)
class StoreSession(Session):
    def __init__(self, store: Store, connection: Any) -> None:
        super().__init__(connection)
        self._store = store

    def rcpt(self, recipient: Address, options: Options) -> None:
        if recipient.local_part == "nobody":
            raise MailboxUnavailable("nobody")

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
        octets = await body.read()
        for recipient in self.connection.transaction.recipients:
            outcome = OUTCOMES[recipient.address.local_part]
            if not isinstance(outcome, Exception):
                self._store.messages.append((recipient.address.local_part, octets))  # type: ignore[arg-type]
            status.set_status(recipient, outcome)


def store(**listener: Any) -> tuple[Any, Sender]:
    there = Store()
    return there, lmtp_to(server(there, protocol=LMTP), **listener)


def played(*answers: Any, recipients: int = 2) -> Any:
    """A next hop that answers a message as it is told."""
    steps = [("MAIL", OK), *[("RCPT", OK)] * recipients, ("DATA", b"354 go on\r\n"), (MESSAGE, *answers)]
    return script(*steps, greeting=LMTP_GREETING)


class LMTPSenderTests(TestCase):
    """LMTP on both sides: each recipient hears its own."""

    def send(self, sender: Sender, *names: str) -> list[bytes]:
        return sender.mail(*[f"{name}@there.test" for name in names]).splitlines()

    def test_each_has_its_own(self) -> None:
        there, sender = store(protocol=LMTP)
        self.assertEqual(
            self.send(sender, "yes", "full", "gone", "named"),
            [
                b"250 2.0.0 Message accepted",
                b"452 4.3.1 full",
                b"550 5.1.1 gone",
                b"250 2.0.0 stored as 7",
            ],
        )
        self.assertEqual([name for name, _ in there.messages], ["yes", "named"])
        self.assertEqual(without_trace(there.messages[0][1]), BODY)

    def test_the_same_address_twice(self) -> None:
        sender = lmtp_to(played(b"250 2.0.0 one\r\n", b"452 4.2.2 full\r\n"), protocol=LMTP)
        self.assertEqual(self.send(sender, "b", "b"), [b"250 2.0.0 one", b"452 4.2.2 full"])

    def test_two_transactions(self) -> None:
        _, sender = store(protocol=LMTP)
        self.assertEqual(self.send(sender, "gone"), [b"550 5.1.1 gone"])
        self.assertEqual(self.send(sender, "yes"), [b"250 2.0.0 Message accepted"])
        self.assertEqual(len(sender.hops.endpoints[0].links), 1)

    def test_the_connection_is_lost_between_two_answers(self) -> None:
        with capturedLogs() as logs:
            sender = lmtp_to(played(b"250 2.0.0 one\r\n", close, recipients=3), protocol=LMTP)
            self.assertEqual(self.send(sender, "a", "b", "c"), [b"250 2.0.0 one", *[UNKNOWN.strip()] * 2])
        lines = [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn]
        self.assertEqual(len([line for line in lines if "failed at END" in line]), 1)

    def test_421_between_two_answers(self) -> None:
        sender = lmtp_to(played(b"250 2.0.0 one\r\n", b"421 4.3.2 stop\r\n", close, recipients=3), protocol=LMTP)
        answers = self.send(sender, "a", "b", "c")
        self.assertEqual(answers[0], b"250 2.0.0 one")
        self.assertEqual([answer[:9] for answer in answers[1:]], [b"451 4.4.2"] * 2)

    def test_no_answer_at_all(self) -> None:
        sender = lmtp_to(played(silence), protocol=LMTP)
        sender.begin("a@there.test", "b@there.test")
        self.assertEqual(sender.send(BODY + b".\r\n"), b"")
        self.assertEqual(sender.advance(570), UNKNOWN * 2)

    def test_the_connection_is_lost_before_the_message(self) -> None:
        """Nobody got anything, and nobody hears a yes."""
        hop = script(("MAIL", OK), ("RCPT", OK), ("RCPT", OK, close), greeting=LMTP_GREETING)
        sender = lmtp_to(hop, protocol=LMTP)
        self.assertEqual(sender.envelope("a@there.test", "b@there.test")[1:], [OK] * 2)
        self.assertEqual(sender.say("DATA"), GO_AHEAD)
        self.assertEqual(sender.send(BODY + b".\r\n"), FAILED * 2)

    def test_data_is_refused(self) -> None:
        steps = ("MAIL", OK), ("RCPT", OK), ("RCPT", OK), ("DATA", b"451 4.3.0 not now\r\n")
        sender = lmtp_to(script(*steps, greeting=LMTP_GREETING), protocol=LMTP)
        self.assertEqual(self.send(sender, "a", "b"), [b"451 4.3.0 not now"] * 2)

    def test_results_that_are_missing_are_no_success(self) -> None:
        def fewer(client: LMTPClientProtocol, body: Any) -> Deferred[list[RecipientResult]]:
            assert client.wire.transaction is not None
            return succeed([RecipientResult(client.wire.transaction.recipients[0])])

        self.patch(LMTPClientProtocol, "lmtp_data", fewer)
        steps = ("MAIL", OK), ("RCPT", OK), ("RCPT", OK), ("RSET", OK)
        sender = lmtp_to(script(*steps, greeting=LMTP_GREETING), protocol=LMTP)
        self.assertEqual(self.send(sender, "a", "b"), [b"451 4.3.0 Try again later"] * 2)


class SMTPSenderTests(TestCase):
    """SMTP has one answer: yes, if all have it."""

    def test_one_recipient_has_the_very_answer(self) -> None:
        for name, expected in (
            ("yes", b"250 2.0.0 Message accepted\r\n"),
            ("named", b"250 2.0.0 stored as 7\r\n"),
            ("gone", b"550 5.1.1 gone\r\n"),
            ("full", b"451 4.3.1 full\r\n"),
        ):
            _, sender = store()
            self.assertEqual(sender.mail(f"{name}@there.test"), expected)

    def test_several(self) -> None:
        for names, expected in (
            (("yes", "named"), b"250 2.0.0 Message accepted\r\n"),
            (("yes", "gone"), b"550 5.1.1 gone\r\n"),
            (("spam", "gone"), b"554 5.7.1 spam\r\n"),
            (("yes", "full"), b"451 4.3.1 full\r\n"),
            (("gone", "full"), b"451 4.3.1 full\r\n"),
        ):
            _, sender = store()
            self.assertEqual(sender.mail(*[f"{name}@there.test" for name in names]), expected)

    def test_some_are_unknown(self) -> None:
        sender = lmtp_to(played(b"250 2.0.0 one\r\n", abort))
        self.assertEqual(sender.mail("a@there.test", "b@there.test"), UNKNOWN)

    def test_recipients_that_are_refused_at_once(self) -> None:
        """A connection is given back until there is a recipient; refusals behind that change nothing."""
        nobody = b"550 5.1.1 nobody\r\n"
        hop = script(
            *[("MAIL", OK), ("RCPT", nobody), ("RSET", OK)] * 2,
            ("MAIL", OK),
            ("RCPT", OK),
            ("RCPT", nobody),
            ("DATA", b"354 go on\r\n"),
            (MESSAGE, b"250 2.0.0 one\r\n"),
            greeting=LMTP_GREETING,
        )
        sender = lmtp_to(hop)
        answers = sender.envelope(*[f"{name}@there.test" for name in "abcd"])
        self.assertEqual(answers[1:], [nobody, nobody, OK, nobody])
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), b"250 2.0.0 one\r\n")
        hop.assert_played()
        self.assertEqual(len(hop.connections), 1)

    def test_nobody_has_a_connection_before_a_recipient(self) -> None:
        """Anybody may say MAIL; many who say no more would hold all that there may be."""
        _, first = store(max_connections=1)
        others = [Sender(first.factory.backend, first.hops, first.clock) for _ in range(3)]
        for sender in (first, *others):
            self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), b"250 2.1.0 Sender OK\r\n")
        self.assertEqual(first.hops.endpoints[0].links, [])
        # Nor has one whose recipients were refused.
        self.assertEqual(first.say("RCPT TO:<nobody@there.test>"), b"550 5.1.1 nobody\r\n")
        self.assertEqual(others[0].say("RCPT TO:<yes@there.test>")[:4], b"250 ")
        self.assertEqual(others[0].say("DATA"), GO_AHEAD)
        self.assertEqual(others[0].send(BODY + b".\r\n"), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(len(first.hops.endpoints[0].links), 1)

    def test_nobody_has_to_log_in(self) -> None:
        """The server that delivers says who its users are."""
        _, sender = store(peer=IPv4Address("TCP", "203.0.113.9", 4000))
        self.assertEqual(sender.mail("yes@there.test"), Reply(250, "Message accepted", (2, 0, 0)).wire)
