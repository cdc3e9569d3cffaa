"""Reads and plays the golden dialogs of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.errors import MailboxUnavailable, RelayDenied, SMTPError, TryAgainLater
from smtpfw.extensions import STANDARD, StartTLS
from smtpfw.testing import MemoryClient, RecordingBackend
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.profiles import PROFILES
from smtpfw.wire.replies import Reply

FOLDER = Path(__file__).parent


@dataclass
class Dialog:
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    whole_only: bool = False
    starttls: bool = False
    #: ("C", octets) and ("S", octets) in order; neighbours of one kind are joined.
    turns: list[tuple[str, bytes]] = field(default_factory=list)
    closes: bool = False
    messages: list[bytes] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        return b"".join(octets for kind, octets in self.turns if kind == "C")

    @property
    def expected(self) -> bytes:
        return b"".join(octets for kind, octets in self.turns if kind == "S")


def load(path: Path) -> Dialog:
    dialog = Dialog(path.stem)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        kind, text = line[:2], line[3:]
        if kind in ("C:", "S:"):
            _turn(dialog, kind[0], text.encode() + b"\r\n")
        elif kind == "C|":
            _turn(dialog, "C", _unescape(text))
        elif kind == "M|":
            dialog.messages.append(_unescape(text))
        elif kind == "E:":
            name, _, reason = text.partition(" ")
            dialog.events.append((name, reason))
        elif line == "X":
            dialog.closes = True
        elif kind[0] == "!":
            _setting(dialog, line[1:].split())
        else:
            raise ValueError(f"{path}:{number}: {line!r}")
    return dialog


def _turn(dialog: Dialog, kind: str, octets: bytes) -> None:
    if dialog.turns and dialog.turns[-1][0] == kind:
        octets = dialog.turns.pop()[1] + octets
    dialog.turns.append((kind, octets))


def _unescape(text: str) -> bytes:
    """Python escapes; octets over 127 are written as UTF-8 or as ``\\xNN``."""
    return text.encode().decode("unicode_escape").encode("latin-1")


def _setting(dialog: Dialog, words: list[str]) -> None:
    if words == ["whole"]:
        dialog.whole_only = True
    elif words == ["starttls"]:
        dialog.starttls = True
    elif words[0] == "profile":
        dialog.settings["profile"] = PROFILES[words[1]]
    elif words[0] == "require_tls":
        dialog.settings["require_tls"] = True
    else:
        dialog.settings[words[0]] = int(words[1])


# -- a backend with opinions ------------------------------------------------


def _mail(sender: Address, options: Options) -> Any:
    return _by_local_part(sender)


def _rcpt(recipient: Address, options: Options) -> Any:
    return _by_local_part(recipient)


def _by_local_part(address: Address) -> Any:
    match address.local_part:
        case "unknown":
            raise MailboxUnavailable()
        case "denied":
            raise RelayDenied()
        case "later":
            raise TryAgainLater()
        case "broken":
            raise RuntimeError("a secret that must not be seen")
        case "lines":
            raise SMTPError(550, (5, 7, 1), "one\r\ntwo\nthree\x00\x07")
        case "queued":
            return "queued as 42"
        case "reply":
            return Reply(250, "fine", (2, 1, 0))
    return None


def _hello(name: str, extended: bool) -> Any:
    if name == "refused.example":
        raise SMTPError(550, (5, 7, 1), "Not you")


def _verify(text: str) -> Any:
    if text == "postmaster":
        return "<postmaster@mx.example.org>"
    if text == "unknown":
        raise MailboxUnavailable()
    if text == "jones":
        raise SMTPError(553, (5, 1, 4), "Ambiguous")
    return None


@dataclass
class Outcome:
    received: bytes
    closed: bool
    messages: list[bytes]
    events: list[tuple[str, str]]


def play(dialog: Dialog, pieces: Iterator[bytes], half_close: bool = False) -> Outcome:
    """Send the pieces to a new server."""
    backend = RecordingBackend(mail=_mail, rcpt=_rcpt, hello=_hello, verify=_verify)
    config = ServerConfig(hostname="mx.example.org", **dialog.settings)
    extensions = [*STANDARD, StartTLS()] if dialog.starttls else STANDARD
    client = MemoryClient.of(SMTPServerFactory(backend, config, extensions=extensions, reactor=Clock()))
    received = client.received()
    for piece in pieces:
        received += client.send(piece)
    outcome = Outcome(
        received,
        client.closed,
        [message.body for message in backend.messages],
        [event for event in backend.events if event[0] in ("reset", "logout")],
    )
    client.disconnect()
    return outcome


def whole(dialog: Dialog) -> Iterator[bytes]:
    yield dialog.sent


def octets(dialog: Dialog) -> Iterator[bytes]:
    for octet in dialog.sent:
        yield bytes([octet])


def turns(dialog: Dialog) -> Iterator[bytes]:
    for kind, octets in dialog.turns:
        if kind == "C":
            yield octets
