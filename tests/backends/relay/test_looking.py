"""Next hops that are there, and some that are not, without a word to any of them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.looking import look_for
from smtpfw.client import connector_of
from tests.modes import obey_modes


class Names:
    """A name server that knows some names."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked: list[str] = []

    def __call__(self, name: str, port: None) -> list[Any]:
        self.asked.append(name)
        if name not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return []


def look(names: Any, *places: str, patience: float = 10) -> list[str]:
    return look_for([connector_of(place) for place in places], names, patience)


def test_names_are_looked_up_once_each() -> None:
    names = Names("a.test")
    assert look(names, "a.test:25", "a.test:587", "192.0.2.1", "smtps:[2001:db8::1]:465") == []
    assert names.asked == ["a.test"]


def test_one_that_is_not_there() -> None:
    assert look(Names(), "smtps:a.test") == [
        "a.test: it has no address (Name or service not known); mail that should go there is answered 451 until it is"
    ]


def test_a_name_server_that_does_not_answer() -> None:
    never = threading.Event()
    (sentence,) = look(lambda name, port: never.wait(), "a.test", patience=0.05)
    assert sentence.startswith("a.test: no name server has answered; ")
    never.set()


def test_unix_sockets(tmp_path: Path) -> None:
    there, absent, file = (str(tmp_path / name) for name in ("lmtp", "absent", "file"))
    Path(file).touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(there)
        sentences = look(Names(), *(f"unix:{path}" for path in (there, absent, file)))
    assert [sentence.partition(";")[0] for sentence in sentences] == [
        f"{absent}: no such file or directory",
        f"{file}: it is no socket",
    ]


def test_a_socket_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obey_modes(monkeypatch)
    path = tmp_path / "lmtp"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0)
        (sentence,) = look(Names(), f"unix:{path}")
    assert sentence.startswith(f"{path}: we may not connect to it")


def test_backends_look_for_theirs(tmp_path: Path) -> None:
    (sentence,) = LMTPBackend(f"unix:{tmp_path}/absent").check()
    assert sentence.startswith(f"{tmp_path}/absent: no such file or directory; ")
    assert RelayBackend("192.0.2.1").check() == []
    # Which hosts they are, each domain says.
    assert RelayBackend("mx").check() == []
