"""
How long a peer may take: one deadline a connection, set anew for each phase.
"""

from __future__ import annotations

from collections.abc import Callable

from smtpfw.server.deadlines import Alarms, Deadline
from smtpfw.wire.config import ServerConfig

#: Seconds before ``min_data_rate`` counts: a message begins slowly.
RATE_GRACE = 60.0

#: Seconds for a client that was refused with 554 to say QUIT.
REFUSED_TIMEOUT = 30.0


class PhaseTimer(Deadline):
    """
    The time limits of one connection: a deadline that is set anew for each phase.

    :param expired: called when the peer took too long.
    """

    __slots__ = (
        "_answers",
        "_config",
        "_greeted",
        "_message",
        "_message_began",
        "_off_since",
        "_session_began",
    )

    def __init__(self, alarms: Alarms, config: ServerConfig, expired: Callable[[], None]) -> None:
        super().__init__(alarms, expired)
        self._config = config
        self._session_began = self._greeted = alarms.seconds()
        self._message: object = None
        self._message_began = 0.0
        self._off_since = -1.0
        self._answers = -1

    @property
    def session_duration(self) -> float:
        """Seconds since the client has connected."""
        return self._alarms.seconds() - self._session_began

    def handshake(self) -> None:
        """TLS is being negotiated."""
        self._answers = -1
        self.set(self._config.tls_handshake_timeout)

    def refused(self) -> None:
        """The client may only say QUIT."""
        self.set(REFUSED_TIMEOUT)

    def closing(self) -> None:
        """The peer has to read what it was sent."""
        self._answers = -1
        self.set(self._config.write_timeout)

    def greeted(self) -> None:
        """The client may introduce itself, from now on."""
        self._greeted = self._alarms.seconds()

    def command(self, answers: int, *, introduced: bool = True) -> None:
        """
        A command is due.

        :param answers: how many groups of commands have been answered. Only an answer sets the time anew: half a
            command an hour is no progress.
        :param introduced: whether the client has said who it is; it has ``greeting_timeout`` for that.
        """
        if self._answers == answers and self._off_since < 0:
            return
        self._answers = answers
        self._off_since = -1.0
        config = self._config
        limits = [config.command_timeout] if config.command_timeout else []
        if config.session_timeout:
            limits.append(self._session_began + config.session_timeout - self._alarms.seconds())
        if config.greeting_timeout and not introduced:
            limits.append(self._greeted + config.greeting_timeout - self._alarms.seconds())
        self.set(max(min(limits), 0.001) if limits else 0.0)

    def message(self, message: object, octets: int, *, between_chunks: bool = False) -> None:
        """
        More of a message is due.

        :param message: which one: of two that follow upon each other without a pause each has its own time.
        :param octets: how many have come so far.
        :param between_chunks: whether the next thing is a command.
        """
        self._answers = -1
        now = self._alarms.seconds()
        if message is not self._message:
            self._message = message
            self._message_began = now
        elif self._off_since >= 0:
            self._message_began += now - self._off_since
        self._off_since = -1.0
        config = self._config
        pause = config.command_timeout if between_chunks else config.data_timeout
        limits = [pause] if pause else []
        if config.message_timeout:
            limits.append(self._message_began + config.message_timeout - now)
        if config.min_data_rate:
            # The moment at which what has come would be too little.
            limits.append(self._message_began + max(RATE_GRACE, octets / config.min_data_rate) - now)
        self.set(max(min(limits), 0.001) if limits else 0.0)

    def off(self) -> None:
        """It is our turn; the peer is not to blame for the time that passes."""
        self.clear()
        if self._off_since < 0:
            self._off_since = self._alarms.seconds()
