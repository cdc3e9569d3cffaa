"""
Mail to a smarthost, to one of several, or to the mail exchangers of its recipients, by SMTP.

Rule: an open relay can't be written by accident. Whoever relays says who may:
clients that have authenticated, and those of networks that were named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from zope.interface import implementer

from smtpfw.backends.relay.backend import MAX_CONNECTIONS, OPENING_TIMEOUT, ForwardingBackend
from smtpfw.backends.relay.exchangers import MailExchangers
from smtpfw.backends.relay.places import MX, Where, connectors_of, each, in_words
from smtpfw.client import ClientConfig, Connector
from smtpfw.client.connecting import OPPORTUNISTIC, REQUIRED
from smtpfw.errors import ConfigError, RelayDenied, SMTPError
from smtpfw.interfaces import IBackend, IConnection
from smtpfw.logins import is_known
from smtpfw.networks import Networks

__all__ = ["RelayBackend"]

#: Stands for the place of a Connector by MX, which is another one for each domain (RFC 6761 section 6.4).
_NOWHERE = "mx.invalid"


@implementer(IBackend)
class RelayBackend(ForwardingBackend):
    """
    Passes mail on by SMTP::

        RelayBackend("smtps:smtp.isp.example:465", login=("me", secret), trusted=["10.0.0.0/8"])

    It is for clients that have authenticated, by another mechanism than ANONYMOUS, and for those of ``trusted``; all
    others get 550 5.7.1.

    :param via: ``mail.example.org``, ``smtps:mail.example.org``, a Connector, an endpoint; a sequence of them, tried in
        order; or ``mx``: the mail exchangers of the recipients' domains (RFC 5321 section 5.1).
    :param trusted: networks whose clients need not authenticate: ``10.0.0.0/8``, ``2001:db8::1``; ``unix`` for Unix
        sockets. By default none.
    :param guarded: whether it asks who the client is; False behind routes that have asked already
        (:class:`~smtpfw.backends.mux.RouteList`).
    :param login: ``(username, password)`` and so on, as ``auth`` of :func:`~smtpfw.client.connect`; TLS is required
        then.
    :param tls, tls_name, ca, certificate, key, config: as there.
    :param honours: what the next hops keep the promises of, so that it may be offered: some of ``DSN``, ``DELIVERBY``,
        ``MT-PRIORITY``, ``RRVS``, ``FUTURERELEASE``, in any case. A next hop that does not know one after all makes
        fail what needs it.
    :param allow_private: by ``mx``, whether hosts of this machine and of private networks may be asked.
    :param max_connections: to each next hop.
    :param opening_timeout: seconds until a next hop has accepted MAIL, all attempts together; 0 for no limit.
    :param resolver: for ``mx``; by default as in :func:`~smtpfw.client.look_up_mx`.
    :param pool: other settings of :class:`~smtpfw.client.Pool`: ``max_messages``, ``max_age``, ``max_idle``.
    :raises ConfigError: naming what cannot be used.

    :ivar trusted: a :class:`~smtpfw.networks.Networks`; None if it does not ask.
    """

    kind = "relay"
    relays = True

    def __init__(
        self,
        via: Where | Iterable[Where],
        *,
        trusted: Networks | Iterable[str | IPv4Network | IPv6Network] | str = (),
        guarded: bool = True,
        login: Any = None,
        tls: str | None = None,
        tls_name: str | None = None,
        ca: str | None = None,
        certificate: str | None = None,
        key: str | None = None,
        config: ClientConfig | None = None,
        honours: Collection[str] | str = (),
        allow_private: bool = False,
        max_connections: int = MAX_CONNECTIONS,
        opening_timeout: float = OPENING_TIMEOUT,
        resolver: Any = None,
        reactor: Any = None,
        **pool: Any,
    ) -> None:
        places = each(via)
        self.by_domain = any(isinstance(place, str) and place.lower() == MX for place in places)
        self.waits_for_recipient = self.by_domain
        self.trusted = _networks(trusted) if guarded else None
        if self.by_domain:
            if len(places) > 1:
                raise ConfigError(f"relay: {MX} stands alone: where mail goes is for DNS to say, or for you")
            if login is not None or tls_name is not None:
                # Whoever owns a domain would be told the password.
                raise ConfigError(f"relay: a login, or the name of a certificate, belongs to one server, not to {MX}")
            places, tls = [_NOWHERE], tls or OPPORTUNISTIC
        elif allow_private:
            raise ConfigError(f"relay: allow_private is for {MX}; a server that you name may stand anywhere")
        files = {"ca": ca, "certificate": certificate, "key": key}
        super().__init__(
            connectors_of(self.kind, places, auth=login, tls=tls, tls_name=tls_name, config=config, **files),
            honours=honours,
            opening_timeout=opening_timeout,
            reactor=reactor,
            max_connections=max_connections,
            **pool,
        )
        self._exchangers = MailExchangers(self._connectors[0], resolver, self.clock, allow_private=allow_private)

    def permit(self, connection: IConnection) -> SMTPError | None:
        """Nobody's mail is carried but that of who has authenticated, or is trusted."""
        permitted = self.trusted is None or is_known(connection) or self.trusted.include(connection)
        return None if permitted else RelayDenied()

    async def connectors(self, domain: str, connection: IConnection) -> Sequence[Connector]:
        """The next hops, in the order in which they are to be tried."""
        if self.by_domain:
            return await self._exchangers.connectors(domain, connection)
        return self._connectors

    def describe(self) -> list[str]:
        """Sentences for the operator: where mail goes, what a 250 is worth, and who may send."""
        where = in_words(self._connectors)
        if self.by_domain:
            tls = self._connectors[0].tls
            manner = {REQUIRED: " (TLS, verified)", OPPORTUNISTIC: " (TLS if it is offered)"}.get(tls, "")
            where = f"the mail exchangers of each recipient's domain{manner}"
        lines = [
            f"Mail goes on to {where}, as it arrives.",
            "A 250 means: the next server has said so. Nothing is stored here.",
        ]
        if self.trusted is not None:
            who = f", and those from {self.trusted}" if self.trusted else " only"
            lines.append(f"It is for clients that have authenticated{who}.")
        return lines


def _networks(trusted: Any) -> Networks:
    try:
        return Networks.of(trusted)
    except ValueError as error:
        raise ConfigError(f"relay: trusted: {error}") from None
