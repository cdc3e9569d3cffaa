r"""
Where a client connects to: from a string to an endpoint of Twisted's.

===============================================  ==========================================================
``mx.example.org``, ``mx.example.org:587``       a host, by IPv6 and IPv4
``192.0.2.1:25``, ``[2001:db8::1]:25``           an address
``192.0.2.1``, ``2001:db8::1``                   the same; without brackets IPv6 is an address to its end
``tcp:mx.example.org:25:bindAddress=192.0.2.9``  either of them, from an address of ours
``tcp6:mx.example.org:25``                       by IPv6 alone
``unix:/run/lmtp.sock``                          a socket; colons in its path take a backslash each: ``\:``
``tls:...``, ``ssl:...``                         Twisted's, as they are; those of its plugins as well
``smtps:`` before one of them                    implicit TLS (RFC 8314 section 3); the port is 465
``lmtp:`` before all of it                       LMTP (RFC 2033); the port is 24
===============================================  ==========================================================

Rule 1: the same place has the same ``text``, however it was written, and is
the same key; reading ``text`` gives it again. Only what Twisted reads stays as
it was written.

Rule 2: nothing here waits for DNS, so what is wrong with a string is known
where it is read. Hosts are looked up when the endpoint connects.

Rule 3: a name is A-labels in lower case. It goes to Twisted as text, for names
in octets are turned into U-labels, which the resolver encodes by IDNA of 2003:
``faß.de`` would become ``fass.de``, which is somebody else.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import getPlugins

from smtpfw.client.hosts import bracket, is_idna, is_loopback, read_host, to_address, without_zone
from smtpfw.client.quoting import split_quoted, unquote
from smtpfw.wire.config import LMTP, SMTP

__all__ = ["Destination"]

_SMTPS_PORT = 465  # RFC 8314 section 7.3
_LMTP_PORT = 24  # Postfix lmtp_tcp_port 24; none is assigned

#: Twisted's positional arguments, and the others. Not its timeout=: time limits stand in the client's settings.
_ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tcp": (("host", "port"), ("bindAddress",)),
    "tcp6": (("host", "port"), ("bindAddress",)),
    "unix": (("path",), ()),
}
#: Strings of Twisted's whose host is known, too.
_WITH_HOST = ("tls:", "ssl:")
#: A host with one of these names needs ``tcp:`` before it.
_PREFIXES = {"lmtp", "smtps", "tls", "ssl", *_ARGUMENTS}

#: Octets of sockaddr_un.sun_path, less the NUL. A longer path fails in the reactor, and the attempt never ends.
_MAX_PATH = 107 if sys.platform == "linux" else 103

_BRACKETED = re.compile(r"\[[^\[\]]*\]")

_NAMED = re.compile(r"((?:[^=\\]|\\.)*+)=(.*)")
_HOST_AND_PORT = re.compile(r"(\[.*\]|[^:]*)(?::([^:]*))?")


@dataclass(frozen=True, slots=True)
class _Internet:
    host: str
    port: int
    only_ipv6: bool = False
    bind_address: str = ""

    @property
    def text(self) -> str:
        where = f"{bracket(self.host)}:{self.port}"
        if not (self.only_ipv6 or self.bind_address or self.host in _PREFIXES):
            return where
        bind_address = f":bindAddress={bracket(self.bind_address)}" if self.bind_address else ""
        return f"{'tcp6' if self.only_ipv6 else 'tcp'}:{where}{bind_address}"

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        address = to_address(self.host)
        kind: Any
        if address is None and not self.only_ipv6 and is_idna(self.host):
            kind = HostnameEndpoint
        elif self.only_ipv6 or ":" in self.host:
            kind = TCP6ClientEndpoint
        else:
            # An address, or a name that HostnameEndpoint refuses: with an underscore, as many have in containers.
            kind = TCP4ClientEndpoint
        bind_address = (self.bind_address, 0) if self.bind_address else None
        found: IStreamClientEndpoint = kind(reactor, self.host, self.port, timeout, bind_address)
        return found


@dataclass(frozen=True, slots=True)
class _Unix:
    path: str

    @property
    def text(self) -> str:
        return "unix:" + re.sub(r"[\\:=]", r"\\\g<0>", self.path)

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        found: IStreamClientEndpoint = UNIXClientEndpoint(reactor, self.path, timeout)
        return found


@dataclass(frozen=True, slots=True)
class _Twisted:
    text: str

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        try:
            found: IStreamClientEndpoint = clientFromString(reactor, self.text)
        except Exception as error:
            # Twisted and its plugins raise whatever comes to pass: TypeError, KeyError, OSError for a certificate.
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{self.text!r}: Twisted does not take these arguments ({why})") from error
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """An endpoint that is there already. Not all can be compared, so each is itself alone."""

    given: IStreamClientEndpoint

    @property
    def text(self) -> str:
        # Python's own repr tells a place in memory, which is nothing to a reader of logs.
        kind = type(self.given)
        return kind.__name__ if kind.__repr__ is object.__repr__ else repr(self.given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Given) and self.given is other.given

    def __hash__(self) -> int:
        return id(self.given)

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        return self.given


@dataclass(frozen=True, slots=True)
class Destination:
    """
    A place to connect to. Made by :meth:`parse` or :meth:`of`; it can be compared, and be a key.

    :ivar text: where it is, in the one form that logs and errors show.
    :ivar name: the host, for TLS and SASL: A-labels in lower case, or an address without brackets and zone; empty for
        a Unix socket, and where it is not known.
    :ivar protocol: ``smtp`` or ``lmtp``.
    :ivar implicit_tls: the client starts TLS as soon as it is connected. False for ``tls:``, ``ssl:`` and endpoints
        that were given: if they have TLS in them, it is there already.
    :ivar is_local: it does not leave this machine: a Unix socket, an address of loopback, ``localhost``. False for
        what is not known.
    """

    text: str
    name: str
    protocol: str
    implicit_tls: bool
    is_local: bool
    _route: _Internet | _Unix | _Twisted | _Given = field(repr=False)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, where: str, *, default_port: int = 25) -> Destination:
        """
        Read a string; the module says which there are.

        :param default_port: of a host without one, unless ``smtps:`` or ``lmtp:`` stands before it.
        :raises ValueError: in one line: the string, what is wrong with it, what would be right.
        """
        try:
            if not where.isprintable():
                # It would break lines of logs, or lead to another host than it seems to.
                raise ValueError("it holds a character that can't be seen; a host has letters, digits, dots, hyphens")
            rest, is_lmtp = _take_off(where, "lmtp:")
            rest, implicit_tls = _take_off(rest, "smtps:")
            port = _LMTP_PORT if is_lmtp else _SMTPS_PORT if implicit_tls else default_port
            route, name = _read_route(rest, _check_port(port))
            if implicit_tls and route.text.startswith(_WITH_HOST):
                raise ValueError("that would be TLS within TLS; leave smtps: out, or put it before a host")
            if is_lmtp and isinstance(route, _Internet) and route.port == 25:
                raise ValueError("LMTP is not spoken on port 25 (RFC 2033 section 5); give the server's own, 24 often")
        except ValueError as error:
            raise ValueError(f"{where[:80]!a}: {error}") from None
        return cls(
            ("lmtp:" if is_lmtp else "") + ("smtps:" if implicit_tls else "") + route.text,
            name,
            LMTP if is_lmtp else SMTP,
            implicit_tls,
            isinstance(route, _Unix) or (isinstance(route, _Internet) and is_loopback(name)),
            route,
        )

    @classmethod
    def of(cls, endpoint: IStreamClientEndpoint, *, protocol: str = SMTP) -> Destination:
        """
        Take an endpoint that is there already. Its reactor and its time limit are its own.

        :param protocol: ``smtp`` or ``lmtp``.
        :raises TypeError: if it is no ``IStreamClientEndpoint``.
        :raises ValueError: for another protocol.
        """
        if not IStreamClientEndpoint.providedBy(endpoint):
            raise TypeError(
                "a destination is a str, as 'mx.example.org:25', or an IStreamClientEndpoint, "
                f"not of the class {type(endpoint).__name__}"
            )
        if protocol not in (SMTP, LMTP):
            raise ValueError(f"protocol: {protocol!r} is neither {SMTP} nor {LMTP}")
        route = _Given(endpoint)
        return cls(route.text, "", protocol, False, isinstance(endpoint, UNIXClientEndpoint), route)

    @property
    def socket_path(self) -> str:
        """The path of a Unix socket; empty for everything else."""
        return self._route.path if isinstance(self._route, _Unix) else ""

    def endpoint(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        """
        Make what connects; TLS is left to the caller.

        :param timeout: seconds for each address that is tried, not for all of it, and not for looking up the host. An
            endpoint that was given, and Twisted's own strings, have their own.
        :raises ValueError: for the arguments of ``tls:``, ``ssl:`` and plugins, which are read only now.
        """
        return self._route.endpoint(reactor, timeout)


def _take_off(text: str, prefix: str) -> tuple[str, bool]:
    found = text[: len(prefix)].lower() == prefix
    return (text[len(prefix) :] if found else text), found


def _read_route(text: str, default_port: int) -> tuple[_Internet | _Unix | _Twisted, str]:
    """A route, and the name of its host."""
    prefix, colon, rest = text.partition(":")
    prefix = prefix.lower()
    if not colon or prefix not in _PREFIXES:
        return _read_bare(text, default_port)
    if prefix == "unix":
        return _read_unix(_read_arguments(prefix, rest)), ""
    if prefix in _ARGUMENTS:
        return _read_internet(prefix, rest, default_port)
    if f"{prefix}:" in _WITH_HOST:
        found, _ = _fill(("host", "port"), rest)
        _read_port(found.get("port", ""))
        # hostname= is the name that the certificate must have, where that is another one.
        host = read_host(found.get("hostname", found.get("host", "")))
        return _Twisted(f"{prefix}:{rest}"), without_zone(host)
    raise ValueError("lmtp: stands before smtps:, each once, and a host behind them, as in smtps:mx.example.org")


def _read_bare(text: str, default_port: int) -> tuple[_Internet | _Twisted, str]:
    if "//" in text:
        raise ValueError("it is no URL; write mx.example.org:25, or smtps:mx.example.org:465")
    if to_address(text) is not None:
        # It may have a group of digits at its end that looks like a port: who means one writes brackets.
        return _to_internet(text, default_port)
    match = _HOST_AND_PORT.fullmatch(text)
    if match is not None and match[2] is None:
        return _to_internet(match[1], default_port)
    if match is not None and match[2].isdecimal():
        return _to_internet(match[1], _read_port(match[2]))
    prefix = text.partition(":")[0].lower()
    plugins = getPlugins(IStreamClientEndpointStringParserWithReactor)
    if any(str(plugin.prefix).lower() == prefix for plugin in plugins):
        return _Twisted(text), ""
    if match is not None:
        _read_port(match[2])
    raise ValueError(
        "it is no IPv6 address, and begins with no type of destination; there are tcp:, tcp6:, unix:, tls:, ssl:, "
        "those of Twisted's plugins, and smtps: and lmtp: before one"
    )


def _to_internet(host: str, port: int, **options: Any) -> tuple[_Internet, str]:
    host = read_host(host)
    return _Internet(host, port, **options), without_zone(host)


def _read_internet(prefix: str, rest: str, default_port: int) -> tuple[_Internet, str]:
    # The colons of an address in brackets divide nothing, whether they have backslashes or not.
    rest = _BRACKETED.sub(lambda match: re.sub(r"(?<!\\):", r"\\:", match[0]), rest)
    found = _read_arguments(prefix, rest)
    bind_address = found.get("bindAddress", "")
    own = to_address(bind_address.removeprefix("[").removesuffix("]"))
    if "bindAddress" in found and own is None:
        # A name would be looked up while everything waits.
        raise ValueError("bindAddress= takes an address of this machine, as bindAddress=192.0.2.9")
    internet, name = _to_internet(
        found.get("host", ""),
        _read_port(found["port"]) if "port" in found else default_port,
        # Bound to IPv6, Twisted fails with a TypeError at the first IPv4 address of a host.
        only_ipv6=prefix == "tcp6" or (own is not None and own.version == 6),
        bind_address=str(own or ""),
    )
    address = to_address(internet.host)
    versions = {one.version for one in (own, address) if one is not None} | ({6} if internet.only_ipv6 else set())
    if len(versions) > 1:
        raise ValueError("IPv4 and IPv6 don't meet; the host, bindAddress= and tcp6: have to be of the same")
    # An address says by itself what it is.
    return (internet if address is None else replace(internet, only_ipv6=False)), name


def _read_unix(found: dict[str, str]) -> _Unix:
    path = found.get("path", "")
    if not path:
        raise ValueError("the path is missing; write it as unix:/run/lmtp.sock")
    if len(path.encode()) > _MAX_PATH:
        raise ValueError(f"a socket's path has {_MAX_PATH} octets at most; a link to its folder may be shorter")
    return _Unix(path)


def _read_arguments(prefix: str, text: str) -> dict[str, str]:
    """The arguments of a string of ours; names that Twisted does not know would be found out at connecting only."""
    order, others = _ARGUMENTS[prefix]
    found, left = _fill(order, text)
    if left:
        raise ValueError(r"there are too many arguments; colons within one take a backslash each, as \:")
    for name in found:
        if name not in (*order, *others):
            known = ", ".join(f"{one}=" for one in (*order, *others))
            raise ValueError(rf"{prefix}: has no argument {name[:40]}=, it has {known}; an equals sign itself is \=")
    return found


def _fill(order: tuple[str, ...], text: str) -> tuple[dict[str, str], list[str]]:
    """Take arguments apart as Twisted does: by name, those without one in their order, and what is left."""
    found: dict[str, str] = {}
    positional: list[str] = []
    for argument in split_quoted(text):
        named = _NAMED.fullmatch(argument)
        if named is None:
            positional.append(unquote(argument))
        elif (name := unquote(named[1])) in found:
            raise ValueError(f"{name[:40]}= is given twice")
        else:
            found[name] = unquote(named[2])
    for name in order:
        if name not in found and positional:
            found[name] = positional.pop(0)
    return found, positional


def _read_port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"the port is {f'{text[:20]!a}, no number' if text else 'missing'}; ports are 1 to 65535")
    return _check_port(int(text))


def _check_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise ValueError(f"there is no port {port}; ports are 1 to 65535")
    return port
