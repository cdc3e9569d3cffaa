"""
What our client does with a server that has TLS, and with one that has AUTH; the same tests for every such server.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults

from smtpfw.client import connect
from smtpfw.errors import Refused, TLSFailed
from smtpfw.sasl import SCRAM, CramMD5, ISASLClient, Login, Plain
from tests.certificates import write_pair
from tests.interop.client_matrix import ClientMatrix
from tests.interop.one_mechanism import OneMechanism
from tests.interop.outgoing import CLEAR, SENDER, TEXT, Way, check_octets, failure

#: Our clients by the mechanisms that they speak, one of which each is shown alone: SCRAM would take the best.
CLIENTS: dict[str, Callable[[str, str], ISASLClient]] = {
    "PLAIN": Plain,
    "LOGIN": Login,
    "CRAM-MD5": CramMD5,
    "SCRAM-SHA-1": SCRAM,
    "SCRAM-SHA-256": SCRAM,
    "SCRAM-SHA-1-PLUS": SCRAM,
    "SCRAM-SHA-256-PLUS": SCRAM,
}


def client(mechanism: str, username: str, password: str) -> OneMechanism:
    """Logs in by this mechanism and no other."""
    return OneMechanism(mechanism, CLIENTS[mechanism](username, password))


class WithTLS(ClientMatrix):
    """For servers with STARTTLS, or with a port for TLS, or both."""

    about = frozenset({"TLS"})

    def secured(self) -> list[Way]:
        """The ways with TLS."""
        return [way for way in self.ways() if way is not CLEAR]

    async def test_a_certificate_of_somebody_else(self) -> None:
        """``required`` stops at a name that is not in it, and at an authority that is not ours."""
        with tempfile.TemporaryDirectory() as folder:
            stranger = str(write_pair(Path(folder)))
            for way in self.secured():
                for settings in ({"tls_name": "other.example"}, {"ca": stranger}):
                    mailbox = self.peer.fresh()
                    await failure(self.send(mailbox, TEXT, way, **settings), TLSFailed)
                    assert await self.stored(mailbox, 0) == [], (way.name, settings)

    async def test_opportunistic_tls_takes_any_certificate(self) -> None:
        """It is encrypted all the same."""
        for way in self.secured():
            mailbox = self.peer.fresh()
            # It is not for this name, and signed by nobody whom the system knows.
            where = self.peer.where(implicit=way.implicit)
            connection = await connect(where, tls="opportunistic", tls_name="other.example")
            assert connection.tls_state is not None, way.name
            await connection.send_mail(SENDER, mailbox, TEXT)
            await connection.quit()
            await connection.disconnected
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT)


class WithAuth(WithTLS):
    """For servers that know a user."""

    about = frozenset({"AUTH"})

    async def test_no_mechanism_is_left_out(self) -> None:
        """Of all that we know."""
        offered = await self.offered()
        assert set(offered["AUTH"].split()) & CLIENTS.keys() == self.peer.mechanisms & CLIENTS.keys()

    async def test_every_mechanism_by_every_way(self) -> None:
        """With the right password mail is taken; with a wrong one we are told so, and nothing is sent."""
        mechanisms = sorted(self.peer.mechanisms & CLIENTS.keys())
        ways = self.ways() if self.peer.clear_auth else self.secured()
        # At once: a wrong password is answered late.
        logins = [Deferred.fromCoroutine(self.check_login(way, name)) for way in ways for name in mechanisms]
        await gatherResults(logins, consumeErrors=True)

    async def check_login(self, way: Way, mechanism: str) -> None:
        """By one mechanism, with the right password and with a wrong one."""
        mailbox = self.peer.fresh()
        await self.send(mailbox, TEXT, way, auth=client(mechanism, self.peer.user, self.peer.password))
        error = await failure(self.send(mailbox, TEXT, way, auth=client(mechanism, self.peer.user, "wrong")), Refused)
        assert (error.phase, error.reply.code) == ("AUTH", 535), (way.name, mechanism, error)
        (stored,) = await self.stored(mailbox)
        check_octets(stored, TEXT)

    async def test_name_and_password_alone(self) -> None:
        """Whichever mechanism is taken: TLS comes first without being asked for, other than on a Unix socket."""
        unasked = {"tls": None} if self.peer.socket is None else {}
        for way in self.secured():
            mailbox = self.peer.fresh()
            await self.send(mailbox, TEXT, way, auth=(self.peer.user, self.peer.password), **unasked)
            (stored,) = await self.stored(mailbox)
            check_octets(stored, TEXT)
