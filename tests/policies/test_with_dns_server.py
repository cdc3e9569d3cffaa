"""
The checks that ask DNS, in a whole server, against a DNS server of Twisted: listed, unlisted, slow, broken.

Sockets and time are real; time limits are short, and nothing sleeps.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.names import dns
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.policies import DNSBL, Greylist, ReverseDNS
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.dns.dns_server import (
    ALWAYS_TRUNCATED,
    CUT_IN_STREAM,
    GARBAGE,
    OTHER_IN_STREAM,
    REFUSED,
    SERVFAIL,
    SILENT,
    TRUNCATED,
    DNSServer,
    turn,
)
from tests.server.helpers import HELLO, MAIL, RCPT, RECIPIENT_OK, SENDER_OK

LISTED, CLEAN, WELCOME = "192.0.2.1", "192.0.2.2", "192.0.2.3"
LISTED6, CLEAN6 = "2001:db8::bad", "2001:db8::600d"

#: Seconds for what is never answered, and for what is, on however slow a machine.
SHORT, LONG = 0.2, 60.0

GREETING = b"220 mx.test ESMTP smtpfw\r\n"


def _listing(host: str, zone: str, *answers: str) -> dict[str, list[Any]]:
    pointer = ip_address(host).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return {f"{pointer}.{zone}": [dns.Record_A(answer) for answer in answers]}


def _names(host: str, *names: str) -> dict[str, list[Any]]:
    return {ip_address(host).reverse_pointer: [dns.Record_PTR(name) for name in names]}


RECORDS: dict[str, list[Any]] = {
    **_listing(LISTED, "bl.test", "127.0.0.2", "127.0.0.10"),
    **_listing(LISTED6, "bl.test", "127.0.0.2"),
    **_listing(WELCOME, "bl.test", "127.0.0.2"),
    **_listing(WELCOME, "wl.test", "127.0.5.1"),
    **_listing(LISTED, "cut.test", "127.0.0.2"),
    **_listing(CLEAN, "public.test", "127.255.255.254"),
    "*.gone.test": [dns.Record_A("203.0.113.80")],
    # Another list, under its old name.
    "1.2.0.192.old.test": [dns.Record_CNAME("1.2.0.192.bl.test")],
    **_names(LISTED, "mx.bad.test"),
    "mx.bad.test": [dns.Record_A("192.0.2.77")],
    **_names(CLEAN, "other.good.test", "MX.good.test"),
    **_names(CLEAN6, "mx.good.test"),
    "mx.good.test": [dns.Record_A(CLEAN), dns.Record_AAAA(CLEAN6)],
    "other.good.test": [dns.Record_CNAME("x.good.test")],
    "x.good.test": [dns.Record_A("192.0.2.78")],
    **_names(WELCOME, "mx.slow.test"),
}

TROUBLE = {
    ".slow.test": SILENT,
    ".fails.test": SERVFAIL,
    ".refuses.test": REFUSED,
    ".garbage.test": GARBAGE,
    ".cut.test": TRUNCATED,
    ".circle.test": ALWAYS_TRUNCATED,
    ".half.test": CUT_IN_STREAM,
    ".other.test": OTHER_IN_STREAM,
    ip_address("192.0.2.9").reverse_pointer: SERVFAIL,
    ip_address("192.0.2.8").reverse_pointer: SILENT,
}


class DNSTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.server = DNSServer(RECORDS, TROUBLE)
        self.resolver, stop = self.server.listen()
        self.addCleanup(stop)
        self.backend = RecordingBackend()
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def factory(self, *checks: Any) -> SMTPServerFactory:
        return SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test"),
            checks=checks,
            reactor=IReactorTime(reactor),
            resolver=self.resolver,
        )

    def client(self, factory: SMTPServerFactory, host: str) -> MemoryClient:
        address = (IPv6Address if ":" in host else IPv4Address)("TCP", host, 9)
        client = MemoryClient.of(factory, address)
        self.addCleanup(client.disconnect)
        return client

    async def reply(self, client: MemoryClient, *said: bytes) -> str:
        """What the last of some commands gets; each is sent when the one before has its answer."""
        for words in said or (b"",):
            answer = client.send(words) if words else client.received()
            while not answer.endswith(b"\r\n"):
                answer += client.received()
                await turn()
        return answer.decode()

    async def greeting(self, check: Any, host: str) -> str:
        return await self.reply(self.client(self.factory(check), host))

    def complaints(self) -> list[str]:
        return [event["log_format"].format(**event) for event in self.logged if "trouble" in event]


class DNSBLTests(DNSTestCase):
    async def test_listed_and_unlisted(self) -> None:
        for listed, clean in ((LISTED, CLEAN), (LISTED6, CLEAN6)):
            self.assertEqual(
                await self.greeting(DNSBL("bl.test"), listed),
                f"554 5.7.1 Your address {listed} is listed by bl.test\r\n",
            )
            self.assertEqual(await self.greeting(DNSBL("bl.test"), clean), GREETING.decode())
        self.assertEqual(self.complaints(), [])

    async def test_weights_and_answers(self) -> None:
        zones = ["bl.test*2", "wl.test/127.0.0-255.1-3*-1", "missing.test"]
        check = DNSBL(zones, threshold=2)
        answers = [(await self.greeting(check, host))[:3] for host in (LISTED, CLEAN, WELCOME, LISTED6)]
        self.assertEqual(answers, ["554", "220", "220", "554"])
        check = DNSBL(["bl.test/127.0.0.10"])
        answers = [(await self.greeting(check, host))[:3] for host in (LISTED, WELCOME)]
        self.assertEqual(answers, ["554", "220"])

    async def test_a_list_behind_an_alias(self) -> None:
        self.assertEqual((await self.greeting(DNSBL("old.test"), LISTED))[:3], "554")

    async def test_broken_and_slow_ones_pass_or_are_refused(self) -> None:
        public = "it answers 127.255.255.254, an error: who asks by a public resolver, or too much, is not"
        for zone, limit, trouble in (
            ("slow.test", SHORT, "no answer in time"),
            ("fails.test", LONG, "the name server failed (SERVFAIL)"),
            ("refuses.test", LONG, "the name server refused"),
            ("garbage.test", SHORT, "no answer in time"),
            ("circle.test", LONG, "cut off over TCP, too"),
            ("half.test", SHORT, "no answer in time"),
            ("other.test", LONG, "an answer to another question"),
            ("gone.test", LONG, "it answers 203.0.113.80, which is outside of 127.0.0.0/8: it may exist no more"),
            ("public.test", LONG, public),
        ):
            self.logged.clear()
            for unknown, expected in (("pass", "220 "), ("refuse", "421 4.7.1 Your address can't be looked up")):
                answer = await self.greeting(DNSBL(zone, timeout=limit, unknown=unknown), CLEAN)
                self.assertTrue(answer.startswith(expected), (zone, answer))
            self.assertEqual(len(self.complaints()), 2)
            self.assertTrue(self.complaints()[0].startswith(f"{zone}: {trouble}"), self.complaints())
        # It is asked for over TCP once, and not in circles.
        self.assertEqual(self.server.asked.count(("2.2.0.192.circle.test", "tcp")), 2)

    async def test_the_log_is_told_once(self) -> None:
        check = DNSBL("fails.test")
        for _ in range(3):
            await self.greeting(check, CLEAN)
        self.assertEqual(len(self.complaints()), 1)

    async def test_an_answer_that_is_cut_is_asked_for_by_tcp(self) -> None:
        self.assertEqual((await self.greeting(DNSBL("cut.test"), LISTED))[:3], "554")
        self.assertEqual(self.server.asked, [("1.2.0.192.cut.test", "udp"), ("1.2.0.192.cut.test", "tcp")])
        self.assertEqual((await self.greeting(DNSBL("cut.test"), CLEAN))[:3], "220")

    async def test_a_slow_one_holds_up_nobody_whom_the_others_refuse(self) -> None:
        # By the time limit the test would be over, and fail.
        check = DNSBL(["slow.test", "bl.test"], timeout=1000.0)
        self.assertEqual((await self.greeting(check, LISTED))[:3], "554")

    async def test_at_rcpt(self) -> None:
        client = self.client(self.factory(DNSBL("bl.test", at="rcpt")), LISTED)
        self.assertEqual(await self.reply(client), GREETING.decode())
        self.assertEqual(await self.reply(client, HELLO, MAIL), SENDER_OK.decode())
        refused = f"554 5.7.1 Your address {LISTED} is listed by bl.test\r\n"
        self.assertEqual(await self.reply(client, RCPT), refused)
        self.assertEqual(await self.reply(client, RCPT), refused)
        self.assertEqual(len(self.server.asked), 1)
        self.assertNotIn("rcpt", [name for name, _ in self.backend.events])

    async def test_who_goes_meanwhile(self) -> None:
        factory = self.factory(DNSBL("slow.test", timeout=1000.0))
        client = self.client(factory, CLEAN)
        client.disconnect()
        self.assertEqual(factory.connections, set())

    async def test_many_clients_at_once(self) -> None:
        factory = self.factory(DNSBL("bl.test", timeout=LONG))
        clients = [self.client(factory, f"192.0.2.{number % 4}") for number in range(200)]
        answers = [(await self.reply(client))[:3] for client in clients]
        self.assertEqual(answers, ["220", "554", "220", "554"] * 50)


class ReverseDNSTests(DNSTestCase):
    async def test_names_that_lead_back_and_names_that_do_not(self) -> None:
        for host in (CLEAN, CLEAN6):
            self.assertEqual(await self.greeting(ReverseDNS(), host), GREETING.decode())
        self.assertEqual(
            await self.greeting(ReverseDNS(), LISTED),
            "421 4.7.25 The name of your address 192.0.2.1 in DNS, mx.bad.test, does not lead back to it\r\n",
        )
        self.assertEqual(await self.greeting(ReverseDNS(require="name"), LISTED), GREETING.decode())
        for host in ("192.0.2.4", LISTED6):
            self.assertEqual(
                await self.greeting(ReverseDNS(require="name"), host),
                f"421 4.7.25 Your address {host} has no name in DNS\r\n",
            )

    async def test_slow_and_broken(self) -> None:
        for host, limit, trouble in (
            (WELCOME, SHORT, "no answer in time"),
            ("192.0.2.8", SHORT, "no answer in time"),
            ("192.0.2.9", LONG, "the name server failed (SERVFAIL)"),
        ):
            self.logged.clear()
            self.assertEqual((await self.greeting(ReverseDNS(timeout=limit), host))[:3], "220")
            (complaint,) = self.complaints()
            # On a slow machine the first of two questions may have used up all the time.
            complaint = complaint.replace("no time left to look up A of mx.slow.test", "no answer in time")
            self.assertEqual(complaint, f"reverse DNS of {host}: {trouble}; clients that nobody knows: they are let in")
            answer = await self.greeting(ReverseDNS(timeout=limit, unknown="refuse"), host)
            self.assertEqual(answer[:9], "421 4.7.1")

    async def test_at_mail(self) -> None:
        client = self.client(self.factory(ReverseDNS(at="mail")), LISTED)
        await self.reply(client)
        self.assertEqual((await self.reply(client, HELLO, MAIL))[:11], "450 4.7.25 ")

    async def test_both_and_the_name_of_the_session(self) -> None:
        factory = self.factory(ReverseDNS(), DNSBL("bl.test"))
        self.assertEqual(await self.reply(self.client(factory, CLEAN)), GREETING.decode())
        self.assertEqual(await self.backend.sessions[-1].connection.look_up_name(), "other.good.test")


class GreylistTests(DNSTestCase):
    WAIT = "450 4.7.1 Greylisted, come back in 300 seconds\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.wall = Clock()
        self.wall.advance(1_800_000_000)
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name).resolve() / "grey.db"

    def serve(self) -> SMTPServerFactory:
        """One of several workers, or one behind a restart."""
        return self.factory(DNSBL("bl.test"), ReverseDNS(), Greylist(self.path, now=self.wall.seconds))

    async def rcpt(self, factory: SMTPServerFactory, host: str, *recipients: bytes) -> list[str]:
        client = self.client(factory, host)
        await self.reply(client)
        await self.reply(client, HELLO, MAIL)
        return [await self.reply(client, b"RCPT TO:<%b>\r\n" % one) for one in recipients or (b"c@d.test",)]

    async def test_the_retry_comes_to_another_worker_and_after_a_restart(self) -> None:
        one, other = self.serve(), self.serve()
        for host in (CLEAN, CLEAN6):
            self.assertEqual(await self.rcpt(one, host), [self.WAIT])
            self.wall.advance(120)
            self.assertEqual((await self.rcpt(other, host))[0][-14:], " 180 seconds\r\n")
            self.wall.advance(180)
            self.assertEqual(await self.rcpt(other, host), [RECIPIENT_OK.decode()])
            self.assertEqual(await self.rcpt(one, host), [RECIPIENT_OK.decode()])
        restarted = self.serve()
        self.assertEqual(await self.rcpt(restarted, CLEAN6), [RECIPIENT_OK.decode()])
        self.assertEqual(
            await self.rcpt(restarted, CLEAN, b"new@d.test", b"C@d.test"), [self.WAIT, RECIPIENT_OK.decode()]
        )

    async def test_who_goes_meanwhile_breaks_nothing(self) -> None:
        factory = self.serve()
        for _ in range(3):
            client = self.client(factory, CLEAN)
            await self.reply(client)
            await self.reply(client, HELLO, MAIL)
            client.send(RCPT)
            client.disconnect()
        self.assertEqual((await self.rcpt(factory, CLEAN))[0][:9], "450 4.7.1")
        self.wall.advance(300)
        self.assertEqual(await self.rcpt(factory, CLEAN), [RECIPIENT_OK.decode()])
        self.assertEqual(self.complaints(), [])

    async def test_a_message_goes_through_in_the_end(self) -> None:
        factory = self.serve()
        await self.rcpt(factory, CLEAN)
        self.wall.advance(301)
        client = self.client(factory, CLEAN)
        await self.reply(client)
        answer = await self.reply(client, HELLO, MAIL, RCPT, b"DATA\r\n", b"Subject: x\r\n\r\nhello\r\n.\r\n")
        self.assertEqual(answer[:3], "250")
        self.assertEqual(len(self.backend.messages), 1)
