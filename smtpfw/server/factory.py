"""
What makes the protocol of each connection, and knows all of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from zope.interface.verify import verifyObject

from smtpfw.dns.system import system_resolver
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, Auth, StartTLS
from smtpfw.interfaces import IBackend, ICheck, ISession
from smtpfw.memory import MemoryBudget
from smtpfw.server.checking import Checks, standard_checks
from smtpfw.server.deadlines import Alarms
from smtpfw.server.events import EventLog
from smtpfw.server.limits import ConnectionLimits
from smtpfw.server.origin import Origin
from smtpfw.server.protocol import SMTPServerProtocol
from smtpfw.server.transcripts import Transcripts
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.dialect import Extension, checked
from smtpfw.wire.verbs import compile_dialect

if TYPE_CHECKING:
    from smtpfw.server.proxy import ProxyProtocol

#: Seconds for a peer to read its 421 after the grace period.
CLOSING_TIME = 2.5


_log = Logger("smtpfw.server")


class SMTPServerFactory(ServerFactory):
    """
    A server: give it to any Twisted endpoint that listens::

        factory = SMTPServerFactory(MyBackend(), ServerConfig(hostname="mx.example.org"))
        TCP4ServerEndpoint(reactor, 25).listen(factory)

    For implicit TLS wrap it, as ``endpoints.wrapServerTLS`` or a ``ssl:`` endpoint string does.

    :param backend: where mail goes.
    :param config: what is served, within which limits.
    :param tls: makes the TLS side of STARTTLS, as :func:`smtpfw.tls.server_context` gives it; None for no STARTTLS.
    :param extensions: what EHLO offers; by default :data:`smtpfw.extensions.STANDARD`. Left out of it are
        STARTTLS where ``tls`` is None, and those that the backend would have to honour and does not.
    :param checks: who is asked before a session is, in this order; :func:`standard_checks` are added.
    :param reactor: for time limits; by default the global one.
    :param resolver: an ``IResolver`` for :meth:`IConnection.look_up_name` and for checks that ask DNS; by default the
        name servers of the system's settings.
    :param log: where events go, and tracebacks.
    :param transcripts: asked for each connection whether its dialog is written down, and where to; see
        :data:`smtpfw.server.transcripts.Transcripts`. What may be secret is not in it.
    :raises ConfigError: if the extensions don't fit together.

    :ivar connections: the protocols that are connected, or whose session has not come to its end yet.
    :ivar arriving: the connections of proxies that have not said yet whom they are for.
    :ivar limits: counts the clients.
    :ivar max_waiting: octets of a connection that wait for their turn before its client is paused.
    :ivar memory: counts the octets of messages in memory.
    """

    noisy = False

    def __init__(
        self,
        backend: IBackend,
        config: ServerConfig,
        *,
        tls: IOpenSSLServerConnectionCreator | None = None,
        extensions: Iterable[Extension] | None = None,
        checks: Iterable[ICheck] = (),
        reactor: IReactorTime | None = None,
        resolver: Any = None,
        log: Logger = _log,
        transcripts: Transcripts | None = None,
    ) -> None:
        if isinstance(backend, type) and ISession.implementedBy(backend):
            raise ConfigError(f"{backend.__name__} is a session class; give SessionBackend({backend.__name__})")
        verifyObject(IBackend, backend)
        if tls is not None and not (IOpenSSLServerConnectionCreator.providedBy(tls) or hasattr(tls, "getContext")):
            raise ConfigError(
                f"tls: {type(tls).__name__} is nothing that Twisted begins TLS with; "
                "smtpfw.tls.server_context(certificate, key) makes what is meant"
            )
        if reactor is None:
            # Not at the top: importing it installs it, and twistd's --reactor would come too late.
            from twisted.internet import reactor as default

            reactor = IReactorTime(default)
        self.backend = backend
        self.config = config
        self.tls = tls
        # The other half may wait in the body of a message.
        self.max_waiting = (config.max_buffered_bytes + 1) // 2
        self.clock = reactor
        self.alarms = Alarms(reactor)
        if isinstance(backend.honours, str):
            # In a text each part of it would be found.
            raise ConfigError(f"honours of {type(backend).__name__} is a text; write {{{backend.honours!r}}}")
        served = (
            extension
            for extension in checked(STANDARD if extensions is None else extensions)
            if (tls is not None or not isinstance(extension, StartTLS))
            and (not extension.end_to_end or extension.keyword in backend.honours)
        )
        self.dialect = compile_dialect(served, config.protocol)
        self._submission = bool(config.submission)
        self._has_auth = any(isinstance(extension, Auth) for extension in self.dialect.extensions)
        self.checks = Checks(standard_checks(checks, config.profile))
        self.limits = ConnectionLimits(config.max_connections, config.max_connections_per_address)
        self.log = log
        self.events = EventLog(log)
        self.transcripts = transcripts
        self.memory = MemoryBudget(config.max_memory_bytes)
        self._resolver = resolver
        self.connections: set[SMTPServerProtocol] = set()
        self.arriving: set[ProxyProtocol] = set()
        self._ids = count(1)
        # Tells the connections of this run from those of the one before in a log.
        self._run = secrets.token_hex(3)
        self._stopped: list[defer.Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> SMTPServerProtocol:  # type: ignore[override]
        return SMTPServerProtocol(self, addr if isinstance(addr, Origin) else None)

    @property
    def resolver(self) -> Any:
        """Whom names are asked of; raises :class:`~smtpfw.dns.questions.NotKnown` if there is nobody."""
        if self._resolver is None:
            self._resolver = system_resolver()
        return self._resolver

    def completes(self, identity: str) -> bool:
        """
        Whether messages of a client get what they lack; see :attr:`ServerConfig.submission`.

        :param identity: who the client has authenticated as.
        """
        return self._submission and (identity != "" or not self._has_auth)

    def next_id(self) -> str:
        """A name for a connection."""
        return f"{self._run}{next(self._ids):x}"

    def left(self, protocol: SMTPServerProtocol) -> None:
        """A connection is gone, and its session has come to its end."""
        self.connections.discard(protocol)
        self._finish_if_empty()

    def arrived(self, protocol: ProxyProtocol) -> None:
        """A proxy has said whom its connection is for, or it is gone."""
        self.arriving.discard(protocol)
        self._finish_if_empty()

    def when_empty(self) -> defer.Deferred[None]:
        """A Deferred that fires when no connection is left, each having ended by itself."""
        empty: defer.Deferred[None] = defer.Deferred()
        self._stopped.append(empty)
        self._finish_if_empty()
        return empty

    def _finish_if_empty(self) -> None:
        if not (self.connections or self.arriving):
            self._finish()

    def _finish(self) -> None:
        stopped, self._stopped = self._stopped, []
        for deferred in stopped:
            deferred.callback(None)

    def stop(self, grace: float) -> defer.Deferred[None]:
        """
        End all connections: idle ones at once with 421, busy ones after their transaction. Stop listening first; who
        comes all the same is answered 421.

        :param grace: seconds until those that are still busy are closed, too.
        :return: a Deferred that fires when all are gone, and their sessions have stored what was complete; a session
            that takes longer than ``grace`` and :data:`CLOSING_TIME` is not waited for.
        """
        stopped: defer.Deferred[None] = defer.Deferred()
        self.limits.closed = True
        for proxy in list(self.arriving):
            proxy.shut_down()
        for protocol in list(self.connections):
            protocol.drain()
        if not self.connections:
            stopped.callback(None)
            return stopped
        self._stopped.append(stopped)
        late = self.clock.callLater(grace, self._end)
        too_late = self.clock.callLater(grace + CLOSING_TIME, self._abort)

        def cancel(result: None) -> None:
            for call in (late, too_late):
                if call.active():
                    call.cancel()

        return stopped.addCallback(cancel)

    def _end(self) -> None:
        for protocol in list(self.connections):
            protocol.shut_down()

    def _abort(self) -> None:
        for protocol in list(self.connections):
            protocol.transport.abortConnection()
        self._finish()
