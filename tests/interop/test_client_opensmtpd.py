"""Our client sends to OpenSMTPD."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest import SkipTest

from twisted.trial import unittest

from smtpfw.errors import TLSFailed
from tests.interop.client_matrix import STARTTLS, TEXT, ClientMatrix, failure
from tests.interop.servers.common import Peer
from tests.interop.servers.opensmtpd_server import opensmtpd_server


class ToOpenSMTPD(ClientMatrix, unittest.TestCase):
    """It has none of PIPELINING, CHUNKING and SMTPUTF8."""

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return opensmtpd_server()

    async def test_tls_that_is_offered_and_fails(self) -> None:
        """``required`` sends nothing in clear, least of all a password."""
        if self.peer.has("STARTTLS"):
            raise SkipTest("this OpenSMTPD knows how to do TLS")
        for settings in ({}, {"tls": None, "auth": (self.peer.user, self.peer.password)}):
            mailbox = self.peer.fresh()
            await failure(self.send(mailbox, TEXT, STARTTLS, **settings), TLSFailed)
            assert await self.stored(mailbox, 0) == []
