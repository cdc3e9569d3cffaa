"""
One LMTP message to several targets: each answers its own recipients (RFC 2033).

Rule 1: a session that provides ILMTPSession says what became of each of its
recipients; what another one answers counts for all of its own.

Rule 2: no target waits for another one, and none is taken back for another's failure.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from zope.interface import implementer

from smtpfw.backends.mux.calls import Gate, Hook
from smtpfw.backends.mux.target import Target
from smtpfw.backends.mux.tee import Leg, Tee
from smtpfw.errors import SMTPError, TryAgainLater
from smtpfw.hooks import accepted
from smtpfw.interfaces import IBody, ILMTPSession, IStatusCollector
from smtpfw.memory import MemoryBudget
from smtpfw.wire.grammar import Address
from smtpfw.wire.transaction import Recipient

__all__ = ["as_said", "deliver_each", "lmtp_hook"]


def lmtp_hook(target: Target, status: IStatusCollector) -> Hook:
    """What takes the body: ``lmtp_data`` with its collector if the session has it, else ``data``."""
    if not ILMTPSession.providedBy(target.session):
        return target.hook("data")
    lmtp_data = target.hook("lmtp_data")
    return lambda body: lmtp_data(body, status)


def as_said(target: Target, status: IStatusCollector) -> IStatusCollector:
    """A collector for a target that was told of recipients otherwise than the client says them."""
    assert target.transaction is not None
    told = [recipient.address for recipient in target.transaction.recipients]
    return status if told == target.said else _AsSaid(zip(told, target.said, strict=True), status)


async def deliver_each(targets: Iterable[Target], body: IBody, status: IStatusCollector) -> None:
    """
    Deliver.

    :param status: of all recipients.
    :raises TryAgainLater: when a target has failed; that is for recipients whose status could not be set.
    """
    gate = Gate()
    tee = Tee(gate, [_leg(gate, target, status, getattr(body, "memory", None)) for target in targets])
    await tee.feed(body)
    await tee.end(tee.legs)
    if any(leg.error is not None for leg in tee.legs):
        raise TryAgainLater


def _leg(gate: Gate, target: Target, status: IStatusCollector, memory: MemoryBudget | None) -> Leg:
    assert target.transaction is not None
    share = _Share([recipient.address for recipient in target.transaction.recipients], as_said(target, status))

    def answer(leg: Leg) -> None:
        if leg.error is None:
            share.set_rest(leg.value)
        elif not leg.broken:
            # A fault is in the log already.
            share.set_rest(leg.error if isinstance(leg.error, SMTPError) else TryAgainLater())

    return Leg(gate, accepted, lmtp_hook(target, share), memory, answer)


@implementer(IStatusCollector)
class _AsSaid:
    """Gives the status of each recipient to how the client says it."""

    def __init__(self, pairs: Iterable[tuple[Address, Address]], status: IStatusCollector) -> None:
        self._said: dict[Address, deque[Address]] = {}
        for told, said in pairs:
            self._said.setdefault(told, deque()).append(said)
        self._status = status

    def set_status(self, recipient: Address | Recipient, outcome: Any = None) -> None:
        """See :meth:`IStatusCollector.set_status`."""
        address = recipient.address if isinstance(recipient, Recipient) else recipient
        said = self._said.get(address)
        self._status.set_status(said.popleft() if said else address, outcome)


@implementer(IStatusCollector)
class _Share:
    """
    The status collector of one target.

    The same address always belongs to the same target, so the order among duplicates stays that of the whole.
    """

    def __init__(self, addresses: list[Address], status: IStatusCollector) -> None:
        self._left = Counter(addresses)
        self._status = status

    def set_status(self, recipient: Address | Recipient, outcome: Any = None) -> None:
        """See :meth:`IStatusCollector.set_status`."""
        if isinstance(recipient, Recipient):
            recipient = recipient.address
        if recipient not in self._left:
            raise ValueError(f"{recipient} is no recipient of this message")
        if not self._left[recipient]:
            raise ValueError(f"the status of {recipient} has been set already")
        self._left[recipient] -= 1
        self._status.set_status(recipient, outcome)

    def set_rest(self, outcome: Any) -> None:
        """The answer of the whole, for whoever has no status yet."""
        for recipient in [*self._left.elements()]:
            self.set_status(recipient, outcome)
