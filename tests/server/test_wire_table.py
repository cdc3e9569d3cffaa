"""
What a dialog can't show: time, silence, waiting hooks, refusals at connect, and clients that go away.

The names follow the rules that they hold the server to; what can be written
as a dialog stands in tests/dialogs.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.check import Check, FunctionCheck
from smtpfw.errors import ConfigError, DataReset, MailboxUnavailable, RelayDenied, ServiceNotAvailable, SMTPError
from smtpfw.extensions import (
    SMTPUTF8,
    STANDARD,
    Auth,
    BinaryMIME,
    Chunking,
    EightBitMIME,
    Pipelining,
    StartTLS,
)
from smtpfw.extensions.auth import FAILURE_DELAY
from smtpfw.interfaces import IAuthSession, IBody, ICheck, IConnection
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.server.parting import LINGER_OCTETS, LINGER_SECONDS
from smtpfw.testing import MemoryClient, MemoryTransport, RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.profiles import DEFAULT, LENIENT, STRICT, Profile
from smtpfw.wire.verbs import compile_dialect
from tests.sasl.helpers import PASSWORD, Checker
from tests.server.helpers import codes
from tests.server.tls_in_memory import CONTEXT, TLSClient

GREETING = b"220 mx.example.org ESMTP smtpfw\r\n"
TIMEOUT = b"421 4.4.2 Timeout, closing transmission channel\r\n"
ENVELOPE = b"HELO client.example.net\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"
EXTENDED_ENVELOPE = b"EHLO" + ENVELOPE[4:]


def reading(seen: list[object]) -> Any:
    """A data hook that reads, and notes what breaks it off."""

    async def data(body: IBody) -> None:
        try:
            await body.read()
        except DataReset as error:
            seen.append(error)
            raise

    return data


class WireTestCase(TestCase):
    """One client, one server, and a clock that stands still."""

    def connect(
        self,
        backend: RecordingBackend | None = None,
        extensions: tuple[Extension, ...] = STANDARD,
        checks: tuple[ICheck, ...] = (),
        **settings: Any,
    ) -> MemoryClient:
        self.backend = backend or RecordingBackend()
        self.clock = Clock()
        config = ServerConfig(hostname="mx.example.org", **settings)
        self.factory = SMTPServerFactory(self.backend, config, extensions=extensions, checks=checks, reactor=self.clock)
        return MemoryClient.of(self.factory)

    def told(self) -> list[tuple[Any, ...]]:
        """How the session learned of ends."""
        return [event for event in self.backend.events if event[0] in ("reset", "logout")]


def refuse_connection(error: Exception) -> RecordingBackend:
    def new_session(session: object) -> object:
        raise error

    return RecordingBackend(new_session=new_session)


class ConnectTests(WireTestCase):
    def test_refused_with_421_is_closed(self) -> None:
        client = self.connect(refuse_connection(ServiceNotAvailable("Come back later")))
        assert client.received() == b"421 4.3.2 Come back later\r\n"
        assert client.closed

    def test_refused_with_554_then_503_to_all_but_quit(self) -> None:
        client = self.connect(refuse_connection(SMTPError(554, (5, 7, 1), "Not you")), extensions=STANDARD)
        assert client.received() == b"554 5.7.1 Not you\r\n"
        for line in (b"EHLO x", b"MAIL FROM:<a@b.example>", b"NOOP", b"RSET", b"STARTTLS", b"BDAT 0", b"FROB", b""):
            assert client.send(line + b"\r\n").startswith(b"503 5.5.1 "), line
        assert not client.closed
        assert client.send(b"QUIT\r\n").startswith(b"221 2.0.0 ")
        assert client.closed

    def test_refused_with_any_other_code_becomes_554(self) -> None:
        for error, answer in (
            (MailboxUnavailable("Blocked"), b"554 5.1.1 Blocked\r\n"),
            (SMTPError(450, (4, 7, 1), "Greylisted"), b"554 5.0.0 Greylisted\r\n"),
        ):
            client = self.connect(refuse_connection(error))
            assert client.received() == answer
            assert not client.closed

    def test_refused_is_closed_after_30_seconds_at_most(self) -> None:
        client = self.connect(refuse_connection(SMTPError(554, (5, 7, 1), "Not you")))
        client.received()
        self.clock.advance(29)
        assert client.send(b"NOOP\r\n").startswith(b"503 5.5.1 ")
        assert not client.closed
        self.clock.advance(1)
        assert client.closed

    def test_new_session_that_fails_is_421_and_close(self) -> None:
        client = self.connect(refuse_connection(RuntimeError("a secret that must not be seen")))
        answer = client.received()
        assert answer.startswith(b"421 4.3.0 ") and b"secret" not in answer
        assert client.closed
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_a_check_that_fails_is_421_and_close(self) -> None:
        def broken(connection: IConnection) -> None:
            raise RuntimeError("a secret that must not be seen")

        client = self.connect(checks=(FunctionCheck(connect=broken),))
        answer = client.received()
        assert answer.startswith(b"421 4.3.0 ") and b"secret" not in answer
        assert client.closed
        assert self.backend.sessions == []
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_early_talker_is_refused_in_the_strict_profile(self) -> None:
        client, _ = self.connect_slowly(STRICT)
        assert client.send(b"EHLO client.example.net\r\n") == b""
        self.clock.advance(STRICT.greeting_delay)
        first, second = client.received().splitlines()
        assert first == b"554 5.5.1 You spoke before the greeting"
        assert second.startswith(b"503 5.5.1 ")
        assert self.backend.sessions == []
        assert client.send(b"QUIT\r\n").startswith(b"221")
        assert client.closed

    def test_early_talker_is_ignored_in_the_other_profiles(self) -> None:
        for profile in (DEFAULT, LENIENT):
            client, made = self.connect_slowly(profile)
            assert client.send(b"HELO client.example.net\r\n") == b""
            made.callback(self.backend.sessions[0])
            assert client.received() == GREETING + b"250 mx.example.org\r\n"

    def test_who_waits_for_the_greeting_is_welcome_in_the_strict_profile(self) -> None:
        client, made = self.connect_slowly(STRICT)
        self.clock.advance(STRICT.greeting_delay)
        assert client.received() == b""
        made.callback(self.backend.sessions[0])
        assert client.received() == GREETING
        assert client.send(b"HELO client.example.net\r\n") == b"250 mx.example.org\r\n"

    def connect_slowly(self, profile: Profile) -> tuple[MemoryClient, Deferred[object]]:
        made: Deferred[object] = Deferred()
        return self.connect(RecordingBackend(new_session=lambda session: made), profile=profile), made

    def test_half_close_waits_for_the_answer(self) -> None:
        """Replies already due are not lost, and what is complete is finished."""
        asked: Deferred[None] = Deferred()
        client = self.connect(RecordingBackend(mail=lambda sender, options: asked))
        client.send(ENVELOPE + b"NOOP\r\n")
        client.half_close()
        assert not client.closed
        asked.callback(None)
        assert client.received().endswith(b"250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n250 2.0.0 OK\r\n")
        assert client.closed

    def test_half_close_while_a_message_is_stored(self) -> None:
        stored: Deferred[str] = Deferred()
        client = self.connect(RecordingBackend(data=lambda body: stored))
        client.send(ENVELOPE + b"DATA\r\nhello\r\n.\r\n")
        client.half_close()
        assert not client.closed
        stored.callback("queued as 42")
        assert client.received() == b"250 2.0.0 queued as 42\r\n"
        assert client.closed

    def test_half_close_in_the_middle_of_a_message(self) -> None:
        client = self.connect()
        client.send(ENVELOPE + b"DATA\r\nhello\r\n.")
        assert client.half_close() == b""
        assert client.closed
        assert self.backend.messages == []
        assert self.told() == [("reset", "disconnected"), ("logout", "disconnected")]

    def test_half_close_before_the_greeting(self) -> None:
        """As ``printf ... | nc -N`` does: whoever sends all at once has it answered, once the greeting is there."""
        client, made = self.connect_slowly(DEFAULT)
        client.send(b"HELO client.example.net\r\n")
        assert client.half_close() == b""
        assert not client.closed
        made.callback(self.backend.sessions[0])
        assert client.received() == GREETING + b"250 mx.example.org\r\n"
        assert client.closed

    def test_half_close_of_an_early_talker(self) -> None:
        client, _ = self.connect_slowly(STRICT)
        client.send(b"EHLO client.example.net\r\n")
        client.half_close()
        self.clock.advance(STRICT.greeting_delay)
        assert codes(client.received()) == [b"554", b"503"]
        assert client.closed

    def test_half_close_while_the_session_does_not_read(self) -> None:
        gate: Deferred[None] = Deferred()

        async def data(body: IBody) -> str:
            await gate
            return f"{len(await body.read())} octets"

        client = self.connect(RecordingBackend(data=data), max_buffered_bytes=1000)
        client.send(ENVELOPE + b"DATA\r\n")
        client.send((b"x" * 998 + b"\r\n") * 2)
        assert client.protocol.wire.held
        client.send((b"x" * 998 + b"\r\n") * 3 + b".\r\nNOOP\r\n")
        client.received()
        assert client.half_close() == b""
        assert not client.closed
        gate.callback(None)
        assert client.received() == b"250 2.0.0 5000 octets\r\n250 2.0.0 OK\r\n"
        assert client.closed


@implementer(ITCPTransport)
class TCPTransport(MemoryTransport):
    """
    A transport that can be closed by halves.

    :ivar ended: whether the server has said that it will send no more.
    """

    ended = False

    def loseWriteConnection(self) -> None:
        self.ended = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no network."""


class FullTests(WireTestCase):
    """One client too many. How many that is, and who counts as whose, is in test_limits.py."""

    FULL = (
        ({"max_connections": 1}, b"421 4.3.2 Too many connections, try again later\r\n"),
        (
            {"max_connections_per_address": 1},
            b"421 4.7.0 Too many connections from your address, try again later\r\n",
        ),
    )

    def test_within_implicit_tls_it_is_told_after_the_handshake(self) -> None:
        for limit, answer in self.FULL:
            self.connect(**limit)
            client = TLSClient(self.factory, implicit=True)
            assert client.raw() == b""
            client.start_tls()
            assert client.send(b"EHLO client.example.net\r\n") == answer
            assert client.closed
            assert len(self.backend.sessions) == 1

    def test_a_handshake_that_stalls_does_not_keep_its_place(self) -> None:
        first = self.connect(max_connections=2)
        second = TLSClient(self.factory, implicit=True)
        surplus = TLSClient(self.factory, implicit=True)
        first.disconnect()
        # One place is free, whoever else is still being told that there was none.
        third = MemoryClient.of(self.factory)
        assert third.received() == GREETING
        assert MemoryClient.of(self.factory).received().startswith(b"421 4.3.2 ")
        self.clock.advance(self.factory.config.tls_handshake_timeout)
        assert second.closed
        assert surplus.closed
        assert MemoryClient.of(self.factory).received() == GREETING
        assert self.factory.limits.refused == 0

    def test_who_does_not_read_its_421_does_not_keep_its_place(self) -> None:
        first = self.connect(max_connections=1, write_timeout=20)
        protocol = self.factory.buildProtocol(None)
        transport = MemoryTransport(protocol)
        # It waits for its buffer to be empty, as Twisted's does.
        transport.loseConnection = lambda: None  # type: ignore[method-assign]
        protocol.makeConnection(transport)
        assert self.factory.limits.refused == 1
        first.disconnect()
        assert MemoryClient.of(self.factory).received() == GREETING
        self.clock.advance(20)
        assert transport.aborted
        assert self.factory.limits.refused == 0

    def surplus(self) -> TCPTransport:
        self.connect(max_connections=1)
        protocol = self.factory.buildProtocol(None)
        transport = TCPTransport(protocol)
        protocol.makeConnection(transport)
        assert transport.value() == self.FULL[0][1]
        assert transport.ended and not transport.closed
        return transport

    def test_its_421_is_not_lost_with_what_it_has_sent_unread(self) -> None:
        """Closing with unread input makes TCP reset the connection, and the client would see nothing but that."""
        transport = self.surplus()
        transport.protocol.dataReceived(EXTENDED_ENVELOPE)
        assert transport.value() == self.FULL[0][1]
        assert not transport.closed
        self.clock.advance(LINGER_SECONDS)
        assert transport.closed
        assert self.backend.events == []

    def test_who_has_read_it_is_not_waited_for(self) -> None:
        transport = self.surplus()
        transport.protocol.readConnectionLost()
        assert transport.closed

    def test_what_it_sends_is_not_read_for_ever(self) -> None:
        transport = self.surplus()
        for _ in range(LINGER_OCTETS // 65536):
            transport.protocol.dataReceived(b"x" * 65536)
        assert not transport.closed
        transport.protocol.dataReceived(b"x")
        assert transport.closed


class SimpleCommandTests(WireTestCase):
    def test_quit_waits_for_every_earlier_reply(self) -> None:
        asked: Deferred[None] = Deferred()
        client = self.connect(RecordingBackend(verify=lambda text: asked))
        client.received()
        assert client.send(b"VRFY somebody\r\nQUIT\r\n") == b""
        assert not client.closed
        asked.callback(None)
        assert [line[:9] for line in client.received().splitlines()] == [b"252 2.0.0", b"221 2.0.0"]
        assert client.closed

    def test_idle_past_its_timeout(self) -> None:
        client = self.connect(command_timeout=300.0)
        client.send(b"EHLO client.example\r\n")
        self.clock.advance(299)
        assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"
        self.clock.advance(299)
        assert not client.closed
        self.clock.advance(1)
        assert client.received() == TIMEOUT
        assert client.closed
        assert self.told() == [("logout", "timeout")]

    def test_half_a_command_is_idle_too(self) -> None:
        client = self.connect(command_timeout=300.0)
        client.received()
        client.send(b"NOO")
        self.clock.advance(300)
        assert client.received() == TIMEOUT
        assert client.closed

    def test_a_waiting_hook_is_not_the_client_being_idle(self) -> None:
        asked: Deferred[None] = Deferred()
        client = self.connect(RecordingBackend(mail=lambda sender, options: asked), command_timeout=300.0)
        client.send(b"HELO client.example.net\r\nMAIL FROM:<a@example.net>\r\n")
        self.clock.advance(1000)
        assert not client.closed
        asked.callback(None)
        assert client.received() == b"250 2.1.0 Sender OK\r\n"

    def test_hook_that_fails_later(self) -> None:
        """What a Deferred fails with is answered as what a hook raises: only an SMTPError is shown."""
        asked: list[Deferred[None]] = []

        def mail(sender: object, options: object) -> Deferred[None]:
            asked.append(Deferred())
            return asked[-1]

        client = self.connect(RecordingBackend(mail=mail))
        client.send(b"HELO client.example.net\r\nMAIL FROM:<a@example.net>\r\nMAIL FROM:<c@example.net>\r\n")
        asked[0].errback(SMTPError(550, (5, 7, 1), "one\ntwo"))
        assert client.received().endswith(b"\r\n550-5.7.1 one\r\n550 5.7.1 two\r\n")
        asked[1].errback(RuntimeError("a secret that must not be seen"))
        assert client.received() == b"451 4.3.0 Try again later\r\n"
        assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_hook_that_raises_is_logged(self) -> None:
        def mail(sender: object, options: object) -> None:
            raise RuntimeError("a secret that must not be seen")

        client = self.connect(RecordingBackend(mail=mail))
        answer = client.send(b"HELO client.example.net\r\nMAIL FROM:<a@example.net>\r\n")
        assert answer.endswith(b"\r\n451 4.3.0 Try again later\r\n")
        assert [str(failure.value) for failure in self.flushLoggedErrors(RuntimeError)] == [
            "a secret that must not be seen"
        ]

    def test_421_of_a_hook_is_the_last_word(self) -> None:
        def leave(*arguments: object) -> None:
            raise ServiceNotAvailable("Enough")

        for hook, said in (
            ("hello", b"EHLO client.example.net\r\n"),
            ("mail", b"HELO client.example.net\r\nMAIL FROM:<a@example.net>\r\n"),
            ("rcpt", ENVELOPE),
            ("verify", b"VRFY somebody\r\n"),
            ("data", ENVELOPE + b"DATA\r\nhello\r\n.\r\n"),
        ):
            client = self.connect(RecordingBackend(**{hook: leave}))
            if hook == "verify":
                client.send(b"HELO client.example.net\r\n")
            answer = client.send(said + b"NOOP\r\n")
            assert answer.splitlines()[-1] == b"421 4.3.2 Enough", hook
            assert client.closed


class DataTests(WireTestCase):
    def send_data(self, **settings: Any) -> MemoryClient:
        client = self.connect(**settings)
        self.clock.advance(settings.get("profile", DEFAULT).greeting_delay)
        assert client.send(ENVELOPE + b"DATA\r\n").splitlines()[-1].startswith(b"354 ")
        return client

    def assert_timed_out(self, client: MemoryClient) -> None:
        assert client.received() == TIMEOUT
        assert client.closed
        assert client.send(b"\r\n.\r\nNOOP\r\n") == b""
        assert self.backend.messages == []
        assert self.told() == [("reset", "timeout"), ("logout", "timeout")]

    def test_stops_sending(self) -> None:
        client = self.send_data(data_timeout=180.0)
        client.send(b"hello")
        self.clock.advance(179)
        client.send(b"\r\n")
        self.clock.advance(179)
        assert not client.closed
        self.clock.advance(1)
        self.assert_timed_out(client)

    def test_drips_past_the_absolute_limit(self) -> None:
        client = self.send_data(data_timeout=180.0, message_timeout=3600.0)
        for _ in range(35):
            self.clock.advance(100)
            client.send(b"x")
        self.clock.advance(99)
        assert not client.closed
        self.clock.advance(1)
        self.assert_timed_out(client)

    def test_drips_below_the_minimum_rate(self) -> None:
        client = self.send_data(data_timeout=180.0, min_data_rate=100.0)
        client.send(b"x" * 7000)
        self.clock.advance(69)
        client.send(b"x")
        assert not client.closed
        self.clock.advance(1.5)
        self.assert_timed_out(client)

    def test_drips_at_the_minimum_rate(self) -> None:
        client = self.send_data(data_timeout=180.0, min_data_rate=100.0)
        for _ in range(50):
            client.send(b"x" * 998 + b"\r\n")
            self.clock.advance(9)
        client.send(b".\r\n")
        assert len(self.backend.messages) == 1

    def test_disconnects_before_the_end(self) -> None:
        for rest in (b"", b"hello", b"hello\r\n", b"hello\r\n.", b"hello\r\n.\r"):
            client = self.send_data()
            client.send(rest)
            client.disconnect()
            assert self.backend.messages == []
            assert self.told() == [("reset", "disconnected"), ("logout", "disconnected")]

    def test_a_session_that_reads_learns_of_the_disconnect(self) -> None:
        seen: list[object] = []
        client = self.connect(RecordingBackend(data=reading(seen)))
        client.send(ENVELOPE + b"DATA\r\nhello\r\n")
        client.disconnect()
        assert [type(error) for error in seen] == [DataReset]

    def test_line_over_the_limit_of_each_profile(self) -> None:
        for profile, octets, answer in (
            (STRICT, 998, b"250 2.0.0 "),
            (STRICT, 999, b"550 5.6.0 "),
            (DEFAULT, 65536, b"250 2.0.0 "),
            (DEFAULT, 65537, b"550 5.6.0 "),
            (LENIENT, 200000, b"250 2.0.0 "),
        ):
            client = self.send_data(profile=profile)
            assert client.send(b"x" * octets + b"\r\n.\r\n").startswith(answer), (profile.name, octets)
            assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"
            assert len(self.backend.messages) == (answer[:1] == b"2")

    def test_a_check_is_asked_before_354(self) -> None:
        gate: Deferred[None] = Deferred()
        client = self.connect(checks=(FunctionCheck(data=lambda connection: gate),))
        client.send(ENVELOPE)
        client.received()
        assert client.send(b"DATA\r\nNOOP\r\n") == b""
        gate.errback(RelayDenied())
        # No 354 was given, so what was sent ahead is a command.
        assert client.received() == b"550 5.7.1 Relaying denied\r\n250 2.0.0 OK\r\n"
        assert "data" not in [event[0] for event in self.backend.events]

    def test_memory_is_short(self) -> None:
        client = self.connect(max_memory_bytes=1000)
        client.send(ENVELOPE)
        client.received()
        self.factory.memory.held = 1000
        assert client.send(b"DATA\r\n") == b"452 4.3.1 Too many messages at the moment, try again later\r\n"
        self.factory.memory.held = 0
        # The transaction is still there.
        assert codes(client.send(b"DATA\r\nhello\r\n.\r\n")) == [b"354", b"250"]


class ChunkTests(WireTestCase):
    def test_disconnects_before_the_end(self) -> None:
        for rest in (b"BDAT 5\r\n", b"BDAT 5\r\nhel", b"BDAT 5\r\nhello", b"BDAT 5 LAST\r\nhell"):
            client = self.connect()
            client.send(EXTENDED_ENVELOPE + rest)
            client.disconnect()
            assert self.backend.messages == []
            assert self.told() == [("reset", "disconnected"), ("logout", "disconnected")]

    def test_stops_sending(self) -> None:
        client = self.connect(data_timeout=180.0)
        client.send(EXTENDED_ENVELOPE + b"BDAT 10 LAST\r\nhello")
        client.received()
        self.clock.advance(180)
        assert client.received() == TIMEOUT
        assert client.closed
        assert client.send(b"12345NOOP\r\n") == b""
        assert self.backend.messages == []
        assert self.told() == [("reset", "timeout"), ("logout", "timeout")]

    def test_stops_sending_between_two_chunks(self) -> None:
        client = self.connect(command_timeout=300.0)
        client.send(EXTENDED_ENVELOPE + b"BDAT 5\r\nhello")
        self.clock.advance(300)
        assert client.received() == TIMEOUT
        assert self.told() == [("reset", "timeout"), ("logout", "timeout")]

    def test_stops_sending_a_chunk_out_of_place(self) -> None:
        client = self.connect(command_timeout=300.0)
        client.received()
        assert client.send(b"BDAT 10\r\nQUIT\r\n") == b""
        self.clock.advance(300)
        assert client.received() == TIMEOUT
        assert client.closed

    def test_rset_in_the_middle_ends_the_reading(self) -> None:
        seen: list[object] = []
        client = self.connect(RecordingBackend(data=reading(seen)))
        client.send(EXTENDED_ENVELOPE + b"BDAT 5\r\nhello")
        client.received()
        assert client.send(b"RSET\r\n") == b"250 2.0.0 Reset\r\n"
        assert [type(error) for error in seen] == [DataReset]
        assert self.told() == [("reset", "rset")]

    def test_refused_at_the_first_chunk_is_refused_at_each(self) -> None:
        """The octets are read all the same, and the next message is another matter."""
        refusals: list[SMTPError] = [RelayDenied()]

        def data(connection: IConnection) -> None:
            if refusals:
                raise refusals.pop()

        client = self.connect(checks=(FunctionCheck(data=data),))
        client.send(EXTENDED_ENVELOPE)
        client.received()
        chunks = b"BDAT 6\r\nQUIT\r\nBDAT 0\r\nBDAT 6 LAST\r\nQUIT\r\n"
        assert client.send(chunks) == b"550 5.7.1 Relaying denied\r\n" * 3
        assert self.told() == [("reset", "refused")]
        assert codes(client.send(ENVELOPE.partition(b"\r\n")[2] + b"BDAT 6 LAST\r\nhello\n")) == [b"250"] * 3
        assert [message.body for message in self.backend.messages] == [b"hello\r\n"]

    def test_memory_is_short(self) -> None:
        client = self.connect(max_memory_bytes=1000)
        client.send(EXTENDED_ENVELOPE)
        client.received()
        self.factory.memory.held = 1000
        answer = b"452 4.3.1 Too many messages at the moment, try again later\r\n"
        assert client.send(b"BDAT 6\r\nQUIT\r\n") == answer
        self.factory.memory.held = 0
        assert client.send(b"BDAT 6 LAST\r\nQUIT\r\n") == answer
        assert self.backend.messages == []


@implementer(IAuthSession)
class AskingSession(Session):
    """Notes the first response of an exchange, and lets everybody in."""

    responses: list[bytes | None]

    def auth_mechanisms(self) -> list[str]:
        return ["X-ANYBODY"]

    def auth(self, mechanism: str) -> Any:
        return self

    identity = "anybody"

    def next(self, response: bytes | None) -> tuple[bytes | None, bool]:
        self.responses.append(response)
        return (b"", False) if response is None else (None, True)


class AuthTests(WireTestCase):
    PLAIN = b"AUTH PLAIN " + b64encode(f"\0tim\0{PASSWORD}".encode()) + b"\r\n"

    def connect_to(self, auth: Auth, backend: Any = None) -> MemoryClient:
        client = self.connect(backend, extensions=(*STANDARD, auth))
        client.send(b"EHLO client.example.net\r\n")
        client.received()
        return client

    def test_it_stays_when_ehlo_comes_again(self) -> None:
        client = self.connect_to(Auth(Checker(), required=True, allow_insecure=True))
        mail = b"MAIL FROM:<a@example.net>\r\n"
        assert codes(client.send(mail + self.PLAIN)) == [b"530", b"235"]
        for hello in (b"EHLO", b"HELO"):
            assert codes(client.send(hello + b" client.example.net\r\n" + mail)) == [b"250", b"250"]
        assert len(self.backend.sessions) == 1

    def test_not_between_chunks(self) -> None:
        client = self.connect_to(Auth(Checker(), allow_insecure=True))
        client.send(EXTENDED_ENVELOPE + b"BDAT 3\r\nabc")
        client.received()
        assert client.send(self.PLAIN).startswith(b"503 5.5.1 ")

    def test_an_equals_sign_is_an_empty_response(self) -> None:
        for said, responses in ((b"", [None, b"x"]), (b" =", [b""]), (b" eA==", [b"x"])):
            kind = type("Asking", (AskingSession,), {"responses": []})
            client = self.connect_to(Auth(allow_insecure=True), SessionBackend(kind))
            answer = client.send(b"AUTH X-ANYBODY" + said + b"\r\n")
            if None in responses:
                assert answer == b"334 \r\n"
                answer = client.send(b"eA==\r\n")
            assert answer.startswith(b"235 2.7.0 ")
            assert kind.responses == responses

    def test_a_token_that_is_refused(self) -> None:
        """A 334 with JSON that says why, and 535 once that was answered (RFC 7628 section 3.2.3)."""
        for name, response, answer in (
            (b"OAUTHBEARER", b"n,,\1auth=Bearer wrong\1\1", b64encode(b"\1")),
            (b"XOAUTH2", b"user=tim\1auth=Bearer wrong\1\1", b""),
        ):
            client = self.connect_to(Auth(Checker(), allow_insecure=True))
            challenge = client.send(b"AUTH " + name + b" " + b64encode(response) + b"\r\n")
            assert challenge.startswith(b"334 ")
            assert "status" in json.loads(b64decode(challenge[4:]))
            assert client.send(answer + b"\r\n") == b""
            self.clock.advance(FAILURE_DELAY)
            assert client.received().startswith(b"535 5.7.8 ")
            assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"

    def test_the_longest_line(self) -> None:
        """RFC 4954 section 4: 12,288 octets, with the command or without it."""
        for before, start in ((b"", b"AUTH PLAIN "), (b"AUTH PLAIN\r\n", b"")):
            for octets, answer in ((12_288, b"501 5.5.2 "), (12_289, b"500 5.5.6 ")):
                client = self.connect_to(Auth(Checker(), allow_insecure=True))
                client.send(before)
                line = start + b"!" * (octets - len(start) - 2) + b"\r\n"
                assert len(line) == octets
                assert client.send(line).startswith(answer), (start, octets)
                assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"


class TLSTransport(MemoryTransport):
    """
    A transport that notes that TLS shall start, and shakes no hands.

    :ivar started: what startTLS was called with.
    """

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.started: list[object] = []

    def startTLS(self, context: object) -> None:
        self.started.append(context)


class StartTLSTests(WireTestCase):
    def start_tls(self, **settings: Any) -> tuple[Any, TLSTransport]:
        self.backend = RecordingBackend()
        self.clock = Clock()
        config = ServerConfig(hostname="mx.example.org", **settings)
        extensions = (Chunking(), StartTLS())
        factory = SMTPServerFactory(
            self.backend, config, tls=CertificateOptions(), extensions=extensions, reactor=self.clock
        )
        protocol = factory.buildProtocol(None)
        transport = TLSTransport(protocol)
        protocol.makeConnection(transport)
        protocol.dataReceived(EXTENDED_ENVELOPE)
        transport.clear()
        protocol.dataReceived(b"STARTTLS\r\n")
        assert transport.value() == b"220 2.0.0 Ready to start TLS\r\n"
        assert len(transport.started) == 1
        transport.clear()
        return protocol, transport

    def test_nothing_is_remembered(self) -> None:
        protocol, transport = self.start_tls()
        assert self.told() == [("reset", "starttls"), ("logout", "starttls")]
        protocol.handshakeCompleted()
        assert len(self.backend.sessions) == 2
        assert transport.value() == b""  # no second greeting
        assert self.backend.sessions[1].connection.hello_name == ""
        protocol.dataReceived(b"DATA\r\nMAIL FROM:<a@example.net>\r\nSTARTTLS\r\n")
        assert [line[:9] for line in transport.value().splitlines()] == [b"503 5.5.1"] * 3

    def test_is_no_longer_advertised_and_503_within_tls(self) -> None:
        protocol, transport = self.start_tls()
        protocol.handshakeCompleted()
        protocol.dataReceived(b"EHLO client.example.net\r\n")
        assert transport.value() == b"250-mx.example.org\r\n250 CHUNKING\r\n"
        transport.clear()
        protocol.dataReceived(b"STARTTLS\r\n")
        assert transport.value().startswith(b"503 5.5.1 ")

    def test_required_tls_lets_everything_pass_afterwards(self) -> None:
        protocol, transport = self.start_tls(require_tls=True)
        protocol.handshakeCompleted()
        protocol.dataReceived(EXTENDED_ENVELOPE)
        assert transport.value().endswith(b"\r\n250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n")

    def test_without_a_usable_certificate(self) -> None:
        class Broken:
            def getContext(self) -> object:
                raise ValueError("the key is gone")

        factory = SMTPServerFactory(
            RecordingBackend(), ServerConfig(hostname="mx.test"), tls=Broken(), extensions=[StartTLS()], reactor=Clock()
        )
        client = MemoryClient.of(factory)
        client.send(b"EHLO client.example.net\r\n")
        assert client.send(b"STARTTLS\r\n").startswith(b"454 4.7.0 ")
        assert client.send(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"
        assert len(self.flushLoggedErrors(ValueError)) == 1

    def test_handshake_that_stalls_is_closed(self) -> None:
        _, transport = self.start_tls(tls_handshake_timeout=30.0)
        self.clock.advance(29)
        assert not transport.closed
        self.clock.advance(1)
        assert transport.closed and transport.aborted
        assert transport.value() == b""

    def test_handshake_that_fails_is_closed(self) -> None:
        _, transport = self.start_tls()
        transport.loseConnection()
        assert transport.value() == b""
        assert len(self.backend.sessions) == 1
        assert self.told() == [("reset", "starttls"), ("logout", "starttls")]


class Noting(Check):
    """Writes down at which stages it is asked, and notes something at connect."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def connect(self, connection: IConnection) -> None:
        self.asked.append("connect")
        connection.context["score"] = 7

    def hello(self, connection: IConnection, name: str, extended: bool) -> None:
        self.asked.append("hello")

    def disconnected(self, connection: IConnection) -> None:
        self.asked.append("disconnected")


class TrueTLSTests(WireTestCase):
    """With true handshakes, in memory."""

    def serve(self, backend: RecordingBackend | None = None, *checks: ICheck, **settings: Any) -> SMTPServerFactory:
        self.clock = Clock()
        self.backend = backend or RecordingBackend()
        return SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.example.org", **settings),
            tls=CONTEXT,
            extensions=(*STANDARD, Auth(FunctionChecker(lambda name, password: True), allow_insecure=True)),
            checks=checks,
            reactor=self.clock,
        )

    def test_connect_checks_are_not_asked_again(self) -> None:
        check = Noting()
        client = TLSClient(self.serve(None, check, profile=STRICT))
        self.clock.advance(STRICT.greeting_delay)
        assert client.send() == GREETING
        client.send(EXTENDED_ENVELOPE)
        self.backend.sessions[0].connection.context["said in clear"] = "x"
        client.send(b"STARTTLS\r\n")
        assert self.told() == [("reset", "starttls"), ("logout", "starttls")]
        client.start_tls()
        # At once: the greeting is over, and so is waiting for who talks before it.
        assert codes(client.send(b"MAIL FROM:<a@example.net>\r\nEHLO client.example.net\r\n")) == [b"503", b"250"]
        assert check.asked == ["connect", "hello", "hello"]
        first, second = (session.connection for session in self.backend.sessions)
        assert second.context == {"score": 7}
        assert first.id == second.id
        client.send(b"QUIT\r\n")
        assert check.asked == ["connect", "hello", "hello", "disconnected"]
        assert self.told()[2:] == [("logout", "quit")]

    def test_authentication_is_forgotten(self) -> None:
        client = TLSClient(self.serve())
        client.send(b"EHLO client.example.net\r\n")
        plain = b"AUTH PLAIN " + b64encode(b"\0tim\0secret") + b"\r\n"
        assert codes(client.send(plain)) == [b"235"]
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        assert b"AUTH " in client.send(b"EHLO client.example.net\r\n")
        connection = self.backend.sessions[1].connection
        assert (connection.identity, connection.mechanism) == ("", "")
        assert codes(client.send(plain)) == [b"235"]

    def test_the_time_to_say_ehlo_begins_anew(self) -> None:
        client = TLSClient(self.serve(greeting_timeout=120))
        client.send(b"EHLO client.example.net\r\n")
        self.clock.advance(119)
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        for _ in range(4):
            self.clock.advance(29)
            assert codes(client.send(b"NOOP\r\n")) == [b"250"]
        self.clock.advance(4)
        assert client.send() == TIMEOUT
        assert client.closed

    def test_a_handshake_that_comes_to_nothing_is_logged(self) -> None:
        def stall(client: TLSClient) -> None:
            self.clock.advance(30)

        def in_clear(client: TLSClient) -> None:
            client.raw(b"EHLO client.example.net\r\n")

        for implicit in (False, True):
            for end in (stall, in_clear):
                with capturedLogs() as events:
                    client = TLSClient(self.serve(), implicit=implicit)
                    client.send(b"" if implicit else b"EHLO client.example.net\r\nSTARTTLS\r\n")
                    end(client)
                assert client.closed
                told = [event for event in events if event["log_format"].find("TLS handshake") >= 0]
                assert len(told) == 1, (implicit, end)
                assert told[0]["peer"] == "192.0.2.1:54321"
                assert told[0]["reason"]

    def test_a_silent_peer_blocks_nobody(self) -> None:
        factory = self.serve()
        silent = TLSClient(factory, implicit=True)
        client = TLSClient(factory, implicit=True)
        client.start_tls()
        assert client.send() == GREETING
        client.send(EXTENDED_ENVELOPE + b"DATA\r\n")
        assert codes(client.send(b"hello\r\n.\r\n")) == [b"250"]
        assert not silent.closed

    def test_tls_has_no_half_close(self) -> None:
        """A close_notify is the end: nothing could be sent to whoever has said it."""
        cancelled: list[object] = []
        waiting: Deferred[None] = Deferred(cancelled.append)
        client = TLSClient(self.serve(RecordingBackend(mail=lambda sender, options: waiting)), implicit=True)
        client.start_tls()
        client.send(EXTENDED_ENVELOPE)
        assert client._tls is not None
        client._tls.shutdown()
        client._exchange()
        assert client.closed
        assert cancelled == [waiting]
        assert self.told() == [("logout", "disconnected")]

    def test_shutdown_is_told_within_tls(self) -> None:
        factory = self.serve()
        client = TLSClient(factory, implicit=True)
        client.start_tls()
        client.send(b"EHLO client.example.net\r\n")
        stopped = factory.stop(10)
        assert client.send() == b"421 4.3.2 Service is shutting down, try again later\r\n"
        assert client.closed
        self.successResultOf(stopped)


class OfferTests(TestCase):
    def test_a_configuration_that_breaks_what_an_extension_needs_is_refused(self) -> None:
        for extensions in (
            (SMTPUTF8(),),
            (BinaryMIME(), EightBitMIME()),
            (BinaryMIME(), Chunking()),
            (Pipelining(), Pipelining()),
        ):
            self.assertRaises(ConfigError, compile_dialect, extensions)
