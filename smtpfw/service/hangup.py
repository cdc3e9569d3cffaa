"""
A SIGHUP that comes early.

Rule: until the reactor runs, and :class:`~smtpfw.service.service.SMTPService`
has its own handler, a SIGHUP would end the process. It is remembered instead,
and obeyed then: what has been read may be older than what the operator has
written.
"""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["EarlyHangup"]


class EarlyHangup:
    """
    A handler of signals. Not SIG_IGN: programs that we start would inherit it.

    :ivar heard: whether one has come.
    """

    def __init__(self) -> None:
        self.heard = False

    def listen(self) -> None:
        """Be the handler; only in the main thread, as Python has it."""
        signal.signal(signal.SIGHUP, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember it."""
        self.heard = True
