"""
What became of one LMTP message, recipient by recipient (RFC 2033 section 4.2).

Rule 1: one reply for each accepted recipient, in the order of the RCPTs, and
each as soon as its own outcome and those before it are known; but none before
the message is whole.

Rule 2: an outcome is set once, and nothing merges two of them.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpfw.errors import SMTPError
from smtpfw.wire.application import Outcome
from smtpfw.wire.replies import OK_MESSAGE, Reply


class Outcomes:
    """
    The outcomes of one message.

    :param count: how many recipients were accepted.
    :param write: gives out a reply.
    """

    __slots__ = ("_next", "_open", "_outcomes", "_write")

    def __init__(self, count: int, write: Callable[[Reply], None]) -> None:
        self._outcomes: list[Reply | None] = [None] * count
        self._write = write
        self._next = 0
        self._open = False

    def set(self, position: int, outcome: Outcome) -> None:
        """
        Say what became of the recipient at ``position``; None for the standard reply of success.

        :raises ValueError: if it has been said already.
        """
        if self._outcomes[position] is not None:
            raise ValueError(f"the status of recipient {position + 1} has been set already")
        self._outcomes[position] = _as_reply(outcome)
        self._advance()

    def open(self) -> None:
        """The message is whole: answer whoever can be answered."""
        self._open = True
        self._advance()

    def finish(self, outcome: Outcome, override: bool = False) -> list[Reply]:
        """
        The session is done; whoever it has not spoken of gets the outcome of the whole.

        :param override: so does everybody else: the message itself is refused.
        :return: the replies, in the order of the RCPTs.
        """
        rest = _as_reply(outcome)
        replies = [rest if one is None or override else one for one in self._outcomes]
        self._outcomes = [*replies]
        self.open()
        return replies

    def _advance(self) -> None:
        if not self._open:
            return
        while self._next < len(self._outcomes):
            outcome = self._outcomes[self._next]
            if outcome is None:
                return
            self._next += 1
            self._write(outcome)


def _as_reply(outcome: Outcome) -> Reply:
    if outcome is None:
        return OK_MESSAGE
    reply = Reply.from_error(outcome) if isinstance(outcome, SMTPError) else outcome
    if reply.code == 421:
        # It would say that no reply follows, and the client would send once more to those who have the message.
        return Reply(451, reply.text, reply.enhanced_code)
    return reply
