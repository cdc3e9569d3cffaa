"""sd_notify, against a real socket."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpfw.config import systemd
from smtpfw.config.systemd import SOCKET, notify


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        yield one


def test_a_path(listener: socket.socket, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    listener.bind(path)
    assert notify("READY=1\nSTATUS=Bücher", {SOCKET: path})
    assert listener.recv(4096) == "READY=1\nSTATUS=Bücher".encode()


def test_an_abstract_name(listener: socket.socket) -> None:
    name = f"smtpfw-{secrets.token_hex(8)}"
    listener.bind(f"\0{name}")
    assert notify("STOPPING=1", {SOCKET: f"@{name}"})
    assert listener.recv(4096) == b"STOPPING=1"


def test_a_path_that_is_no_text(listener: socket.socket, tmp_path: Path) -> None:
    path = bytes(tmp_path) + b"/\xff"
    listener.bind(path)
    assert notify("READY=1", {SOCKET: path.decode("utf-8", "surrogateescape")})
    assert listener.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    "path", ["", "relative", "vsock:2:1234", "/no/such/socket", "/" + "x" * 200, "/a\0b", "@", "@x"]
)
def test_nobody_there(path: str) -> None:
    assert not notify("READY=1", {SOCKET: path})
    assert not notify("READY=1", {})


def test_what_can_not_be_encoded(listener: socket.socket, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    listener.bind(path)
    assert notify("STATUS=\ud800", {SOCKET: path})
    assert listener.recv(4096) == b"STATUS=?"


def test_a_full_queue_stops_nobody(listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "PATIENCE", 0.01)
    path = str(tmp_path / "notify")
    listener.bind(path)
    assert notify("READY=1", {SOCKET: path})
    # Linux keeps as many as net.unix.max_dgram_qlen says.
    assert not all(notify("READY=1", {SOCKET: path}) for _ in range(100_000))


def test_the_environment_counts(listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    listener.bind(path)
    monkeypatch.setenv(SOCKET, path)
    assert notify("READY=1")
    monkeypatch.delenv(SOCKET)
    assert not notify("READY=1")
