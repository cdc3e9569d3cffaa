"""An extension from one file, in a client: what it may decide about a message, and what is said then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfw.client import SMTPClientProtocol
from smtpfw.errors import ConfigError, ExtensionMissing, MailboxUnavailable, SMTPError
from smtpfw.extensions import CLIENT
from smtpfw.testing import MemoryServer
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.dialect import Extension
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.transaction import Recipient

MOOD = Parameter("MOOD", parse=lambda text: int(text or ""), format=str, default=5)
GENTLY = Parameter.flag("GENTLY")


class Weather(Extension):
    """Messages about rain need it; a server that has it says how many recipients it takes when it rains."""

    keyword = "X-WEATHER"
    mail_parameters = (MOOD,)
    rcpt_parameters = (GENTLY,)

    def understand(self, argument: str) -> int:
        return int(argument or "9")

    def needed_by(self, message: Any) -> str | None:
        return "it rains" if b"rain" in (message.body.data or b"") else None

    def refuse_recipient(self, index: int, recipient: Any, fact: Any) -> SMTPError | None:
        return MailboxUnavailable("too many in the rain") if fact is not None and index >= fact else None

    def watch(self, data: bytes) -> str | None:
        return "it rains" if b"rain" in data else None

    def add(self, connection: Any, message: Any, fact: Any, parameters: dict[str, str | None]) -> None:
        if message.body.size == 13:
            raise SMTPError(554, (5, 7, 1), "an unlucky message")
        parameters.setdefault("MOOD", str(fact))


def start(*offers: str) -> tuple[SMTPClientProtocol, MemoryServer]:
    client = SMTPClientProtocol(ClientConfig(hello_name="me.test"), extensions=[*CLIENT, Weather()], clock=Clock())
    server = MemoryServer.of(client)
    client.hello()
    server.send(b"220 mx.test\r\n")
    lines = ["mx.test", "PIPELINING", *offers]
    server.send("".join(f"250{' ' if line is lines[-1] else '-'}{line}\r\n" for line in lines).encode())
    return client, server


def outcome(deferred: Any) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0].value if found and isinstance(found[0], Failure) else (found or [None])[0]


def test_its_parameters_are_said_where_it_is_offered() -> None:
    client, server = start("X-WEATHER 2")
    gently = Recipient(Address("c", "d.test"), Options.of({GENTLY: True}))
    client.send_mail("a@b.test", [gently], b"rain\r\n", {MOOD: 3})
    assert server.received() == b"MAIL FROM:<a@b.test> MOOD=3\r\nRCPT TO:<c@d.test> GENTLY\r\nDATA\r\n"


def test_it_adds_what_a_message_needs_and_refuses_what_cannot_be() -> None:
    client, server = start("X-WEATHER 2")
    assert str(outcome(client.send_mail("a@b.test", ["c@d.test"], b"x" * 13))) == "554 5.7.1 an unlucky message"
    sent = client.send_mail("a@b.test", ["c@d.test", "e@d.test", "f@d.test"], b"sun\r\n")
    assert server.received() == b"MAIL FROM:<a@b.test> MOOD=2\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@d.test>\r\nDATA\r\n"
    server.send(b"250 OK\r\n250 OK\r\n250 OK\r\n354 go on\r\n")
    server.send(b"250 OK\r\n")
    (refused,) = outcome(sent).refused
    assert (str(refused.recipient), refused.error.message) == ("f@d.test", "too many in the rain")


@pytest.mark.parametrize(
    ("recipient", "body", "options"),
    [
        (Recipient(Address("c", "d.test"), Options.of({GENTLY: True})), b"sun\r\n", {}),
        ("c@d.test", b"rain\r\n", {}),
        ("c@d.test", b"sun\r\n", {MOOD: 3}),
    ],
)
def test_where_it_is_not_offered_what_needs_it_is_refused(recipient: Any, body: bytes, options: Any) -> None:
    client, server = start()
    error = outcome(client.send_mail("a@b.test", [recipient], body, options))
    assert isinstance(error, ExtensionMissing) and error.keyword == "X-WEATHER"
    assert server.received() == b""


def test_a_stream_that_turns_out_to_need_it_gets_no_end() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"sun\r\n"
        yield b"rain\r\n"

    client, server = start()
    sent = client.send_mail("a@b.test", ["c@d.test"], pieces())
    server.send(b"250 OK\r\n250 OK\r\n354 go on\r\n")
    assert isinstance(outcome(sent), ExtensionMissing)
    assert server.closed and b"\r\n.\r\n" not in server.link.said_by_client


def test_a_client_without_it_knows_no_such_parameter() -> None:
    client = SMTPClientProtocol(ClientConfig(hello_name="me.test"), clock=Clock())
    server = MemoryServer.of(client)
    client.hello()
    server.send(b"220 mx.test\r\n")
    server.send(b"250-mx.test\r\n250 X-WEATHER 2\r\n")
    assert client.extension("x-weather") == "2"
    assert "MOOD" in str(outcome(client.mail("a@b.test", {MOOD: 3})))
    assert server.received() == b""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({GENTLY: True}, "GENTLY is a parameter of RCPT, not of MAIL"),
        ({Parameter.choice("BODY", "7BIT", "9BIT", default="7BIT"): "9BIT"}, "BODY must be one of 7BIT, 8BITMIME"),
        ({Parameter.flag("LOUDLY"): True}, "no extension of this client has the parameter LOUDLY of MAIL"),
    ],
)
def test_what_a_client_can_not_say(options: Any, words: str) -> None:
    client, _ = start("X-WEATHER 2", "8BITMIME")
    assert words in str(outcome(client.mail("a@b.test", options)))


def test_what_is_no_extension() -> None:
    for wrong in ("X-WEATHER", Weather):
        with pytest.raises(ConfigError, match="is no Extension; an instance is meant"):
            SMTPClientProtocol(ClientConfig(), extensions=[wrong], clock=Clock())  # type: ignore[list-item]
