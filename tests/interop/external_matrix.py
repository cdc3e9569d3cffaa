"""EXTERNAL at a server that believes the certificates of an authority: the same tests for every such server."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from smtpfw.client import SMTPClientProtocol
from smtpfw.errors import LocalProtocolError, Refused
from smtpfw.sasl import External
from smtpfw.tls import client_context
from tests.interop.outgoing import SENDER, TEXT, Way, failure
from tests.interop.secured_matrix import WithAuth


class WithExternal(WithAuth):
    """
    The tests of :class:`~tests.interop.secured_matrix.WithAuth`, and those of client certificates.

    :cvar external: what the server writes of a client that has logged in so, in its reply or in front of the message.
    """

    external: bytes

    async def connected(self, way: Way, certificate: str | None) -> SMTPClientProtocol:
        """A client under TLS that has shown one of the certificates of the server's folder, or none."""
        peer = self.peer
        shown = None if certificate is None else f"{peer.certificates}/{certificate}"
        context = client_context("localhost", verify=True, ca=str(peer.ca), certificate=shown)
        client = SMTPClientProtocol(name="localhost", tls=context if way.implicit else None)
        port = peer.smtps_port if way.implicit and peer.smtps_port else peer.port
        await connectProtocol(TCP4ClientEndpoint(reactor, peer.host, port), client)
        if not way.implicit:
            await client.start_tls(context)
        return client

    async def test_external(self) -> None:
        for way in self.secured():
            for identity in ("", self.peer.user):
                client = await self.connected(way, "client.pem")
                mailbox = self.peer.fresh()
                await client.auth(External(identity))
                result = await client.send_mail(SENDER, [mailbox], TEXT)
                await client.quit()
                await client.disconnected
                (stored,) = await self.stored(mailbox)
                assert self.external in result.text.encode() + stored, (way.name, identity)

    async def test_external_of_who_may_not(self) -> None:
        """A certificate of somebody else, and the wish to act as somebody else."""
        wrong = (("stranger.pem", ""), ("stranger.pem", self.peer.user), ("client.pem", "max"))
        logins = [Deferred.fromCoroutine(self.check_refused(way, *pair)) for way in self.secured() for pair in wrong]
        await gatherResults(logins, consumeErrors=True)

    async def check_refused(self, way: Way, certificate: str, identity: str) -> None:
        client = await self.connected(way, certificate)
        error = await failure(client.auth(External(identity)), Refused)
        assert (error.phase, error.reply.code) == ("AUTH", 535), (way.name, certificate, identity)
        client.close()
        await client.disconnected

    async def test_external_without_a_certificate(self) -> None:
        """The server does not even offer it."""
        for way in self.secured():
            client = await self.connected(way, None)
            error = await failure(client.auth(External()), LocalProtocolError)
            assert "EXTERNAL" in str(error)
            client.close()
            await client.disconnected
