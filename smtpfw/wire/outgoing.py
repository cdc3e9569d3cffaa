"""
Replies on their way out: the one place that counts them and gives them out.

Rule 1: replies go out in the order in which they are written; who sends them
takes all that are due at once.

Rule 2: a refusal counts, and those who keep a log hear of it. What became of a
message, and a goodbye, is neither: that is said, whatever its code.
"""

from __future__ import annotations

from smtpfw.errors import SMTPError, TooManyErrors
from smtpfw.wire.application import Application
from smtpfw.wire.budget import ErrorBudget
from smtpfw.wire.config import LMTP, ServerConfig
from smtpfw.wire.replies import NO_ENHANCED_CODE, Reply
from smtpfw.wire.transcript import Transcript

#: Replies that are made at a time: a peer that sends commands and reads nothing gets no more, and one that sends many
#: at once does not keep the others waiting. 1,000 recipients and their transaction take some turns.
MAX_REPLIES_DUE = 250

_TOO_MANY_ERRORS = Reply.from_error(TooManyErrors())
_TOO_MANY_COMMANDS = Reply.from_error(TooManyErrors("Too many commands without mail, closing transmission channel"))


#: What is due on an idle connection: a list of its own would cost each of them. Nobody appends to it.
_NOTHING: list[bytes] = []


class Outgoing:
    """
    The replies of one connection.

    :param config: has the limits of errors.
    :param application: hears of refusals.

    :ivar due: the octets of those that wait to be sent.
    :ivar transcript: where they are written down; None for nowhere.
    """

    __slots__ = ("_application", "_budget", "due", "transcript")

    def __init__(self, config: ServerConfig, application: Application) -> None:
        self._application = application
        self._budget = ErrorBudget(config)
        self.due = _NOTHING
        self.transcript: Transcript | None = None

    def count(self, verb: bytes, reply: Reply) -> Reply:
        """
        Count the refusal of a command, and tell those who keep a log.

        :param verb: of the command, in capitals; empty if it is none that is known.
        :return: what is said in its place: the same, or that it was one too many.
        """
        self._application.refused(verb, reply)
        return _TOO_MANY_ERRORS if self._budget.spend(verb, reply.code) else reply

    def say(self, reply: Reply) -> bool:
        """Give out a reply, whatever it says; return whether it was the last word: nothing follows 421."""
        if self.due:
            self.due.append(reply.wire)
        else:
            self.due = [reply.wire]
        if self.transcript is not None:
            self.transcript.reply(reply.wire)
        return reply.code == 421

    def take(self) -> bytes:
        """All that are due, in order; they are then no longer due."""
        due = self.due
        if not due:
            return b""
        self.due = _NOTHING
        return due[0] if len(due) == 1 else b"".join(due)

    def idle_command(self) -> Reply | None:
        """Count a command that brings no message nearer; return what it gets if it is one too many."""
        return _TOO_MANY_COMMANDS if self._budget.spend_idle() else None

    def mail_came(self) -> None:
        """A message was read to its end: the peer is here for mail."""
        self._budget.mail_came()


def greeting(config: ServerConfig, error: SMTPError | None) -> Reply:
    """The first reply on a connection: 220, or a refusal, which is 554 or 421 (RFC 5321 section 3.1)."""
    if error is None:
        label = "LMTP" if config.protocol == LMTP else "ESMTP"
        return Reply(220, f"{config.hostname} {label} {config.software}", NO_ENHANCED_CODE)
    if error.code == 421:
        return Reply.from_error(error)
    return Reply(554, error.message, error.enhanced_code if error.enhanced_code.klass == 5 else (5, 0, 0))
