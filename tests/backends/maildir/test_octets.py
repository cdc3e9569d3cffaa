"""What is stored is what came, octet for octet, behind our own lines."""

from __future__ import annotations

from email import message_from_bytes

from smtpfw.wire.parameters import Options
from tests.backends.maildir.fakes import FakeBody, MaildirTestCase

BINARY = b"\x89PNG\r\n\x1a\n\0\r\r\n"


class OctetTests(MaildirTestCase):
    async def test_unix_line_ends_are_for_text(self) -> None:
        backend = self.backend("Maildir", eol="lf")
        session = await self.ready_to_send(backend, "b@c")
        transaction = session._connection.transaction
        assert transaction is not None
        transaction.options = Options({"BODY": "BINARYMIME"})
        await session.data(FakeBody(BINARY[:7], BINARY[7:]))
        (message,) = self.stored()
        self.assertTrue(message.endswith(BINARY))

    async def test_a_message_does_not_go_on_with_our_line(self) -> None:
        for number, first in enumerate((b" ", b"\t")):
            forged = first + b"(evil) from my.bank ([192.0.2.9]) by mx\r\nSubject: x\r\n\r\ntext\r\n"
            for parts in ((forged,), (forged[:1], forged[1:])):
                await self.deliver(self.backend(f"{number}.{len(parts)}"), ["b@c"], *parts)
        stored = self.stored()
        self.assertEqual(len(stored), 4)
        for octets in stored:
            received = str(message_from_bytes(octets)["Received"])
            self.assertNotIn("evil", received)
            self.assertRegex(received, r"[+-]\d{4}\Z")
            self.assertIn(b"\r\n\r\n", octets.partition(b"(evil)")[0])

    async def test_a_space_in_a_later_piece_is_text(self) -> None:
        await self.deliver(self.backend("Maildir"), ["b@c"], b"Subject: x\r\n", b" folded\r\n")
        (message,) = self.stored()
        self.assertTrue(message.endswith(b"Subject: x\r\n folded\r\n"))
