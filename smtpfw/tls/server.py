"""
TLS contexts of the server: one certificate for a programmer, or many by name for an operator.

Rule 1: one context serves STARTTLS (``transport.startTLS(context)``) and
implicit TLS (``TLSMemoryBIOFactory(context, False, factory)``) alike.

Rule 2: everything that is wrong with a certificate is found when the context
is made, and told in one line that names the file; not at the first handshake.

Rule 3: a client's certificate counts only if it has been verified. One that
can't be verified ends the handshake, even where none is required.

Rule 4: a connection keeps the certificates that it began with, however far its
handshake is. What is new is for the next one, and no session of before is
resumed: its client knows another certificate than the one that an
authentication would be bound to (RFC 5929 section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.errors import ConfigError
from smtpfw.tls.certificates import Group, NameTable, read_certificate, utc_now
from smtpfw.tls.pem import load_authorities, reason_of, trust_root

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

__all__ = ["MINIMUM_VERSIONS", "ServerTLS", "TLSPolicy", "server_context"]

_log = Logger()

#: What may be the oldest version that is spoken. Older ones are not to be used at all (RFC 8996 section 3).
MINIMUM_VERSIONS = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """
    What a listener asks of its clients.

    :param minimum_version: of TLS: ``1.2`` or ``1.3``.
    :param client_ca: a PEM file with the certificates that clients' are verified with, or a folder of such files; None
        asks no client for one. The system's authorities would not do: they vouch for servers' names.
    :param require_client_certificate: let the handshake of a client without one fail.
    :raises ConfigError: for another version, or when a client's certificate is required and there is nothing to verify
        it with.
    """

    minimum_version: str = "1.2"
    client_ca: str | None = None
    require_client_certificate: bool = False

    def __post_init__(self) -> None:
        if self.minimum_version not in MINIMUM_VERSIONS:
            known = " or ".join(MINIMUM_VERSIONS)
            raise ConfigError(f"{self.minimum_version}: the minimum version of TLS is {known}")
        if self.require_client_certificate and self.client_ca is None:
            raise ConfigError("a client's certificate is required, and no authority is named to verify it with")

    def load_authorities(self) -> list[crypto.X509]:
        """
        Those that vouch for clients; none if no client is asked.

        :raises ConfigError: one line that names the file.
        """
        return load_authorities(self.client_ca) if self.client_ca is not None else []

    def describe(self) -> list[str]:
        """Lines for the operator."""
        lines = [f"TLS {self.minimum_version} is the oldest that is spoken"]
        if self.client_ca is not None:
            how = "must show" if self.require_client_certificate else "may show"
            lines.append(f"Clients {how} a certificate by an authority of {self.client_ca}")
        return lines


def server_context(
    certificate_path: str,
    key_path: str | None = None,
    *,
    minimum_version: str = "1.2",
    client_ca: str | None = None,
    require_client_certificate: bool = False,
) -> CertificateOptions:
    """
    Make the TLS context of a server with one certificate: Twisted's default ciphers, session tickets on.

    The files are read once; :class:`~smtpfw.tls.store.CertificateStore` is for several certificates, and for those
    that are read again.

    :param certificate_path: a PEM file: the server's certificate first, then its chain.
    :param key_path: a PEM file with the private key; by default it is looked for in ``certificate_path``.
    :param minimum_version: see :class:`TLSPolicy`, as for the others.
    :raises ConfigError: when a file is absent, can't be read, holds no certificate or no key that can be used, the key
        belongs to another certificate, or a client's certificate is required and there is nothing to verify it with. A
        certificate that is out of date is only logged: a server that answers with it is better than none.
    """
    policy = TLSPolicy(minimum_version, client_ca, require_client_certificate)
    certificate = read_certificate(certificate_path, key_path)
    options = _options((certificate,), policy, policy.load_authorities())
    if certificate.not_after < utc_now():
        _log.warn("{path}: the certificate has expired; clients that verify will refuse it", path=certificate_path)
    return options


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    The TLS side of a listener: the certificate is chosen by the name that the client asks for.

    It goes where Twisted takes a server's context. :meth:`~smtpfw.tls.store.CertificateStore.listener` makes it, and
    gives it what is new.

    :ivar policy: what is asked of clients.
    """

    def __init__(self, table: NameTable, policy: TLSPolicy) -> None:
        self.policy = policy
        self._served = self._make(table, policy.load_authorities(), {})

    @property
    def authorities(self) -> list[crypto.X509]:
        """Those that clients' certificates are verified with."""
        return self._served.authorities

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802
        """See :meth:`IOpenSSLServerConnectionCreator.serverConnectionForTLS`."""
        return _Connection(self._served.front)

    def prepare(self, table: NameTable, authorities: list[crypto.X509]) -> Served:
        """
        Make what will serve other certificates, or verify clients differently. Nothing changes before :meth:`adopt`.

        :raises ConfigError: when OpenSSL does not take them.
        """
        return self._make(table, authorities, self._served.contexts if authorities is self.authorities else {})

    def adopt(self, prepared: Served) -> None:
        """From the next connection on, serve what was prepared."""
        self._served = prepared

    def _make(self, table: NameTable, authorities: list[crypto.X509], reusable: Mapping[Group, SSL.Context]) -> Served:
        contexts = {
            group: reusable.get(group) or self._context(group, authorities)
            for group in table.groups()
            if group != table.default
        }
        front = self._context(table.default, authorities)

        def choose(connection: SSL.Connection) -> None:
            # Nothing in here may raise: pyOpenSSL would print it, and end the handshake.
            group = table.find(connection.get_servername())
            if group in contexts:
                connection.set_context(contexts[group])
            if len(group) > 1:
                # OpenSSL forgets which of them a session began with, and takes the last for what the client knows: an
                # authentication that binds to the certificate (RFC 5929 section 4.1) would fail after a resumption.
                connection.set_options(SSL.OP_NO_TICKET)

        front.set_tlsext_servername_callback(choose)
        return Served(front, contexts, authorities)

    def _context(self, group: Group, authorities: list[crypto.X509]) -> SSL.Context:
        try:
            return _options(group, self.policy, authorities).getContext()
        except (SSL.Error, crypto.Error) as error:
            paths = " and ".join(one.path for one in group)
            raise ConfigError(f"{paths}: OpenSSL does not take them together ({reason_of(error)})") from None


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """
    What the next connections are served with.

    :ivar front: the context that they begin with; it shows the default, and switches to others by name.
    :ivar contexts: those others.
    :ivar authorities: those that vouch for clients.
    """

    front: SSL.Context
    contexts: Mapping[Group, SSL.Context]
    authorities: list[crypto.X509]


class _Connection(SSL.Connection):
    """
    Keeps the context that it began with.

    After ``set_context`` pyOpenSSL has the new one only, while OpenSSL calls the callback of the first again when the
    client has to repeat its hello (RFC 8446 section 4.1.4). When other certificates had come in between, that callback
    would have been freed.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.began_with = context


def _options(group: Group, policy: TLSPolicy, authorities: list[crypto.X509]) -> CertificateOptions:
    """What makes a context; of several certificates the client's abilities choose one."""
    first, *others = group
    options = CertificateOptions(
        **first.options,
        raiseMinimumTo=MINIMUM_VERSIONS[policy.minimum_version],
        # Twisted has them off by default. A relay that delivers again and again then saves a handshake's signature;
        # tickets are kept by the client, so they cost no memory here. Twisted sets a session id context, without which
        # OpenSSL fails every resumption where clients' certificates are verified.
        enableSessionTickets=True,
        trustRoot=trust_root(authorities) if authorities else None,
    )
    # Where there is a trust root, Twisted would have it required.
    options.requireCertificate = policy.require_client_certificate
    context = options.getContext()
    for authority in authorities:
        # Told to the client, so that one with several certificates knows which to show.
        context.add_client_ca(authority.to_cryptography())
    # pyOpenSSL knows one chain for all certificates of a context. A link too many does no harm (RFC 8446 section
    # 4.4.2), and where one authority has issued them it is mostly the same.
    chain = list(first.options["extraCertChain"])
    for other in others:
        context.use_certificate(other.options["certificate"])
        context.use_privatekey(other.options["privateKey"])
        for link in other.options["extraCertChain"]:
            if link not in chain:
                chain.append(link)
                context.add_extra_chain_cert(link)
    return options
