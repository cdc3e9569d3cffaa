"""
A client's end without a socket: what it writes, write by write, and what became of each thing that was asked.

The peer is whoever calls :meth:`ClientEnd.hear`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from smtpfw.errors import ClientError
from smtpfw.extensions import CLIENT
from smtpfw.wire.client import ClientConnection
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.dialect import Extension
from smtpfw.wire.exchange import Command, Exchange, Hello
from smtpfw.wire.grammar import Address
from smtpfw.wire.message import Content, OutgoingMessage
from smtpfw.wire.parameters import NO_OPTIONS, Options
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import Sending
from smtpfw.wire.steps import BodyStep, MailStep, RcptStep, ResetStep
from smtpfw.wire.transaction import Recipient
from smtpfw.wire.transcript import Transcript

GREETING = b"220 mx.test ESMTP\r\n"


@dataclass
class Text:
    """A body, and what is known of it."""

    data: bytes | None
    size: int | None = None
    eight_bit: bool | None = None
    utf8_header: bool | None = None
    binary: bool = False


def text(data: bytes, *, binary: bool = False, utf8_header: bool = False) -> Text:
    """One that is in memory."""
    return Text(data, len(data), not data.isascii(), utf8_header, binary)


class Told:
    """
    Hears what came of one thing that was asked, and that only once.

    :ivar exchange: what was asked.
    :ivar silent: whether nothing was heard yet.
    """

    exchange: Exchange

    def __init__(self) -> None:
        self._outcomes: list[Any] = []

    def __call__(self, outcome: Any) -> None:
        assert not self._outcomes, f"told twice: {self._outcomes[0]!r}, {outcome!r}"
        self._outcomes.append(outcome)

    @property
    def silent(self) -> bool:
        return not self._outcomes

    @property
    def outcome(self) -> Any:
        assert self._outcomes, "nothing was told"
        return self._outcomes[0]

    def error(self, kind: type[Exception], phase: str | None = None) -> Any:
        """The outcome, which has to be an error of exactly that kind."""
        error = self.outcome
        assert type(error) is kind, repr(error)
        if phase is not None:
            assert error.phase == phase, repr(error)
            assert error.peer == "mx.test"
        return error


class ClientEnd:
    """
    A connection, and its driver.

    :param offers: what the peer offers in its answer to EHLO. None: nothing was heard of the peer yet.

    :ivar bodies: the messages that the driver was asked to write.
    :ivar stopped: those that it was told to stop.
    :ivar room: how often it was told that there is more room.
    :ivar handshakes: how often it was told to begin TLS.
    :ivar ends: with what the connection has ended, at most one.
    :ivar on_ready: called when something else could be sent.
    """

    def __init__(
        self,
        offers: Iterable[str] | None = (),
        *,
        lmtp: bool = False,
        extensions: Iterable[Extension] = CLIENT,
        transcript: list[str] | None = None,
        **settings: Any,
    ) -> None:
        self._writes: list[bytes] = []
        self.bodies: list[Sending] = []
        self.stopped: list[Sending] = []
        self.room = 0
        self.handshakes = 0
        self.ends: list[ClientError | None] = []
        self.on_ready: Callable[[], None] = lambda: None
        self.greeting = Told()
        self.wire = ClientConnection(
            ClientConfig(**settings),
            extensions,
            self,
            self.greeting,
            hello_name="me.test",
            lmtp=lmtp,
            peer_name="mx.test",
        )
        if transcript is not None:
            self.wire.transcript = Transcript(transcript.append, {"DATA", "RSET", "NOOP", "QUIT"})
        if offers is not None:
            self.introduce(offers)

    def introduce(self, offers: Iterable[str]) -> None:
        """Be greeted, and say hello."""
        self.hear(GREETING)
        self.hello()
        self.hear(hello_reply(*offers))
        self.said()

    # -- what is asked ----------------------------------------------------------

    def ask(self, make: Callable[[Told], Exchange]) -> Told:
        told = Told()
        told.exchange = make(told)
        self.wire.submit(told.exchange)
        self.flush()
        return told

    def hello(self, name: str = "me.test") -> Told:
        return self.ask(lambda done: Hello(name, done))

    def command(self, line: bytes, *, raw: bool = False) -> Told:
        return self.ask(lambda done: Command(line + b"\r\n", done, raw=raw))

    def send(
        self,
        *recipients: str | Recipient,
        sender: str = "a@b.test",
        body: bytes | Content = b"hello\r\n",
        options: Options = NO_OPTIONS,
    ) -> Told:
        """By default to c@d.test."""
        return self.ask(lambda done: Sending(message(*recipients, sender=sender, body=body, options=options), done))

    def mail(self, sender: str = "a@b.test", options: Options = NO_OPTIONS) -> Told:
        return self.ask(lambda done: MailStep(Address.parse(sender), options, done))

    def rcpt(self, recipient: str = "c@d.test", options: Options = NO_OPTIONS) -> Told:
        return self.ask(lambda done: RcptStep(Recipient(Address.parse(recipient), options), done))

    def data(self, body: bytes | Content = b"hello\r\n") -> Told:
        return self.ask(lambda done: BodyStep(text(body) if isinstance(body, bytes) else body, done))

    def reset(self) -> Told:
        return self.ask(ResetStep)

    def cancel(self, told: Told) -> None:
        self.wire.cancel(told.exchange)
        self.flush()

    def write(self, sending: Sending, *pieces: bytes, end: bool = False) -> None:
        """Write octets of a message as a driver does."""
        for piece in pieces:
            sending.write(piece)
        if end:
            sending.finish_body()
        self.flush()

    # -- the peer ---------------------------------------------------------------

    def hear(self, *replies: bytes) -> list[bytes]:
        """
        Hear the peer say something, each of the arguments by itself.

        :return: what was written since somebody asked, write by write.
        """
        for octets in replies:
            self.wire.receive_data(octets)
            self.flush()
        return self.said()

    def lose(self) -> None:
        self.wire.connection_lost("lost")
        self.flush()

    def flush(self) -> None:
        due = b"".join(self.wire.data_to_send())
        if due:
            self._writes.append(due)

    def said(self) -> list[bytes]:
        """What was written since the last call, write by write."""
        writes, self._writes = self._writes, []
        return writes

    # -- smtpfw.wire.client.Driver ------------------------------------------------

    def send_body(self, sending: Sending) -> None:
        self.bodies.append(sending)

    def stop_body(self, sending: Sending) -> None:
        self.stopped.append(sending)

    def more_room(self, sending: Sending) -> None:
        self.room += 1

    def start_tls(self) -> None:
        self.handshakes += 1

    def closed(self, error: ClientError | None) -> None:
        self.ends.append(error)

    def ready(self) -> None:
        self.on_ready()


def hello_reply(*offers: str) -> bytes:
    """The answer to EHLO."""
    lines = ["mx.test", *offers]
    marks = ["-"] * (len(lines) - 1) + [" "]
    return b"".join(f"250{mark}{line}\r\n".encode() for mark, line in zip(marks, lines, strict=True))


def message(
    *recipients: str | Recipient,
    sender: str = "a@b.test",
    body: bytes | Content = b"hello\r\n",
    options: Options = NO_OPTIONS,
) -> OutgoingMessage:
    return OutgoingMessage(
        Address.parse(sender),
        [
            Recipient(Address.parse(one), NO_OPTIONS) if isinstance(one, str) else one
            for one in recipients or ("c@d.test",)
        ],
        text(body) if isinstance(body, bytes) else body,
        options,
    )


def shown(outcome: Any) -> list[str]:
    """What came of something, as a golden dialog has it."""
    result = outcome if isinstance(outcome, SendResult) else getattr(outcome, "result", None)
    lines = [] if isinstance(outcome, SendResult) else [_shown(outcome)]
    for one in result.recipients if result is not None else ():
        lines.append(f"{one.recipient} {'accepted' if one.accepted else _shown(one.error)}")
    return lines


def _shown(outcome: Any) -> str:
    if not isinstance(outcome, Exception):
        return f"{outcome.code} {outcome.text}"
    words = [type(outcome).__name__, getattr(outcome, "phase", ""), str(getattr(outcome, "code", ""))]
    return " ".join(word for word in words if word)
