"""The filter: what goes on, what is changed, put aside and refused, and what is acknowledged by whom."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.filter import FilterBackend, Verdict
from smtpfw.backends.handler import Envelope
from smtpfw.backends.memory import MemoryBackend
from smtpfw.errors import MailboxUnavailable, TransactionFailed
from smtpfw.interfaces import IBackend
from smtpfw.session import Session, SessionBackend
from smtpfw.testing import MemoryClient

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


class Picky(Session):
    """Refuses nobody@, and messages with an x in their text."""

    def rcpt(self, recipient: Any, options: Any) -> None:
        if recipient.local_part == "nobody":
            raise MailboxUnavailable

    async def data(self, body: Any) -> str:
        if b"refuse me" in await body.read():
            raise TransactionFailed("not this one")
        return "queued as 7"


class FilterTests(TestCase):
    def setUp(self) -> None:
        self.target = MemoryBackend()
        self.quarantine = MemoryBackend()
        self.seen: list[tuple[str, list[str], bytes]] = []

    def client(self, verdict: Any = None, target: IBackend | None = None, **settings: Any) -> MemoryClient:
        def judge(envelope: Envelope, message: bytes) -> Any:
            self.seen.append((str(envelope.sender), list(map(str, envelope.recipients)), message))
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        settings.setdefault("quarantine", self.quarantine)
        backend = FilterBackend(judge, target or self.target, **settings)
        client = MemoryClient.of(SMTPServerFactory(backend, ServerConfig(hostname="mx.example.org"), reactor=Clock()))
        client.send(b"EHLO me.example\r\n")
        return client

    def send(self, client: MemoryClient, message: bytes = MESSAGE, to: str = "you@example.org") -> str:
        """The answer to a message."""
        client.send(b"MAIL FROM:<me@example.org>\r\n")
        self.assertIn(b"250", client.send(b"RCPT TO:<%b>\r\n" % to.encode()))
        client.send(b"DATA\r\n")
        return client.send(message + b".\r\n").decode()

    def texts(self, backend: MemoryBackend) -> list[bytes]:
        return [message.body for message in backend.messages]

    def test_it_goes_on_as_it_is(self) -> None:
        for verdict in (None, Verdict.ACCEPT, succeed(None)):
            self.assertTrue(self.send(self.client(verdict)).startswith("250"))
        self.assertEqual(self.texts(self.target), [MESSAGE] * 3)
        self.assertEqual(self.seen[0], ("me@example.org", ["you@example.org"], MESSAGE))
        self.assertEqual(self.texts(self.quarantine), [])

    def test_it_goes_on_changed(self) -> None:
        answer = self.send(self.client(b"X-Checked: yes\r\n" + MESSAGE))
        self.assertTrue(answer.startswith("250"), answer)
        self.assertEqual(self.texts(self.target), [b"X-Checked: yes\r\n" + MESSAGE])

    def test_it_is_refused(self) -> None:
        self.assertEqual(self.send(self.client(TransactionFailed("a virus"))), "554 5.0.0 a virus\r\n")
        self.assertEqual(self.texts(self.target), [])

    def test_it_is_put_aside(self) -> None:
        client = self.client(Verdict.QUARANTINE)
        for _ in range(2):
            self.assertTrue(self.send(client).startswith("250"))
        self.assertEqual(self.texts(self.target), [])
        (first, _) = self.quarantine.messages
        self.assertEqual((str(first.sender), list(map(str, first.recipients))), ("me@example.org", ["you@example.org"]))
        self.assertEqual(first.body, MESSAGE)

    def test_the_backend_behind_hears_that_it_gets_nothing(self) -> None:
        resets: list[str] = []

        class Target(Picky):
            def reset(self, reason: str) -> None:
                resets.append(reason)

        client = self.client(Verdict.QUARANTINE, target=SessionBackend(Target))
        self.send(client)
        self.assertEqual(resets, ["quarantined"])

    def test_a_quarantine_that_is_not_there_loses_nothing(self) -> None:
        answer = self.send(self.client(Verdict.QUARANTINE, quarantine=None))
        self.assertTrue(answer.startswith("451"), answer)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_filter_that_fails_lets_nothing_through(self) -> None:
        for wrong, error in ((ZeroDivisionError(), ZeroDivisionError), ("a text", TypeError)):
            answer = self.send(self.client(wrong))
            self.assertTrue(answer.startswith("451"), answer)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertEqual(self.texts(self.target), [])

    def test_the_answers_are_those_of_the_backend_behind(self) -> None:
        client = self.client(target=SessionBackend(Picky))
        self.assertEqual(self.send(client), "250 2.0.0 queued as 7\r\n")
        client.send(b"MAIL FROM:<>\r\n")
        self.assertTrue(client.send(b"RCPT TO:<nobody@example.org>\r\n").startswith(b"550 5.1.1"))
        client.send(b"RSET\r\n")
        self.assertEqual(self.send(client, b"refuse me\r\n"), "554 5.0.0 not this one\r\n")

    def test_a_message_that_breaks_off_is_shown_to_nobody(self) -> None:
        client = self.client()
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<you@example.org>\r\n")
        client.send(b"DATA\r\n")
        client.send(MESSAGE)
        client.disconnect()
        self.assertEqual(self.seen, [])

    def test_both_start_and_stop(self) -> None:
        did: list[str] = []

        class Backend(MemoryBackend):
            def start(self) -> None:
                did.append("start")

            async def stop(self) -> None:
                did.append("stop")

        backend = FilterBackend(lambda envelope, message: None, Backend(), Backend())
        self.successResultOf(Deferred.fromCoroutine(backend.start()))
        self.successResultOf(Deferred.fromCoroutine(backend.stop()))
        self.assertEqual(did, ["start", "start", "stop", "stop"])

    def test_it_says_what_it_does(self) -> None:
        first, *others = FilterBackend(print, MemoryBackend(), MemoryBackend()).describe()
        self.assertEqual(first, "Each message is shown to print first.")
        self.assertEqual([line.partition(": ")[0] for line in others], ["Then", "In quarantine"])

    def test_it_relays_where_the_backend_behind_does(self) -> None:
        class Relay(MemoryBackend):
            relays = True
            honours = frozenset({"DSN"})

        self.assertTrue(FilterBackend(print, Relay()).relays)
        self.assertEqual(FilterBackend(print, Relay()).honours, {"DSN"})
        self.assertFalse(FilterBackend(print, MemoryBackend()).relays)
