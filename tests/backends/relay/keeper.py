"""A backend for processes: honours everything, and says in its answer to the message what it was told."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from smtpfw import Session
from smtpfw.backends.relay.promises import PROMISES
from smtpfw.interfaces import IBackend, IBody, IConnection
from smtpfw.wire.parameters import Options

__all__ = ["Keeper"]


@implementer(IBackend)
class Keeper:
    honours = frozenset(PROMISES)

    def new_session(self, connection: IConnection) -> Any:
        return KeeperSession(connection)


class KeeperSession(Session):
    async def data(self, body: IBody) -> str:
        await body.read()
        transaction = self.connection.transaction
        assert transaction is not None
        given: list[Options] = [transaction.options, *(recipient.options for recipient in transaction.recipients)]
        return " ".join(f"{keyword}={value}" for options in given for keyword, value in options.items())
