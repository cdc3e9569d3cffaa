"""What the sessions of the targets hear of a dialog, up to the message."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase

from smtpfw import Address, Reply, Session
from smtpfw.backends.mux import MuxBackend
from smtpfw.errors import MailboxUnavailable, RelayDenied, ServiceNotAvailable, SMTPError
from smtpfw.testing import RecordingBackend
from tests.backends.mux.helpers import (
    GO_AHEAD,
    OK,
    RECIPIENT_OK,
    TRY_AGAIN,
    UNKNOWN,
    Store,
    begin,
    by_domain,
    connect,
    names,
    raising,
    rcpt,
    send,
)

TOO_MANY = b"452 4.5.3 Too many recipients\r\n"


class SessionsTests(TestCase):
    def test_made_when_needed_and_kept(self) -> None:
        a, b = RecordingBackend(), RecordingBackend()
        client = connect(by_domain(a=a, b=b))
        self.assertEqual((a.sessions, b.sessions), ([], []))
        for _ in range(2):
            self.assertEqual(send(client, "x@a.test"), OK)
        self.assertEqual((len(a.sessions), b.sessions), (1, []))
        self.assertEqual(a.events[:2], [("hello", "me"), ("mail", "me@client.test")])
        self.assertEqual(names(a), ["hello", "mail", "rcpt", "data", "mail", "rcpt", "data"])
        client.send(b"QUIT\r\n")
        self.assertEqual(a.events[-1], ("logout", "quit"))
        self.assertEqual(names(a).count("logout"), 1)

    def test_each_ehlo_is_told_once_and_its_refusal_is_the_recipient_s(self) -> None:
        a, b = RecordingBackend(), RecordingBackend(hello=raising(RelayDenied("not you")))
        client = connect(by_domain(a=a, b=b))
        self.assertEqual(begin(client, "x@b.test", "x@a.test", "y@a.test")[0], b"550 5.7.1 not you\r\n")
        client.send(b"HELO other\r\n")
        begin(client, "x@a.test")
        self.assertEqual([event for event in a.events if event[0] == "hello"], [("hello", "me"), ("hello", "other")])
        self.assertEqual(a.events[-1], ("rcpt", "x@a.test"))

    def test_the_manner_of_the_hello(self) -> None:
        heard: list[tuple[str, bool]] = []
        client = connect(by_domain(a=RecordingBackend(hello=lambda *hello: heard.append(hello))))
        begin(client, "x@a.test")
        client.send(b"HELO me\r\n")
        begin(client, "x@a.test")
        self.assertEqual(heard, [("me", True), ("me", False)])

    def test_reset_and_logout_once_for_each_concerned(self) -> None:
        a, b, c = RecordingBackend(), RecordingBackend(reset=raising(RuntimeError("broken"))), RecordingBackend()
        d = Store(**{"logout disconnected": raising(RuntimeError("broken"))})
        client = connect(by_domain(b=b, d=d, a=a, c=c))
        send(client, "x@a.test")
        begin(client, "x@d.test", "x@b.test")
        client.send(b"RSET\r\n")
        begin(client, "x@d.test", "x@b.test")
        client.disconnect()
        self.assertEqual(names(a), ["hello", "mail", "rcpt", "data", "logout"])
        self.assertEqual(
            [event for event in b.events if event[0] in ("reset", "logout")],
            [("reset", "rset"), ("reset", "disconnected"), ("logout", "disconnected")],
        )
        self.assertEqual(d.events, ["reset rset", "reset disconnected", "logout disconnected"])
        self.assertEqual(c.events, [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_a_transaction_of_its_own_recipients(self) -> None:
        a, b = Store(), Store()
        client = connect(by_domain(a=a, b=b))
        seen = []
        a.answers["commit"] = lambda: seen.append(a.connections[0].transaction)
        self.assertEqual(send(client, "x@a.test", "y@b.test", "z@a.test", "x@a.test"), OK)
        self.assertEqual([names for names, _ in a.messages + b.messages], [["x", "z", "x"], ["y"]])
        self.assertEqual(str(seen[0].sender), "me@client.test")
        self.assertIsNone(a.connections[0].transaction)
        outer = client.protocol.wire
        begin(client, "y@b.test")
        self.assertIsNone(a.connections[0].transaction)
        transaction: Any = b.connections[0].transaction
        self.assertEqual((transaction.id, transaction.options), (outer.transaction.id, outer.transaction.options))
        self.assertEqual(len(seen[0].recipients), 3)

    def test_the_rest_of_the_connection_is_the_client_s(self) -> None:
        a, b = Store(), Store()
        client = connect(by_domain(a=a, b=b))
        begin(client, "x@a.test", "x@b.test")
        one, two = a.connections[0], b.connections[0]
        self.assertEqual((one.hostname, one.hello_name, one.protocol), ("mx.test", "me", "ESMTP"))
        self.assertIs(one.context, two.context)
        self.assertIs(one.server, client.protocol.factory)
        one.close()
        self.assertTrue(client.closed)

    def test_a_session_that_puts_another_in_its_place(self) -> None:
        b = RecordingBackend()

        class Other(Session):
            def rcpt(self, recipient: Address, options: Any) -> str:
                return "Other"

        a = RecordingBackend(rcpt=lambda *_: setattr(view, "session", Other(view)))
        client = connect(by_domain(a=a, b=b))
        begin(client)
        view: Any = None

        def keep(session: Any) -> Any:
            nonlocal view
            view = session.connection
            return session

        a.answers["new_session"] = keep
        self.assertEqual(rcpt(client, "x@a.test"), RECIPIENT_OK)
        self.assertIsInstance(view.session, Other)
        self.assertEqual(rcpt(client, "x@a.test"), b"250 2.1.5 Other\r\n")
        self.assertEqual(rcpt(client, "x@b.test"), TOO_MANY)
        self.assertEqual(a.events[-1], ("logout", "replaced"))

    def test_verify(self) -> None:
        def verify(text: str) -> Any:
            return succeed("Tim <tim@a.test>") if "tim" in text else None

        client = connect(by_domain(a=RecordingBackend(verify=verify), b=Store()))
        cannot = client.send(b"VRFY x@b.test\r\n")
        self.assertTrue(cannot.startswith(b"252 "))
        self.assertEqual(client.send(b"VRFY <tim@a.test>\r\n"), b"250 2.1.5 Tim <tim@a.test>\r\n")
        for text in (b"x@a.test", b"tim", b"postmaster", b"@@"):
            self.assertEqual(client.send(b"VRFY " + text + b"\r\n"), cannot)
        self.assertEqual(client.send(b"VRFY x@c.test\r\n"), UNKNOWN)


class RefusalTests(TestCase):
    def test_no_route(self) -> None:
        client = connect(by_domain(a=Store()))
        self.assertEqual(begin(client, "x@c.test", "postmaster", "Postmaster"), [UNKNOWN, RECIPIENT_OK, RECIPIENT_OK])

    def test_at_rcpt_it_concerns_that_recipient(self) -> None:
        a, b = RecordingBackend(rcpt=raising(MailboxUnavailable("not here"))), Store()
        client = connect(by_domain(a=a, b=b))
        self.assertEqual(begin(client, "x@a.test", "x@b.test"), [b"550 5.1.1 not here\r\n", RECIPIENT_OK])
        self.assertTrue(client.send(b"DATA\r\n").startswith(GO_AHEAD))
        self.assertEqual(client.send(b"x\r\n.\r\n"), OK)
        # It has accepted the sender, so it hears that nothing came of it; once.
        self.assertEqual(names(a), ["hello", "mail", "rcpt", "reset"])
        client.send(b"QUIT\r\n")
        self.assertEqual(names(a)[3:], ["reset", "logout"])

    def test_at_mail_it_is_the_answer_of_each_recipient_and_asked_once(self) -> None:
        a, b = RecordingBackend(mail=raising(RelayDenied("not from you"))), Store()
        client = connect(by_domain(a=a, b=b))
        refused = b"550 5.7.1 not from you\r\n"
        self.assertEqual(begin(client, "x@a.test", "x@b.test", "y@a.test"), [refused, RECIPIENT_OK, refused])
        self.assertEqual(names(a), ["hello", "mail"])
        client.send(b"RSET\r\n")
        self.assertEqual(begin(client, "x@a.test"), [refused])
        self.assertEqual(names(a), ["hello", "mail", "mail"])

    def test_a_refusal_may_be_a_reply(self) -> None:
        a = RecordingBackend(mail=lambda *_: Reply(553, "no", (5, 1, 8)), rcpt=lambda *_: Reply(450, "later"))
        client = connect(by_domain(a=a))
        self.assertEqual(begin(client, "x@a.test"), [b"553 5.1.8 no\r\n"])
        a.answers.pop("mail")
        client.send(b"RSET\r\n")
        self.assertEqual(begin(client, "x@a.test"), [b"450 4.0.0 later\r\n"])
        self.assertTrue(client.send(b"DATA\r\n").startswith(b"5"))

    def test_what_the_target_says_is_said(self) -> None:
        client = connect(by_domain(a=RecordingBackend(rcpt=lambda *_: "Hello Tim")))
        self.assertEqual(begin(client, "x@a.test"), [b"250 2.1.5 Hello Tim\r\n"])

    def test_a_session_that_is_refused_and_later_not(self) -> None:
        errors = [ServiceNotAvailable("down for lunch"), SMTPError(554, "5.7.1", "go away")]

        def refuse(session: Any) -> Any:
            if errors:
                raise errors.pop(0)
            return session

        a = RecordingBackend(new_session=refuse)
        client = connect(by_domain(a=a, b=Store()))
        # 421 would end the dialog for the others, too.
        lunch = b"451 4.3.2 down for lunch\r\n"
        self.assertEqual(begin(client, "x@a.test", "x@b.test", "y@a.test"), [lunch, RECIPIENT_OK, lunch])
        client.send(b"RSET\r\n")
        self.assertEqual(begin(client, "x@a.test"), [b"554 5.7.1 go away\r\n"])
        client.send(b"RSET\r\n")
        self.assertEqual(begin(client, "x@a.test"), [RECIPIENT_OK])
        self.assertEqual(names(a), ["hello", "mail", "rcpt"])

    def test_a_fault_is_logged_once_and_temporary(self) -> None:
        client = connect(by_domain(a=RecordingBackend(new_session=raising(RuntimeError("a secret")))))
        self.assertEqual(begin(client, "x@a.test", "y@a.test"), [TRY_AGAIN, TRY_AGAIN])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_answers_that_take_their_time(self) -> None:
        waiting: list[Deferred[Any]] = []

        def wait(*_: Any) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        a = RecordingBackend(new_session=wait, hello=wait, mail=wait, rcpt=wait)
        client = connect(by_domain(a=a))
        begin(client)
        self.assertEqual(client.send(b"RCPT TO:<x@a.test>\r\nNOOP\r\n"), b"")
        waiting[0].callback(a.sessions[0])
        for step in (1, 2, 3):
            self.assertEqual(client.received(), b"")
            waiting[step].callback(None)
        self.assertEqual(client.received(), RECIPIENT_OK + b"250 2.0.0 OK\r\n")

    def test_the_client_goes_while_a_target_is_waited_for(self) -> None:
        cancelled: list[Any] = []
        a, b = RecordingBackend(rcpt=lambda *_: Deferred(cancelled.append)), Store()
        client = connect(by_domain(a=a, b=b))
        begin(client, "x@b.test")
        rcpt(client, "x@a.test")
        client.disconnect()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(names(a)[2:], ["rcpt", "reset", "logout"])
        self.assertEqual(b.events, ["reset disconnected", "logout disconnected"])


class SecondIrrevocableTests(TestCase):
    """At most one target of a transaction is without two phases."""

    def test_the_client_sends_it_in_a_transaction_of_its_own(self) -> None:
        a, b, c = RecordingBackend(), RecordingBackend(), Store()
        client = connect(by_domain(a=a, b=b, c=c))
        answers = begin(client, "x@a.test", "x@b.test", "x@c.test", "y@a.test", "y@b.test")
        self.assertEqual(answers, [RECIPIENT_OK, TOO_MANY, RECIPIENT_OK, RECIPIENT_OK, TOO_MANY])
        # It was not asked, so nothing has to be taken back.
        self.assertNotIn("mail", names(b))
        client.send(b"DATA\r\n")
        self.assertEqual(client.send(b"x\r\n.\r\n"), OK)
        self.assertEqual(send(client, "x@b.test", "y@b.test"), OK)
        self.assertEqual([len(target.messages) for target in (a, b, c)], [1, 1, 1])

    def test_one_that_has_refused_all_its_recipients_is_none(self) -> None:
        a, b = RecordingBackend(rcpt=raising(MailboxUnavailable())), RecordingBackend()
        client = connect(by_domain(a=a, b=b))
        self.assertEqual(begin(client, "x@a.test", "x@b.test"), [UNKNOWN, RECIPIENT_OK])
        self.assertEqual(rcpt(client, "y@a.test"), TOO_MANY)

    def test_the_default_is_a_target_as_any_other(self) -> None:
        relay = RecordingBackend()
        client = connect(MuxBackend({"a.test": RecordingBackend(), "b.test": relay}, relay))
        answers = begin(client, "x@b.test", "x@elsewhere.test", "x@a.test")
        self.assertEqual(answers, [RECIPIENT_OK, RECIPIENT_OK, TOO_MANY])
        self.assertEqual(len(relay.sessions), 1)
