"""
The client's half of an extension that is defined here, and nowhere else: a command and a way to send of its own.

What it may decide about a message stands in tests/client/test_own_extension.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import ExtensionMissing, Refused
from smtpfw.extensions import CLIENT, STANDARD
from smtpfw.testing import RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.exchange import Command
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import Sending
from smtpfw.wire.transfer import Transfer
from tests.extensions.test_made_up import GENTLY, MOOD, Weather
from tests.server.helpers import greeted
from tests.wire.client_end import ClientEnd, Told

OK = b"250 OK\r\n"


class Sun(Command):
    """XSUN: what is said depends on what the server offers."""

    __slots__ = ()

    def __init__(self, done: Any) -> None:
        super().__init__(b"XSUN\r\n", done)

    def line(self, connection: Any) -> bytes:
        if not connection.peer.offers("X-WEATHER"):
            raise ExtensionMissing("X-WEATHER", "there is no sun without it")
        return b"XSUN now\r\n"

    def accepted(self, connection: Any, reply: Reply) -> None:
        connection.hello_name = "sunny.test"


def test_a_command_of_its_own() -> None:
    end = ClientEnd(["PIPELINING", "X-WEATHER"])
    told, behind = end.ask(Sun), end.command(b"NOOP")
    assert end.said() == [b"XSUN now\r\n"]
    # Nobody knows whether something may follow it, so it ends its group.
    assert end.hear(b"250 2.0.0 shining\r\n") == [b"NOOP\r\n"]
    assert told.outcome.text == "shining"
    assert end.wire.hello_name == "sunny.test"
    assert behind.silent


def test_a_command_that_is_refused_or_not_offered() -> None:
    end = ClientEnd(["X-WEATHER"])
    told = end.ask(Sun)
    end.hear(b"450 4.2.0 rain\r\n")
    assert told.error(Refused, "XSUN").temporary
    end = ClientEnd()
    assert end.ask(Sun).error(ExtensionMissing).keyword == "X-WEATHER"
    assert end.said() == []


class ParcelTransfer(Transfer):
    """All octets behind a line that says how many they are; the server is asked first."""

    __slots__ = ("_connection", "_octets")

    opening = b"XPARCEL\r\n"

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self._octets = b""

    def write(self, sending: Sending, data: bytes) -> None:
        self._octets += data

    def finish(self, sending: Sending) -> None:
        self._connection.write_line(b"XOCTETS %d\r\n" % len(self._octets))
        self._connection.write(self._octets)
        sending.all_sent()


class Parcel(Extension):
    keyword = "X-PARCEL"

    def transfer(self, connection: Any, message: Any) -> Transfer | None:
        return ParcelTransfer(connection) if message.body.size < 10 else None


@pytest.mark.parametrize(
    ("body", "opening", "octets"),
    [
        (b".\nx", b"XPARCEL\r\n", b"XOCTETS 3\r\n.\nx"),
        (b"more than ten", b"DATA\r\n", b"more than ten\r\n.\r\n"),
    ],
)
def test_a_way_to_send_of_its_own(body: bytes, opening: bytes, octets: bytes) -> None:
    end = ClientEnd(["PIPELINING", "X-PARCEL"], extensions=[*CLIENT, Parcel()])
    told = end.send(body=body)
    assert end.said() == [b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n" + opening]
    assert end.hear(OK * 2 + b"354 go on\r\n") == [octets]
    end.hear(b"250 queued\r\n")
    assert isinstance(told.outcome, SendResult)


def test_both_halves_of_one_extension() -> None:
    """The same object serves, and is used by a client."""
    weather = Weather()
    seen: list[Any] = []
    backend = RecordingBackend(
        mail=lambda sender, options: seen.append(options), rcpt=lambda recipient, options: seen.append(options)
    )
    server = greeted(backend, None, extensions=[*STANDARD, weather])
    end = ClientEnd(None, extensions=[*CLIENT, weather])
    asked: list[Told] = [
        end.mail(options=Options.of({MOOD: 7})),
        end.rcpt(options=Options.of({GENTLY: True})),
        end.data(),
        end.ask(Sun),
    ]
    said = end.hear(b"220 mx.test\r\n")
    while said:
        said = end.hear(server.send(b"".join(said)))
    assert all(not isinstance(told.outcome, Exception) for told in asked)
    assert (seen[0][MOOD], seen[1][GENTLY]) == (7, True)
    assert [message.body for message in backend.messages] == [b"hello\r\n"]
