"""Mail that is passed on by SMTP: what the next hop hears, and what the sender does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpfw.errors import MailboxUnavailable
from smtpfw.testing import MESSAGE, RecordingBackend, ScriptedPeer, close, silence
from smtpfw.wire.config import LMTP
from smtpfw.wire.replies import Reply
from tests.backends.relay.helpers import (
    BODY,
    GO_AHEAD,
    LARGE,
    OK,
    Sender,
    lmtp_to,
    relay_to,
    script,
    server,
    whole,
    without_trace,
)


class MessageTests(TestCase):
    def test_it_arrives_as_it_was_with_our_received_field_in_front(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        self.assertEqual(sender.mail("b@there.test", "c@there.test"), b"250 2.0.0 Message accepted\r\n")
        (message,) = there.messages
        self.assertEqual(str(message.sender), "a@sender.test")
        self.assertEqual([str(one) for one in message.recipients], ["b@there.test", "c@there.test"])
        self.assertTrue(message.body.startswith(b"Received: from me.test ([192.0.2.1])\r\n\tby relay.test with ESMTP"))
        self.assertEqual(without_trace(message.body), BODY)

    def test_a_large_one(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        sender.begin()
        for position in range(0, len(LARGE), 50_000):
            self.assertEqual(sender.send(LARGE[position : position + 50_000]), b"")
        self.assertEqual(sender.say("."), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(without_trace(there.messages[0].body), LARGE)

    def test_dots_travel(self) -> None:
        there = RecordingBackend()
        relay_to(server(there)).mail(body=b"x: y\r\n\r\n..\r\n..x\r\nz.\r\n")
        self.assertEqual(without_trace(there.messages[0].body), b"x: y\r\n\r\n.\r\n.x\r\nz.\r\n")

    def test_an_empty_one(self) -> None:
        there = RecordingBackend()
        relay_to(server(there)).mail(body=b"")
        self.assertEqual(without_trace(there.messages[0].body), b"")

    def test_our_field_is_not_gone_on_with(self) -> None:
        there = RecordingBackend()
        relay_to(server(there)).mail(body=b" from nowhere\r\n\r\nx\r\n")
        self.assertEqual(without_trace(there.messages[0].body), b"\r\n from nowhere\r\n\r\nx\r\n")

    def test_the_null_sender_and_the_postmaster_of_no_domain(self) -> None:
        hop = script(*whole())
        sender = relay_to(hop)
        self.assertEqual(sender.say("MAIL FROM:<>"), OK)
        self.assertEqual(sender.say("RCPT TO:<Postmaster>"), OK)
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), OK)
        self.assertEqual(hop.commands[1:3], [b"MAIL FROM:<> BODY=8BITMIME", b"RCPT TO:<Postmaster>"])

    def test_all_in_one_write(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        answer = sender.send(
            b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<b@there.test>\r\nRCPT TO:<c@there.test>\r\nDATA\r\n"
        )
        self.assertEqual([line[:3] for line in answer.splitlines()], [b"250", b"250", b"250", b"354"])
        self.assertEqual(sender.send(BODY + b".\r\nQUIT\r\n")[:4], b"250 ")
        self.assertEqual(len(there.messages), 1)

    def test_from_chunks(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        sender.envelope()
        self.assertEqual(sender.send(b"BDAT 5\r\nx: y\r"), b"250 2.0.0 5 octets\r\n")
        self.assertEqual(sender.send(b"BDAT 6 LAST\r\n\n\r\nz\r\n"), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual(without_trace(there.messages[0].body), b"x: y\r\n\r\nz\r\n")

    def test_a_sender_of_lmtp_gets_the_one_answer_for_each(self) -> None:
        sender = relay_to(script(*whole(b"250 2.0.0 queued as 7\r\n", recipients=2)), protocol=LMTP)
        self.assertEqual(sender.mail("b@there.test", "c@there.test"), b"250 2.0.0 queued as 7\r\n" * 2)


class AnswerTests(TestCase):
    """Each answer is the next hop's, and comes when it has come."""

    def test_the_words_are_those_of_the_next_hop(self) -> None:
        hop = script(
            ("MAIL", b"250 2.1.0 go ahead with that\r\n"),
            ("RCPT", b"251 2.1.5 will forward\r\n"),
            ("RCPT", b"252 2.1.5 may exist\r\n"),
            ("DATA", b"354 go on\r\n"),
            (MESSAGE, b"250-2.0.0 queued\r\n250 2.0.0 as 4711\r\n"),
        )
        sender = relay_to(hop)
        self.assertEqual(
            sender.envelope("b@there.test", "c@there.test"),
            [
                b"250 2.1.0 go ahead with that\r\n",
                b"251 2.1.5 will forward\r\n",
                # There is no 252 to RCPT; it does not cut the sender off from a recipient that was accepted.
                b"250 2.1.5 may exist\r\n",
            ],
        )
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), b"250-2.0.0 queued\r\n250 2.0.0 as 4711\r\n")

    def test_without_enhanced_codes_they_are_ours(self) -> None:
        hop = script(
            ("MAIL", b"250 fine\r\n"),
            ("RCPT", b"250\r\n"),
            ("RCPT", b"550 nobody\r\n"),
            ("DATA", b"354 go on\r\n"),
            (MESSAGE, b"250 got it\r\n"),
        )
        sender = relay_to(hop)
        self.assertEqual(
            sender.envelope("b@there.test", "c@there.test"),
            [b"250 2.1.0 fine\r\n", b"250 2.1.5 Recipient OK\r\n", b"550 5.0.0 nobody\r\n"],
        )
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), b"250 2.0.0 got it\r\n")

    def test_nothing_is_acknowledged_before_the_next_hop_has(self) -> None:
        waiting: dict[str, Deferred[Any]] = {name: Deferred() for name in ("mail", "rcpt", "data")}

        async def data(body: Any) -> Any:
            await body.read()
            return await waiting["data"]

        there = RecordingBackend(mail=lambda *_: waiting["mail"], rcpt=lambda *_: waiting["rcpt"], data=data)
        sender = relay_to(server(there))
        for name, line, answer in (
            ("mail", b"MAIL FROM:<a@sender.test>\r\n", b"250 2.1.0 mail\r\n"),
            ("rcpt", b"RCPT TO:<b@there.test>\r\n", b"250 2.1.5 rcpt\r\n"),
        ):
            self.assertEqual(sender.send(line), b"")
            waiting[name].callback(name)
            self.assertEqual(sender.send(b""), answer)
        self.assertEqual(sender.say("DATA"), GO_AHEAD)
        self.assertEqual(sender.send(BODY + b".\r\n"), b"")
        waiting["data"].callback("data")
        self.assertEqual(sender.send(b""), b"250 2.0.0 data\r\n")

    def test_some_recipients(self) -> None:
        def rcpt(recipient: Any, options: Any) -> None:
            if recipient.local_part == "c":
                raise MailboxUnavailable("no c here")

        there = RecordingBackend(rcpt=rcpt)
        sender = relay_to(server(there))
        answers = sender.envelope("b@there.test", "c@there.test", "d@there.test")
        self.assertEqual([answer[:9] for answer in answers[1:]], [b"250 2.1.5", b"550 5.1.1", b"250 2.1.5"])
        sender.say("DATA")
        sender.send(BODY + b".\r\n")
        self.assertEqual([str(one) for one in there.messages[0].recipients], ["b@there.test", "d@there.test"])

    def test_no_recipient(self) -> None:
        hop = script(("MAIL", OK), ("RCPT", b"550 5.1.1 no\r\n"), ("RSET", OK))
        sender = relay_to(hop)
        sender.envelope()
        self.assertEqual(sender.say("DATA")[:9], b"554 5.5.1")
        sender.say("RSET")
        hop.assert_played()


class TransactionTests(TestCase):
    def test_two_on_one_connection(self) -> None:
        hop = script(*whole(b"250 2.0.0 one\r\n"), *whole(b"250 2.0.0 two\r\n"))
        sender = relay_to(hop)
        self.assertEqual(sender.mail(), b"250 2.0.0 one\r\n")
        self.assertEqual(sender.mail("c@there.test"), b"250 2.0.0 two\r\n")
        self.assertEqual(len(hop.connections), 1)
        self.assertEqual(hop.commands[4:6], [b"MAIL FROM:<a@sender.test> BODY=8BITMIME", b"RCPT TO:<c@there.test>"])
        hop.assert_played()

    def test_two_senders_at_a_time_have_a_connection_each(self) -> None:
        hop = script(*whole())
        one = relay_to(hop)
        two = Sender(one.factory.backend, one.hops, one.clock)
        one.begin()
        two.begin()
        self.assertEqual(len(hop.connections), 2)
        self.assertEqual((two.send(BODY + b".\r\n"), one.send(BODY + b".\r\n")), (OK, OK))

    def test_the_second_sender_takes_the_connection_of_the_first(self) -> None:
        hop = script(*whole(), *whole())
        one = relay_to(hop)
        one.mail()
        one.say("QUIT")
        two = Sender(one.factory.backend, one.hops, one.clock)
        self.assertEqual(two.mail(), OK)
        self.assertEqual(len(hop.connections), 1)

    def test_rset(self) -> None:
        hop = script(("MAIL", OK), ("RCPT", OK), ("RSET", OK), *whole())
        sender = relay_to(hop)
        sender.envelope()
        self.assertEqual(sender.say("RSET"), b"250 2.0.0 Reset\r\n")
        self.assertEqual(sender.mail(), OK)
        hop.assert_played()

    def test_ehlo(self) -> None:
        hop = script(("MAIL", OK), ("RCPT", OK), ("RSET", OK), *whole())
        sender = relay_to(hop)
        sender.envelope()
        sender.say("EHLO me.test")
        self.assertEqual(sender.mail(), OK)
        hop.assert_played()

    def test_quit_within_a_transaction(self) -> None:
        hop = script(("MAIL", OK), ("RCPT", OK), ("RSET", OK))
        sender = relay_to(hop)
        sender.envelope()
        sender.say("QUIT")
        sender.hops.flow()
        hop.assert_played()

    def test_a_sender_that_vanishes_between_two_commands(self) -> None:
        hop = script(("MAIL", OK), ("RCPT", OK), ("RSET", OK))
        sender = relay_to(hop)
        sender.envelope()
        sender.client.disconnect()
        sender.hops.flow()
        hop.assert_played()

    def test_a_sender_that_vanishes_while_the_next_hop_thinks(self) -> None:
        for steps in ([("MAIL", silence)], [("MAIL", OK), ("RCPT", silence)]):
            hop = script(*steps)
            sender = relay_to(hop)
            sender.envelope()
            sender.client.disconnect()
            sender.hops.flow()
            (connection,) = hop.connections
            self.assertIsNotNone(connection.lost)
            self.assertEqual(sender.factory.connections, set())

    def test_a_sender_that_vanishes_before_there_is_a_connection(self) -> None:
        hop = ScriptedPeer([silence])
        sender = relay_to(hop)
        sender.envelope()
        sender.client.disconnect()
        sender.hops.flow()
        self.assertEqual(sender.factory.connections, set())
        # Nobody waits for it any more, and it does not stay.
        sender.advance(61)
        self.assertIsNotNone(hop.connections[0].lost)

    def test_rset_between_chunks(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        sender.envelope()
        sender.send(b"BDAT 5\r\nx: y\r")
        self.assertEqual(sender.say("RSET"), b"250 2.0.0 Reset\r\n")
        self.assertEqual(sender.mail(), b"250 2.0.0 Message accepted\r\n")
        self.assertEqual([without_trace(message.body) for message in there.messages], [BODY])

    def test_a_connection_that_was_idle_for_long_and_has_ended(self) -> None:
        hop = ScriptedPeer(
            [b"220 hop\r\n", ("EHLO", b"250 hop\r\n"), *whole(), ("MAIL", close)],
            [b"220 hop\r\n", ("EHLO", b"250 hop\r\n"), *whole(b"250 2.0.0 second\r\n")],
        )
        sender = relay_to(hop)
        self.assertEqual(sender.mail(), OK)
        self.assertEqual(sender.mail(), b"250 2.0.0 second\r\n")
        hop.assert_played()


class CheckTests(TestCase):
    """What this server finds wrong with a message at its end."""

    def test_a_loop(self) -> None:
        there = RecordingBackend()
        sender = relay_to(server(there))
        self.assertEqual(sender.mail(body=b"Received: x\r\n" * 101 + b"\r\n")[:9], b"554 5.4.6")
        self.assertEqual(there.messages, [])
        self.assertEqual(sender.mail(), b"250 2.0.0 Message accepted\r\n")

    def test_the_same_by_lmtp(self) -> None:
        there = RecordingBackend()
        sender = lmtp_to(server(there, protocol=LMTP))
        self.assertEqual(sender.mail(body=b"Received: x\r\n" * 101 + b"\r\n")[:9], b"554 5.4.6")
        self.assertEqual(there.messages, [])

    def test_what_is_in_front_must_pass_on_what_it_hears(self) -> None:
        """A session that is not told of MAIL, or of a recipient, does not send to whom the sender did not mean."""
        there = RecordingBackend()
        sender = relay_to(server(there))
        sender.envelope()
        (connection,) = sender.factory.connections
        transaction = connection.wire.transaction
        assert transaction is not None
        transaction.recipients.append(transaction.recipients[0])
        sender.say("DATA")
        self.assertEqual(sender.send(BODY + b".\r\n"), b"451 4.3.0 Try again later\r\n")
        self.assertEqual(there.messages, [])
        self.assertEqual(sender.mail(), Reply(250, "Message accepted", (2, 0, 0)).wire)
