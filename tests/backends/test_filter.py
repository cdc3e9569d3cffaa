"""The filter: what goes on, what is changed, put aside and refused, and what is acknowledged by whom."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.filter import FilterBackend, Verdict
from smtpfw.backends.handler import Envelope
from smtpfw.backends.memory import MemoryBackend
from smtpfw.backends.mux.routing import passes_on
from smtpfw.errors import ConfigError, InsufficientStorage, MailboxUnavailable, TransactionFailed
from smtpfw.interfaces import IBackend, IHelloSession, ILMTPSession
from smtpfw.session import Session, SessionBackend
from smtpfw.testing import MemoryClient
from tests.config.plans import plan_of_file
from tests.running import ROOT
from tests.test_readme import blocks

PAGE = ROOT / "docs" / "backends.md"

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
        protocol = settings.pop("protocol", "smtp")
        backend = FilterBackend(judge, target or self.target, **settings)
        config = ServerConfig(hostname="mx.example.org", protocol=protocol)
        client = MemoryClient.of(SMTPServerFactory(backend, config, reactor=Clock()))
        client.send(b"LHLO me.example\r\n" if protocol == "lmtp" else b"EHLO me.example\r\n")
        return client

    def send(self, client: MemoryClient, message: bytes = MESSAGE, *, sender: str = "me@example.org") -> str:
        """The answer to a message."""
        client.send(b"MAIL FROM:<%b>\r\n" % sender.encode())
        self.assertIn(b"250", client.send(b"RCPT TO:<you@example.org>\r\n"))
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

    def test_a_changed_message_has_the_line_ends_of_mail(self) -> None:
        """What email.message.Message gives by as_bytes() has those of Unix."""
        self.send(self.client(b"Subject: x\n\none\rtwo\r\nthree\n"))
        self.assertEqual(self.texts(self.target), [b"Subject: x\r\n\r\none\r\ntwo\r\nthree\r\n"])

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

    def test_it_hears_so_of_a_message_that_was_refused_or_could_not_be_judged(self) -> None:
        resets: list[str] = []

        class Target(Picky):
            def reset(self, reason: str) -> None:
                resets.append(reason)

        for verdict in (TransactionFailed("a virus"), ZeroDivisionError(), "a text"):
            self.send(self.client(verdict, target=SessionBackend(Target)))
        self.assertEqual(resets, ["refused"] * 3)
        self.flushLoggedErrors(ZeroDivisionError, TypeError)

    def test_what_the_page_on_backends_shows(self) -> None:
        (block,) = (block for block in blocks(PAGE, "python") if "FilterBackend(judge" in block)
        names: dict[str, Any] = {}
        exec(block, names)
        folder = self.enterContext(TemporaryDirectory(prefix="smtpfw-"))
        made = names["make"]("10.0.0.2:10026", folder)
        self.assertTrue(made.relays)
        backend = FilterBackend(made.judge, self.target, self.quarantine)
        client = MemoryClient.of(SMTPServerFactory(backend, ServerConfig(hostname="mx.example.org"), reactor=Clock()))
        client.send(b"EHLO me.example\r\n")
        program = b"Subject: x\r\n\r\n" + b64encode(b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff") + b"\r\n"
        answers = [
            self.send(client, message, sender=sender)[:4]
            for sender, message in (
                ("me@example.org", MESSAGE),
                ("x@Lottery.Example", MESSAGE),
                ("me@example.org", program),
            )
        ]
        self.assertEqual(answers, ["250 ", "250 ", "554 "])
        self.assertEqual(self.texts(self.target), [b"X-Checked: yes\r\n" + MESSAGE])
        self.assertEqual(self.texts(self.quarantine), [MESSAGE])

    def test_the_configuration_that_the_page_shows(self) -> None:
        (block,) = (block for block in blocks(PAGE, "toml") if "content_filter" in block)
        folder = Path(self.enterContext(TemporaryDirectory(prefix="smtpfw-")))
        block = block.replace('python_path = "."', f'python_path = "{ROOT}"').replace("./Quarantine", str(folder))
        plan = plan_of_file(folder / "smtpfw.toml", block)
        (delivery,) = plan.deliveries
        self.assertIsInstance(delivery.backend, FilterBackend)
        self.assertTrue(passes_on(delivery.backend))

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

    def test_each_recipient_of_lmtp_has_the_answer_of_the_backend_behind(self) -> None:
        class Each(Session):
            async def lmtp_data(self, body: Any, status: Any) -> None:
                await body.read()
                for recipient in self.connection.transaction.recipients:
                    full = recipient.address.local_part == "full"
                    status.set_status(recipient, InsufficientStorage() if full else None)

        target = SessionBackend(implementer(ILMTPSession)(Each))
        for verdict, codes in ((None, ["250", "452"]), (TransactionFailed("a virus"), ["554", "554"])):
            client = self.client(verdict, target, protocol="lmtp")
            client.send(b"MAIL FROM:<>\r\nRCPT TO:<you@example.org>\r\nRCPT TO:<full@example.org>\r\nDATA\r\n")
            answers = client.send(MESSAGE + b".\r\n").decode().splitlines()
            self.assertEqual([line[:3] for line in answers], codes)

    def test_a_backend_behind_that_answers_for_all_does_so_in_lmtp(self) -> None:
        client = self.client(protocol="lmtp")
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
        self.assertEqual(client.send(MESSAGE + b".\r\n").count(b"250 "), 2)
        self.assertEqual(self.texts(self.target), [MESSAGE])

    def test_the_backend_behind_hears_how_the_client_has_introduced_itself(self) -> None:
        heard: list[tuple[str, bool]] = []

        @implementer(IHelloSession)
        class Target(Picky):
            def hello(self, name: str, extended: bool) -> None:
                heard.append((name, extended))
                if name == "bad.example":
                    raise TransactionFailed("not with that name")

        client = self.client(target=SessionBackend(Target))
        for _ in range(2):
            self.send(client)
        client.send(b"HELO bad.example\r\n")
        self.assertTrue(client.send(b"MAIL FROM:<>\r\n").startswith(b"554 "))
        self.assertEqual(heard, [("me.example", True), ("bad.example", False)])

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

    def test_neither_runs_if_one_can_not_start(self) -> None:
        did: list[str] = []

        class Backend(MemoryBackend):
            def stop(self) -> None:
                did.append("stop")
                raise ZeroDivisionError

        class Broken(Backend):
            def start(self) -> None:
                raise OSError("no disk")

        backend = FilterBackend(print, Backend(), Broken())
        self.failureResultOf(Deferred.fromCoroutine(backend.start()), OSError)
        self.assertEqual((did, len(self.flushLoggedErrors(ZeroDivisionError))), (["stop"], 1))

    def test_both_are_checked(self) -> None:
        class Backend(MemoryBackend):
            def check(self) -> list[str]:
                return ["this is odd"]

        class Broken(MemoryBackend):
            def check(self) -> list[str]:
                raise ConfigError("no disk")

        self.assertEqual(FilterBackend(print, MemoryBackend(), Backend()).check(), ["this is odd"])
        with self.assertRaisesRegex(ConfigError, r"\Ano disk\nno disk\Z"):
            FilterBackend(print, Broken(), Broken()).check()

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
