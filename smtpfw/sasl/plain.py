"""
PLAIN (RFC 4616): one message with authorization identity, name and password.

``[authzid] NUL authcid NUL passwd``, all in UTF-8. The password crosses the
line as it is: for TLS only.
"""

from __future__ import annotations

from zope.interface import implementer

from smtpfw.errors import AuthMalformed
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, prepare
from smtpfw.sasl.guard import check_line, credential, expect_end
from smtpfw.sasl.interfaces import IPasswordChecker, ISASLClient
from smtpfw.sasl.values import ServerInfo

__all__ = ["PLAIN", "Plain", "PlainServer"]


class PlainServer(ServerExchange):
    __slots__ = ()

    async def message(self, response: bytes) -> Step:
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise AuthMalformed
        # RFC 4616 section 2: what can't be prepared, or is empty afterwards, shall not be verified.
        authorization_identity = prepare(parts[0]) if parts[0] else ""
        username, password = prepare(parts[1]), prepare(parts[2])
        identity = await ask_checker(self.checker.check_password, username, password, kind=str)
        return self.accept(await self.authorize(username, identity, authorization_identity))


PLAIN = Mechanism("PLAIN", PlainServer, needs=(IPasswordChecker,), plain_text=True)


@implementer(ISASLClient)
class Plain:
    """
    Log in with PLAIN.

    :param authorization_identity: whom to act as, if not as oneself.
    :param host: the only server that may get the password; None for any.
    :param allow_clear: send the password even where others can read it.
    :raises ValueError: if a name or the password is empty or holds NUL.
    """

    __slots__ = ("_allow_clear", "_host", "_message")

    def __init__(
        self,
        username: str,
        password: str,
        authorization_identity: str = "",
        *,
        host: str | None = None,
        allow_clear: bool = False,
    ) -> None:
        self._message = b"\0".join(
            (
                credential(authorization_identity, "authorization identity", empty=True),
                credential(username, "user name"),
                credential(password, "password"),
            )
        )
        self._host = host
        self._allow_clear = allow_clear

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        check_line(server_info, self._host, self._allow_clear)
        return "PLAIN", self._message

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        expect_end(more)
        return None
