"""
Base classes for backends: every hook accepts, so an author writes only what differs.

A hook that is not overridden is not called at all, but for ``logout``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zope.interface import implementedBy, implementer

from smtpfw.errors import ConfigError
from smtpfw.hooks import check_hooks
from smtpfw.interfaces import IBackend, IBody, IConnection, ILMTPSession, ISession
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options


@implementer(ISession)
class Session:
    """
    A session that accepts everything and keeps nothing.

    :ivar connection: what this session may know of its client.
    :ivar honours: keywords of the extensions that sessions of this class keep the promises of; for
        :class:`SessionBackend`.
    """

    honours: Collection[str] = frozenset()

    def __init__(self, connection: IConnection) -> None:
        self.connection = connection

    def mail(self, sender: Address, options: Options) -> Any:
        """See :meth:`ISession.mail`."""

    def rcpt(self, recipient: Address, options: Options) -> Any:
        """See :meth:`ISession.rcpt`."""

    def data(self, body: IBody) -> Any:
        """See :meth:`ISession.data`."""

    def reset(self, reason: str) -> Any:
        """See :meth:`ISession.reset`."""

    def logout(self, reason: str) -> Any:
        """See :meth:`ISession.logout`."""


@implementer(IBackend)
class SessionBackend:
    """
    A backend that needs nothing but a session class::

        SessionBackend(Inbox)

    :param make_session: called with the connection; a Session class, or any function that gives an ISession.
    :param honours: see :class:`~smtpfw.interfaces.IBackend`; by default the attribute ``honours`` of the class.
    :raises ConfigError: if it is neither, or a hook of the class can't be called as it would be.
    """

    def __init__(self, make_session: Any, *, honours: Collection[str] | None = None) -> None:
        if not callable(make_session):
            raise ConfigError(f"{make_session!r} makes no sessions; a session class is meant, or a function")
        if isinstance(make_session, type):
            for interface in implementedBy(make_session):  # type: ignore[no-untyped-call]
                try:
                    check_hooks(make_session, interface)
                except TypeError as error:
                    raise ConfigError(str(error)) from None
        self._make_session = make_session
        self.honours = getattr(make_session, "honours", frozenset()) if honours is None else honours

    def new_session(self, connection: IConnection) -> Any:
        """See :meth:`IBackend.new_session`."""
        return self._make_session(connection)


def overridden(session: Any, name: str, base: type = Session) -> Any:
    """
    The bound hook of a session, or None where it is the one of :class:`Session` that does nothing.

    :param base: another class of hooks that do nothing.
    """
    hook = getattr(session, name)
    if getattr(hook, "__func__", None) is getattr(base, name):
        return None
    return hook


def check_data(session: Any, lmtp: bool) -> None:
    """
    Look whether messages will reach a session.

    :param lmtp: whether LMTP is spoken.
    :raises TypeError: if it takes them by ``lmtp_data`` only, and nobody will call that.
    """
    if not lmtp and overridden(session, "data") is None and ILMTPSession.providedBy(session):
        raise TypeError(
            f"{type(session).__name__} takes messages by lmtp_data only, and this is no LMTP: all would be lost"
        )
