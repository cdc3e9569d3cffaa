"""Every golden dialog in tests/dialogs, cut in every way."""

from __future__ import annotations

import re
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
    if dialog.recipients:
        assert outcome.recipients == dialog.recipients
    if dialog.events:
        assert outcome.events == dialog.events


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.name)
def test_half_close(dialog: Dialog) -> None:
    """The client says with its last octet that no more will come: all is answered, then the connection is closed."""
    outcome = player.play(dialog, player.whole(dialog), half_close=True)
    assert outcome.received == dialog.expected
    assert outcome.closed
    assert outcome.messages == dialog.messages


_REPLY = re.compile(r"([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3}( .*)?")
_GREETING_OR_INTERMEDIATE = re.compile(r"220 mx\.example\.org .*|3\d\d .*")
_HELLO = re.compile(r"250-mx\.example\.org\r\n(250-.*\r\n)*250 .*\r\n|250 mx\.example\.org\r\n")


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.name)
def test_enhanced_codes(dialog: Dialog) -> None:
    """On every line of every reply but the greeting, the answer to EHLO and HELO, and 3xx (RFC 2034 section 4)."""
    text = dialog.expected.decode()
    others = [line for line in _HELLO.sub("", text).splitlines() if not _GREETING_OR_INTERMEDIATE.fullmatch(line)]
    assert [line for line in others if not _REPLY.fullmatch(line)] == []
