"""A backend that accepts all mail and keeps none: for measuring, and for trying things out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from smtpfw.interfaces import IBackend, IPrepared, ITwoPhaseSession
from smtpfw.session import Session

if TYPE_CHECKING:
    from smtpfw.interfaces import IBody, IConnection, ISession

__all__ = ["DiscardBackend"]


@implementer(IBackend)
class DiscardBackend:
    """Accepts everything. The bodies are read and thrown away by the server itself; no hook is called."""

    honours: frozenset[str] = frozenset()

    def new_session(self, connection: IConnection) -> ISession:
        """Make a session that accepts."""
        return DiscardSession(connection)

    def describe(self) -> list[str]:
        """Say where mail goes."""
        return ["Mail is accepted and thrown away"]


@implementer(IPrepared)
class NothingPrepared:
    """Nothing to be delivered, and nothing to be taken back."""

    def commit(self) -> None:
        """Done."""

    def roll_back(self) -> None:
        """Done."""


@implementer(ITwoPhaseSession)
class DiscardSession(Session):
    """A session whose mail can always be taken back."""

    def prepare(self, body: IBody) -> NothingPrepared:
        """Accepted, unread."""
        return NothingPrepared()
