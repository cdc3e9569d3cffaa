"""What holds for all tests of this folder: nothing is in the log, and what SCRAM draws by chance is always the same."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from smtpfw.sasl import scram
from tests.client.misbehaving.ways import NONCE


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """A collection for each test is quick if it looks at the objects of that test only."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_in_the_log() -> Iterator[None]:
    """No traceback, and no Deferred that failed and that nobody could hear of."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None:
            found.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert found == []


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said can be compared, octet by octet."""
    monkeypatch.setattr(scram, "_make_nonce", lambda: NONCE)
