"""
A message on its way out: its envelope, and what has to be known of its body before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.transaction import Recipient

__all__ = ["UNKNOWN_CONTENT", "Content", "OutgoingMessage"]


class Content(Protocol):
    """What is known of a body."""

    @property
    def data(self) -> bytes | None:
        """All of it, if it is in memory; it has not been encoded for the wire."""

    @property
    def size(self) -> int | None:
        """Octets as SIZE counts them (RFC 1870 section 5); None if nobody knows."""

    @property
    def eight_bit(self) -> bool | None:
        """Whether it has octets over 127; None if nobody knows."""

    @property
    def utf8_header(self) -> bool | None:
        """Whether its header section holds UTF-8 beyond ASCII (RFC 6532); None if nobody knows."""

    @property
    def binary(self) -> bool:
        """Whether it is to be transported as octets without lines (RFC 3030 section 3)."""


class _Unknown:
    """A body that nobody has seen."""

    data = size = eight_bit = utf8_header = None
    binary = False


UNKNOWN_CONTENT: Content = _Unknown()


class OutgoingMessage:
    """
    :ivar sender: the reverse-path.
    :ivar recipients: in the order in which they are given to the peer.
    :ivar options: the parameters of MAIL that were asked for. What the content needs is added to them on the wire.
    :ivar body: what is known of it.
    """

    __slots__ = ("body", "options", "recipients", "sender")

    def __init__(
        self,
        sender: Address,
        recipients: Sequence[Recipient],
        body: Content = UNKNOWN_CONTENT,
        options: Options = NO_OPTIONS,
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.body = body
        self.options = options
