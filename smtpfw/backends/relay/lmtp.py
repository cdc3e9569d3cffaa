"""
Mail to a server that delivers it, by LMTP (RFC 2033): Dovecot, Cyrus, another smtpfw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from zope.interface import implementer

from smtpfw.backends.relay.backend import MAX_CONNECTIONS, OPENING_TIMEOUT, ForwardingBackend
from smtpfw.backends.relay.places import Where, connectors_of, each, in_words
from smtpfw.client import ClientConfig
from smtpfw.interfaces import IBackend

__all__ = ["LMTPBackend"]


@implementer(IBackend)
class LMTPBackend(ForwardingBackend):
    """
    Passes mail on by LMTP::

        LMTPBackend("unix:/run/dovecot/lmtp")

    Nobody is asked who they are: as with any backend that delivers, who may send is said by the server that delivers,
    by its answer to RCPT.

    :param via: ``unix:/run/dovecot/lmtp``, ``192.0.2.1:24``, a Connector, an endpoint; or a sequence of them, tried in
        order.
    :param tls, tls_name, ca, certificate, key, config: see :func:`~smtpfw.client.connect`.
    :param honours: what the next hops keep the promises of, so that it may be offered: some of ``DSN``, ``DELIVERBY``,
        ``MT-PRIORITY``, ``RRVS``, ``FUTURERELEASE``, in any case.
    :param max_connections: to each next hop.
    :param opening_timeout: seconds until a next hop has accepted MAIL, all attempts together; 0 for no limit.
    :param pool: other settings of :class:`~smtpfw.client.Pool`: ``max_messages``, ``max_age``, ``max_idle``.
    :raises ConfigError: naming what cannot be used.
    """

    kind = "lmtp"
    #: Anybody may say MAIL, and would have a connection to the next hop for himself by that alone.
    waits_for_recipient = True

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
        honours: Collection[str] | str = (),
        max_connections: int = MAX_CONNECTIONS,
        opening_timeout: float = OPENING_TIMEOUT,
        reactor: Any = None,
        **pool: Any,
    ) -> None:
        files = {"ca": ca, "certificate": certificate, "key": key}
        super().__init__(
            connectors_of(self.kind, each(via), tls=tls, tls_name=tls_name, config=config, **files),
            honours=honours,
            opening_timeout=opening_timeout,
            reactor=reactor,
            max_connections=max_connections,
            **pool,
        )

    def describe(self) -> list[str]:
        """Sentences for the operator: where mail goes, and what a 250 is worth."""
        return [
            f"Mail goes on to {in_words(self._connectors)}, as it arrives.",
            "A 250 means: the next server has said so. Nothing is stored here.",
        ]
