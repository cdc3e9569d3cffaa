"""A connection as checks see it, without a server; and what one of their methods answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from zope.interface import directlyProvides

from smtpfw import Address
from smtpfw.errors import SMTPError
from smtpfw.hooks import call_hook
from smtpfw.interfaces import IConnection
from smtpfw.wire.parameters import Options

_ids = count(1)

OPTIONS = Options({})
SENDER = Address("a", "b.test")


class FakeConnection:
    """As much of an IConnection as a check looks at; all of it can be set."""

    def __init__(
        self,
        host: str = "192.0.2.1",
        *,
        identity: str = "",
        tls: str = "",
        clock: Clock | None = None,
        resolver: Any = None,
        sender: Address = SENDER,
        peer: Any = None,
    ) -> None:
        self.id = f"fake{next(_ids)}"
        self.peer_host = host
        self.peer: Any = peer or (
            UNIXAddress(b"/x") if not host else (IPv6Address if ":" in host else IPv4Address)("TCP", host, 9)
        )
        self.identity = identity
        self.tls = tls
        self.talked_early = False
        self.mechanism = "PLAIN" if identity else ""
        self.clock = clock or Clock()
        self.context: dict[Any, Any] = {}
        self.server = SimpleNamespace(clock=self.clock, resolver=resolver)
        self.transaction = SimpleNamespace(sender=sender)
        directlyProvides(self, IConnection)

    def pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self.clock, seconds)


def connection(host: str = "192.0.2.1", **settings: Any) -> Any:
    """A fake, for the type checker whatever is asked for."""
    return FakeConnection(host, **settings)


def refusal(method: Callable[..., Any], *arguments: Any) -> str:
    """What a method refuses with, as ``450 4.7.1 Text``; an empty text if it lets pass. It must not wait."""
    try:
        answer = call_hook(method, *arguments)
    except SMTPError as error:
        return str(error)
    assert answer is None, answer
    return ""


def mail(check: Any, client: Any, sender: Address = SENDER) -> str:
    """What MAIL gets."""
    return refusal(check.mail, client, sender, OPTIONS)


def rcpt(check: Any, client: Any) -> str:
    """What RCPT gets."""
    return refusal(check.rcpt, client, SENDER, OPTIONS)


def connect(check: Any, client: Any) -> str:
    """What a client gets that connects."""
    return refusal(check.connect, client)
