"""A backend."""

from pathlib import Path

from zope.interface import implementer

from acme.words import GENTLY, MOOD, RECEIPT
from smtpfw import Session
from smtpfw.errors import DataTooLarge
from smtpfw.interfaces import IBackend


@implementer(IBackend)
class Spool:
    def __init__(self, folder, max_message=0, greeting="", receipts=False):
        self.folder, self.max_message, self.greeting = Path(folder), max_message, greeting
        self.honours = frozenset({"X-RECEIPT"} if receipts else ())

    def new_session(self, connection):
        return SpoolSession(connection, self)


class SpoolSession(Session):
    def __init__(self, connection, spool):
        super().__init__(connection)
        self.spool = spool

    def mail(self, sender, options):
        self.mood, self.receipt = options[MOOD], options[RECEIPT]

    def rcpt(self, recipient, options):
        self.gently = options[GENTLY]

    async def data(self, body):
        message = await body.read()
        if 0 < self.spool.max_message < len(message):
            raise DataTooLarge
        told = {"Greeting": self.spool.greeting, "Mood": self.mood, "Gently": self.gently, "Receipt": self.receipt}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode()
        number = len(list(self.spool.folder.iterdir()))
        (self.spool.folder / f"{number}.eml").write_bytes(head + message)
        return f"Kept as {number}"
