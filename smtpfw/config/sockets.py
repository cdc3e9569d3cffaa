"""
Sockets that are bound before the service runs, and taken over by the reactor when it starts.

twistd makes the service first, then daemonises, drops privileges and starts
it. Only while it is made can a failure still be told on the terminal and by the
exit status, and only then can a low port be had. So :class:`Binder` stands in
for the reactor while Twisted makes endpoints of strings: what would listen
later, listens at once, and is remembered together with its factory.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.abstract import isIPv6Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["AdoptedUNIXPort", "Binder", "BoundSocket", "Inheritor", "Switch"]


@implementer(IProtocolFactory)
class Switch:
    """
    Whom the connections of a socket are for; that can change while it listens.

    :ivar factory: makes their protocols from now on; whoever binds the socket sets it before it accepts.
    """

    factory: IProtocolFactory
    noisy = False

    def __init__(self) -> None:
        self._started = False

    def serve(self, factory: IProtocolFactory) -> None:
        """New connections are for this one; those that are there stay with the one before."""
        before = getattr(self, "factory", None)
        self.factory = factory
        if self._started:
            factory.doStart()
            if before is not None:
                before.doStop()

    def doStart(self) -> None:
        self._started = True
        self.factory.doStart()

    def doStop(self) -> None:
        self._started = False
        self.factory.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        return self.factory.buildProtocol(addr)


class BoundSocket:
    """
    A socket that listens.

    :ivar factory: what the endpoint gave: a :class:`Switch`, or one with TLS of the endpoint around it.
    :ivar own_path: the file of a Unix socket that we made and shall remove; empty for others.
    :ivar endpoint: the string it was made of.
    :ivar switch: says whom its connections are for.
    :ivar smtps: whether the operator has asked for TLS from the first octet.
    :ivar passed: whether somebody else has bound it, systemd say.
    """

    endpoint: str
    switch: Switch
    smtps = False
    backlog = 1024

    def __init__(
        self, sock: socket.socket, factory: IProtocolFactory, own_path: str = "", *, passed: bool = False
    ) -> None:
        self._socket = sock
        self._siblings: list[socket.socket] = []
        self.passed = passed
        self.factory = factory
        self.own_path = own_path
        #: What ``getsockname`` says: ``(host, port, ...)`` or a path.
        self.address: Any = sock.getsockname()
        self.family = sock.family

    @property
    def implicit_tls(self) -> bool:
        """Whether the handshake comes before the greeting."""
        return self.smtps or isinstance(self.factory, TLSMemoryBIOFactory)

    def start(self, reactor: Any) -> Any:
        """
        Let the reactor accept from now on.

        :return: the :class:`~twisted.internet.interfaces.IListeningPort`.
        """
        if self.family == socket.AF_UNIX:
            port = AdoptedUNIXPort(self._socket, self.factory, reactor)
            port.startListening()
            return port
        try:
            return reactor.adoptStreamPort(self._socket.fileno(), self.family, self.factory)
        finally:
            # The reactor has duplicated the descriptor; with ours left open the port would never be free again.
            self._socket.close()

    def spread(self, count: int) -> None:
        """
        Have so many sockets for the address, all together: the kernel divides the connections among them.

        From one socket takes who is quickest. Of two processes one got up to 98 of 100 connections in that way; with
        sockets of their own they get 40 to 60.

        :raises OSError: when they can't be had. Unix sockets, and those that were passed to us, stay as they are; and
            so do all where the kernel does not know how to divide.
        """
        if self.passed or self.family == socket.AF_UNIX or sys.platform != "linux":
            return
        # Not before bind: then another server of the same user could bind the port, too, and nobody would notice.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(self._siblings) + 1 < count:
            sibling = socket.socket(self.family, socket.SOCK_STREAM)
            self._siblings.append(sibling)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                sibling.setsockopt(socket.SOL_SOCKET, option, 1)
            if self.family == socket.AF_INET6:
                only = self._socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                sibling.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            sibling.bind(self.address)
            sibling.listen(self.backlog)
            sibling.setblocking(False)

    def filenos(self) -> list[int]:
        """The descriptors of its sockets: one, or as many as it was spread to."""
        return [one.fileno() for one in (self._socket, *self._siblings)]

    def close(self) -> None:
        """Close its sockets. What the reactor took over is not touched."""
        for one in (self._socket, *self._siblings):
            one.close()

    def discard(self) -> None:
        """Close its sockets, and remove the file if we made one."""
        self.close()
        self.remove_file()

    def remove_file(self) -> None:
        """
        Remove the file of our own Unix socket.

        :raises OSError: when it can't be removed; that it is gone already is no error.
        """
        if self.own_path:
            Path(self.own_path).unlink(missing_ok=True)


class Binder:
    """
    A reactor that binds at once, for the makers of endpoints; everything else is the real reactor's.

    :ivar bound: what was bound; None while nothing was.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.bound: BoundSocket | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> BoundSocket:
        """Listen on a TCP port; :raises OSError: when it can't be had."""
        family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
        if not 0 <= port <= 65535:
            raise OSError(errno.EINVAL, f"{port} is no port number; they end at 65535")
        # The name may carry a scope (fe80::1%eth0), which only getaddrinfo knows to read.
        address = socket.getaddrinfo(interface or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)[0][4]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and interface == "::":
                # tcp6 on all addresses means both families, whatever net.ipv6.bindv6only says.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind(address)
            return self._listen(sock, factory, backlog)
        except BaseException:
            sock.close()
            raise

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,  # noqa: N803
        backlog: int = 50,
        interface: str = "",
    ) -> BoundSocket:
        """Listen on a TCP port with TLS from the first octet, as Twisted's ``ssl:`` endpoint asks for."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory), backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: object = 0,  # noqa: N803
    ) -> BoundSocket:
        """Listen on a Unix socket. A file at which nobody answers is removed; ``wantPID`` is not needed for that."""
        # A later chdir (twistd --rundir) must not make us remove another file.
        path = str(Path(address).absolute())
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Between bind and chmod anybody could connect; the umask sets the mode at birth.
        umask = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
            return self._listen(sock, factory, backlog, path)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(umask)

    def adoptStreamPort(self, descriptor: int, family: socket.AddressFamily, factory: IProtocolFactory) -> BoundSocket:
        """
        Keep a socket that was passed to us, as by systemd. It listens already; its mode and file are not ours.

        :param family: as somebody has written it. The socket itself knows: ``ListenStream=25`` makes one for both
            families, and read as INET each client would have an address that is anything but its own.
        :raises OSError: when it does not listen.
        """
        # Programs that we start have no use for it.
        os.set_inheritable(descriptor, False)
        own = os.dup(descriptor)
        try:
            sock = socket.socket(fileno=own)
        except OSError:
            os.close(own)
            raise
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            raise OSError(errno.EINVAL, "it does not listen")
        return self._remember(BoundSocket(sock, factory, passed=True))

    def _listen(self, sock: socket.socket, factory: IProtocolFactory, backlog: int, path: str = "") -> BoundSocket:
        sock.listen(backlog)
        sock.setblocking(False)
        bound = BoundSocket(sock, factory, path)
        bound.backlog = backlog
        return self._remember(bound)

    def _remember(self, bound: BoundSocket) -> BoundSocket:
        self.bound = bound
        return bound


class Inheritor(Binder):
    """
    A reactor that binds nothing, since it has the socket already: from the process that has started this one.

    :param sock: it listens.
    """

    def __init__(self, reactor: Any, sock: socket.socket) -> None:
        super().__init__(reactor)
        self._inherited = sock

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> BoundSocket:
        """Nothing is left to do."""
        return self._remember(BoundSocket(self._inherited, factory, passed=True))

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: object = 0,  # noqa: N803
    ) -> BoundSocket:
        """Nothing is left to do; whoever has made the file will remove it."""
        return self._remember(BoundSocket(self._inherited, factory, passed=True))

    def adoptStreamPort(self, descriptor: int, family: socket.AddressFamily, factory: IProtocolFactory) -> BoundSocket:
        """Nothing is left to do."""
        return self._remember(BoundSocket(self._inherited, factory, passed=True))


class AdoptedUNIXPort(unix.Port):
    """
    A Unix port on a socket that listens already.

    Twisted's own way of adopting one sets the file's mode to 666, and removes the file in the end, systemd's too; and
    after ``--uid`` it fails, because the file is still root's. This one leaves the file alone.
    """

    def __init__(self, sock: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(sock.getsockname(), factory, reactor=reactor)
        self._listening = sock
        # systemd, or another worker, may want to accept from it when we don't any more.
        self._shouldShutdown = False

    def startListening(self) -> None:
        """Accept from now on."""
        self.factory.doStart()  # type: ignore[union-attr]
        self.connected = True
        self.socket = self._listening
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """The port is closed; the file stays."""
        tcp.Port.connectionLost(self, reason)


def _remove_stale(path: str) -> None:
    """
    Remove a socket file that a server left behind.

    :raises OSError: EADDRINUSE when somebody answers there, EEXIST when the file is something else.
    """
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OSError(errno.EEXIST, f"{path} exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A live server with a full backlog must not hold us up.
        probe.setblocking(False)
        outcome = probe.connect_ex(path)
    if outcome == errno.ECONNREFUSED:
        Path(path).unlink()
    elif outcome in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    else:
        raise OSError(outcome, os.strerror(outcome))
