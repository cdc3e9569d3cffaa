"""Checks: who is asked when, what a refusal does, and that nobody else notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, Session, SessionBackend, SMTPError, SMTPServerFactory
from smtpfw.check import STAGES, Check, FunctionCheck
from smtpfw.errors import ConfigError, RelayDenied
from smtpfw.extensions import STANDARD, Auth, StartTLS
from smtpfw.interfaces import IConnection
from smtpfw.policies import EarlyTalkers
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.server.hosting import SessionHost
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.config import LMTP
from smtpfw.wire.profiles import STRICT
from smtpfw.wire.replies import Reply
from tests.server.helpers import DATA, DOT, HELLO, MAIL, MESSAGE, RCPT, codes
from tests.server.test_hooks import ways

WHOLE = DATA + MESSAGE + DOT
SLOW, OTHER = IPv4Address("TCP", "192.0.2.1", 1025), IPv4Address("TCP", "192.0.2.2", 1025)


class Recorder(Check):
    """Writes down what it is asked, and answers as it is told."""

    def __init__(self, name: str = "", **answers: Callable[[], Any]) -> None:
        self.name = name
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def _note(self, stage: str, *shown: Any) -> Any:
        self.asked.append((self.name, stage, *shown) if self.name else (stage, *shown))
        return self.answers[stage]() if stage in self.answers else None

    def connect(self, connection: IConnection) -> Any:
        return self._note("connect", connection.peer_host)

    def hello(self, connection: IConnection, name: str, extended: bool) -> Any:
        return self._note("hello", name, extended)

    def mail(self, connection: IConnection, sender: Any, options: Any) -> Any:
        return self._note("mail", str(sender))

    def rcpt(self, connection: IConnection, recipient: Any, options: Any) -> Any:
        return self._note("rcpt", str(recipient))

    def data(self, connection: IConnection) -> Any:
        assert connection.transaction is not None
        return self._note("data", len(connection.transaction.recipients))

    def message(self, connection: IConnection, header: bytes, size: int) -> Any:
        return self._note("message", header, size)

    def disconnected(self, connection: IConnection) -> None:
        self._note("disconnected")


def refuse() -> None:
    raise RelayDenied


async def refuse_later() -> None:
    raise RelayDenied


def for_slow_ones(hook: Callable[..., Any]) -> Callable[..., Any]:
    """What a check asks of one client only."""
    return lambda connection, *rest: hook() if connection.peer_host == SLOW.host else None


class Checked(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()

    def connect(self, *checks: Any, **settings: Any) -> MemoryClient:
        extensions = settings.pop("extensions", None)
        factory = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test", **settings),
            checks=checks,
            extensions=extensions,
            reactor=self.clock,
        )
        return MemoryClient.of(factory)


class Asked(Checked):
    def test_at_every_stage_once(self) -> None:
        check = Recorder()
        client = self.connect(check)
        client.send(HELLO + MAIL + RCPT + WHOLE + b"QUIT\r\n")
        self.assertEqual(
            check.asked,
            [
                ("connect", "192.0.2.1"),
                ("hello", "me", True),
                ("mail", "a@b.test"),
                ("rcpt", "c@d.test"),
                ("data", 1),
                ("message", b"Subject: hello\r\n\r\n", len(MESSAGE)),
                ("disconnected",),
            ],
        )
        self.assertEqual(len(self.backend.messages), 1)

    def test_a_session_that_overrides_nothing(self) -> None:
        check = Recorder()
        factory = SMTPServerFactory(
            SessionBackend(Session), ServerConfig(hostname="mx.test"), checks=[check], reactor=self.clock
        )
        client = MemoryClient.of(factory)
        client.send(HELLO + MAIL + RCPT)
        self.assertEqual(codes(client.send(WHOLE)), [b"354", b"250"])
        self.assertEqual([event[0] for event in check.asked], list(STAGES))
        self.assertEqual(check.asked[-1], ("message", b"Subject: hello\r\n\r\n", len(MESSAGE)))

    def test_before_the_session_and_in_their_order(self) -> None:
        events: list[str] = []
        backend = self.backend
        backend.answers["mail"] = lambda *arguments: events.append("session")
        client = self.connect(
            FunctionCheck(mail=lambda *arguments: events.append("first")),
            FunctionCheck(mail=lambda *arguments: events.append("second")),
        )
        client.send(HELLO + MAIL)
        self.assertEqual(events, ["first", "second", "session"])

    def test_bdat_asks_at_the_first_chunk(self) -> None:
        check = Recorder()
        client = self.connect(check)
        client.send(HELLO + MAIL + RCPT)
        self.assertEqual(codes(client.send(b"BDAT 3\r\nA: BDAT 8 LAST\r\nb\r\n\r\nc\r\n")), [b"250", b"250"])
        self.assertEqual(check.asked[-2:], [("data", 1), ("message", b"A: b\r\n\r\n", 11)])

    def test_the_connection_is_the_sessions(self) -> None:
        seen: list[Any] = []
        self.connect(FunctionCheck(connect=seen.append))
        self.assertIs(seen[0], self.backend.sessions[0].connection)


class Refused(Checked):
    def test_the_first_refusal_wins_and_nobody_behind_is_asked(self) -> None:
        for answer in (refuse, refuse_later):
            for stage in ("hello", "mail", "rcpt", "data"):
                self.backend.events.clear()
                first, second = Recorder("first", **{stage: answer}), Recorder("second")
                client = self.connect(first, second)
                client.received()
                answers = [client.send(line) for line in (HELLO, MAIL, RCPT, DATA)]
                refused = answers[("hello", "mail", "rcpt", "data").index(stage)]
                self.assertTrue(refused.startswith(b"550 5.7.1 "), (stage, answers))
                self.assertNotIn(stage, [event[1] for event in second.asked])
                self.assertNotIn(stage, [event[0] for event in self.backend.events])

    def test_what_is_refused_changes_nothing(self) -> None:
        refusals = [RelayDenied(), None]

        def once() -> None:
            error = refusals.pop(0)
            if error is not None:
                raise error

        for stage, line in (("hello", HELLO), ("mail", MAIL), ("rcpt", RCPT), ("data", WHOLE)):
            refusals = [RelayDenied(), None]
            client = self.connect(Recorder(**{stage: once}))
            client.received()
            for words in (HELLO, MAIL, RCPT, WHOLE):
                if words is line:
                    self.assertTrue(client.send(words if words is not WHOLE else DATA).startswith(b"550"), stage)
                client.send(words)
            self.assertEqual(len(self.backend.messages), 1, stage)
            self.backend.messages.clear()

    def test_at_connect(self) -> None:
        for error, code in ((RelayDenied(), b"554 5.7.1 "), (SMTPError(421, (4, 7, 0), "go"), b"421 4.7.0 ")):

            def refuse_so(error: Exception = error) -> None:
                raise error

            check = Recorder(connect=refuse_so)
            client = self.connect(check)
            self.assertTrue(client.received().startswith(code))
            self.assertEqual(self.backend.sessions, [])
            client.send(b"QUIT\r\n")
            self.assertTrue(client.closed)
            self.assertEqual(check.asked[-1], ("disconnected",))

    def test_a_reply_is_a_refusal_too(self) -> None:
        client = self.connect(Recorder(mail=lambda: Reply(450, "slow down", (4, 7, 1))))
        self.assertEqual(client.send(HELLO + MAIL).splitlines()[-1], b"450 4.7.1 slow down")

    def test_what_is_no_answer_is_a_fault_of_ours(self) -> None:
        for answer in (False, True, "fine", Reply(250, "fine")):
            client = self.connect(Recorder(mail=lambda answer=answer: answer))
            self.assertEqual(client.send(HELLO + MAIL).splitlines()[-1], b"451 4.3.0 Try again later")
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_what_breaks_is_told_to_the_log_only(self) -> None:
        def broken() -> None:
            raise RuntimeError("the table of senders is gone")

        client = self.connect(Recorder(rcpt=broken))
        self.assertEqual(client.send(HELLO + MAIL + RCPT).splitlines()[-1], b"451 4.3.0 Try again later")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class Messages(Checked):
    """The check of a whole message: what it refuses is nowhere."""

    def refused(self, octets: bytes, answer: Callable[[], Any] = refuse) -> list[bytes]:
        client = self.connect(Recorder(message=answer))
        client.send(HELLO + MAIL + RCPT)
        answers = client.send(octets)
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [b"250"])
        return [line[:9] for line in answers.splitlines() if line[:3] != b"354"]

    def test_refused_is_not_stored(self) -> None:
        for answer in (refuse, refuse_later):
            for octets in (WHOLE, b"BDAT %d LAST\r\n%b" % (len(MESSAGE), MESSAGE)):
                self.assertEqual(self.refused(octets, answer), [b"550 5.7.1"])
        self.assertEqual(self.backend.messages, [])
        self.assertEqual([event for event in self.backend.events if event[0] == "reset"], [("reset", "refused")] * 4)

    def test_a_session_that_reads_learns_it(self) -> None:
        learned: list[BaseException] = []

        async def read(body: Any) -> None:
            try:
                await body.read()
            except Exception as error:
                learned.append(error)
                raise

        self.backend.answers["data"] = read
        client = self.connect(Recorder(message=refuse))
        client.send(HELLO + MAIL + RCPT + DATA)
        client.send(MESSAGE)
        self.assertTrue(client.send(DOT).startswith(b"550 5.7.1"))
        self.assertIsInstance(learned[0], RelayDenied)

    def test_a_success_that_was_returned_already_does_not_count(self) -> None:
        self.backend.answers["data"] = lambda body: None
        self.assertEqual(self.refused(WHOLE), [b"550 5.7.1"])

    def test_lmtp_answers_each(self) -> None:
        client = self.connect(Recorder(message=refuse), protocol=LMTP)
        client.send(b"LHLO me\r\n" + MAIL + RCPT + RCPT)
        self.assertEqual(codes(client.send(WHOLE)), [b"354", b"550", b"550"])

    def test_an_error_of_form_is_told_without_asking(self) -> None:
        check = Recorder()
        client = self.connect(check, max_message_bytes=10)
        client.send(HELLO + MAIL + RCPT)
        self.assertTrue(client.send(WHOLE).splitlines()[-1].startswith(b"552 5.3.4"))
        self.assertNotIn("message", [event[0] for event in check.asked])

    def test_while_it_thinks_nothing_is_stored_and_commands_wait(self) -> None:
        gate: Deferred[None] = Deferred()
        client = self.connect(Recorder(message=lambda: gate))
        client.send(HELLO + MAIL + RCPT)
        client.received()
        self.assertEqual(codes(client.send(WHOLE + b"NOOP\r\n")), [b"354"])
        self.assertEqual(self.backend.messages, [])
        gate.callback(None)
        self.assertEqual(codes(client.received()), [b"250", b"250"])
        self.assertEqual(self.backend.messages[0].body, MESSAGE)

    def test_the_header_however_it_is_cut(self) -> None:
        for message, header in (
            (b"A: b\r\nC: d\r\n\r\nbody\r\n\r\nmore\r\n", b"A: b\r\nC: d\r\n\r\n"),
            (b"\r\nbody: only\r\n\r\nX\r\n", b"\r\n"),
            (b"A: b\r\n", b"A: b\r\n"),
            (b"", b""),
            (b"\r\n", b"\r\n"),
        ):
            for step in (1, 2, 3, 5, 100):
                check = Recorder()
                client = self.connect(check)
                client.send(HELLO + MAIL + RCPT + DATA)
                octets = message + DOT
                for start in range(0, len(octets), step):
                    client.send(octets[start : start + step])
                self.assertEqual(check.asked[-1], ("message", header, len(message)), (message, step))

    def test_a_header_without_an_end(self) -> None:
        check = Recorder()
        client = self.connect(check)
        client.send(HELLO + MAIL + RCPT + DATA)
        for _ in range(300):
            client.send(b"X: " + b"y" * 1019 + b"\r\n")
        client.send(DOT)
        self.assertEqual(len(check.asked[-1][1]), 256 * 1024)


class Patience(Checked):
    def test_cancelled_when_the_client_has_gone(self) -> None:
        for stage, said in (
            ("connect", b""),
            ("hello", HELLO),
            ("mail", HELLO + MAIL),
            ("rcpt", HELLO + MAIL + RCPT),
            ("data", HELLO + MAIL + RCPT + DATA),
            ("message", HELLO + MAIL + RCPT + WHOLE),
        ):
            cancelled: list[Any] = []
            gate: Deferred[None] = Deferred(cancelled.append)
            check, behind = Recorder(**{stage: lambda gate=gate: gate}), Recorder()
            client = self.connect(check, behind)
            client.send(said)
            self.assertEqual(cancelled, [], stage)
            client.disconnect()
            self.assertEqual(cancelled, [gate], stage)
            self.assertNotIn(stage, [event[0] for event in behind.asked])
            self.assertEqual(check.asked[-1], ("disconnected",))
            self.assertEqual(self.backend.messages, [])
            self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_one_that_takes_its_cancellation_for_an_answer_lets_nobody_in(self) -> None:
        async def swallow() -> None:
            try:
                await Deferred()
            except CancelledError:
                return

        behind = Recorder()
        client = self.connect(Recorder(mail=swallow), behind)
        client.send(HELLO + MAIL)
        client.disconnect()
        self.assertNotIn("mail", [event[0] for event in behind.asked])
        self.assertNotIn("mail", [event[0] for event in self.backend.events])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_the_end_may_be_a_coroutine(self) -> None:
        ended: list[str] = []

        async def disconnected(connection: IConnection) -> None:
            ended.append(connection.peer_host)

        self.connect(FunctionCheck(disconnected=disconnected)).disconnect()
        self.assertEqual(ended, ["192.0.2.1"])

    def test_ones_own_takes_the_place_of_ours(self) -> None:
        client = self.connect(EarlyTalkers(3.0), profile=STRICT)
        self.clock.advance(2.9)
        self.assertEqual(client.received(), b"")
        self.clock.advance(0.1)
        self.assertEqual(codes(client.received()), [b"220"])

    def test_a_check_that_waits_and_then_a_session_that_waits(self) -> None:
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        self.backend.answers["mail"] = lambda *arguments: second
        client = self.connect(Recorder(mail=lambda: first), Recorder())
        client.send(HELLO)
        self.assertEqual(client.send(MAIL), b"")
        first.callback(None)
        self.assertEqual(client.received(), b"")
        second.callback(None)
        self.assertEqual(codes(client.received()), [b"250"])

    def test_in_any_way_and_others_are_served_meanwhile(self) -> None:
        """Plain, a Deferred or a coroutine, at every stage."""
        stages = {
            "connect": ([], b"", b"220", b"554"),
            "hello": ([], HELLO, b"250", b"550"),
            "mail": ([HELLO], MAIL, b"250", b"550"),
            "rcpt": ([HELLO + MAIL], RCPT, b"250", b"550"),
            "data": ([HELLO + MAIL + RCPT], DATA, b"354", b"550"),
            "message": ([HELLO + MAIL + RCPT, DATA], MESSAGE + DOT, b"250", b"550"),
        }
        whole = [b"220", b"250", b"250", b"250", b"354", b"250"]
        for stage, (before, line, accepted, refused) in stages.items():
            for outcome, code in ((lambda: None, accepted), (refuse, refused)):
                for way, hook, go in ways(outcome):
                    check = FunctionCheck(**{stage: for_slow_ones(hook)})
                    factory = SMTPServerFactory(
                        self.backend, ServerConfig(hostname="mx.test"), checks=[check], reactor=self.clock
                    )
                    slow = MemoryClient.of(factory, SLOW)
                    early = b"".join([slow.received(), *map(slow.send, before)])
                    early = early if stage == "connect" else slow.send(line)
                    self.assertEqual(early == b"", way in ("unfired Deferred", "coroutine that waits"), (stage, way))
                    other = MemoryClient.of(factory, OTHER)
                    self.assertEqual(codes(other.send(HELLO + MAIL + RCPT + WHOLE)), whole, (stage, way))
                    go()
                    self.assertEqual(codes(early + slow.received()), [code], (stage, way, code))

    def test_before_354_nothing_of_the_message_is_taken(self) -> None:
        gate: Deferred[None] = Deferred()
        client = self.connect(Recorder(data=lambda: gate))
        client.send(HELLO + MAIL + RCPT)
        self.assertEqual(client.send(b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(MESSAGE), MESSAGE)), b"")
        gate.errback(RelayDenied())
        # The octets of the chunk were swallowed, and not taken for commands.
        self.assertEqual(codes(client.received()), [b"550", b"250"])
        self.assertNotIn(("data", ""), self.backend.events)


class Rejections(Checked):
    """A check that says the last word itself, by ``connection.reject``: nobody behind it is asked."""

    def test_at_every_stage(self) -> None:
        for stage in ("hello", "mail", "rcpt", "data", "message"):
            for wait in (False, True):
                self.backend.events.clear()

                def reject(connection: IConnection, *rest: Any) -> None:
                    connection.reject(SMTPError(421, (4, 7, 0), "go away"))

                async def reject_later(connection: IConnection, *rest: Any) -> None:
                    await connection.pause(1)
                    reject(connection)

                behind = Recorder()
                client = self.connect(FunctionCheck(**{stage: reject_later if wait else reject}), behind)
                client.received()
                answer = b""
                for words in (HELLO, MAIL, RCPT, DATA, MESSAGE + DOT):
                    answer += client.send(words)
                    self.clock.advance(1)
                    answer += client.received()
                self.assertEqual(answer.splitlines()[-1], b"421 4.7.0 go away", (stage, wait))
                self.assertTrue(client.closed)
                self.assertNotIn(stage, [event[0] for event in behind.asked])
                self.assertNotIn(stage, [event[0] for event in self.backend.events])
                self.assertEqual(self.backend.messages, [])


class StartedTLS(Checked):
    def test_connect_is_not_asked_again_and_its_notes_stay(self) -> None:
        def note(connection: IConnection) -> None:
            connection.context["score"] = 7

        check = Recorder()
        client = self.connect(FunctionCheck(connect=note), check, extensions=[*STANDARD, StartTLS()])
        client.send(HELLO)
        self.backend.sessions[0].connection.context["said in clear"] = "x"
        # As if the handshake were over.
        client.protocol.wire.waiting = True
        self.patch(SessionHost, "start_tls", lambda host: None)
        client.protocol.handshakeCompleted()
        self.assertEqual([event[0] for event in check.asked], ["connect", "hello"])
        self.assertEqual(len(self.backend.sessions), 2)
        self.assertEqual(self.backend.sessions[1].connection.context, {"score": 7})


class Bad(TestCase):
    def test_a_class_is_no_check(self) -> None:
        for thing in (Recorder, object(), print):
            with self.assertRaises(ConfigError):
                SMTPServerFactory(RecordingBackend(), ServerConfig(hostname="mx.test"), checks=[thing], reactor=Clock())

    def test_a_function_for_no_stage(self) -> None:
        self.assertRaises(TypeError, FunctionCheck, recipient=print)

    def test_one_that_breaks_at_the_end_does_not_keep_it_from_others(self) -> None:
        def broken(connection: IConnection) -> None:
            raise RuntimeError

        check = Recorder()
        factory = SMTPServerFactory(
            RecordingBackend(),
            ServerConfig(hostname="mx.test"),
            checks=[FunctionCheck(disconnected=broken), check],
            reactor=Clock(),
        )
        MemoryClient.of(factory).disconnect()
        self.assertEqual(check.asked[-1], ("disconnected",))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(factory.connections, set())


class WithAuth(Checked):
    def test_the_identity_is_known_at_mail(self) -> None:
        seen: list[str] = []
        backend = self.backend
        check = FunctionCheck(mail=lambda connection, sender, options: seen.append(connection.identity))
        auth = Auth(FunctionChecker(lambda name, password: True), allow_insecure=True)
        client = self.connect(check, extensions=[*(e for e in STANDARD if not isinstance(e, StartTLS)), auth])
        client.send(HELLO + b"AUTH PLAIN AHRpbQBzZXNhbWU=\r\n")
        self.clock.advance(0)
        client.send(MAIL)
        self.assertEqual(seen, ["tim"])
        self.assertEqual(backend.events[-1][0], "mail")
