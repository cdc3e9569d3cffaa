"""
SCRAM with and without channel binding, by implementations that are not ours, over STARTTLS and over implicit TLS.

A row is a peer, a mechanism and a way to TLS. Each must get in with the right
password; what is wrong in a row, be it the password, the channel or the flag,
must end in 535. What a refusal takes, two seconds, all rows take together.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.certificates import write_pair
from tests.interop.scram_peers import PEERS, ClearLine, Line
from tests.interop.witness import PASSWORD, USER, WRONG_PASSWORD
from tests.running import Twistd

STARTTLS, IMPLICIT = "starttls", "implicit"
NAMES = ("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")


@dataclass(frozen=True, slots=True)
class Row:
    """As a text, the name of its test."""

    peer: str
    mechanism: str
    way: str

    def __str__(self) -> str:
        return f"{self.peer}-{self.mechanism}-{self.way}"

    @property
    def plus(self) -> bool:
        return self.mechanism.endswith("-PLUS")


ROWS = [Row(peer, name, way) for peer in PEERS for name in NAMES for way in (STARTTLS, IMPLICIT)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    folder = tmp_path_factory.mktemp("scram")
    loopback = "tcp:0:interface=127.0.0.1"
    options = ("--listen", loopback, "--listen", f"smtps:{loopback}", "--tls", str(write_pair(folder)))
    options += ("--hostname", "localhost", "--backend", "discard", "--auth", "tests.interop.witness:checker")
    with Twistd(*options, folder=folder) as running:
        yield running


class Dialog:
    """Says a command, and waits for its reply."""

    def __init__(self, line: Any) -> None:
        self.line = line
        self._received = b""

    def reply(self) -> bytes:
        while not (match := re.match(rb"(?:\d{3}-[^\n]*\n)*\d{3} [^\n]*\n", self._received)):
            octets = self.line.read()
            assert octets, self._received
            self._received += octets
        self._received = self._received[match.end() :]
        return match[0]

    def ask(self, command: bytes) -> bytes:
        self.line.write(command + b"\r\n")
        return self.reply()


def secured(row: Row, server: Twistd) -> Dialog:
    """TLS is on, and EHLO has been said."""
    peer = PEERS[row.peer]
    clear = ClearLine(server.ports[(STARTTLS, IMPLICIT).index(row.way)])
    if row.way == IMPLICIT:
        dialog = Dialog(peer.secure(clear))
        dialog.reply()
    else:
        opening = Dialog(clear)
        opening.reply()
        opening.ask(b"EHLO client.test")
        assert opening.ask(b"STARTTLS").startswith(b"220 ")
        dialog = Dialog(peer.secure(clear))
    offered = dialog.ask(b"EHLO client.test")
    assert row.mechanism.encode() in offered.split()
    return dialog


def attempt(row: Row, server: Twistd, fault: str = "") -> tuple[bytes, bytes]:
    """
    Log in.

    :param fault: ``password``, ``channel`` (the data of another one), or ``flag`` (the client can bind, and thinks that
        the server can't).
    :return: what the server said last, and the client's first message.
    """
    dialog = secured(row, server)
    binding = None
    if row.plus or fault == "flag":
        line: Line = dialog.line
        binding = (line.binding, bytes(32) if fault == "channel" else line.channel())
    password = WRONG_PASSWORD if fault == "password" else PASSWORD
    mechanism = PEERS[row.peer].mechanism(row.mechanism, USER, password, binding)
    try:
        first = mechanism.start()
        answer = dialog.ask(b"AUTH %s %s" % (row.mechanism.encode(), first))
        while answer.startswith(b"334 "):
            answer = dialog.ask(mechanism.next(answer[4:].strip()))
    finally:
        dialog.line.close()
    return answer, b64decode(first)


def skip_unless_there(peer: str) -> None:
    missing = PEERS[peer].missing()
    if missing:
        pytest.skip(missing)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_gets_in(row: Row, server: Twistd) -> None:
    skip_unless_there(row.peer)
    answer, first = attempt(row, server)
    assert answer.startswith(b"235 2.7.0 "), answer
    binding = {"gsasl": b"p=tls-exporter,,", "scramp": b"p=tls-server-end-point,,"}[row.peer]
    assert first.startswith(binding if row.plus else b"n,,")


@pytest.fixture(scope="module")
def talkative_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twistd]:
    """Offers AUTH in clear as well: gsasl overlooks a STARTTLS in the last line of what is offered."""
    folder = tmp_path_factory.mktemp("gsasl")
    options = ("--tls", str(write_pair(folder)), "--hostname", "localhost", "--backend", "discard")
    options += ("--auth", "tests.interop.witness:checker", "--allow-insecure-auth")
    with Twistd(*options, folder=folder) as running:
        yield running


@pytest.mark.parametrize("mechanism", NAMES)
def test_the_program_gsasl(mechanism: str, talkative_server: Twistd) -> None:
    if shutil.which("gsasl") is None:
        pytest.skip("gsasl is not installed")
    # Where it could bind and the mechanism doesn't, it gives up.
    binding = () if mechanism.endswith("-PLUS") else ("--no-cb",)
    words = ("gsasl", "--smtp", f"--connect=127.0.0.1:{talkative_server.port}", "--x509-ca-file=", *binding)
    words += ("-m", mechanism, "-a", USER, "-p", PASSWORD)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, secured = done.stdout.partition("220 2.0.0 Ready to start TLS")
    assert f"AUTH {mechanism}\n" in secured
    assert "235 2.7.0" in secured


#: What goes wrong, and where it can.
CASES = [
    *((row, "password") for row in ROWS),
    # Who sits in between has two channels, and the client binds to the other one.
    *((row, "channel") for row in ROWS if row.plus),
    # Who sits in between has taken the -PLUS forms out of the offer (RFC 5802 section 6). GNU SASL gives up by itself.
    *((row, "flag") for row in ROWS if not row.plus and row.peer == "scramp"),
]


@pytest.fixture(scope="module")
def refusals(server: Twistd) -> Iterator[dict[tuple[Row, str], Future[tuple[bytes, bytes]]]]:
    """All that go wrong, at the same time."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {
            (row, fault): pool.submit(attempt, row, server, fault)
            for row, fault in CASES
            if not PEERS[row.peer].missing()
        }


@pytest.mark.parametrize(("row", "fault"), CASES, ids=str)
def test_it_does_not(row: Row, fault: str, refusals: dict[tuple[Row, str], Future[tuple[bytes, bytes]]]) -> None:
    skip_unless_there(row.peer)
    answer, first = refusals[row, fault].result()
    assert answer.startswith(b"535 5.7.8 "), answer
    assert first.startswith(b"y,,") == (fault == "flag")
