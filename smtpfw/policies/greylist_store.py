"""
What a greylist remembers: who waits, who has come back, and which networks have proved themselves; in one SQLite file.

Rule 1: each question is one transaction, so that several processes and the
configurations before and after a reload can share the file.

Rule 2: both tables are bounded, and so is what one network has among those that
wait. Of these the oldest go first, so that a flood of new ones throws out
nobody who has come back; those go only when nobody waits.

Rule 3: times are those of the wall, in seconds, for they are read after a
restart. When the clock was set back, what lies in the future began now.

Every method may block; see :mod:`smtpfw.policies.worker_thread`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

__all__ = ["MEMORY", "UNKNOWN_NETWORK", "GreylistRules", "GreylistStore", "StoreError"]

#: In the place of a path: in memory, until it is closed.
MEMORY = ":memory:"

#: In the place of a network: clients whose address nobody knows. They have nothing in common that could be trusted.
UNKNOWN_NETWORK = "unknown"

#: Seconds to wait for another process that holds the file; one of ours holds it for a millisecond.
LOCK_TIMEOUT = 2.0

#: "smgl", so that no other program's database is taken for ours, and the version of the tables.
APPLICATION_ID = 0x736D676C
VERSION = 1

_TABLES = (
    # passed: 1 once it has come back in time. since: when it was first seen while it waits, and last seen once it has
    # passed.
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, network TEXT NOT NULL, sender TEXT NOT NULL, "
    "recipient TEXT NOT NULL, passed INTEGER NOT NULL, since REAL NOT NULL, UNIQUE (network, sender, recipient))",
    "CREATE INDEX entries_by_age ON entries (passed, since)",
    "CREATE INDEX entries_of_network ON entries (network, passed, since)",
    "CREATE TABLE networks (network TEXT PRIMARY KEY, passes INTEGER NOT NULL, counted REAL NOT NULL, "
    "seen REAL NOT NULL)",
    "CREATE INDEX networks_by_age ON networks (seen)",
    # Counting the rows would read all of them.
    "CREATE TABLE sizes (entries INTEGER NOT NULL, networks INTEGER NOT NULL)",
    "INSERT INTO sizes VALUES (0, 0)",
    "CREATE TRIGGER entry_in AFTER INSERT ON entries BEGIN UPDATE sizes SET entries = entries + 1; END",
    "CREATE TRIGGER entry_out AFTER DELETE ON entries BEGIN UPDATE sizes SET entries = entries - 1; END",
    "CREATE TRIGGER network_in AFTER INSERT ON networks BEGIN UPDATE sizes SET networks = networks + 1; END",
    "CREATE TRIGGER network_out AFTER DELETE ON networks BEGIN UPDATE sizes SET networks = networks - 1; END",
)

#: One in so many of all entries, or :data:`LEAST_OF_NETWORK`, is the most that a network has among those that wait: a
#: hundred networks have to come together to throw out what others wait for.
SHARE_OF_NETWORK = 100
LEAST_OF_NETWORK = 100

#: Rows that have had their time, or are too many, and go with one that comes: two, so that it never gets more.
_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class GreylistRules:
    """
    :ivar delay: seconds until who comes back passes.
    :ivar window: seconds until who has not come back begins anew.
    :ivar keep: seconds until who has passed, and is not seen, begins anew.
    :ivar trust_after: how often a network must have passed until it passes with everything; 0 for never.
    :ivar max_entries: rows of each table.
    """

    delay: float
    window: float
    keep: float
    trust_after: int
    max_entries: int


class StoreError(Exception):
    """The file can't be used; the text says why."""


class GreylistStore:
    """
    :param path: of the file, or :data:`MEMORY`. It is opened when it is needed, and again after an error.
    :param rules: by which it answers.
    """

    def __init__(self, path: str, rules: GreylistRules) -> None:
        # Python can be built without it, and only who has a greylist needs it.
        import sqlite3

        self._sqlite3 = sqlite3
        self.path = path
        self._rules = rules
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def ask(self, network: str, sender: str, recipient: str, now: float) -> float:
        """
        Somebody wants to send: remember that, and say whether it may.

        :return: seconds that it has to wait; 0 if it may.
        :raises StoreError: if nobody knows.
        """
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                return self._ask(connection, network, (network, sender, recipient), now)
        except (self._sqlite3.Error, OSError) as error:
            self.close()
            raise StoreError(getattr(error, "strerror", None) or str(error)) from error

    def close(self) -> None:
        """Let go of the file; what is in memory is forgotten."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # A disk that is broken is told of when somebody asks.
            with suppress(self._sqlite3.Error):
                connection.close()

    # -- the file ---------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self.path != MEMORY and _inode(self.path) != self._inode:
            # It was moved away. Whoever opens it next, another worker or a restart, finds a new one.
            self.close()
        if self._connection is None:
            if self.path != MEMORY:
                # Who writes to whom is nobody else's business; SQLite's other files take the mode of this one.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = self._sqlite3.connect(self.path, timeout=LOCK_TIMEOUT, isolation_level=None)
            try:
                self._prepare(connection)
                self._inode = _inode(self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Workers open a new file at the same time: one of them makes the tables, the others wait and find them.
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            kind = _number(connection, "PRAGMA application_id")
            version = _number(connection, "PRAGMA user_version")
            if not (kind or version or _number(connection, "SELECT count(*) FROM sqlite_master")):
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            elif kind != APPLICATION_ID:
                raise self._sqlite3.DatabaseError("it is the database of another program")
            elif version != VERSION:
                raise self._sqlite3.DatabaseError(f"it has the version {version}; this one knows {VERSION} only")
        if self.path != MEMORY:
            # Behind a crash of the machine the last seconds may be missing, and nothing is broken.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

    # -- the rules --------------------------------------------------------

    def _ask(self, connection: sqlite3.Connection, network: str, key: tuple[str, str, str], now: float) -> float:
        if self._is_trusted(connection, network, now):
            return 0
        rules = self._rules
        row = connection.execute(
            "SELECT id, passed, since FROM entries WHERE network = ? AND sender = ? AND recipient = ?", key
        ).fetchone()
        if row is None:
            inserted = connection.execute(
                "INSERT INTO entries (network, sender, recipient, passed, since) VALUES (?, ?, ?, 0, ?)", (*key, now)
            )
            self._forget_of_network(connection, network)
            self._forget_entries(connection, now, inserted.lastrowid or 0)
            return rules.delay
        number, passed, since = row
        age = now - since
        if passed:
            passes = age <= rules.keep
        else:
            if 0 <= age < rules.delay:
                return float(rules.delay - age)
            passes = 0 <= age <= rules.window
            if passes:
                self._count_pass(connection, network, now)
        connection.execute("UPDATE entries SET passed = ?, since = ? WHERE id = ?", (int(passes), now, number))
        return 0 if passes else rules.delay

    def _is_trusted(self, connection: sqlite3.Connection, network: str, now: float) -> bool:
        if not self._rules.trust_after or network == UNKNOWN_NETWORK:
            return False
        row = connection.execute("SELECT passes, seen FROM networks WHERE network = ?", (network,)).fetchone()
        if row is None or row[0] < self._rules.trust_after or now - row[1] > self._rules.keep:
            return False
        connection.execute("UPDATE networks SET seen = ? WHERE network = ?", (now, network))
        return True

    def _count_pass(self, connection: sqlite3.Connection, network: str, now: float) -> None:
        row = connection.execute("SELECT passes, counted, seen FROM networks WHERE network = ?", (network,)).fetchone()
        passes, counted, seen = row or (0, None, now)
        if now - seen > self._rules.keep:
            passes, counted = 0, None
        if counted is None or not 0 <= now - counted < self._rules.delay:
            # A message to a hundred recipients that comes back proves no more than one to one of them.
            passes, counted = passes + 1, now
        connection.execute(
            "INSERT INTO networks VALUES (?, ?, ?, ?) ON CONFLICT (network) DO UPDATE "
            "SET passes = excluded.passes, counted = excluded.counted, seen = excluded.seen",
            (network, passes, counted, now),
        )
        if row is None:
            self._forget_networks(connection, now)

    def _forget_entries(self, connection: sqlite3.Connection, now: float, new: int) -> None:
        rules = self._rules
        for passed, time in ((0, rules.window), (1, rules.keep)):
            connection.execute(
                "DELETE FROM entries WHERE id IN "
                "(SELECT id FROM entries WHERE passed = ? AND since < ? ORDER BY since LIMIT ?)",
                (passed, now - time, _AT_A_TIME),
            )
        if _number(connection, "SELECT entries FROM sizes") > rules.max_entries:
            # Not the new one, or nobody new would ever come in where all the others have passed.
            connection.execute(
                "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE id <> ? ORDER BY passed, since LIMIT ?)",
                (new, _AT_A_TIME),
            )

    def _forget_of_network(self, connection: sqlite3.Connection, network: str) -> None:
        most = max(self._rules.max_entries // SHARE_OF_NETWORK, LEAST_OF_NETWORK)
        connection.execute(
            "DELETE FROM entries WHERE id IN "
            "(SELECT id FROM entries WHERE network = ? AND passed = 0 ORDER BY since DESC, id DESC LIMIT 2 OFFSET ?)",
            (network, most),
        )

    def _forget_networks(self, connection: sqlite3.Connection, now: float) -> None:
        too_many = _number(connection, "SELECT networks FROM sizes") > self._rules.max_entries
        connection.execute(
            "DELETE FROM networks WHERE network IN (SELECT network FROM networks WHERE seen < ? ORDER BY seen LIMIT ?)",
            (now if too_many else now - self._rules.keep, _AT_A_TIME),
        )


def _number(connection: sqlite3.Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])


def _inode(path: str) -> int:
    if path == MEMORY:
        return 0
    try:
        return Path(path).stat().st_ino
    except FileNotFoundError:
        return 0
