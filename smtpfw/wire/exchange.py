"""
What a client asks of its peer, from the first octet to the last reply: one object for each thing asked.

Rule 1: replies come in the order of what was asked, so each goes to the
exchange that is first in line; see :mod:`smtpfw.wire.client`.

Rule 2: an exchange ends once: with what it was asked for, or with an error.
Whoever asked hears of it in both cases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpfw.errors import BrokenPeer, LocalProtocolError, Refused
from smtpfw.wire.commands import format_hello
from smtpfw.wire.peer import Peer
from smtpfw.wire.phases import LMTP_VERBS, VERBS
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection

__all__ = ["Command", "Done", "Exchange", "Greeting", "Hello"]

#: Called once with what came of it: its value, or an exception.
Done = Callable[[Any], None]

#: Verbs of the core that something may follow before their reply is there (RFC 2920 section 3.1).
_PIPELINED = {verb.name for verb in (*VERBS, *LMTP_VERBS) if not verb.last_in_group}

#: Answers to EHLO of servers that may still know HELO (RFC 5321 section 4.1.1.1; 550 is what some filters say).
_NO_EHLO = frozenset({500, 501, 502, 504, 550})


class Exchange(ABC):
    """
    Base of all of them.

    :param done: hears what came of it.

    :ivar phase: what is waited for, as errors name it.
    :ivar sent: whether something else may be sent behind it already.
    :ivar told: whether whoever asked has heard what came of it.
    :ivar turn: how often octets had come when it was begun.
    """

    __slots__ = ("_done", "phase", "sent", "told", "turn")

    #: Whether EHLO has to be said first.
    needs_hello = True
    #: Whether all replies to what was asked before have to be there first.
    alone = False
    #: Whether it begins a transaction.
    whole = False

    def __init__(self, phase: str, done: Done) -> None:
        self.phase = phase
        self.sent = self.told = False
        self.turn = 0
        self._done: Done | None = done

    def begin(self, connection: ClientConnection) -> None:  # noqa: B027 - who waits for the greeting says nothing
        """
        Say what can be said now.

        :raises Exception: if it can't be said at all; nothing of it has been then.
        """

    @abstractmethod
    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        """Take a reply; return whether it was the last one."""

    def fail(self, error: Exception) -> None:
        """It will not be answered any more, or was not even asked."""
        self.finish(error)

    def cancel(self) -> None:
        """
        Whoever asked does not want to know any more.

        What was said can't be taken back, so its reply is still waited for: somebody else would get it.
        """
        self._done = None

    def finish(self, result: Any) -> None:
        """Tell whoever asked; only the first time counts."""
        done, self._done = self._done, None
        if done is not None:
            self.told = True
            done(result)


class Command(Exchange):
    """
    A line and its reply.

    :param line: CRLF included.
    :param raw: give any reply to whoever asked; otherwise one of class 4 or 5 is an error.
    """

    __slots__ = ("_line", "_raw")

    def __init__(self, line: bytes, done: Done, *, raw: bool = False) -> None:
        super().__init__(_verb(line), done)
        self._line = line
        self._raw = raw

    def begin(self, connection: ClientConnection) -> None:
        connection.write_line(self.line(connection))
        self.sent = self.phase in _PIPELINED and not self._raw

    def line(self, connection: ClientConnection) -> bytes:
        """What is said, CRLF included."""
        return self._line

    def accepted(self, connection: ClientConnection, reply: Reply) -> None:
        """The peer has said yes."""

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        if reply.code >= 400 and not self._raw:
            self.finish(Refused(reply, phase=self.phase, peer=connection.peer_name))
        elif reply.code >= 300 and not self._raw:
            connection.fail(BrokenPeer(f"it asks for more: {reply.code}", phase=self.phase, peer=connection.peer_name))
        else:
            self.accepted(connection, reply)
            self.finish(reply)
        return True


def _verb(line: bytes) -> str:
    """
    The verb of a line that is to be sent.

    :raises LocalProtocolError: if it is not exactly one line.
    """
    text = line[:-2]
    if not line.endswith(b"\r\n") or not text or any(octet in text for octet in b"\r\n\0"):
        raise LocalProtocolError("a command is one line, without CR, LF or NUL in it")
    return text.partition(b" ")[0].upper().decode("ascii", "replace")


class Greeting(Exchange):
    """What the peer says first."""

    __slots__ = ()
    needs_hello = False

    def __init__(self, done: Done) -> None:
        super().__init__("GREETING", done)

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        if reply.code == 220:
            self.finish(reply)
        elif reply.code >= 400:
            # 554 stands in the place of a greeting, too (RFC 5321 section 3.1).
            connection.fail(Refused(reply, phase=self.phase, peer=connection.peer_name))
        else:
            connection.fail(
                BrokenPeer(f"{reply.code} in the place of a greeting", phase=self.phase, peer=connection.peer_name)
            )
        return True


class Hello(Exchange):
    """
    EHLO, or HELO where the peer does not know it; LHLO in LMTP, where there is no falling back.

    :param name: what we call ourselves.
    """

    __slots__ = ("_extended", "_name")
    needs_hello = False
    alone = True

    def __init__(self, name: str, done: Done) -> None:
        super().__init__("EHLO", done)
        self._name = name
        self._extended = True

    def begin(self, connection: ClientConnection) -> None:
        line = format_hello(self._name, self._extended, lmtp=connection.lmtp)
        self.phase = _verb(line)
        connection.write_line(line)

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        if reply.code == 250:
            connection.introduced(Peer(reply, connection.extensions, extended=self._extended))
            self.finish(reply)
            return True
        if reply.code in _NO_EHLO and self._extended and not connection.lmtp:
            self._extended = False
            self.begin(connection)
            return False
        if reply.code < 400:
            connection.fail(BrokenPeer(f"{reply.code} to {self.phase}", phase=self.phase, peer=connection.peer_name))
            return True

        def refused() -> Refused:
            return Refused(reply, phase=self.phase, peer=connection.peer_name)

        # Nothing that was to follow can be said now; who hears of the error may ask for something else.
        connection.cancel_waiting(refused)
        self.finish(refused())
        return True
