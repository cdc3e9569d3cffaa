"""
Next hops as they are given: strings, destinations, endpoints, connectors; and as they are told to the operator.

Rule: what can't be used is found when the backend is made, not with the first
message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from smtpfw.client import ClientConfig, Connector, Destination, connector_of
from smtpfw.client.connecting import OPPORTUNISTIC, REQUIRED
from smtpfw.errors import ConfigError
from smtpfw.wire.config import LMTP

__all__ = ["DEFAULT_CONFIG", "MX", "Where", "connectors_of", "each", "in_words"]

#: Stands for the mail exchangers of each recipient's domain. A host that is called so takes a port: ``mx:25``.
MX = "mx"

#: A sender waits for our answers as long as RFC 5321 section 4.5.3.2 tells it to. We give up a little earlier, so that
#: it hears that a next hop is silent, and does not have to find out by itself that we are.
DEFAULT_CONFIG = ClientConfig(
    greeting_timeout=60.0, command_timeout=240.0, data_timeout=100.0, block_timeout=150.0, end_timeout=570.0
)

Where = str | Destination | Connector | IStreamClientEndpoint

_TLS_IN_WORDS = {REQUIRED: "TLS, verified", OPPORTUNISTIC: "TLS if it is offered"}


def each(via: Where | Iterable[Where]) -> list[Any]:
    """One place, or several, as a list."""
    if isinstance(via, str) or not isinstance(via, Iterable):
        return [via]
    return list(via)


def connectors_of(kind: str, places: Iterable[Any], **settings: Any) -> list[Connector]:
    """
    How to get to each place.

    :param kind: what the backend is called.
    :param settings: those of :func:`~smtpfw.client.connect`; None for one that was not given.
    :raises ConfigError: naming what cannot be used.
    """
    found = [_connector(kind, where, settings) for where in places]
    if not found:
        raise ConfigError(f"{kind}: say where mail goes next")
    for connector in found:
        if found.count(connector) > 1:
            raise ConfigError(f"{kind}: {connector.destination} is named twice")
    return found


def _connector(kind: str, where: Any, settings: dict[str, Any]) -> Connector:
    if isinstance(where, Connector):
        given = sorted(name for name, value in settings.items() if value is not None)
        if given:
            raise ConfigError(f"{kind}: a Connector has its settings already, so give no {', '.join(given)} beside it")
        connector = where
    else:
        try:
            config = settings["config"] or DEFAULT_CONFIG
            connector = connector_of(_as_lmtp(where) if kind == LMTP else where, **{**settings, "config": config})
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{kind}: {error}") from None
    if kind == LMTP and connector.destination.protocol != LMTP:
        raise ConfigError(f"{kind}: {connector.destination} does not speak LMTP")
    if connector.ca or connector.certificate:
        # Files that can't be read are found now, and while we may still read them.
        connector.context()
    return connector


def _as_lmtp(where: Any) -> Any:
    if isinstance(where, str):
        return where if where.lower().startswith("lmtp:") else f"lmtp:{where}"
    return Destination.of(where, protocol=LMTP) if IStreamClientEndpoint.providedBy(where) else where


def in_words(connectors: Iterable[Connector]) -> str:
    """Next hops in their order, for the operator."""
    return ", and where that fails to ".join(map(_in_words, connectors))


def _in_words(connector: Connector) -> str:
    words = [_TLS_IN_WORDS[connector.tls]] if connector.tls in _TLS_IN_WORDS else []
    if connector.destination.implicit_tls and connector.tls == OPPORTUNISTIC:
        words = ["TLS, by whatever certificate"]
    if connector.clients:
        words.append("with a login")
    return f"{connector.destination} ({', '.join(words)})" if words else str(connector.destination)
