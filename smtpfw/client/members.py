"""
The connections of a pool, and those of them that have nothing to do.

Rule 1: of those with nothing to do, the one that was used last is taken first,
so that those in excess come to their end.

Rule 2: none is kept for longer than it may be idle, or old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from smtpfw.client.protocol import SMTPClientProtocol

__all__ = ["IdleMembers", "Member", "first_alive"]


class Member:
    """
    A connection.

    :ivar born: when it was opened.
    :ivar since: when it became idle.
    :ivar count: how many messages it was given.
    :ivar is_new: whether it could not be used yet.
    :ivar retired: whether it gets no more messages.
    :ivar lent: whether somebody has it for himself.
    :ivar replies: how many had come when it was lent.
    """

    __slots__ = ("born", "client", "count", "is_new", "lent", "replies", "retired", "since")

    def __init__(self, client: SMTPClientProtocol, now: float) -> None:
        self.client = client
        self.born = self.since = now
        self.count = self.replies = 0
        self.is_new = True
        self.retired = self.lent = False


class IdleMembers(dict[Member, None]):
    """
    Those with nothing to do, the longest idle first.

    :param max_idle, max_age: seconds; 0 for no limit.
    :param retire: called with each that was idle for too long, or is too old.
    """

    def __init__(self, max_idle: float, max_age: float, retire: Callable[[Member], None]) -> None:
        super().__init__()
        self._max_idle = max_idle or inf
        self._max_age = max_age or inf
        self._retire = retire
        self._reaper: Any = None

    def watch(self, member: Member, clock: Any) -> None:
        """Have it closed in time."""
        due = self._end_of(member)
        if self._reaper is not None and self._reaper.getTime() > due:
            self.stop()
        if self._reaper is None and due < inf:
            self._reaper = clock.callLater(max(due - clock.seconds(), 0.0), self._reap, clock)

    def stop(self) -> None:
        """None has to be watched any more."""
        reaper, self._reaper = self._reaper, None
        if reaper is not None:
            reaper.cancel()

    def _end_of(self, member: Member) -> float:
        return min(member.since + self._max_idle, member.born + self._max_age)

    def _reap(self, clock: Any) -> None:
        self._reaper = None
        now = clock.seconds()
        for member in list(self):
            if self._end_of(member) <= now:
                self._retire(member)
            else:
                self.watch(member, clock)


def first_alive(members: Iterable[Member]) -> Member | None:
    """Some may have ended already, though their transports have not."""
    for member in members:
        if not member.client.wire.is_over:
            return member
    return None
