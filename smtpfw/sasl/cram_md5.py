"""
CRAM-MD5 (RFC 2195): the server sends a challenge, the client its name and a keyed hash of the challenge.

The password does not cross the line, but the server must have it in clear, and
who has listened can guess at leisure. It is here for old programs.
"""

from __future__ import annotations

import hmac
import re
import secrets

from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed, EnhancedCode, RemoteProtocolError
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, prepare
from smtpfw.sasl.guard import credential
from smtpfw.sasl.interfaces import ISASLClient, ISecretStore
from smtpfw.sasl.values import ServerInfo

__all__ = ["CRAM_MD5", "CramMD5", "CramMD5Server", "NoInitialResponse"]

#: The name may have spaces in it; the digest is the last word.
_RESPONSE = re.compile(rb"(.+) ([0-9a-f]{32})", re.DOTALL)


class NoInitialResponse(AuthMalformed):
    """The client spoke before the server did (RFC 4954 section 4)."""

    enhanced_code = EnhancedCode(5, 7, 0)
    message = "This mechanism takes no initial response"


def _digest(secret: bytes, challenge: bytes) -> bytes:
    return hmac.new(secret, challenge, "md5").hexdigest().encode("ascii")


def make_challenge(hostname: str) -> bytes:
    """
    A text in the form of a Message-ID, as RFC 2195 section 2 has it.

    The RFC suggests process id and time. A client that can be made to answer a challenge known beforehand lets an
    attacker in later, so all of it is drawn.
    """
    return f"<{secrets.token_hex(20)}@{hostname}>".encode()


class CramMD5Server(ServerExchange):
    __slots__ = ("_challenge",)

    _challenge: bytes

    async def begin(self, response: bytes | None) -> Step:
        if response is not None:
            raise NoInitialResponse
        self._challenge = make_challenge(self.context.hostname)
        return self.ask(self._challenge, self.message)

    async def message(self, response: bytes) -> Step:
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise AuthMalformed
        username = prepare(match[1])
        secret = await ask_checker(self.checker.get_secret, username, kind=str, optional=True)
        # Not SASLprepared: RFC 2195 knows nothing of it, nor do its clients.
        # For nobody, and for an empty secret, with which anyone could come, the work is the same and in vain.
        expected = _digest((secret or secrets.token_hex()).encode("utf-8"), self._challenge)
        if not hmac.compare_digest(expected, match[2]):
            raise AuthFailed
        return self.accept(username)


CRAM_MD5 = Mechanism("CRAM-MD5", CramMD5Server, needs=(ISecretStore,))


@implementer(ISASLClient)
class CramMD5:
    """
    Log in with CRAM-MD5.

    :raises ValueError: if the name or the password is empty or holds NUL.
    """

    __slots__ = ("_answered", "_secret", "_username")

    def __init__(self, username: str, password: str) -> None:
        self._username = credential(username, "user name")
        self._secret = credential(password, "password")
        self._answered = False

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        self._answered = False
        return "CRAM-MD5", None

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        if more == self._answered:
            raise RemoteProtocolError("the server sends no challenge, or more than one")
        self._answered = True
        return b"%s %s" % (self._username, _digest(self._secret, challenge)) if more else None
