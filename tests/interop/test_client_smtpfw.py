"""Our client and our server, as operators run it: every mechanism of :mod:`smtpfw.sasl`; SMTP, and LMTP."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from smtpfw.errors import Refused
from smtpfw.sasl import SCRAM, Anonymous, CramMD5, Login, OAuthBearer, Plain, XOAuth2
from tests.interop.client_matrix import WithChunking, WithLimit
from tests.interop.external_matrix import WithExternal
from tests.interop.lmtp_matrix import LMTPMatrix
from tests.interop.one_mechanism import OneMechanism
from tests.interop.outgoing import TEXT, Way, check_octets, failure
from tests.interop.secured_matrix import WithAuth
from tests.interop.servers.common import PASSWORD, USER, Peer
from tests.interop.servers.smtpfw_server import TOKEN, smtpfw_server

#: What makes a client of each, from a secret.
MAKERS: dict[str, Any] = {
    "SCRAM-SHA-256-PLUS": SCRAM,
    "SCRAM-SHA-1-PLUS": SCRAM,
    "SCRAM-SHA-256": SCRAM,
    "SCRAM-SHA-1": SCRAM,
    "OAUTHBEARER": OAuthBearer,
    "XOAUTH2": XOAuth2,
    "CRAM-MD5": CramMD5,
    "PLAIN": Plain,
    "LOGIN": Login,
}


class SmtpfwTests(WithChunking, WithLimit, WithExternal, TestCase):
    """SMTP."""

    external = b"stored for joe by EXTERNAL"

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return smtpfw_server()

    async def check_login(self, way: Way, mechanism: str) -> None:
        """The answer to the message tells, too, who has logged in, and how."""
        secret = TOKEN if mechanism in ("OAUTHBEARER", "XOAUTH2") else PASSWORD
        mailbox = self.peer.fresh()
        make = MAKERS[mechanism]
        result = await self.send(mailbox, TEXT, way, auth=OneMechanism(mechanism, make(USER, secret)))
        assert result.text.endswith(f"stored for {USER} by {mechanism}"), (way.name, mechanism, result)
        wrong = self.send(mailbox, TEXT, way, auth=OneMechanism(mechanism, make(USER, "wrong")))
        error = await failure(wrong, Refused)
        assert (error.phase, error.reply.code) == ("AUTH", 535), (way.name, mechanism)
        (stored,) = await self.stored(mailbox)
        check_octets(stored, TEXT)

    async def test_every_mechanism_of_ours(self) -> None:
        """Those with channel binding and those with tokens, too; at once, since a wrong secret is answered late."""
        logins = [Deferred.fromCoroutine(self.check_login(way, name)) for way in self.secured() for name in MAKERS]
        await gatherResults(logins, consumeErrors=True)

    async def test_anonymous(self) -> None:
        for way in self.secured():
            result = await self.send(self.peer.fresh(), TEXT, way, auth=Anonymous("sirhc"))
            assert result.text.endswith("stored for anonymous by ANONYMOUS")

    async def test_name_and_password_are_bound_to_the_channel(self) -> None:
        """Of all that a name and a password are good for, the best is taken."""
        for way in self.secured():
            result = await self.send(self.peer.fresh(), TEXT, way, auth=(USER, PASSWORD))
            assert result.text.endswith(f"stored for {USER} by SCRAM-SHA-256-PLUS"), (way.name, result)


class SmtpfwLMTPTests(LMTPMatrix, WithLimit, WithAuth, TestCase):
    """LMTP over TCP."""

    full_code = 452

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return smtpfw_server("lmtp")


class SmtpfwLMTPUnixTests(LMTPMatrix, WithLimit, WithAuth, TestCase):
    """LMTP over a Unix socket."""

    full_code = 452

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return smtpfw_server("lmtp", unix=True)
