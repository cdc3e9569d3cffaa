"""
Between a transport of Twisted's and :mod:`smtpfw.wire.client`: octets, time limits, TLS, the end.

Rule 1: each phase has its time limit (RFC 5321 section 4.5.3.2), so whoever
waits always hears of something. Where a message comes slowly from its source,
it is not the peer that is late.

Rule 2: after a failure nothing that waits is sent any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from smtpfw.client.bodies import OutgoingBody
from smtpfw.client.pump import Pump
from smtpfw.direct import can_send_at_once, send_at_once
from smtpfw.errors import ClientError, Refused, TimedOut, TLSFailed
from smtpfw.tls import name_verified
from smtpfw.wire.config import ClientConfig

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.sending import Sending

__all__ = ["ClientDriver"]

#: Phase -> the setting that limits it; for all others it is ``command_timeout``.
_LIMITS = {
    "GREETING": "greeting_timeout",
    "TLS": "tls_handshake_timeout",
    "DATA": "data_timeout",
    "BODY": "block_timeout",
    "END": "end_timeout",
    "QUIT": "quit_timeout",
}

#: Seconds that a peer has to see the end of the connection, once all has been said.
_CLOSING = 10.0


class ClientDriver:
    """
    :param config: has the time limits.
    :param name: which certificate the peer must have to be verified.
    :param clock: tells the time; None for the reactor's.

    :ivar wire: the connection; whoever makes it sets it.
    :ivar context: the TLS context for the next handshake.
    :ivar on_ready: called whenever another message could be begun and none waits.
    """

    wire: ClientConnection

    def __init__(self, config: ClientConfig, name: str, clock: IReactorTime | None) -> None:
        self._limits = {phase: getattr(config, setting) for phase, setting in _LIMITS.items()}
        self._limit = config.command_timeout
        limits = [limit for limit in (self._limit, *self._limits.values()) if limit]
        # How often is looked whether the peer is late; where nothing is limited, never.
        self._interval = min(limits, default=0.0)
        self._name = name
        self._clock: Any = clock
        self._transport: Any = None
        self._pump: Pump | None = None
        self._handshaking = False
        self._sends_at_once = False
        # What is said next goes out with what comes behind it.
        self._holding = False
        self._alarm: IDelayedCall | None = None
        # When something was last heard of the peer, or the first thing was asked of it.
        self._since = 0.0
        self._closing = False
        self.context: Any = None
        self.on_ready: Callable[[], None] | None = None

    # -- the transport's side -------------------------------------------------

    def connected(self, transport: Any) -> None:
        """There is a transport; if there is a context already, TLS comes first."""
        self._transport = transport
        if self._clock is None:
            from twisted.internet import reactor

            self._clock = reactor
        if hasattr(transport, "setTcpNoDelay"):
            # The end of a message would wait for its beginning to be acknowledged.
            transport.setTcpNoDelay(True)
        self._sends_at_once = can_send_at_once(transport)
        self._since = self._clock.seconds()
        if self.wire.is_over:
            # Somebody has closed it before it was there.
            transport.abortConnection()
            return
        if self.context is not None:
            self._begin_handshake()
        self._watch()

    def receive(self, data: bytes) -> None:
        """Octets have come."""
        wire = self.wire
        replies = wire.replies
        self._holding = True
        try:
            wire.receive_data(data)
        finally:
            self._holding = False
        if wire.replies != replies:
            # A reply has its time as a whole: a line of it now and then could go on for ever.
            self._since = self._clock.seconds()
        self.flush()

    def handshake_completed(self) -> None:
        """TLS is there: ours, or that of an endpoint which has it built in."""
        wire = self.wire
        self._since = self._clock.seconds()
        wire.tls_verified = bool(self._name) and name_verified(self._transport, self._name)
        if wire.transcript is not None:
            wire.transcript.note("TLS started")
        if self._handshaking and wire.phase == "TLS":
            self._handshaking = False
            wire.tls_started()
        else:
            self._handshaking = False
            wire.tls = True
        self.flush()

    def connection_lost(self, reason: Failure) -> None:
        """The transport is gone."""
        self._stop_alarm()
        wire = self.wire
        if self._handshaking:
            wire.fail(TLSFailed(_why(reason), phase="TLS", peer=wire.peer_name))
        else:
            wire.connection_lost(_why(reason))
        if wire.transcript is not None:
            wire.transcript.close()

    def flush(self) -> None:
        """Send what is due; all that is said in answer to what has just come goes out together."""
        if not self._holding:
            self._send()

    def _send_paced(self) -> None:
        """
        Send what is due of a message, by the transport alone, which pauses its source.

        A socket that takes all at once would never pause it, and the reactor would have no turn before the end; nor
        does what is held back by :meth:`flush` fill a transport.
        """
        self._send(at_once=False)

    def _sent(self) -> None:
        """The message has been written, and need not be kept."""
        self._pump = None

    def _send(self, at_once: bool = True) -> None:
        due = self.wire.data_to_send()
        if due:
            transport = self._transport
            self._since = self._clock.seconds()
            data = due[0] if len(due) == 1 else b"".join(due)
            if at_once and self._sends_at_once and can_send_at_once(transport):
                data = send_at_once(transport, data)
            if data:
                transport.write(data)
            if self._alarm is None:
                self._watch()

    # -- the wire's side (see wire.client.Driver) -----------------------------

    def send_body(self, sending: Sending) -> None:
        body = sending.message.body
        assert isinstance(body, OutgoingBody)
        self._pump = Pump(sending, body, self._transport, self._send_paced, self._sent)
        self._pump.start()

    def stop_body(self, sending: Sending) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()

    def more_room(self, sending: Sending) -> None:
        if self._pump is not None:
            self._pump.go_on()

    def start_tls(self) -> None:
        self._begin_handshake()

    def closed(self, error: ClientError | None) -> None:
        transport = self._transport
        if transport is None:
            return
        if error is None or isinstance(error, Refused):
            self._closing = True
            transport.loseConnection()
            self._set_alarm(_CLOSING)
        else:
            self._stop_alarm()
            transport.abortConnection()

    def ready(self) -> None:
        assert self.on_ready is not None
        holding, self._holding = self._holding, True
        try:
            self.on_ready()
        finally:
            self._holding = holding

    # -- TLS ------------------------------------------------------------------

    def _begin_handshake(self) -> None:
        self._handshaking = True
        self._sends_at_once = False
        self._transport.startTLS(self.context)

    # -- time -----------------------------------------------------------------

    def _watch(self) -> None:
        """
        Look again when the peer may be late, or when that may have changed.

        No limit is shorter than the interval, so the alarm rings in time for whatever begins meanwhile, and what goes
        on costs nothing.
        """
        if self._interval and not self._closing:
            now = self._clock.seconds()
            limit = self._current_limit()
            due = min(self._since + limit, now + self._interval) if limit else now + self._interval
            self._set_alarm(due - now)

    def _current_limit(self) -> float:
        """Seconds; 0 for none."""
        phase = "TLS" if self._handshaking else self.wire.phase
        return self._limits.get(phase, self._limit) if phase else 0.0

    def _set_alarm(self, seconds: float) -> None:
        self._stop_alarm()
        self._alarm = self._clock.callLater(max(seconds, 0.0), self._ring)

    def _stop_alarm(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None and alarm.active():
            alarm.cancel()

    def _ring(self) -> None:
        self._alarm = None
        if self._closing:
            self._transport.abortConnection()
            return
        if not self.wire.phase and not self._handshaking:
            # Nothing is waited for. What is asked next sets the alarm again.
            return
        limit = self._current_limit()
        now = self._clock.seconds()
        wire = self.wire
        if wire.phase == "BODY" and self._pump is not None and not self._pump.waits_for_peer:
            # It is the source that is late; whoever feeds it has limits of its own.
            self._since = now
        if not limit or now < self._since + limit:
            self._watch()
            return
        phase = "TLS" if self._handshaking else wire.phase
        wire.fail(TimedOut(f"nothing came for {limit:g} seconds", phase=phase, peer=wire.peer_name))


def _why(reason: Failure) -> str:
    """What ended a connection, in one line."""
    text = " ".join(str(reason.value).split()) or type(reason.value).__name__
    return text.rstrip(".")[:300]
