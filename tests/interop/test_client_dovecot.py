"""Our client and Dovecot's LMTP server, over TCP and over a Unix socket."""

from __future__ import annotations

from contextlib import AbstractContextManager

from twisted.trial.unittest import TestCase

from tests.interop.lmtp_matrix import LMTPMatrix
from tests.interop.outgoing import TEXT
from tests.interop.servers.common import Peer
from tests.interop.servers.dovecot import dovecot_server


class DovecotTests(LMTPMatrix, TestCase):
    """Over TCP, with STARTTLS and implicit TLS."""

    full_code = 552

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return dovecot_server()


class DovecotUnixTests(LMTPMatrix, TestCase):
    """Over a Unix socket, where TLS is not asked for."""

    full_code = 552

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return dovecot_server(unix=True)

    async def test_tls_is_not_asked_for(self) -> None:
        """It offers STARTTLS there, too; the line that it writes for the message would tell."""
        mailbox = self.peer.fresh()
        await self.send(mailbox, TEXT, tls=None)
        (stored,) = await self.stored(mailbox)
        assert b" with LMTP\r\n" in stored
