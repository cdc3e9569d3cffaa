"""
What a session may know of its connection, and do to it: a view on the protocol, made anew for each session.

After STARTTLS a new session gets a new view, so nothing that was said in
clear is remembered (RFC 3207 section 4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from smtpfw.errors import ServiceNotAvailable, SMTPError
from smtpfw.interfaces import IConnection, ISession
from smtpfw.state import ConnectionState, TLSState
from smtpfw.wire.config import LMTP
from smtpfw.wire.phases import CLOSED, CONNECTED
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from smtpfw.server.factory import SMTPServerFactory
    from smtpfw.server.hosting import SessionHost
    from smtpfw.server.protocol import SMTPServerProtocol
    from smtpfw.wire.transaction import Transaction


_EMPTY: dict[Any, Any] = {}


@implementer(IConnection)
class Connection:
    """See :class:`~smtpfw.interfaces.IConnection`."""

    __slots__ = ("_context", "_host", "_protocol")

    def __init__(self, protocol: SMTPServerProtocol, host: SessionHost, context: Mapping[Any, Any] = {}) -> None:
        self._protocol = protocol
        self._host = host
        self._context = dict(context) if context else None

    @property
    def context(self) -> dict[Any, Any]:
        if self._context is None:
            self._context = {}
        return self._context

    def context_so_far(self) -> dict[Any, Any]:
        """A copy of it, which is not made where there is nothing in it."""
        return dict(self._context) if self._context else _EMPTY

    @property
    def id(self) -> str:
        return self._protocol.wire.id

    @property
    def hostname(self) -> str:
        return self._protocol.wire.config.hostname

    @property
    def peer(self) -> IAddress:
        return self._protocol.peer

    @property
    def local(self) -> IAddress:
        return self._protocol.local

    @property
    def proxy(self) -> IAddress | None:
        return self._protocol.proxy

    @property
    def peer_host(self) -> str:
        return self._protocol.peer_host

    @property
    def hello_name(self) -> str:
        return self._protocol.wire.hello_name

    @property
    def protocol(self) -> str:
        wire = self._protocol.wire
        if not wire.extended:
            return "SMTP"
        utf8 = wire.transaction is not None and wire.transaction.options.utf8
        plain, international = ("LMTP", "UTF8LMTP") if wire.config.protocol == LMTP else ("ESMTP", "UTF8SMTP")
        return (international if utf8 else plain) + ("S" if wire.tls else "") + ("A" if wire.identity else "")

    @property
    def tls(self) -> str:
        return self._protocol.tls

    @property
    def tls_state(self) -> TLSState | None:
        return self._protocol.tls_state

    @property
    def identity(self) -> str:
        return self._protocol.wire.identity

    @property
    def mechanism(self) -> str:
        return self._protocol.wire.mechanism

    @property
    def transaction(self) -> Transaction | None:
        return self._protocol.wire.transaction

    @property
    def server(self) -> SMTPServerFactory:
        return self._protocol.factory

    @property
    def session(self) -> ISession | None:
        return self._host.session

    @session.setter
    def session(self, session: ISession) -> None:
        self._host.replace_session(session)

    @property
    def state(self) -> ConnectionState:
        return ConnectionState(self.hello_name, self.local, self.peer, self.tls_state)

    @property
    def over(self) -> bool:
        """Whether the client has gone, or has heard the last word."""
        return self._host.gone or self._protocol.wire.phase is CLOSED

    @property
    def seconds_since_mail(self) -> float:
        return self._host.seconds_since_mail

    @property
    def talked_early(self) -> bool:
        wire = self._protocol.wire
        return wire.phase is CONNECTED and wire.buffered > 0

    def close(self) -> None:
        """See :meth:`IConnection.close`."""
        self._protocol.close()

    def reject(self, error: SMTPError | None = None) -> None:
        """See :meth:`IConnection.reject`."""
        self._protocol.wire.close(Reply.from_error(error or ServiceNotAvailable()))
        self._protocol.flush()

    def write_reply(self, reply: Reply) -> None:
        """See :meth:`IConnection.write_reply`."""
        self._protocol.write_reply(reply)

    def read_line(self, limit: int = 2048) -> Any:
        """See :meth:`IConnection.read_line`."""
        wire = self._protocol.wire
        if not (wire.waiting or wire.running) or wire.wants_line:
            raise RuntimeError("a line can be read while a command is being answered, one at a time")
        return self._host.read_line(limit)

    def pause(self, seconds: float) -> Any:
        """See :meth:`IConnection.pause`."""
        return self._host.pause(seconds)

    def look_up_name(self) -> Any:
        """See :meth:`IConnection.look_up_name`."""
        return self._host.look_up_name()

    def __repr__(self) -> str:
        return f"<Connection {self.id} from {self._protocol.peer_name}>"
