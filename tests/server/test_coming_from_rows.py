"""What docs/coming-from.md promises and no other test shows: abilities that other libraries have, seen from outside."""

from __future__ import annotations

import smtplib
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import FunctionCheck, Reply, ServerConfig, Session, SessionBackend, SMTPError, SMTPServerFactory
from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.handler import Envelope, HandlerBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.errors import (
    ENHANCED_CODE_NOT_SET,
    NO_ENHANCED_CODE,
    AddressDenied,
    AuthUnsupported,
    ForwardingFailed,
    RateExceeded,
    SenderDenied,
)
from smtpfw.extensions import STANDARD, Auth
from smtpfw.interfaces import IAuthSession, IConnection, IPlainAuthSession
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.testing.memory import HOST, PEER
from smtpfw.tls import server_context
from smtpfw.wire.profiles import DEFAULT
from tests.certificates import issued_pem, key_pem, make_key
from tests.running import Twistd
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MAIL, MESSAGE, MESSAGE_OK, RCPT, codes, connect, greeted
from tests.server.tls_in_memory import CONTEXT, TLSClient
from tests.tls.handshakes import handshake

SECRET = "a very secret secret"
PLAIN = b"AUTH PLAIN " + b64encode(f"\0tim\0{SECRET}".encode()) + b"\r\n"


def raising(error: Exception) -> Callable[..., Any]:
    def hook(*arguments: Any) -> None:
        raise error

    return hook


class Parameters(TestCase):
    """The parameters of MAIL, as a session sees them."""

    def options(self, parameters: bytes) -> Any:
        seen: list[Any] = []
        client = greeted(RecordingBackend(mail=lambda sender, options: seen.append(options)), None, HELLO)
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b.test>" + parameters + b"\r\n")), [b"250"])
        return seen[0]

    def test_body(self) -> None:
        given = {b"": "7BIT", b" BODY=7BIT": "7BIT", b" BODY=8BITMIME": "8BITMIME", b" BODY=BINARYMIME": "BINARYMIME"}
        for parameters, body in given.items():
            self.assertEqual(self.options(parameters).body, body)

    def test_size(self) -> None:
        self.assertEqual(self.options(b" SIZE=4711").size, 4711)
        self.assertEqual(self.options(b"").size, 0)

    def test_utf8(self) -> None:
        self.assertIs(self.options(b" SMTPUTF8").utf8, True)
        self.assertIs(self.options(b"").utf8, False)


class Connections(TestCase):
    def check_tls(self, connection: Any) -> None:
        state = connection.tls_state
        self.assertIn(state.version, ("TLSv1.2", "TLSv1.3"))
        self.assertEqual(connection.tls, f"{state.version} {state.cipher}")
        self.assertEqual(connection.state.tls_state, state)

    def test_the_state_of_tls(self) -> None:
        for implicit in (False, True):
            backend = RecordingBackend()
            config = ServerConfig(hostname="mx.test")
            client = TLSClient(SMTPServerFactory(backend, config, tls=CONTEXT, reactor=Clock()), implicit=implicit)
            if not implicit:
                client.send(HELLO)
                self.assertIsNone(backend.sessions[0].connection.tls_state)
                self.assertIsNone(backend.sessions[0].connection.state.tls_state)
                client.send(b"STARTTLS\r\n")
            client.start_tls()
            self.check_tls(backend.sessions[-1].connection)

    def test_who_the_client_is_and_never_its_password(self) -> None:
        backend = RecordingBackend()
        auth = Auth(FunctionChecker(lambda username, password: password == SECRET), allow_insecure=True)
        client = greeted(backend, None, HELLO, PLAIN, MAIL, extensions=[*STANDARD, auth])
        connection = backend.sessions[0].connection
        self.assertEqual((connection.peer, connection.peer_host, connection.local), (PEER, PEER.host, HOST))
        self.assertEqual((connection.hello_name, connection.hostname), ("me", "mx.test"))
        self.assertEqual((connection.identity, connection.mechanism, connection.protocol), ("tim", "PLAIN", "ESMTPA"))
        for name in IConnection.names():
            self.assertNotIn(SECRET, repr(getattr(connection, name)))
        client.disconnect()

    def test_values_of_ones_own(self) -> None:
        seen: list[Any] = []

        def connected(connection: IConnection) -> None:
            connection.context["trace"] = 7

        def handle(envelope: Envelope, body: bytes) -> None:
            seen.append(envelope.connection.context)

        factory = SMTPServerFactory(
            HandlerBackend(handle),
            ServerConfig(hostname="mx.test"),
            checks=[FunctionCheck(connect=connected)],
            reactor=Clock(),
        )
        client = MemoryClient.of(factory)
        client.send(ENVELOPE + DATA)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)
        self.assertEqual(seen, [{"trace": 7}])


class Errors(TestCase):
    def test_the_two_special_enhanced_codes(self) -> None:
        for code, line in ((ENHANCED_CODE_NOT_SET, b"550 5.0.0 no\r\n"), (NO_ENHANCED_CODE, b"550 no\r\n")):
            for hook in (raising(SMTPError(550, code, "no")), lambda *_, code=code: Reply(550, "no", code)):
                client = greeted(RecordingBackend(mail=hook), None, HELLO)
                self.assertEqual(client.send(MAIL), line)

    def test_those_that_the_server_itself_never_raises(self) -> None:
        for error, hook, answer in (
            (SenderDenied(), "mail", b"550 5.7.1 Sender address denied"),
            (RateExceeded(), "mail", b"450 4.7.1 Rate limit exceeded, try again later"),
            (ForwardingFailed(), "data", b"451 4.4.0 Forwarding failed, try again later"),
            (AddressDenied(), "new_session", b"554 5.7.1 Access denied for your address"),
        ):
            client = connect(RecordingBackend(**{hook: raising(error)}))
            said = client.received() + client.send(ENVELOPE + DATA) + client.send(MESSAGE + DOT)
            self.assertIn(answer, said.splitlines())

    def test_a_session_that_knows_nobody(self) -> None:
        @implementer(IPlainAuthSession)
        class Nobody(Session):
            def auth_plain(self, username: str, password: str) -> None:
                raise AuthUnsupported

        client = greeted(
            SessionBackend(Nobody), None, HELLO, extensions=[*STANDARD, Auth(allow_insecure=True, required=True)]
        )
        self.assertEqual(client.send(PLAIN), b"502 5.5.1 Authentication not supported\r\n")


class OwnMechanisms(TestCase):
    """A session that has mechanisms of its own, unlike those of the client beside it."""

    def test_they_are_offered_to_its_client_and_served(self) -> None:
        class Ticket:
            identity = ""

            def next(self, response: bytes | None) -> tuple[bytes | None, bool]:
                if response is None:
                    return b"your ticket?", False
                self.identity = f"guest {response.decode()}"
                return None, True

        @implementer(IAuthSession)
        class Door(Session):
            def auth_mechanisms(self) -> list[str]:
                return names.pop(0)

            def auth(self, mechanism: str) -> Any:
                return Ticket()

        names = [["X-TICKET"], ["X-TICKET"], ["X-OTHER", "X-TICKET"], []]
        client = greeted(SessionBackend(Door), None, extensions=[Auth(allow_insecure=True)])
        other = MemoryClient.of(client.protocol.factory)
        other.received()
        self.assertEqual(client.send(HELLO), b"250-mx.test\r\n250 AUTH X-TICKET\r\n")
        self.assertEqual(client.send(b"AUTH X-TICKET\r\n"), b"334 " + b64encode(b"your ticket?") + b"\r\n")
        self.assertEqual(codes(client.send(b64encode(b"12") + b"\r\n")), [b"235"])
        self.assertEqual(client.protocol.wire.identity, "guest 12")
        self.assertEqual(other.send(HELLO), b"250-mx.test\r\n250 AUTH X-OTHER X-TICKET\r\n")
        self.assertEqual(other.send(HELLO), b"250 mx.test\r\n")


class Servers(TestCase):
    def test_a_log_of_its_own(self) -> None:
        events: list[dict[str, Any]] = []
        factory = SMTPServerFactory(
            RecordingBackend(mail=raising(RuntimeError("broken"))),
            ServerConfig(hostname="mx.test"),
            log=Logger("mine", observer=events.append),
            reactor=Clock(),
        )
        client = MemoryClient.of(factory)
        client.send(HELLO)
        self.assertEqual(codes(client.send(MAIL)), [b"451"])
        (failed,) = (event for event in events if "log_failure" in event)
        self.assertIn("RuntimeError: broken", failed["log_failure"].getTraceback())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_stands_behind_its_name(self) -> None:
        client = connect(RecordingBackend(), software="ready, and glad to see you")
        self.assertEqual(client.received(), b"220 mx.test ESMTP ready, and glad to see you\r\n")

    def test_all_its_connections(self) -> None:
        backend = RecordingBackend()
        one = greeted(backend, None, HELLO)
        factory = one.protocol.factory
        two = MemoryClient.of(factory)
        self.assertEqual(len(factory.connections), 2)
        self.assertEqual({protocol.peer_host for protocol in factory.connections}, {PEER.host})
        self.assertEqual({protocol.wire.hello_name for protocol in factory.connections}, {"me", ""})
        for protocol in list(factory.connections):
            protocol.close()
        self.assertEqual((one.closed, two.closed, factory.connections), (True, True, set()))

    def test_several_endpoints(self) -> None:
        """One factory on all of them: what it counts, lists and stops are the connections of all."""
        reactor = MemoryReactorClock()
        factory = SMTPServerFactory(
            RecordingBackend(), ServerConfig(hostname="mx.test", max_connections=2), reactor=reactor
        )
        for endpoint in (TCP4ServerEndpoint(reactor, 25), UNIXServerEndpoint(reactor, "/run/smtp")):
            self.successResultOf(endpoint.listen(factory))
        ((_, by_tcp, *_),), ((_, by_unix, *_),) = reactor.tcpServers, reactor.unixServers
        clients = [MemoryClient.of(by_tcp), MemoryClient.of(by_unix, UNIXAddress(b"")), MemoryClient.of(by_unix)]
        self.assertEqual([codes(client.received()) for client in clients], [[b"220"], [b"220"], [b"421"]])
        self.assertEqual({protocol.peer_name for protocol in factory.connections}, {"192.0.2.1:54321", "unix"})
        self.successResultOf(factory.stop(10))
        self.assertEqual([codes(client.received()) for client in clients[:2]], [[b"421"], [b"421"]])

    def test_without_grace(self) -> None:
        clock = Clock()
        backend = RecordingBackend()
        client = greeted(backend, clock, ENVELOPE, DATA)
        factory = client.protocol.factory
        idle = MemoryClient.of(factory)
        idle.received()
        stopped = factory.stop(0)
        clock.advance(0)
        self.assertEqual((codes(client.received()), codes(idle.received())), ([b"421"], [b"421"]))
        self.successResultOf(stopped)
        self.assertEqual(backend.messages, [])

    def test_lengths_of_lines(self) -> None:
        profile = replace(DEFAULT, max_command_line=100, max_text_line=40)
        client = greeted(RecordingBackend(), None, HELLO, profile=profile, extensions=[])
        for octets, code in ((100, b"250"), (101, b"500")):
            self.assertEqual(codes(client.send(b"NOOP ".ljust(octets - 2, b"x") + b"\r\n")), [code])
        for octets, code in ((40, b"250"), (41, b"550")):
            client.send(MAIL + RCPT + DATA)
            self.assertEqual(codes(client.send(b"x" * octets + b"\r\n" + DOT)), [code])


class Muxes(TestCase):
    def test_functions_by_address(self) -> None:
        seen: list[tuple[str, list[str]]] = []

        def handler(name: str) -> HandlerBackend:
            return HandlerBackend(lambda envelope, body: seen.append((name, list(map(str, envelope.recipients)))))

        routes = {"c@d.test": handler("one"), "e@d.test": handler("two"), "postmaster": DiscardBackend()}
        envelope = MAIL + RCPT + b"RCPT TO:<e@d.test>\r\nRCPT TO:<x@y.test>\r\n"
        client = greeted(MuxBackend(routes), None, HELLO)
        # Neither of two functions can take back what it has done, so a message is for one of them.
        self.assertEqual(codes(client.send(envelope)), [b"250", b"250", b"452", b"550"])
        client.send(DATA)
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"250"])
        client.send(MAIL + b"RCPT TO:<e@d.test>\r\n" + DATA)
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"250"])
        self.assertEqual(seen, [("one", ["c@d.test"]), ("two", ["e@d.test"])])

    def test_the_rest_is_thrown_away_if_you_say_so(self) -> None:
        client = greeted(MuxBackend({}, DiscardBackend()), None, HELLO)
        self.assertEqual(codes(client.send(MAIL + RCPT + DATA)), [b"250", b"250", b"354"])
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_trusts_the_root_only(tmp_path: Path, whole: bool) -> None:
    """With the whole chain in the file, the server's own certificate first, it verifies; without, it does not."""
    root, between, own = make_key(), make_key(), make_key()
    chain = [
        issued_pem("localhost", own, "between", between, authority=False),
        issued_pem("between", between, "root", root, authority=True),
    ]
    path = tmp_path / "server.pem"
    path.write_bytes(b"".join(chain if whole else chain[:1]) + key_pem(own))
    trusting = ssl.create_default_context(cadata=issued_pem("root", root, "root", root, authority=True).decode("ascii"))
    if whole:
        handshake(server_context(str(path)), trusting)
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer certificate"):
            handshake(server_context(str(path)), trusting)


def test_lmtp_over_tcp() -> None:
    with (
        Twistd("--protocol", "lmtp", "--backend", "memory") as server,
        smtplib.LMTP("127.0.0.1", server.port) as client,
    ):
        assert client.sendmail("me@example.org", ["you@example.org"], MESSAGE) == {}
