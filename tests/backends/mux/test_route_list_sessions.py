"""Dialogs with a mux that goes by a list of routes: who may write to whom, mixed outcomes, shared deliveries."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.backends.mux import DISCARD, REJECT, MuxBackend, Reject, Route, RouteList
from smtpfw.backends.relay import RelayBackend
from smtpfw.errors import InsufficientStorage
from smtpfw.extensions import STANDARD, Auth
from smtpfw.interfaces import ILMTPSession
from smtpfw.networks import UNIX
from smtpfw.sasl import ANONYMOUS, PLAIN, IAnonymousChecker, IPasswordChecker
from smtpfw.testing import MemoryClient, MemoryEndpoint, RecordingBackend
from smtpfw.testing.memory import PEER
from smtpfw.wire.config import LMTP
from tests.backends.mux.helpers import (
    DOT,
    GO_AHEAD,
    MESSAGE,
    OK,
    RECIPIENT_OK,
    UNKNOWN,
    Store,
    begin,
    names,
    raising,
    send,
)

DENIED = b"550 5.7.1 Relaying denied\r\n"
REJECTED = b"550 5.7.1 Recipient address denied\r\n"
TOO_MANY = b"452 4.5.3 Too many recipients\r\n"
FULL = b"452 4.3.1 Insufficient system storage\r\n"


@implementer(IPasswordChecker, IAnonymousChecker)
class Anybody:
    """Takes any password for the right one."""

    def check_password(self, username: str, password: str) -> str:
        return username

    def check_anonymous(self, trace: str) -> str:
        return "anonymous"


class NextHop(RecordingBackend):
    """Passes mail on, as far as the mux can see: it can't take back what it has done."""

    relays = True


class Service(SessionBackend):
    """Counts its starts and stops."""

    def __init__(self) -> None:
        super().__init__(Session)
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


def connect(backend: MuxBackend, *, login: str = "", peer: Any = PEER, **settings: Any) -> MemoryClient:
    """A client that has introduced itself, and authenticated if it was given a login."""
    auth = Auth(Anybody(), mechanisms=[PLAIN, ANONYMOUS], allow_insecure=True)
    config = ServerConfig(hostname="mx.test", **settings)
    factory = SMTPServerFactory(backend, config, extensions=[*STANDARD, auth], reactor=Clock())
    client = MemoryClient.of(factory, peer)
    client.send(b"LHLO me\r\n" if settings.get("protocol") == LMTP else b"EHLO me\r\n")
    if login:
        words = (
            b"ANONYMOUS " + b64encode(b"me")
            if login == "anonymous"
            else b"PLAIN " + b64encode(f"\0{login}\0secret".encode())
        )
        assert client.send(b"AUTH " + words + b"\r\n").startswith(b"235 ")
    client.received()
    return client


def mux(*routes: Route, trusted: Iterable[str] = ()) -> MuxBackend:
    return MuxBackend(RouteList(routes, trusted=trusted))


class RecipientTests(TestCase):
    def test_a_service_of_a_domain_a_smarthost_and_some_exceptions(self) -> None:
        local, isp, script = Store(), NextHop(), Store()
        backend = mux(
            Route(["tim@example.test", "list-*@example.test"], script),
            Route("gone@example.test", Reject("550 5.1.6 Gone to another place")),
            Route("noreply@example.test", DISCARD),
            Route("boss@example.test", local, logins=["alice", "bob"]),
            Route("boss@example.test", REJECT),
            Route("example.test", local),
            Route("*", isp),
            trusted=["10.0.0.0/8", UNIX],
        )
        recipients = [
            "tim+x@example.test",
            "LIST-a@Example.test",
            "gone@example.test",
            "noreply@example.test",
            "boss@example.test",
            "x@example.test",
            "postmaster",
            "x@elsewhere.test",
        ]
        gone = b"550 5.1.6 Gone to another place\r\n"
        taken = [RECIPIENT_OK, RECIPIENT_OK, gone, RECIPIENT_OK]
        for login, peer, boss, elsewhere in (
            ("", PEER, REJECTED, DENIED),
            ("anonymous", PEER, REJECTED, DENIED),
            ("Alice", PEER, RECIPIENT_OK, RECIPIENT_OK),
            ("carol", PEER, REJECTED, RECIPIENT_OK),
            ("", IPv4Address("TCP", "10.9.9.9", 1025), REJECTED, RECIPIENT_OK),
            ("", UNIXAddress(None), REJECTED, RECIPIENT_OK),
        ):
            client = connect(backend, login=login, peer=peer)
            answers = begin(client, *recipients)
            self.assertEqual(answers, [*taken, boss, RECIPIENT_OK, RECIPIENT_OK, elsewhere], (login, peer))
            self.assertTrue(client.send(b"DATA\r\n").startswith(GO_AHEAD))
            self.assertEqual(client.send(MESSAGE + DOT), OK)
            bosses = ["boss"] if boss == RECIPIENT_OK else []
            self.assertEqual(local.messages.pop(), ([*bosses, "x", "postmaster"], MESSAGE))
            self.assertEqual(script.messages.pop(), (["tim+x", "LIST-a"], MESSAGE))
        self.assertEqual([str(message.recipients[0].address) for message in isp.messages], ["x@elsewhere.test"] * 4)

    def test_who_fits_nowhere(self) -> None:
        client = connect(mux(Route(["x@a.test", "postmaster", ".b.test"], Store())))
        answers = begin(client, "y@a.test", "y@b.test", "y@c.b.test", "x@a.test.test")
        self.assertEqual(answers, [UNKNOWN, DENIED, RECIPIENT_OK, DENIED])

    def test_the_next_login_is_judged_anew(self) -> None:
        backend = mux(Route("a.test", Store(), logins=["tim"]), Route("*", NextHop()))
        self.assertEqual(begin(connect(backend, login="tim"), "x@a.test"), [RECIPIENT_OK])
        client = connect(backend)
        self.assertEqual(begin(client, "x@a.test"), [UNKNOWN])
        client.send(b"RSET\r\nAUTH PLAIN " + b64encode(b"\0tim\0secret") + b"\r\n")
        self.assertEqual(begin(client, "x@a.test"), [RECIPIENT_OK])

    def test_verify(self) -> None:
        inbox = RecordingBackend(verify=lambda text: text)
        client = connect(mux(Route("gone@a.test", REJECT), Route("a.test", inbox), Route("*", inbox)))
        self.assertEqual(client.send(b"VRFY x@a.test\r\n"), b"250 2.1.5 x@a.test\r\n")
        self.assertEqual(client.send(b"VRFY gone@a.test\r\n"), REJECTED)
        self.assertEqual(client.send(b"VRFY x@b.test\r\n"), DENIED)


class MixedTests(TestCase):
    """One message for several outcomes."""

    def of(self, local: Store, isp: NextHop) -> MuxBackend:
        return mux(Route("drop@local.test", DISCARD), Route("local.test", local), Route("*", isp))

    def test_one_that_cannot_be_taken_back_and_others(self) -> None:
        local, isp = Store(), NextHop()
        client = connect(self.of(local, isp), login="tim")
        self.assertEqual(send(client, "drop@local.test", "x@isp.test", "x@local.test", "drop+x@local.test"), OK)
        self.assertEqual((local.messages, len(isp.messages)), ([(["x"], MESSAGE)], 1))

    def test_the_next_hop_refuses(self) -> None:
        local, isp = Store(), NextHop(data=raising(InsufficientStorage()))
        client = connect(self.of(local, isp), login="tim")
        refused = send(client, "drop@local.test", "x@local.test", "x@isp.test")
        self.assertEqual(refused, b"451 4.3.1 Insufficient system storage\r\n")
        self.assertEqual((local.events, local.messages), (["prepare", "roll_back"], []))

    def test_nothing_leaves_that_could_not_be_stored_here(self) -> None:
        async def fail(body: Any) -> bytes:
            await body.read()
            raise InsufficientStorage

        isp = NextHop()
        client = connect(self.of(Store(prepare=fail), isp), login="tim")
        self.assertTrue(send(client, "x@local.test", "x@isp.test").startswith(b"451 "))
        self.assertEqual(isp.messages, [])

    def test_discard_and_a_next_hop(self) -> None:
        isp = NextHop()
        client = connect(self.of(Store(), isp), login="tim")
        self.assertEqual(send(client, "drop@local.test", "x@isp.test"), OK)
        self.assertEqual(isp.messages[0].body, MESSAGE)
        self.assertEqual(send(client, "drop@local.test"), OK)
        self.assertEqual(len(isp.messages), 1)

    def test_a_second_one_that_cannot_be_taken_back(self) -> None:
        one, other, local = NextHop(), NextHop(), Store()
        backend = mux(Route("one.test", one), Route("local.test", local), Route("*", other))
        client = connect(backend, login="tim")
        answers = begin(client, "x@one.test", "x@other.test", "x@local.test", "y@one.test")
        self.assertEqual(answers, [RECIPIENT_OK, TOO_MANY, RECIPIENT_OK, RECIPIENT_OK])
        self.assertNotIn("mail", names(other))
        client.send(b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), OK)
        self.assertEqual(send(client, "x@other.test"), OK)
        self.assertEqual([len(target.messages) for target in (one, other, local)], [1, 1, 1])

    def test_a_backend_of_several_routes_is_one_target(self) -> None:
        isp = NextHop()
        client = connect(mux(Route("a.test", isp), Route("b.test", REJECT), Route("*", isp)), login="tim")
        self.assertEqual(send(client, "x@a.test", "x@c.test"), OK)
        self.assertEqual((len(isp.sessions), len(isp.messages[0].recipients)), (1, 2))

    def test_lmtp(self) -> None:
        one, other, local = NextHop(), NextHop(data=raising(InsufficientStorage())), Store()
        routes = (
            Route("gone@local.test", REJECT),
            Route("drop@local.test", DISCARD),
            Route("local.test", local),
            Route("one.test", one),
            Route("*", other),
        )
        client = connect(mux(*routes, trusted=["192.0.2.0/24"]), protocol=LMTP)
        accepted = ["x@other.test", "drop@local.test", "x@one.test", "x+y@local.test", "x@other.test"]
        self.assertEqual(begin(client, *accepted, "gone@local.test"), [*[RECIPIENT_OK] * 5, REJECTED])
        client.send(b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + DOT), FULL + OK + OK + OK + FULL)
        self.assertEqual((local.messages, len(one.messages)), ([(["x+y"], MESSAGE)], 1))
        client.send(b"RSET\r\n")
        self.assertEqual(send(client, "drop@local.test", "drop@local.test"), OK * 2)
        stranger = connect(mux(*routes), protocol=LMTP)
        self.assertEqual(begin(stranger, "x@one.test", "x@local.test"), [DENIED, RECIPIENT_OK])

    def test_a_relay(self) -> None:
        there, local = RecordingBackend(), Store()
        hop = MemoryEndpoint(SMTPServerFactory(there, ServerConfig(hostname="isp.test"), reactor=Clock()))

        class Relay(RelayBackend):
            relays = True
            honours: frozenset[str] = frozenset()

        relay = Relay(hop, reactor=Clock())
        backend = mux(Route(["local.test", "postmaster"], local), Route("*", relay))
        client = connect(backend, login="tim")
        self.assertEqual(begin(client, "drop+x@local.test"), [RECIPIENT_OK])
        client.send(b"RCPT TO:<x@isp.test>\r\n")
        hop.flow()
        self.assertEqual(client.received(), RECIPIENT_OK)
        self.assertTrue(client.send(b"DATA\r\n").startswith(GO_AHEAD))
        client.send(MESSAGE + DOT)
        hop.flow()
        self.assertEqual(client.received(), OK)
        (message,) = there.messages
        self.assertEqual([str(one.address) for one in message.recipients], ["x@isp.test"])
        self.assertTrue(message.body.endswith(b"\r\n" + MESSAGE))  # behind our Received field
        self.assertEqual(local.messages, [(["drop+x"], MESSAGE)])
        hop.run(backend.stop())


class SharedTests(TestCase):
    """Several listeners lead to the same deliveries."""

    def test_each_takes_what_is_for_it(self) -> None:
        local, isp = Store(), NextHop()
        mx = MuxBackend(RouteList([Route("a.test", local)]), owns_targets=False)
        submission = MuxBackend(RouteList([Route("a.test", local), Route("*", isp)]), owns_targets=False)
        at_mx, at_submission = connect(mx, login="tim"), connect(submission, login="tim")
        self.assertEqual(begin(at_mx, "x@a.test", "x@b.test"), [RECIPIENT_OK, DENIED])
        self.assertEqual(send(at_submission, "y@a.test", "x@b.test"), OK)
        self.assertTrue(at_mx.send(b"DATA\r\n").startswith(GO_AHEAD))
        self.assertEqual(at_mx.send(MESSAGE + DOT), OK)
        self.assertEqual(local.messages, [(["y"], MESSAGE), (["x"], MESSAGE)])

    def test_what_is_shared_is_started_and_stopped_elsewhere(self) -> None:
        for owns, calls in ((True, ["start", "stop"]), (False, [])):
            service = Service()
            routes = RouteList([Route("a.test", service), Route("b.test", REJECT), Route("*", service)])
            backend = MuxBackend(routes, owns_targets=owns)
            self.successResultOf(Deferred.fromCoroutine(backend.start()))
            self.successResultOf(Deferred.fromCoroutine(backend.stop()))
            self.assertEqual(service.calls, calls)

    def test_each_honours_what_all_its_own_targets_honour(self) -> None:
        both, one = RecordingBackend(frozenset({"DSN", "REQUIRETLS"})), RecordingBackend(frozenset({"DSN"}))
        routes = [Route("a.test", both), Route("gone@b.test", REJECT)]
        self.assertEqual(mux(*routes).honours, {"DSN", "REQUIRETLS"})
        self.assertEqual(mux(*routes, Route("b.test", one)).honours, {"DSN"})
        # Nobody is notified of what is thrown away.
        self.assertEqual(mux(*routes, Route("b.test", DISCARD)).honours, frozenset())
        self.assertIn(b"DSN\r\n", connect(mux(*routes)).send(b"EHLO me\r\n"))


@implementer(ILMTPSession)
class EachAnswers(Session):
    """An LMTP session that refuses whoever it is told of by another name than it knows."""

    known = "postmaster@a.test"

    async def lmtp_data(self, body: Any, status: Any) -> None:
        await body.read()
        transaction = self.connection.transaction
        assert transaction is not None
        for recipient in transaction.recipients:
            status.set_status(recipient.address, None if str(recipient) == self.known else InsufficientStorage())


class PostmasterTests(TestCase):
    """RFC 5321 section 4.5.1: whoever takes mail for a domain takes that for <postmaster>."""

    def told(self, *routes: Route, to: str = "postmaster") -> str:
        target = next(route.outcome for route in routes if isinstance(route.outcome, RecordingBackend))
        client = connect(mux(*routes))
        self.assertEqual(send(client, to), OK)
        return str(target.messages.pop().recipients[0].address)

    def test_it_has_the_domain_that_its_route_is_for(self) -> None:
        local = RecordingBackend()
        self.assertEqual(self.told(Route(["a.test", "b.test"], local)), "postmaster@a.test")
        self.assertEqual(self.told(Route(["x@c.test", "b.test"], local), to="POSTMASTER"), "POSTMASTER@b.test")

    def test_it_has_none_where_backends_complete_it_rightly(self) -> None:
        local = RecordingBackend()
        self.assertEqual(self.told(Route(["postmaster", "a.test"], local)), "postmaster")
        # This host is mx.test.
        self.assertEqual(self.told(Route(["a.test", "mx.test"], local)), "postmaster")

    def test_in_lmtp_the_answer_is_for_whoever_was_named(self) -> None:
        for routes in (
            [Route("a.test", SessionBackend(EachAnswers))],
            [Route("a.test", SessionBackend(EachAnswers)), Route("b.test", RecordingBackend())],
        ):
            client = connect(mux(*routes), protocol=LMTP)
            others = ["x@b.test"] * (len(routes) - 1)
            begin(client, "other@a.test", "postmaster", "postmaster@a.test", *others)
            client.send(b"DATA\r\n")
            answers = client.send(MESSAGE + DOT).splitlines(keepends=True)
            self.assertEqual(answers, [FULL, OK, OK, *[OK] * len(others)])
