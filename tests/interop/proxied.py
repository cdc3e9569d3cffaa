"""Clients of the tests with proxies: by which way, from which address, and what came of it."""

from __future__ import annotations

import enum
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SENDER = "sender@example.net"
TEXT = b"From: sender@example.net\r\nSubject: proxies\r\n\r\ntext\r\n"

#: An address of the machine's own that is not the proxies'.
CLIENT = "127.0.0.2"

TIMEOUT = 60.0

_REPLY = re.compile(r"^<(?:-|\*\*|~|~\*) +(\d{3}(?: .*)?)$", re.MULTILINE)


class Way(enum.Enum):
    CLEAR = "clear"
    STARTTLS = "STARTTLS"
    IMPLICIT = "implicit TLS"


def header(source: str, port: int = 1234) -> bytes:
    """The PROXY header, version 1, of a client that has connected to port 25 of another machine."""
    if ":" in source:
        return f"PROXY TCP6 {source} 2001:db8:ffff::25 {port} 25\r\n".encode()
    return f"PROXY TCP4 {source} 192.0.2.25 {port} 25\r\n".encode()


class Client(smtplib.SMTP):
    """
    Says something before anything else; from :data:`CLIENT` unless told otherwise.

    :param first: that.
    """

    def __init__(self, port: int, *, first: bytes = b"", source: str = CLIENT) -> None:
        self._first = first
        super().__init__("127.0.0.1", port, "client.example.com", TIMEOUT, (source, 0))

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout, self.source_address)
        made.sendall(self._first)
        return made


class TLSClient(Client):
    """With TLS behind that."""

    def __init__(self, port: int, context: ssl.SSLContext, *, first: bytes = b"", source: str = CLIENT) -> None:
        self._context = context
        super().__init__(port, first=first, source=source)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname="localhost")


def connect(port: int, way: Way, certificate: Path, source: str = CLIENT, first: bytes = b"") -> smtplib.SMTP:
    """A client that is ready for EHLO, or for MAIL."""
    context = ssl.create_default_context(cafile=str(certificate))
    if way is Way.IMPLICIT:
        return TLSClient(port, context, first=first, source=source)
    client = Client(port, first=first, source=source)
    if way is Way.STARTTLS:
        # The certificate is that of localhost.
        client._host = "localhost"  # type: ignore[attr-defined]
        client.starttls(context=context)
    return client


def address_of(client: smtplib.SMTP) -> str:
    """Its own end, as our log shows it."""
    assert client.sock is not None
    host, port = client.sock.getsockname()[:2]
    return f"{host}:{port}"


def greeting(port: int, first: bytes = b"", source: str = CLIENT) -> tuple[int, str]:
    """The code and the text of a greeting; the connection is at its end."""
    client = smtplib.SMTP(local_hostname="client.example.com", timeout=TIMEOUT, source_address=(source, 0))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0)) as sock:
        sock.sendall(first)
        client.sock = sock
        code, text = client.getreply()
        client.close()
    return code, text.decode()


def swaks(port: int, *options: str, source: str = CLIENT) -> list[str]:
    """The last lines of all replies that it has got; the test is skipped without it."""
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    place = ["--server", f"127.0.0.1:{port}", "--local-interface", source, "--helo", "client.example.com"]
    command = ["swaks", *place, "--from", SENDER, *options]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True, errors="replace", check=False)
    return _REPLY.findall(done.stdout)


def codes(replies: Sequence[str]) -> list[int]:
    return [int(reply[:3]) for reply in replies]
