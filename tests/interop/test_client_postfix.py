"""Our client sends to Postfix."""

from __future__ import annotations

from contextlib import AbstractContextManager
from email import message_from_bytes

from twisted.trial import unittest

from smtpfw.client import connect
from smtpfw.errors import Refused
from smtpfw.extensions.dsn import ENVID, NOTIFY, RET
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.transaction import Recipient
from tests.interop.client_matrix import WithChunking, WithLimit
from tests.interop.outgoing import TEXT, failure
from tests.interop.secured_matrix import WithAuth
from tests.interop.servers.common import Peer
from tests.interop.servers.postfix_server import postfix_server


class ToPostfix(WithChunking, WithLimit, WithAuth, unittest.TestCase):
    """smtpd has PIPELINING, CHUNKING and SMTPUTF8; Cyrus SASL has every mechanism with a password."""

    @classmethod
    def open_peer(cls) -> AbstractContextManager[Peer]:
        return postfix_server()

    async def test_a_report_of_success_is_asked_for(self) -> None:
        """RET, ENVID and NOTIFY are what Postfix goes by, and what it writes into its report."""
        sender, mailbox = self.peer.fresh(), self.peer.fresh()
        local_part, _, domain = mailbox.partition("@")
        recipient = Recipient(Address(local_part, domain), Options({NOTIFY.keyword: frozenset({"SUCCESS"})}))
        await self.send(recipient, TEXT, sender=sender, options={RET: "HDRS", ENVID: "a + b"})
        (report,) = [message_from_bytes(octets) for octets in await self.stored(sender)]
        (status,) = (part for part in report.walk() if part.get_content_type() == "message/delivery-status")
        told = {name: value for part in status.walk() for name, value in part.items()}
        assert told["Original-Envelope-Id"] == "a + b"
        assert (told["Final-Recipient"], told["Action"]) == (f"rfc822; {mailbox}", "delivered")
        (returned,) = (part for part in report.walk() if part.get_content_type() == "text/rfc822-headers")
        assert "Message-ID: <1@example.net>" in returned.get_payload()

    async def test_asking_for_a_mailbox(self) -> None:
        client = await connect(self.peer.where(), tls="none")
        assert await client.verify(self.peer.fresh()) is None
        error = await failure(client.verify(self.peer.refused()), Refused)
        assert error.reply.code == 550
        await client.quit()
        await client.disconnected
