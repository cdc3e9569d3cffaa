"""
XOAUTH2: what Google and Microsoft had before OAUTHBEARER, and still have.

``user=USER^Aauth=Bearer TOKEN^A^A``, where ``^A`` is the octet 1. A refusal goes
as with OAUTHBEARER, but the answer to its JSON is empty.
(https://developers.google.com/workspace/gmail/imap/xoauth2-protocol)
"""

from __future__ import annotations

import json
from functools import partial

from zope.interface import implementer

from smtpfw.errors import AuthMalformed
from smtpfw.sasl.exchange import Mechanism, Step
from smtpfw.sasl.guard import credential
from smtpfw.sasl.interfaces import ISASLClient, ITokenChecker
from smtpfw.sasl.oauthbearer import BearerClient, BearerServer, read_pairs
from smtpfw.sasl.values import ServerInfo

__all__ = ["XOAUTH2", "XOAuth2", "XOAuth2Server", "xoauth2_mechanism"]


class XOAuth2Server(BearerServer):
    __slots__ = ()

    async def message(self, response: bytes) -> Step:
        pairs = read_pairs(response)
        user = pairs.get(b"user")
        if not user:
            raise AuthMalformed
        return await self.check(user, pairs.get(b"auth"))


def xoauth2_mechanism(scope: str = "") -> Mechanism:
    """
    Make the mechanism.

    :param scope: what a token has to be valid for; clients are told when theirs has failed.
    """
    failure = {"status": "401", "schemes": "bearer", "scope": scope}
    text = json.dumps({key: value for key, value in failure.items() if value}, separators=(",", ":")).encode()
    return Mechanism("XOAUTH2", partial(XOAuth2Server, failure=text), needs=(ITokenChecker,), plain_text=True)


XOAUTH2 = xoauth2_mechanism()


@implementer(ISASLClient)
class XOAuth2(BearerClient):
    """
    Log in with XOAUTH2.

    :param username: whose mailbox it is: an address, as a rule.
    :param host: the only server that may get the token; None for any.
    :param allow_clear: send the token even where others can read it.
    :raises ValueError: if the name is empty or holds a control character, or the token is none.
    """

    __slots__ = ("_username",)

    answer = b""

    def __init__(self, username: str, token: str, *, host: str | None = None, allow_clear: bool = False) -> None:
        super().__init__(token, host, allow_clear)
        self._username = credential(username, "user name")
        if b"\1" in self._username:
            # It would end the field, and begin another.
            raise ValueError("the user name holds a control character")

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        self.begin(server_info)
        return "XOAUTH2", b"user=%s\1auth=Bearer %s\1\1" % (self._username, self._token)
