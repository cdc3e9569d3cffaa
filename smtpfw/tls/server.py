"""
TLS contexts of the server, made from PEM files.

Rule 1: one context serves STARTTLS (``transport.startTLS(context)``) and
implicit TLS (``TLSMemoryBIOFactory(context, False, factory)``) alike.

Rule 2: everything that is wrong with a certificate is found when the context
is made, and told in one line that names the file; not at the first handshake.

Rule 3: a client's certificate counts only if it has been verified. One that
can't be verified ends the handshake, even where none is required.
"""

from __future__ import annotations

from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger

from smtpfw.errors import ConfigError
from smtpfw.tls.pem import checked_context, load_authorities, load_chain, load_key, own_certificate, trust_root

__all__ = ["server_context"]

_log = Logger()


def server_context(
    certificate_path: str,
    key_path: str | None = None,
    *,
    client_ca: str | None = None,
    require_client_certificate: bool = False,
) -> CertificateOptions:
    """
    Make the TLS context of a server: TLS 1.2 or newer, Twisted's default ciphers, session tickets on.

    :param certificate_path: a PEM file: the server's certificate first, then its chain.
    :param key_path: a PEM file with the private key; by default it is looked for in ``certificate_path``.
    :param client_ca: a PEM file with the certificates that clients' are verified with, or a folder of such files; by
        default no client is asked for one. The system's authorities would not do: they vouch for servers' names.
    :param require_client_certificate: let the handshake of a client without one fail.
    :raises ConfigError: when a file is absent, can't be read, holds no certificate or no key that can be used, the key
        belongs to another certificate, or a client's certificate is required and there is nothing to verify it with. A
        certificate that is out of date is only logged: a server that answers with it is better than none.
    """
    chain = load_chain(certificate_path)
    key = load_key(key_path or certificate_path)
    leaf = chain[0]
    authorities = load_authorities(client_ca) if client_ca is not None else []
    if require_client_certificate and not authorities:
        raise ConfigError("a client's certificate is required, and no authority is named to verify it with")
    options = CertificateOptions(
        **own_certificate(chain, key),
        # Twisted has them off by default. A relay that delivers again and again then saves a handshake's signature;
        # tickets are kept by the client, so they cost no memory here. Twisted sets a session id context, without which
        # OpenSSL fails every resumption where clients' certificates are verified.
        enableSessionTickets=True,
        trustRoot=trust_root(authorities) if authorities else None,
    )
    # Where there is a trust root, Twisted would have it required.
    options.requireCertificate = require_client_certificate
    context = checked_context(options, certificate_path, key_path)
    for authority in authorities:
        # Told to the client, so that one with several certificates knows which to show.
        context.add_client_ca(authority.to_cryptography())
    if leaf.has_expired():
        _log.warn("{path}: the certificate has expired; clients that verify will refuse it", path=certificate_path)
    return options
