"""
Our client sends to smtp-sink, which refuses, says 421 or hangs up at the command of each row.

The exception says at which command, whether it makes sense to try again, and
whether the message may have been delivered for all that we know.
"""

from __future__ import annotations

from typing import NamedTuple
from unittest import SkipTest

from twisted.internet.threads import deferToThread
from twisted.trial import unittest

from smtpfw.client import ClientConfig, SendResult
from smtpfw.errors import ClientError, ConnectionFailed, ExtensionMissing, Refused, UnknownOutcome
from tests.interop.outgoing import EIGHT_BIT, TEXT, big_message, check_octets, failure, send_to
from tests.interop.servers.common import Peer
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.sink import smtp_sink

RECIPIENTS = ["u0@local.example", "u1@local.example"]


class Row(NamedTuple):
    """
    :ivar option: of smtp-sink: ``-f`` refuses for good, ``-r`` for now, ``-Q`` says 421, ``-q`` hangs up.
    :ivar command: the one that it does so at.
    :ivar kind: the exception that comes of it.
    :ivar phase: the phase that the exception names.
    """

    option: str
    command: str
    kind: type[ClientError]
    phase: str


#: What smtp-sink calls the commands, and what we call the phases.
PHASES = {"CONNECT": "GREETING", "EHLO": "EHLO", "MAIL": "MAIL", "RCPT": "RCPT", "DATA": "DATA", ".": "END"}

#: The code that each option answers with.
CODES = {"-f": 500, "-r": 450, "-Q": 421}

REFUSED = [
    Row(option, command, Refused, phase)
    for option in CODES
    for command, phase in PHASES.items()
    # EHLO refused is no failure: HELO follows.
    if (option, command) not in {("-f", "EHLO"), ("-r", "EHLO")}
]

HANGS_UP = [
    Row("-q", command, UnknownOutcome if command == "." else ConnectionFailed, phase)
    for command, phase in PHASES.items()
]


class Sink(unittest.TestCase):
    """Each test starts as many of them as it needs."""

    timeout = 120.0

    def open_sink(self, *options: str) -> Peer:
        try:
            return self.enterContext(smtp_sink(*options))
        except PeerMissing as error:
            raise SkipTest(str(error)) from None

    async def check_stored(self, peer: Peer, message: bytes, result: SendResult) -> None:
        """Both recipients have it."""
        assert [str(each.recipient) for each in result.accepted] == RECIPIENTS
        for mailbox in RECIPIENTS:
            (stored,) = await deferToThread(peer.stored, mailbox)
            check_octets(stored, message)


class Failures(Sink):
    async def test_refusals(self) -> None:
        for row in REFUSED:
            peer = self.open_sink(row.option, row.command)
            for config in (ClientConfig(), ClientConfig(pipelining=False)):
                error = await failure(send_to(peer, RECIPIENTS, TEXT, config=config), Refused)
                assert (error.phase, error.reply.code) == (row.phase, CODES[row.option]), (row, error)
                assert error.temporary == (row.option != "-f"), row

    async def test_a_line_that_goes_dead(self) -> None:
        for row in HANGS_UP:
            peer = self.open_sink(row.option, row.command)
            for config in (ClientConfig(), ClientConfig(pipelining=False)):
                error = await failure(send_to(peer, RECIPIENTS, TEXT, config=config), row.kind)
                assert (error.phase, error.temporary) == (row.phase, True), (row, error)

    async def test_a_refusal_while_a_body_is_sent(self) -> None:
        """It says 550 after its 354, and reads no further: who only writes would wait for ever."""
        peer = self.open_sink("-A", "1")
        error = await failure(send_to(peer, RECIPIENTS, big_message()), Refused)
        assert (error.reply.code, error.temporary) == (550, False)

    async def test_quit_does_not_matter(self) -> None:
        """The message has been taken."""
        for option in ("-f", "-r", "-Q", "-q"):
            peer = self.open_sink(option, "QUIT")
            await self.check_stored(peer, TEXT, await send_to(peer, RECIPIENTS, TEXT))


class Variants(Sink):
    async def test_a_server_with_less(self) -> None:
        """No PIPELINING, no enhanced codes, no ESMTP at all, EHLO refused, and a firewall's greeting full of stars."""
        for options in ((), ("-p",), ("-E",), ("-e",), ("-P",), ("-f", "EHLO"), ("-8",)):
            peer = self.open_sink(*options)
            await self.check_stored(peer, TEXT, await send_to(peer, RECIPIENTS, TEXT))

    async def test_8_bit_where_there_is_no_8bitmime(self) -> None:
        for options in (("-8",), ("-e",)):
            peer = self.open_sink(*options)
            error = await failure(send_to(peer, RECIPIENTS, EIGHT_BIT), ExtensionMissing)
            assert error.keyword == "8BITMIME"
            assert peer.read("u0") == []

    async def test_lmtp(self) -> None:
        for options in (("-L",), ("-L", "-p")):
            peer = self.open_sink(*options)
            await self.check_stored(peer, EIGHT_BIT, await send_to(peer, RECIPIENTS, EIGHT_BIT))
