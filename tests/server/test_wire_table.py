"""
What a dialog can't show: time, silence, waiting hooks, refusals at connect, and clients that go away.

The names follow the rules that they hold the server to; what can be written
as a dialog stands in tests/dialogs.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import ConfigError, DataReset, MailboxUnavailable, ServiceNotAvailable, SMTPError
from smtpfw.extensions import (
    SMTPUTF8,
    STANDARD,
    BinaryMIME,
    Chunking,
    EightBitMIME,
    Pipelining,
    StartTLS,
)
from smtpfw.interfaces import IBody
from smtpfw.testing import MemoryClient, MemoryTransport, RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.profiles import DEFAULT, LENIENT, STRICT, Profile
from smtpfw.wire.verbs import compile_dialect

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
        **settings: Any,
    ) -> MemoryClient:
        self.backend = backend or RecordingBackend()
        self.clock = Clock()
        config = ServerConfig(hostname="mx.example.org", **settings)
        return MemoryClient.of(SMTPServerFactory(self.backend, config, extensions=extensions, reactor=self.clock))

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


class OfferTests(TestCase):
    def test_a_configuration_that_breaks_what_an_extension_needs_is_refused(self) -> None:
        for extensions in (
            (SMTPUTF8(),),
            (BinaryMIME(), EightBitMIME()),
            (BinaryMIME(), Chunking()),
            (Pipelining(), Pipelining()),
        ):
            self.assertRaises(ConfigError, compile_dialect, extensions)
