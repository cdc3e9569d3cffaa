"""Every golden dialog in tests/dialogs/client, with the peer's words whole and cut into octets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.dialogs.client import player
from tests.dialogs.client.player import Dialog

DIALOGS = [player.load(path) for path in sorted(player.FOLDER.glob("*.smtp"))]


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def lines(octets: bytes) -> list[bytes]:
    return octets.splitlines(keepends=True)


def single_octets(octets: bytes) -> list[bytes]:
    return [octets[place : place + 1] for place in range(len(octets))]


@pytest.mark.parametrize("cut", [whole, lines, single_octets])
@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.name)
def test_dialog(dialog: Dialog, cut: Callable[[bytes], list[bytes]]) -> None:
    player.play(dialog, cut)
