"""
Checkers made of what is there already: a function, or the checkers of twisted.cred.

Rule 1: only a clear yes lets anyone in. An answer of an odd kind is the
checker's fault, 454, and no 235.

Rule 2: wrong credentials are :class:`~smtpfw.errors.AuthFailed`, once for each
login, however many checkers were asked. Anything else that is raised passes,
and the mechanism makes 454 of it.

Rule 3: checkers of twisted.cred disagree on text and octets: ``memory:`` knows
names as str, ``file:`` as bytes. Both forms are tried, octets first, as
twisted.cred documents them. A checker that has let somebody in is asked in that
form only from then on, so that a wrong password is one failure to whatever it
counts them in. A TypeError or an AttributeError means "not in this form", as
long as the other form gets an answer.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpfw.errors import AuthFailed, ConfigError
from smtpfw.hooks import call_hook
from smtpfw.sasl.exchange import CheckerFault
from smtpfw.sasl.interfaces import IPasswordChecker

__all__ = ["CredChecker", "FunctionChecker"]

_REFUSALS = (UnauthorizedLogin, LoginDenied)
_NOT_ITS_FORM = (TypeError, AttributeError)


@implementer(IPasswordChecker)
class FunctionChecker:
    """
    Ask a function of name and password.

    :param function: plain or async, or one that returns a Deferred. It answers with the identity, or with True for
        the name as it was given; with False or None if the credentials are wrong. It may raise
        :class:`~smtpfw.errors.AuthFailed` as well.
    """

    def __init__(self, function: Callable[[str, str], Any]) -> None:
        self._function = function

    async def check_password(self, username: str, password: str) -> str:
        answer = call_hook(self._function, username, password)
        if isinstance(answer, Deferred):
            answer = await answer
        if answer is None or answer is False:
            raise AuthFailed
        if answer is True:
            return username
        if not isinstance(answer, str):
            # Not "anything that is true": a coroutine of a forgotten await is true as well.
            raise CheckerFault(f"the function returned {type(answer).__name__}, not str, bool or None")
        return answer


@implementer(IUsernameHashedPassword)
class _Credentials(UsernamePassword):
    """Name and password in one form; compares with a stored password of either form, in constant time."""

    def __repr__(self) -> str:
        return "<credentials>"

    def checkPassword(self, password: Any) -> bool:  # noqa: N802 - twisted.cred's name
        return hmac.compare_digest(_octets(self.password), _octets(password))


def _octets(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _as_octets(username: str, password: str) -> _Credentials:
    return _Credentials(_octets(username), _octets(password))


def _as_text(username: str, password: str) -> _Credentials:
    credentials = _as_octets(username, password)
    # twisted.cred declares octets, and its own memory: wants text.
    credentials.username, credentials.password = username, password  # type: ignore[assignment]
    return credentials


_Form = Callable[[str, str], _Credentials]
_FORMS: tuple[_Form, ...] = (_as_octets, _as_text)


@implementer(IPasswordChecker)
class CredChecker:
    """
    Ask checkers of twisted.cred, one after the other, as those that strcred makes of ``--auth``.

    The first that knows the credentials says who it is: its avatar id, read as UTF-8, is the identity.

    :param checkers: providers of ``ICredentialsChecker``. Those that do not take passwords are left out.
    :raises ConfigError: if none takes passwords.
    """

    def __init__(self, checkers: Iterable[ICredentialsChecker]) -> None:
        self._checkers: list[Any] = [
            checker
            for checker in checkers
            if any(taken.implementedBy(_Credentials) for taken in checker.credentialInterfaces)
        ]
        self._forms = [_FORMS] * len(self._checkers)
        if not self._checkers:
            raise ConfigError("none of the checkers takes a name and a password (IUsernamePassword)")

    async def check_password(self, username: str, password: str) -> str:
        for index in range(len(self._checkers)):
            avatar_id = await self._ask(index, username, password)
            if isinstance(avatar_id, bytes):
                return avatar_id.decode("utf-8")
            if isinstance(avatar_id, str):
                return avatar_id
            if avatar_id is not None:
                # Among them the empty tuple, which is twisted.cred's "anonymous".
                raise CheckerFault(f"the avatar id is of the class {type(avatar_id).__name__}, neither str nor bytes")
        raise AuthFailed

    async def _ask(self, index: int, username: str, password: str) -> Any:
        """:return: the avatar id; None if the checker refuses."""
        refused = False
        fault: Exception | None = None
        for form in self._forms[index]:
            try:
                avatar_id = call_hook(self._checkers[index].requestAvatarId, form(username, password))
                if isinstance(avatar_id, Deferred):
                    avatar_id = await avatar_id
            except _REFUSALS:
                refused = True
            except _NOT_ITS_FORM as error:
                fault = error
            else:
                if avatar_id is None:
                    raise CheckerFault("the checker returned None, which is neither an avatar id nor a refusal")
                self._forms[index] = (form,)
                return avatar_id
        if fault is not None and not refused:
            raise fault
        return None
