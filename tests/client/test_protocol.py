"""Each thing that a client can be asked, what it says then, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfw.client import ClientConfig, LMTPClientFactory, LMTPClientProtocol, SMTPClientFactory, SMTPClientProtocol
from smtpfw.client.protocol import outgoing_message
from smtpfw.errors import BadSequence, ConnectionFailed, ExtensionMissing, LocalProtocolError, Refused
from smtpfw.extensions.dsn import RET
from smtpfw.sasl import CramMD5
from smtpfw.testing import MemoryServer, MemoryTransport
from smtpfw.wire.grammar import Address
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.parameters import NO_OPTIONS
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult, SendResult
from smtpfw.wire.transaction import Recipient

CONFIG = ClientConfig(hello_name="me.test")
BODY = b"Subject: x\r\n\r\nhello\r\n"
EHLO = b"250-mx.test at your service\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-AUTH CRAM-MD5\r\n250 DSN\r\n"


class Client:
    """
    A client that has been greeted, and its server.

    :ivar said: what it has said in answer to the greeting and to EHLO, if ``hello`` was answered.
    """

    def __init__(self, hello: bytes | None = EHLO, *, lmtp: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        make = LMTPClientProtocol if lmtp else SMTPClientProtocol
        settings.setdefault("config", CONFIG)
        self.protocol = make(clock=self.clock, **settings)
        self.server = MemoryServer.of(self.protocol)
        self.said = self.server.send(b"220 mx.test\r\n")
        if hello is not None:
            self.greeted = came(self.protocol.hello())
            self.said += self.server.received() + self.server.send(hello)


def came(deferred: Any) -> list[Any]:
    """What has come of it: nothing, or one thing."""
    found: list[Any] = []
    deferred.addBoth(lambda result: found.append(result.value if isinstance(result, Failure) else result))
    return found


Ask = Callable[[SMTPClientProtocol], Any]

#: What is asked, what is said, and what an answer of 250 is worth.
COMMANDS: list[tuple[str, Ask, bytes, Any]] = [
    ("mail", lambda c: c.mail("a@b.test"), b"MAIL FROM:<a@b.test>\r\n", Reply),
    ("null sender", lambda c: c.mail(""), b"MAIL FROM:<>\r\n", Reply),
    ("mail with options", lambda c: c.mail("a@b.test", {RET: "HDRS"}), b"MAIL FROM:<a@b.test> RET=HDRS\r\n", Reply),
    ("rcpt", lambda c: c.rcpt("c@d.test"), b"RCPT TO:<c@d.test>\r\n", Reply),
    ("reset", lambda c: c.reset(), b"RSET\r\n", Reply),
    ("noop", lambda c: c.noop(), b"NOOP\r\n", Reply),
    ("verify", lambda c: c.verify("Jones"), b"VRFY Jones\r\n", Reply),
    ("command", lambda c: c.command("XYZZY now"), b"XYZZY now\r\n", Reply),
    ("command of octets", lambda c: c.command(b"HELP \xff"), b"HELP \xff\r\n", Reply),
    ("quit", lambda c: c.quit(), b"QUIT\r\n", Reply),
]


@pytest.mark.parametrize(("ask", "said", "kind"), [pytest.param(*row[1:], id=row[0]) for row in COMMANDS])
def test_commands(ask: Ask, said: bytes, kind: type[Any]) -> None:
    client = Client()
    found = came(ask(client.protocol))
    assert client.server.received() == said
    assert found == []
    client.server.send(b"250 2.0.0 very well\r\n")
    assert type(found[0]) is kind and found[0].text == "very well"


@pytest.mark.parametrize("ask", [pytest.param(row[1], id=row[0]) for row in COMMANDS if "command" not in row[0]])
def test_commands_that_are_refused(ask: Ask) -> None:
    client = Client()
    found = came(ask(client.protocol))
    client.server.send(b"550 5.7.1 no\r\n")
    assert isinstance(found[0], Refused) and found[0].peer == "[192.0.2.2]:25"
    assert not client.server.closed


@pytest.mark.parametrize("reply", [b"220 ok\r\n", b"354 go on\r\n", b"550 no\r\n"])
def test_a_command_of_ones_own_has_any_reply(reply: bytes) -> None:
    client = Client()
    found = came(client.protocol.command("XYZZY"))
    client.server.send(reply)
    assert isinstance(found[0], Reply) and found[0].wire == reply


@pytest.mark.parametrize("line", ["", "NOOP\r\nMAIL FROM:<a@b.test>", "NOOP\n", "NOOP\r", "a\0b", b"NOOP\r\nQUIT"])
def test_a_command_is_one_line(line: str | bytes) -> None:
    client = Client()
    assert isinstance(came(client.protocol.command(line))[0], LocalProtocolError)
    assert client.server.received() == b""


def test_verify_says_nothing_where_the_peer_does_not_know() -> None:
    client = Client()
    found = came(client.protocol.verify("Jones"))
    client.server.send(b"252 who knows\r\n")
    assert found == [None]
    assert isinstance(came(client.protocol.verify("a\r\nQUIT"))[0], LocalProtocolError)


def test_hello_comes_first_and_once() -> None:
    client = Client()
    assert client.said == b"EHLO me.test\r\n"
    assert isinstance(client.greeted[0], Reply)
    assert isinstance(came(client.protocol.hello())[0], LocalProtocolError)
    assert client.server.received() == b""


@pytest.mark.parametrize("lmtp", [False, True])
def test_hello_is_said_by_itself(lmtp: bool) -> None:
    client = Client(None, lmtp=lmtp)
    client.protocol.noop()
    assert client.server.received() == (b"LHLO me.test\r\n" if lmtp else b"EHLO me.test\r\n")
    assert client.server.send(EHLO) == b"NOOP\r\n"


def test_hello_by_another_name() -> None:
    client = Client(None)
    client.protocol.hello("other.test")
    assert client.server.received() == b"EHLO other.test\r\n"


def test_what_is_offered() -> None:
    client = Client()
    offered = client.protocol.extension
    assert (offered("SIZE"), offered("size"), offered("PIPELINING"), offered("CHUNKING")) == ("1000", "1000", "", None)
    assert client.protocol.tls_state is None
    assert Client(None).protocol.extension("SIZE") is None


def test_the_greeting_can_be_asked_for_at_any_time() -> None:
    client = Client()
    first, second = came(client.protocol.greeting), came(client.protocol.greeting)
    assert first[0] is second[0] and first[0].text == "mx.test"


def test_what_is_not_offered_is_not_said() -> None:
    client = Client(b"250 mx.test\r\n")
    assert isinstance(came(client.protocol.mail("a@b.test", {RET: "HDRS"}))[0], ExtensionMissing)
    assert client.server.received() == b""


# -- messages ---------------------------------------------------------------------------------------


def test_steps_are_pipelined() -> None:
    client = Client()
    asked = [came(client.protocol.mail("a@b.test")), came(client.protocol.rcpt("c@d.test"))]
    data = came(client.protocol.data(BODY))
    assert client.server.received() == b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
    assert client.server.send(b"250 a\r\n250 c\r\n") == b"DATA\r\n"
    assert [one[0].text for one in asked] == ["a", "c"]
    assert client.server.send(b"354 go on\r\n") == BODY + b".\r\n"
    client.server.send(b"250 queued\r\n")
    assert isinstance(data[0], Reply) and data[0].text == "queued"


def test_steps_wait_for_each_other_where_nothing_is_pipelined() -> None:
    client = Client(b"250 mx.test\r\n")
    for deferred in (client.protocol.mail("a@b.test"), client.protocol.rcpt("c@d.test"), client.protocol.data(BODY)):
        deferred.addErrback(lambda failure: None)
    assert client.server.received() == b"MAIL FROM:<a@b.test>\r\n"
    assert client.server.send(b"250 a\r\n") == b"RCPT TO:<c@d.test>\r\n"
    assert client.server.send(b"250 a\r\n") == b"DATA\r\n"


def test_data_without_a_recipient() -> None:
    client = Client()
    client.protocol.mail("a@b.test")
    client.server.send(b"250 a\r\n")
    client.protocol.rcpt("c@d.test").addErrback(lambda failure: None)
    client.server.send(b"550 no\r\n")
    client.server.received()
    assert isinstance(came(client.protocol.data(BODY))[0], BadSequence)
    assert client.server.received() == b""


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.send_mail("a@b.test", "c@d.test", BODY),
        lambda client: client.send_message(outgoing_message("a@b.test", ["c@d.test"], BODY)),
    ],
    ids=["send_mail", "send_message"],
)
def test_a_whole_message(ask: Ask) -> None:
    client = Client()
    found = came(ask(client.protocol))
    assert client.server.received() == b"MAIL FROM:<a@b.test> SIZE=21\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
    assert client.server.send(b"250 a\r\n250 c\r\n354 go on\r\n") == BODY + b".\r\n"
    client.server.send(b"250 queued\r\n")
    assert isinstance(found[0], SendResult) and found[0].text == "queued"


@pytest.mark.parametrize(
    ("sender", "recipients", "body", "kind"),
    [
        ("a b", "c@d.test", BODY, LocalProtocolError),
        ("a@b.test", "c@d.test\r\nDATA", BODY, LocalProtocolError),
        ("a@b.test", [], BODY, LocalProtocolError),
        ("a@b.test", "", BODY, LocalProtocolError),
        ("a@b.test", "c@d.test", 17, TypeError),
    ],
)
def test_what_can_not_be_sent(sender: str, recipients: Any, body: Any, kind: type[Exception]) -> None:
    client = Client()
    assert isinstance(came(client.protocol.send_mail(sender, recipients, body))[0], kind)
    assert client.server.received() == b""


def test_lmtp_answers_each() -> None:
    client = Client(lmtp=True)
    heard: list[RecipientResult] = []
    client.protocol.mail("a@b.test")
    client.protocol.rcpt("c@d.test")
    client.protocol.rcpt("e@d.test")
    results = came(client.protocol.lmtp_data(BODY, heard.append))
    client.server.received()
    assert client.server.send(b"250 a\r\n250 c\r\n250 e\r\n") == b"DATA\r\n"
    client.server.send(b"354 go on\r\n")
    client.server.send(b"250 stored\r\n550 full\r\n")
    assert results[0] == heard
    assert [(str(one.recipient), one.accepted) for one in heard] == [("c@d.test", True), ("e@d.test", False)]
    assert isinstance(came(client.protocol.data(BODY))[0], BadSequence)


def test_auth() -> None:
    client = Client()
    found = came(client.protocol.auth(CramMD5("user", "secret")))
    assert client.server.received() == b"AUTH CRAM-MD5\r\n"
    assert client.server.send(b"334 PDFAbXg+\r\n").endswith(b"\r\n")
    client.server.send(b"235 2.7.0 welcome\r\n")
    assert isinstance(found[0], Reply) and client.protocol.wire.mechanism == "CRAM-MD5"
    with pytest.raises(TypeError):
        client.protocol.auth("user")


# -- the end ----------------------------------------------------------------------------------------


def test_close() -> None:
    client = Client()
    gone = came(client.protocol.disconnected)
    found, waiting = came(client.protocol.noop()), came(client.protocol.noop())
    client.protocol.close()
    assert isinstance(found[0], ConnectionFailed) and found[0].phase == "NOOP"
    assert isinstance(waiting[0], ConnectionFailed)
    assert client.server.closed and gone == [None]
    client.protocol.close()
    assert client.clock.getDelayedCalls() == []


def test_close_before_there_is_a_connection() -> None:
    client = SMTPClientProtocol(CONFIG, clock=Clock())
    found = came(client.greeting)
    client.close()
    assert isinstance(found[0], ConnectionFailed)


@pytest.mark.parametrize("hello", [EHLO, b"250 mx.test\r\n"], ids=["pipelined", "one by one"])
def test_cancelled_before_it_was_said(hello: bytes) -> None:
    client = Client(hello)
    first, second, third = client.protocol.noop(), client.protocol.reset(), client.protocol.command("XYZZY")
    found = [came(one) for one in (first, second, third)]
    second.cancel()
    assert isinstance(found[1][0], CancelledError)
    assert client.server.received() == b"NOOP\r\n"
    assert client.server.send(b"250 OK\r\n") == b"XYZZY\r\n"
    client.server.send(b"250 XYZZY\r\n")
    assert found[2][0].text == "XYZZY"


def test_cancelled_after_it_was_said() -> None:
    """Its reply is waited for all the same, or it would be that of the next."""
    client = Client()
    first = client.protocol.noop()
    found = came(first), came(client.protocol.verify("Jones"))
    first.cancel()
    assert client.server.send(b"250 noop\r\n") == b"NOOP\r\nVRFY Jones\r\n"
    client.server.send(b"250 Jones\r\n")
    assert isinstance(found[0][0], CancelledError)
    assert found[1][0].text == "Jones"


# -- how it is made ---------------------------------------------------------------------------------


def test_factories() -> None:
    for factory, kind in ((SMTPClientFactory, SMTPClientProtocol), (LMTPClientFactory, LMTPClientProtocol)):
        made = factory(CONFIG, name="mx.test", clock=Clock())
        first, second = made.buildProtocol(None), made.buildProtocol(None)
        assert type(first) is kind and first is not second
        assert (first.config, first.name, first.factory) == (CONFIG, "mx.test", made)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (IPv4Address("TCP", "192.0.2.7", 2525), "[192.0.2.7]:2525"),
        (UNIXAddress("/run/lmtp"), "/run/lmtp"),
        (UNIXAddress(None), "a Unix socket"),
    ],
)
def test_what_the_peer_is_called(address: Any, shown: str) -> None:
    client = SMTPClientProtocol(CONFIG, clock=Clock())
    client.makeConnection(MemoryTransport(client, address))
    found = came(client.greeting)
    client.dataReceived(b"554 no\r\n")
    assert found[0].peer == shown


def test_a_transcript_has_no_secrets_and_no_message() -> None:
    lines: list[str] = []
    client = Client(transcript=lines.append)
    client.protocol.auth(CramMD5("user", "secret"))
    client.server.send(b"334 PDFAbXg+\r\n")
    client.server.send(b"235 2.7.0 welcome\r\n")
    client.protocol.send_mail("a@b.test", "c@d.test", BODY)
    client.server.send(b"250 a\r\n250 c\r\n354 go on\r\n")
    client.server.send(b"250 queued\r\n")
    text = "\n".join(lines)
    for word in ("220 mx.test", "EHLO me.test", "AUTH CRAM-MD5", "MAIL FROM:<a@b.test>", "queued"):
        assert word in text
    for secret in ("dXNlciA", "secret", "Subject", "hello"):
        assert secret not in text


def test_a_name_beyond_ascii_needs_smtputf8() -> None:
    client = Client(b"250-mx.test\r\n250 SMTPUTF8\r\n")
    answer = came(client.protocol.verify("Jönes"))
    assert client.server.received() == "VRFY Jönes SMTPUTF8\r\n".encode()
    client.server.send(b"250 Jones <jones@d.test>\r\n")
    assert answer[0].code == 250
    client = Client(b"250 mx.test\r\n", peer_name="mx.test")
    (error,) = came(client.protocol.verify("Jönes"))
    assert isinstance(error, ExtensionMissing)
    assert (error.keyword, error.peer, client.server.received()) == ("SMTPUTF8", "mx.test", b"")


def test_a_message_whose_body_nobody_could_read() -> None:
    client = Client()
    message = OutgoingMessage(Address.parse("a@b.test"), [Recipient(Address.parse("c@d.test"), NO_OPTIONS)])
    (error,) = came(client.protocol.send_message(message))
    assert isinstance(error, TypeError)
    assert client.server.received() == b""


def test_closed_before_it_was_connected() -> None:
    protocol = SMTPClientProtocol(ClientConfig(hello_name="me.test"), clock=Clock())
    protocol.close()
    server = MemoryServer.of(protocol)
    assert server.closed
    assert server.received() == b""
