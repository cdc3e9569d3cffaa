"""A backend that accepts all mail and keeps none: for measuring, and for trying things out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from smtpfw.interfaces import IBackend
from smtpfw.session import Session

if TYPE_CHECKING:
    from smtpfw.interfaces import IConnection, ISession

__all__ = ["DiscardBackend"]


@implementer(IBackend)
class DiscardBackend:
    """Accepts everything. The bodies are read and thrown away by the server itself; no hook is called."""

    honours: frozenset[str] = frozenset()

    def new_session(self, connection: IConnection) -> ISession:
        """Make a session that accepts."""
        return Session(connection)

    def describe(self) -> list[str]:
        """Say where mail goes."""
        return ["Mail is accepted and thrown away"]
