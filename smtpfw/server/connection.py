"""
What a session may know of its connection: a view on the protocol, made anew for each session.

After STARTTLS a new session gets a new view, so nothing that was said in
clear is remembered (RFC 3207 section 4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from smtpfw.interfaces import IConnection
from smtpfw.tls import describe_tls
from smtpfw.wire.config import LMTP

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from smtpfw.server.protocol import SMTPServerProtocol
    from smtpfw.wire.transaction import Transaction


@implementer(IConnection)
class Connection:
    """See :class:`~smtpfw.interfaces.IConnection`."""

    __slots__ = ("_protocol", "context")

    def __init__(self, protocol: SMTPServerProtocol) -> None:
        self._protocol = protocol
        self.context: dict[Any, Any] = {}

    @property
    def id(self) -> str:
        return self._protocol.wire.id

    @property
    def hostname(self) -> str:
        return self._protocol.wire.config.hostname

    @property
    def peer(self) -> IAddress:
        peer: IAddress = self._protocol.transport.getPeer()
        return peer

    @property
    def local(self) -> IAddress:
        local: IAddress = self._protocol.transport.getHost()
        return local

    @property
    def peer_host(self) -> str:
        host: str = getattr(self.peer, "host", None) or ""
        # An IPv4 client of a socket for both families: RFC 4291 section 2.5.5.2.
        return host.removeprefix("::ffff:") if "." in host else host

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
        return describe_tls(self._protocol.transport) if self._protocol.wire.tls else ""

    @property
    def identity(self) -> str:
        return self._protocol.wire.identity

    @property
    def mechanism(self) -> str:
        return self._protocol.wire.mechanism

    @property
    def transaction(self) -> Transaction | None:
        return self._protocol.wire.transaction

    def close(self) -> None:
        """See :meth:`IConnection.close`."""
        self._protocol.close()

    def __repr__(self) -> str:
        return f"<Connection {self.id} from {self.peer_host or 'a Unix socket'}>"
