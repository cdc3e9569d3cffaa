"""AUTH over the wire: who may, when, with what answers; and what is remembered of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import Address, ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.errors import AuthFailed, ConfigError
from smtpfw.extensions import STANDARD, Auth
from smtpfw.extensions.auth import AUTH, FAILURE_DELAY
from smtpfw.interfaces import IAuthSession, IPlainAuthSession
from smtpfw.sasl import (
    CRAM_MD5,
    LOGIN,
    PLAIN,
    SCRAM,
    SCRAM_SHA_256,
    CramMD5,
    IPasswordChecker,
    ISecretStore,
    ITokenChecker,
    ServerInfo,
)
from smtpfw.sasl.users import UsersFile, make_secret
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.phases import READY, Verb
from smtpfw.wire.profiles import DEFAULT, STRICT
from smtpfw.wire.replies import Reply
from tests.server.helpers import HELLO, MAIL, RCPT, codes

SECRET = "a very secret secret"
GOOD = b64encode(f"\0tim\0{SECRET}".encode())
BAD = b64encode(b"\0tim\0wrong")
DONE = b"235 2.7.0 Authentication succeeded\r\n"
FAILED = b"535 5.7.8 Authentication credentials invalid\r\n"


@implementer(IPasswordChecker, ISecretStore)
class Users:
    """Knows Tim, by value or, if told so, later."""

    def __init__(self) -> None:
        self.wait: Deferred[None] | None = None

    async def check_password(self, username: str, password: str) -> str:
        if self.wait is not None:
            await self.wait
        if (username, password) != ("tim", SECRET):
            raise AuthFailed
        return username

    def get_secret(self, username: str) -> str | None:
        return SECRET if username == "tim" else None


@implementer(ITokenChecker)
class Tokens:
    """Knows no token."""

    def check_token(self, username: str, token: str) -> str:
        raise AuthFailed


class AuthTestCase(TestCase):
    def connect(self, *said: bytes, auth: Auth | None = None, backend: Any = None, **settings: Any) -> MemoryClient:
        self.clock = Clock()
        self.users = Users()
        self.backend = backend or RecordingBackend()
        extension = auth or Auth(self.users, allow_insecure=True)
        config = ServerConfig(hostname="mx.test", **settings)
        factory = SMTPServerFactory(self.backend, config, extensions=[*STANDARD, extension], reactor=self.clock)
        client = MemoryClient.of(factory)
        for words in said:
            client.send(words)
        client.received()
        return client

    def fail(self, client: MemoryClient, said: bytes) -> bytes:  # type: ignore[override]
        """Say something wrong; return the answer, which comes late."""
        self.assertEqual(client.send(said), b"")
        self.clock.advance(FAILURE_DELAY)
        return client.received()


def lines(*words: bytes) -> bytes:
    return b"".join(word + b"\r\n" for word in words)


class Offer(AuthTestCase):
    def test_what_the_checker_can_verify(self) -> None:
        client = self.connect()
        (line,) = [line for line in client.send(HELLO).splitlines() if line[4:].startswith(b"AUTH")]
        self.assertEqual(line[4:], b"AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN")

    def test_nothing_without_a_checker(self) -> None:
        client = self.connect(auth=Auth(allow_insecure=True))
        self.assertNotIn(b"AUTH", client.send(HELLO))
        self.assertTrue(client.send(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"502 5.5.1 "))

    def test_nothing_on_a_clear_line(self) -> None:
        client = self.connect(auth=Auth(Users()))
        self.assertNotIn(b"AUTH", client.send(HELLO))
        self.assertTrue(client.send(b"AUTH PLAIN " + GOOD + b"\r\n").startswith(b"538 5.7.11 "))

    def test_hashes_that_there_are_keys_of(self) -> None:
        # Not trial's mktemp(): under pytest it stays in the current folder.
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with_keys = Path(folder.name, "users")
        with_keys.write_text(f"tim:{make_secret(SECRET, 'scram-sha-256')}\n")
        client = self.connect(auth=Auth(UsersFile(with_keys), allow_insecure=True))
        self.assertIn(b"-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n", client.send(HELLO).replace(b"250 AUTH", b"250-AUTH"))

    def test_nothing_once_it_is_done(self) -> None:
        client = self.connect(HELLO, b"AUTH PLAIN " + GOOD + b"\r\n")
        self.assertNotIn(b"AUTH", client.send(HELLO))


class Described(TestCase):
    def test_in_words(self) -> None:
        words = "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN, under TLS"
        self.assertEqual(Auth(Users()).describe(), words)

    def test_a_function_is_no_checker(self) -> None:
        with self.assertRaisesRegex(ConfigError, "FunctionChecker"):
            Auth(lambda username, password: True)


class Exchange(AuthTestCase):
    def test_plain(self) -> None:
        client = self.connect(HELLO)
        self.assertEqual(client.send(b"auth plain " + GOOD + b"\r\n"), DONE)
        connection = self.backend.sessions[0].connection
        self.assertEqual((connection.identity, connection.mechanism, connection.protocol), ("tim", "PLAIN", "ESMTPA"))

    def test_plain_without_an_initial_response(self) -> None:
        client = self.connect(HELLO)
        self.assertEqual(client.send(b"AUTH PLAIN\r\n"), b"334 \r\n")
        self.assertEqual(client.send(GOOD + b"\r\n"), DONE)

    def test_everything_in_one_segment_or_octet_by_octet(self) -> None:
        said = HELLO + b"AUTH PLAIN\r\n" + GOOD + b"\r\n" + MAIL
        whole = self.connect().send(said)
        client = self.connect()
        self.assertEqual(b"".join(client.send(bytes([octet])) for octet in said), whole)
        self.assertTrue(whole.endswith(b"334 \r\n" + DONE + b"250 2.1.0 Sender OK\r\n"))

    def test_login(self) -> None:
        client = self.connect(HELLO)
        self.assertTrue(client.send(b"AUTH LOGIN\r\n").startswith(b"334 "))
        self.assertTrue(client.send(b64encode(b"tim") + b"\r\n").startswith(b"334 "))
        self.assertEqual(client.send(b64encode(SECRET.encode()) + b"\r\n"), DONE)

    def test_login_with_the_name_as_initial_response(self) -> None:
        client = self.connect(HELLO)
        self.assertTrue(client.send(b"AUTH LOGIN " + b64encode(b"tim") + b"\r\n").startswith(b"334 "))
        self.assertEqual(client.send(b64encode(SECRET.encode()) + b"\r\n"), DONE)

    def run_client(self, client: MemoryClient, sasl: Any, mechanism: str) -> bytes:
        name, initial = sasl.start(ServerInfo(name="mx.test", tls=True, mechanisms=[mechanism]))
        line = f"AUTH {name}".encode() + (b"" if initial is None else b" " + (b64encode(initial) or b"="))
        received = client.send(line + b"\r\n")
        while received.startswith(b"334 "):
            received = client.send(b64encode(sasl.next(b64decode(received[4:]), True)) + b"\r\n")
        return received

    def prove(self) -> MemoryClient:
        """The right proof, by SCRAM, up to the server's last word."""
        client, sasl = self.connect(HELLO), SCRAM("tim", SECRET)
        name, initial = sasl.start(ServerInfo(name="mx.test", tls=True, mechanisms=["SCRAM-SHA-256"]))
        assert initial is not None
        first = client.send(f"AUTH {name} ".encode() + b64encode(initial) + b"\r\n")
        last = client.send(b64encode(sasl.next(b64decode(first[4:]), True)) + b"\r\n")
        # It is a challenge of its own, as 235 has no room for it (RFC 4954 section 4).
        self.assertEqual((last[:4], b64decode(last[4:])[:2]), (b"334 ", b"v="))
        self.assertEqual(sasl.next(b64decode(last[4:]), True), b"")
        return client

    def test_scram_with_the_servers_last_word(self) -> None:
        client = self.prove()
        connection = self.backend.sessions[0].connection
        self.assertEqual((connection.identity, connection.mechanism), ("", ""))
        self.assertEqual(client.send(b"\r\n"), DONE)
        self.assertEqual((connection.identity, connection.mechanism), ("tim", "SCRAM-SHA-256"))

    def test_the_last_word_is_answered_by_an_empty_line_and_by_nothing_else(self) -> None:
        for said, answer in ((b64encode(b"x"), b"501 5.5.2"), (b"!!!!", b"501 5.5.2"), (b"*", b"501 5.7.0")):
            client = self.prove()
            received = client.send(said + b"\r\n")
            self.clock.advance(FAILURE_DELAY)
            self.assertEqual((received + client.received())[:9], answer, said)
            # Who does not believe the server has not logged in.
            self.assertEqual(self.backend.sessions[0].connection.identity, "")
            self.assertEqual(client.send(b"AUTH PLAIN " + GOOD + b"\r\n"), DONE)

    def test_cram_md5(self) -> None:
        client = self.connect(HELLO)
        self.assertEqual(self.run_client(client, CramMD5("tim", SECRET), "CRAM-MD5"), DONE)

    def test_a_long_challenge_is_one_line(self) -> None:
        @implementer(IAuthSession)
        class Own(Session):
            def auth_mechanisms(self) -> list[str]:
                return ["X-LONG"]

            def auth(self, mechanism: str) -> Any:
                return Long()

        class Long:
            identity = "somebody"
            asked = 0

            def next(self, response: bytes | None) -> tuple[bytes | None, bool]:
                self.asked += 1
                return (b"x" * 3000, False) if self.asked == 1 else (None, True)

        client = self.connect(HELLO, auth=Auth(allow_insecure=True), backend=SessionBackend(Own))
        received = client.send(b"AUTH X-LONG\r\n")
        self.assertEqual(received, b"334 " + b64encode(b"x" * 3000) + b"\r\n")
        self.assertEqual(client.send(b"\r\n"), DONE)


class Refusals(AuthTestCase):
    def test_wrong_credentials_are_answered_late(self) -> None:
        client = self.connect(HELLO)
        other = MemoryClient.of(client.protocol.factory)
        other.received()
        self.assertEqual(client.send(b"AUTH PLAIN " + BAD + b"\r\n"), b"")
        self.assertTrue(other.send(HELLO).startswith(b"250-"))
        self.clock.advance(FAILURE_DELAY - 0.1)
        self.assertEqual(client.received(), b"")
        self.clock.advance(0.1)
        self.assertEqual(client.received(), FAILED)
        self.assertEqual(client.send(b"AUTH PLAIN " + GOOD + b"\r\n"), DONE)

    def test_too_many(self) -> None:
        client = self.connect(HELLO, max_authentication_errors=3)
        said = b"AUTH PLAIN " + BAD + b"\r\n"
        self.assertEqual([self.fail(client, said)[:9] for _ in range(3)], [b"535 5.7.8"] * 2 + [b"421 4.7.0"])
        self.assertTrue(client.closed)

    def test_wrong_credentials_are_counted_apart(self) -> None:
        limits = {"max_authentication_errors": 3, "max_syntax_errors": 3, "max_sequence_errors": 3}
        client = self.connect(HELLO, **limits)
        said = b"AUTH PLAIN " + BAD + b"\r\n"
        self.assertEqual([self.fail(client, said) for _ in range(2)], [FAILED] * 2)
        self.assertEqual(
            codes(client.send(b"FROB\r\nAUTH PLAIN !!!!\r\nDATA\r\nDATA\r\n")), [b"500", b"501", b"503", b"503"]
        )
        self.assertEqual(self.fail(client, said)[:9], b"421 4.7.0")
        self.assertTrue(client.closed)

    def test_what_else_counts_as_syntax(self) -> None:
        for wrong in (b"AUTH NO-SUCH", b"AUTH", b"AUTH PLAIN !!!!"):
            client = self.connect(HELLO, max_syntax_errors=2)
            self.assertEqual(client.send(wrong + b"\r\n")[:1], b"5", wrong)
            self.assertEqual(client.send(wrong + b"\r\n")[:9], b"421 4.7.0", wrong)
            self.assertTrue(client.closed)

    def test_a_response_that_does_not_end_in_crlf(self) -> None:
        """A line of an exchange is a line: what is behind it is no command."""
        for profile in (STRICT, DEFAULT):
            for said in (GOOD + b"\nNOOP\r\n", GOOD + b"\rNOOP\r\n"):
                client = self.connect(profile=profile)
                self.clock.advance(profile.greeting_delay)
                client.send(HELLO + b"AUTH PLAIN\r\n")
                client.received()
                self.assertEqual(client.send(said), b"500 5.5.2 lines must end in CRLF\r\n", (profile.name, said))
                self.assertTrue(client.closed)
                self.assertEqual(self.backend.sessions[0].connection.identity, "")

    def test_before_tls_where_that_is_required(self) -> None:
        client = self.connect(HELLO, require_tls=True)
        self.assertEqual(client.send(b"AUTH PLAIN " + GOOD + b"\r\n")[:9], b"530 5.7.0")

    def test_words_that_are_wrong(self) -> None:
        for said, answer in (
            (b"AUTH", b"501 5.5.4"),
            (b"AUTH PLAIN a b", b"501 5.5.4"),
            (b"AUTH NO-SUCH", b"504 5.5.4"),
            (b"AUTH \xff\xfe", b"504 5.5.4"),
            (b"AUTH PLAIN !!!!", b"501 5.5.2"),
            (b"AUTH PLAIN AA", b"501 5.5.2"),
            (b"AUTH CRAM-MD5 " + GOOD, b"501 5.7.0"),
        ):
            client = self.connect(HELLO)
            self.assertEqual(client.send(said + b"\r\n")[:9], answer, said)
            self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")

    def test_a_response_that_is_wrong(self) -> None:
        for response, answer in ((b"*", b"501 5.7.0"), (b"!!!!", b"501 5.5.2"), (b"x" * 12_300, b"500 5.5.6")):
            client = self.connect(HELLO, b"AUTH PLAIN\r\n")
            self.assertEqual(client.send(response + b"\r\n")[:9], answer, response[:9])
            self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")

    def test_who_gives_up_after_the_verdict_waits_for_it_all_the_same(self) -> None:
        client = self.connect(HELLO, auth=Auth(Tokens(), allow_insecure=True))
        told = client.send(b"AUTH XOAUTH2 " + b64encode(b"user=tim\1auth=Bearer wrong\1\1") + b"\r\n")
        self.assertTrue(told.startswith(b"334 ey"))
        self.assertEqual(client.send(b"*\r\n"), b"")
        self.clock.advance(2)
        self.assertEqual(client.received()[:9], b"501 5.7.0")

    def test_long_lines(self) -> None:
        client = self.connect(HELLO)
        long = b"AUTH PLAIN " + b64encode(b"\0tim\0" + b"x" * 3000)
        self.assertGreater(len(long), 2600)
        self.assertEqual(self.fail(client, long + b"\r\n"), FAILED)
        self.assertEqual(client.send(b"AUTH PLAIN " + b"A" * 12_300 + b"\r\n")[:9], b"500 5.5.6")
        self.assertEqual(client.send(b"NOOP " + b"A" * 12_300 + b"\r\n")[:9], b"500 5.5.2")

    def test_out_of_place(self) -> None:
        plain = b"AUTH PLAIN " + GOOD + b"\r\n"
        for before in ((), (b"HELO me\r\n",), (HELLO, MAIL), (HELLO, MAIL, RCPT), (HELLO, plain)):
            client = self.connect(*before)
            self.assertEqual(client.send(plain)[:9], b"503 5.5.1", before)

    def test_required(self) -> None:
        client = self.connect(HELLO, auth=Auth(Users(), allow_insecure=True, required=True))
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Authentication required\r\n")
        self.assertEqual(codes(client.send(b"AUTH PLAIN " + GOOD + b"\r\n" + MAIL)), [b"235", b"250"])

    def test_a_checker_that_is_out_of_order(self) -> None:
        client = self.connect(HELLO)
        self.users.wait = Deferred()
        self.assertEqual(client.send(b"AUTH PLAIN " + GOOD + b"\r\nNOOP\r\n"), b"")
        with capturedLogs() as events:
            self.users.wait.errback(RuntimeError(f"no table, and {SECRET}"))
        self.assertEqual([line[:9] for line in client.received().splitlines()], [b"454 4.7.0", b"250 2.0.0"])
        self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(sum("log_failure" in event for event in events), 1)
        for event in events:
            traceback = event["log_failure"].getTraceback() if "log_failure" in event else ""
            self.assertNotIn(SECRET, repr(event) + traceback)

    def test_a_client_that_leaves_meanwhile(self) -> None:
        for said in (b"AUTH PLAIN\r\n", b"AUTH PLAIN " + BAD + b"\r\n"):
            client = self.connect(HELLO)
            client.send(said)
            client.disconnect()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.backend.events[-1], ("logout", "disconnected"))

    def test_a_half_close_in_the_middle(self) -> None:
        """No more lines will come, so the exchange can't come to its end."""
        client = self.connect(HELLO)
        client.send(b"AUTH PLAIN\r\n")
        client.half_close()
        self.assertTrue(client.closed)
        self.assertEqual(client.protocol.factory.connections, set())

    def test_a_half_close_behind_the_response(self) -> None:
        client = self.connect(HELLO)
        client.send(b"AUTH PLAIN " + BAD + b"\r\n")
        self.assertEqual(client.half_close(), b"")
        self.clock.advance(FAILURE_DELAY)
        self.assertEqual(client.received(), FAILED)
        self.assertTrue(client.closed)

    def test_a_shutdown_waits_for_no_response(self) -> None:
        client = self.connect(HELLO, b"AUTH PLAIN\r\n")
        self.successResultOf(client.protocol.factory.stop(30))
        self.assertTrue(client.received().startswith(b"421 4.3.2 "))

    def test_a_client_that_is_silent(self) -> None:
        client = self.connect(HELLO, b"AUTH PLAIN\r\n", command_timeout=60)
        self.clock.advance(61)
        self.assertTrue(client.received().startswith(b"421 4.4.2 "))


class Sessions(AuthTestCase):
    def test_a_session_that_checks_passwords(self) -> None:
        @implementer(IPlainAuthSession)
        class Own(Session):
            async def auth_plain(self, username: str, password: str) -> str | None:
                if password != SECRET:
                    raise AuthFailed
                return {"alias": "tim"}.get(username)

        client = self.connect(auth=Auth(allow_insecure=True), backend=SessionBackend(Own))
        self.assertIn(b"AUTH PLAIN LOGIN\r\n", client.send(HELLO))
        self.assertEqual(self.fail(client, b"AUTH PLAIN " + BAD + b"\r\n"), FAILED)
        alias = b64encode(f"\0alias\0{SECRET}".encode())
        self.assertEqual(client.send(b"AUTH PLAIN " + alias + b"\r\n"), DONE)
        self.assertEqual(client.protocol.wire.identity, "tim")

    def test_mechanisms_of_ones_choice(self) -> None:
        client = self.connect(auth=Auth(Users(), mechanisms=[PLAIN, LOGIN], allow_insecure=True))
        self.assertIn(b"AUTH PLAIN LOGIN\r\n", client.send(HELLO))
        self.assertEqual({PLAIN.plain_text, CRAM_MD5.plain_text, SCRAM_SHA_256.plain_text}, {True, False})


class Submitter(AuthTestCase):
    """AUTH= on MAIL (RFC 4954 section 5)."""

    def option(self, parameter: bytes) -> Any:
        seen: list[Any] = []
        backend = RecordingBackend(mail=lambda sender, options: seen.append(options))
        client = self.connect(HELLO, backend=backend)
        received = client.send(b"MAIL FROM:<a@b.test>" + parameter + b"\r\n")
        return (seen[0][AUTH], seen[0].auth) if seen else received[:9]

    def test_forms(self) -> None:
        address = Address("e+1", "f.test")
        self.assertEqual(self.option(b""), (None, None))
        self.assertEqual(self.option(b" AUTH=<>"), (Address("", ""),) * 2)
        self.assertEqual(self.option(b" AUTH=e+2B1@f.test"), (address, address))
        self.assertEqual(self.option(b" auth=<e+1@f.test>"), (address, address))

    def test_broken_ones(self) -> None:
        for parameter in (b" AUTH", b" AUTH=", b" AUTH=a+2@b", b" AUTH=nobody", b" AUTH=<a@b", b" AUTH=<a@b.testx"):
            self.assertEqual(self.option(parameter), b"501 5.5.4", parameter)

    def test_format_is_the_twin_of_parse(self) -> None:
        for address in (Address("", ""), Address("a", "b.test"), Address("x=y+z", "b.test"), Address("a b", "b.test")):
            self.assertEqual(AUTH.parse(AUTH.format(address)), address)


class ReadingLines(AuthTestCase):
    def test_who_gives_up_waiting_takes_no_command(self) -> None:
        async def serve(connection: Any, argument: bytes) -> Reply:
            try:
                line = await connection.application.read_line(100).addTimeout(5, self.clock)
            except DeferredTimeout:
                return Reply(250, "no line")
            return Reply(250, line.decode())

        class Asking(Extension):
            keyword = "X-ASK"
            verbs = (Verb("ASK", frozenset({READY}), serve=serve),)

        client = self.connect(HELLO, auth=Asking())  # type: ignore[arg-type]
        self.assertEqual(client.send(b"ASK\r\nan answer\r\n"), b"250 2.0.0 an answer\r\n")
        self.assertEqual(client.send(b"ASK\r\n"), b"")
        self.clock.advance(5)
        self.assertEqual(client.received(), b"250 2.0.0 no line\r\n")
        self.assertEqual(client.send(b"NOOP\r\n"), b"250 2.0.0 OK\r\n")
