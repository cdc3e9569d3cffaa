"""Our client and aiosmtpd, which has neither PIPELINING nor CHUNKING, and decodes what it gets with no code of ours."""

from __future__ import annotations

from contextlib import AbstractContextManager

from twisted.trial.unittest import TestCase

from smtpfw.sasl import Login, Plain
from tests.interop.client_matrix import WithLimit
from tests.interop.one_mechanism import OneMechanism
from tests.interop.outgoing import TEXT
from tests.interop.secured_matrix import WithAuth
from tests.interop.servers.aiosmtpd_server import aiosmtpd_server
from tests.interop.servers.common import Peer


class AiosmtpdTests(WithLimit, WithAuth, TestCase):
    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return aiosmtpd_server()

    async def test_the_server_knows_who_has_logged_in(self) -> None:
        """Its answer to the message tells."""
        peer = self.peer
        for way in self.secured():
            for name, make in (("PLAIN", Plain), ("LOGIN", Login)):
                auth = OneMechanism(name, make(peer.user, peer.password))
                result = await self.send(peer.fresh(), TEXT, way, auth=auth)
                assert result.reply is not None
                assert "stored for joe" in result.reply.text, (way.name, name)
