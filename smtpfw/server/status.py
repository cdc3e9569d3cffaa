"""
The status collector of an LMTP message: from addresses to positions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from smtpfw.interfaces import IStatusCollector
from smtpfw.wire.grammar import Address
from smtpfw.wire.transaction import Recipient


@implementer(IStatusCollector)
class StatusCollector:
    """
    :param recipients: the accepted ones, in the order of the RCPTs.
    :param tell: called with the position of a recipient and what became of it.
    """

    def __init__(self, recipients: list[Recipient], tell: Callable[[int, Any], None]) -> None:
        self._tell = tell
        self._positions: dict[Address, deque[int]] = {}
        for position, recipient in enumerate(recipients):
            self._positions.setdefault(recipient.address, deque()).append(position)

    def set_status(self, recipient: Address | Recipient, outcome: Any = None) -> None:
        """See :meth:`IStatusCollector.set_status`."""
        address = recipient.address if isinstance(recipient, Recipient) else recipient
        positions = self._positions.get(address)
        if positions is None:
            raise ValueError(f"{recipient} is no recipient of this message")
        if not positions:
            raise ValueError(f"the status of {recipient} has been set already")
        self._tell(positions.popleft(), outcome)
