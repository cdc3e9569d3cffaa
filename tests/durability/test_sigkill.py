"""The script that kills the server: a short run of it, and that its check can fail."""

from __future__ import annotations

import random
from pathlib import Path

from tests.durability import sigkill
from tests.durability.load import Outcome, make_message


def test_acknowledged_messages_survive_sigkill(tmp_path: Path) -> None:
    rng = random.Random()
    acknowledged = 0
    for number in range(3):
        outcome, _ = sigkill.kill_once(tmp_path, number, rng)
        acknowledged += len(outcome.acknowledged)
        assert sigkill.check(tmp_path, number, outcome) == ([], [])
    assert acknowledged


def test_the_check_sees_what_is_lost_and_what_is_partial(tmp_path: Path) -> None:
    new = tmp_path / "ann" / "new"
    new.mkdir(parents=True)
    rng = random.Random(1)
    (new / "whole").write_bytes(b"Return-Path: <>\r\n" + make_message("1", 1000, rng))
    (new / "partial").write_bytes(make_message("2", 1000, rng)[:-1])
    (new / "empty").write_bytes(b"")
    outcome = Outcome(acknowledged={"1": 1, "2": 1, "3": 1})
    missing, partial = sigkill.check(tmp_path, 0, outcome)
    assert missing == ["2", "3"]
    assert sorted(path.name for path in partial) == ["empty", "partial"]
