"""A next hop that refuses, breaks off, stalls or talks nonsense, at each step: what the sender hears, and the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.testing import MESSAGE, ScriptedPeer, abort, close, silence
from tests.backends.relay.helpers import (
    BODY,
    FAILED,
    GO_AHEAD,
    GREETING,
    HELLO,
    OK,
    Sender,
    relay_to,
    script,
    whole,
)

UNKNOWN = b"451 4.4.2 The next server has not said whether it took the message, try again later\r\n"
NOT_LET_IN = b"451 4.7.0 The next server does not let us in, try again later\r\n"
DATA = ("DATA", b"354 go on\r\n")


class FailureCase(TestCase):
    def setUp(self) -> None:
        self.logs: Any = self.enterContext(capturedLogs())

    def warnings(self) -> list[str]:
        found = [formatEvent(event) for event in self.logs if event["log_level"] is LogLevel.warn]
        self.assertEqual([event for event in self.logs if event["log_level"] > LogLevel.warn], [])
        return [line for line in found if line.startswith("relay: ")]

    def play(self, *steps: Any, greeting: Any = GREETING) -> Sender:
        """A sender whose next hop plays the steps, on each connection alike."""
        return relay_to(script(*steps, greeting=greeting))


class BeforeMailTests(FailureCase):
    """The sender hears of it at MAIL, and nothing else has been said."""

    def fails(self, sender: Sender, expected: bytes = FAILED, *, after: float = 0) -> str:
        answer = sender.say("MAIL FROM:<a@sender.test>")
        if after:
            self.assertEqual(answer, b"")
            answer = sender.advance(after)
        self.assertEqual(answer, expected)
        (line,) = self.warnings()
        # Another one may be better off, and so may this one later.
        self.assertEqual(sender.say("RSET"), b"250 2.0.0 Reset\r\n")
        return line

    def test_nobody_listens(self) -> None:
        line = self.fails(relay_to(None))
        self.assertRegex(line, r"relay: \S+: MemoryEndpoint failed at CONNECT: MemoryEndpoint: CONNECT: .*nobody")

    def test_a_silent_one(self) -> None:
        sender = relay_to(ScriptedPeer([silence]))
        self.assertIn("GREETING", self.fails(sender, after=61))

    def test_one_that_hangs_up(self) -> None:
        self.assertIn("GREETING", self.fails(relay_to(ScriptedPeer([close]))))

    def test_a_refusal_in_the_place_of_the_greeting(self) -> None:
        self.assertIn("554", self.fails(relay_to(ScriptedPeer([(None, b"554 5.7.1 go away\r\n")]))))

    def test_421_in_the_place_of_the_greeting(self) -> None:
        sender = relay_to(ScriptedPeer([(None, b"421 4.3.2 too many\r\n")]))
        self.fails(sender, b"451 4.4.2 too many\r\n")

    def test_nonsense_in_the_place_of_the_greeting(self) -> None:
        self.assertIn("GREETING", self.fails(relay_to(ScriptedPeer([(None, b"HTTP/1.1 400 Bad Request\r\n")]))))

    def test_ehlo_refused(self) -> None:
        sender = relay_to(ScriptedPeer([b"220 hop\r\n", ("EHLO", b"554 5.7.1 not you\r\n")]))
        self.assertIn("EHLO", self.fails(sender))

    def test_no_tls_where_it_is_required(self) -> None:
        sender = relay_to(ScriptedPeer(list(GREETING)), tls="required", tls_name="hop.test")
        self.assertIn("STARTTLS", self.fails(sender))

    def test_no_way_to_log_in(self) -> None:
        sender = relay_to(ScriptedPeer(list(GREETING)), login=("me", "open sesame"), tls="none")
        line = self.fails(sender)
        self.assertIn("the server offers no AUTH", line)
        self.assertNotIn("open sesame", line)

    def test_a_login_that_is_refused(self) -> None:
        greeting = [b"220 hop\r\n", ("EHLO", b"250-hop\r\n250 AUTH CRAM-MD5\r\n")]
        hop = ScriptedPeer([*greeting, ("AUTH", b"334 PDE+\r\n"), ("", b"535 5.7.8 wrong\r\n")])
        sender = relay_to(hop, login=("me", "open sesame"), tls="none")
        self.assertIn("AUTH", self.fails(sender, NOT_LET_IN))

    def test_a_login_that_is_missing(self) -> None:
        line = self.fails(self.play(("MAIL", b"530 5.7.0 log in first\r\n")), NOT_LET_IN)
        self.assertIn("530 5.7.0 log in first", line)

    def test_mail_without_an_answer(self) -> None:
        # All attempts together have less time than the sender has patience.
        self.assertIn("MAIL", self.fails(self.play(("MAIL", silence)), after=240))

    def test_each_step_is_slow_and_together_they_are_too_slow(self) -> None:
        greeting = [b"220 hop\r\n", ("EHLO", HELLO)]
        sender = relay_to(ScriptedPeer([*greeting, ("MAIL", silence)]), opening_timeout=100)
        self.assertIn("MAIL has not been accepted within 100 seconds", self.fails(sender, after=100))

    def test_no_limit_for_all_of_it(self) -> None:
        sender = relay_to(ScriptedPeer([silence]), opening_timeout=0)
        self.assertIn("GREETING", self.fails(sender, after=61))


class RefusedTests(FailureCase):
    """What the next hop says of the message is what the sender hears, and no business of the log's."""

    def test_mail(self) -> None:
        sender = self.play(("MAIL", b"550 5.7.1 not from there\r\n"), *whole())
        self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), b"550 5.7.1 not from there\r\n")
        self.assertEqual(sender.mail(), OK)
        self.assertEqual(self.warnings(), [])

    def test_rcpt(self) -> None:
        sender = self.play(("MAIL", OK), ("RCPT", b"450 4.2.0 greylisted\r\n"), ("RCPT", b"552 full\r\n"))
        answers = sender.envelope("b@there.test", "c@there.test")
        self.assertEqual(answers[1:], [b"450 4.2.0 greylisted\r\n", b"452 4.5.3 full\r\n"])
        self.assertEqual(self.warnings(), [])

    def test_data(self) -> None:
        steps = ("MAIL", OK), ("RCPT", OK), ("DATA", b"554 5.7.1 not today\r\n"), ("RSET", OK), *whole()
        sender = self.play(*steps)
        # The next hop is asked when the message begins to come; the rest of it is read, and then answered.
        self.assertEqual(sender.mail(), b"554 5.7.1 not today\r\n")
        self.assertEqual(sender.mail(), OK)
        self.assertEqual(self.warnings(), [])

    def test_the_message(self) -> None:
        sender = self.play(*whole(b"550-5.7.1 spam\r\n550 5.7.1 see example.org\r\n"), *whole())
        self.assertEqual(sender.mail(), b"550-5.7.1 spam\r\n550 5.7.1 see example.org\r\n")
        self.assertEqual(sender.mail(), OK)
        self.assertEqual(self.warnings(), [])

    def test_in_the_middle_of_the_message(self) -> None:
        def refuse(connection: Any) -> None:
            connection.transport.write(b"552 5.3.4 too large\r\n")

        def watch(connection: Any) -> None:
            connection.silent = True
            refuse(connection)

        sender = self.play(("MAIL", OK), ("RCPT", OK), DATA, (b"Received", watch))
        sender.begin()
        self.assertEqual(sender.send(BODY), b"")
        # It is known already; the sender hears of it when it has said all.
        self.assertEqual(sender.send(BODY * 1000 + b".\r\n"), b"552 5.3.4 too large\r\n")
        self.assertEqual(self.warnings(), [])

    def test_421_does_not_close_the_sender(self) -> None:
        for steps in (
            [("MAIL", OK), ("RCPT", b"421 4.3.2 stopping\r\n", close)],
            [*whole(b"421 4.3.2 stopping\r\n")],
        ):
            sender = self.play(*steps)
            answers = sender.envelope()
            if answers[1].startswith(b"250"):
                sender.say("DATA")
                answers[1] = sender.send(BODY + b".\r\n")
            self.assertEqual(answers[1], b"451 4.4.2 stopping\r\n")
            self.assertFalse(sender.client.closed)
            self.assertIn("421", self.warnings()[-1])


class LostTests(FailureCase):
    """A next hop that goes away, says nothing any more, or nonsense."""

    def outcome(self, sender: Sender, *, after: float = 0, expected: bytes = FAILED, recipients: int = 1) -> str:
        answers = sender.envelope(*["b@there.test"] * recipients)
        if answers[-1].startswith(b"250"):
            self.assertEqual(sender.say("DATA"), GO_AHEAD)
            answers.append(sender.send(BODY + b".\r\n"))
        if after:
            self.assertEqual(answers[-1], b"")
            answers.append(sender.advance(after))
        self.assertEqual(answers[-1], expected)
        (line,) = self.warnings()
        return line

    def test_at_rcpt(self) -> None:
        for action, after in ((close, 0), (abort, 0), (silence, 240)):
            self.logs.clear()
            line = self.outcome(self.play(("MAIL", OK), ("RCPT", action)), after=after)
            self.assertIn("failed at RCPT", line)

    def test_at_data(self) -> None:
        for action, after in ((close, 0), (abort, 0), (silence, 100)):
            self.logs.clear()
            line = self.outcome(self.play(("MAIL", OK), ("RCPT", OK), ("DATA", action)), after=after)
            self.assertIn("failed at DATA", line)

    def test_in_the_middle_of_the_message(self) -> None:
        for action in (close, abort):
            self.logs.clear()
            sender = self.play(("MAIL", OK), ("RCPT", OK), DATA, (b"Received", action))
            sender.begin()
            sender.send(BODY)
            self.assertEqual(sender.send(BODY + b".\r\n"), FAILED)
            (line,) = self.warnings()
            self.assertIn("failed at BODY", line)

    def test_behind_the_message(self) -> None:
        for action, after in ((close, 0), (abort, 0), (silence, 570)):
            self.logs.clear()
            steps = ("MAIL", OK), ("RCPT", OK), DATA, (MESSAGE, action)
            line = self.outcome(self.play(*steps), after=after, expected=UNKNOWN)
            self.assertIn("failed at END", line)
            self.assertIn("the answer to the message is missing", line)

    def test_nonsense(self) -> None:
        for steps, expected in (
            ([("MAIL", OK), ("RCPT", b"354 what\r\n")], FAILED),
            ([("MAIL", OK), ("RCPT", b"hello\r\n")], FAILED),
            ([("MAIL", OK), ("RCPT", OK), ("DATA", b"250 go on\r\n")], FAILED),
            (whole(b"hello\r\n"), UNKNOWN),
        ):
            self.logs.clear()
            self.outcome(self.play(*steps), expected=expected)

    def test_503_is_not_the_senders_fault(self) -> None:
        line = self.outcome(self.play(("MAIL", OK), ("RCPT", b"503 5.5.1 MAIL first\r\n")))
        self.assertIn("503 5.5.1 MAIL first", line)

    def test_between_rcpt_and_the_message(self) -> None:
        sender = self.play(("MAIL", OK), ("RCPT", OK, close))
        self.assertEqual(sender.envelope(), [OK, OK])
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), FAILED)
        self.assertEqual(len(self.warnings()), 1)

    def test_the_next_transaction_has_a_new_connection(self) -> None:
        hop = ScriptedPeer([*GREETING, ("MAIL", OK), ("RCPT", close)], [*GREETING, *whole()])
        sender = relay_to(hop)
        sender.envelope()
        sender.say("RSET")
        self.assertEqual(sender.mail(), OK)

    def test_a_sender_that_goes_on_after_a_failure(self) -> None:
        """Some recipients were accepted before: they get nothing, and the sender is told."""
        sender = self.play(("MAIL", OK), ("RCPT", OK), ("RCPT", close))
        answers = sender.envelope("b@there.test", "c@there.test", "d@there.test")
        self.assertEqual(answers[1:], [OK, FAILED, FAILED])
        self.assertEqual(sender.say("DATA"), GO_AHEAD)
        self.assertEqual(sender.send(BODY + b".\r\n"), FAILED)

    def test_time_limits_are_the_operators(self) -> None:
        sender = relay_to(script(*whole()[:-1], (MESSAGE, silence)), config=replace(DEFAULT_CONFIG, end_timeout=5.0))
        sender.begin()
        self.assertEqual(sender.send(BODY + b".\r\n"), b"")
        self.assertEqual(sender.advance(4.9), b"")
        self.assertEqual(sender.advance(0.2), UNKNOWN)
