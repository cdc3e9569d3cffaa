"""What every test of this folder leaves behind: nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.relay.helpers import Sender


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    """Clients that a test has left go away, so that no message is under way when the collector comes."""
    yield
    senders, Sender.all = Sender.all, []
    for sender in senders:
        sender.client.disconnect()
        sender.hops.end()
