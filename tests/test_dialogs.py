"""Every golden dialog in tests/dialogs, cut in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.dialogs import player
from tests.dialogs.player import Dialog

DIALOGS = [player.load(path) for path in sorted(player.FOLDER.glob("*.smtp"))]
CUTS = [player.whole, player.octets, player.turns]

CASES = [
    pytest.param(dialog, cut, id=f"{dialog.name}-{cut.__name__}")
    for dialog in DIALOGS
    for cut in CUTS
    # Octets behind STARTTLS that come later are the TLS layer's to refuse.
    if not (dialog.whole_only and cut is player.octets)
]


@pytest.mark.parametrize(("dialog", "cut"), CASES)
def test_dialog(dialog: Dialog, cut: Callable[[Dialog], Iterator[bytes]]) -> None:
    outcome = player.play(dialog, cut(dialog))
    assert outcome.received.decode("latin-1").splitlines() == dialog.expected.decode("latin-1").splitlines()
    assert outcome.received == dialog.expected
    assert outcome.closed is dialog.closes
    assert outcome.messages == dialog.messages
    if dialog.events:
        assert outcome.events == dialog.events
