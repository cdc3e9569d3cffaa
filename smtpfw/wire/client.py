"""
The client's side of a connection: what is asked goes out, replies come in, each to what it answers.

Rule 1: what is asked stands in a line. It is said as early as the peer allows:
at once if it offers PIPELINING and nothing before it ends a group (RFC 2920
section 3.1), else when the reply before it is there.

Rule 2: a reply that cannot be what it should be ends the connection. Whoever
guesses on takes the answer to one message for that to another.

Rule 3: when the connection is over, everyone who still waits hears of it, and
what was not said yet never will be.

Rule 4: nothing here knows Twisted, or the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from smtpfw.errors import BrokenPeer, ClientError, ConnectionFailed, Refused, RemoteProtocolError
from smtpfw.wire.buffer import LineError, ReceiveBuffer
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.dialect import Extension, checked
from smtpfw.wire.exchange import Exchange, Greeting, Hello
from smtpfw.wire.peer import NOBODY, Peer
from smtpfw.wire.replies import Reply, ReplyReader
from smtpfw.wire.transaction import Transaction
from smtpfw.wire.transcript import Transcript

if TYPE_CHECKING:
    from smtpfw.wire.sending import Sending

__all__ = ["ClientConnection", "Driver"]

#: RFC 4954 section 4: a challenge may be that long; any other line of a reply has 512 octets (RFC 5321 section
#: 4.5.3.1.5), and some servers do not count.
MAX_LINE = 12_288


#: In these there may be an answer due for each chunk, or for each recipient.
_SEVERAL_REPLIES = frozenset({"BODY", "END"})


class Driver(Protocol):
    """What the connection asks of whoever has the socket."""

    def send_body(self, sending: Sending) -> None:
        """Write the message to ``sending``, as fast as the peer takes it."""

    def stop_body(self, sending: Sending) -> None:
        """No more of it is wanted."""

    def more_room(self, sending: Sending) -> None:
        """It takes more of the message."""

    def start_tls(self) -> None:
        """Begin the handshake; call :meth:`ClientConnection.tls_started` behind it."""

    def closed(self, error: ClientError | None) -> None:
        """The connection is over; close it. None when it has ended as it should."""

    def ready(self) -> None:
        """Something else could be sent, and nothing waits to be."""


class ClientConnection:
    """
    One connection, from the greeting to its end.

    :param config: see :class:`~smtpfw.wire.config.ClientConfig`.
    :param extensions: those that are used where the peer offers them.
    :param driver: has the socket.
    :param hello_name: what we call ourselves when nobody has said hello.
    :param lmtp: whether LMTP is spoken (RFC 2033).
    :param peer_name: whom we talk to, for errors.
    :param tls: whether the line is encrypted from the start.
    :param greeted: hears of the greeting: gets it, or an exception.

    :ivar peer: what the peer offers.
    :ivar pipelining: whether commands may be sent ahead.
    :ivar tls_verified: whether the line is encrypted and the peer's certificate is that of the name it should have; the
        driver sets it.
    :ivar mechanism: of SASL, by which we have authenticated; empty before.
    :ivar transaction: the one that was begun by MAIL, for messages whose steps are asked for one by one.
    :ivar needs_reset: whether the peer has a transaction open that was given up.
    :ivar stepping: whether it may have one open that is made step by step.
    :ivar transcript: where the dialog is written down; None for nowhere.
    :ivar wants_ready: whether the driver wants to hear of it when something else could be sent.
    :ivar replies: how many have come.
    :ivar over: why the connection has ended; None while it has not.
    """

    __slots__ = (
        "_begun", "_buffer", "_due", "_introduced", "_octets", "_reader", "_running", "_turn", "_waiting", "config",
        "driver", "extensions", "hello_name", "is_over", "lmtp", "mechanism", "needs_reset", "over", "peer",
        "peer_name", "pipelining", "replies", "stepping", "tls", "tls_verified", "transaction",
        "transcript", "wants_ready",
    )  # fmt: skip

    def __init__(
        self,
        config: ClientConfig,
        extensions: Iterable[Extension],
        driver: Driver,
        greeted: Callable[[object], None],
        *,
        hello_name: str,
        lmtp: bool = False,
        peer_name: str = "",
        tls: bool = False,
    ) -> None:
        self.config = config
        self.extensions = checked(extensions)
        self.driver = driver
        self.hello_name = hello_name
        self.lmtp = lmtp
        self.peer_name = peer_name
        self.tls = tls
        self.tls_verified = False
        self.mechanism = ""
        self.peer: Peer = NOBODY
        self.pipelining = False
        self.transaction: Transaction | None = None
        self.needs_reset = False
        self.stepping = False
        self.over: ClientError | None = None
        self.is_over = False
        self.replies = 0
        self.wants_ready = False
        self._introduced = self._running = False
        self._buffer = ReceiveBuffer()
        self._reader = ReplyReader(max_octets=config.max_reply_bytes)
        self._due: list[bytes] = []
        self.transcript: Transcript | None = None
        self._octets = 0
        # How often octets have come.
        self._turn = 0
        # Those that are being said or wait for replies, in order; and those that nothing was said of yet.
        self._begun: deque[Exchange] = deque((Greeting(greeted),))
        self._waiting: deque[Exchange] = deque()

    # -- the driver's side ------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what came from the peer, and go on as far as possible."""
        if self.is_over:
            return
        self._turn = turn = self._turn + 1
        buffer, reader, begun = self._buffer, self._reader, self._begun
        texts, known = reader.texts, reader.known
        buffer.append(data)
        try:
            while (line := buffer.next_line(MAX_LINE)) is not None:
                reply = (None if texts else known.get(line)) or reader.feed(line)
                if reply is None:
                    continue
                if self.transcript is not None:
                    self._end_octets(self.transcript)
                    self.transcript.reply(reply.wire)
                if not begun or begun[0].turn == turn:
                    # What was said is answered; what we say to that can't have been heard yet.
                    self._take_unasked(reply)
                    return
                self.replies += 1
                exchange = begun[0]
                phase, lone = exchange.phase, exchange.alone or not self.pipelining
                if exchange.receive(self, reply) and begun and begun[0] is exchange:
                    begun.popleft()
                if reply.code == 421:
                    # It closes the connection, whatever it answers (RFC 5321 section 3.8).
                    self._end(Refused(reply, phase=phase, peer=self.peer_name), exchange)
                if self.is_over:
                    return
                if lone and buffer and not (phase in _SEVERAL_REPLIES and (self.pipelining or self.lmtp)):
                    # It can't be the answer to what is only now about to be said, and would be taken for it.
                    self.fail(BrokenPeer("more than one reply", phase=phase, peer=self.peer_name))
                    return
                if (self._waiting or self.wants_ready) and (not begun or (self.pipelining and begun[-1].sent)):
                    self.advance()
        except LineError:
            self.fail(self._broken("a line that is too long, or does not end in CRLF"))
        except RemoteProtocolError as error:
            self.fail(self._broken(str(error)))

    def connection_lost(self, why: str = "") -> None:
        """There will be no more octets, in either direction."""
        self.fail(ConnectionFailed(why or "the connection was lost", phase=self.phase, peer=self.peer_name))

    def submit(self, exchange: Exchange) -> None:
        """Ask something, behind all that was asked before."""
        if self.is_over:
            exchange.fail(self._too_late())
            return
        if exchange.needs_hello and not self._introduced:
            self._introduced = True
            self._waiting.append(Hello(self.hello_name, _nobody_asked))
        elif isinstance(exchange, Hello):
            self._introduced = True
        self._waiting.append(exchange)
        self.advance()

    def cancel(self, exchange: Exchange) -> None:
        """Whoever asked does not want to know any more."""
        if exchange in self._waiting:
            self._waiting.remove(exchange)
            if isinstance(exchange, Hello):
                self._introduced = self.peer is not NOBODY
        else:
            exchange.cancel()

    def advance(self) -> None:
        """Say what may be said by now."""
        if self._running:
            return
        self._running = True
        try:
            while not self.is_over and self.may_begin:
                if not self._waiting:
                    if self.wants_ready:
                        self.driver.ready()
                        if not self._waiting:
                            break
                    else:
                        break
                first = self._waiting[0]
                # A transaction that is made step by step may be open: whether it is will be seen by the replies.
                if self._begun and (first.alone or (first.whole and self.stepping)):
                    break
                exchange = self._waiting.popleft()
                self._begun.append(exchange)
                exchange.turn = self._turn
                try:
                    exchange.begin(self)
                except Exception as error:
                    if exchange in self._begun:
                        # What it told others may have ended the connection.
                        self._begun.remove(exchange)
                    exchange.fail(self.by_us(error))
        finally:
            self._running = False

    def data_to_send(self) -> list[bytes]:
        """What is due, in order; it is then no longer due."""
        due, self._due = self._due, []
        return due

    @property
    def may_begin(self) -> bool:
        """Whether something else may be said now, if it need not wait for replies itself."""
        return not self._begun or (self.pipelining and self._begun[-1].sent)

    @property
    def said_hello(self) -> bool:
        """Whether EHLO was said, or stands in the line to be."""
        return self._introduced

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nothing waits."""
        return not self._begun and not self._waiting

    @property
    def all_told(self) -> bool:
        """Whether nobody waits for anything; it may be within the last answer that somebody says so."""
        return not self._waiting and all(exchange.told for exchange in self._begun)

    @property
    def phase(self) -> str:
        """What is waited for at the moment; empty if nothing is."""
        return self._begun[0].phase if self._begun else ""

    def tls_started(self) -> None:
        """The line is encrypted; nothing that was said before counts any more (RFC 3207 section 4.2)."""
        self.tls = True
        self.peer = NOBODY
        self.mechanism = ""
        self.pipelining = self._introduced = self.stepping = False
        self.transaction = None
        self._buffer.clear()
        if self._waiting and self._waiting[0].needs_hello:
            self._introduced = True
            self._waiting.appendleft(Hello(self.hello_name, _nobody_asked))
        if self._begun:
            self._begun.popleft().finish(None)
        self.advance()

    def close(self) -> None:
        """The end, as it should be."""
        self._end(None)

    # -- what exchanges ask -------------------------------------------------

    def write(self, octets: bytes) -> None:
        """Send octets of a message, behind all that was said before."""
        self._due.append(octets)
        if self.transcript is not None:
            self._octets += len(octets)

    def write_line(self, line: bytes) -> None:
        """Say a line, CRLF included."""
        self.write_lines([line])

    def write_lines(self, lines: list[bytes]) -> None:
        """Say some lines, in one write."""
        self._due.append(lines[0] if len(lines) == 1 else b"".join(lines))
        if self.transcript is not None:
            self._end_octets(self.transcript)
            for line in lines:
                verb, _, argument = line[:-2].partition(b" ")
                self.transcript.command(verb.upper(), argument)

    def write_secret(self, line: bytes) -> None:
        """Say a line that nobody else shall see."""
        self._due.append(line)
        if self.transcript is not None:
            self.transcript.response(line[:-2])

    def _end_octets(self, transcript: Transcript) -> None:
        octets, self._octets = self._octets, 0
        if octets:
            transcript.message(octets)

    def introduced(self, peer: Peer) -> None:
        """The peer has answered EHLO."""
        self.peer = peer
        self._introduced = True
        self.pipelining = self.config.pipelining and (self.lmtp or peer.uses("PIPELINING"))
        # RFC 5321 section 4.1.4: EHLO ends what was under way.
        self.transaction = None
        self.needs_reset = self.stepping = False

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over without a last reply."""
        if exchange in self._begun:
            self._begun.remove(exchange)
        self.advance()

    def cancel_waiting(self, error: Callable[[], ClientError]) -> None:
        """What was not said yet shall not be; each gets an error of its own, since it tells of one message."""
        waiting, self._waiting = self._waiting, deque()
        self._introduced = self.peer is not NOBODY
        for exchange in waiting:
            exchange.fail(error())

    def fail(self, error: ClientError) -> None:
        """The connection can't be used any more."""
        self._end(error, self._begun[0] if self._begun else None)

    def is_first(self, exchange: Exchange) -> bool:
        """Whether the next reply is for this one."""
        return bool(self._begun) and self._begun[0] is exchange

    @property
    def octets_behind(self) -> bool:
        """Whether the peer has said more than one reply."""
        return len(self._buffer) > 0

    # -- replies ------------------------------------------------------------

    def _take_unasked(self, reply: Reply) -> None:
        if reply.code == 421:
            self.fail(Refused(reply, peer=self.peer_name))
        else:
            self.fail(self._broken(f"a reply to nothing: {reply.code}"))

    def _end(self, error: ClientError | None, culprit: Exchange | None = None) -> None:
        """End it; the culprit is what the error was the answer to."""
        if self.is_over:
            return
        self.is_over = True
        self.over = error
        if error is not None:
            self._due.clear()
        begun, waiting = list(self._begun), list(self._waiting)
        self._begun.clear()
        self._waiting.clear()
        # First the end, then the news of it: who asks for something else now is told so.
        self.driver.closed(error)
        for exchange in begun:
            at_fault = error is not None and exchange is culprit
            exchange.fail(error if at_fault and error is not None else self._too_late(exchange.phase))
        for exchange in waiting:
            exchange.fail(self._too_late())

    def _too_late(self, phase: str = "") -> ConnectionFailed:
        why = f"the connection is over ({self.over})" if self.over is not None else "the connection is over"
        error = ConnectionFailed(why, phase=phase, peer=self.peer_name)
        error.__cause__ = self.over
        return error

    def by_us(self, error: Exception) -> Exception:
        """What is in the way of something that was asked: of this peer, and before it was said."""
        if isinstance(error, ClientError):
            error.peer = error.peer or self.peer_name
        return error

    def _broken(self, what: str) -> BrokenPeer:
        return BrokenPeer(what, phase=self.phase, peer=self.peer_name)


def _nobody_asked(result: object) -> None:
    """Whoever asked for what follows hears of it."""
