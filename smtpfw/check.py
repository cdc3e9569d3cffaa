"""
Base classes for checks: every method lets pass, so an author writes only what differs.

A method that is not overridden is not called at all. What a check is asked
when, and what its answers mean, stands in :class:`~smtpfw.interfaces.ICheck`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from smtpfw.interfaces import ICheck, IConnection
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["STAGES", "Check", "FunctionCheck"]

#: Where a check may refuse, in the order of a dialog.
STAGES = ("connect", "hello", "mail", "rcpt", "data", "message")


@implementer(ICheck)
class Check:
    """A check that lets everything pass."""

    def connect(self, connection: IConnection) -> Any:
        """See :meth:`ICheck.connect`."""

    def hello(self, connection: IConnection, name: str, extended: bool) -> Any:
        """See :meth:`ICheck.hello`."""

    def mail(self, connection: IConnection, sender: Address, options: Options) -> Any:
        """See :meth:`ICheck.mail`."""

    def rcpt(self, connection: IConnection, recipient: Address, options: Options) -> Any:
        """See :meth:`ICheck.rcpt`."""

    def data(self, connection: IConnection) -> Any:
        """See :meth:`ICheck.data`."""

    def message(self, connection: IConnection, header: bytes, size: int) -> Any:
        """See :meth:`ICheck.message`."""

    def disconnected(self, connection: IConnection) -> None:
        """See :meth:`ICheck.disconnected`."""


class FunctionCheck(Check):
    """
    A check made of functions, by the names of its methods::

        FunctionCheck(rcpt=only_our_domains, connect=not_from_there)

    :raises TypeError: if there is no method of such a name.
    """

    def __init__(self, **functions: Callable[..., Any]) -> None:
        for name, function in functions.items():
            if name not in (*STAGES, "disconnected"):
                raise TypeError(f"a check has no method {name!r}; it has {', '.join(STAGES)} and disconnected")
            setattr(self, name, function)
