"""
Factories of clients, for who connects by himself: with an endpoint, a proxy, a connection that is there already.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory

from smtpfw.client.protocol import LMTPClientProtocol, SMTPClientProtocol
from smtpfw.wire.config import ClientConfig

__all__ = ["LMTPClientFactory", "SMTPClientFactory"]


class SMTPClientFactory(Factory):
    """
    Makes clients; ``await endpoint.connect(SMTPClientFactory(config))`` gives one.

    :param config: of all of them; ``settings`` are the other arguments of
        :class:`~smtpfw.client.protocol.SMTPClientProtocol`.
    """

    noisy = False
    protocol: Any = SMTPClientProtocol

    def __init__(self, config: ClientConfig | None = None, **settings: Any) -> None:
        self._config = config
        self._settings = settings

    def buildProtocol(self, addr: Any) -> SMTPClientProtocol:
        client: SMTPClientProtocol = self.protocol(self._config, **self._settings)
        client.factory = self
        return client


class LMTPClientFactory(SMTPClientFactory):
    """The same for LMTP (RFC 2033)."""

    protocol = LMTPClientProtocol
