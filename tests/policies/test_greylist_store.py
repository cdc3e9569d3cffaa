"""What a greylist remembers: times, bounds, and files that are none."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from smtpfw.policies import greylist_store
from smtpfw.policies.greylist_store import (
    LEAST_OF_NETWORK,
    MEMORY,
    UNKNOWN_NETWORK,
    GreylistRules,
    GreylistStore,
    StoreError,
)

DELAY, WINDOW, KEEP = 300.0, 1000.0, 5000.0
START = 1_800_000_000.0
NET = "192.0.2.0/24"


def make(path: Path | str = MEMORY, *, trust_after: int = 0, max_entries: int = 1000) -> GreylistStore:
    return GreylistStore(str(path), GreylistRules(DELAY, WINDOW, KEEP, trust_after, max_entries))


def ask(store: GreylistStore, after: float, recipient: str = "c@d.test", network: str = NET) -> float:
    return store.ask(network, "a@b.test", recipient, START + after)


def rows(store: GreylistStore, table: str) -> list[Any]:
    with closing(sqlite3.connect(store.path)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()


def prove(store: GreylistStore, after: float, recipient: str, network: str = NET) -> None:
    """Be seen, come back, and pass."""
    assert ask(store, after, recipient, network) == DELAY
    assert ask(store, after + DELAY, recipient, network) == 0


def test_too_early_then_in_time() -> None:
    store = make()
    assert ask(store, 0) == DELAY
    assert ask(store, 100) == 200
    assert ask(store, 299.5) == 0.5
    assert ask(store, DELAY) == 0
    assert ask(store, DELAY + 1) == 0


def test_too_late() -> None:
    store = make()
    ask(store, 0)
    assert ask(store, WINDOW + 1) == DELAY
    assert ask(store, WINDOW + 1 + DELAY) == 0


def test_the_last_moment() -> None:
    store = make()
    ask(store, 0)
    assert ask(store, WINDOW) == 0


def test_who_passed_passes_while_it_is_seen() -> None:
    store = make()
    prove(store, 0, "c@d.test")
    now = DELAY
    for _ in range(5):
        now += KEEP
        assert ask(store, now) == 0
    assert ask(store, now + KEEP + 1) == DELAY


@pytest.mark.parametrize("other", [("198.51.100.0/24", "a", "c"), (NET, "x", "c"), (NET, "a", "x"), (NET, "", "c")])
def test_an_entry_is_all_three(other: tuple[str, str, str]) -> None:
    store = make()
    store.ask(NET, "a", "c", START)
    assert store.ask(NET, "a", "c", START + DELAY) == 0
    assert store.ask(*other, START + DELAY) == DELAY


def test_clients_whose_address_nobody_knows_prove_nothing_for_each_other() -> None:
    store = make(trust_after=1)
    prove(store, 0, "c@d.test", UNKNOWN_NETWORK)
    assert ask(store, DELAY, "c@d.test", UNKNOWN_NETWORK) == 0
    assert ask(store, DELAY, "new@d.test", UNKNOWN_NETWORK) == DELAY


def test_a_network_that_is_trusted() -> None:
    store = make(trust_after=2)
    prove(store, 0, "1@d.test")
    prove(store, 1000, "2@d.test")
    assert ask(store, 2000, "3@d.test") == 0
    assert ask(store, 2000, "3@d.test", "198.51.100.0/24") == DELAY
    # As long as it is seen.
    assert ask(store, 2000 + KEEP, "4@d.test") == 0
    assert ask(store, 2001 + 2 * KEEP, "5@d.test") == DELAY
    # And then it begins with nothing.
    assert ask(store, 2001 + 2 * KEEP + DELAY, "5@d.test") == 0
    assert ask(store, 2002 + 2 * KEEP + 2 * DELAY, "6@d.test") == DELAY


def test_many_recipients_at_once_prove_no_more_than_one() -> None:
    store = make(trust_after=3)
    for after in (0, DELAY):
        for number in range(9):
            ask(store, after, f"{number}@d.test")
    assert ask(store, DELAY, "new@d.test") == DELAY


def test_nobody_is_trusted() -> None:
    store = make(trust_after=0)
    for number in range(20):
        prove(store, number * DELAY * 2, f"{number}@d.test")
    assert ask(store, 50_000, "new@d.test") == DELAY


def test_a_clock_that_was_set_back() -> None:
    store = make(trust_after=1)
    ask(store, 0)
    assert ask(store, -90_000) == DELAY
    assert ask(store, -90_000 + DELAY) == 0
    assert ask(store, -95_000) == 0
    assert ask(store, -95_000, "new@d.test") == 0


def test_a_flood_throws_out_those_that_wait(tmp_path: Path) -> None:
    store = make(tmp_path / "grey.db", max_entries=10)
    for number in range(5):
        prove(store, number, f"proved{number}@d.test", f"net{number}")
    for number in range(100):
        ask(store, 400 + number, f"flood{number}@d.test")
        assert len(rows(store, "entries")) <= 10
        assert rows(store, "sizes") == [(len(rows(store, "entries")), len(rows(store, "networks")))]
    for number in range(5):
        assert ask(store, 600, f"proved{number}@d.test", f"net{number}") == 0
    assert ask(store, 600, "flood99@d.test") < DELAY
    assert ask(store, 600, "flood0@d.test") == DELAY


def test_when_all_have_proved_themselves_a_new_one_comes_in_all_the_same(tmp_path: Path) -> None:
    store = make(tmp_path / "grey.db", max_entries=4)
    for number in range(4):
        prove(store, number, f"{number}@d.test")
    prove(store, 400, "new@d.test")
    assert len(rows(store, "entries")) <= 4
    assert ask(store, 800, "3@d.test") == 0


def test_networks_are_bounded_too(tmp_path: Path) -> None:
    store = make(tmp_path / "grey.db", max_entries=4, trust_after=1)
    for number in range(20):
        prove(store, number * 10, "c@d.test", f"net{number}")
        assert len(rows(store, "networks")) <= 4
    assert [row[0] for row in rows(store, "networks")][-1] == "net19"


def test_what_has_had_its_time_goes(tmp_path: Path) -> None:
    store = make(tmp_path / "grey.db")
    for number in range(5):
        prove(store, number, f"proved{number}@d.test", f"net{number}")
        ask(store, number, f"waits{number}@d.test")
    for number in range(5):
        ask(store, 2 * KEEP + number, f"new{number}@d.test")
    assert len(rows(store, "entries")) == 5
    prove(store, 2 * KEEP, "c@d.test", "x")
    prove(store, 2 * KEEP, "c@d.test", "y")
    prove(store, 2 * KEEP, "c@d.test", "z")
    assert [row[0] for row in rows(store, "networks")] == ["x", "y", "z"]


def test_a_restart_and_two_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "grey.db"
    first, second = make(path), make(path)
    assert ask(first, 0) == DELAY
    assert ask(second, 100) == DELAY - 100
    first.close()
    second.close()
    third = make(path)
    assert ask(third, DELAY) == 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "grey.db"
    store = make(path)
    ask(store, 0)
    path.rename(tmp_path / "old.db")
    assert ask(store, DELAY) == DELAY
    assert path.exists()


def _no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 100)


def _corrupt(path: Path) -> None:
    store = make(path)
    ask(store, 0)
    store.close()
    octets = path.read_bytes()
    path.write_bytes(octets[:4096] + b"\xff" * (len(octets) - 4096))


def _of_another(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()


def _of_tomorrow(path: Path) -> None:
    store = make(path)
    ask(store, 0)
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_no_database, "file is not a database"),
        (_corrupt, "malformed"),
        (_of_another, "it is the database of another program"),
        (_of_tomorrow, "it has the version 2; this one knows 1 only"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_files_that_are_none(tmp_path: Path, spoil: Any, words: str) -> None:
    path = tmp_path / "grey.db"
    spoil(path)
    store = make(path)
    for _ in range(2):
        with pytest.raises(StoreError, match=words):
            ask(store, 1)
    # It is looked for again each time.
    path.rename(tmp_path / "away")
    for suffix in ("-wal", "-shm"):
        path.with_name(f"grey.db{suffix}").unlink(missing_ok=True)
    assert ask(store, 2) == DELAY


def test_a_file_that_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greylist_store, "LOCK_TIMEOUT", 0.0)
    path = tmp_path / "grey.db"
    store = make(path)
    ask(store, 0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        ask(store, 1)
    other.close()
    assert ask(store, 2) == DELAY - 2


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        ask(make(tmp_path / "gone" / "grey.db"), 0)


def test_a_network_throws_out_its_own(tmp_path: Path) -> None:
    """Others still come back in time, however many recipients one network tries."""
    store = make(tmp_path / "grey.db", max_entries=LEAST_OF_NETWORK + 5)
    ask(store, 0, "victim@d.test", "198.51.100.0/24")
    for number in range(LEAST_OF_NETWORK + 50):
        ask(store, 1, f"{number}@d.test")
    assert len(rows(store, "entries")) == LEAST_OF_NETWORK + 1
    assert ask(store, DELAY, "victim@d.test", "198.51.100.0/24") == 0
    # Of its own the last ones are there.
    assert ask(store, 1 + DELAY, f"{LEAST_OF_NETWORK + 49}@d.test") == 0
    assert ask(store, 1 + DELAY, "0@d.test") == DELAY
