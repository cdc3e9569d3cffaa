"""
Our own server, as operators run it: every mechanism of :mod:`smtpfw.sasl`, client certificates, SMTP and LMTP.

``twistd`` finds the second half of this file by ``--backend`` and ``--auth``: a
checker that knows one user by everything that can be known of a user, and a
backend that stores what comes. Its replies tell who had authenticated, and how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.x509 import Certificate, NameOID
from zope.interface import implementer

from smtpfw import Session
from smtpfw.errors import AuthFailed, InsufficientStorage, MailboxUnavailable
from smtpfw.interfaces import IBackend, IBody, IConnection, ILMTPSession, IStatusCollector
from smtpfw.sasl import IAnonymousChecker, ICertificateChecker, IPasswordChecker, ISecretStore, ITokenChecker
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from tests.interop.servers.common import (
    DOMAIN,
    FULL,
    MAILBOXES,
    PASSWORD,
    USER,
    UTF8_MAILBOXES,
    Peer,
    read_maildir,
    write_certificate,
    write_client_certificates,
)
from tests.running import Twistd

#: What OAuth 2.0 knows the user by.
TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="

_SCRAM = frozenset({"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"})
_MECHANISMS = _SCRAM | {"PLAIN", "LOGIN", "CRAM-MD5"}
_EXTENSIONS = frozenset({"STARTTLS", "PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE"})

_LOOPBACK = "tcp:0:interface=127.0.0.1"


@contextmanager
def smtpfw_server(protocol: str = "smtp", *, unix: bool = False) -> Iterator[Peer]:
    """
    :param protocol: ``smtp`` or ``lmtp``.
    :param unix: it is reached by a Unix socket.
    """
    with tempfile.TemporaryDirectory(prefix="smtpfw-") as name:
        folder = Path(name)
        write_certificate(folder)
        write_client_certificates(folder)
        options = ["--listen", _LOOPBACK, "--listen", f"smtps:{_LOOPBACK}", "--protocol", protocol]
        options += ["--grace", "1s", "--hostname", "smtpfw.example.net", "--tls", f"{folder}/server.pem"]
        options += ["--client-ca", f"{folder}/clients.pem", "--auth", f"{__name__}:checker"]
        options += ["--backend", f"{__name__}:Store:{folder}/mail"]
        if unix:
            options += ["--listen", f"unix:{folder}/lmtp.sock"]
        with Twistd(*options, folder=folder) as server:
            yield Peer(
                name="smtpfw",
                protocol=protocol,
                port=server.ports[0],
                smtps_port=None if unix else server.ports[1],
                socket=folder / "lmtp.sock" if unix else None,
                certificates=folder,
                ca=folder / "ca.pem",
                read=lambda mailbox: read_maildir(folder / "mail" / mailbox),
                mechanisms=_MECHANISMS,
                extensions=_EXTENSIONS,
            )


@implementer(IPasswordChecker, ISecretStore, ITokenChecker, ICertificateChecker, IAnonymousChecker)
class KnowsJoe:
    """Knows one user: the password in clear, the token, and the name in the certificate."""

    def check_password(self, username: str, password: str) -> str:
        return self._joe_if((username, password) == (USER, PASSWORD))

    def get_secret(self, username: str) -> str | None:
        return PASSWORD if username == USER else None

    def check_token(self, username: str, token: str) -> str:
        return self._joe_if(username in ("", USER) and token == TOKEN)

    def check_certificate(self, certificate: Certificate, authorization_identity: str) -> str:
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return self._joe_if(names == [USER] and authorization_identity in ("", USER))

    def check_anonymous(self, trace: str) -> str:
        return "anonymous"

    def _joe_if(self, known: bool) -> str:
        if not known:
            raise AuthFailed
        return USER


checker = KnowsJoe()


@implementer(ILMTPSession)
class StoreSession(Session):
    """Stores each message in a file for each recipient."""

    def __init__(self, connection: IConnection, folder: Path) -> None:
        super().__init__(connection)
        self._folder = folder

    def rcpt(self, recipient: Address, options: Options) -> None:
        names = (*MAILBOXES, *UTF8_MAILBOXES, *FULL)
        if recipient.domain != DOMAIN or recipient.local_part not in names:
            raise MailboxUnavailable

    async def data(self, body: IBody) -> str:
        octets = await body.read()
        assert self.connection.transaction is not None
        for number, recipient in enumerate(self.connection.transaction.recipients):
            self._store(recipient.address, number, octets)
        return self._client()

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> None:
        octets = await body.read()
        assert self.connection.transaction is not None
        for number, recipient in enumerate(self.connection.transaction.recipients):
            outcome: Any = InsufficientStorage(f"{recipient.address.local_part} is full")
            if recipient.address.local_part not in FULL:
                self._store(recipient.address, number, octets)
                outcome = self._client()
            status.set_status(recipient, outcome)

    def _store(self, recipient: Address, number: int, octets: bytes) -> None:
        assert self.connection.transaction is not None
        new = self._folder / recipient.local_part / "new"
        new.mkdir(parents=True, exist_ok=True)
        (new / f"{self.connection.transaction.id}-{number}").write_bytes(octets)

    def _client(self) -> str:
        return f"stored for {self.connection.identity or 'nobody'} by {self.connection.mechanism or 'nothing'}"


@implementer(IBackend)
class Store:
    """
    :param folder: where the mailboxes are.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def new_session(self, connection: IConnection) -> StoreSession:
        """See :meth:`IBackend.new_session`."""
        return StoreSession(connection, self._folder)
