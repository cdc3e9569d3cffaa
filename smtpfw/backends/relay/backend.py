"""
The backends that keep nothing: mail is passed on while it arrives, by LMTP or by SMTP.

Rule 1: a 250 after the message is the next hop's. Nothing is stored here, so
nothing is lost with this machine, and nobody has to be told later that it could
not be delivered: whoever sends keeps the message until then.

Rule 2: an open relay can't be written by accident. Whoever relays says who may:
clients that have authenticated, and those of networks that were named.

Rule 3: a promise is honoured only if every next hop keeps it by its
configuration, not by what it happens to offer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from smtpfw.backends.relay.exchangers import MailExchangers
from smtpfw.backends.relay.opening import Openings
from smtpfw.backends.relay.session import ForwardingSession
from smtpfw.client import Connector, Destination, connector_of
from smtpfw.client.connecting import OPPORTUNISTIC, REQUIRED
from smtpfw.client.pools import Pools
from smtpfw.errors import ConfigError, RelayDenied, SMTPError
from smtpfw.interfaces import IBackend, IConnection, ISession
from smtpfw.policies.networks import Networks
from smtpfw.wire.config import LMTP, ClientConfig

__all__ = ["DEFAULT_CONFIG", "MX", "LMTPBackend", "RelayBackend"]

#: Stands for the mail exchangers of each recipient's domain.
MX = "mx"

#: A sender waits for our answers as long as RFC 5321 section 4.5.3.2 tells it to. We give up a little earlier, so that
#: it hears that a next hop is silent, and does not have to find out by itself that we are.
DEFAULT_CONFIG = ClientConfig(
    greeting_timeout=60.0, command_timeout=240.0, data_timeout=100.0, block_timeout=150.0, end_timeout=570.0
)

#: Seconds until a next hop has accepted MAIL, all attempts together; the sender waits for 300.
OPENING_TIMEOUT = 240.0

#: A sender has a connection to the next hop for itself as long as its transaction lasts. Postfix
#: default_process_limit 100.
MAX_CONNECTIONS = 100

Where = str | Destination | Connector | IStreamClientEndpoint


class _ForwardingBackend:
    """What both have in common."""

    kind = ""
    by_domain = False

    def __init__(
        self,
        connectors: Sequence[Connector],
        *,
        dsn: bool,
        opening_timeout: float,
        reactor: Any,
        **settings: Any,
    ) -> None:
        if not connectors:
            raise ConfigError(f"{self.kind}: say where mail goes next")
        self._connectors = tuple(connectors)
        self._dsn = dsn
        self._reactor = reactor
        self._opening_timeout = opening_timeout
        self._settings = settings
        self._pools: Pools | None = None
        self._openings: Openings | None = None

    @property
    def honours(self) -> Collection[str]:
        """``REQUIRETLS`` where each next hop's certificate is verified; ``DSN`` where the operator says so."""
        # RFC 8689 section 4.2.1: by MX it would take DNS answers that are signed, or MTA-STS, as well.
        verified = not self.by_domain and all(connector.tls == REQUIRED for connector in self._connectors)
        return frozenset({"REQUIRETLS"} * verified) | frozenset({"DSN"} * self._dsn)

    def new_session(self, connection: IConnection) -> ISession:
        """A session for one connection."""
        return ForwardingSession(self, connection)

    async def stop(self) -> None:
        """Say goodbye to all next hops."""
        pools, self._pools, self._openings = self._pools, None, None
        if pools is not None:
            await pools.close()

    @property
    def openings(self) -> Openings:
        """Where transactions at next hops are opened; the first who asks makes the pools."""
        if self._openings is None:
            self._pools = Pools(reactor=self.clock(), **self._settings)
            self._openings = Openings(self._pools, self.clock, self._opening_timeout)
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

    def _hops_in_words(self) -> str:
        first, *others = map(_in_words, self._connectors)
        return ", and where that fails to ".join([first, *others])


@implementer(IBackend)
class LMTPBackend(_ForwardingBackend):
    """
    Passes mail on to a server that delivers it, by LMTP (RFC 2033): Dovecot, Cyrus, another smtpfw.

    Nobody is asked who they are: as with any backend that delivers, who may send is said by the server that delivers,
    by its answer to RCPT.

    :param via: ``unix:/run/dovecot/lmtp``, ``192.0.2.1:24``, a Connector, an endpoint; or a sequence of them, tried in
        order.
    :param tls, tls_name, ca, certificate, key, config: see :func:`~smtpfw.client.connect`.
    :param dsn: whether the next hops send delivery status notifications (RFC 3461), so that DSN may be offered.
    :param max_connections: to each next hop.
    :param opening_timeout: seconds until a next hop has accepted MAIL, all attempts together.
    :param pool: other settings of :class:`~smtpfw.client.pool.Pool`: ``max_messages``, ``max_age``, ``max_idle``.
    :raises ConfigError: naming what cannot be used.
    """

    kind = "lmtp"

    def __init__(
        self,
        via: Where | Iterable[Where],
        *,
        tls: str | None = None,
        tls_name: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        config: ClientConfig | None = None,
        dsn: bool = False,
        max_connections: int = MAX_CONNECTIONS,
        opening_timeout: float = OPENING_TIMEOUT,
        reactor: Any = None,
        **pool: Any,
    ) -> None:
        settings = {"tls": tls, "tls_name": tls_name, "ca": ca, "certificate": certificate, "key": key}
        super().__init__(
            _connectors(self.kind, map(_as_lmtp, _each(via)), config, **settings),
            dsn=dsn,
            opening_timeout=opening_timeout,
            reactor=reactor,
            max_connections=max_connections,
            **pool,
        )

    def describe(self) -> list[str]:
        """Sentences for the operator: where mail goes, and what a 250 is worth."""
        return [
            f"Mail goes on to {self._hops_in_words()}, as it arrives.",
            "A 250 means: the next server has said so. Nothing is stored here.",
        ]


@implementer(IBackend)
class RelayBackend(_ForwardingBackend):
    """
    Passes mail on by SMTP::

        RelayBackend("smtps:smtp.isp.example:465", login=("me", secret), trusted=["10.0.0.0/8"])

    It is for clients that have authenticated, by another mechanism than ANONYMOUS, and for those of ``trusted``; all
    others get 550 5.7.1.

    :param via: ``mail.example.org``, ``smtps:mail.example.org``, a Connector, an endpoint; a sequence of them, tried in
        order; or ``mx``: the mail exchangers of the recipients' domains (RFC 5321 section 5.1).
    :param trusted: networks whose clients need not authenticate: ``10.0.0.0/8``, ``2001:db8::1``; ``unix`` for Unix
        sockets. By default none.
    :param login: ``(username, password)`` and so on, as ``auth`` of :func:`~smtpfw.client.connect`; TLS is required
        then.
    :param tls, tls_name, ca, certificate, key, config: as there.
    :param dsn: whether what the next hops do about delivery status notifications (RFC 3461) is enough for DSN to be
        offered. By ``mx`` one that does not know it makes NOTIFY=SUCCESS and NEVER fail.
    :param allow_private: by ``mx``, whether hosts of this machine and of private networks may be asked.
    :param max_connections: to each next hop.
    :param opening_timeout: seconds until a next hop has accepted MAIL, all attempts together.
    :param resolver: for ``mx``; by default the system's.
    :param pool: other settings of :class:`~smtpfw.client.pool.Pool`: ``max_messages``, ``max_age``, ``max_idle``.
    :raises ConfigError: naming what cannot be used.
    """

    kind = "relay"

    def __init__(
        self,
        via: Where | Iterable[Where],
        *,
        trusted: Networks | Iterable[str | IPv4Network | IPv6Network] | str = (),
        login: Any = None,
        tls: str | None = None,
        tls_name: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        config: ClientConfig | None = None,
        dsn: bool = False,
        allow_private: bool = False,
        max_connections: int = MAX_CONNECTIONS,
        opening_timeout: float = OPENING_TIMEOUT,
        resolver: Any = None,
        reactor: Any = None,
        **pool: Any,
    ) -> None:
        self.by_domain = isinstance(via, str) and via.lower() == MX
        self.trusted = _networks(trusted)
        if self.by_domain:
            if login is not None or tls_name is not None:
                # Whoever owns a domain would be told the password.
                raise ConfigError("relay: a login, or the name of a certificate, belongs to one server, not to mx")
            # The place is another one for each message.
            via, tls = "mx.invalid", tls or OPPORTUNISTIC
        settings = {"tls": tls, "tls_name": tls_name, "ca": ca, "certificate": certificate, "key": key, "auth": login}
        super().__init__(
            _connectors(self.kind, _each(via), config, **settings),
            dsn=dsn,
            opening_timeout=opening_timeout,
            reactor=reactor,
            max_connections=max_connections,
            **pool,
        )
        self._resolver = resolver
        self._exchangers = MailExchangers(
            self._connectors[0], self._get_resolver, self.clock, allow_private=allow_private
        )

    def permit(self, connection: IConnection) -> SMTPError | None:
        """Nobody's mail is carried but that of who has authenticated, or is trusted."""
        # RFC 4505: whoever comes in by ANONYMOUS is still anybody.
        known = bool(connection.identity) and connection.mechanism.upper() != "ANONYMOUS"
        return None if known or self.trusted.include(connection) else RelayDenied()

    async def connectors(self, domain: str, connection: IConnection) -> Sequence[Connector]:
        """The next hops, in the order in which they are to be tried."""
        if self.by_domain:
            return await self._exchangers.connectors(domain, connection)
        return self._connectors

    def describe(self) -> list[str]:
        """Sentences for the operator: where mail goes, what a 250 is worth, and who may send."""
        where = self._hops_in_words()
        if self.by_domain:
            required = self._connectors[0].tls == REQUIRED
            where = "the mail exchangers of each recipient's domain, with TLS " + (
                "or not at all" if required else "where they offer it"
            )
        who = f", and those from {self.trusted}" if self.trusted else " only"
        return [
            f"Mail goes on to {where}, as it arrives.",
            "A 250 means: the next server has said so. Nothing is stored here.",
            f"It is for clients that have authenticated{who}.",
        ]

    def _get_resolver(self) -> Any:
        if self._resolver is None:
            # Reads the system's settings, and is of no use without a reactor.
            from twisted.names.client import createResolver

            self._resolver = createResolver(reactor=self.clock())
        return self._resolver


def _each(via: Any) -> list[Any]:
    single = isinstance(via, str | Destination | Connector) or IStreamClientEndpoint.providedBy(via)
    return [via] if single else list(via)


def _as_lmtp(where: Any) -> Any:
    if isinstance(where, str):
        return where if where.lower().startswith("lmtp:") else f"lmtp:{where}"
    if IStreamClientEndpoint.providedBy(where):
        return Destination.of(where, protocol=LMTP)
    return where


def _connectors(kind: str, places: Iterable[Any], config: ClientConfig | None, **settings: Any) -> list[Connector]:
    found = []
    for where in places:
        if isinstance(where, Connector):
            if any(value is not None for value in (config, *settings.values())):
                raise ConfigError(f"{kind}: a Connector has its settings already, so give none beside it")
            found.append(where)
            continue
        try:
            found.append(connector_of(where, config=config or DEFAULT_CONFIG, **settings))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{kind}: {error}") from None
    for connector in found:
        if kind == "lmtp" and connector.destination.protocol != LMTP:
            raise ConfigError(f"lmtp: {connector.destination} does not speak LMTP")
    return found


def _networks(trusted: Any) -> Networks:
    try:
        return trusted if isinstance(trusted, Networks) else Networks(trusted)
    except ValueError as error:
        raise ConfigError(f"relay: trusted: {error}") from None


def _in_words(connector: Connector) -> str:
    tls = {REQUIRED: " (TLS, verified", OPPORTUNISTIC: " (TLS if it is offered"}.get(connector.tls, "")
    login = "a login" if connector.clients else ""
    if tls:
        return f"{connector.destination}{tls}{', with ' + login if login else ''})"
    return f"{connector.destination}{' (with ' + login + ')' if login else ''}"
