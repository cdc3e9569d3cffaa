"""Which of several next hops takes a message; connections that are full, and those that are left at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.testing import MESSAGE, RecordingBackend, ScriptedPeer, abort, close, silence
from tests.backends.relay.helpers import BODY, FAILED, GREETING, OK, Sender, relay_to, script, server, whole


def another(sender: Sender) -> Sender:
    """One more client of the same server."""
    return Sender(sender.factory.backend, sender.hops, sender.clock)


class FailOverTests(TestCase):
    def hears(self, *factories: Any, after: float = 0) -> tuple[Sender, bytes]:
        sender = relay_to(*factories)
        answer = sender.say("MAIL FROM:<a@sender.test>")
        return sender, answer + (sender.advance(after) if after else b"")

    def test_the_first_that_works(self) -> None:
        failures: list[tuple[Any, float]] = [
            (None, 0),
            (ScriptedPeer([silence]), 61),
            (ScriptedPeer([(None, b"421 4.3.2 busy\r\n")]), 0),
            (ScriptedPeer([(None, b"554 5.7.1 no\r\n")]), 0),
            (script(("MAIL", b"451 4.3.0 later\r\n")), 0),
            (script(("MAIL", b"452 4.3.1 full\r\n")), 0),
            (script(("MAIL", b"530 5.7.0 log in\r\n")), 0),
            (script(("MAIL", b"354 what\r\n")), 0),
        ]
        for first, after in failures:
            there = RecordingBackend()
            sender, answer = self.hears(first, server(there), after=after)
            self.assertEqual(answer, b"250 2.1.0 Sender OK\r\n", first)
            sender.say("RCPT TO:<b@there.test>")
            sender.say("DATA")
            self.assertEqual(sender.send(BODY + b".\r\n"), b"250 2.0.0 Message accepted\r\n")
            self.assertEqual(len(there.messages), 1)

    def test_a_refusal_of_the_message_is_not_asked_about_again(self) -> None:
        second = RecordingBackend()
        _, answer = self.hears(script(("MAIL", b"550 5.7.1 not from there\r\n")), server(second))
        self.assertEqual(answer, b"550 5.7.1 not from there\r\n")
        self.assertEqual(second.events, [])

    def test_after_mail_it_belongs_to_one(self) -> None:
        first = script(("MAIL", OK), ("RCPT", lambda connection: connection.transport.loseConnection()))
        second = RecordingBackend()
        sender = relay_to(first, server(second))
        self.assertEqual(sender.envelope()[1], FAILED)
        self.assertEqual(second.events, [])

    def test_what_may_have_been_taken_is_not_sent_to_another(self) -> None:
        first = script(*whole()[:-1], (MESSAGE, lambda connection: connection.transport.abortConnection()))
        second = RecordingBackend()
        sender = relay_to(first, server(second))
        self.assertEqual(sender.mail()[:9], b"451 4.4.2")
        self.assertEqual(second.events, [])

    def test_all_fail(self) -> None:
        later = b"451 4.3.0 later\r\n"
        missing = b"554 5.6.3 The next server does not offer BINARYMIME: the message is binary\r\n"
        for factories, body, expected in (
            ((script(("MAIL", later)), None), "8BITMIME", later),
            ((None, script(("MAIL", later))), "8BITMIME", FAILED),
            ((None, script(("MAIL", b"550 5.1.8 no\r\n"))), "8BITMIME", b"550 5.1.8 no\r\n"),
            # Where one may take it later, the sender shall ask again.
            ((None, script()), "BINARYMIME", FAILED),
            ((script(), None), "BINARYMIME", FAILED),
            ((script(), script()), "BINARYMIME", missing),
        ):
            sender = relay_to(*factories)
            self.assertEqual(sender.say(f"MAIL FROM:<a@sender.test> BODY={body}"), expected)

    def test_one_that_has_failed_is_tried_last_for_five_minutes(self) -> None:
        with capturedLogs() as logs:
            sender = relay_to(None, server(RecordingBackend()))
            for _ in range(3):
                sender.mail()
            self.assertEqual(len(self.failures(logs)), 1)
            sender.advance(200)
            sender.say("NOOP")
            sender.advance(101)
            sender.mail()
            self.assertEqual(len(self.failures(logs)), 2)

    def test_one_that_is_slow_leaves_time_for_the_others(self) -> None:
        sender = relay_to(script(("MAIL", silence)), script(("MAIL", silence)), server(RecordingBackend()))
        self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), b"")
        self.assertEqual(sender.advance(79), b"")
        self.assertEqual(sender.advance(1), b"")
        self.assertEqual(sender.advance(80), b"250 2.1.0 Sender OK\r\n")
        sender.say("RSET")
        self.assertEqual(sender.mail(), b"250 2.0.0 Message accepted\r\n")

    def test_one_that_works_again_is_tried_in_its_place(self) -> None:
        first, second = RecordingBackend(), RecordingBackend()
        sender = relay_to(None, server(second))
        sender.mail()
        sender.hops.endpoints[0].server_factory = server(first)
        sender.advance(200)
        sender.say("NOOP")
        sender.advance(101)
        sender.mail()
        sender.mail()
        self.assertEqual((len(first.messages), len(second.messages)), (2, 1))

    def test_when_all_are_avoided_they_are_tried_in_their_order(self) -> None:
        with capturedLogs() as logs:
            sender = relay_to(None, None)
            for _ in range(2):
                self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), FAILED)
            self.assertEqual(len(self.failures(logs)), 4)

    @staticmethod
    def failures(logs: Any) -> list[str]:
        lines = [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn]
        return [line for line in lines if " failed at " in line]


class SecondChanceTests(TestCase):
    """A connection that a pool had kept may have ended meanwhile; a new one has not."""

    def test_a_hop_that_is_busy_is_asked_once(self) -> None:
        for last in ((b"421 4.3.2 busy\r\n", close), (close,), (abort,)):
            first, second = script(("MAIL", *last)), RecordingBackend()
            sender = relay_to(first, server(second))
            self.assertEqual(sender.say("MAIL FROM:<a@sender.test>"), b"250 2.1.0 Sender OK\r\n")
            self.assertEqual(len(first.connections), 1)
            self.assertEqual(len(sender.hops.endpoints[1].links), 1)

    def test_a_connection_that_was_used_is_tried_anew(self) -> None:
        for last in ((b"421 4.4.2 idle for too long\r\n", close), (close,), (abort,)):
            first, second = script(*whole(), ("MAIL", *last)), RecordingBackend()
            sender = relay_to(first, server(second))
            self.assertEqual(sender.mail(), OK)
            sender.hops.endpoints[0].server_factory = script(("MAIL", OK))
            answer = sender.say("MAIL FROM:<a@sender.test>") or sender.advance(1)
            self.assertEqual(answer, OK)
            self.assertEqual(len(sender.hops.endpoints[0].links), 2)
            self.assertEqual(second.events, [])


class ConnectionTests(TestCase):
    def test_there_are_no_more_than_allowed(self) -> None:
        hop = script(*whole(), *whole())
        one = relay_to(hop, max_connections=1)
        two = another(one)
        one.begin()
        self.assertEqual(two.say("MAIL FROM:<a@sender.test>"), b"")
        self.assertEqual(one.send(BODY + b".\r\n"), OK)
        self.assertEqual(two.client.received(), OK)
        self.assertEqual(len(hop.connections), 1)

    def test_who_waits_for_too_long_hears_of_it(self) -> None:
        hop = script(*whole())
        one = relay_to(hop, max_connections=1, opening_timeout=100)
        two = another(one)
        one.begin()
        two.say("MAIL FROM:<a@sender.test>")
        self.assertEqual(two.advance(100), FAILED)
        self.assertEqual(two.say("NOOP"), b"250 2.0.0 OK\r\n")

    def test_who_waits_and_goes_leaves_nothing(self) -> None:
        hop = script(*whole(), *whole())
        one = relay_to(hop, max_connections=1)
        two = another(one)
        one.begin()
        two.say("MAIL FROM:<a@sender.test>")
        two.client.disconnect()
        self.assertEqual(one.send(BODY + b".\r\n"), OK)
        self.assertEqual(one.mail(), OK)
        self.assertEqual(len(hop.connections), 1)

    def test_an_idle_connection_says_quit(self) -> None:
        hop = script(*whole(), ("QUIT", b"221 bye\r\n", lambda connection: connection.transport.loseConnection()))
        sender = relay_to(hop)
        sender.mail()
        sender.advance(61)
        hop.assert_played()


class StopTests(TestCase):
    def stop(self, sender: Sender) -> list[Any]:
        ended: list[Any] = []
        Deferred.fromCoroutine(sender.factory.backend.stop()).addBoth(ended.append)
        sender.hops.flow()
        return ended

    def test_idle_ones_say_quit(self) -> None:
        hop = script(*whole(), ("QUIT", b"221 bye\r\n", lambda connection: connection.transport.loseConnection()))
        sender = relay_to(hop)
        sender.mail()
        self.assertEqual(self.stop(sender), [None])
        hop.assert_played()
        sender.client.disconnect()
        self.assertEqual(sender.clock.getDelayedCalls(), [])

    def test_nothing_was_begun(self) -> None:
        self.assertEqual(self.stop(relay_to(script())), [None])

    def test_one_that_does_not_answer_quit(self) -> None:
        sender = relay_to(script(*whole(), ("QUIT", silence)))
        sender.mail()
        ended = self.stop(sender)
        self.assertEqual(ended, [])
        sender.advance(10)
        self.assertEqual(ended, [None])

    def test_a_message_under_way_has_some_time(self) -> None:
        hop = script(*whole(), ("QUIT", b"221 bye\r\n", lambda connection: connection.transport.loseConnection()))
        sender = relay_to(hop)
        sender.begin()
        ended = self.stop(sender)
        self.assertEqual(sender.send(BODY + b".\r\n"), OK)
        self.assertEqual(ended, [None])

    def test_and_no_more(self) -> None:
        sender = relay_to(script(*whole()[:-1], (MESSAGE, silence)))
        sender.begin()
        sender.send(BODY + b".\r\n")
        ended = self.stop(sender)
        self.assertEqual(ended, [])
        self.assertEqual(sender.advance(10)[:9], b"451 4.4.2")
        self.assertEqual(ended, [None])

    def test_whoever_waits_for_a_hop_has_no_more_time_than_that(self) -> None:
        """It has not answered MAIL, or not even greeted; or all of its connections are in use."""
        for steps in ([*GREETING, ("MAIL", silence)], [silence]):
            one = relay_to(ScriptedPeer(steps), max_connections=1)
            two = another(one)
            self.assertEqual(one.say("MAIL FROM:<a@sender.test>"), b"")
            self.assertEqual(two.say("MAIL FROM:<a@sender.test>"), b"")
            ended = self.stop(one)
            self.assertEqual(one.advance(9.9), b"")
            self.assertEqual(ended, [])
            self.assertEqual(one.advance(0.1), FAILED)
            self.assertEqual(two.client.received(), FAILED)
            self.assertEqual(ended, [None])
            for sender in (one, two):
                sender.client.disconnect()
            self.assertEqual(one.clock.getDelayedCalls(), [])

    def test_a_hop_that_says_goodbye_slowly_has_no_more_time_than_that(self) -> None:
        config = replace(DEFAULT_CONFIG, quit_timeout=250.0)
        sender = relay_to(script(*whole(), ("QUIT", silence)), config=config)
        sender.mail()
        sender.advance(60)
        ended = self.stop(sender)
        sender.advance(10)
        self.assertEqual(ended, [None])

    def test_the_server_ends_first(self) -> None:
        """As a service does it: sessions get their grace, then the backend ends."""
        clock = Clock()
        sender = relay_to(ScriptedPeer([*GREETING, ("MAIL", silence)]), clock=clock)
        sender.say("MAIL FROM:<a@sender.test>")
        stopped: list[Any] = []
        sender.factory.stop(5.0).addCallback(lambda _: self.stop(sender)).addCallback(stopped.append)
        for _ in range(10):
            sender.advance(2)
        self.assertEqual(stopped, [[None]])
