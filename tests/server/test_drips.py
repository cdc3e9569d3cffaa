"""A peer that sends just enough to seem alive: every kind of drip comes to its end."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import RelayDenied
from smtpfw.testing import MemoryClient, RecordingBackend

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"


class DripTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        config = ServerConfig(hostname="mx.test", command_timeout=300, data_timeout=180, message_timeout=3600)
        self.client = MemoryClient.of(SMTPServerFactory(RecordingBackend(), config, reactor=self.clock))

    def drip(self, octets: bytes, pause: float, times: int) -> float:
        """Send ``octets`` again and again; return after how many seconds that came to an end."""
        for number in range(1, times + 1):
            self.clock.advance(pause)
            if self.client.closed:
                return number * pause
            self.client.send(octets)
        raise AssertionError("still alive")

    def test_half_a_command(self) -> None:
        self.client.send(ENVELOPE)
        self.assertLessEqual(self.drip(b"N", 100, 10), 300)

    def test_half_a_command_before_the_first(self) -> None:
        self.assertLessEqual(self.drip(b"E", 100, 10), 300)

    def test_small_chunks_of_a_message(self) -> None:
        self.client.send(ENVELOPE)
        self.assertLessEqual(self.drip(b"BDAT 1\r\nx", 290, 20), 3600 + 2 * 290)

    def test_a_chunk_that_belongs_to_no_message(self) -> None:
        self.client.send(b"EHLO client.example\r\nBDAT 1000\r\n")
        self.assertLessEqual(self.drip(b"x", 100, 10), 300)

    def test_commands_are_no_drip(self) -> None:
        self.client.send(b"EHLO client.example\r\n")
        self.assertRaises(AssertionError, self.drip, b"NOOP\r\n", 290, 10)

    def test_nobody_has_come_to_say_noop(self) -> None:
        self.assertEqual(self.drip(b"NOOP\r\n", 30, 10), 120)


class RefusedTests(TestCase):
    """A connection that was refused with 554: 503 to all but QUIT."""

    def setUp(self) -> None:
        def refuse(session: object) -> None:
            raise RelayDenied

        factory = SMTPServerFactory(
            RecordingBackend(new_session=refuse), ServerConfig(hostname="mx.test"), reactor=Clock()
        )
        self.client = MemoryClient.of(factory)
        self.assertTrue(self.client.received().startswith(b"554 5.7.1 "))

    def test_a_line_over_the_limit(self) -> None:
        self.assertTrue(self.client.send(b"x" * 5000 + b"\r\n").startswith(b"503 5.5.1 "))

    def test_a_bare_newline(self) -> None:
        self.assertTrue(self.client.send(b"EHLO x\n").startswith(b"503 5.5.1 "))

    def test_quit(self) -> None:
        self.assertTrue(self.client.send(b"QUIT\r\n").startswith(b"221 2.0.0 "))
        self.assertTrue(self.client.closed)
