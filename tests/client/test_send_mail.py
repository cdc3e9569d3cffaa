"""One call that sends one message: what it takes, what goes out, and what is left when it ends or is given up."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfw.client import ClientConfig, Destination, send_mail
from smtpfw.errors import ConnectionFailed, LocalProtocolError, MailboxUnavailable, Refused
from smtpfw.server import SMTPServerFactory
from smtpfw.testing import MESSAGE, MemoryEndpoint, RecordingBackend, ScriptedPeer, close, silence
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.results import SendResult

CONFIG = ClientConfig(hello_name="me.test")
OCTETS = b"Subject: x\r\n\r\nhello\r\n"
STEPS: dict[str, tuple[Any, ...]] = {
    "GREETING": (None, b"220 mx.test\r\n"),
    "EHLO": ("EHLO", b"250 mx.test\r\n"),
    "MAIL": ("MAIL", b"250 OK\r\n"),
    "RCPT": ("RCPT", b"250 OK\r\n"),
    "DATA": ("DATA", b"354 go on\r\n"),
    "END": (MESSAGE, b"250 queued as 17\r\n"),
    "QUIT": ("QUIT", b"221 bye\r\n", close),
}


class Server:
    """A real server in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backend = RecordingBackend()
        factory = SMTPServerFactory(self.backend, ServerConfig(hostname="mx.test"), reactor=self.clock)
        self.endpoint = MemoryEndpoint(factory)

    def send(self, sender: Any, recipients: Any, body: Any, **settings: Any) -> Any:
        settings.setdefault("config", CONFIG)
        deferred = send_mail(self.endpoint, sender, recipients, body, reactor=self.clock, **settings)
        return self.endpoint.run(deferred)


async def pieces() -> AsyncIterator[bytes]:
    yield OCTETS[:5]
    yield OCTETS[5:]


def message() -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Cc"], made["Bcc"] = "a@b.test", "c@d.test", "e@d.test", "f@d.test"
    made["Subject"] = "x"
    made.set_content("hello\n")
    return made


def text_file(folder: Path) -> Any:
    path = folder / "message"
    path.write_bytes(OCTETS)
    return path.open(encoding="utf-8")


#: Each kind of body; it is made in a folder of the test's.
BODIES: dict[str, Any] = {
    "bytes": lambda folder: OCTETS,
    "str": lambda folder: OCTETS.decode(),
    "bytearray": lambda folder: bytearray(OCTETS),
    "binary file": lambda folder: io.BytesIO(OCTETS),
    "text file": text_file,
    "iterable": lambda folder: [OCTETS[:5], OCTETS[5:]],
    "generator": lambda folder: (OCTETS[at : at + 1] for at in range(len(OCTETS))),
    "async iterable": lambda folder: pieces(),
}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies(kind: str, tmp_path: Path) -> None:
    server = Server()
    body = BODIES[kind](tmp_path)
    result = server.send("a@b.test", "c@d.test", body)
    if hasattr(body, "close"):
        body.close()
    assert [one.accepted for one in result.recipients] == [True]
    (recorded,) = server.backend.messages
    assert recorded.body.endswith(OCTETS)


def test_an_email_message_names_its_own_envelope() -> None:
    server = Server()
    server.send(None, None, message())
    (recorded,) = server.backend.messages
    assert str(recorded.sender) == "a@b.test"
    assert [str(one) for one in recorded.recipients] == ["c@d.test", "e@d.test", "f@d.test"]
    assert b"Bcc" not in recorded.body and b"hello\r\n" in recorded.body


@pytest.mark.parametrize(("sender", "recipients"), [(None, "c@d.test"), ("a@b.test", None), (None, None)])
def test_only_an_email_message_has_an_envelope(sender: Any, recipients: Any) -> None:
    server = Server()
    with pytest.raises(TypeError):
        server.send(sender, recipients, OCTETS)
    assert server.endpoint.links == []


@pytest.mark.parametrize(
    ("sender", "recipients", "body", "error"),
    [
        ("a b@c.test", "c@d.test", OCTETS, LocalProtocolError),
        ("a@b.test", "c@d.test>\r\nRCPT TO:<e@d.test", OCTETS, LocalProtocolError),
        ("a@b.test", "", OCTETS, LocalProtocolError),
        ("a@b.test", [], OCTETS, LocalProtocolError),
        ("a@b.test", "c@d.test", 17, TypeError),
    ],
)
def test_what_makes_no_sense_opens_no_connection(sender: Any, recipients: Any, body: Any, error: Any) -> None:
    server = Server()
    with pytest.raises(error):
        server.send(sender, recipients, body)
    assert server.endpoint.links == []


def test_one_of_two_gets_it() -> None:
    def rcpt(recipient: Any, options: Any) -> None:
        if str(recipient) == "no@d.test":
            raise MailboxUnavailable

    server = Server()
    server.backend.answers["rcpt"] = rcpt
    result = server.send("a@b.test", ["no@d.test", "c@d.test"], OCTETS)
    assert [str(one.recipient) for one in result.refused] == ["no@d.test"]
    assert [str(one.recipient) for one in result.accepted] == ["c@d.test"]
    assert isinstance(result.refused[0].error, Refused)


# -- what is left -----------------------------------------------------------------------------------


class Call:
    """A call, to a peer that plays a script up to a phase, and does something else there."""

    def __init__(self, phase: str = "", *actions: Any) -> None:
        script: list[Any] = []
        for name, step in STEPS.items():
            if name == phase:
                script.append((step[0], *actions))
                break
            script.append(step)
        self.clock = Clock()
        self.peer = ScriptedPeer(script)
        self.endpoint = MemoryEndpoint(self.peer)
        self.outcomes: list[Any] = []
        self.deferred = send_mail(
            self.endpoint, "a@b.test", "c@d.test", OCTETS, config=CONFIG, reactor=self.clock, tls="none"
        )
        self.deferred.addBoth(lambda result: self.outcomes.append(getattr(result, "value", result)))
        self.endpoint.flow()

    @property
    def closed(self) -> bool:
        return [link.client_transport.closed for link in self.endpoint.links] == [True]


def test_it_says_goodbye_and_waits_for_the_end() -> None:
    call = Call("QUIT", silence)
    call.clock.advance(9)
    call.endpoint.flow()
    assert call.outcomes == [] and not call.closed
    call.clock.advance(1)
    call.endpoint.flow()
    (result,) = call.outcomes
    assert isinstance(result, SendResult) and result.text == "queued as 17"
    assert call.closed
    assert call.clock.getDelayedCalls() == []
    call.peer.assert_played()


@pytest.mark.parametrize("phase", STEPS)
def test_cancelled_at_any_point(phase: str) -> None:
    """Whoever gives up hears of it at once, nothing more is said, and no connection is left behind."""
    call = Call(phase, silence)
    said = call.endpoint.said_by_clients
    assert call.outcomes == []
    call.deferred.cancel()
    call.endpoint.flow()
    # Behind the answer to the message it is known what became of it: else it would be sent once more.
    expected = SendResult if phase == "QUIT" else CancelledError
    assert [type(one) for one in call.outcomes] == [expected], call.outcomes
    assert call.closed
    assert call.endpoint.said_by_clients == said
    assert call.clock.getDelayedCalls() == []


@pytest.mark.parametrize("phase", ["MAIL", "RCPT", "DATA", "END"])
def test_errors_say_what_became_of_each_recipient(phase: str) -> None:
    call = Call(phase, close)
    (error,) = call.outcomes
    (one,) = error.result.recipients
    assert one.error is error and not one.accepted
    assert call.closed


def test_nobody_listens_there() -> None:
    found: list[Any] = []
    deferred = send_mail(MemoryEndpoint(None), "a@b.test", "c@d.test", OCTETS, reactor=Clock())
    deferred.addErrback(lambda failure: found.append(failure.value))
    assert type(found[0]) is ConnectionFailed and found[0].phase == "CONNECT"
    assert isinstance(found[0].__cause__, Exception)


def test_a_destination_is_as_good_as_its_text() -> None:
    endpoint = MemoryEndpoint(ScriptedPeer(list(STEPS.values())))
    deferred = send_mail(Destination.of(endpoint), "", "c@d.test", OCTETS, config=CONFIG, reactor=Clock())
    result: Any = []
    deferred.addBoth(result.append)
    endpoint.flow()
    assert isinstance(result[0], SendResult) and not isinstance(result[0], Failure)
    assert b"MAIL FROM:<>\r\n" in endpoint.said_by_clients
