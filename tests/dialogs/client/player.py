"""
Reads and plays the golden dialogs of this folder: a client against a peer that a postmaster can read.

::

    ! lmtp                          LMTP; ``! chunk_bytes 5`` and the like set the client's settings
    > send a@b.test c@d.test,e@d.test hello\\r\\n
    > stream a@b.test c@d.test      the same, with a body that nobody has seen; then
    > piece hello                   some of it, ``> end`` its end, ``> fail`` an error in its source
    > mail a@b.test    > rcpt c@d.test    > data hello    > reset    > noop    > quit    > cancel 1    > lose
    S: 250 OK                       what the peer says; lines that stand together come together
    C: MAIL FROM:<a@b.test>         what the client says to that; lines that stand together are one write
    C| hello\\r\\n                    octets of a message
    = 1 c@d.test accepted           what came of the first thing that was asked
    X                               the client has closed the connection because of an error
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.wire.client_end import ClientEnd, Text, Told, shown

FOLDER = Path(__file__).parent


@dataclass
class Dialog:
    """
    :ivar turns: what makes the client say something, as words or octets; and what it says.
    :ivar outcomes: what came of what was asked, by its number.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    turns: list[tuple[list[str] | bytes, bytes]] = field(default_factory=list)
    outcomes: dict[int, list[str]] = field(default_factory=dict)
    fails: bool = False


def load(path: Path) -> Dialog:
    dialog = Dialog(path.stem)
    turns = dialog.turns
    for number, line in enumerate(path.read_text().splitlines(), 1):
        kind, argument = line[:2], line[3:]
        if not line or line.startswith("#"):
            continue
        if kind == "S:":
            said = argument.encode() + b"\r\n"
            before = turns[-1] if turns else (b"", b"")
            if turns and isinstance(before[0], bytes) and not before[1]:
                turns[-1] = (before[0] + said, b"")
            else:
                turns.append((said, b""))
        elif kind in ("C:", "C|"):
            octets = argument.encode() + b"\r\n" if kind == "C:" else _unescape(argument)
            turns[-1] = (turns[-1][0], turns[-1][1] + octets)
        elif line[0] == ">":
            turns.append((line[2:].split(" ", 3), b""))
        elif line[0] == "=":
            which, _, outcome = line[2:].partition(" ")
            dialog.outcomes.setdefault(int(which), []).append(outcome)
        elif line[0] == "!":
            name, *value = line[2:].split()
            dialog.settings[name] = int(value[0]) if value else True
        elif line == "X":
            dialog.fails = True
        else:
            raise ValueError(f"{path}:{number}: {line!r}")
    return dialog


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def play(dialog: Dialog, cut: Callable[[bytes], list[bytes]]) -> None:
    """
    Play it, and see to it that all is as it says.

    :param cut: makes pieces of what the peer says.
    """
    end = ClientEnd(None, **dialog.settings)
    asked: list[Told] = []
    for trigger, expected in dialog.turns:
        if isinstance(trigger, bytes):
            said = end.hear(*cut(trigger))
        else:
            _do(end, asked, *trigger)
            said = end.said()
        assert said == ([expected] if expected else []), (trigger, said, expected)
    outcomes = {number: shown(told.outcome) for number, told in enumerate(asked, 1) if not told.silent}
    assert outcomes == dialog.outcomes, outcomes
    assert [error is not None for error in end.ends] == ([True] if dialog.fails else []), end.ends


def _do(end: ClientEnd, asked: list[Told], what: str, *words: str) -> None:
    if what in ("send", "stream"):
        sender, recipients, *body = words
        content = _unescape(body[0]) if body else b""
        asked.append(
            end.send(
                *recipients.split(","),
                sender="" if sender == "<>" else sender,
                body=content if what == "send" else Text(None),
            )
        )
    elif what == "piece":
        end.write(end.bodies[-1], _unescape(" ".join(words)))
    elif what == "end":
        end.write(end.bodies[-1], end=True)
    elif what == "fail":
        end.bodies[-1].abandon(RuntimeError("the source has failed"))
        end.flush()
    elif what == "cancel":
        end.cancel(asked[int(words[0]) - 1])
    elif what == "lose":
        end.lose()
    elif what in ("noop", "quit"):
        asked.append(end.command(what.upper().encode()))
    elif what == "data":
        asked.append(end.data(_unescape(" ".join(words))))
    else:
        asked.append({"mail": end.mail, "rcpt": end.rcpt, "reset": end.reset}[what](*words))
