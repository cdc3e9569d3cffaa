"""EXTERNAL over real TLS: whom a client's certificate lets in, and as whom."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import AuthFailed
from smtpfw.extensions import STANDARD, Auth, XClient
from smtpfw.extensions.auth import FAILURE_DELAY
from smtpfw.sasl import CertificateChecker, IAuthorizer, ICertificateChecker, IPasswordChecker
from smtpfw.testing import RecordingBackend
from smtpfw.tls import server_context
from tests.certificates import Authority, write_pair
from tests.server.helpers import HELLO, MAIL, codes
from tests.server.tls_in_memory import TLSClient

AUTHORITY = Authority()
TIM = AUTHORITY.issue((NameOID.COMMON_NAME, "root"), names=[x509.RFC822Name("tim@example.org")])
NOBODY = AUTHORITY.issue((NameOID.COMMON_NAME, "nobody"))

DONE = b"235 2.7.0 Authentication succeeded\r\n"
FAILED = b"535 5.7.8 Authentication credentials invalid\r\n"
EMPTY_CHALLENGE = b"334 \r\n"


def _contexts() -> tuple[Any, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ca.pem").write_bytes(AUTHORITY.pem)
        pair = str(write_pair(folder))
        authority = str(folder / "ca.pem")
        return (
            server_context(pair, client_ca=authority),
            server_context(pair, client_ca=authority, require_client_certificate=True),
        )


ASKING, REQUIRING = _contexts()


@implementer(ICertificateChecker, IPasswordChecker, IAuthorizer)
class Users(CertificateChecker):
    """``tim@example.org`` is a user, and may act as ``ursel@example.org``."""

    def __init__(self) -> None:
        super().__init__({"tim@example.org"}.__contains__)

    def authorize(self, username: str, authorization_identity: str) -> None:
        if authorization_identity != "ursel@example.org":
            raise AuthFailed

    def check_password(self, username: str, password: str) -> str:
        raise AuthFailed


@implementer(IPasswordChecker)
class Passwords:
    """Knows nothing of certificates."""

    def check_password(self, username: str, password: str) -> str:
        raise AuthFailed


def client_context(pem: bytes | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if pem is not None:
        context.use_certificate(x509.load_pem_x509_certificate(pem))
        context.use_privatekey(load_pem_private_key(pem, None))  # type: ignore[arg-type]
    return context


def encoded(text: str) -> bytes:
    return b64encode(text.encode())


class ExternalCase(TestCase):
    def connect(
        self, shown: bytes | None, *, checker: Any = None, tls: Any = ASKING, implicit: bool = False, **options: Any
    ) -> TLSClient:
        """A client that has started TLS and said EHLO; ``self.hello`` is what it was answered."""
        self.clock = Clock()
        self.backend = RecordingBackend()
        auth = Auth(checker or Users(), **options)
        factory = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test"),
            tls=tls,
            extensions=[*STANDARD, auth, XClient("192.0.2.1")],
            reactor=self.clock,
        )
        client = TLSClient(factory, implicit=implicit)
        if not implicit:
            client.send(HELLO)
            client.send(b"STARTTLS\r\n")
        client.start_tls(context=client_context(shown))
        self.hello = client.send(HELLO)
        return client

    def offered(self) -> list[bytes]:
        words = [line[4:].split() for line in self.hello.splitlines() if line[4:].startswith(b"AUTH")]
        return words[0][1:] if words else []

    def refusal(self, client: TLSClient, said: bytes) -> bytes:
        """A wrong answer is answered late."""
        self.assertEqual(client.send(said), b"")
        self.clock.advance(FAILURE_DELAY)
        return client.send()

    def came_in(self, client: TLSClient, identity: str) -> None:
        connection = self.backend.sessions[-1].connection
        self.assertEqual(
            (connection.identity, connection.mechanism, connection.protocol), (identity, "EXTERNAL", "ESMTPSA")
        )
        self.assertEqual(codes(client.send(MAIL)), [b"250"])


class Offer(ExternalCase):
    def test_with_a_certificate(self) -> None:
        self.connect(TIM)
        self.assertEqual(self.offered(), [b"EXTERNAL", b"PLAIN", b"LOGIN"])

    def test_under_implicit_tls(self) -> None:
        client = self.connect(TIM, implicit=True)
        self.assertIn(b"EXTERNAL", self.offered())
        self.assertEqual(client.send(b"AUTH EXTERNAL =\r\n"), DONE)
        self.came_in(client, "tim@example.org")

    def test_the_certificate_of_a_proxy_is_nobodys(self) -> None:
        """It passes on what its clients say: none of them may become the proxy."""
        client = self.connect(TIM)
        client.send(b"XCLIENT ADDR=203.0.113.9\r\n")
        self.hello = client.send(HELLO)
        self.assertEqual(self.offered(), [b"PLAIN", b"LOGIN"])
        self.assertEqual(codes(client.send(b"AUTH EXTERNAL =\r\n")), [b"504"])
        state = self.backend.sessions[-1].connection.tls_state
        self.assertEqual((state.peer_certificate, state.version), (None, "TLSv1.3"))

    def test_without_a_certificate(self) -> None:
        client = self.connect(None)
        self.assertEqual(self.offered(), [b"PLAIN", b"LOGIN"])
        self.assertEqual(codes(client.send(b"AUTH EXTERNAL =\r\n")), [b"504"])

    def test_where_nobody_is_asked_for_one(self) -> None:
        with TemporaryDirectory() as folder:
            tls = server_context(str(write_pair(Path(folder))))
        client = self.connect(TIM, tls=tls)
        self.assertEqual(self.offered(), [b"PLAIN", b"LOGIN"])
        self.assertEqual(codes(client.send(b"AUTH EXTERNAL =\r\n")), [b"504"])

    def test_a_checker_that_knows_nothing_of_certificates(self) -> None:
        client = self.connect(TIM, checker=Passwords())
        self.assertEqual(self.offered(), [b"PLAIN", b"LOGIN"])
        self.assertEqual(codes(client.send(b"AUTH EXTERNAL =\r\n")), [b"504"])

    def test_nothing_in_clear(self) -> None:
        client = self.connect(TIM, allow_insecure=True)
        clear = TLSClient(client.server.factory)
        self.assertNotIn(b"EXTERNAL", clear.send(HELLO))
        self.assertEqual(codes(clear.send(b"AUTH EXTERNAL =\r\n")), [b"504"])

    def test_what_was_shown_is_there_for_the_session(self) -> None:
        self.connect(TIM)
        state = self.backend.sessions[-1].connection.tls_state
        self.assertEqual(state.peer_certificate, x509.load_pem_x509_certificate(TIM))


class Exchange(ExternalCase):
    def test_as_whom_the_certificate_says(self) -> None:
        client = self.connect(TIM)
        self.assertEqual(client.send(b"AUTH EXTERNAL =\r\n"), DONE)
        self.came_in(client, "tim@example.org")

    def test_without_an_initial_response(self) -> None:
        client = self.connect(TIM)
        self.assertEqual(client.send(b"AUTH EXTERNAL\r\n"), EMPTY_CHALLENGE)
        self.assertEqual(client.send(b"\r\n"), DONE)
        self.came_in(client, "tim@example.org")

    def test_as_oneself(self) -> None:
        for said in (b"AUTH EXTERNAL %s\r\n", b"AUTH EXTERNAL\r\n%s\r\n"):
            client = self.connect(TIM)
            self.assertEqual(client.send(said % encoded("tim@example.org")).removeprefix(EMPTY_CHALLENGE), DONE)
            self.came_in(client, "tim@example.org")

    def test_as_another_whom_the_checker_allows(self) -> None:
        client = self.connect(TIM)
        self.assertEqual(client.send(b"AUTH EXTERNAL " + encoded("ursel@example.org") + b"\r\n"), DONE)
        self.came_in(client, "ursel@example.org")

    def test_as_another_whom_it_does_not(self) -> None:
        # The common name does not count beside an address.
        for name in ("root", "eve@example.org", "TIM@example.org"):
            client = self.connect(TIM)
            self.assertEqual(self.refusal(client, b"AUTH EXTERNAL " + encoded(name) + b"\r\n"), FAILED)
            self.assertEqual(self.backend.sessions[-1].connection.identity, "")

    def test_a_certificate_of_nobody_here(self) -> None:
        client = self.connect(NOBODY)
        # The checker may know somebody who is not known yet.
        self.assertIn(b"EXTERNAL", self.offered())
        self.assertEqual(self.refusal(client, b"AUTH EXTERNAL =\r\n"), FAILED)
        for name in ("nobody", "tim@example.org"):
            self.assertEqual(self.refusal(client, b"AUTH EXTERNAL " + encoded(name) + b"\r\n"), FAILED)

    def test_malformed(self) -> None:
        for response in (encoded("tim\0"), b"!", encoded("tim@example.org")[:-1], b64encode(b"\xff")):
            client = self.connect(TIM)
            self.assertTrue(client.send(b"AUTH EXTERNAL " + response + b"\r\n").startswith(b"501 5.5.2 "))

    def test_given_up(self) -> None:
        client = self.connect(TIM)
        client.send(b"AUTH EXTERNAL\r\n")
        self.assertTrue(client.send(b"*\r\n").startswith(b"501 5.7.0 "))
        self.assertEqual(client.send(b"AUTH EXTERNAL =\r\n"), DONE)


class Handshake(ExternalCase):
    def shake(self, tls: Any, shown: bytes | None) -> list[Any]:
        with capturedLogs() as events:
            self.clock = Clock()
            self.backend = RecordingBackend()
            factory = SMTPServerFactory(self.backend, ServerConfig(hostname="mx.test"), tls=tls, reactor=self.clock)
            client = TLSClient(factory, implicit=True)
            try:
                client.start_tls(context=client_context(shown))
                client.send(HELLO)
            except SSL.Error:
                pass
            self.assertTrue(client.closed)
        self.assertEqual(self.backend.sessions, [])
        return [event["reason"] for event in events if "handshake" in event["log_format"]]

    def test_a_certificate_of_another_authority(self) -> None:
        self.assertEqual(self.shake(ASKING, Authority().named("tim@example.org")), ["certificate verify failed"])

    def test_none_where_one_is_required(self) -> None:
        self.assertEqual(self.shake(REQUIRING, None), ["peer did not return a certificate"])
