"""
Clients that people have, against ``twistd smtpfw`` with a Maildir: what is stored is what was sent.

Behind the lines that smtpfw puts in front, octet for octet; where a client
itself adds or changes something, the test says what.
"""

from __future__ import annotations

import re
import shutil
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import write_pair
from tests.interop.message import make_message
from tests.running import Twistd

SENDER, RECIPIENT = "sender@example.net", "reader@example.org"

MESSAGE = make_message()

_TRACE = re.compile(
    rb"Return-Path: <sender@example\.net>\r\nReceived: from [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)+", re.MULTILINE
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_pair(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def server(tmp_path: Path, certificate: str) -> Iterator[Twistd]:
    with Twistd("--tls", certificate, "--hostname", "localhost", folder=tmp_path) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "message.eml"
    path.write_bytes(MESSAGE)
    return path


def stored(folder: Path) -> bytes:
    """The one message in the Maildir, without the lines that smtpfw put in front."""
    (path,) = (folder / "Maildir" / "new").iterdir()
    octets = path.read_bytes()
    trace = _TRACE.match(octets)
    assert trace is not None, octets[:500]
    return octets[trace.end() :]


def run(*command: str | Path, octets: bytes = b"") -> str:
    name = str(command[0])
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([str(word) for word in command], input=octets, capture_output=True, timeout=60, check=False)
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, output
    return output


@pytest.mark.parametrize("tls", [(), ("--ssl-reqd", "--insecure")], ids=["clear", "starttls"])
def test_curl(server: Twistd, source: Path, tmp_path: Path, tls: tuple[str, ...]) -> None:
    url = f"smtp://127.0.0.1:{server.port}/client.example.net"
    run("curl", "-sS", *tls, url, "--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "-T", source)
    assert stored(tmp_path) == MESSAGE


@pytest.mark.parametrize("tls", [(), ("--tls",)], ids=["clear", "starttls"])
def test_swaks(server: Twistd, source: Path, tmp_path: Path, tls: tuple[str, ...]) -> None:
    address = f"127.0.0.1:{server.port}"
    run("swaks", "--server", address, "--from", SENDER, "--to", RECIPIENT, *tls, "--data", f"@{source}")
    # swaks adds a line end to the file's own.
    assert stored(tmp_path) == MESSAGE + b"\r\n"


@pytest.mark.parametrize(
    "tls", [(), ("--tls=on", "--tls-starttls=on", "--tls-certcheck=off")], ids=["clear", "starttls"]
)
def test_msmtp(server: Twistd, tmp_path: Path, tls: tuple[str, ...]) -> None:
    host = ("--file=/dev/null", "--host=127.0.0.1", f"--port={server.port}", f"--from={SENDER}")
    run("msmtp", *host, *tls, RECIPIENT, octets=MESSAGE.replace(b"\r\n", b"\n"))
    assert stored(tmp_path) == MESSAGE


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "starttls"])
def test_smtplib(server: Twistd, tmp_path: Path, tls: bool) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        if tls:
            client.starttls()
        assert client.sendmail(SENDER, [RECIPIENT], MESSAGE, mail_options=["BODY=8BITMIME"]) == {}
    assert stored(tmp_path) == MESSAGE


def test_a_session_typed_by_hand(server: Twistd, tmp_path: Path) -> None:
    """With ``nc -C``, which sends CRLF for each line typed."""
    typed = ["EHLO hand", f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{RECIPIENT}>", "DATA"]
    lines = MESSAGE.replace(b"\r\n", b"\n").split(b"\n")[:-1]
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    octets = b"\n".join([*(line.encode() for line in typed), *stuffed, b".", b"QUIT", b""])
    output = run("nc", "-C", "-N", "127.0.0.1", str(server.port), octets=octets)
    assert "250 2.0.0 stored as" in output
    assert stored(tmp_path) == MESSAGE
