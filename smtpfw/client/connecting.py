"""
From a string to a connection that mail can be given to: connect, EHLO, TLS, EHLO, AUTH.

Rule 1: TLS by policy. ``required``: the peer's certificate is verified, or
nothing else is said; there is no falling back. ``opportunistic``: encrypted if
the peer offers it, by whatever certificate (RFC 7435); that keeps out who
listens, not who sits in between. ``none``: as it is.

Rule 2: whoever gives credentials, or names authorities, means the first. Who
gives none is better served by any encryption than by none (RFC 3207).

Rule 3: what fails leaves no connection behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from smtpfw.client.destination import Destination
from smtpfw.client.login import clients_of
from smtpfw.client.protocol import LMTPClientProtocol, SMTPClientProtocol
from smtpfw.errors import ConnectionFailed, Refused, TimedOut, TLSFailed
from smtpfw.extensions import CLIENT
from smtpfw.sasl import ISASLClient
from smtpfw.tls import client_context
from smtpfw.wire.config import LMTP, ClientConfig
from smtpfw.wire.dialect import Extension, checked

__all__ = ["NONE", "OPPORTUNISTIC", "REQUIRED", "Connector", "connect", "connector_of"]

NONE = "none"
OPPORTUNISTIC = "opportunistic"
REQUIRED = "required"
_POLICIES = (NONE, OPPORTUNISTIC, REQUIRED)

#: RFC 6409 section 3.1: where one submits mail with credentials.
_SUBMISSION_PORT = 587
_SMTP_PORT = 25

Where = str | Destination | IStreamClientEndpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """
    All that is needed to connect, as often as one likes. Made by :func:`connector_of`.

    :ivar destination: where to.
    :ivar tls: the policy.
    :ivar name: the host: which certificate it must have, and who gets the credentials; empty if it has none.
    :ivar clients: the client's sides of SASL mechanisms, the best first.
    :ivar ca: a PEM file or a folder with the authorities that are trusted; None for the system's.
    :ivar certificate: a PEM file with a certificate of our own; None for none.
    :ivar key: a PEM file with its key; None if it stands in the same file.
    """

    destination: Destination
    tls: str
    name: str
    clients: tuple[ISASLClient, ...] = field(default=(), repr=False)
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    config: ClientConfig = field(default_factory=ClientConfig)
    extensions: tuple[Extension, ...] = CLIENT
    transcript: Callable[[str], None] | None = None

    def connect(self, reactor: Any = None) -> Deferred[SMTPClientProtocol]:
        """
        Connect, say hello, start TLS, log in.

        :return: a Deferred of the client; cancelling it gives up.
        :raises ClientError: saying what has failed.
        :raises LocalProtocolError: if the credentials must not be given to this server on this line.
        :raises ConfigError: if a file of certificates can't be used.
        """
        return Deferred.fromCoroutine(self._connect(reactor))

    def context(self) -> Any:
        """A context for a handshake, by the policy."""
        return client_context(
            self.name, verify=self.tls == REQUIRED, ca=self.ca, certificate=self.certificate, key=self.key
        )

    async def _connect(self, reactor: Any) -> SMTPClientProtocol:
        if reactor is None:
            from twisted.internet import reactor
        destination = self.destination
        client = (LMTPClientProtocol if destination.protocol == LMTP else SMTPClientProtocol)(
            self.config,
            # A Unix socket has no name, and nobody sits on that line.
            name=self.name or ("localhost" if destination.is_local else ""),
            peer_name=destination.text,
            extensions=self.extensions,
            tls=self.context() if destination.implicit_tls else None,
            clock=reactor,
            transcript=self.transcript,
        )
        await _connect(destination, client, reactor, self.config.connect_timeout)
        try:
            await client.greeting
            await client.hello()
            await self._secure(client)
            if self.clients:
                await client.auth(self.clients)
        except BaseException:
            client.close()
            raise
        return client

    async def _secure(self, client: SMTPClientProtocol) -> None:
        wire = client.wire
        if not wire.tls and self.tls != NONE and (self.tls == REQUIRED or wire.peer.uses("STARTTLS")):
            try:
                await client.start_tls(self.context())
            except Refused as error:
                if self.tls == REQUIRED:
                    raise TLSFailed(error.reply.text, phase="STARTTLS", peer=wire.peer_name) from error
                if wire.is_over:
                    raise
            else:
                await client.hello()
        if self.tls == REQUIRED and not wire.tls_verified:
            # TLS of an endpoint that somebody else has made.
            raise TLSFailed(
                f"its certificate has not been verified for {self.name or 'any name'}", phase="TLS", peer=wire.peer_name
            )


def connector_of(
    where: Where,
    *,
    auth: Any = None,
    tls: str | None = None,
    tls_name: str | None = None,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    config: ClientConfig | None = None,
    extensions: Iterable[Extension] = CLIENT,
    transcript: Callable[[str], None] | None = None,
) -> Connector:
    """
    Put together what :func:`connect` needs.

    :raises ValueError: for a place or a policy that is none, or credentials that can't be sent.
    """
    if isinstance(where, str):
        destination = Destination.parse(where, default_port=_SUBMISSION_PORT if auth is not None else _SMTP_PORT)
    else:
        destination = where if isinstance(where, Destination) else Destination.of(where)
    if tls is None:
        tls = REQUIRED if ca is not None else _default_policy(destination, auth is not None)
    elif ca is not None and tls in (NONE, OPPORTUNISTIC):
        raise ValueError(f"{destination}: nobody looks at ca where tls is {tls}; leave it out, or say {REQUIRED}")
    if tls not in _POLICIES:
        raise ValueError(f"tls is one of {', '.join(_POLICIES)}, not {tls!r}")
    name = destination.name if tls_name is None else tls_name
    if tls == REQUIRED and not name:
        raise ValueError(f"{destination}: tls is required, so say by tls_name which name the certificate must have")
    if tls == NONE and destination.implicit_tls:
        raise ValueError(f"{destination}: it begins with TLS, and tls is {NONE}")
    return Connector(
        destination=destination,
        tls=tls,
        name=name,
        clients=clients_of(auth) if auth is not None else (),
        ca=ca,
        certificate=certificate,
        key=key,
        config=config or ClientConfig(),
        extensions=checked(extensions),
        transcript=transcript,
    )


async def _connect(destination: Destination, client: SMTPClientProtocol, reactor: Any, timeout: float) -> None:
    factory = _OneShot()
    factory.client = client
    connecting = destination.endpoint(reactor, timeout).connect(factory).addErrback(_cancelled)
    if timeout:
        # Endpoints limit each attempt, not the look-up of the name, nor all attempts together.
        connecting.addTimeout(timeout, reactor)
    try:
        await connecting
    except CancelledError:
        raise
    except TimeoutError as error:
        raise TimedOut(f"no connection within {timeout:g} seconds", phase="CONNECT", peer=destination.text) from error
    except Exception as error:
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConnectionFailed(why, phase="CONNECT", peer=destination.text) from error


class _OneShot(Factory):
    """Connects one client, without a word in the log."""

    noisy = False
    client: SMTPClientProtocol

    def buildProtocol(self, addr: Any) -> SMTPClientProtocol:
        return self.client


def _cancelled(failure: Failure) -> Failure:
    """Endpoints have an exception of their own for it."""
    return Failure(CancelledError()) if failure.check(ConnectingCancelledError) else failure


def _default_policy(destination: Destination, verify: bool) -> str:
    if destination.is_local:
        # Nobody sits on that line; the server's certificate is often its own.
        return OPPORTUNISTIC if destination.name else NONE
    return REQUIRED if verify or destination.implicit_tls else OPPORTUNISTIC


def connect(where: Where, *, reactor: Any = None, **settings: Any) -> Deferred[SMTPClientProtocol]:
    """
    Connect to a server: greeted, EHLO said, TLS started and credentials given as asked for.

    :param where: ``mx.example.org``, ``mx.example.org:587``, ``smtps:mail.example.org``, ``unix:/path``,
        ``lmtp:unix:/path`` (see :mod:`smtpfw.client.destination`), or any ``IStreamClientEndpoint``.
    :param auth: ``(username, password)``, an :class:`~smtpfw.sasl.ISASLClient`, or several, the best first.
    :param tls: ``none``, ``opportunistic`` or ``required``; by default required with ``auth``, ``ca`` or ``smtps:``,
        and opportunistic without, or to this machine.
    :param tls_name: the name that the certificate must have; by default the host.
    :param ca: a PEM file or a folder with the authorities that are trusted; by default the system's.
    :param certificate: a PEM file with a certificate of our own, and ``key`` one with its key.
    :param config: a :class:`~smtpfw.wire.config.ClientConfig`: time limits, our name ...
    :param extensions: those that are used where the server offers them.
    :param transcript: takes each line of the dialog, as text; no secrets are in it.
    :return: a Deferred of a :class:`~smtpfw.client.protocol.SMTPClientProtocol`, of an ``LMTPClientProtocol`` for
        ``lmtp:``.
    :raises ClientError: saying what has failed.
    :raises ValueError: for arguments that make no sense; nothing has been sent then.
    """
    return connector_of(where, **settings).connect(reactor)
