"""What docs/coming-from.md says of the client, and no other test shows, in the order of that page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client import (
    LMTPClientFactory,
    LMTPClientProtocol,
    SMTPClientFactory,
    SMTPClientProtocol,
    connect,
    send_mail,
)
from smtpfw.client.destination import Destination
from smtpfw.errors import (
    BrokenPeer,
    ConnectionFailed,
    DataTooLarge,
    ExtensionMissing,
    LocalProtocolError,
    MailboxUnavailable,
    Refused,
    SMTPError,
    TimedOut,
    TLSFailed,
    TooManyRecipients,
    TryAgainLater,
    UnknownOutcome,
)
from smtpfw.extensions import STANDARD, Auth
from smtpfw.extensions.auth import AUTH
from smtpfw.extensions.binarymime import BODY as BODY_PARAMETER
from smtpfw.extensions.dsn import ENVID, NOTIFY, ORCPT, RET, OriginalRecipient
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.extensions.size import SIZE
from smtpfw.sasl import CramMD5, Plain
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.testing import (
    MESSAGE,
    MemoryEndpoint,
    MemoryServer,
    RecordingBackend,
    ScriptedPeer,
    close,
    joined,
    silence,
    starttls,
    tls_server,
)
from smtpfw.tls import client_context, server_context
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult
from smtpfw.wire.transaction import Recipient
from tests.certificates import Authority

BODY = b"Subject: x\r\n\r\ntext\r\n"
CONFIG = ClientConfig(hello_name="me.test")
GREETING = b"220 mx.test\r\n"
OK = b"250 OK\r\n"


class TLS:
    """A certificate for mx.test, and who has signed it."""

    def __init__(self, folder: Path) -> None:
        authority = Authority("the authority of these tests")
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(authority.pem)
        pem = folder / "mx.test.pem"
        pem.write_bytes(authority.issue(names=[x509.DNSName("mx.test")], usage=ExtendedKeyUsageOID.SERVER_AUTH))
        self.context = server_context(str(pem))
        self.verified = {"tls_name": "mx.test", "ca": self.ca}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLS:
    return TLS(tmp_path_factory.mktemp("tls"))


class Server:
    """A server of ours in memory, and the endpoint that leads to it."""

    def __init__(
        self,
        *,
        tls: TLS | None = None,
        implicit: bool = False,
        auth: bool = False,
        honours: frozenset[str] = frozenset(),
        answers: dict[str, Callable[..., Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend(honours, **(answers or {}))
        checker = FunctionChecker(lambda username, password: (username, password) == ("tim", "secret"))
        factory: Any = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test", **settings),
            tls=tls.context if tls is not None else None,
            extensions=[*STANDARD, Auth(checker)] if auth else STANDARD,
            reactor=self.clock,
        )
        if implicit and tls is not None:
            factory = tls_server(factory, tls.context)
        self.endpoint = MemoryEndpoint(factory)

    def send(self, body: Any = BODY, recipients: Any = ("c@d.test",), **settings: Any) -> Any:
        settings = {"config": CONFIG, "reactor": self.clock} | settings
        return self.endpoint.run(send_mail(self.endpoint, "a@b.test", recipients, body, **settings))

    def connect(self, **settings: Any) -> SMTPClientProtocol:
        settings = {"config": CONFIG, "reactor": self.clock} | settings
        client: SMTPClientProtocol = self.endpoint.run(connect(self.endpoint, **settings))
        return client

    def run(self, deferred: Any) -> Any:
        return self.endpoint.run(deferred)

    @property
    def said(self) -> bytes:
        return self.endpoint.said_by_clients


class Peer:
    """
    A client, and a server that this test speaks for.

    :param hello: the lines of its answer to EHLO.
    """

    def __init__(self, *offers: str, lmtp: bool = False, **settings: Any) -> None:
        self.clock = Clock()
        make = LMTPClientProtocol if lmtp else SMTPClientProtocol
        self.client = make(settings.pop("config", CONFIG), clock=self.clock, peer_name="mx.test", **settings)
        self.server = MemoryServer.of(self.client)
        self.client.hello()
        self.server.send(GREETING)
        lines = ["mx.test", *offers]
        self.send("".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines))

    def send(self, text: str) -> bytes:
        return self.server.send(text.encode())

    def said(self) -> bytes:
        return self.server.received()


def error_of(deferred: Deferred[Any]) -> Any:
    """What it has failed with already."""
    found: list[Any] = []
    deferred.addErrback(lambda failure: found.append(failure.value))
    assert found, "it has not failed"
    return found[0]


# -- the one call, and connections -----------------------------------------------------


def test_one_call_starts_tls_logs_in_and_sends_a_file(tls: TLS) -> None:
    server = Server(tls=tls, auth=True)
    result = server.send(BytesIO(BODY), auth=("tim", "secret"), **tls.verified)
    assert result.text
    assert [str(one.recipient) for one in result.accepted] == ["c@d.test"]
    (message,) = server.backend.messages
    assert message.body == BODY
    connection = server.backend.sessions[-1].connection
    assert (connection.identity, connection.protocol) == ("tim", "ESMTPSA")
    assert b"AUTH" not in server.said and b"Subject" not in server.said


def test_a_body_is_read_as_fast_as_the_server_takes_it() -> None:
    given, opened = [0], []

    def pieces() -> Iterator[bytes]:
        for _ in range(256):
            given[0] += 1
            yield b"x" * 998 + b"\r\n" + (b"y" * 998 + b"\r\n") * 63

    def data(body: Any) -> Deferred[None]:
        opened.append((body, Deferred()))
        return opened[0][1]

    server = Server(answers={"data": data})
    outcome: list[Any] = []
    sent = send_mail(server.endpoint, "a@b.test", ["c@d.test"], pieces(), config=CONFIG, reactor=server.clock)
    sent.addBoth(outcome.append)
    server.endpoint.flow()
    # 64,000 octets each: a little of 16 MB is on its way, and the rest was not even made.
    assert 0 < given[0] < 20 and not outcome
    ((body, answer),) = opened
    read = server.run(body.read())
    assert len(read) == 256 * 64 * 1000
    answer.callback(None)
    server.endpoint.flow()
    assert outcome[0].accepted


def test_dial_with_tls_from_the_first_octet(tls: TLS, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tls=tls, implicit=True)
    monkeypatch.setattr(Destination, "endpoint", lambda self, reactor, timeout: server.endpoint)
    client = server.run(connect("smtps:mx.test", ca=tls.ca, config=CONFIG, reactor=server.clock))
    assert client.wire.tls_verified
    assert b"EHLO" not in server.said
    client.close()
    server.endpoint.flow()


def test_dial_with_starttls(tls: TLS) -> None:
    server = Server(tls=tls)
    client = server.connect(tls="required", **tls.verified)
    assert client.wire.tls_verified and client.tls_state is not None
    assert client.tls_state.version == "TLSv1.3"
    server.run(client.quit())
    plain = Server()
    with pytest.raises(TLSFailed):
        plain.connect(tls="required", **tls.verified)
    assert plain.connect().tls_state is None


@pytest.mark.parametrize(
    ("factory", "greeting", "verb"), [(SMTPClientFactory, GREETING, b"EHLO"), (LMTPClientFactory, GREETING, b"LHLO")]
)
def test_a_connection_that_is_there_already(factory: Any, greeting: bytes, verb: bytes) -> None:
    client = factory(CONFIG, clock=Clock()).buildProtocol(None)
    # MemoryServer calls makeConnection with a transport, as whoever has a connection does.
    server = MemoryServer(client)
    client.hello()
    assert server.send(greeting) == verb + b" me.test\r\n"
    client.close()
    server.flow()


def test_any_endpoint() -> None:
    server = Server(protocol="lmtp")
    client = server.run(connect(Destination.of(server.endpoint, protocol="lmtp"), config=CONFIG, reactor=server.clock))
    assert isinstance(client, LMTPClientProtocol)
    assert [one.accepted for one in server.run(client.send_mail("a@b.test", ["c@d.test"], BODY)).recipients] == [True]


# -- its methods -------------------------------------------------------------------------


def test_hello_comes_first_or_is_an_error_and_is_said_by_itself() -> None:
    client = SMTPClientProtocol(CONFIG, clock=Clock())
    server = MemoryServer.of(client)
    noop = client.noop()
    assert server.send(GREETING) == b"EHLO me.test\r\n"
    assert isinstance(error_of(client.hello("other.test")), LocalProtocolError)
    assert server.send(b"250 mx.test\r\n") == b"NOOP\r\n"
    server.send(OK)
    assert noop.result.code == 250
    other = SMTPClientProtocol(CONFIG, clock=Clock())
    server = MemoryServer.of(other)
    other.hello("other.test")
    assert server.send(GREETING) == b"EHLO other.test\r\n"


def test_a_message_step_by_step() -> None:
    server = Server(answers={"data": lambda body: keep(body)})

    async def keep(body: Any) -> str:
        kept.append(await body.read())
        return "queued as 4711"

    kept: list[bytes] = []

    async def steps() -> Reply:
        client = await connect(server.endpoint, config=CONFIG, reactor=server.clock)
        await client.mail("a@b.test")
        await client.rcpt("c@d.test")
        writer = client.data()
        assert verifyObject(IConsumer, writer)
        writer.write(BODY[:5])
        writer.write(BODY[5:] + b".\r\n..\n")
        reply: Reply = await writer.finish()
        await client.quit()
        return reply

    assert server.run(steps()).text == "queued as 4711"
    assert kept == [BODY + b".\r\n..\r\n"]
    assert [name for name, _ in server.backend.events][:4] == ["hello", "mail", "rcpt", "data"]


def test_reset_noop_verify() -> None:
    server = Server(answers={"verify": lambda text: "<tim@mx.test>" if text == "tim" else None})

    async def steps() -> list[Any]:
        client = await connect(server.endpoint, config=CONFIG, reactor=server.clock)
        await client.mail("a@b.test")
        replies = [await client.reset(), await client.noop(), await client.verify("tim"), await client.verify("bob")]
        await client.quit()
        return replies

    reset, noop, tim, bob = server.run(steps())
    assert (reset.code, noop.code) == (250, 250)
    assert "tim@mx.test" in tim.text
    assert bob is None
    assert ("reset", "rset") in server.backend.events


def test_a_quit_that_is_refused_leaves_the_connection_open() -> None:
    peer = Peer()
    quitting = peer.client.quit()
    assert peer.said() == b"QUIT\r\n"
    peer.send("500 5.5.1 what?\r\n")
    assert isinstance(error_of(quitting), Refused)
    noop = peer.client.noop()
    assert peer.said() == b"NOOP\r\n"
    peer.send("250 OK\r\n")
    assert noop.result.code == 250 and not peer.server.closed
    peer.client.close()
    assert peer.server.closed and peer.said() == b""
    assert isinstance(error_of(peer.client.noop()), ConnectionFailed)


def test_what_a_server_offers() -> None:
    peer = Peer("SIZE 1000", "8BITMIME", "X-OWN a b")
    assert [peer.client.extension(name) for name in ("size", "8BITMIME", "X-Own", "DSN")] == ["1000", "", "a b", None]


def test_a_command_of_ones_own() -> None:
    peer = Peer()
    answer = peer.client.command("XTICKET 4711")
    assert peer.said() == b"XTICKET 4711\r\n"
    peer.send("550 5.7.1 no\r\n")
    # Whatever it says: only who asked knows what it means.
    assert (answer.result.code, answer.result.text) == (550, "no")
    for line in ("NOOP\r\nQUIT", "NO\0OP", ""):
        assert isinstance(error_of(peer.client.command(line)), LocalProtocolError)
    assert peer.said() == b""


def test_a_refusal_is_the_error_that_servers_raise() -> None:
    def refuse(recipient: Address, options: Options) -> None:
        raise (MailboxUnavailable if recipient.local_part == "nobody" else TryAgainLater)("not now")

    server = Server(answers={"rcpt": refuse})
    with pytest.raises(SMTPError) as caught:
        server.send(recipients=["nobody@d.test"])
    error = caught.value
    assert isinstance(error, Refused)
    assert (error.code, str(error.enhanced_code), error.temporary) == (550, "5.1.1", False)
    assert (error.phase, error.message, error.reply.code) == ("RCPT", "not now", 550)
    with pytest.raises(Refused) as caught_later:
        server.send(recipients=["nobody@d.test", "tim@d.test"])
    # One of two may be tried again, and the error says so; the result says which.
    assert caught_later.value.temporary
    assert [one.error.code for one in caught_later.value.result.recipients] == [550, 451]


def test_a_result_for_each_recipient() -> None:
    def refuse(recipient: Address, options: Options) -> None:
        if recipient.local_part == "nobody":
            raise MailboxUnavailable

    server = Server(answers={"rcpt": refuse})
    result = server.send(recipients=["c@d.test", "nobody@d.test", "e@d.test"])
    assert [one.accepted for one in result.recipients] == [True, False, True]
    assert [str(one.recipient) for one in result.refused] == ["nobody@d.test"]
    assert [one.reply.code for one in result.recipients] == [250, 550, 250]
    assert [str(one.address) for one in server.backend.messages[0].recipients] == ["c@d.test", "e@d.test"]


def test_lmtp_results_by_a_function() -> None:
    peer = Peer("PIPELINING", lmtp=True)
    told: list[RecipientResult] = []
    for deferred in (peer.client.mail("a@b.test"), peer.client.rcpt("c@d.test"), peer.client.rcpt("e@d.test")):
        peer.send("250 OK\r\n")
        assert deferred.result.code == 250
    sent = peer.client.lmtp_data(BODY, told.append)
    peer.send("354 go on\r\n")
    peer.send("250 stored\r\n452 4.2.2 full\r\n")
    assert [(str(one.recipient), one.accepted) for one in told] == [("c@d.test", True), ("e@d.test", False)]
    assert sent.result == told
    # Any number of messages on one connection.
    again = peer.client.send_mail("a@b.test", ["c@d.test"], BODY)
    peer.send("250 OK\r\n250 OK\r\n354 go on\r\n")
    peer.send("250 stored too\r\n")
    assert again.result.text == "stored too" and again.result.reply is None


# -- settings ------------------------------------------------------------------------------


def test_a_time_limit_for_commands_and_one_for_the_answer_to_a_message() -> None:
    config = ClientConfig(hello_name="me.test", command_timeout=5, end_timeout=7)
    peer = Peer(config=config)
    noop = peer.client.noop()
    peer.clock.advance(5)
    assert isinstance(error_of(noop), TimedOut)
    peer = Peer("PIPELINING", config=config)
    sent = peer.client.send_mail("a@b.test", ["c@d.test"], BODY)
    peer.send("250 OK\r\n250 OK\r\n354 go on\r\n")
    peer.clock.advance(6)
    assert not sent.called
    peer.clock.advance(1)
    assert isinstance(error_of(sent), UnknownOutcome)


def test_a_transcript_without_secrets(tls: TLS) -> None:
    server = Server(tls=tls, auth=True)
    lines: list[str] = []
    server.send(auth=("tim", "secret"), transcript=lines.append, **tls.verified)
    text = "\n".join(lines)
    assert "C: MAIL FROM:<a@b.test>" in text and "S: 250 " in text and "C: AUTH PLAIN" in text
    assert "secret" not in text and "AHRpbQBzZWNyZXQ=" not in text and "Subject" not in text


# -- parameters ------------------------------------------------------------------------------


def test_parameters_of_mail(tls: TLS) -> None:
    server = Server(tls=tls, auth=True, honours=frozenset({"DSN", "REQUIRETLS"}))
    options = {REQUIRETLS: True, RET: "HDRS", ENVID: "id 1", AUTH: Address("x", "y.test")}
    server.send("Grüße".encode(), options=options, auth=("tim", "secret"), **tls.verified)
    (message,) = server.backend.messages
    found = message.options
    assert (found.body, found.size, found.require_tls) == ("8BITMIME", 7, True)
    assert (found[RET], found[ENVID], str(found.auth)) == ("HDRS", "id 1", "x@y.test")


@pytest.mark.parametrize(("auth", "said"), [(Address("", ""), b" AUTH=<>"), (None, b"")])
def test_who_submitted_it(auth: Address | None, said: bytes) -> None:
    peer = Peer("AUTH PLAIN")
    peer.client.mail("a@b.test", {AUTH: auth})
    assert peer.said() == b"MAIL FROM:<a@b.test>" + said + b"\r\n"


def test_parameters_of_rcpt() -> None:
    server = Server(honours=frozenset({"DSN"}))
    options = Options.of({NOTIFY: frozenset({"SUCCESS"}), ORCPT: OriginalRecipient("rfc822", "old@d.test")})
    server.send(recipients=[Recipient(Address("c", "d.test"), options)])
    (recipient,) = server.backend.messages[0].recipients
    assert recipient.options[NOTIFY] == {"SUCCESS"}
    assert recipient.options[ORCPT] == ("rfc822", "old@d.test")


@pytest.mark.parametrize(
    ("offers", "mail", "parameters"),
    [
        ((), {}, b""),
        (("8BITMIME", "SMTPUTF8", "SIZE"), {}, b" SIZE=20"),
        (("8BITMIME", "SMTPUTF8"), {"body": "\r\nä\r\n".encode()}, b" BODY=8BITMIME"),
        (("8BITMIME", "SMTPUTF8"), {"sender": "ä@b.test"}, b" SMTPUTF8"),
        (("8BITMIME", "SMTPUTF8"), {"recipients": ["ä@b.test"]}, b" SMTPUTF8"),
        (("8BITMIME", "SMTPUTF8"), {"body": "Subject: ä\r\n\r\n"}, b" BODY=8BITMIME SMTPUTF8"),
    ],
)
def test_what_is_needed_is_asked_for_and_nothing_else(
    offers: tuple[str, ...], mail: dict[str, Any], parameters: bytes
) -> None:
    peer = Peer(*offers)
    peer.client.send_mail(**{"sender": "a@b.test", "recipients": ["c@d.test"], "body": BODY} | mail)
    said = peer.said()
    path, _, rest = said.partition(b">")
    assert path.startswith(b"MAIL FROM:<")
    assert rest == parameters + b"\r\n"


@pytest.mark.parametrize(
    ("offers", "mail", "keyword"),
    [
        ((), {"body": b"\r\n\xff\r\n"}, "8BITMIME"),
        (("8BITMIME",), {"sender": "ä@b.test"}, "SMTPUTF8"),
        (("8BITMIME",), {"recipients": ["ä@b.test"]}, "SMTPUTF8"),
        (("8BITMIME",), {"body": "Subject: ä\r\n\r\n"}, "SMTPUTF8"),
        (("CHUNKING", "8BITMIME"), {"options": {BODY_PARAMETER: "BINARYMIME"}}, "BINARYMIME"),
        # A server that offers the one without the other: by DATA its octets would not stay as they are.
        (("BINARYMIME", "8BITMIME"), {"options": {BODY_PARAMETER: "BINARYMIME"}}, "CHUNKING"),
        ((), {"options": {SIZE: 5}}, "SIZE"),
        ((), {"options": {RET: "FULL"}}, "DSN"),
        (
            (),
            {"recipients": [Recipient(Address("c", "d.test"), Options.of({NOTIFY: frozenset({"NEVER"})}))]},
            "DSN",
        ),
        ((), {"options": {REQUIRETLS: True}}, "REQUIRETLS"),
        # It is offered, and the line is not safe: nobody has verified a certificate.
        (("REQUIRETLS",), {"options": {REQUIRETLS: True}}, "REQUIRETLS"),
        ((), {"options": {AUTH: Address("", "")}}, "AUTH"),
    ],
)
def test_what_is_not_offered_is_refused_here(offers: tuple[str, ...], mail: dict[str, Any], keyword: str) -> None:
    peer = Peer(*offers)
    sent = peer.client.send_mail(**{"sender": "a@b.test", "recipients": ["c@d.test"], "body": BODY} | mail)
    error = error_of(sent)
    assert isinstance(error, ExtensionMissing) and error.keyword == keyword and keyword in str(error)
    assert not error.temporary
    assert peer.said() == b"" and not peer.server.closed


def test_a_message_over_the_size_that_the_server_takes() -> None:
    peer = Peer("SIZE 19")
    assert isinstance(error_of(peer.client.send_mail("a@b.test", ["c@d.test"], BODY)), DataTooLarge)
    assert peer.said() == b""


def test_no_more_recipients_than_the_server_states() -> None:
    peer = Peer("PIPELINING", "LIMITS RCPTMAX=2")
    sent = peer.client.send_mail("a@b.test", ["a@d.test", "b@d.test", "c@d.test"], BODY)
    assert peer.said().count(b"RCPT") == 2
    peer.send("250 OK\r\n250 OK\r\n250 OK\r\n354 go on\r\n")
    peer.send("250 OK\r\n")
    (refused,) = sent.result.refused
    assert str(refused.recipient) == "c@d.test" and isinstance(refused.error, TooManyRecipients)


@pytest.mark.parametrize("text", ["a@b.test> SIZE=1", "a@b.test\r\nRSET", "a\0@b.test", "a@b.test\n", "<a@b.test>"])
def test_an_address_says_nothing_but_an_address(text: str) -> None:
    peer = Peer()
    for deferred in (
        peer.client.mail(text),
        peer.client.rcpt(text),
        peer.client.send_mail(text, ["c@d.test"], BODY),
        peer.client.send_mail("a@b.test", ["c@d.test", text], BODY),
    ):
        assert isinstance(error_of(deferred), LocalProtocolError)
    assert isinstance(error_of(peer.client.verify("tim\r\nRSET")), LocalProtocolError)
    peer.client.mail("a@b.test")
    assert peer.said() == b"MAIL FROM:<a@b.test>\r\n"


# -- how it is sent -----------------------------------------------------------------------------


def test_commands_are_sent_ahead_where_that_is_offered() -> None:
    peer = Peer("PIPELINING")
    peer.client.send_mail("a@b.test", ["c@d.test", "e@d.test"], BODY)
    assert peer.server.transport.writes[-1].split(b"\r\n")[:-1] == [
        b"MAIL FROM:<a@b.test>",
        b"RCPT TO:<c@d.test>",
        b"RCPT TO:<e@d.test>",
        b"DATA",
    ]
    for other in (Peer(), Peer("PIPELINING", config=ClientConfig(hello_name="me.test", pipelining=False))):
        other.client.send_mail("a@b.test", ["c@d.test", "e@d.test"], BODY)
        assert other.said() == b"MAIL FROM:<a@b.test>\r\n"


def test_the_next_envelope_shares_a_write_with_the_end_of_the_message_before() -> None:
    peer = Peer("PIPELINING")
    for sender in ("a@b.test", "z@b.test"):
        peer.client.send_mail(sender, ["c@d.test"], BODY)
    peer.said()
    assert peer.send("250 OK\r\n250 OK\r\n354 go on\r\n").startswith(BODY + b".\r\nMAIL FROM:<z@b.test>")
    assert peer.server.transport.writes[-1].startswith(BODY + b".\r\nMAIL FROM:<z@b.test>")


def test_messages_go_by_bdat_where_that_is_offered() -> None:
    peer = Peer("PIPELINING", "CHUNKING")
    peer.client.send_mail("a@b.test", ["c@d.test"], b".x\n")
    peer.said()
    assert peer.send("250 OK\r\n250 OK\r\n") == b"BDAT 4 LAST\r\n.x\r\n"
    off = Peer("PIPELINING", "CHUNKING", config=ClientConfig(hello_name="me.test", chunking=False))
    off.client.send_mail("a@b.test", ["c@d.test"], b".x\n")
    assert off.said().endswith(b"DATA\r\n")
    assert off.send("250 OK\r\n250 OK\r\n354 go on\r\n") == b"..x\r\n.\r\n"


def test_octets_without_lines() -> None:
    server = Server()
    server.send(b"\0\n\r.\n\xff", options={BODY_PARAMETER: "BINARYMIME"})
    (message,) = server.backend.messages
    assert (message.body, message.options.body) == (b"\0\n\r.\n\xff", "BINARYMIME")


def test_newlines_dots_and_the_end() -> None:
    peer = Peer("PIPELINING")
    peer.client.send_mail("a@b.test", ["c@d.test"], b".a\n.\r.\r\n\r\r\nb")
    peer.said()
    assert peer.send("250 OK\r\n250 OK\r\n354 go on\r\n") == b"..a\r\n..\r\n..\r\n\r\n\r\nb\r\n.\r\n"


def test_chunks_ahead_of_their_replies() -> None:
    config = ClientConfig(hello_name="me.test", chunk_bytes=10)
    for offers, ahead in (("CHUNKING",), 1), (("PIPELINING", "CHUNKING"), 4):
        peer = Peer(*offers, config=config)
        sent = peer.client.send_mail("a@b.test", ["c@d.test"], iter([b"12345678\r\n"] * 8))
        peer.said()
        peer.send("250 OK\r\n250 OK\r\n" if ahead == 4 else "250 OK\r\n")
        said = peer.said() if ahead == 4 else peer.send("250 OK\r\n")
        heard = 0
        while not sent.called:
            heard += 1
            assert heard < 10
            said += peer.send("250 OK\r\n")
            assert said.count(b"BDAT") <= heard + ahead
        assert said.endswith(b"BDAT 0 LAST\r\n") and heard == 9


@pytest.mark.parametrize("offer", ["", "CHUNKING"])
def test_a_source_that_breaks_off(offer: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield BODY
        raise ZeroDivisionError

    peer = Peer(*filter(None, [offer]))
    sent = peer.client.send_mail("a@b.test", ["c@d.test"], pieces())
    for reply in ("250 OK\r\n", "250 OK\r\n", "354 go on\r\n")[: 2 if offer else 3]:
        peer.send(reply)
    assert isinstance(error_of(sent), ZeroDivisionError)
    if offer:
        # Nothing of it was said, so the connection can be used.
        peer.client.send_mail("a@b.test", ["c@d.test"], BODY)
        assert peer.said() == b"RSET\r\n"
    else:
        assert peer.server.closed and b"\r\n.\r\n" not in peer.server.link.said_by_client


def test_an_answer_before_the_end() -> None:
    peer = Peer(config=ClientConfig(hello_name="me.test", chunking=False))
    never: Deferred[bytes] = Deferred()

    async def pieces() -> Any:
        yield BODY
        await never

    sent = peer.client.send_mail("a@b.test", ["c@d.test"], pieces())
    for reply in ("250 OK\r\n", "250 OK\r\n", "354 go on\r\n", "552 5.3.4 too large\r\n"):
        peer.send(reply)
    error = error_of(sent)
    assert isinstance(error, Refused) and (error.code, error.phase) == (552, "BODY")
    assert peer.server.closed and b"\r\n.\r\n" not in peer.server.link.said_by_client
    peer = Peer("CHUNKING", config=ClientConfig(hello_name="me.test", chunk_bytes=10))
    sent = peer.client.send_mail("a@b.test", ["c@d.test"], iter([b"12345678\r\n"] * 8))
    for reply in ("250 OK\r\n", "250 OK\r\n", "552 5.3.4 too large\r\n"):
        peer.send(reply)
    assert isinstance(error_of(sent), Refused)
    peer.client.mail("a@b.test")
    assert peer.said() == b"RSET\r\n"


def test_too_many_recipients_is_temporary() -> None:
    peer = Peer()
    peer.client.mail("a@b.test")
    peer.send("250 OK\r\n")
    refused = peer.client.rcpt("c@d.test")
    peer.send("552 5.5.3 too many\r\n")
    assert error_of(refused).temporary


def test_a_server_that_takes_no_octets() -> None:
    peer = Peer()
    sent = peer.client.send_mail("a@b.test", ["c@d.test"], b"x" * 1_000_000)
    peer.send("250 OK\r\n")
    peer.send("250 OK\r\n")
    peer.server.pause_writing()
    peer.send("354 go on\r\n")
    peer.clock.advance(179)
    assert not sent.called
    peer.clock.advance(1)
    error = error_of(sent)
    assert isinstance(error, TimedOut) and error.phase == "BODY"


# -- TLS that does not come ---------------------------------------------------------------------


OFFER = ("EHLO", b"250-mx.test\r\n250 STARTTLS\r\n")
REFUSED = ("STARTTLS", b"454 4.7.0 not now\r\n")


def test_a_starttls_that_is_refused(tls: TLS) -> None:
    for hello, *steps in ((OFFER, REFUSED), (("EHLO", b"250 mx.test\r\n"),)):
        endpoint = MemoryEndpoint(ScriptedPeer([GREETING, hello, *steps, silence]))
        with pytest.raises(TLSFailed):
            endpoint.run(connect(endpoint, tls="required", config=CONFIG, reactor=Clock(), **tls.verified))
        assert endpoint.links[0].client_transport.closed
        peer = ScriptedPeer([GREETING, hello, *steps, ("MAIL", b"250 OK\r\n"), silence])
        endpoint = MemoryEndpoint(peer)
        client = endpoint.run(connect(endpoint, tls="opportunistic", config=CONFIG, reactor=Clock()))
        assert endpoint.run(client.mail("a@b.test")).code == 250
        client.close()
        endpoint.flow()
        peer.assert_played()


@pytest.mark.parametrize("behind", [b"250 injected\r\n", b"\0" * 100])
@pytest.mark.parametrize("policy", ["opportunistic", "required"])
def test_a_handshake_that_fails_is_the_end_whatever_the_policy(tls: TLS, policy: str, behind: bytes) -> None:
    peer = ScriptedPeer([GREETING, OFFER, ("STARTTLS", [b"220 go\r\n", behind], silence)])
    endpoint = MemoryEndpoint(peer)
    trusted = tls.verified if policy == "required" else {}
    with pytest.raises(TLSFailed):
        endpoint.run(connect(endpoint, config=CONFIG, reactor=Clock(), **{**trusted, "tls": policy}))
    assert endpoint.links[0].client_transport.closed
    assert b"MAIL" not in peer.in_clear and peer.in_clear.count(b"EHLO") == 1


# -- logging in -------------------------------------------------------------------------------------


def test_logging_in_where_nobody_can_is_an_error(tls: TLS) -> None:
    server = Server(tls=tls)
    with pytest.raises(LocalProtocolError, match="AUTH"):
        server.send(auth=("tim", "secret"), **tls.verified)
    assert server.backend.messages == []


def test_a_failed_log_in_closes_the_connection(tls: TLS) -> None:
    context = client_context("mx.test", verify=True, ca=tls.ca)
    script = [
        GREETING,
        ("EHLO", b"250-mx.test\r\n250 STARTTLS\r\n"),
        ("STARTTLS", starttls(tls.context)),
        ("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"),
        ("AUTH PLAIN", b"535 5.7.8 no\r\n", silence),
    ]
    peer, client = ScriptedPeer(script), SMTPClientProtocol(CONFIG, name="mx.test", clock=Clock())
    link = joined(client, peer)
    client.start_tls(context)
    log_in = client.auth(Plain("tim", "wrong"))
    link.flow()
    error = error_of(log_in)
    assert isinstance(error, Refused) and (error.code, error.phase) == (535, "AUTH")
    assert link.client_transport.closed
    # Nothing was asked any more, so a star would be a command.
    assert peer.in_tls.splitlines()[1:] == [b"AUTH PLAIN AHRpbQB3cm9uZw=="]
    peer.assert_played()


def test_tls_is_verified_only_with_a_certificate_for_the_name(tls: TLS) -> None:
    """A password goes to the host that was meant, however the line is encrypted."""
    server = Server(tls=tls, auth=True)
    with pytest.raises(LocalProtocolError, match="verified TLS"):
        server.send(auth=("tim", "secret"), tls="opportunistic", tls_name="mx.test")
    with pytest.raises(TLSFailed, match="not for this name"):
        server.send(auth=("tim", "secret"), tls_name="other.test", ca=tls.ca)
    assert server.backend.messages == []


def test_a_challenge_that_makes_no_sense() -> None:
    peer = Peer("AUTH CRAM-MD5", name="mx.test")
    log_in = peer.client.auth(CramMD5("tim", "secret"))
    assert peer.said() == b"AUTH CRAM-MD5\r\n"
    assert peer.send("334 !!!\r\n") == b"*\r\n"
    assert peer.send("501 5.7.0 cancelled\r\n") == b""
    assert isinstance(error_of(log_in), BrokenPeer)
    assert peer.server.closed


# -- the end ------------------------------------------------------------------------------------------


def test_one_connection_is_one_attempt() -> None:
    """What twisted.mail does again by itself is the caller's choice."""
    peer = ScriptedPeer([GREETING, ("EHLO", b"250 mx.test\r\n"), ("MAIL", b"451 4.3.0 later\r\n"), ("QUIT", close)])
    endpoint = MemoryEndpoint(peer)
    with pytest.raises(Refused):
        endpoint.run(send_mail(endpoint, "a@b.test", ["c@d.test"], BODY, config=CONFIG, reactor=Clock()))
    assert len(endpoint.links) == 1
    peer.assert_played()


def test_a_connection_that_was_lost_behind_the_end_is_neither_success_nor_failure() -> None:
    script = [
        GREETING,
        ("EHLO", b"250 mx.test\r\n"),
        ("MAIL", OK),
        ("RCPT", OK),
        (re.compile(rb"DATA\r?$"), b"354 go on\r\n"),
        (MESSAGE, close),
    ]
    endpoint = MemoryEndpoint(ScriptedPeer(script))
    with pytest.raises(UnknownOutcome) as caught:
        endpoint.run(send_mail(endpoint, "a@b.test", ["c@d.test"], BODY, config=CONFIG, reactor=Clock()))
    assert not isinstance(caught.value, (ConnectionFailed, SMTPError))
    assert caught.value.result.accepted == []
