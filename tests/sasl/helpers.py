"""A checker for everything that answers in three ways, and the loop that a connection runs around an exchange."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpfw.errors import AuthFailed, SMTPError
from smtpfw.hooks import call_hook
from smtpfw.sasl import (
    STANDARD,
    IAnonymousChecker,
    IAuthorizer,
    ICertificateChecker,
    IPasswordChecker,
    ISASLClient,
    ISASLServer,
    ISCRAMKeyStore,
    ISecretStore,
    ITokenChecker,
    Mechanism,
    SASLContext,
    ServerInfo,
    make_scram_keys,
)
from smtpfw.sasl.exchange import MAX_RESPONSE

PASSWORD = "tanstaaftanstaaf"
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
BINDINGS = {"tls-exporter": b"\x01" * 32, "tls-server-end-point": b"\x02" * 32}

CLEAR = SASLContext(hostname="mx.test")
BOUND = SASLContext(
    hostname="mx.test",
    tls=True,
    channel_bindings=BINDINGS,
    peer_certificate="a certificate",
)

INFO = ServerInfo(name="mx.test", tls=True, mechanisms=[mechanism.name for mechanism in STANDARD])
BOUND_INFO = ServerInfo(name="mx.test", tls=True, mechanisms=INFO.mechanisms, channel_bindings=BINDINGS)

BY_NAME: Mapping[str, Mechanism] = {mechanism.name: mechanism for mechanism in STANDARD}

__all__ = [
    "BINDINGS",
    "BOUND",
    "BOUND_INFO",
    "BY_NAME",
    "CLEAR",
    "INFO",
    "MAX_RESPONSE",
    "PASSWORD",
    "TOKEN",
    "WAYS",
    "AuthorizingChecker",
    "Checker",
    "KeyChecker",
    "at_once",
    "prove",
    "refusal_of",
    "server_for",
    "step",
    "talk",
]


def at_once(function: Callable[[], Any]) -> Any:
    return function()


def by_deferred(function: Callable[[], Any]) -> Any:
    return defer.maybeDeferred(function)


async def by_coroutine(function: Callable[[], Any]) -> Any:
    return function()


async def by_waiting(function: Callable[[], Any]) -> Any:
    """Answers only once the test turns the crank of ``step``."""
    waiting: Deferred[None] = Deferred()
    WAITING.append(waiting)
    await waiting
    return function()


WAITING: list[Deferred[None]] = []
WAYS = [at_once, by_deferred, by_coroutine, by_waiting]


@implementer(IPasswordChecker, ISecretStore, ITokenChecker, ICertificateChecker, IAnonymousChecker)
class Checker:
    """Knows ``tim`` and his password, his token and his certificate; says of him what ``identity`` says."""

    def __init__(
        self,
        way: Callable[[Callable[[], Any]], Any] = at_once,
        identity: str = "tim",
        password: str = PASSWORD,
        username: str = "tim",
    ) -> None:
        self.way = way
        self.identity = identity
        self.password = password
        self.username = username
        self.asked: list[tuple[str, ...]] = []

    def _answer(self, right: bool, *asked: str) -> Any:
        self.asked.append(asked)

        def answer() -> str:
            if not right:
                raise AuthFailed
            return self.identity

        return self.way(answer)

    def check_password(self, username: str, password: str) -> Any:
        return self._answer((username, password) == (self.username, self.password), username, password)

    def get_secret(self, username: str) -> Any:
        self.asked.append((username,))
        return self.way(lambda: self.password if username == self.username else None)

    def check_token(self, username: str, token: str) -> Any:
        return self._answer(username in ("", self.username) and token == TOKEN, username, token)

    def check_certificate(self, certificate: Any, authorization_identity: str) -> Any:
        right = certificate == "a certificate" and authorization_identity in ("", self.username)
        return self._answer(right, authorization_identity)

    def check_anonymous(self, trace: str) -> Any:
        return self._answer(True, trace)


@implementer(IAuthorizer)
class AuthorizingChecker(Checker):
    """``tim`` may act as ``ursel``, too."""

    def authorize(self, username: str, authorization_identity: str) -> Any:
        return self._answer((username, authorization_identity) == (self.identity, "ursel"), "authorize", username)


@implementer(ISCRAMKeyStore)
class KeyChecker:
    """Knows the keys of ``tim`` only."""

    def __init__(self, way: Callable[[Callable[[], Any]], Any] = at_once) -> None:
        self.way = way
        self.keys = {name: make_scram_keys(PASSWORD, name) for name in ("SHA-1", "SHA-256")}

    def get_scram_keys(self, username: str, hash_name: str) -> Any:
        return self.way(lambda: self.keys[hash_name] if username == "tim" else None)


def server_for(name: str, checker: Any = None, context: SASLContext | None = None) -> ISASLServer:
    """Begin an exchange; by default on a line that has all that the mechanism needs, and no more."""
    mechanism = BY_NAME[name]
    if context is None:
        context = CLEAR if mechanism.available(CLEAR) else BOUND
    return mechanism.make_server(Checker() if checker is None else checker, context)


def step(server: ISASLServer, response: bytes | None) -> tuple[bytes | None, bool]:
    """One step, to its end."""
    answer = call_hook(server.next, response)
    if not isinstance(answer, Deferred):
        return answer  # type: ignore[no-any-return]
    outcome: list[Any] = []
    answer.addBoth(outcome.append)
    while not outcome:
        WAITING.pop().callback(None)
    if hasattr(outcome[0], "raiseException"):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


def refusal_of(server: ISASLServer, *responses: bytes | None) -> SMTPError:
    """What one of the responses is refused with; those before it go well."""
    for response in responses:
        try:
            step(server, response)
        except SMTPError as error:
            return error
    raise AssertionError("nothing was refused")


def talk(client: ISASLClient, server: ISASLServer, info: ServerInfo = INFO, *, initial: bool = True) -> str:
    """
    Authenticate, as the two ends of a connection do.

    :param initial: whether the initial response goes with the command.
    :return: the identity.
    """
    _, response = client.start(info)
    kept = None if initial else response
    challenge, done = step(server, response if initial else None)
    while not done:
        assert challenge is not None
        if kept is not None:
            assert challenge == b""
            reply, kept = kept, None
        else:
            answer = client.next(challenge, True)
            assert answer is not None
            reply = answer
        challenge, done = step(server, reply)
    if challenge is not None:
        assert client.next(challenge, True) == b""
    assert client.next(b"", False) is None
    return server.identity


def prove(
    hash_name: str,
    first_bare: bytes,
    server_first: bytes,
    header: bytes,
    password: bytes = PASSWORD.encode(),
    nonce: bytes | None = None,
) -> tuple[bytes, bytes]:
    """The last messages of client and server, by RFC 5802 section 3, letter by letter. The nonce can be another one."""
    algorithm = {"SHA-1": "sha1", "SHA-256": "sha256"}[hash_name]

    def HMAC(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, algorithm).digest()

    attributes = dict(part.split(b"=", 1) for part in server_first.split(b","))
    # Hi(), without hashlib's help.
    salt, rounds = base64.b64decode(attributes[b"s"]), int(attributes[b"i"])
    block = HMAC(password, salt + b"\0\0\0\1")
    total = int.from_bytes(block, "big")
    for _ in range(rounds - 1):
        block = HMAC(password, block)
        total ^= int.from_bytes(block, "big")
    salted = total.to_bytes(len(block), "big")
    client_key = HMAC(salted, b"Client Key")
    without_proof = b"c=" + base64.b64encode(header) + b",r=" + (nonce or attributes[b"r"])
    auth_message = first_bare + b"," + server_first + b"," + without_proof
    signature = HMAC(hashlib.new(algorithm, client_key).digest(), auth_message)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server_signature = HMAC(HMAC(salted, b"Server Key"), auth_message)
    return without_proof + b",p=" + base64.b64encode(proof), b"v=" + base64.b64encode(server_signature)
