"""The script that stops the server under load: a short run of it, and that its check can fail."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.durability import sigterm
from tests.durability.load import Outcome, make_message

CONNECTIONS = 16


@pytest.mark.parametrize("twice", [False, True])
def test_everybody_gets_an_answer_that_is_true(tmp_path: Path, twice: bool) -> None:
    backend = f"maildir:{tmp_path}/{{user}}:create=yes"
    result = sigterm.stop_once(backend, 1, random.Random(), CONNECTIONS, twice=twice)
    assert result.ends
    assert sigterm.judge(result, tmp_path, twice) == []
    # What the slowest client needs for one message, and two seconds for those that do not close their side.
    assert result.seconds < 5


def test_the_check_sees_what_is_wrong_with_the_files(tmp_path: Path) -> None:
    rng = random.Random(1)
    new, tmp = (tmp_path / "ann" / name for name in ("new", "tmp"))
    for folder in (new, tmp):
        folder.mkdir(parents=True)
    for name, token in (("1", "right"), ("2", "twice"), ("3", "twice"), ("4", "unasked")):
        (new / name).write_bytes(b"Return-Path: <>\r\n" + make_message(token, 1000, rng))
    (new / "5").write_bytes(make_message("partial", 1000, rng)[:-1])
    (tmp / "6").touch()
    result = sigterm.Round(1.0, Outcome(acknowledged={"right": 1, "twice": 1, "lost": 1}), status=0)
    assert sigterm.judge(result, tmp_path, False) == [
        "twice was acknowledged for 1, and is there 2 times",
        "lost was acknowledged for 1, and is there 0 times",
        "unasked was not acknowledged, and is there 1 times",
        "left in tmp: 6",
        "not whole: 5",
    ]


def test_the_check_sees_how_connections_and_the_process_ended() -> None:
    result = sigterm.Round(1.0, status=1, seconds=60.0, log="Traceback (most recent call last):")
    result.ends["421"] = result.ends["221"] = 5
    result.ends["cut (pipelined)"] = 2
    faults = sigterm.judge(result, None, False)
    assert [fault[:9] for fault in faults] == ["status 1", "the log h", "it took 6", "2 connect"]
    assert len(sigterm.judge(result, None, True)) == 3
