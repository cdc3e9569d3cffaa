"""What workers and who watches over them say to each other; and the file that all of them log to."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import main

from smtpfw.config.log_files import LogFile
from smtpfw.service.link import Link
from smtpfw.service.worker import VARIABLE, Task


class FakeReactor:
    def __init__(self) -> None:
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class Ends:
    """Both ends, and what was heard at the second."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.heard: list[str] = []
        self.files: list[int] = []
        self.lost = 0
        one, other = socket.socketpair()
        self.raw = one
        self.speaker = Link(self.reactor, one, lambda line, _: None, lambda: None)
        self.hearer = Link(self.reactor, other, self.told, self.gone)
        self.hearer.listen()

    def told(self, line: str, descriptors: list[int]) -> None:
        self.heard.append(line)
        if line == "log":
            self.files.append(descriptors.pop(0))

    def gone(self) -> None:
        self.lost += 1


def test_lines_come_whole_however_they_are_cut() -> None:
    ends = Ends()
    assert ends.reactor.readers == [ends.hearer]
    for octet in b"serve 1 2\nend\n":
        ends.raw.send(bytes([octet]))
        assert ends.hearer.doRead() is None
    ends.speaker.say("drain")
    ends.speaker.say("end")
    assert ends.hearer.doRead() is None
    assert ends.heard == ["serve 1 2", "end", "drain", "end"]
    # Nothing is there, and that is no end.
    assert ends.hearer.doRead() is None
    ends.raw.close()
    assert ends.hearer.doRead() is main.CONNECTION_DONE
    ends.hearer.connectionLost(None)
    assert ends.lost == 1


def test_files_come_with_their_lines(tmp_path: Path) -> None:
    ends = Ends()
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            ends.speaker.say("log", [file.fileno()])
    while len(ends.files) < 2:
        assert ends.hearer.doRead() is None
    for descriptor, text in zip(ends.files, (b"1", b"2"), strict=True):
        os.write(descriptor, text)
        os.close(descriptor)
    assert [(tmp_path / name).read_bytes() for name in ("a", "b")] == [b"1", b"2"]
    ends.raw.close()
    ends.hearer.close()


def test_who_is_gone_is_told_nothing() -> None:
    ends = Ends()
    ends.hearer.close()
    ends.speaker.say("drain")
    ends.raw.close()
    ends.speaker.say("drain")
    assert ends.reactor.readers == []


def test_a_task_is_read_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"workers = 2")
        number = file.fileno()
        os.set_inheritable(number, True)
        task = Task(number=1, workers=2, sockets=[[number]], link=number, config=number)
        environ = {VARIABLE: task.text(path=["/lib"]), "PATH": "/bin"}
        assert Task.take(environ) == task
        assert not os.get_inheritable(number)
        assert task.configuration() == task.configuration() == b"workers = 2"
    assert environ == {"PATH": "/bin"}
    assert Task.take(environ) is None


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile("log", str(tmp_path), rotateLength=10)  # type: ignore[no-untyped-call]


def test_what_others_write_counts_for_the_length_of_a_log(log: LogFile, tmp_path: Path) -> None:
    began: list[int] = []
    log.reopened.append(began.append)
    other = os.dup(log.fileno())
    log.write(b"one\n")
    os.write(other, b"other's\n")
    assert (tmp_path / "log").read_bytes() == b"one\nother's\n"
    log.write(b"two\n")
    assert (tmp_path / "log.1").read_bytes() == b"one\nother's\n"
    assert (tmp_path / "log").read_bytes() == b"two\n"
    assert began == [log.fileno()]
    os.close(other)
    log.close()


def test_nobody_writes_over_what_others_have_written(log: LogFile, tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab", buffering=0) as other:
        log.write(b"1\n")
        other.write(b"2\n")
        log.write(b"3\n")
    assert (tmp_path / "log").read_bytes() == b"1\n2\n3\n"
    log.close()
