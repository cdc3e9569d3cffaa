"""
What the backends that keep nothing have in common: mail is passed on while it arrives.

Rule 1: a 250 after the message is the next hop's. Nothing is stored here, so
nothing is lost with this machine, and nobody has to be told later that it could
not be delivered: whoever sends keeps the message until then.

Rule 2: a promise is honoured only if every next hop keeps it by its
configuration, not by what it happens to offer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from smtpfw.backends.relay.looking import look_for
from smtpfw.backends.relay.opening import Openings
from smtpfw.backends.relay.promises import promises_of
from smtpfw.backends.relay.session import ForwardingSession
from smtpfw.client import Connector, Pool, Pools
from smtpfw.client.connecting import REQUIRED
from smtpfw.errors import ConfigError, SMTPError
from smtpfw.interfaces import IConnection, ISession

__all__ = ["MAX_CONNECTIONS", "OPENING_TIMEOUT", "ForwardingBackend"]

#: Seconds until a next hop has accepted MAIL, all attempts together; the sender waits for 300.
OPENING_TIMEOUT = 240.0

#: A sender has a connection to the next hop for itself as long as its transaction lasts. Postfix
#: default_process_limit 100.
MAX_CONNECTIONS = 100


class ForwardingBackend:
    """
    :param connectors: the next hops, in the order in which they are tried; at least one.
    :param honours: keywords of :data:`~smtpfw.backends.relay.promises.PROMISES` that may be offered.
    :param opening_timeout: seconds until a next hop has accepted MAIL, all attempts together; 0 for no limit.
    :param reactor: by default the running one.
    :param pool: settings of :class:`~smtpfw.client.Pool`: ``max_connections``, ``max_messages`` ...
    :raises ConfigError: naming the setting of the pool that cannot be used.

    :ivar kind: what it is called in strings, errors and logs.
    :ivar by_domain: whether the next hop depends on the recipient's domain.
    :ivar waits_for_recipient: whether no next hop hears of a message before its first recipient.
    """

    kind = ""
    by_domain = False
    waits_for_recipient = False

    def __init__(
        self,
        connectors: Sequence[Connector],
        *,
        honours: Collection[str] | str,
        opening_timeout: float,
        reactor: Any,
        **pool: Any,
    ) -> None:
        self._connectors = tuple(connectors)
        self._promised = promises_of(self.kind, honours)
        self._reactor = reactor
        self._opening_timeout = opening_timeout
        self._pool_settings = pool
        self._openings: Openings | None = None
        if opening_timeout < 0:
            raise ConfigError(f"{self.kind}: opening_timeout: {opening_timeout!r} is below 0, which is for no limit")
        try:
            Pool(connectors[0], **pool)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{self.kind}: {error}") from None

    @property
    def honours(self) -> Collection[str]:
        """``REQUIRETLS`` where each next hop's certificate is verified; the others where the operator says so."""
        # RFC 8689 section 4.2.1: by MX it would take DNS answers that are signed, or MTA-STS, as well.
        if not self.by_domain and all(connector.tls == REQUIRED for connector in self._connectors):
            return self._promised | {"REQUIRETLS"}
        return self._promised

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection."""
        return ForwardingSession(self, connection)

    def check(self) -> list[str]:
        """Look whether the next hops are there; a sentence for each that is not. Blocks, for some seconds at most."""
        return [] if self.by_domain else look_for(self._connectors)

    async def stop(self) -> None:
        """Say goodbye to all next hops."""
        openings, self._openings = self._openings, None
        if openings is not None:
            await openings.close()

    @property
    def openings(self) -> Openings:
        """Where transactions at next hops are opened; the first who asks makes it."""
        if self._openings is None:
            clock = self.clock()
            pools = Pools(reactor=clock, **self._pool_settings)
            self._openings = Openings(pools, clock, self._opening_timeout)
        return self._openings

    def clock(self) -> Any:
        """The reactor."""
        if self._reactor is None:
            from twisted.internet import reactor  # importing it chooses one, so not before the operator has

            self._reactor = reactor
        return self._reactor

    def permit(self, connection: IConnection) -> SMTPError | None:
        """Why this client's mail is not carried, if it is not."""
        return None

    async def connectors(self, domain: str, connection: IConnection) -> Sequence[Connector]:
        """The next hops, in the order in which they are to be tried."""
        return self._connectors
