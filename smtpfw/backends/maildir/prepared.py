"""
A message that is in ``tmp`` of every folder, fsynced, and in no ``new`` yet.

Rule: what the process leaves there when it dies is nobody's message: no client has
read a 250 for it, and whoever cleans ``tmp`` removes it.
"""

from __future__ import annotations

from zope.interface import implementer

from smtpfw.backends.maildir.committer import Committer
from smtpfw.backends.maildir.delivery import Delivery
from smtpfw.interfaces import IPrepared

__all__ = ["PreparedDelivery"]


@implementer(IPrepared)
class PreparedDelivery:
    """
    :param answer: what is said when it is delivered.
    """

    def __init__(self, committer: Committer, delivery: Delivery, answer: str) -> None:
        self._committer = committer
        self._delivery = delivery
        self._answer = answer

    async def commit(self) -> str:
        """
        Rename the files into ``new``, and fsync the folders, in one group with whatever else is committed.

        :raises TryAgainLater: when a disk does not do what it should; then it is in no ``new``.
        """
        await self._committer.commit(self._delivery)
        return self._answer

    async def roll_back(self) -> None:
        """Remove the files; one that stays is in the log."""
        self._committer.post(self._delivery.withdraw)
        await self._committer.catch_up()
