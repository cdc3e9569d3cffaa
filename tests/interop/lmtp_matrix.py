"""
What our client does with an LMTP server that people have; the same tests for every one of them.

Beyond SMTP, each recipient has its answer to the message, one that may differ
from the others', and the connection serves any number of messages.
"""

from __future__ import annotations

from smtpfw.client import connect
from smtpfw.errors import Refused
from smtpfw.wire.results import RecipientResult
from tests.interop.client_matrix import WithChunking
from tests.interop.outgoing import CONFIGS, EIGHT_BIT, SENDER, TEXT, check_octets, failure
from tests.interop.secured_matrix import WithTLS
from tests.interop.servers.common import DOMAIN, FULL


class LMTPMatrix(WithChunking, WithTLS):
    """
    The tests of SMTP, and those of what LMTP has beyond it.

    :cvar full_code: what the server says of a message to a mailbox without room.
    """

    full_code: int

    async def test_each_recipient_has_its_own_answer(self) -> None:
        for way in self.ways():
            for name, config in CONFIGS.items():
                first, last = self.peer.fresh(), self.peer.fresh()
                full, unknown = f"{FULL[0]}@{DOMAIN}", self.peer.refused()
                result = await self.send([first, full, unknown, last], EIGHT_BIT, way, config=config)
                outcomes = {str(each.recipient): each for each in result.recipients}
                assert list(outcomes) == [first, full, unknown, last], (way.name, name)
                assert result.reply is None
                assert [each.accepted for each in result.recipients] == [True, False, False, True]
                for each, phase, code in ((outcomes[full], "END", self.full_code), (outcomes[unknown], "RCPT", 550)):
                    assert isinstance(each.error, Refused)
                    assert (each.error.phase, each.error.reply.code, each.reply) == (phase, code, each.error.reply)
                for mailbox in (first, last):
                    reply = outcomes[mailbox].reply
                    assert reply is not None and reply.code == 250
                    (stored,) = await self.stored(mailbox)
                    check_octets(stored, EIGHT_BIT)

    async def test_a_recipient_that_is_given_twice_has_two_answers(self) -> None:
        """Whether the mailbox then has one copy or two is the server's business."""
        twice, full = self.peer.fresh(), f"{FULL[1]}@{DOMAIN}"
        result = await self.send([twice, full, twice], TEXT)
        assert [(str(each.recipient), each.accepted) for each in result.recipients] == [
            (twice, True),
            (full, False),
            (twice, True),
        ]
        for stored in await self.stored(twice):
            check_octets(stored, TEXT)

    async def test_no_mailbox_has_room(self) -> None:
        """Every RCPT was accepted, and nobody got the message: that is an error, with the result in it."""
        recipients = [f"{name}@{DOMAIN}" for name in FULL[2:5]]
        for name, config in CONFIGS.items():
            error = await failure(self.send(recipients, TEXT, config=config), Refused)
            assert (error.phase, error.reply.code) == ("END", self.full_code), name
            assert [str(each.recipient) for each in error.result.refused] == recipients

    async def test_twenty_messages_on_one_connection(self) -> None:
        """Answers stay with their recipients, whatever became of the message before."""
        client = await connect(self.peer.where(), tls="none")
        whole, full = self.peer.fresh(), f"{FULL[5]}@{DOMAIN}"
        for number in range(20):
            unknown = self.peer.refused()
            recipients = [(full, whole, unknown), (unknown, full), (whole,)][number % 3]
            expected = [recipient == whole for recipient in recipients]
            try:
                result = await client.send_mail(SENDER, recipients, TEXT)
            except Refused as error:
                result = error.result
            assert [each.accepted for each in result.recipients] == expected, (number, result)
            assert [str(each.recipient) for each in result.recipients] == list(recipients)
        await client.quit()
        for stored in await self.stored(whole, 13):
            check_octets(stored, TEXT)

    async def test_answers_come_one_by_one(self) -> None:
        client = await connect(self.peer.where(), tls="none")
        first, full, last = self.peer.fresh(), f"{FULL[6]}@{DOMAIN}", self.peer.fresh()
        await client.mail(SENDER)
        for recipient in (first, full, last):
            await client.rcpt(recipient)
        heard: list[RecipientResult] = []
        results = await client.lmtp_data(TEXT, heard.append)
        await client.quit()
        assert heard == results
        assert [(str(each.recipient), each.accepted) for each in results] == [
            (first, True),
            (full, False),
            (last, True),
        ]
