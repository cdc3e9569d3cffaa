"""
The PROXY protocol, versions 1 and 2: a proxy says first whom it speaks for, and whom that has called.

By HAProxy's description of it (proxy-protocol.txt); there is no RFC. The
parsers are Twisted's.

Rule 1: from the networks of the operator's a header has to come, before
anything else and in time; from all others none is read, so what looks like one
there is a mistake of the client's, or an attack.

Rule 2: nothing is said before it has come, TLS included. Then the connection is
handed over as if it had just been made, and nothing stands in its way.

Rule 3: where the proxy names no client of TCP (a check of its own, UNKNOWN, a
Unix socket), the client is the proxy itself.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure

from smtpfw.errors import ConfigError
from smtpfw.networks import Network, Networks, networks_of_proxies
from smtpfw.server.origin import Origin, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IDelayedCall

    from smtpfw.server.factory import SMTPServerFactory

__all__ = ["Header", "HeaderError", "ProxyFactory", "ProxyProtocol", "read_header"]

#: Octets of the longest header of version 1, and of the part of one of version 2 that says how long it is.
_MAX_V1 = 107
_V2_HEAD = 16

_V1 = b"PROXY "
_V2: bytes = V2Parser.PREFIX

#: What the parser of version 1 is shown. By itself it takes more than a number for a port, and UNKNOWN not alone.
_V1_TCP = re.compile(rb"PROXY TCP[46] [0-9A-Fa-f.:]+ [0-9A-Fa-f.:]+ [0-9]{1,5} [0-9]{1,5}")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)


class HeaderError(ValueError):
    """What came is no header; its text says why."""


class Header(NamedTuple):
    """
    :ivar ends: the client's address, and the one that it has connected to; None where the proxy names none.
    :ivar octets: how many it has.
    """

    ends: tuple[IAddress, IAddress] | None
    octets: int


def read_header(data: bytes) -> Header | None:
    """
    Read a header.

    :param data: all that has come so far.
    :return: None if more has to come.
    :raises HeaderError: if it can't become one.
    """
    if _V2.startswith(data[: len(_V2)]):
        return _read_v2(data)
    if _V1.startswith(data[: len(_V1)]):
        return _read_v1(data)
    raise HeaderError("something else has come; does it send one?")


def _read_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, _MAX_V1)
    if end < 0:
        if len(data) >= _MAX_V1:
            raise HeaderError(f"a header of version 1 has {_MAX_V1} octets at most")
        return None
    line, octets = data[:end], end + 2
    if _V1_UNKNOWN.fullmatch(line):
        return Header(None, octets)
    if not _V1_TCP.fullmatch(line):
        raise HeaderError("it is malformed")
    return _header(V1Parser.parse(line), octets)


def _read_v2(data: bytes) -> Header | None:
    if len(data) < _V2_HEAD:
        return None
    octets = _V2_HEAD + int.from_bytes(data[_V2_HEAD - 2 : _V2_HEAD])
    if len(data) < octets:
        return None
    try:
        return _header(V2Parser.parse(data[:octets]), octets)
    except InvalidProxyHeader as error:
        raise HeaderError("it is malformed") from error


def _header(info: Any, octets: int) -> Header:
    peer, local = _checked(info.source), _checked(info.destination)
    return Header(None if peer is None or local is None else (peer, local), octets)


def _checked(found: Any) -> IAddress | None:
    """An address of TCP, in the one form that each has; None for a Unix socket, or for none."""
    if not isinstance(found, (IPv4Address, IPv6Address)):
        return None
    version = 6 if isinstance(found, IPv6Address) else 4
    try:
        host = ip_address(found.host)
    except ValueError:
        raise HeaderError("an address in it is none") from None
    if found.type != "TCP" or host.version != version or found.port > 65535:
        raise HeaderError("it is not of TCP, or an address or a port in it is none")
    mapped = getattr(host, "ipv4_mapped", None)
    if mapped is not None:
        return IPv4Address("TCP", str(mapped), found.port)
    return type(found)("TCP", str(host), found.port)


class ProxyFactory(ServerFactory):
    """
    Reads the PROXY header of connections from some networks, and lets a server have the rest::

        ProxyFactory(SMTPServerFactory(backend, config), ["10.0.0.5"])

    Around TLS from the first octet it goes as well, for the header comes before that: ``inner`` is the factory with TLS
    around it.

    :param server: has the time limit, ``proxy_timeout``, and the log.
    :param networks: those of the proxies: ``10.0.0.0/8``, ``2001:db8::1``, ``unix`` for Unix sockets; one or several.
    :param inner: whose protocols get the connections; by default ``server``.
    :raises ConfigError: if there are no networks, one is none, or they are everybody.
    """

    noisy = False

    def __init__(
        self,
        server: SMTPServerFactory,
        networks: Networks | Iterable[Network] | Network,
        inner: IProtocolFactory | None = None,
    ) -> None:
        try:
            self.networks = networks_of_proxies(networks)
        except ValueError as error:
            raise ConfigError(f"proxy: {error}") from None
        self.server = server
        self.inner: IProtocolFactory = server if inner is None else inner

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.inner.doStart()

    def doStop(self) -> None:
        self.inner.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # type: ignore[override]
        if self.networks.include_peer(addr):
            return ProxyProtocol(self)
        return self.inner.buildProtocol(addr)


class ProxyProtocol(Protocol):
    """A connection of a proxy, until its header has come. Made by :class:`ProxyFactory`."""

    factory: ProxyFactory
    transport: Any

    def __init__(self, factory: ProxyFactory) -> None:
        self.factory = factory
        self._server = factory.server
        self._data = b""
        self._late: IDelayedCall | None = None
        self._over = False

    def connectionMade(self) -> None:
        server, transport = self._server, self.transport
        if getattr(transport, "protocol", None) is not self:
            # It could not be handed over, and every message would come here.
            self._fail("something is wrapped around ProxyFactory, which has to be the outermost")
            return
        server.arriving.add(self)
        timeout = server.config.proxy_timeout
        if timeout:
            self._late = server.clock.callLater(timeout, self._fail, "none has come in time; does it send one?")

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._data += data
        try:
            header = read_header(self._data)
        except HeaderError as error:
            self._fail(str(error))
            return
        if header is not None:
            self._hand_over(header)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()

    def shut_down(self) -> None:
        """End it at once: nobody has been promised anything."""
        self.transport.abortConnection()

    def _hand_over(self, header: Header) -> None:
        transport, rest = self.transport, self._data[header.octets :]
        proxy = transport.getPeer()
        origin = Origin(*header.ends, proxy) if header.ends is not None else proxy
        inner = self.factory.inner.buildProtocol(origin)
        if inner is None:
            self._leave()
            transport.loseConnection()
            return
        transport.protocol = inner
        inner.makeConnection(transport)
        self._leave()
        if rest:
            inner.dataReceived(rest)

    def _fail(self, reason: str) -> None:
        self._leave()
        self._server.events.proxy_failed(name_of(self.transport.getPeer()), reason)
        # Nothing is said: whoever is there does not expect SMTP yet.
        self.transport.abortConnection()

    def _leave(self) -> None:
        self._over = True
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        self._data = b""
        self._server.arrived(self)
