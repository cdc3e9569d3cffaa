"""What a mux asks of whatever holds its routes: a table of them, or a list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from smtpfw.interfaces import IBackend, IConnection
from smtpfw.wire.grammar import Address

__all__ = ["Routing", "passes_on"]


class Routing(Protocol):
    """Says where a recipient's mail goes."""

    @property
    def backends(self) -> Collection[IBackend]:
        """Each that mail can go to, once."""

    @property
    def relays(self) -> bool:
        """Whether one of them passes mail on to others, and nothing here asks who the client is."""

    def find(self, recipient: Address, hostname: str, connection: IConnection) -> IBackend | None:
        """
        The backend of a recipient, or None for 550 5.1.1.

        :param hostname: our own name.
        :param connection: of the client, as it is at this RCPT.
        :raises SMTPError: the refusal, if it is another one.
        """

    def full_address(self, recipient: Address, hostname: str) -> Address:
        """A recipient as its backend is told: ``<postmaster>`` has the domain that its route is for."""

    def describe(self) -> Sequence[tuple[str, IBackend | None]]:
        """In words, each behind "Mail for", and the backend that they lead to; None if they say it all."""


def passes_on(backend: object) -> bool:
    """Whether a backend is a relay: it hands mail for any domain to other hosts, and says so by ``relays = True``."""
    return bool(getattr(backend, "relays", False))
