"""
LOGIN: the server asks for the name, then for the password. No RFC; draft-murchison-sasl-login describes it.

Older programs of Microsoft's know nothing else. The password crosses the line
as it is: for TLS only.
"""

from __future__ import annotations

from zope.interface import implementer

from smtpfw.errors import RemoteProtocolError
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, prepare
from smtpfw.sasl.guard import check_line, credential
from smtpfw.sasl.interfaces import IPasswordChecker, ISASLClient
from smtpfw.sasl.values import ServerInfo

__all__ = ["LOGIN", "Login", "LoginServer"]


class LoginServer(ServerExchange):
    __slots__ = ("_username",)

    _username: str

    async def begin(self, response: bytes | None) -> Step:
        if response is None:
            return self.ask(b"Username:", self.message)
        # The draft knows no initial response, but .NET sends the user name as one.
        return await self.message(response)

    async def message(self, response: bytes) -> Step:
        self._username = prepare(response)
        return self.ask(b"Password:", self.password)

    async def password(self, response: bytes) -> Step:
        return self.accept(await ask_checker(self.checker.check_password, self._username, prepare(response), kind=str))


LOGIN = Mechanism("LOGIN", LoginServer, needs=(IPasswordChecker,), plain_text=True)


@implementer(ISASLClient)
class Login:
    """
    Log in with LOGIN. The challenges count, not their words: servers ask in many ways, and languages.

    :param host: the only server that may get the password; None for any.
    :param allow_clear: send the password even where others can read it.
    :raises ValueError: if the name or the password is empty or holds NUL.
    """

    __slots__ = ("_allow_clear", "_answers", "_asked", "_host")

    def __init__(self, username: str, password: str, *, host: str | None = None, allow_clear: bool = False) -> None:
        self._answers = (credential(username, "user name"), credential(password, "password"))
        self._asked = 0
        self._host = host
        self._allow_clear = allow_clear

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        check_line(server_info, self._host, self._allow_clear)
        self._asked = 0
        return "LOGIN", None

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        if more != (self._asked < len(self._answers)):
            raise RemoteProtocolError("the server asks for more, or less, than name and password")
        if not more:
            return None
        self._asked += 1
        return self._answers[self._asked - 1]
