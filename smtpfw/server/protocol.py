"""
The Twisted shell of :class:`~smtpfw.wire.server.ServerConnection`.

Rule 1: pull, never push. While a session thinks, commands wait in the
connection, so replies keep their order, and those to a pipelined group leave
in one write (RFC 2920 section 3.2).

Rule 2: nothing is buffered without bound. Above ``max_buffered_bytes`` of
input that can't be used yet the peer is paused; while it does not read its
replies, nothing of it is read.

What the rules of SMTP are stands in :mod:`smtpfw.wire`; what a session is
asked, in :mod:`smtpfw.server.hosting`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.direct import can_send_at_once, send_at_once
from smtpfw.errors import ServiceNotAvailable, SMTPError
from smtpfw.networks import host_of
from smtpfw.server.hosting import SessionHost
from smtpfw.server.origin import Origin, name_of
from smtpfw.server.parting import Parting
from smtpfw.server.timeouts import PhaseTimer
from smtpfw.server.transcripts import begin_transcript
from smtpfw.tls import tls_state
from smtpfw.wire.phases import CLOSED, CONNECTED, REFUSED
from smtpfw.wire.replies import Reply
from smtpfw.wire.server import ServerConnection

if TYPE_CHECKING:
    from smtpfw.extensions.xclient import ClientAttributes
    from smtpfw.server.factory import SMTPServerFactory
    from smtpfw.state import TLSState

#: Seconds that the replies to the first commands of a pipelined group wait for the others, when a hook takes its time.
GROUP_PATIENCE = 0.2


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class SMTPServerProtocol(Protocol):
    """
    One connection to a server. Made by :class:`~smtpfw.server.factory.SMTPServerFactory`.

    :ivar wire: the rules of the protocol.
    """

    factory: SMTPServerFactory
    #: A TCP, Unix or TLS transport: Twisted has no one interface for what they have in common.
    transport: Any
    wire: ServerConnection

    def __init__(self, factory: SMTPServerFactory, origin: Origin | None = None) -> None:
        """:param origin: what a proxy says of the connection; by default its socket tells."""
        self.factory = factory
        self.origin = origin
        self._is_spoken_for = False
        self.log: Logger = factory.log
        self._host = SessionHost(self)
        self.wire = ServerConnection(factory.config, factory.dialect, self._host, id=factory.next_id())
        self._timer = PhaseTimer(factory.alarms, factory.config, self._timed_out)
        # What waits for its time: the first replies of a pipelined group, commands that are too many for one turn.
        self._group: IDelayedCall | None = None
        self._backlog: IDelayedCall | None = None
        # The end after our last word.
        self._parting: Parting | None = None
        #: The client's IP address as text; empty for a Unix socket, and where nobody knows it.
        self.peer_host = ""
        #: The same as the log names it.
        self.peer_name = ""
        #: Version and cipher; empty on a clear line.
        self.tls = ""
        #: How many messages were accepted.
        self.messages = 0
        self._surplus: SMTPError | None = None
        # Whether the log has heard of this client.
        self._known = False
        self._direct = False
        self._answers = 0
        self._handshaking = False
        self._read_paused = False
        self._closed = False
        self._draining = False
        #: Why the connection ends, in the words of ISession.logout.
        self._reason = "disconnected"

    @property
    def peer(self) -> IAddress:
        """The client's address."""
        peer: IAddress = self.transport.getPeer() if self.origin is None else self.origin.peer
        return peer

    @property
    def local(self) -> IAddress:
        """What the client has connected to."""
        local: IAddress = self.transport.getHost() if self.origin is None else self.origin.local
        return local

    @property
    def proxy(self) -> IAddress | None:
        """Who has told us of the client; None if it is connected to us."""
        return None if self.origin is None else self.origin.proxy

    @property
    def tls_state(self) -> TLSState | None:
        """What TLS has agreed on; a certificate of who speaks for the client is not the client's."""
        state = tls_state(self.transport) if self.wire.tls else None
        return state if state is None or not self._is_spoken_for else replace(state, peer_certificate=None)

    # -- what Twisted calls -----------------------------------------------

    def connectionMade(self) -> None:
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            # A reply must not wait for the acknowledgement of the one before it.
            transport.setTcpNoDelay(True)
            self._direct = can_send_at_once(transport)
        transport.registerProducer(self, True)
        self.factory.connections.add(self)
        self._name_peer()
        if self.factory.transcripts is not None:
            begin_transcript(self, self.factory.transcripts)
        limits = self.factory.limits
        self._surplus = limits.enter(self.peer_host)
        if self._surplus is not None and limits.crowded:
            transport.abortConnection()
            return
        if ISSLTransport.providedBy(transport):
            # Implicit TLS: who never finishes the handshake never costs a session.
            self._shake_hands()
        else:
            self._open()

    def _name_peer(self) -> None:
        peer = self.peer
        self.peer_host, self.peer_name = host_of(peer), name_of(peer)

    def handshakeCompleted(self) -> None:
        self._handshaking = False
        self.tls = str(tls_state(self.transport) or "")
        self.wire.tls_started()
        self._timer.off()
        if self.wire.waiting:
            self._host.open(self._reopened)
        else:
            self._open()

    def _open(self) -> None:
        self._known = True
        self.factory.events.connected(self)
        self._admit()

    def _admit(self) -> None:
        if self._surplus is None:
            self._host.open(self._opened)
        else:
            # It costs no session, and no check.
            self._greet(self._surplus)

    def dataReceived(self, data: bytes) -> None:
        if self._closed:
            if self._parting is not None:
                self._parting.take(len(data))
            return
        if self._handshaking:
            # A protocol wrapped around us has not told us; but nothing is delivered before the handshake is over.
            self.handshakeCompleted()
        self.wire.receive_data(data)
        self.flush()

    def readConnectionLost(self) -> None:
        if self._parting is not None:
            self._parting.end()
            return
        self.wire.receive_end()
        self.flush()

    def writeConnectionLost(self) -> None:
        if not self._closed:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._timer.cancel()
        self._cancel_calls()
        if self._handshaking:
            self.factory.events.handshake_failed(self, _tls_reason(reason.value))
        if self._known:
            duration = self._timer.session_duration
            self.factory.events.disconnected(self, self._reason, duration, self.messages)
        self._closed = True
        self.factory.limits.leave(self.peer_host, refused=self._surplus is not None)
        self.wire.close()
        self._host.connection_lost(self._reason)

    def pauseProducing(self) -> None:
        # The peer does not read its replies: do not make more of them.
        self.wire.stalled = True
        self._timer.closing()
        self._regulate()

    def resumeProducing(self) -> None:
        self.wire.stalled = False
        if not self._closed:
            self._go_on()

    def stopProducing(self) -> None:
        self.wire.stalled = True

    # -- replies out, and what follows from the new state -----------------

    def flush(self) -> None:
        """Write the replies that are due, and set what depends on where the dialog is now."""
        wire = self.wire
        if wire.running:
            # Called from within; whoever set it to work flushes when it is done.
            return
        if wire.waiting and wire.replies_due and wire.more_commands:
            if self._group is None:
                self._group = self.factory.clock.callLater(GROUP_PATIENCE, self._group_waited)
        else:
            self._write()
        if wire.backlogged and not wire.stalled and self._backlog is None:
            # Others have their turn before this one's next commands.
            self._backlog = self.factory.clock.callLater(0, self._go_on)
        if wire.phase is CLOSED:
            self._close()
            return
        if self._draining and wire.idle:
            self.shut_down()
            return
        self._regulate()
        self._set_timer()

    def _go_on(self) -> None:
        self._backlog = None
        self.wire.go_on()
        self.flush()

    def write_reply(self, reply: Reply) -> None:
        """Send a reply that answers no command; nothing when the dialog is over."""
        if self.wire.phase is not CLOSED:
            self.wire.write(reply)
            self.flush()

    def _write(self) -> None:
        data = self.wire.data_to_send()
        if data:
            self._answers += 1
            if self._group is not None:
                self._cancel_group()
            if self._direct:
                data = send_at_once(self.transport, data)
                if not data:
                    return
            self.transport.write(data)

    def _group_waited(self) -> None:
        self._group = None
        self._write()

    def _cancel_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.cancel()

    def _cancel_calls(self) -> None:
        self._cancel_group()
        backlog, self._backlog = self._backlog, None
        if backlog is not None and backlog.active():
            backlog.cancel()
        if self._parting is not None:
            self._parting.cancel()

    def _regulate(self) -> None:
        """Read from the peer, or not."""
        pause = self.wire.stalled or 0 < self.factory.max_waiting < self.wire.buffered
        if pause is not self._read_paused and not self._closed:
            self._read_paused = pause
            if pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _set_timer(self) -> None:
        wire, timer = self.wire, self._timer
        if self._handshaking:
            # It has a time of its own.
            return
        if wire.stalled:
            timer.closing()
        elif (wire.waiting and not wire.wants_line) or wire.held or wire.phase is CONNECTED:
            timer.off()
        elif wire.message is not None:
            # Between two chunks as well: a message has one time, not one for each BDAT.
            timer.message(wire.message, wire.message.size, between_chunks=not wire.in_message)
        elif wire.phase is not REFUSED:
            timer.command(self._answers, introduced=bool(wire.hello_name))

    def _timed_out(self) -> None:
        self._reason = "timeout"
        if self._closed or self.wire.stalled or self._handshaking:
            # It does not read, or has not even shaken hands: there is nobody to tell.
            self.transport.abortConnection()
        elif self.wire.phase is REFUSED:
            self.wire.close()
            self.flush()
        else:
            self.wire.time_out()
            self.flush()

    # -- the end ----------------------------------------------------------

    def start_tls(self) -> None:
        """The 220 is due; whatever the peer sends from now on is TLS."""
        self._write()
        self._direct = False
        self._shake_hands()
        try:
            self.transport.startTLS(self.factory.tls)
        except Exception:
            # The peer was told that TLS begins: whatever it sends now must not be read as anything else.
            self.log.failure("{connection}: TLS could not be begun, aborting", connection=self.wire.id)
            self.wire.close()
            self.transport.abortConnection()

    def _shake_hands(self) -> None:
        self._handshaking = True
        self._timer.handshake()

    def drain(self) -> None:
        """Say 421 as soon as nothing would be lost by it."""
        if self._closed:
            return
        self._draining = self.wire.draining = True
        if self.wire.idle or self.wire.phase is CONNECTED:
            self.shut_down()

    def shut_down(self) -> None:
        """Say 421 now."""
        if self._closed:
            return
        self._reason = "shutdown"
        if self._host.storing:
            # Its answer is due; who is told 421 instead sends the message again (RFC 1047).
            self._draining = self.wire.draining = True
            return
        if self._handshaking:
            self.transport.abortConnection()
            return
        self.wire.part(_SHUTTING_DOWN)
        self._write()
        self._close()

    def speak_for(self, told: ClientAttributes) -> None:
        """The client is another one from now on: it is counted as that, and asked about from the start."""
        limits = self.factory.limits
        limits.leave(self.peer_host, refused=self._surplus is not None)
        before = self.origin or Origin(self.peer, self.local, self.peer)
        self.origin, self._is_spoken_for = before.after(told), True
        self._name_peer()
        self._surplus = limits.enter(self.peer_host)
        if self.wire.transcript is not None:
            self.wire.transcript.note(f"speaks for {self.peer_name}")
        self.factory.events.speaks_for(self)
        if self.wire.identity:
            self.factory.events.authenticated(self)
        self._admit()

    def left(self) -> None:
        """The connection is gone, and its session has come to its end."""
        self.factory.left(self)

    def close(self) -> None:
        """Close the connection once what is being asked has been answered."""
        self.wire.finish(read_message=self._host.delivering)
        self.flush()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._reason == "disconnected":
            if self.wire.said_quit:
                self._reason = "quit"
            elif not self.wire.end_of_input:
                self._reason = "error"
        self._cancel_calls()
        self._timer.closing()
        self.transport.unregisterProducer()
        self.wire.stalled = False
        if self._read_paused:
            self._read_paused = False
            self.transport.resumeProducing()
        self._parting = Parting(self.transport, self.factory.clock)
        self._parting.begin(self._reason, tls=self.wire.tls)

    def _opened(self, error: SMTPError | None) -> None:
        """A session, or a refusal, is there for a new connection."""
        if self._closed:
            return
        self._greet(error)

    def _greet(self, error: SMTPError | None) -> None:
        self.wire.greet(error)
        self._timer.greeted()
        if self.wire.phase is REFUSED:
            self._timer.refused()
        self.flush()

    def _reopened(self, error: SMTPError | None) -> None:
        """The same behind STARTTLS, where no greeting follows (RFC 3207 section 4.2)."""
        if self._closed:
            return
        if error is not None:
            code = error if error.code == 421 else ServiceNotAvailable(error.message)
            self.wire.close(Reply.from_error(code))
        else:
            self.wire.restart()
            self._timer.greeted()
        self.flush()


def _tls_reason(error: BaseException | None) -> str:
    """The words of OpenSSL, which come as tuples of library, function and reason; or those of the error itself."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return str(error.args[0][-1][-1])
    return str(error)


_SHUTTING_DOWN = Reply.from_error(ServiceNotAvailable("Service is shutting down, try again later"))
