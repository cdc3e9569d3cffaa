"""
A backend made of one function that takes each message.

Rule 1: it is called with an :class:`Envelope` and the body, always both. An
``async def`` function is called when the message begins to arrive, and reads
the body as it comes; a plain one when the message is there, with its octets.

Rule 2: of a message that does not come to its end a plain function never
hears; an ``async def`` one hears by what its reads raise.

Rule 3: it answers as every hook does, and may also give a code, or a code and
a text. All recipients get its answer, in LMTP as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpfw.codes import ReplyCode, standard_text
from smtpfw.hooks import call_hook
from smtpfw.interfaces import IBackend
from smtpfw.session import Session
from smtpfw.wire.replies import Reply
from smtpfw.wire.trace import received_line

if TYPE_CHECKING:
    from smtpfw.interfaces import IBody, IConnection, ISession
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.parameters import Options

__all__ = ["Envelope", "Handler", "HandlerBackend"]

Handler = Callable[["Envelope", Any], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """
    What one message came with. It may be kept for longer than the connection, and read in other threads.

    :ivar sender: the reverse-path; false for the null sender.
    :ivar recipients: those that were accepted, in the order of their RCPTs.
    :ivar options: the parameters of MAIL.
    :ivar connection: by which it came: ``peer_host``, ``hello_name``, ``identity``, ``look_up_name()`` and the rest; it
        goes on to the next message when this one is answered.
    :ivar id: of the transaction; names the message in the log.
    """

    sender: Address
    recipients: tuple[Address, ...]
    options: Options
    connection: IConnection
    id: str
    _received: bytes = field(repr=False)

    @classmethod
    def of(cls, connection: IConnection) -> Envelope:
        """
        The envelope of the message under way.

        :raises RuntimeError: if there is none.
        """
        # Made now: what it is made of is gone when the message has been answered, and TLS is not for other threads.
        received = received_line(connection)
        transaction = connection.transaction
        assert transaction is not None, "there is no Received line without one"
        recipients = tuple(recipient.address for recipient in transaction.recipients)
        return cls(transaction.sender, recipients, transaction.options, connection, transaction.id, received)

    def received_line(self) -> bytes:
        """
        Our Received field for this message: whole lines, with CRLF, to be put in front of the body.

        It names the recipient if there is just one.
        """
        return self._received


@implementer(IBackend)
class HandlerBackend:
    """
    Calls a function for each message::

        HandlerBackend(handle)

    :param handler: ``handle(envelope, body)``, or None to accept and throw away. It returns None, a text, a
        :class:`~smtpfw.wire.replies.Reply`, a code, or a code and a text; or a Deferred or coroutine of one of these.
    :param whole: whether it is called when the message is there, with ``bytes``, or when it begins to arrive, with an
        :class:`~smtpfw.interfaces.IBody`. By default an ``async def`` function is called early, and any other late.
    :raises TypeError: if it can't be called with two arguments.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, handler: Handler | None, *, whole: bool | None = None) -> None:
        if handler is not None:
            _check_callable(handler)
        self.handler = handler
        self.whole = not _is_async(handler) if whole is None else whole

    def new_session(self, connection: IConnection) -> ISession:
        """Make a session that calls the function."""
        if self.handler is None:
            return Session(connection)
        return HandlerSession(connection, self.handler, self.whole)

    def describe(self) -> list[str]:
        """Say where mail goes."""
        if self.handler is None:
            return ["Mail is accepted and thrown away"]
        when = "once it is there" if self.whole else "as it arrives"
        return [f"Each message goes to {_name_of(self.handler)}, {when}"]


class HandlerSession(Session):
    """One client's dialog with a :class:`HandlerBackend`."""

    def __init__(self, connection: IConnection, handler: Handler, whole: bool) -> None:
        super().__init__(connection)
        self._handler = handler
        self._whole = whole

    async def data(self, body: IBody) -> Any:
        """Call the function; its answer is the answer."""
        envelope = Envelope.of(self.connection)
        result = call_hook(self._handler, envelope, await body.read() if self._whole else body)
        if isinstance(result, Deferred):
            result = await result
        return _to_answer(result)


def _to_answer(result: Any) -> Any:
    """A code, or a code and a text, become a Reply; the rest is what hooks return, and judged with them."""
    match result:
        case ReplyCode.OK:
            return None
        case int(code):
            return Reply(code, standard_text(code))
        case (int(code), str(text)):
            return Reply(code, text)
    return result


def _check_callable(handler: Any) -> None:
    name = _name_of(handler)
    if not callable(handler):
        raise TypeError(f"{name} is not callable; a handler is a function of envelope and body")
    try:
        signature = inspect.signature(handler)
    except ValueError:
        # Some functions that are written in C do not tell.
        return
    try:
        signature.bind(None, None)
    except TypeError:
        own = ", ".join(parameter.name for parameter in signature.parameters.values())
        raise TypeError(f"{name}({own}) can't be called with two arguments, (envelope, body)") from None


def _is_async(handler: Any) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004 - whether it is callable is known; here its kind counts
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _name_of(handler: Any) -> str:
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"
