"""Reads and plays the golden dialogs of this folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.config.extensions import extension_from_string
from smtpfw.errors import (
    DomainOwnerChanged,
    InsufficientStorage,
    MailboxOwnerChanged,
    MailboxUnavailable,
    OwnerUnknown,
    RelayDenied,
    SMTPError,
    TransactionFailed,
    TryAgainLater,
)
from smtpfw.extensions import STANDARD, FutureRelease, Limits, XClient
from smtpfw.extensions.mt_priority import priority_changed
from smtpfw.interfaces import IBody
from smtpfw.testing import MemoryClient, RecordedMessage, RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.profiles import PROFILES
from smtpfw.wire.replies import Reply
from smtpfw.wire.times import parse_date_time

FOLDER = Path(__file__).parent

#: For STARTTLS; no dialog gets as far as a handshake.
CONTEXT = CertificateOptions()

_REPEATED = re.compile(r"\{([^{}*]+)\*(\d+)\}")


@dataclass
class Dialog:
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    whole_only: bool = False
    extensions: tuple[Extension, ...] = STANDARD
    #: What the backend keeps the promises of.
    honours: frozenset[str] = frozenset()
    #: ("C", octets) and ("S", octets) in order; neighbours of one kind are joined.
    turns: list[tuple[str, bytes]] = field(default_factory=list)
    closes: bool = False
    messages: list[bytes] = field(default_factory=list)
    #: The recipients of each message; empty when the dialog does not name them.
    recipients: list[list[str]] = field(default_factory=list)
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
            _turn(dialog, kind[0], (_repeat(text) if kind == "C:" else text).encode() + b"\r\n")
        elif kind == "C|":
            _turn(dialog, "C", _unescape(text))
        elif kind == "M|":
            dialog.messages.append(_unescape(text))
        elif kind == "M+":
            dialog.messages[-1] += _unescape(text)
        elif kind == "R:":
            dialog.recipients.append(text.split())
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
    return _repeat(text).encode().decode("unicode_escape").encode("latin-1")


def _repeat(text: str) -> str:
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), text)


def _setting(dialog: Dialog, words: list[str]) -> None:
    if words == ["whole"]:
        dialog.whole_only = True
    elif words[0] == "extensions":
        # As the operator writes them: DELIVERBY:min_by_time=60.
        dialog.extensions = tuple(map(extension_from_string, words[1:]))
    elif words[0] == "now":
        now = parse_date_time(words[1])
        release = FutureRelease(now=lambda: now)
        dialog.extensions = tuple(release if isinstance(e, FutureRelease) else e for e in dialog.extensions)
    elif words[0] == "xclient":
        dialog.extensions = (*dialog.extensions, XClient(words[1:]))
    elif words[0] == "honours":
        dialog.honours = frozenset(words[1:])
    elif words[0] == "limits":
        limits = Limits(**{name: int(limit) for name, limit in (word.split("=") for word in words[1:])})
        dialog.extensions = tuple(limits if isinstance(e, Limits) else e for e in dialog.extensions)
    elif words[0] == "profile":
        dialog.settings["profile"] = PROFILES[words[1]]
    elif words[0] == "protocol":
        dialog.settings["protocol"] = words[1]
    elif words[0] == "require_tls":
        dialog.settings["require_tls"] = True
    else:
        dialog.settings[words[0]] = int(words[1])


# -- a backend with opinions: exceptions are raised, all else is the answer, and other names are accepted ----

#: MAIL and RCPT, by the local part.
ADDRESSES: dict[str, Any] = {
    "unknown": MailboxUnavailable(),
    "denied": RelayDenied(),
    "later": TryAgainLater(),
    "broken": RuntimeError("a secret that must not be seen"),
    "lines": SMTPError(550, (5, 7, 1), "one\r\ntwo\nthree\x00\x07"),
    "queued": "queued as 42",
    "reply": Reply(250, "fine", (2, 1, 0)),
    "nonsense": 42,
    "urgent": priority_changed(3),
    "sold": MailboxOwnerChanged(),
    "bought": DomainOwnerChanged(),
    "unsure": OwnerUnknown(),
}
#: EHLO and HELO, by the name.
HELLOS: dict[str, Any] = {"refused.example": SMTPError(550, (5, 7, 1), "Not you")}
#: VRFY, by its argument.
USERS: dict[str, Any] = {
    "postmaster": "<postmaster@mx.example.org>",
    "unknown": MailboxUnavailable(),
    "jones": SMTPError(553, (5, 1, 4), "Ambiguous"),
}
#: The message, before any of it is read, by the local part of the last recipient.
UNREAD_MESSAGES: dict[str, Any] = {"full": InsufficientStorage()}
#: The message, once it has been read.
MESSAGES: dict[str, Any] = {
    "spam": TransactionFailed("Looks like spam"),
    "crash": RuntimeError("a secret that must not be seen"),
    "number": "queued as 4711",
}


def _answer(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


class OpinionatedBackend(RecordingBackend):
    def __init__(self, honours: frozenset[str]) -> None:
        super().__init__(
            honours,
            hello=lambda name, extended: _answer(HELLOS.get(name)),
            mail=lambda sender, options: _answer(ADDRESSES.get(sender.local_part)),
            rcpt=lambda recipient, options: _answer(ADDRESSES.get(recipient.local_part)),
            verify=lambda text: _answer(USERS.get(text)),
            data=self._take,
        )

    async def _take(self, body: IBody) -> Any:
        transaction = self.sessions[-1].connection.transaction
        assert transaction is not None
        name = transaction.recipients[-1].address.local_part
        _answer(UNREAD_MESSAGES.get(name))
        octets = await body.read()
        answer = _answer(MESSAGES.get(name))
        self.messages.append(RecordedMessage(transaction.sender, transaction.options, transaction.recipients, octets))
        return answer


@dataclass
class Outcome:
    received: bytes
    closed: bool
    messages: list[bytes]
    recipients: list[list[str]]
    events: list[tuple[str, str]]


def play(dialog: Dialog, pieces: Iterator[bytes], half_close: bool = False) -> Outcome:
    """Send the pieces to a new server; ``half_close``: and say that this was all."""
    backend = OpinionatedBackend(dialog.honours)
    config = ServerConfig(hostname="mx.example.org", **dialog.settings)
    clock = Clock()
    # A dialog that shows the whole of EHLO shows a server without a certificate.
    tls = None if dialog.extensions is STANDARD else CONTEXT
    factory = SMTPServerFactory(backend, config, tls=tls, extensions=dialog.extensions, reactor=clock)
    client = MemoryClient.of(factory)
    clock.advance(config.profile.greeting_delay)
    received = client.received()
    for piece in pieces:
        received += client.send(piece)
    if half_close:
        received += client.half_close()
    told = {"reset", "logout"} | {name for name, _ in dialog.events}
    outcome = Outcome(
        received,
        client.closed,
        [message.body for message in backend.messages],
        [[str(recipient.address) for recipient in message.recipients] for message in backend.messages],
        [event for event in backend.events if event[0] in told],
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
