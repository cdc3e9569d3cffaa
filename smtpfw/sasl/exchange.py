"""
What the server's sides of all mechanisms have in common.

Rule 1: a step raises an :class:`~smtpfw.errors.SMTPError` and nothing else,
whatever the client sends. What goes wrong in a checker is 454 4.7.0.

Rule 2: an error leaves without the frames in which it arose, because their
variables hold what the client sent. What a checker raised leaves as a
:class:`CheckerFault` with its traceback and without its words: those of a
UnicodeEncodeError, say, hold the whole password.

Rule 3: after an error, and after the end, an exchange takes nothing more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from smtpfw.errors import AuthFailed, AuthMalformed, AuthUnavailable, SMTPError
from smtpfw.hooks import call_hook
from smtpfw.sasl.interfaces import IAuthorizer, ISASLServer, ISASLServerFactory
from smtpfw.sasl.saslprep import PreparationError, saslprep
from smtpfw.sasl.values import SASLContext

__all__ = ["CheckerFault", "Mechanism", "ServerExchange", "Step", "always", "ask_checker", "decode_text", "prepare"]

#: What the line of RFC 4954 section 4.5.3 (12,288 octets of base64) can carry, and something on top.
MAX_RESPONSE = 12_288

#: ``(challenge, done)``.
Step = tuple[bytes | None, bool]


class CheckerFault(Exception):
    """A checker did not answer as it should; for the log. It holds no word of what the checker raised."""

    @classmethod
    def of(cls, error: BaseException) -> CheckerFault:
        """The same fault without its words, which may hold a secret."""
        if isinstance(error, cls):
            return error
        kind = type(error)
        fault = cls(f"{kind.__module__}.{kind.__qualname__} (its text is withheld)")
        return fault.with_traceback(error.__traceback__)


async def ask_checker(method: Callable[..., Any], *arguments: str, kind: type, optional: bool = False) -> Any:
    """
    Ask a checker, whether it answers at once or later.

    :param kind: the class of the answer.
    :param optional: whether it may be None.
    :raises CheckerFault: if it is of another class. A checker that returns True must not let anyone in.
    """
    cancelled = False

    def cancel(_: Deferred[Any]) -> None:
        nonlocal cancelled
        cancelled = True
        answer.cancel()

    fault: CheckerFault | None = None
    try:
        answer = call_hook(method, *arguments)
        if isinstance(answer, Deferred):
            waiting: Deferred[Any] = Deferred(cancel)
            answer.chainDeferred(waiting)
            answer = await waiting
    except CancelledError as error:
        if cancelled:
            raise
        # Not ours: the checker was cancelled by somebody else, and the client still waits for its reply.
        fault = CheckerFault.of(error)
    if fault is not None:
        raise fault
    if not isinstance(answer, kind) and not (optional and answer is None):
        raise CheckerFault(f"{method.__qualname__} returned {type(answer).__name__}, not {kind.__name__}")
    return answer


def decode_text(octets: bytes) -> str:
    """
    Read UTF-8.

    :raises AuthMalformed: if it is none.
    """
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthMalformed("The response is not in UTF-8") from None


def prepare(octets: bytes) -> str:
    """
    Read a name or a password.

    :raises AuthMalformed: if it is not in UTF-8.
    :raises AuthFailed: if SASLprep prohibits it, or nothing is left of it: then it is nobody's (RFC 4616 section 2).
    """
    try:
        prepared = saslprep(decode_text(octets))
    except PreparationError:
        raise AuthFailed from None
    if not prepared:
        raise AuthFailed
    return prepared


@implementer(ISASLServer)
class ServerExchange:
    """
    One exchange. Subclasses write :meth:`message`, which takes the client's first response, and further steps.

    :param checker: provides one of the interfaces that the mechanism needs.
    """

    __slots__ = ("_step", "checker", "context", "identity")

    identity: str

    def __init__(self, checker: Any, context: SASLContext) -> None:
        self.checker = checker
        self.context = context
        self._step: Callable[[Any], Awaitable[Step]] | None = self.begin

    async def next(self, response: bytes | None) -> Step:
        """See :meth:`smtpfw.sasl.interfaces.ISASLServer.next`."""
        # Taken away first: a second call while the checker is thinking finds nothing to do.
        step, self._step = self._step, None
        refusal: SMTPError
        fault: CheckerFault | None
        try:
            if step is None:
                raise AuthMalformed("The exchange is over")
            if response is None and step != self.begin:
                raise AuthMalformed
            if response is not None and len(response) > MAX_RESPONSE:
                raise AuthMalformed("The response is too long")
            return await step(response)
        except CancelledError:
            raise
        except SMTPError as error:
            refusal, fault = error, None if error.__cause__ is None else CheckerFault.of(error.__cause__)
        except Exception as error:
            refusal, fault = AuthUnavailable(), CheckerFault.of(error)
        # Raised here, outside of the handlers, it has no context, and no frame but this one.
        del response, step
        refusal.__context__ = None
        raise refusal.with_traceback(None) from fault

    async def begin(self, response: bytes | None) -> Step:
        """The first call. Where the client speaks first, it is asked to if it has not done so (RFC 4954 section 4)."""
        if response is None:
            return self.ask(b"", self.message)
        return await self.message(response)

    async def message(self, response: bytes) -> Step:
        """The client's first response."""
        raise NotImplementedError

    def ask(self, challenge: bytes, step: Callable[[bytes], Awaitable[Step]]) -> Step:
        """Send a challenge; ``step`` takes the response."""
        self._step = step
        return challenge, False

    def accept(self, identity: str, last_word: bytes | None = None) -> Step:
        """The end."""
        if not identity:
            raise CheckerFault("the identity is empty")
        self.identity = identity
        return last_word, True

    async def authorize(self, username: str, identity: str, authorization_identity: str) -> str:
        """
        Decide whom a verified user acts as (RFC 4422 section 3.4.1).

        :param username: the name that the user gave.
        :param identity: the name that the checker knows him by.
        :param authorization_identity: whom he wants to act as; empty for himself.
        :return: the identity that holds from now on.
        :raises AuthFailed: if he may not.
        """
        if authorization_identity in ("", username, identity):
            return identity
        if not IAuthorizer.providedBy(self.checker):
            raise AuthFailed
        await ask_checker(self.checker.authorize, identity, authorization_identity, kind=object)
        return authorization_identity


def always(context: SASLContext) -> bool:
    """The condition of a mechanism that needs nothing of its connection."""
    return True


@implementer(IPlugin, ISASLServerFactory)
@dataclass(frozen=True, slots=True)
class Mechanism:
    """
    A mechanism that a server offers; see :class:`smtpfw.sasl.interfaces.ISASLServerFactory`.

    One that stands in a module of ``twisted/plugins`` is a plugin (:mod:`smtpfw.sasl.plugins`).

    :ivar make: begins an exchange, from a checker and a context.
    :ivar condition: what ``available`` answers.
    """

    name: str
    make: Callable[[Any, SASLContext], ISASLServer]
    needs: tuple[InterfaceClass, ...]
    plain_text: bool = False
    condition: Callable[[SASLContext], bool] = always

    def available(self, context: SASLContext) -> bool:
        return self.condition(context)

    def make_server(self, checker: Any, context: SASLContext) -> ISASLServer:
        return self.make(checker, context)
