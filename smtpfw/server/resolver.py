"""
Whom names are asked of, where nobody has said otherwise: the name servers of the system's settings.

It is Twisted's resolver, alone. ``twisted.names.client.createResolver()`` puts
a cache before it that has no bound, and clients choose what is put in there:
with an IPv6 /64 and long-lived records one of them fills the memory. The name
server that is asked has a cache, and a bound for it.

What is mended here, of Twisted 26.10:

- a question that could not be sent, for want of a socket, was remembered as one
  that is under way: whoever asked the same later waited for ever;
- an answer over TCP that says it was cut is asked for over TCP again, and
  again, at once, for as long as the server says so;
- an answer that ends in the midst of something counted for what could be read
  of it, which mostly is: there is no such record;
- an answer to another question counted (RFC 5452 section 9.1).
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.names import dns
from twisted.names.client import DNSClientFactory, Resolver
from twisted.names.error import ResolverError
from twisted.python.failure import Failure

__all__ = ["SystemResolver", "system_resolver"]

RESOLV_CONF = "/etc/resolv.conf"


class SystemResolver(Resolver):
    """
    :param servers: pairs of address and port; none for those in ``/etc/resolv.conf``, which is read again when it has
        changed.
    :param reactor: by default the global one.
    """

    def __init__(self, servers: list[tuple[str, int]] | None = None, reactor: Any = None) -> None:
        super().__init__(None if servers else RESOLV_CONF, servers, reactor=reactor)  # type: ignore[no-untyped-call]
        self.factory = _StreamFactory(self)  # type: ignore[no-untyped-call]
        self.factory.noisy = False

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:
        try:
            return super()._lookup(name, cls, type, timeout)  # type: ignore[no-untyped-call]
        except Exception:
            self._waiting.pop((name, type, cls), None)
            raise

    def queryUDP(self, queries: list[dns.Query], timeout: Any = None) -> Any:
        """Called by Twisted with each question."""
        asked: Deferred[dns.Message] = super().queryUDP(queries, timeout)  # type: ignore[no-untyped-call]
        return asked.addCallback(_of_question, queries)

    def filterAnswers(self, message: dns.Message) -> Any:
        """Called by Twisted with each answer over UDP."""
        if message.trunc:
            asked: Deferred[Any] = self.queryTCP(message.queries)  # type: ignore[no-untyped-call]
            return asked.addCallback(_of_question, message.queries).addCallback(self._over_stream)
        return super().filterAnswers(message)  # type: ignore[no-untyped-call]

    def _over_stream(self, message: dns.Message) -> Any:
        if message.trunc:
            return Failure(ResolverError("cut off over TCP, too"))
        return super().filterAnswers(message)  # type: ignore[no-untyped-call]

    def _connectedProtocol(self, interface: str = "") -> dns.DNSDatagramProtocol:
        # The port is the system's choice, at random; Twisted tries up to a thousand, also those below 1024.
        protocol = _DatagramProtocol(self, reactor=self._reactor)  # type: ignore[no-untyped-call]
        self._reactor.listenUDP(0, protocol, interface=interface)
        return protocol


@cache
def system_resolver() -> SystemResolver:
    """One for the process, as it looks after ``/etc/resolv.conf`` for ever: a reload must not add another one."""
    return SystemResolver()


class _DatagramProtocol(dns.DNSDatagramProtocol):
    noisy = False

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        if _is_whole(data):
            super().datagramReceived(data, addr)


class _StreamProtocol(dns.DNSProtocol):
    def stringReceived(self, data: bytes) -> None:
        if _is_whole(data):
            super().stringReceived(data)


class _StreamFactory(DNSClientFactory):
    def buildProtocol(self, addr: IAddress | None) -> _StreamProtocol:
        protocol = _StreamProtocol(self.controller)  # type: ignore[no-untyped-call]
        protocol.factory = self
        return protocol


def _is_whole(data: bytes) -> bool:
    """Whether a message holds what its header says; one that is not is no answer, and the question is asked again."""
    message = dns.Message()
    try:
        message.fromStr(data)
        counts = struct.unpack_from("!4H", data, 4)
    except Exception:
        # Parsers of records raise whatever they meet with.
        return False
    sections: tuple[list[Any], ...] = (message.queries, message.answers, message.authority, message.additional)
    return bool(message.trunc) or counts == tuple(len(section) for section in sections)


def _of_question(message: dns.Message, queries: list[dns.Query]) -> Any:
    if message.rCode == dns.OK and _keys(message.queries) != _keys(queries):
        return Failure(ResolverError("an answer to another question"))
    return message


def _keys(queries: list[dns.Query]) -> list[tuple[bytes, int, int]]:
    return [(query.name.name.lower(), query.type, query.cls) for query in queries]
