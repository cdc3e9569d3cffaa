"""
Who talks before the greeting is mostly a spambot: it does not read what it is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection

__all__ = ["EarlyTalkers"]


@dataclass(frozen=True)
class EarlyTalkers(Check):
    """
    Let the client wait for the greeting, and refuse it with 554 5.5.1 if it does not (RFC 5321 section 4.3.1).

    :ivar delay: seconds. Postfix postscreen_greet_wait 2 to 6, sendmail greet_pause 5; bots do not wait at all.
    :raises ValueError: for a delay that is none.
    """

    delay: float = 1.0

    def __post_init__(self) -> None:
        if not self.delay > 0:
            raise ValueError(f"delay: {self.delay} is not above 0, so nobody could be early")

    async def connect(self, connection: IConnection) -> None:
        """See :meth:`ICheck.connect`."""
        await connection.pause(self.delay)
        if connection.talked_early:
            raise SMTPError(554, (5, 5, 1), "You spoke before the greeting")

    def describe(self) -> str:
        """What it does, in words."""
        return f"The greeting waits {self.delay:g} s, and whoever talks before it is refused"
