"""
The server's side of the tests with proxies, run by ``--backend``: it writes down where each message comes from.

A file for each recipient, named after its local part, is there before the
client has its 250.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from zope.interface import implementer

from smtpfw import Session
from smtpfw.interfaces import IBackend, IBody, IConnection, ILMTPSession, IStatusCollector
from smtpfw.server.origin import name_of
from smtpfw.wire.trace import received_line


class Seen(NamedTuple):
    """
    What a backend knows of the client of a message.

    :ivar peer, local: both ends, as the log shows them.
    :ivar host: the client's address alone.
    :ivar name: that of the client's address.
    :ivar received: the line for the message, unfolded.
    """

    peer: str
    local: str
    proxy: str
    host: str
    name: str
    hello_name: str
    tls: bool
    identity: str
    mechanism: str
    received: str


def seen(folder: Path, mailbox: str) -> Seen:
    """What was written down for a recipient."""
    return Seen(**json.loads((folder / mailbox).read_text()))


@implementer(ILMTPSession)
class OriginSession(Session):
    """Takes everything."""

    def __init__(self, connection: IConnection, folder: Path) -> None:
        super().__init__(connection)
        self._folder = folder

    async def data(self, body: IBody) -> None:
        connection = self.connection
        await body.read()
        what = Seen(
            peer=name_of(connection.peer),
            local=name_of(connection.local),
            proxy="" if connection.proxy is None else name_of(connection.proxy),
            host=connection.peer_host,
            name=await connection.look_up_name(),
            hello_name=connection.hello_name,
            tls=bool(connection.tls),
            identity=connection.identity,
            mechanism=connection.mechanism,
            received=" ".join(received_line(connection).decode().split()),
        )
        assert connection.transaction is not None
        for recipient in connection.transaction.recipients:
            (self._folder / recipient.address.local_part).write_text(json.dumps(what._asdict()))

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> Any:
        await self.data(body)


@implementer(IBackend)
class Origins:
    """
    :param folder: where the files go.
    """

    honours: frozenset[str] = frozenset()

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def new_session(self, connection: IConnection) -> OriginSession:
        """See :meth:`IBackend.new_session`."""
        return OriginSession(connection, self._folder)
