"""
A plain function as a backend: each message becomes a row in SQLite, on the disk before the client reads 250.

From the checkout::

    twistd -n smtpfw --python-path . --backend handler:examples.handler_sqlite:store
"""

import sqlite3
from contextlib import closing

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from smtpfw.backends.handler import Envelope


def store(envelope: Envelope, body: bytes) -> Deferred[str]:
    # SQLite waits for its disk, so not in the reactor's thread. The message is there, so nothing cancels this any more.
    return deferToThread(insert, envelope, body)


def insert(envelope: Envelope, body: bytes) -> str:
    recipients = " ".join(map(str, envelope.recipients))
    row = str(envelope.sender), recipients, envelope.received_line() + body
    with closing(sqlite3.connect("mail.db")) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS mail (sender, recipients, message)")
        number = database.execute("INSERT INTO mail VALUES (?, ?, ?)", row).lastrowid
    return f"stored as {number}"
