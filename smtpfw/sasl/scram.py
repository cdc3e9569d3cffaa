"""
SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password, and neither sends it.

A server keeps keys from which the password cannot be computed. The -PLUS forms
also prove that both see the same TLS channel (RFC 5929, RFC 9266), so nobody
sits in between.

Rule 1: an unknown user gets salt and rounds as a known one does, the same each
time, and fails where a wrong password fails, after the same work.

Rule 2: the flag of the client's first message must agree with the mechanism
and with what was offered: "I could bind, but you can't" (``y``), said to a
server that offered it, means that somebody took the offer out on the way.

Rule 3: a client that has not seen the server's proof is not logged in,
whatever the server says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed, LocalProtocolError, RemoteProtocolError
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, always, ask_checker, prepare
from smtpfw.sasl.gs2 import (
    SASLNAME,
    GS2Header,
    decode_saslname,
    encode_saslname,
    format_gs2_header,
    parse_gs2_header,
)
from smtpfw.sasl.guard import credential
from smtpfw.sasl.interfaces import ISASLClient, ISCRAMKeyStore, ISecretStore
from smtpfw.sasl.saslprep import PreparationError, saslprep
from smtpfw.sasl.values import SASLContext, SCRAMKeys, ServerInfo

__all__ = [
    "SCRAM",
    "SCRAM_SHA_1",
    "SCRAM_SHA_1_PLUS",
    "SCRAM_SHA_256",
    "SCRAM_SHA_256_PLUS",
    "SCRAMServer",
    "make_scram_keys",
    "scram_mechanism",
]

#: The hash in a mechanism's name, and what hashlib calls it.
HASHES = {"SHA-256": "sha256", "SHA-1": "sha1"}

#: In the order of preference. tls-exporter is the one for TLS 1.3 (RFC 9266).
BINDINGS = ("tls-exporter", "tls-server-end-point")

DEFAULT_ITERATIONS = 4096  # RFC 5802 section 5.1 and RFC 7677 section 4: at least 4096; PostgreSQL 4096
MAX_ITERATIONS = 1_000_000  # about half a second; a server could stop its clients with more
SALT_BYTES = 16  # PostgreSQL 16; RFC 5802's example 12

#: From which what unknown users get is drawn. Ours alone, so nobody can tell it from what known users get.
_FAKE_KEY = secrets.token_bytes(32)

_NONCE = rb"[\x21-\x2b\x2d-\x7e]+"
_BASE64 = rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
# Unknown attributes are ignored, but m= says "do not, if you don't know it" (RFC 5802 section 5.1).
_EXTENSIONS = rb"(?:,[A-Za-ln-z]=[^\x00,]+)*"

_CLIENT_FIRST_BARE = re.compile(rb"n=(%s),r=(%s)%s" % (SASLNAME, _NONCE, _EXTENSIONS))
_SERVER_FIRST = re.compile(rb"r=(%s),s=(%s),i=([1-9][0-9]{0,9})%s" % (_NONCE, _BASE64, _EXTENSIONS))
_CLIENT_FINAL = re.compile(rb"(c=(%s),r=(%s)%s),p=(%s)" % (_BASE64, _NONCE, _EXTENSIONS, _BASE64))
_SERVER_FINAL = re.compile(rb"(?:v=(%s)|e=([a-z-]+))%s" % (_BASE64, _EXTENSIONS))


def _hmac(key: bytes, message: bytes, hash_name: str) -> bytes:
    return hmac.digest(key, message, HASHES[hash_name])


def _hash(message: bytes, hash_name: str) -> bytes:
    return hashlib.new(HASHES[hash_name], message).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _client_and_server_key(password: bytes, hash_name: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac(HASHES[hash_name], password, salt, iterations)
    return _hmac(salted, b"Client Key", hash_name), _hmac(salted, b"Server Key", hash_name)


def _make_nonce() -> bytes:
    return secrets.token_urlsafe(24).encode("ascii")


def make_scram_keys(
    password: str, hash_name: str = "SHA-256", salt: bytes | None = None, iterations: int = DEFAULT_ITERATIONS
) -> SCRAMKeys:
    """
    Compute what a server keeps of a password (RFC 5802 section 3).

    :param hash_name: ``SHA-256`` or ``SHA-1``. Keys of the one are of no use to the other.
    :param salt: random octets; drawn if not given.
    :raises ValueError: if the hash is unknown, SASLprep prohibits the password, nothing is left of it, the salt is
        empty, or there is no round.
    """
    if hash_name not in HASHES:
        raise ValueError(f"{hash_name!r} is none of {', '.join(HASHES)}")
    if salt == b"" or iterations < 1:
        raise ValueError("keys want a salt and at least one round")
    salt = salt or secrets.token_bytes(SALT_BYTES)
    octets = credential(saslprep(password, stored=True), "password")
    client_key, server_key = _client_and_server_key(octets, hash_name, salt, iterations)
    return SCRAMKeys(salt, iterations, _hash(client_key, hash_name), server_key)


def _has_binding(context: SASLContext) -> bool:
    return any(context.channel_bindings.get(name) for name in BINDINGS)


def _has_plus(mechanisms: Collection[str]) -> bool:
    return any(name.startswith("SCRAM-") and name.endswith("-PLUS") for name in mechanisms)


class SCRAMServer(ServerExchange):
    """
    One exchange of SCRAM.

    :param hash_name: ``SHA-256`` or ``SHA-1``.
    :param plus: whether the channel has to be bound.
    :param iterations: the rounds for users of whom there is a password, and for unknown ones.
    :param fake_key: what salts are drawn from, where there is none stored.
    """

    __slots__ = (
        "_authorization_identity",
        "_cbind_input",
        "_fake_key",
        "_first_messages",
        "_hash_name",
        "_iterations",
        "_keys",
        "_known",
        "_nonce",
        "_plus",
        "_username",
    )

    def __init__(
        self, checker: Any, context: SASLContext, *, hash_name: str, plus: bool, iterations: int, fake_key: bytes
    ) -> None:
        super().__init__(checker, context)
        self._hash_name = hash_name
        self._plus = plus
        self._iterations = iterations
        self._fake_key = fake_key

    async def message(self, response: bytes) -> Step:
        """client-first-message."""
        header = parse_gs2_header(response)
        self._cbind_input = header.octets + self._binding_data(header)
        bare = response[len(header.octets) :]
        match = _CLIENT_FIRST_BARE.fullmatch(bare)
        if match is None:
            raise AuthMalformed
        self._authorization_identity = prepare(header.authorization_identity) if header.authorization_identity else ""
        self._username = prepare(decode_saslname(match[1]))
        self._known, self._keys = await self._look_up(self._username)
        self._nonce = match[2] + _make_nonce()
        salt = base64.b64encode(self._keys.salt)
        server_first = b"r=%s,s=%s,i=%d" % (self._nonce, salt, self._keys.iterations)
        self._first_messages = b"%s,%s," % (bare, server_first)
        return self.ask(server_first, self.final)

    async def final(self, response: bytes) -> Step:
        """client-final-message."""
        match = _CLIENT_FINAL.fullmatch(response)
        if match is None:
            raise AuthMalformed
        without_proof, cbind_input, nonce, proof = match.groups()
        if not hmac.compare_digest(base64.b64decode(cbind_input), self._cbind_input):
            raise AuthFailed("The channel binding does not match")
        auth_message = self._first_messages + without_proof
        stored_key = self._keys.stored_key
        signature = _hmac(stored_key, auth_message, self._hash_name)
        client_proof = base64.b64decode(proof)
        if len(client_proof) != len(signature):
            raise AuthMalformed
        proved = hmac.compare_digest(_hash(_xor(client_proof, signature), self._hash_name), stored_key)
        if not (proved and self._known and hmac.compare_digest(nonce, self._nonce)):
            raise AuthFailed
        identity = await self.authorize(self._username, self._username, self._authorization_identity)
        server_signature = _hmac(self._keys.server_key, auth_message, self._hash_name)
        return self.accept(identity, b"v=" + base64.b64encode(server_signature))

    def _binding_data(self, header: GS2Header) -> bytes:
        """Judge the flag (RFC 5802 section 6); what the client has to prove that it sees."""
        if self._plus != bool(header.binding):
            raise AuthMalformed("The channel binding does not belong to the mechanism")
        if header.binding:
            data = self.context.channel_bindings.get(header.binding)
            if not data:
                raise AuthFailed("This channel binding is not supported")
            return data
        context = self.context
        offered = _has_binding(context) if context.mechanisms is None else _has_plus(context.mechanisms)
        if header.flag == "y" and offered:
            raise AuthFailed("Channel binding was offered, and its offer has been lost on the way")
        return b""

    async def _look_up(self, username: str) -> tuple[bool, SCRAMKeys]:
        """Whether there is such a user, and the keys; those of an unknown one fit no password."""
        keys: SCRAMKeys | None = None
        if ISCRAMKeyStore.providedBy(self.checker):
            keys = await ask_checker(
                self.checker.get_scram_keys, username, self._hash_name, kind=SCRAMKeys, optional=True
            )
        if ISecretStore.providedBy(self.checker):
            # Asked, and computed, for those with stored keys as well: the time shall not tell who has some.
            secret = await ask_checker(self.checker.get_secret, username, kind=str, optional=True)
            computed = self._keys_of(username, secret)
            keys = keys or computed
        return keys is not None, keys or self._fake_keys(username)

    def _keys_of(self, username: str, secret: str | None) -> SCRAMKeys | None:
        try:
            password = saslprep(secret or "", stored=True)
        except PreparationError:
            # It cannot be anybody's.
            password = ""
        salt = self._draw("salt", username)[:SALT_BYTES]
        keys = make_scram_keys(password or secrets.token_hex(), self._hash_name, salt, self._iterations)
        return keys if password else None

    def _fake_keys(self, username: str) -> SCRAMKeys:
        return SCRAMKeys(
            self._draw("salt", username)[:SALT_BYTES],
            self._iterations,
            self._draw("stored key", username),
            self._draw("server key", username),
        )

    def _draw(self, what: str, username: str) -> bytes:
        return _hmac(self._fake_key, f"{what} {self._hash_name} {username}".encode(), self._hash_name)


def scram_mechanism(
    hash_name: str = "SHA-256",
    *,
    plus: bool = False,
    iterations: int = DEFAULT_ITERATIONS,
    fake_key: bytes | None = None,
) -> Mechanism:
    """
    Make a mechanism.

    :param hash_name: ``SHA-256`` or ``SHA-1``.
    :param plus: whether it is the form with channel binding.
    :param iterations: the rounds for users of whom there is a password, and for unknown ones. Where keys are stored,
        give the rounds that they were made with, or unknown users can be told from known ones.
    :param fake_key: what the salts of unknown users are drawn from; by default it is drawn for this process. Where
        several processes serve one name, give them the same, for the same reason.
    """
    return Mechanism(
        f"SCRAM-{hash_name}-PLUS" if plus else f"SCRAM-{hash_name}",
        partial(SCRAMServer, hash_name=hash_name, plus=plus, iterations=iterations, fake_key=fake_key or _FAKE_KEY),
        needs=(ISCRAMKeyStore, ISecretStore),
        condition=_has_binding if plus else always,
    )


SCRAM_SHA_256 = scram_mechanism()
SCRAM_SHA_256_PLUS = scram_mechanism(plus=True)
SCRAM_SHA_1 = scram_mechanism("SHA-1")
SCRAM_SHA_1_PLUS = scram_mechanism("SHA-1", plus=True)


@implementer(ISASLClient)
class SCRAM:
    """
    Log in with the best form of SCRAM that the server offers.

    :param authorization_identity: whom to act as, if not as oneself.
    :param min_iterations: fewer rounds are refused: who plays the server could guess at the password faster.
    :param max_iterations: more rounds are refused: they are computed at once, and everything else waits.
    :raises ValueError: if SASLprep prohibits a name or the password, or nothing is left of it.
    """

    __slots__ = (
        "_authorization_identity",
        "_bare",
        "_cbind_input",
        "_hash_name",
        "_max_iterations",
        "_min_iterations",
        "_nonce",
        "_password",
        "_proved",
        "_server_signature",
        "_step",
        "_username",
    )

    def __init__(
        self,
        username: str,
        password: str,
        authorization_identity: str = "",
        *,
        min_iterations: int = DEFAULT_ITERATIONS,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        self._username = saslprep(username)
        credential(self._username, "user name")
        self._password = credential(saslprep(password, stored=True), "password")
        self._authorization_identity = saslprep(authorization_identity)
        credential(self._authorization_identity, "authorization identity", empty=True)
        self._min_iterations = min_iterations
        self._max_iterations = max_iterations
        self._step: Callable[[bytes], bytes] | None = None
        self._server_signature = b""
        self._proved = False

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        offered = {name.upper() for name in server_info.mechanisms}
        binding = next((name for name in BINDINGS if server_info.channel_bindings.get(name)), "")
        forms = [(f"SCRAM-{name}-PLUS", name, binding) for name in HASHES if binding]
        forms += [(f"SCRAM-{name}", name, "") for name in HASHES]
        chosen = next((form for form in forms if form[0] in offered), None)
        if chosen is None:
            raise LocalProtocolError("the server offers no form of SCRAM that is known here")
        mechanism, self._hash_name, used = chosen
        # RFC 5802 section 6: y only if no form with channel binding was seen, or the server takes it for an attack.
        flag = "y" if binding and not _has_plus(offered) else "n"
        header = format_gs2_header(used, self._authorization_identity, flag=flag)
        self._cbind_input = header + (server_info.channel_bindings[used] if used else b"")
        self._nonce = _make_nonce()
        self._bare = b"n=%s,r=%s" % (encode_saslname(self._username), self._nonce)
        self._step, self._proved = self._answer, False
        return mechanism, header + self._bare

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        step, self._step = self._step, None
        if not more:
            if not self._proved:
                raise RemoteProtocolError("the server has not proved that it knows the password")
            return None
        if step is None:
            raise RemoteProtocolError("the server goes on after the end of the mechanism")
        return step(challenge)

    def _answer(self, challenge: bytes) -> bytes:
        """server-first-message -> client-final-message."""
        match = _SERVER_FIRST.fullmatch(challenge)
        if match is None:
            raise RemoteProtocolError("the server's first message is not SCRAM's")
        nonce, salt, iterations = match[1], base64.b64decode(match[2]), int(match[3])
        if not (nonce.startswith(self._nonce) and len(nonce) > len(self._nonce) and salt):
            raise RemoteProtocolError("the server did not add to the nonce, or sent no salt")
        if not self._min_iterations <= iterations <= self._max_iterations:
            raise RemoteProtocolError(f"the server wants {iterations} rounds, which is too few or too many")
        without_proof = b"c=%s,r=%s" % (base64.b64encode(self._cbind_input), nonce)
        auth_message = b"%s,%s,%s" % (self._bare, challenge, without_proof)
        client_key, server_key = _client_and_server_key(self._password, self._hash_name, salt, iterations)
        signature = _hmac(_hash(client_key, self._hash_name), auth_message, self._hash_name)
        self._server_signature = _hmac(server_key, auth_message, self._hash_name)
        self._step = self._verify
        return b"%s,p=%s" % (without_proof, base64.b64encode(_xor(client_key, signature)))

    def _verify(self, challenge: bytes) -> bytes:
        """server-final-message -> an empty response."""
        match = _SERVER_FINAL.fullmatch(challenge)
        if match is None:
            raise RemoteProtocolError("the server's last message is not SCRAM's")
        if match[2] is not None:
            raise AuthFailed(f"The server says: {match[2].decode('ascii')}")
        if not hmac.compare_digest(base64.b64decode(match[1]), self._server_signature):
            raise RemoteProtocolError("the server's proof is wrong: it does not know the password")
        self._proved = True
        return b""
