"""
The words of a script for :class:`~smtpfw.testing.ScriptedPeer`: what a client may be expected to say, and what is done.

Rule: an action is octets, a list of octets, or a function of the connection;
so a test that needs another one writes a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from smtpfw.testing.peers import ScriptedConnection

__all__ = [
    "MESSAGE",
    "Expected",
    "Message",
    "Step",
    "abort",
    "close",
    "endless",
    "matches",
    "octets",
    "shown",
    "silence",
    "starttls",
]


class Message:
    """See :data:`MESSAGE`."""

    def __repr__(self) -> str:
        return "a whole message, up to the line with a dot"


#: Expects a message behind 354, up to CRLF.CRLF. It is kept in ``messages`` as it came, without the dot's line.
MESSAGE = Message()


class octets:  # noqa: N801 - it reads as a word of the script
    """Expects so many octets, whatever they are: the beginning of a message, say."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __repr__(self) -> str:
        return f"{self.count} octets"


#: What a step waits for: how a line begins, in any case ("" is any line), an expression that matches its beginning,
#: MESSAGE, octets(n).
Expected: TypeAlias = "str | bytes | re.Pattern[bytes] | Message | octets"
#: What the peer does: octets, each in a write by itself, or a function of the connection.
Action: TypeAlias = "bytes | Iterable[bytes] | Callable[[ScriptedConnection], object]"
#: What is expected, and what is done then; an action alone waits for nothing.
Step: TypeAlias = "tuple[Any, ...] | Action"


def silence(connection: ScriptedConnection) -> None:
    """Say nothing any more, whatever comes; the rest of the script is not played."""
    connection.silent = True


def close(connection: ScriptedConnection) -> None:
    """Close the connection once all is sent."""
    connection.silent = True
    connection.transport.loseConnection()


def abort(connection: ScriptedConnection) -> None:
    """Close the connection with a reset."""
    connection.silent = True
    connection.transport.abortConnection()


def starttls(
    context: Any, reply: bytes = b"220 2.0.0 Ready to start TLS\r\n", behind: bytes = b""
) -> Callable[[ScriptedConnection], None]:
    """
    Say the reply, and speak TLS as its server.

    :param behind: octets in clear in the same write as the reply, as an attacker would put them there.
    """

    def start(connection: ScriptedConnection) -> None:
        connection.transport.write(reply + behind)
        connection.start_tls(context)

    return start


def endless(piece: bytes, *, at_most: int = 4 * 1024 * 1024) -> Callable[[ScriptedConnection], None]:
    """
    Say the same again and again, as fast as the client reads, until it has gone.

    :param at_most: octets after which a client that still listens makes the test fail.
    """

    def start(connection: ScriptedConnection) -> None:
        connection.silent = True
        _Endless(connection, piece, at_most).resumeProducing()

    return start


#: Octets that a transport could have taken before it pauses a producer: sixteen times its buffer.
MOST_AT_ONCE = 16 * 65536


@implementer(IPushProducer)
class _Endless:
    def __init__(self, connection: ScriptedConnection, piece: bytes, left: int) -> None:
        self._connection = connection
        # Some at a time: a write for each line would cost more than all the rest of a test.
        self._piece = piece * max(1, 4096 // len(piece))
        self._left = left
        self._going = True
        connection.transport.registerProducer(self, True)

    def resumeProducing(self) -> None:
        self._going = True
        # A transport that takes so much at once throws it away: the end of TLS was said, and its close is under way.
        for _ in range(MOST_AT_ONCE // len(self._piece)):
            if not self._going:
                return
            if self._left <= 0:
                self.stopProducing()
                self._connection.fail("the client goes on listening to an endless reply")
            self._left -= len(self._piece)
            self._connection.transport.write(self._piece)
        self.stopProducing()
        self._connection.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._going = False

    def stopProducing(self) -> None:
        self._going = False


def matches(expected: Any, line: bytes) -> bool:
    if isinstance(expected, re.Pattern):
        return expected.match(line) is not None
    prefix = expected.encode() if isinstance(expected, str) else expected
    return line[: len(prefix)].upper() == prefix.upper()


def shown(expected: Any) -> str:
    if isinstance(expected, re.Pattern):
        return f"a match of {expected.pattern!r}"
    return repr(expected) if expected != "" else "any line"
