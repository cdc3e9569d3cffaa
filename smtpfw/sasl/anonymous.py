"""
ANONYMOUS (RFC 4505): anyone may come in.

The one message is what the client says of itself, for the log: an address, or
any text. It proves nothing.
"""

from __future__ import annotations

from zope.interface import implementer

from smtpfw.errors import AuthMalformed
from smtpfw.sasl.exchange import Mechanism, ServerExchange, Step, ask_checker, decode_text
from smtpfw.sasl.guard import expect_end
from smtpfw.sasl.interfaces import IAnonymousChecker, ISASLClient
from smtpfw.sasl.saslprep import PreparationError, prepare_trace
from smtpfw.sasl.values import ServerInfo

__all__ = ["ANONYMOUS", "Anonymous", "AnonymousServer"]

#: Characters of a trace (RFC 4505 section 2).
MAX_TRACE = 255


def _check(trace: str) -> str:
    if len(trace) > MAX_TRACE:
        raise PreparationError(f"it has more than {MAX_TRACE} characters")
    return prepare_trace(trace)


class AnonymousServer(ServerExchange):
    __slots__ = ()

    async def message(self, response: bytes) -> Step:
        try:
            trace = _check(decode_text(response))
        except PreparationError as error:
            raise AuthMalformed(f"The trace is not usable: {error}") from None
        return self.accept(await ask_checker(self.checker.check_anonymous, trace, kind=str))


ANONYMOUS = Mechanism("ANONYMOUS", AnonymousServer, needs=(IAnonymousChecker,))


@implementer(ISASLClient)
class Anonymous:
    """
    Log in as nobody.

    :param trace: what to say of oneself; at most 255 characters.
    :raises ValueError: if it is longer, or has something in it that RFC 4505 prohibits.
    """

    __slots__ = ("_trace",)

    def __init__(self, trace: str = "") -> None:
        self._trace = _check(trace)

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        return "ANONYMOUS", self._trace.encode("utf-8")

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        expect_end(more)
        return None
