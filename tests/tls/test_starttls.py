"""A server whose certificates are read again while its clients are at work, by STARTTLS and by implicit TLS."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw.testing import RecordingBackend
from smtpfw.tls import CertificateStore
from tests.server.helpers import DATA, DOT, ENVELOPE, HELLO, MESSAGE, MESSAGE_OK, codes, make_factory
from tests.server.tls_in_memory import TLSClient
from tests.tls.pairs import make_pair, put


class Served(TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.renew("a.test")
        self.renew("b.test")
        self.store = CertificateStore(str(self.folder), hostname="a.test")
        self.backend = RecordingBackend()
        self.factory = make_factory(self.backend, Clock(), tls=self.store.listener())

    def renew(self, name: str) -> int:
        made = make_pair(name)
        put(self.folder / f"{name}.pem", made.both)
        return made.serial

    def check_dialog(self, client: TLSClient) -> None:
        client.send(HELLO + ENVELOPE + DATA)
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)

    def shown(self, client: TLSClient) -> int:
        """The serial number of the certificate that the server has shown."""
        certificate = client.server.transport.getHandle().get_certificate(as_cryptography=True)
        return int(certificate.serial_number)

    def test_starttls_is_offered_and_works(self) -> None:
        client = TLSClient(self.factory)
        self.assertIn(b"STARTTLS\r\n", client.send(HELLO))
        client.send(b"STARTTLS\r\n")
        client.start_tls()
        self.check_dialog(client)

    def test_a_message_under_way_is_not_disturbed(self) -> None:
        for implicit in (False, True):
            client = TLSClient(self.factory, implicit=implicit)
            if not implicit:
                client.send(HELLO + b"STARTTLS\r\n")
            client.start_tls()
            client.send(HELLO + ENVELOPE + DATA)
            before = self.shown(client)
            client.send(MESSAGE[:5])
            serial = self.renew("a.test")
            self.assertTrue(self.store.reload())
            self.assertEqual(client.send(MESSAGE[5:] + DOT), MESSAGE_OK)
            self.assertEqual(self.shown(client), before)
            following = TLSClient(self.factory, implicit=True)
            following.start_tls()
            self.check_dialog(following)
            self.assertEqual(self.shown(following), serial)
        self.assertEqual([message.body for message in self.backend.messages], [MESSAGE] * 4)

    def test_what_was_read_when_tls_begins_counts_and_not_when_the_client_connected(self) -> None:
        client = TLSClient(self.factory)
        client.send(HELLO)
        serial = self.renew("a.test")
        self.store.reload()
        self.assertEqual(codes(client.send(b"STARTTLS\r\n")), [b"220"])
        client.start_tls()
        self.assertEqual(self.shown(client), serial)

    def test_a_client_without_a_certificate_where_one_is_required(self) -> None:
        tls = self.store.listener(client_ca=str(self.folder), require_client_certificate=True)
        client = TLSClient(make_factory(self.backend, Clock(), tls=tls))
        client.send(HELLO + b"STARTTLS\r\n")
        with self.assertRaises((SSL.Error, AssertionError)):
            client.start_tls()
            client.send(HELLO)
        self.assertTrue(client.closed)
