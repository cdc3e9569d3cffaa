"""Greylisting by several processes that share a file, and behind a restart."""

from __future__ import annotations

import re
import smtplib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.running import Twistd

TIMEOUT = 30.0

_WORKER = re.compile(r"worker=(\d).*RCPT.* refused: 450 4\.7\.1 Greylisted, come back in \d+ seconds")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "grey.db"


def serve(file: Path, *options: str) -> Twistd:
    check = f"greylist:file={file}:delay=1h"
    return Twistd("--backend", "discard", "--checks", check, *options, folder=file.parent)


def rcpt(served: Twistd) -> str:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=TIMEOUT) as client:
        client.ehlo()
        client.mail("a@b.test")
        code, text = client.rcpt("c@d.test")
    return f"{code} {text.decode()}"


def let_an_hour_pass(file: Path) -> list[tuple[str, str, str]]:
    """For all that wait; return them."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE entries SET since = since - 3600")
        return connection.execute("SELECT network, sender, recipient FROM entries").fetchall()


def test_two_workers_know_the_same(file: Path) -> None:
    with serve(file, "--workers", "2") as served:
        workers: set[str] = set()
        # The kernel chooses who gets a connection; that it takes the same one two hundred times is once in 10 ** 60.
        for _ in range(200):
            assert rcpt(served).startswith("450 4.7.1 Greylisted, come back in 3")
            workers = set(_WORKER.findall(served.log))
            if len(workers) == 2:
                break
        assert workers == {"1", "2"}
        assert let_an_hour_pass(file) == [("127.0.0.0/24", "a@b.test", "c@d.test")]
        assert {rcpt(served) for _ in range(20)} == {"250 2.1.5 Recipient OK"}
        assert served.stop() == 0
    assert "Traceback" not in served.log


def test_a_restart(file: Path) -> None:
    answers = []
    for _ in range(2):
        with serve(file) as served:
            answers.append(rcpt(served))
            assert served.stop() == 0
        let_an_hour_pass(file)
    assert answers == ["450 4.7.1 Greylisted, come back in 3600 seconds", "250 2.1.5 Recipient OK"]
