"""The events of the log: the fields and the line of each, and that nobody can forge one."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.config.log_lines import format_json, format_text
from smtpfw.errors import AuthFailed, MailboxUnavailable, SMTPError
from smtpfw.extensions import STANDARD, Auth, XClient
from smtpfw.interfaces import IBody, ILMTPSession, IPlainAuthSession, IStatusCollector
from smtpfw.server.events import EventLog
from smtpfw.server.proxy import ProxyFactory
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.replies import Reply
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, RCPT
from tests.server.tls_in_memory import CONTEXT, TLSClient

PEER = "192.0.2.1:54321"
SIZE = len(MESSAGE)
PAGE = (Path(__file__).parent.parent.parent / "docs" / "logging.md").read_text()

#: What fail2ban puts in the place of its tag.
ADDR = (
    r"(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})"
    r"|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))"
)


class EventCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[dict[str, Any]] = []

    def make_factory(self, backend: Any, **settings: Any) -> SMTPServerFactory:
        extras = {name: settings.pop(name) for name in ("tls", "extensions") if name in settings}
        config = ServerConfig(hostname="mx.test", **settings)
        log = Logger("smtpfw.server", observer=self.told.append)
        return SMTPServerFactory(backend, config, reactor=self.clock, log=log, **extras)

    def connect(self, backend: Any = None, *said: bytes, peer: Any = None, **settings: Any) -> MemoryClient:
        factory = self.make_factory(RecordingBackend() if backend is None else backend, **settings)
        client = MemoryClient.of(factory) if peer is None else MemoryClient.of(factory, peer)
        self.id = client.protocol.wire.id
        for words in said:
            client.send(words)
        return client

    def fields(self, name: str) -> list[dict[str, Any]]:
        """The events of this name: their fields."""
        assert hasattr(EventLog, name)
        found = [event for event in self.told if event["event"] == name]
        for event in found:
            self.assertIs(event["log_level"], LogLevel.warn if name == "proxy_failed" else LogLevel.info)
        return [{key: value for key, value in event.items() if not key.startswith("log_")} for event in found]

    def lines(self, name: str) -> list[str]:
        """The events of this name: their text, with ``ID`` for the connection's id."""
        found = [format_text(event) for event in self.told if event["event"] == name]
        head = "[smtpfw.server#info] "
        return [line.partition(head)[2].replace(self.id, "ID") for line in found]


class Connections(EventCase):
    def test_connected_and_gone(self) -> None:
        client = self.connect(None, ENVELOPE + DATA, MESSAGE + DOT)
        self.assertEqual(
            self.fields("connected"),
            [{"event": "connected", "connection": self.id, "peer": PEER, "proxy": "", "tls": ""}],
        )
        self.assertEqual(self.lines("connected"), [f"ID: connected from {PEER}\n"])
        self.assertEqual(self.fields("disconnected"), [])
        self.clock.advance(1.25)
        client.send(b"QUIT\r\n")
        self.assertEqual(
            self.fields("disconnected"),
            [
                {
                    "event": "disconnected",
                    "connection": self.id,
                    "peer": PEER,
                    "reason": "quit",
                    "duration": 1.25,
                    "messages": 1,
                }
            ],
        )
        self.assertEqual(self.lines("disconnected"), ["ID: disconnected (quit) after 1.250 s, 1 messages\n"])
        self.assertEqual(self.fields("refused"), [])

    def test_reasons(self) -> None:
        ends: dict[str, Callable[[MemoryClient], Any]] = {
            "disconnected": lambda client: client.disconnect(),
            "timeout": lambda client: self.clock.advance(3600),
            "shutdown": lambda client: client.protocol.factory.stop(1),
            "error": lambda client: client.send(b"NOOP\n"),
        }
        for reason, end in ends.items():
            self.told.clear()
            end(self.connect(None, HELLO))
            self.assertEqual([event["reason"] for event in self.fields("disconnected")], [reason])
            # What is no refusal of something that the client has said is none in the log.
            self.assertEqual(len(self.fields("refused")), reason == "error")

    def test_peers(self) -> None:
        for peer, name in (
            (IPv6Address("TCP", "2001:db8::1", 25), "[2001:db8::1]:25"),
            (IPv6Address("TCP", "::ffff:192.0.2.9", 25), "192.0.2.9:25"),
            (UNIXAddress(None), "unix"),
        ):
            self.told.clear()
            self.connect(peer=peer)
            self.assertEqual(self.lines("connected"), [f"ID: connected from {name}\n"])

    def test_tls(self) -> None:
        client = TLSClient(self.make_factory(RecordingBackend(), tls=CONTEXT), implicit=True)
        self.assertEqual(self.told, [])
        client.start_tls()
        client.send(ENVELOPE + DATA)
        client.send(MESSAGE + DOT)
        (connected,), (message,) = self.fields("connected"), self.fields("message")
        self.assertRegex(connected["tls"], r"^TLSv1\.[23] [A-Z0-9_-]+$")
        self.assertEqual(message["tls"], connected["tls"])

    def test_a_handshake_that_fails(self) -> None:
        client = TLSClient(self.make_factory(RecordingBackend(), tls=CONTEXT), implicit=True)
        self.id = client.server.wire.id
        client.raw(b"EHLO in clear\r\n")
        (event,) = self.fields("handshake_failed")
        self.assertEqual(list(event), ["event", "connection", "peer", "reason"])
        self.assertRegex(event["reason"], "^[a-z0-9 ]+$")
        line = f"ID: TLS handshake with {PEER} failed: {event['reason']}\n"
        self.assertEqual(self.lines("handshake_failed"), [line])
        self.assertEqual([event["event"] for event in self.told], ["handshake_failed"])


class Messages(EventCase):
    def test_one(self) -> None:
        client = self.connect(None, HELLO)
        self.clock.advance(3)
        client.send(MAIL + RCPT + DATA)
        self.clock.advance(0.5)
        client.send(MESSAGE + DOT)
        self.assertEqual(
            self.fields("message"),
            [
                {
                    "event": "message",
                    "connection": self.id,
                    "transaction": f"{self.id}.1",
                    "peer": PEER,
                    "hello_name": "me",
                    "tls": "",
                    "identity": "",
                    "sender": "a@b.test",
                    "recipients": ["c@d.test"],
                    "to": "<c@d.test>",
                    "size": SIZE,
                    "duration": 0.5,
                    "replies": ["250 2.0.0 Message accepted"],
                    "reply": "250 2.0.0 Message accepted",
                }
            ],
        )
        line = f"ID.1: {PEER} <a@b.test> to <c@d.test>, {SIZE} octets in 0.500 s: 250 2.0.0 Message accepted\n"
        self.assertEqual(self.lines("message"), [line])

    def test_each_has_its_own_id(self) -> None:
        client = self.connect(None, HELLO)
        for _ in range(2):
            client.send(MAIL + RCPT + b"BDAT 2 LAST\r\nhi")
        ids = [event["transaction"] for event in self.fields("message")]
        self.assertEqual(ids, [f"{self.id}.1", f"{self.id}.2"])

    def test_a_thousand_recipients(self) -> None:
        client = self.connect(None, HELLO + MAIL)
        client.send(b"".join(b"RCPT TO:<user%d@d.test>\r\n" % number for number in range(1000)))
        while client.protocol.wire.backlogged:
            self.clock.advance(0)
        client.send(DATA)
        client.send(MESSAGE + DOT)
        (event,) = self.fields("message")
        self.assertEqual(event["recipients"], [f"user{number}@d.test" for number in range(1000)])
        (line,) = self.lines("message")
        self.assertIn(" to <user0@d.test> and 999 more, ", line)
        self.assertLess(len(line), 200)

    def test_null_sender(self) -> None:
        self.connect(None, HELLO + b"MAIL FROM:<>\r\n" + RCPT + DATA, MESSAGE + DOT)
        self.assertEqual(self.fields("message")[0]["sender"], "")
        self.assertIn(f"{PEER} <> to <c@d.test>", self.lines("message")[0])

    def test_utf8(self) -> None:
        mail = "MAIL FROM:<grün@bücher.test> SMTPUTF8\r\nRCPT TO:<用户@d.test>\r\n".encode()
        self.connect(None, HELLO + mail + DATA, MESSAGE + DOT)
        (event,) = self.fields("message")
        self.assertEqual((event["sender"], event["recipients"]), ("grün@bücher.test", ["用户@d.test"]))
        self.assertIn("<grün@bücher.test> to <用户@d.test>,", self.lines("message")[0])

    def test_a_reply_of_several_lines(self) -> None:
        backend = RecordingBackend(data=lambda body: "queued\nas 17")
        self.connect(backend, ENVELOPE + DATA, MESSAGE + DOT)
        self.assertEqual(self.fields("message")[0]["reply"], "250-2.0.0 queued / 250 2.0.0 as 17")

    def test_refused_at_its_end(self) -> None:
        """It is told once, as what became of the message."""

        def refuse(body: IBody) -> None:
            raise MailboxUnavailable("Not today")

        self.connect(RecordingBackend(data=refuse), ENVELOPE + DATA, MESSAGE + DOT)
        (event,) = self.fields("message")
        self.assertEqual(event["reply"], "550 5.1.1 Not today")
        self.assertTrue(self.lines("message")[0].endswith(": 550 5.1.1 Not today\n"))
        self.assertEqual(self.fields("refused"), [])
        self.assertEqual(self.fields("aborted"), [])

    def test_too_large(self) -> None:
        self.connect(None, ENVELOPE + DATA, MESSAGE + DOT, max_message_bytes=5)
        (event,) = self.fields("message")
        self.assertEqual((event["size"], event["reply"][:9]), (SIZE, "552 5.3.4"))
        self.assertEqual([event["event"] for event in self.told], ["connected", "message"])

    def test_a_backend_that_closes_with_its_answer(self) -> None:
        def refuse(body: IBody) -> None:
            raise SMTPError(421, (4, 3, 2), "Going down")

        client = self.connect(RecordingBackend(data=refuse), ENVELOPE + DATA, MESSAGE + DOT)
        self.assertTrue(client.closed)
        self.assertEqual([event["event"] for event in self.told], ["connected", "message", "disconnected"])


class LMTP(EventCase):
    def deliver(self, status_of: Callable[[int], SMTPError | None], count: int) -> None:
        @implementer(ILMTPSession)
        class Delivery(Session):
            async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
                await body.read()
                for position, recipient in enumerate(self.connection.transaction.recipients):
                    status.set_status(recipient.address, status_of(position))

        client = self.connect(SessionBackend(Delivery), b"LHLO me\r\n" + MAIL, protocol="lmtp")
        client.send(b"".join(b"RCPT TO:<u%d@d.test>\r\n" % number for number in range(count)) + DATA)
        client.send(MESSAGE + DOT)

    def test_a_reply_for_each_recipient(self) -> None:
        self.deliver(lambda position: MailboxUnavailable("No such user") if position == 1 else None, 3)
        (event,) = self.fields("message")
        yes, no = "250 2.0.0 Message accepted", "550 5.1.1 No such user"
        self.assertEqual(event["recipients"], ["u0@d.test", "u1@d.test", "u2@d.test"])
        self.assertEqual(event["replies"], [yes, no, yes])
        self.assertEqual(
            self.lines("message"),
            [f"ID.1: {PEER} <a@b.test> to <u0@d.test> and 2 more, {SIZE} octets in 0.000 s: {yes}; {no}\n"],
        )
        self.assertEqual(self.fields("refused"), [])

    def test_the_line_stays_short(self) -> None:
        self.deliver(lambda position: MailboxUnavailable(f"No user {position}"), 100)
        (event,) = self.fields("message")
        self.assertEqual(len(event["replies"]), 100)
        different = "550 5.1.1 No user 0; 550 5.1.1 No user 1; 550 5.1.1 No user 2; and 97 others"
        self.assertEqual(event["reply"], different)


class Aborted(EventCase):
    def abort(self, end: Callable[[MemoryClient], Any], begin: bytes = DATA, **settings: Any) -> None:
        self.told.clear()
        client = self.connect(None, ENVELOPE, **settings)
        client.send(begin)
        client.send(b"x" * 998 + b"\r\n")
        end(client)

    def test_a_client_that_goes(self) -> None:
        def end(client: MemoryClient) -> None:
            self.clock.advance(2)
            client.disconnect()

        self.abort(end)
        self.assertEqual(
            self.fields("aborted"),
            [
                {
                    "event": "aborted",
                    "connection": self.id,
                    "transaction": f"{self.id}.1",
                    "peer": PEER,
                    "hello_name": "me",
                    "tls": "",
                    "identity": "",
                    "sender": "a@b.test",
                    "recipients": ["c@d.test"],
                    "to": "<c@d.test>",
                    "size": 1000,
                    "duration": 2.0,
                    "reason": "disconnected",
                }
            ],
        )
        line = f"ID.1: {PEER} <a@b.test> to <c@d.test>, aborted (disconnected) after 1000 octets and 2.000 s\n"
        self.assertEqual(self.lines("aborted"), [line])
        self.assertEqual(sorted(event["event"] for event in self.told), ["aborted", "connected", "disconnected"])

    def test_reasons(self) -> None:
        chunk = b"BDAT 1000\r\n"
        for reason, begin, end in (
            ("timeout", DATA, lambda client: self.clock.advance(3600)),
            ("shutdown", DATA, lambda client: (client.protocol.factory.stop(1), self.clock.advance(1))),
            ("rset", chunk, lambda client: client.send(b"RSET\r\n")),
            ("ehlo", chunk, lambda client: client.send(HELLO)),
            ("quit", chunk, lambda client: client.send(b"QUIT\r\n")),
            ("disconnected", chunk, lambda client: client.half_close()),
        ):
            self.abort(end, begin)
            self.assertEqual([(event["reason"], event["size"]) for event in self.fields("aborted")], [(reason, 1000)])

    def test_one_that_is_far_too_large(self) -> None:
        self.abort(lambda client: None, max_message_bytes=10, max_discarded_bytes=10)
        self.assertEqual([event["reason"] for event in self.fields("aborted")], ["error"])

    def test_nothing_had_begun(self) -> None:
        """Who only asks whether an address is there is no event."""
        self.connect(None, ENVELOPE, b"RSET\r\n", MAIL).disconnect()
        self.assertEqual([event["event"] for event in self.told], ["connected", "disconnected"])

    def test_a_message_that_was_whole_is_no_broken_one(self) -> None:
        stored: Deferred[None] = Deferred()
        client = self.connect(RecordingBackend(data=lambda body: stored), ENVELOPE + DATA, MESSAGE + DOT)
        client.disconnect()
        stored.callback(None)
        self.assertEqual(self.fields("aborted"), [])


class Refused(EventCase):
    def test_a_recipient(self) -> None:
        def refuse(recipient: object, options: object) -> None:
            raise MailboxUnavailable("No such mailbox here")

        self.connect(RecordingBackend(rcpt=refuse), ENVELOPE)
        self.assertEqual(
            self.fields("refused"),
            [
                {
                    "event": "refused",
                    "connection": self.id,
                    "transaction": f"{self.id}.1",
                    "peer": PEER,
                    "hello_name": "me",
                    "identity": "",
                    "sender": "a@b.test",
                    "verb": "RCPT",
                    "command": "RCPT TO:<c@d.test>",
                    "reply": "550 5.1.1 No such mailbox here",
                }
            ],
        )
        line = f"ID: {PEER} RCPT TO:<c@d.test> refused: 550 5.1.1 No such mailbox here\n"
        self.assertEqual(self.lines("refused"), [line])

    def test_a_recipient_that_was_thought_about(self) -> None:
        later: Deferred[None] = Deferred()
        self.connect(RecordingBackend(rcpt=lambda *_: later), ENVELOPE + b"RSET\r\n")
        later.errback(MailboxUnavailable("No"))
        self.assertEqual(self.lines("refused"), [f"ID: {PEER} RCPT TO:<c@d.test> refused: 550 5.1.1 No\n"])

    def test_commands(self) -> None:
        for said, shown in (
            (b"DATA\r\n", "DATA refused: 503 5.5.1 Send MAIL first"),
            (b"NOOP\r\nMAIL FROM:<a b>\r\n", "MAIL FROM:<a b> refused: 501 5.1.7"),
            (b"AUTH PLAIN c2VjcmV0\r\n", "AUTH PLAIN <8 octets> refused: 502 5.5.1"),
            (b"c2VjcmV0\r\n", "refused: 500 5.5.1 Command not recognized"),
            (b" NOOP\r\n", "refused: 500 5.5.2"),
            (b"NOOP " + b"x" * 4000 + b"\r\n", "refused: 500 5.5.2 Line too long"),
        ):
            self.told.clear()
            self.connect(None, HELLO, said)
            (line,) = self.lines("refused")
            self.assertTrue(line.startswith(f"ID: {PEER} {shown}"), line)
            (event,) = self.fields("refused")
            self.assertEqual(event["verb"], shown.split()[0].replace("refused:", ""))

    def test_a_long_one(self) -> None:
        self.connect(None, HELLO, b"MAIL FROM:<" + b"a" * 1000 + b">x\r\n")
        self.assertLess(len(self.lines("refused")[0]), 450)

    def test_a_connection(self) -> None:
        def refuse(session: object) -> None:
            raise SMTPError(554, (5, 7, 1), "Not you")

        self.connect(RecordingBackend(new_session=refuse))
        self.assertEqual(self.lines("refused"), [f"ID: {PEER} refused: 554 5.7.1 Not you\n"])
        self.assertEqual((self.fields("refused")[0]["verb"], self.fields("refused")[0]["transaction"]), ("", ""))

    def test_one_connection_too_many(self) -> None:
        factory = self.make_factory(RecordingBackend(), max_connections=1)
        MemoryClient.of(factory)
        self.id = MemoryClient.of(factory).protocol.wire.id
        (line,) = self.lines("refused")
        self.assertTrue(line.startswith(f"ID: {PEER} refused: 421 4.3.2 "), line)

    def test_the_last_of_too_many_is_told_as_it_was(self) -> None:
        client = self.connect(None, HELLO, b"XYZ\r\nXYZ\r\n", max_syntax_errors=2)
        self.assertTrue(client.closed)
        self.assertEqual([event["reply"][:3] for event in self.fields("refused")], ["500", "500"])


class Authenticated(EventCase):
    def connect_to(self, identity: str, *said: bytes) -> MemoryClient:
        @implementer(IPlainAuthSession)
        class Login(Session):
            def auth_plain(self, username: str, password: str) -> str:
                if password != "right":
                    raise AuthFailed
                return identity

        extensions = (*STANDARD, Auth(allow_insecure=True))
        return self.connect(SessionBackend(Login), HELLO, *said, extensions=extensions)

    def plain(self, password: str, initial: str = "AUTH PLAIN ") -> bytes:
        return initial.encode() + b64encode(f"\0tim\0{password}".encode()) + b"\r\n"

    def test_who_and_how(self) -> None:
        client = self.connect_to("tim@example.org", self.plain("right"))
        self.assertEqual(
            self.fields("authenticated"),
            [
                {
                    "event": "authenticated",
                    "connection": self.id,
                    "peer": PEER,
                    "hello_name": "me",
                    "identity": "tim@example.org",
                    "mechanism": "PLAIN",
                    "tls": "",
                }
            ],
        )
        self.assertEqual(self.lines("authenticated"), [f"ID: {PEER} authenticated as tim@example.org by PLAIN\n"])
        client.send(MAIL + RCPT + DATA)
        client.send(MESSAGE + DOT)
        self.assertEqual(self.fields("message")[0]["identity"], "tim@example.org")

    def test_refused(self) -> None:
        for said in ([self.plain("wrong")], [b"AUTH PLAIN\r\n", self.plain("wrong", "")]):
            self.told.clear()
            self.connect_to("tim", *said)
            self.clock.advance(10)
            (line,) = self.lines("refused")
            self.assertRegex(line, rf"^ID: {PEER} AUTH PLAIN( <16 octets>)? refused: 535 5\.7\.8 ")
            self.assertEqual(self.fields("authenticated"), [])

    def test_what_it_says_in_the_exchange_is_in_no_event(self) -> None:
        secrets = [b64encode(b"\0tim\0right").decode(), b64encode(b"\0tim\0wrong").decode(), "right", "wrong"]
        for initial in ("AUTH PLAIN ", "AUTH XPLAIN ", "AUTH ", "", "auth plain  ", " AUTH PLAIN "):
            self.told.clear()
            self.connect_to("tim", self.plain("wrong", initial), self.plain("right", initial), self.plain("wrong", ""))
            self.clock.advance(10)
            self.assertNotEqual(self.told, [])
            shown = "".join(repr(event) + format_text(event) for event in self.told)
            for secret in secrets:
                self.assertNotIn(secret, shown)


class Forgery(EventCase):
    """No octet of a client's can begin a line, or reach the terminal of who reads it as a command."""

    EVIL = (
        "\n2026-11-21T12:34:56+0000 [smtpfw.server#info] x",
        "\r\nx",
        "\x1b[31mred",
        "\x9b31m",
        "\x85x",
        "\u2028x",
        "\u202ex",
        "\x00",
        "\x7f",
    )

    def check(self) -> None:
        self.assertNotEqual(self.told, [])
        for event in self.told:
            line = format_text(event)
            self.assertTrue(line.endswith("\n") and line[:-1].isprintable(), line)
            for name, value in event.items():
                if not name.startswith("log_"):
                    for text in value if isinstance(value, list) else [value]:
                        self.assertTrue(not isinstance(text, str) or text.isprintable(), (name, text))

    def test_what_a_client_says(self) -> None:
        for evil in self.EVIL:
            text = evil.encode()
            mail = b"MAIL FROM:<a" + text + b'@b.test> SMTPUTF8\r\nMAIL FROM:<"a' + text + b'"@b.test> SMTPUTF8\r\n'
            client = self.connect(None, b"EHLO me" + text + b"\r\n", HELLO, mail, MAIL[:-2] + b" SMTPUTF8\r\n")
            client.send(b"RCPT TO:<c" + text + b'@d.test>\r\nRCPT TO:<"c' + text + b'"@d.test>\r\n' + RCPT)
            client.send(text + b"\r\nVRFY " + text + b"\r\nAUTH " + text + b"\r\n" + DATA)
            client.send(MESSAGE + DOT)
            client.disconnect()
            self.assertTrue(self.fields("disconnected"))
            self.check()

    def test_what_a_checker_takes_for_an_identity(self) -> None:
        for evil in self.EVIL:

            @implementer(IPlainAuthSession)
            class Login(Session):
                def auth_plain(self, username: str, password: str, identity: str = evil) -> str:
                    return f"tim{identity}"

            extensions = (*STANDARD, Auth(allow_insecure=True))
            said = b"AUTH PLAIN " + b64encode(b"\0tim\0x") + b"\r\n" + MAIL + RCPT + DATA
            client = self.connect(SessionBackend(Login), HELLO, said, extensions=extensions)
            client.send(MESSAGE + DOT)
            self.assertEqual(len(self.fields("authenticated")), 1)
            self.assertEqual(len(self.fields("message")), 1)
            self.check()
            self.told.clear()

    def test_what_a_backend_answers(self) -> None:
        for evil in self.EVIL:
            backend = RecordingBackend(mail=lambda *_, evil=evil: Reply(550, f"no {evil}", (5, 0, 0)))
            self.connect(backend, ENVELOPE)
            self.assertTrue(self.fields("refused"))
            self.check()


class Described(EventCase):
    """What docs/logging.md says of all this."""

    def blocks(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

    def tell_everything(self) -> None:
        no = MailboxUnavailable("No such mailbox here")

        @implementer(IPlainAuthSession)
        class Login(Session):
            def auth_plain(self, username: str, password: str) -> None:
                return None

            def rcpt(self, recipient: Any, options: object) -> None:
                if recipient.local_part == "nobody":
                    raise no

        extensions = (*STANDARD, Auth(allow_insecure=True))
        client = self.connect(SessionBackend(Login), HELLO, extensions=extensions)
        client.send(b"AUTH PLAIN " + b64encode(b"\0tim\0x") + b"\r\n")
        client.send(MAIL + RCPT + b"RCPT TO:<nobody@example.org>\r\n" + RCPT + RCPT + DATA)
        client.send(MESSAGE + DOT)
        client.send(MAIL + RCPT + DATA)
        client.send(MESSAGE)
        client.disconnect()
        factory = self.make_factory(RecordingBackend(), tls=CONTEXT)
        TLSClient(factory, implicit=True).raw(b"EHLO in clear\r\n")
        MemoryClient.of(ProxyFactory(factory, "192.0.2.1")).send(b"EHLO\r\n")
        factory = self.make_factory(RecordingBackend(), extensions=[XClient("192.0.2.1")])
        MemoryClient.of(factory).send(b"XCLIENT ADDR=203.0.113.9\r\n")

    def test_events_and_fields(self) -> None:
        self.tell_everything()
        rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
        self.assertEqual({event["event"] for event in self.told}, {name for name, _ in rows})
        known = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+`) \| ", PAGE, re.MULTILINE))))
        for name, fields in rows:
            expected = {"event", "connection", "peer", *re.findall(r"`(\w+)`", fields)}
            self.assertEqual(set(self.fields(name)[0]), expected, name)
            self.assertLessEqual(expected - {"event"}, known)

    def test_the_samples(self) -> None:
        self.tell_everything()
        (sample, *_), (line,) = self.blocks("text"), self.blocks("json")

        def shape(text: str) -> str:
            # What is of this one alone: the client, the recipient, the mechanism, why the handshake failed.
            text = re.sub(
                r"(?:192\.0\.2\.1|10\.0\.0\.5):\d+|203\.0\.113\.9|<[^>]*@[^>]*>|(?<= by )[\w-]+|(?<=failed: ).*",
                "X",
                text,
            )
            return re.sub(r"\d[\w.]*", "1", text.partition("] ")[2])

        shapes = {shape(format_text(event).replace(event["connection"] or "\0", "1")[:-1]) for event in self.told}
        self.assertEqual({shape(re.sub("5c01d3[12]", "1", text)) for text in sample.splitlines()}, shapes)
        (message,) = (event for event in self.told if event["event"] == "message")
        self.assertEqual(list(json.loads(line)), list(json.loads(format_json(message))))

    def test_fail2ban(self) -> None:
        (block,) = self.blocks("ini")
        regex = re.compile(block.partition("failregex = ")[2].strip().replace("<ADDR>", ADDR))
        tag = re.compile(r"^\S+(?= )")

        @implementer(IPlainAuthSession)
        class Login(Session):
            def auth_plain(self, username: str, password: str) -> str:
                if password != "right":
                    raise AuthFailed
                return username

        plain = b64encode(b"\0tim\0wrong") + b"\r\n"
        for peer, host in (
            (None, "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8::1", 25), "2001:db8::1"),
        ):
            for said in ([b"AUTH PLAIN " + plain], [b"AUTH PLAIN\r\n", plain], [b"AUTH LOGIN\r\n", b"dGlt\r\n", plain]):
                self.told.clear()
                extensions = (*STANDARD, Auth(allow_insecure=True))
                client = self.connect(SessionBackend(Login), HELLO, *said, peer=peer, extensions=extensions)
                self.clock.advance(10)
                # Nothing else that a client says is taken for it, and least of all for another one's.
                forged = b'"a@b: 198.51.100.7:1 AUTH PLAIN refused: 535 5"@b.test'
                client.send(b"MAIL FROM:<" + forged + b">\r\nEHLO 198.51.100.7:1 AUTH x refused: 535 5\r\n")
                client.send(b"AUTH PLAIN " + b64encode(b"\0tim\0right") + b"\r\n")
                client.send(b"AUTH 198.51.100.7:1 AUTH x refused: 535 5\r\nMAIL FROM:<" + forged + b" x>\r\n")
                # It takes the time away first.
                found = [regex.search(tag.sub("", format_text(event))) for event in self.told]
                self.assertEqual([m["ip4"] or m["ip6"] for m in found if m], [host])
                self.assertGreater(len(self.fields("refused")), 2)
