"""Sockets that systemd passes: whatever the unit says of them is seen on the socket itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from twisted.internet.protocol import Factory

from smtpfw.config.listeners import bind_all, parse_listener
from smtpfw.config.sockets import BoundSocket
from smtpfw.errors import ConfigError


class Passed(NamedTuple):
    """Stands for Twisted's ListenFDs, which reads the environment of the process."""

    descriptor: int

    def inheritedNamedDescriptors(self) -> dict[str, int]:
        return {"smtp": self.descriptor}

    def inheritedDescriptors(self) -> list[int]:
        return [self.descriptor]


@pytest.fixture
def bind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BoundSocket]]:
    every: list[BoundSocket] = []

    def bind(descriptor: int, text: str = "systemd:domain=INET:name=smtp") -> BoundSocket:
        monkeypatch.setattr("twisted.internet.endpoints._SystemdParser._sddaemon", Passed(descriptor))
        ((bound, _),) = bind_all((parse_listener(text),), Factory(), object(), None)
        every.append(bound)
        return bound

    yield bind
    for bound in every:
        bound.discard()


def listening(family: socket.AddressFamily, address: object) -> socket.socket:
    sock = socket.socket(family)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(address)  # type: ignore[arg-type]
    sock.listen()
    return sock


@pytest.mark.parametrize("domain", ["INET", "INET6", "UNIX"])
def test_the_family_is_that_of_the_socket(bind: Callable[..., BoundSocket], domain: str, tmp_path: Path) -> None:
    """``ListenStream=25`` is one socket for both families. Read as INET, each client has an address out of nowhere."""
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::", 0)),
        (socket.AF_UNIX, str(tmp_path / domain)),
    ):
        with listening(family, address) as passed:
            bound = bind(passed.fileno(), f"systemd:domain={domain}:name=smtp")
            assert (bound.family, bound.address) == (family, passed.getsockname())


def test_it_is_there_for_a_listener_that_comes_back(bind: Callable[..., BoundSocket]) -> None:
    """At SIGHUP it leaves, and at the next one it is wanted again: its number must not be somebody else's by then."""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as passed:
        os.set_inheritable(passed.fileno(), True)
        first = bind(passed.fileno())
        first.discard()
        bind(passed.fileno(), "systemd:domain=INET:index=0")
        with socket.create_connection(passed.getsockname(), 5):
            connection, _ = passed.accept()
            connection.close()
        # The reactor must not wait in accept(), and programs that we start have no use for it.
        assert not os.get_blocking(passed.fileno())
        assert not os.get_inheritable(passed.fileno())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen(bind: Callable[..., BoundSocket], kind: socket.SocketKind) -> None:
    """As with ``Accept=yes``, or ``ListenDatagram=``."""
    with socket.socket(socket.AF_INET, kind) as passed, pytest.raises(ConfigError) as caught:
        bind(passed.fileno())
    assert str(caught.value) == (
        "listen systemd:domain=INET:name=smtp: the socket that systemd passed does not listen; "
        "its unit needs ListenStream= and Accept=no"
    )


def test_what_is_no_socket(bind: Callable[..., BoundSocket], tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(ConfigError, match="does not listen; its unit needs"):
        bind(file.fileno())
