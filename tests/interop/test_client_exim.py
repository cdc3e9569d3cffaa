"""Our client and Exim, which looks whether a client talks before its turn, and has mechanisms of three origins."""

from __future__ import annotations

from contextlib import AbstractContextManager

from twisted.trial.unittest import TestCase

from smtpfw.sasl import SCRAM, CramMD5, Login, Plain
from tests.interop.client_matrix import WithChunking, WithLimit
from tests.interop.external_matrix import WithExternal
from tests.interop.one_mechanism import OneMechanism
from tests.interop.outgoing import TEXT
from tests.interop.servers.common import Peer
from tests.interop.servers.exim import exim_server

#: What Exim's configuration calls them.
NAMES = {
    "PLAIN": ("plain", Plain),
    "LOGIN": ("login", Login),
    "CRAM-MD5": ("cram_md5", CramMD5),
    "SCRAM-SHA-1": ("scram_sha_1", SCRAM),
    "SCRAM-SHA-256": ("scram_sha_256", SCRAM),
}


class EximTests(WithChunking, WithLimit, WithExternal, TestCase):
    external = b'authenticated="external joe"'

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return exim_server()

    async def test_the_server_knows_who_has_logged_in(self) -> None:
        """The line that it puts in front of the message tells, and by which mechanism."""
        peer = self.peer
        for way in self.secured():
            for mechanism, (name, make) in NAMES.items():
                mailbox = peer.fresh()
                auth = OneMechanism(mechanism, make(peer.user, peer.password))
                await self.send(mailbox, TEXT, way, auth=auth)
                (stored,) = await self.stored(mailbox)
                assert f'authenticated="{name} {peer.user}"'.encode() in stored, (way.name, mechanism)
