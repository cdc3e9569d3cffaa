"""
Listeners: from a string to a socket that listens.

A listener is one of Twisted's endpoint strings (``tcp:2525``, ``tcp6:25`` for
both families, ``unix:/run/lmtp.sock``, ``systemd:domain=INET:name=smtp``). The
prefix ``smtps:`` is ours and is taken off first: implicit TLS (RFC 8314
section 3), with the server's own certificates; ``smtps:465`` is short for
``smtps:tcp:465``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from smtpfw.client.hosts import is_loopback
from smtpfw.config.places import Place
from smtpfw.config.settings import nearest
from smtpfw.config.sockets import Binder, BoundSocket, Inheritor, Switch
from smtpfw.config.strings import Description, parse_description
from smtpfw.errors import ConfigError
from smtpfw.wire.config import LMTP, SMTP

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory

__all__ = [
    "CannotListen",
    "Listener",
    "Seat",
    "adopt",
    "bind_all",
    "check_endpoint",
    "parse_listener",
    "trusted_by_default",
]

#: Where the clients of a listener on loopback come from.
_LOOPBACK = ("127.0.0.0/8", "::1")

_NOWHERE = Place("listen")

_SMTPS = "smtps:"

# The arguments that we set when the operator did not: how many positional arguments leave them open, and their values.
# Backlog: Twisted's 50 fills within a burst that a mailing list makes; the kernel cuts 1024 to its own maximum.
# Mode: Twisted's 666 would let every local user in.
_DEFAULTS = {
    "tcp": {"backlog": (2, "1024")},
    "tcp6": {"backlog": (1, "1024")},
    "unix": {"mode": (1, "660"), "backlog": (2, "1024")},
}
_BUILT_IN = ("tcp", "unix", "ssl")
_INTERNET = ("tcp", "tcp6", "ssl")
# Refused above, or without a socket that could be bound beforehand.
_UNUSABLE = {"haproxy", "stdio", "tls"}


@dataclass(frozen=True, slots=True)
class Listener:
    """
    One place to listen at.

    :ivar text: as the operator wrote it.
    :ivar endpoint: what Twisted gets to see, with our defaults added.
    :ivar implicit_tls: the handshake comes first, with the server's certificates.
    :ivar place: where it stands.
    :ivar description: the endpoint, taken apart.
    :ivar proxied: whether its clients may be proxies, which speak for others.
    """

    text: str
    endpoint: str
    implicit_tls: bool
    place: Place
    description: Description
    proxied: bool = False

    def error(self, problem: object) -> ConfigError:
        """What is wrong with it, in one line."""
        return self.place.error(problem, self.text)

    @property
    def is_public(self) -> bool:
        """Whether clients of other machines may reach it."""
        return _kind(self) == "elsewhere"

    @property
    def port(self) -> int:
        """Its TCP port; 0 where none is written."""
        description = self.description
        text = description.named.get("port", "".join(description.positional[:1]))
        return int(text) if description.prefix in _INTERNET and text.isdecimal() else 0

    def describe(self) -> str:
        """Where it listens, in words."""
        description = self.description
        if not self.port:
            return self.text
        interface = description.named.get("interface", "".join(description.positional[1:2]))
        if interface not in ("", "::", "0.0.0.0"):
            return f"port {self.port} of {interface}"
        families = "addresses, IPv6 and IPv4" if "6" in description.prefix or interface == "::" else "IPv4 addresses"
        return f"port {self.port} of all {families}"


class CannotListen(ConfigError):
    """
    A socket that the system does not give.

    :ivar passing: whether it may be given at another time, or to another user.
    """

    passing = False


def parse_listener(text: str, place: Place = _NOWHERE) -> Listener:
    """
    Read a listener's string; nothing is bound yet.

    :param place: where it stands.
    :raises ConfigError: when it is empty, or its quoting is broken.
    """
    implicit_tls = text.lower().startswith(_SMTPS)
    endpoint = text[len(_SMTPS) :] if implicit_tls else text
    if implicit_tls and endpoint.split(":", 1)[0].isdecimal():
        endpoint = f"tcp:{endpoint}"
    if endpoint.startswith("haproxy:"):
        # Twisted's wrapper lets us speak before the header has come, trusts every peer, and STARTTLS fails behind it.
        raise ConfigError(
            'write the endpoint without haproxy:, and name your proxies: proxy = ["10.0.0.5"], --proxy 10.0.0.5'
        )
    if endpoint.startswith("tls:"):
        # Twisted's takes the next word for a folder of certificates, and port 443 on all addresses.
        raise ConfigError("for TLS from the first octet write smtps:PORT, and give tls, --tls CERT[:KEY]")
    description = parse_description(endpoint)
    if not description.prefix:
        raise ConfigError("no endpoint; write tcp:2525, unix:/run/smtpfw.sock or the like")
    endpoint += _missing_arguments(description)
    return Listener(text, endpoint, implicit_tls, place, parse_description(endpoint))


def check_endpoint(listener: Listener, reactor: object) -> None:
    """
    Find out whether Twisted can read the string of a listener; nothing is bound.

    :raises ConfigError: one line that says what is wrong with it.
    """
    if listener.description.prefix == "systemd":
        # What was passed is looked at when it is taken.
        return
    try:
        serverFromString(Binder(reactor), listener.endpoint)
    except Exception as error:
        raise ConfigError(_explain(listener, error)) from None


#: A socket, and whom its connections are to be for.
Seat = tuple[BoundSocket, "IProtocolFactory"]


def bind_all(
    listeners: tuple[Listener, ...],
    factory: IProtocolFactory,
    reactor: object,
    tls: IOpenSSLServerConnectionCreator | None,
    protocol: str = SMTP,
    kept: dict[str, list[BoundSocket]] | None = None,
    wrap: Callable[[IProtocolFactory], IProtocolFactory] = lambda inner: inner,
) -> list[Seat]:
    """
    Bind a socket for each listener, all or none.

    :param factory: serves all of them; for implicit TLS it is wrapped.
    :param tls: the context of implicit TLS.
    :param protocol: what is spoken there.
    :param kept: endpoint -> sockets that are bound already; those that are used are taken out.
    :param wrap: puts something around each factory, around its TLS, too.
    :raises ConfigError: one line that names the listener and says what to do.
    """
    kept = kept if kept is not None else {}
    own = [bound for sockets in kept.values() for bound in sockets]
    seats: list[Seat] = []
    new: list[BoundSocket] = []
    try:
        for listener in listeners:
            if kept.get(listener.endpoint):
                bound = kept[listener.endpoint].pop(0)
            else:
                bound = _listen(listener, Binder(reactor), own)
                new.append(bound)
            bound.smtps = listener.implicit_tls
            seats.append((bound, wrap(_with_tls(listener, factory, tls))))
            if protocol == LMTP and bound.family != socket.AF_UNIX and bound.address[1] == 25:
                raise listener.error("LMTP must not be served on port 25 (RFC 2033 section 5); choose another one")
    except BaseException:
        for bound in new:
            bound.discard()
        raise
    return seats


def _with_tls(
    listener: Listener, factory: IProtocolFactory, tls: IOpenSSLServerConnectionCreator | None
) -> IProtocolFactory:
    if not listener.implicit_tls:
        return factory
    if tls is None:
        raise listener.error("smtps: needs a certificate; give tls, --tls CERT[:KEY]")
    wrapped: IProtocolFactory = TLSMemoryBIOFactory(tls, False, factory)
    return wrapped


def adopt(listener: Listener, sock: socket.socket, reactor: object) -> BoundSocket:
    """
    The socket of a listener, where another process has bound it.

    :raises ConfigError: as :func:`bind_all`.
    """
    inheritor = Inheritor(reactor, sock)
    if listener.description.prefix != "systemd":
        return _listen(listener, inheritor)
    # Twisted would look for what systemd has passed to us.
    switch = Switch()
    bound = inheritor.adoptStreamPort(sock.fileno(), sock.family, switch)
    bound.endpoint, bound.switch = listener.endpoint, switch
    return bound


def _listen(listener: Listener, binder: Binder, own: Sequence[BoundSocket] = ()) -> BoundSocket:
    switch = Switch()
    outcome: list[object] = []
    try:
        endpoint: Any = serverFromString(binder, listener.endpoint)
        if listener.description.prefix == "systemd":
            # It would close what systemd has passed; and when the listener comes back at SIGHUP, somebody else's file
            # has that number.
            endpoint._close = _leave_open
        waiting: Deferred[object] = endpoint.listen(switch)
        waiting.addBoth(outcome.append)
    except Exception as error:
        raise _cannot_listen(listener, error, own) from None
    result = outcome[0] if outcome else None
    if isinstance(result, Failure) and result.value is not None:
        raise _cannot_listen(listener, result.value, own)
    if binder.bound is None:
        raise listener.error("endpoints of this type can't be bound before the service runs")
    binder.bound.endpoint, binder.bound.switch = listener.endpoint, switch
    return binder.bound


def _leave_open(descriptor: int) -> None:
    """Stands for os.close."""


def trusted_by_default(listeners: Sequence[Listener]) -> tuple[str, ...]:
    """Loopback, if clients can come from nowhere else, and speak for themselves."""
    if any(listener.proxied for listener in listeners):
        # Where a proxy on this machine does not say who the client is, it would be the proxy, and trusted.
        return ()
    kinds = {_kind(listener) for listener in listeners}
    return _LOOPBACK if "loopback" in kinds and kinds <= {"loopback", "unix"} else ()


def _kind(listener: Listener) -> str:
    description = listener.description
    if description.prefix == "unix":
        return "unix"
    interface = description.named.get("interface", "".join(description.positional[1:2]))
    return "loopback" if description.prefix in _INTERNET and is_loopback(interface) else "elsewhere"


def _missing_arguments(description: Description) -> str:
    return "".join(
        f":{name}={value}"
        for name, (count, value) in _DEFAULTS.get(description.prefix, {}).items()
        if name not in description.named and len(description.positional) <= count
    )


def _cannot_listen(listener: Listener, error: BaseException, own: Sequence[BoundSocket]) -> CannotListen:
    found = CannotListen(str(listener.error(_explain(listener, error, own))))
    found.passing = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM)
    return found


def _explain(listener: Listener, error: BaseException, own: Sequence[BoundSocket] = ()) -> str:
    """
    What went wrong and what to do, in one line.

    :param own: sockets that this process has.
    """
    description = listener.description
    if isinstance(error, OSError) and description.prefix == "systemd":
        return "the socket that systemd passed does not listen; its unit needs ListenStream= and Accept=no"
    if isinstance(error, OSError):
        return _explain_os_error(description, error, own)
    if isinstance(error, (KeyError, IndexError)) and description.prefix == "systemd":
        return f"systemd passed no such socket ({error}); compare Sockets= and FileDescriptorName= of the units"
    if isinstance(error, TypeError) and "::" in listener.endpoint:
        return r"colons in a value take a backslash each, as in tcp6:25:interface=\:\:1"
    if isinstance(error, ValueError) and "Unknown endpoint type" in str(error):
        plugins = {str(plugin.prefix) for plugin in getPlugins(IStreamServerEndpointStringParser)}
        types = sorted({*_BUILT_IN, *plugins} - _UNUSABLE)
        if description.prefix.isdecimal():
            return f"no endpoint type; did you mean tcp:{listener.text}?"
        near = nearest(description.prefix, [*types, "smtps"])
        return (
            f"unknown endpoint type {description.prefix!r}{near} (known are {', '.join(types)}, and smtps: before one)"
        )
    return f"these arguments are not understood ({' '.join(str(error).split()) or type(error).__name__})"


def _explain_os_error(description: Description, error: OSError, own: Sequence[BoundSocket]) -> str:
    first = "port" if description.prefix in _INTERNET else "address"
    where = description.named.get(first, "".join(description.positional[:1])) or description.text
    inet = description.prefix != "unix"
    name = f"port {where}" if inet else where
    if error.errno == errno.EADDRINUSE:
        if where in [str(one.address if one.family == socket.AF_UNIX else one.address[1]) for one in own]:
            return f"{name} is in use by this service itself; that change needs a restart"
        hint = f"'ss -ltnp sport = :{where}' shows by whom" if inet else "another server answers there"
        return f"{name} is in use; {hint}"
    if error.errno in (errno.EACCES, errno.EPERM):
        if inet:
            return (
                f"no permission for {name}; ports below 1024 need root (twistd --uid drops it) or CAP_NET_BIND_SERVICE"
            )
        return f"no permission to make {name}; its folder must be writable for us"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        address = description.named.get("interface", where)
        return f"this machine has no address {address!r}; 'ip address' lists those it has"
    if error.errno == errno.ENOENT and not inet:
        return f"the folder of {where} does not exist"
    return (error.strerror or str(error)).lower()
