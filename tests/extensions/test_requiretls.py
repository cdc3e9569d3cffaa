"""REQUIRETLS: offered and taken within TLS, by a backend that honours it, and nowhere else."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from smtpfw.extensions import RequireTLS
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.testing import RecordingBackend
from tests.server.helpers import HELLO, codes, make_factory
from tests.server.tls_in_memory import CONTEXT, TLSClient

KEYWORD = b"REQUIRETLS\r\n"
MAIL = b"MAIL FROM:<a@b.test> REQUIRETLS\r\n"


class Offered(TestCase):
    def setUp(self) -> None:
        self.seen: list[Any] = []

    def connect(self, *, honours: bool = True, implicit: bool = False) -> TLSClient:
        backend = RecordingBackend(
            frozenset({"REQUIRETLS"}) if honours else frozenset(),
            mail=lambda sender, options: self.seen.append(options),
        )
        client = TLSClient(make_factory(backend, tls=CONTEXT), implicit=implicit)
        if implicit:
            client.start_tls()
        client.send()
        return client

    def test_in_clear_and_behind_starttls(self) -> None:
        client = self.connect()
        self.assertNotIn(KEYWORD, client.send(HELLO))
        self.assertEqual(codes(client.send(MAIL)), [b"555"])
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        self.assertIn(KEYWORD, client.send(HELLO))
        self.assertEqual(codes(client.send(MAIL)), [b"250"])
        (options,) = self.seen
        self.assertIs(options.require_tls, True)
        self.assertIs(options[REQUIRETLS], True)

    def test_behind_starttls_ehlo_comes_first(self) -> None:
        client = self.connect()
        client.send(HELLO + b"STARTTLS\r\n")
        client.start_tls()
        self.assertEqual(codes(client.send(MAIL)), [b"503"])

    def test_in_implicit_tls(self) -> None:
        client = self.connect(implicit=True)
        self.assertIn(KEYWORD, client.send(HELLO))
        self.assertEqual(codes(client.send(MAIL)), [b"250"])

    def test_a_message_that_does_not_ask(self) -> None:
        client = self.connect(implicit=True)
        client.send(HELLO)
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b.test>\r\n")), [b"250"])
        self.assertIs(self.seen[0].require_tls, False)

    def test_after_helo(self) -> None:
        client = self.connect(implicit=True)
        client.send(b"HELO me\r\n")
        self.assertEqual(codes(client.send(MAIL)), [b"555"])

    def test_a_value(self) -> None:
        client = self.connect(implicit=True)
        client.send(HELLO)
        received = client.send(b"MAIL FROM:<a@b.test> REQUIRETLS=1\r\n")
        self.assertEqual(received, b"501 5.5.4 REQUIRETLS takes no value\r\n")

    def test_a_backend_that_makes_no_such_promise(self) -> None:
        client = self.connect(honours=False, implicit=True)
        self.assertNotIn(KEYWORD, client.send(HELLO))
        self.assertEqual(codes(client.send(MAIL)), [b"555"])


def test_its_octets() -> None:
    """As many as the space and the keyword have (RFC 8689 section 2)."""
    assert len(f" {REQUIRETLS.keyword}") == RequireTLS.extra_line_octets
    assert REQUIRETLS.parse(REQUIRETLS.format(True)) is True
