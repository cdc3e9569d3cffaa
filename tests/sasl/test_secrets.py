"""
No secret in any log event or reply, for every mechanism: dialogs over real TLS, right, wrong, broken and cut off.

An event is looked at in every form in which an observer writes one: as text, as
JSON, its fields by themselves, and its traceback with all that a Failure can
show. Looked for is the password or token, and each line that the client sent in
an exchange: plain, in base64, as a proof, and as Python prints octets.
"""

from __future__ import annotations

import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import Any

from cryptography import x509
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsJSON, formatEvent
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import AuthFailed, RemoteProtocolError
from smtpfw.extensions import STANDARD, Auth
from smtpfw.extensions.auth import FAILURE_DELAY, MAX_LINE
from smtpfw.sasl import (
    ICertificateChecker,
    IPasswordChecker,
    ISASLClient,
    ISCRAMKeyStore,
    ISecretStore,
    ITokenChecker,
    ServerInfo,
    make_scram_keys,
)
from smtpfw.sasl.interfaces import IAnonymousChecker
from smtpfw.testing import RecordingBackend
from smtpfw.tls import channel_bindings
from tests.sasl.helpers import BY_NAME, PASSWORD, TOKEN, Checker
from tests.sasl.test_pairs import CLIENTS, right
from tests.server.helpers import HELLO
from tests.server.test_external import ASKING, AUTHORITY, client_context
from tests.server.tls_in_memory import TLSClient

CERTIFICATE = AUTHORITY.named("tim")
KEYS = make_scram_keys(PASSWORD)

#: How a checker answers: at once, by a Deferred, by a coroutine.
WAYS = ("value", "Deferred", "coroutine")


class Knowing(Checker):
    """Knows Tim, and his real certificate."""

    def check_certificate(self, certificate: x509.Certificate, authorization_identity: str) -> Any:
        return self._answer(True, authorization_identity)


@implementer(IPasswordChecker, ISecretStore, ITokenChecker, ICertificateChecker, IAnonymousChecker, ISCRAMKeyStore)
class Broken:
    """Fails in a way that shows all that it was asked, and all that it knows."""

    def __init__(self, way: str, kind: type[Exception] = ValueError) -> None:
        self._way = way
        self._kind = kind

    def fail(self, *asked: Any) -> Any:
        hint = PASSWORD
        error = self._kind(f"{asked} {hint} {TOKEN}", PASSWORD, TOKEN, KEYS.stored_key, KEYS.server_key)
        error.add_note(f"{PASSWORD} {TOKEN}")
        error.__cause__ = KeyError(PASSWORD, TOKEN)
        if self._way == "Deferred":
            return defer.fail(error)
        if self._way == "coroutine":

            async def fail() -> None:
                raise error

            return fail()
        raise error

    check_password = get_secret = check_token = check_certificate = check_anonymous = get_scram_keys = fail


def shown(events: Iterable[Any]) -> str:
    """All that an observer could write of these events."""
    texts: list[str] = []
    for event in events:
        texts += [str(formatEvent(event)), eventAsJSON(event), repr(dict(event))]
        failure = event.get("log_failure")
        if failure is not None:
            texts += [failure.getTraceback(detail=detail) for detail in ("default", "brief", "verbose")]
            texts += [repr(failure.value), repr(vars(failure.value)), repr(failure.frames)]
    return "\n".join(texts)


def forms_of(response: bytes) -> set[str]:
    """A line that a client sent, as it may turn up."""
    octets = b64decode(response)
    forms = {response.decode(), repr(octets)[2:-1], octets.decode("utf-8", "replace"), octets.hex()}
    # SCRAM's proof, CRAM-MD5's digest.
    forms |= {repr(word)[2:-1] for word in octets.replace(b",p=", b" ").split(b" ")}
    return {form for form in forms if len(form) > 6}


SECRETS = {
    form
    for secret in (PASSWORD.encode(), TOKEN.encode(), KEYS.stored_key, KEYS.server_key)
    for form in forms_of(b64encode(secret))
}


class SecretsCase(TestCase):
    def begin(self, checker: Any) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        factory = SMTPServerFactory(
            self.backend,
            ServerConfig(hostname="mx.test"),
            tls=ASKING,
            extensions=[*STANDARD, Auth(checker)],
            reactor=self.clock,
        )
        self.client = TLSClient(factory, implicit=True)
        self.client.start_tls(context=client_context(CERTIFICATE))
        self.client.send(HELLO)
        self.replies = b""
        self.sent: list[bytes] = []

    def say(self, line: bytes) -> bytes:
        """Send a line; wait out the delay that a refusal has."""
        answer = self.client.send(line + b"\r\n")
        if not answer:
            self.clock.advance(FAILURE_DELAY)
            answer = self.client.send()
        if not answer.startswith(b"334"):
            self.replies += answer
        return answer

    def log_in(self, sasl: ISASLClient, name: str, spoil: Callable[[bytes], bytes] = bytes, at: int = -1) -> bytes:
        """
        Run an exchange.

        :param spoil: what becomes of the response number ``at``.
        """
        bindings = channel_bindings(self.client.server.transport) if name.endswith("-PLUS") else {}
        _, response = sasl.start(ServerInfo(name="mx.test", tls=True, mechanisms=[name], channel_bindings=bindings))
        count = itertools.count()

        def encode(octets: bytes) -> bytes:
            encoded = b64encode(octets)
            self.sent.append(encoded)
            return spoil(encoded) if next(count) == at else encoded

        answer = self.say(b"AUTH " + name.encode() + (b"" if response is None else b" " + (encode(response) or b"=")))
        while answer.startswith(b"334 "):
            try:
                octets = sasl.next(b64decode(answer[4:]), True)
            except RemoteProtocolError:
                # What was spoilt made the server ask for more.
                return self.say(b"*")
            assert octets is not None
            answer = self.say(encode(octets))
        return answer

    def assert_hidden(self, events: Iterable[Any]) -> None:
        text = shown(events) + repr(self.replies) + self.replies.decode("latin-1")
        for form in SECRETS.union(*map(forms_of, self.sent)):
            self.assertNotIn(form, text)

    def each(self) -> Iterable[tuple[str, ISASLClient]]:
        for make, name in CLIENTS:
            yield name, make("tim", right(name))


class Mechanisms(SecretsCase):
    def test_all_are_looked_at(self) -> None:
        self.assertEqual({name for name, _ in self.each()}, set(BY_NAME))

    def test_what_is_looked_for_would_be_found(self) -> None:
        # A test of the test: whoever logs the response is caught, in each way to write it.
        self.begin(Knowing())
        self.sent = [b64encode(f"\0tim\0{PASSWORD}".encode())]
        for leak in (self.sent[0].decode(), repr(b64decode(self.sent[0])), PASSWORD, b64encode(PASSWORD.encode())):
            with self.assertRaises(AssertionError):
                self.assert_hidden([{"log_format": "{leak}", "leak": leak}])

    def test_right(self) -> None:
        for name, sasl in self.each():
            self.begin(Knowing())
            with capturedLogs() as events:
                self.assertTrue(self.log_in(sasl, name).startswith(b"235 "), name)
                self.client.send(b"QUIT\r\n")
            self.assertTrue(any(event.get("mechanism") == name for event in events))
            self.assert_hidden(events)

    def test_wrong(self) -> None:
        for make, name in CLIENTS:
            if name in ("EXTERNAL", "ANONYMOUS"):
                continue
            for username, addition in (("tim", "x"), ("nobody", "")):
                self.begin(Knowing())
                with capturedLogs() as events:
                    answer = self.log_in(make(username, addition + right(name)), name)
                self.assertTrue(answer.startswith(b"535 "), name)
                self.assertTrue(any("535" in str(event.get("reply")) for event in events))
                self.assert_hidden(events)

    def test_a_checker_that_fails(self) -> None:
        # A CancelledError is more than an error to Twisted; here a checker raises it whom nobody has cancelled.
        for way, kind in itertools.product(WAYS, (ValueError, CancelledError)):
            for name, sasl in self.each():
                self.begin(Broken(way, kind))
                with capturedLogs() as events:
                    self.assertTrue(self.log_in(sasl, name).startswith(b"454 4.7.0 "), name)
                # The operator learns of it, by a traceback.
                self.assertTrue(any("log_failure" in event for event in events), name)
                self.assertEqual(len(self.flushLoggedErrors()), 1)
                self.assert_hidden(events)

    def test_a_checker_that_fails_while_deferreds_are_debugged(self) -> None:
        # twistd -b: Failures then hold the variables of all frames.
        self.addCleanup(defer.setDebugging, defer.getDebugging())
        defer.setDebugging(True)
        self.test_a_checker_that_fails()

    def test_a_checker_that_refuses_in_the_handling_of_an_error(self) -> None:
        class Hasty(Broken):
            def fail(self, *asked: Any) -> Any:
                try:
                    raise KeyError(PASSWORD, TOKEN, *asked)
                except KeyError:
                    raise AuthFailed  # noqa: B904

            check_password = get_secret = check_token = check_certificate = check_anonymous = get_scram_keys = fail

        for name, sasl in self.each():
            self.begin(Hasty("value"))
            with capturedLogs() as events:
                self.assertTrue(self.log_in(sasl, name).startswith(b"535 "), name)
            self.assert_hidden(events)

    def test_malformed(self) -> None:
        spoilers: list[Callable[[bytes], bytes]] = [
            lambda response: response + b"!",
            lambda response: response[:-1] or b"!",
            lambda response: b64encode(b64decode(response) + b"\0\xff"),
            lambda response: b64encode(b"\0" + b64decode(response)[::-1] + b"\xff"),
            lambda response: response + b" " + response,
            lambda response: response + b"A" * MAX_LINE,
            lambda response: b64encode(b64decode(response) * 9),
        ]
        for spoil in spoilers:
            for name, sasl in self.each():
                for at in range(3):
                    self.begin(Knowing())
                    with capturedLogs() as events:
                        answer = self.log_in(sasl, name, spoil, at)
                    if self.sent[at : at + 1] not in ([], [b""]):
                        self.assertIn(answer[:3], (b"500", b"501", b"535"), (name, at))
                    self.assert_hidden(events)

    def test_said_at_the_wrong_moment(self) -> None:
        for name, sasl in self.each():
            self.begin(Knowing())
            self.log_in(sasl, name)
            responses = [response for response in self.sent if response]
            commands = [b"AUTH " + name.encode() + b" " + response for response in responses]
            with capturedLogs() as events:
                # What follows an exchange that the client thinks is going on, or one that it may not begin.
                for line in (*responses, *commands, *(b"AUTH " + response for response in responses)):
                    self.assertIn(self.say(line)[:1], (b"5", b""))
            self.assert_hidden(events)

    def test_given_up(self) -> None:
        for name, sasl in self.each():
            if name in ("PLAIN", "EXTERNAL", "ANONYMOUS", "OAUTHBEARER", "XOAUTH2"):
                # They have said all at once.
                continue
            self.begin(Knowing())
            with capturedLogs() as events:
                answer = self.log_in(sasl, name, lambda response: b"*", 0 if name == "CRAM-MD5" else 1)
            self.assertTrue(answer.startswith(b"501 5.7.0 "), name)
            self.assert_hidden(events)

    def test_cut_off_while_the_checker_thinks(self) -> None:
        class Slow(Broken):
            def fail(self, *asked: Any) -> Any:
                return Deferred()

            check_password = get_secret = check_token = check_certificate = check_anonymous = get_scram_keys = fail

        for name, sasl in self.each():
            self.begin(Slow("value"))
            with capturedLogs() as events:
                self.log_in(sasl, name)
                self.client.transport.abortConnection()
            self.assertFalse(any("log_failure" in event for event in events), name)
            self.assert_hidden(events)
