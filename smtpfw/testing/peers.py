"""
Peers for the tests of clients: one that a test speaks for, and one that plays a script.

Rule 1: a peer never does by itself what a server would do. What a test wants
said stands in the test, octet by octet, so servers that misbehave are as easy
as those that behave.

Rule 2: what the client says is compared with what the script expects, and
every difference fails loudly, with the place in the script and all that was
said before.

Rule 3: what came in clear and what came within TLS are kept apart, so that a
test can prove what never went out in clear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocolFactory, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.testing.link import Joined
from smtpfw.testing.memory import HOST
from smtpfw.testing.script import Expected, Message, Step, matches, octets, shown
from smtpfw.testing.tls import TLSStreamTransport

__all__ = ["MemoryServer", "ScriptedConnection", "ScriptedPeer"]


@implementer(IHalfCloseableProtocol)
class _Recorder(Protocol):
    """Keeps what comes; whatever the client closes, the test decides what this end does."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass


class MemoryServer:
    """
    The server's end for a client's protocol: sends octets, sees octets.

    >>> server = MemoryServer.of(client)
    >>> server.send(b"220 mx.test ESMTP\\r\\n")
    b'EHLO me.test\\r\\n'

    :param client: the client's protocol, not connected yet.
    :param chunk: octets that arrive at once, at most, in both directions.

    :ivar link: the :class:`~smtpfw.testing.Joined` between both ends.
    """

    def __init__(self, client: Protocol, *, chunk: int | None = None) -> None:
        self._end = _Recorder()
        self.link = Joined(client, self._end, chunk=chunk)
        self.link.flow()

    @classmethod
    def of(cls, client: Protocol | IProtocolFactory, *, chunk: int | None = None) -> MemoryServer:
        """Connect a client's protocol, or one that its factory makes."""
        protocol = client if isinstance(client, Protocol) else client.buildProtocol(HOST)
        assert isinstance(protocol, Protocol)
        return cls(protocol, chunk=chunk)

    @property
    def transport(self) -> TLSStreamTransport:
        """The client's transport: ``writes``, ``producer``, ``reading``, ``aborted``, ``half_closed``."""
        return self.link.client_transport

    def send(self, data: bytes) -> bytes:
        """
        Send octets; within TLS if that is on.

        :return: what the client has said since the last call of :meth:`received`.
        """
        self._end.transport.write(data)
        return self.received()

    def received(self) -> bytes:
        """What the client has said since the last call, without its TLS."""
        self.flow()
        data, self._end.received = self._end.received, b""
        return data

    def flow(self) -> None:
        """Let what the client does have its effect; see :meth:`Joined.flow`."""
        self.link.flow()

    def start_tls(self, context: Any) -> None:
        """
        Speak TLS from now on, as its server.

        :param context: of :func:`smtpfw.tls.server_context`, say.
        """
        self._end.transport.startTLS(context)
        self.flow()

    def pause_writing(self) -> None:
        """Read no more: the client's producer is paused, and a close of the client's waits for what it has written."""
        self.transport.pause_writing()
        self.flow()

    def resume_writing(self) -> bytes:
        """Read again; return what was received."""
        self.transport.resume_writing()
        return self.received()

    def half_close(self) -> bytes:
        """Say that no more will be sent, and go on reading; return what the client says to it."""
        self._end.transport.loseWriteConnection()
        return self.received()

    def close(self) -> None:
        """Close the connection in good order."""
        self._end.transport.loseConnection()
        self.flow()

    def disconnect(self) -> None:
        """Go away without a word."""
        self._end.transport.abortConnection()
        self.flow()

    @property
    def closed(self) -> bool:
        """Whether the connection is over for the client; ``transport.aborted`` tells how."""
        self.flow()
        return self.transport.closed


class ScriptedPeer(Factory):
    """
    A server that plays a script, in memory (:func:`~smtpfw.testing.joined`) or on a socket (``endpoint.listen(peer)``).

    >>> peer = ScriptedPeer([
    ...     b"220 mx.test ESMTP\\r\\n",                                # unasked: the greeting
    ...     ("EHLO", b"250-mx.test\\r\\n250 STARTTLS\\r\\n"),
    ...     ("STARTTLS", starttls(context)),
    ...     (re.compile(rb"EHLO \\[?[a-z0-9.]+"), [b"250 mx", b".test\\r\\n"]),   # in two writes
    ...     ("MAIL FROM:<a@b.test>", b"250 OK\\r\\n"),
    ...     ("RCPT", b"250 OK\\r\\n"),
    ...     ("DATA", b"354 go on\\r\\n"),
    ...     (MESSAGE, b"250 queued\\r\\n"),
    ...     ("QUIT", b"221 bye\\r\\n", close),
    ... ])
    >>> link = joined(client, peer)
    >>> peer.assert_played()

    A step is a tuple: what the client is expected to say, and what the peer does then; or an action alone, which waits
    for nothing. Expected is how a line begins (in any case; an empty text takes any line), a compiled expression of
    bytes that matches from the line's beginning, ``MESSAGE``, or ``octets(n)``; a ``BDAT n`` takes its octets with it.
    Actions are octets, a list of octets (fragments: each is a write by itself, though sockets may join them),
    ``silence``, ``close``, ``abort``, ``starttls(context)``, ``endless(piece)``, and any function of the
    :class:`ScriptedConnection`; all of them stand in :mod:`smtpfw.testing.script`.

    A client that says something else, or says more when the script is at its end, raises an AssertionError: in memory
    out of ``flow()``, on a socket into the log, where trial finds it; :meth:`assert_played` raises it again.

    :param scripts: one for each connection, in order; the last one serves all that follow.

    :ivar connections: a :class:`ScriptedConnection` for each.
    """

    noisy = False

    def __init__(self, *scripts: Sequence[Step]) -> None:
        if not scripts:
            raise TypeError("a ScriptedPeer needs a script")
        self._scripts = scripts
        self.connections: list[ScriptedConnection] = []

    def buildProtocol(self, addr: IAddress | None) -> ScriptedConnection:
        script = self._scripts[min(len(self.connections), len(self._scripts) - 1)]
        connection = ScriptedConnection(script)
        connection.factory = self
        self.connections.append(connection)
        return connection

    @property
    def in_clear(self) -> bytes:
        """All that clients have said in clear."""
        return b"".join(connection.in_clear for connection in self.connections)

    @property
    def in_tls(self) -> bytes:
        """All that clients have said within TLS, deciphered."""
        return b"".join(connection.in_tls for connection in self.connections)

    @property
    def commands(self) -> list[bytes]:
        """The lines that the scripts have taken, without CRLF."""
        return [line for connection in self.connections for line in connection.commands]

    @property
    def messages(self) -> list[bytes]:
        """The messages that the scripts have taken, as they came: dots are stuffed."""
        return [message for connection in self.connections for message in connection.messages]

    def assert_played(self) -> None:
        """
        Make sure that all went as the scripts say.

        :raises AssertionError: if a client said something else, a script was not played to its end (silence and closing
            are an end), or there were fewer connections than scripts.
        """
        if len(self.connections) < len(self._scripts):
            raise AssertionError(
                f"{len(self.connections)} connections were made, and there are {len(self._scripts)} scripts"
            )
        for connection in self.connections:
            connection.assert_played()


class ScriptedConnection(Protocol):
    """
    One connection of a :class:`ScriptedPeer`.

    :ivar in_clear: what the client has said in clear.
    :ivar in_tls: what it has said within TLS.
    :ivar commands: the lines that the script has taken, without CRLF.
    :ivar messages: what MESSAGE and BDAT have taken, as it came.
    :ivar silent: whether it does nothing any more, and lets the client say what it wants.
    :ivar lost: why the connection was lost; None while it is there.
    """

    transport: Any

    def __init__(self, script: Sequence[Step]) -> None:
        self._script = [step if isinstance(step, tuple) else (None, step) for step in script]
        self._position = 0
        self._buffer = b""
        self._tls = False
        self._playing = False
        self._problem: AssertionError | None = None
        self.in_clear = b""
        self.in_tls = b""
        self.commands: list[bytes] = []
        self.messages: list[bytes] = []
        self.silent = False
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        self._tls = ISSLTransport.providedBy(self.transport)
        self._play()

    def dataReceived(self, data: bytes) -> None:
        if self._tls:
            self.in_tls += data
        else:
            self.in_clear += data
        self._buffer += data
        self._play()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def start_tls(self, context: Any) -> None:
        """Speak TLS from now on; what the client has said in clear behind its command is its fault."""
        if self._buffer:
            self.fail(f"behind STARTTLS the client has said {self._buffer!r} in clear")
        self._tls = True
        self.transport.startTLS(context)

    def fail(self, problem: str) -> None:
        """
        End the script, because the client does what it should not.

        :raises AssertionError: always.
        """
        said = ", ".join(line.decode("utf-8", "backslashreplace") for line in self.commands)
        self.silent = True
        self._problem = AssertionError(f"{problem}; before that: {said or 'nothing'}")
        raise self._problem

    def assert_played(self) -> None:
        """See :meth:`ScriptedPeer.assert_played`."""
        if self._problem is not None:
            raise self._problem
        if not self.silent and self._position < len(self._script):
            self.fail(f"{self._place} waits for {shown(self._script[self._position][0])}; unread is {self._buffer!r}")

    @property
    def _place(self) -> str:
        return f"step {self._position + 1} of {len(self._script)}"

    def _play(self) -> None:
        if self._playing:
            # An action has made octets come, which have to wait for their step.
            return
        self._playing = True
        try:
            while not self.silent and self._position < len(self._script):
                expected, *actions = self._script[self._position]
                if expected is not None and not self._take(expected):
                    return
                self._position += 1
                for action in actions:
                    self._do(action)
            if self._buffer and not self.silent:
                self.fail(f"the script is at its end, and the client goes on with {self._buffer!r}")
        finally:
            self._playing = False

    def _do(self, action: Any) -> None:
        if callable(action):
            action(self)
        elif isinstance(action, bytes):
            self.transport.write(action)
        else:
            for piece in action:
                self.transport.write(piece)

    def _take(self, expected: Expected) -> bool:
        """Take what the step waits for out of the buffer; False if it has not come yet."""
        if isinstance(expected, octets):
            return self._take_octets(expected.count)
        if isinstance(expected, Message):
            return self._take_message()
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        if not matches(expected, line):
            self.fail(f"{self._place} expects {shown(expected)}, and the client says {line!r}")
        chunk = re.match(rb"BDAT +(\d+)", line, re.IGNORECASE)
        if chunk is not None:
            size = int(chunk[1])
            if len(rest) < size:
                return False
            self.messages.append(rest[:size])
            rest = rest[size:]
        self.commands.append(line)
        self._buffer = rest
        return True

    def _take_octets(self, count: int) -> bool:
        if len(self._buffer) < count:
            return False
        self._buffer = self._buffer[count:]
        return True

    def _take_message(self) -> bool:
        if self._buffer.startswith(b".\r\n"):
            message, self._buffer = b"", self._buffer[3:]
        else:
            end = self._buffer.find(b"\r\n.\r\n")
            if end < 0:
                return False
            message, self._buffer = self._buffer[: end + 2], self._buffer[end + 5 :]
        self.messages.append(message)
        return True
