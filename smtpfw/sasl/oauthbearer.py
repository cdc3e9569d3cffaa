"""
OAUTHBEARER (RFC 7628): a token of OAuth 2.0 instead of a password.

``n,a=user,^Ahost=...^Aport=...^Aauth=Bearer TOKEN^A^A``, where ``^A`` is the
octet 1. A token is as good as a password until it expires: for TLS only.

A refusal has two steps: the server says in JSON what is wrong and where to get
a token, in a 334; the client answers with something empty; then comes the 535.
"""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

from zope.interface import implementer

from smtpfw.errors import AuthFailed, AuthMalformed, RemoteProtocolError
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, prepare
from smtpfw.sasl.gs2 import format_gs2_header, parse_gs2_header
from smtpfw.sasl.guard import check_line, credential
from smtpfw.sasl.interfaces import ISASLClient, ITokenChecker
from smtpfw.sasl.values import SASLContext, ServerInfo

__all__ = [
    "OAUTHBEARER",
    "BearerClient",
    "BearerServer",
    "OAuthBearer",
    "OAuthBearerServer",
    "oauthbearer_mechanism",
    "read_pairs",
]

_PAIR = re.compile(rb"([A-Za-z]+)=([^\x00\x01]*)")

_TOKEN = rb"[A-Za-z0-9._~+/-]+=*"  # RFC 6750 section 2.1
_BEARER = re.compile(rb"bearer +(%s)" % _TOKEN, re.IGNORECASE)


def read_pairs(octets: bytes) -> dict[bytes, bytes]:
    """
    Read ``key=value`` pairs, each with an octet 1 behind it, and one more at the end.

    :raises AuthMalformed: if they are something else, or a key comes twice.
    """
    if not octets.endswith(b"\1\1") and octets != b"\1":
        raise AuthMalformed
    pairs: dict[bytes, bytes] = {}
    for part in octets.split(b"\1")[:-2]:
        match = _PAIR.fullmatch(part)
        if match is None or match[1] in pairs:
            raise AuthMalformed
        pairs[match[1]] = match[2]
    return pairs


class BearerServer(ServerExchange):
    """
    What OAUTHBEARER and XOAUTH2 have in common.

    :param failure: the JSON that tells a client of its failure.
    """

    __slots__ = ("_failure", "_refusal")

    _refusal: AuthFailed

    def __init__(self, checker: Any, context: SASLContext, failure: bytes) -> None:
        super().__init__(checker, context)
        self._failure = failure

    async def check(self, username: bytes, authorization: bytes | None) -> Step:
        """Verify the token in ``Bearer TOKEN``. An empty text is there to ask for the JSON (RFC 7628 section 4.3)."""
        if authorization is None:
            raise AuthMalformed
        match = _BEARER.fullmatch(authorization)
        if match is None and authorization:
            raise AuthMalformed
        try:
            name = prepare(username) if username else ""
            if match is None:
                raise AuthFailed
            return self.accept(await ask_checker(self.checker.check_token, name, match[1].decode("ascii"), kind=str))
        except AuthFailed as error:
            self._refusal = error
        return self.ask(self._failure, self.failed)

    async def failed(self, response: bytes) -> Step:
        """The client's answer to the JSON: octet 1 (RFC 7628 section 3.2.3), or nothing. It changes nothing."""
        raise self._refusal


class OAuthBearerServer(BearerServer):
    __slots__ = ()

    async def message(self, response: bytes) -> Step:
        header = parse_gs2_header(response)
        # Who binds a channel wants OAUTHBEARER-PLUS, and there is none.
        rest = response[len(header.octets) :]
        if header.binding or not rest.startswith(b"\1"):
            raise AuthMalformed
        return await self.check(header.authorization_identity, read_pairs(rest[1:]).get(b"auth"))


def oauthbearer_mechanism(scope: str = "", openid_configuration: str = "") -> Mechanism:
    """
    Make the mechanism.

    :param scope: what a token has to be valid for; clients are told when theirs has failed.
    :param openid_configuration: the URL where clients learn how to get a token; told likewise (RFC 7628 section 3.2.2).
    """
    failure = {"status": "invalid_token", "scope": scope, "openid-configuration": openid_configuration}
    text = json.dumps({key: value for key, value in failure.items() if value}, separators=(",", ":")).encode()
    return Mechanism("OAUTHBEARER", partial(OAuthBearerServer, failure=text), needs=(ITokenChecker,), plain_text=True)


OAUTHBEARER = oauthbearer_mechanism()


class BearerClient:
    """
    What OAUTHBEARER and XOAUTH2 have in common.

    :ivar failure: the JSON that the server explained its refusal with, once it has; else empty.
    """

    __slots__ = ("_allow_clear", "_host", "_token", "failure")

    #: What answers the JSON.
    answer: bytes

    def __init__(self, token: str, host: str | None, allow_clear: bool) -> None:
        if not re.fullmatch(_TOKEN, credential(token, "token")):
            raise ValueError("the token holds what no bearer token may (RFC 6750 section 2.1)")
        self._token = token.encode("ascii")
        self._host = host
        self._allow_clear = allow_clear
        self.failure = b""

    def begin(self, server_info: ServerInfo) -> None:
        """Forget what was; stop if the token must not be sent."""
        check_line(server_info, self._host, self._allow_clear)
        self.failure = b""

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        if self.failure:
            raise RemoteProtocolError("the server goes on after it has refused the token")
        if not more:
            return None
        self.failure = challenge or b"{}"
        return self.answer


@implementer(ISASLClient)
class OAuthBearer(BearerClient):
    """
    Log in with OAUTHBEARER.

    :param username: whom to act as; empty for whomever the token stands for.
    :param port: the server's, to be told to it; 0 to leave it out.
    :param host: the only server that may get the token; None for any.
    :param allow_clear: send the token even where others can read it.
    :raises ValueError: if the name holds NUL, or the token is none.
    """

    __slots__ = ("_port", "_username")

    answer = b"\1"

    def __init__(
        self, username: str, token: str, *, port: int = 0, host: str | None = None, allow_clear: bool = False
    ) -> None:
        super().__init__(token, host, allow_clear)
        credential(username, "user name", empty=True)
        self._username = username
        self._port = port

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        self.begin(server_info)
        host = b"host=%s\1" % server_info.name.encode("utf-8") if server_info.name else b""
        port = b"port=%d\1" % self._port if self._port else b""
        header = format_gs2_header(authorization_identity=self._username)
        return "OAUTHBEARER", b"%s\1%s%sauth=Bearer %s\1\1" % (header, host, port, self._token)
