"""
The server's side of the tests of AUTH, run by ``--auth`` and ``--backend``: who may come in, and a witness of who did.

The witness writes a file for each recipient of a message that it accepts, named
after the recipient's local part, with what it knows of the client. The file is
there before the client has its 250.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.x509 import Certificate, NameOID
from zope.interface import implementer

from smtpfw import Session
from smtpfw.errors import AuthFailed
from smtpfw.interfaces import IBackend, IBody, IConnection
from smtpfw.sasl import ICertificateChecker, IPasswordChecker, ISecretStore, ITokenChecker

#: As most providers have it, the name is an address; the password has what SCRAM, shells and URLs may trip over.
USER, PASSWORD = "tim@example.org", "tan=staaf, 'n\" 100%"
TOKEN = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=="

#: Another's certificate is good as such, and does not allow to act as tim.
STRANGER = "max@example.org"

WRONG_PASSWORD, WRONG_TOKEN = "tan=staaf, 'n\" 99%", "ya29.expired"


@implementer(IPasswordChecker, ISecretStore, ITokenChecker, ICertificateChecker)
class KnowsTim:
    """A checker of everything. It knows one user, his password in clear, his token, and his certificate's name."""

    def check_password(self, username: str, password: str) -> str:
        return self._tim_if((username, password) == (USER, PASSWORD))

    def get_secret(self, username: str) -> str | None:
        return PASSWORD if username == USER else None

    def check_token(self, username: str, token: str) -> str:
        return self._tim_if(username in ("", USER) and token == TOKEN)

    def check_certificate(self, certificate: Certificate, authorization_identity: str) -> str:
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return self._tim_if(names == [USER] and authorization_identity in ("", USER))

    def _tim_if(self, known: bool) -> str:
        if not known:
            raise AuthFailed
        return USER


checker = KnowsTim()


class WitnessSession(Session):
    """Writes down how its client has come."""

    def __init__(self, connection: IConnection, folder: Path) -> None:
        super().__init__(connection)
        self._folder = folder

    def data(self, body: IBody) -> Any:
        connection = self.connection
        seen = {
            "mechanism": connection.mechanism,
            "identity": connection.identity,
            "protocol": connection.protocol,
        }
        assert connection.transaction is not None
        for recipient in connection.transaction.recipients:
            (self._folder / recipient.address.local_part).write_text(json.dumps(seen))
        return f"{connection.identity} by {connection.mechanism}"


@implementer(IBackend)
class Witness:
    """
    :param folder: where the files go.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def new_session(self, connection: IConnection) -> WitnessSession:
        """See :meth:`IBackend.new_session`."""
        return WitnessSession(connection, self._folder)
