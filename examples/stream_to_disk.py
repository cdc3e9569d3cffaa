"""
A body of any size, streamed into a file: a slow disk slows the client down, and memory stays flat.

From the checkout::

    twistd -n smtpfw --python-path . --backend examples.stream_to_disk:to_folder:messages
"""

import os
from pathlib import Path
from typing import BinaryIO

from twisted.internet.threads import deferToThread

from smtpfw import Session, SessionBackend
from smtpfw.interfaces import IBody, IConnection


class ToFolder(Session):
    def __init__(self, folder: Path, connection: IConnection) -> None:
        super().__init__(connection)
        self.folder = folder

    async def data(self, body: IBody) -> str:
        name = self.connection.transaction.id
        partial = self.folder / f"{name}.partial"
        try:
            with partial.open("xb") as file:
                async for chunk in body:
                    # While this waits, nobody reads the body; so the client is paused.
                    await deferToThread(file.write, chunk)
                # Only the end of the loop says that the message is whole.
                await deferToThread(self._commit, file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return f"stored as {name}"

    def _commit(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).rename(Path(file.name).with_suffix(".eml"))


def to_folder(folder: str) -> SessionBackend:
    Path(folder).mkdir(exist_ok=True)
    return SessionBackend(lambda connection: ToFolder(Path(folder), connection))
