"""
Every example, run as its docstring says, by the process that a reader would start: real mail, and what came of it.
"""

import ast
import os
import pwd
import re
import shlex
import smtplib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.running import ROOT, Twistd

EXAMPLES = ROOT / "examples"
TWISTD = ["twistd", "-n", "smtpfw"]


def command_of(path: Path) -> list[str]:
    """The command in an example's docstring: the indented line behind a double colon."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    _, _, behind = docstring.partition("::\n\n")
    return shlex.split(behind.splitlines()[0])


class Example(Twistd):
    """
    An example in a process of its own, on a free port instead of 2525.

    :param next_hop: a server behind it, for an example that expects one on port 10026.
    """

    def __init__(self, name: str, folder: Path, next_hop: Twistd | None = None) -> None:
        command = command_of(EXAMPLES / name)
        if next_hop is not None:
            self.next_hop = next_hop
            command = [word.replace(":10026:", f":{next_hop.port}:") for word in command]
        if command[: len(TWISTD)] == TWISTD:
            super().__init__(*command[len(TWISTD) :], folder=folder)
        else:
            super().__init__(folder=folder)
            assert command == ["python", f"examples/{name}"]
            self._command = [sys.executable, str(EXAMPLES / name), "0"]

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=30)


def make_message(text: str = "It works.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "me@example.com"
    message["Subject"] = "Grüße"
    message.set_content(text)
    return message


def send(client: smtplib.SMTP, *recipients: str) -> dict[str, tuple[int, bytes]]:
    return client.send_message(make_message(), to_addrs=recipients)


def check_inbox(example: Example, folder: Path) -> None:
    with example.client() as client:
        refused = send(client, "bob@Example.ORG", "postmaster", "bob@example.net")
    assert refused == {"bob@example.net": (550, b"5.7.1 We take mail for example.org only")}
    assert example.stop() == 0
    assert "me@example.com writes about 'Grüße'" in example.log


def check_discard_server(example: Example, folder: Path) -> None:
    with example.client() as client:
        assert send(client, "anybody@example.org") == {}
        client.ehlo()
        # An idle client is told that the server stops.
        assert example.stop() == 0
        assert client.getreply()[0] == 421
        client.close()


def check_refuse_recipients(example: Example, folder: Path) -> None:
    somebody = pwd.getpwuid(0).pw_name
    with example.client() as client:
        refused = send(client, f"{somebody}@localhost", "postmaster", "no-such-user-here@localhost")
    assert refused == {"no-such-user-here@localhost": (550, b"5.1.1 No such mailbox here")}
    assert example.stop() == 0


def check_stream_to_disk(example: Example, folder: Path) -> None:
    message = make_message("A line that comes often.\n" * 100_000)
    with example.client() as client:
        assert client.send_message(message, to_addrs=["bob@example.org"]) == {}
        # A second one breaks off in the middle, and leaves nothing.
        client.ehlo()
        client.mail("me@example.com")
        client.rcpt("bob@example.org")
        client.docmd("DATA")
        client.send(b"half of a line")
        client.close()
    assert example.stop() == 0
    (stored,) = (folder / "messages").iterdir()
    assert stored.suffix == ".eml"
    octets = stored.read_bytes()
    assert octets.endswith(b"A line that comes often.\r\n" * 100_000)
    assert b"Subject: =?utf-8?" in octets


def check_mux_to_maildirs(example: Example, folder: Path) -> None:
    with example.client() as client:
        refused = send(client, "bob@Example.ORG", "postmaster", "orders@example.org", "bob@example.net")
        assert refused == {"bob@example.net": (550, b"5.1.1 No such mailbox here")}
        message = make_message()
        del message["Subject"]
        with pytest.raises(smtplib.SMTPDataError, match="An order needs a subject"):
            client.send_message(message, to_addrs=["bob@example.org", "orders@example.org"])
    assert example.stop() == 0
    assert "An order: Grüße" in example.log
    stored = sorted(path.relative_to(folder) for path in folder.rglob("messages/*/*/*"))
    assert [path.parts[1:3] for path in stored] == [("bob", "new"), ("postmaster", "new")]


def check_own_extension(example: Example, folder: Path) -> None:
    with example.client() as client:
        client.ehlo()
        assert client.has_extn("xticket")
        assert client.mail("me@example.com", ["XTICKET=4711"]) == (250, b"2.1.0 about ticket 4711")
        client.rset()
        assert client.mail("me@example.com", ["XTICKET=soon"]) == (501, b"5.5.4 XTICKET must be a number")
        assert send(client, "bob@example.org") == {}
    assert example.stop() == 0


def check_handler_sqlite(example: Example, folder: Path) -> None:
    with example.client() as client:
        assert send(client, "bob@example.org") == {}
        client.mail("")
        client.rcpt("bob@example.org")
        client.rcpt("postmaster")
        assert client.data("It works.\n") == (250, b"2.0.0 stored as 2")
    assert example.stop() == 0
    assert "Each message goes to examples.handler_sqlite.store, once it is there" in example.log
    with closing(sqlite3.connect(folder / "mail.db")) as database:
        (one, two) = database.execute("SELECT * FROM mail")
    assert one[:2] == ("me@example.com", "bob@example.org")
    received, _, rest = one[2].partition(b"\r\nFrom: me@example.com\r\n")
    assert re.fullmatch(
        rb"Received: from client\.example (.|\r\n\t)*\r\n\tfor <bob@example\.org>;\r\n\t[\w ,:+-]*", received
    )
    assert rest.endswith(b"\r\nIt works.\r\n")
    assert two[:2] == ("", "bob@example.org postmaster")
    assert two[2].endswith(b"\r\nIt works.\r\n") and b" for " not in two[2]


def check_content_filter(example: Example, folder: Path) -> None:
    with example.client() as client:
        assert send(client, "bob@example.org", "postmaster") == {}
        # What the filter and the server behind it have said.
        client.ehlo()
        client.mail("me@example.com")
        client.rcpt("bob@example.org")
        assert client.data("Subject: you have won\n\nthe Lottery\n")[0] == 250
        virus = make_message("X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\n")
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.send_message(virus, to_addrs=["bob@example.org"])
        assert (caught.value.smtp_code, caught.value.smtp_error) == (554, b"5.0.0 There is a virus in it")
        (stored,) = (folder / "behind" / "Maildir" / "new").iterdir()
        front, _, rest = stored.read_bytes().partition(b"\r\nX-Checked: yes\r\n")
        assert front.count(b"Received: ") == 2 and rest.endswith(b"\r\n\r\nIt works.\r\n")
        (aside,) = (folder / "Quarantine" / "new").iterdir()
        assert aside.read_bytes().endswith(b"\r\nSubject: you have won\r\n\r\nthe Lottery\r\n")
        assert example.next_hop.stop() == 0
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send(client, "bob@example.org")
        assert refused.value.smtp_code == 451
    assert example.stop() == 0
    assert "Each message is shown to judge first." in example.log
    assert len(list(folder.rglob("new/*"))) == 2


def check_own_check(example: Example, folder: Path) -> None:
    with example.client() as client:
        assert send(client, "bob@example.org", "No-Such-User@example.org") == {
            "No-Such-User@example.org": (550, b"5.1.1 No such mailbox here")
        }
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        example.client()
    assert (caught.value.smtp_code, caught.value.smtp_error) == (554, b"5.7.1 You have written to our trap")
    assert example.stop() == 0


CHECKS: dict[str, Callable[[Example, Path], None]] = {
    "content_filter.py": check_content_filter,
    "discard_server.py": check_discard_server,
    "handler_sqlite.py": check_handler_sqlite,
    "inbox.py": check_inbox,
    "own_check.py": check_own_check,
    "mux_to_maildirs.py": check_mux_to_maildirs,
    "own_extension.py": check_own_extension,
    "refuse_recipients.py": check_refuse_recipients,
    "stream_to_disk.py": check_stream_to_disk,
}


#: Those that pass mail on.
WITH_NEXT_HOP = {"content_filter.py"}


class Sender:
    """
    An example that sends, run to its end as its docstring says, with a server on a free port.

    :ivar stored: the messages that the server has taken since, as texts.
    """

    def __init__(self, name: str, folder: Path) -> None:
        command = command_of(EXAMPLES / name)
        assert command[:2] == ["python", f"examples/{name}"]
        self._path = str(EXAMPLES / name)
        self._arguments = command[2:]
        self._folder = folder

    def run(self, port: int, text: str, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = [word.replace(":2525", f":{port}") for word in self._arguments]
        return subprocess.run(
            [sys.executable, self._path, *arguments, *more],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def stored(self) -> list[str]:
        return [path.read_text() for path in (self._folder / "Maildir" / "new").glob("*")]


MESSAGE = "Subject: hello\n\nIt works.\n"


def check_send_a_message(sender: Sender, server: Twistd) -> None:
    done = sender.run(server.port, MESSAGE, "bob@example.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Sent to you@example.org, bob@example.org: ")
    (stored,) = sender.stored
    assert stored.endswith("\nSubject: hello\n\nIt works.\n")
    server.stop()
    done = sender.run(server.port, MESSAGE)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Try again later: 127\.0\.0\.1:\d+: CONNECT: .*\n", done.stderr)


def check_send_many(sender: Sender, server: Twistd) -> None:
    people = [f"{number}@example.org" for number in range(50)]
    done = sender.run(server.port, "\n".join([*people, "nobody", ""]))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"nobody: .*\n", done.stdout)
    assert sorted(re.findall(r"^To: (.*)$", "".join(sender.stored), re.MULTILINE)) == sorted(people)
    server.stop()
    assert 1 <= server.log.count(": connected from ") <= 3


def check_send_to_mx(sender: Sender, server: Twistd) -> None:
    done = sender.run(server.port, MESSAGE, str(server.port))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[127.0.0.1]: ")
    assert len(sender.stored) == 1
    server.stop()
    done = sender.run(server.port, MESSAGE, str(server.port))
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr


#: Those that send.
SENDERS: dict[str, Callable[[Sender, Twistd], None]] = {
    "send_a_message.py": check_send_a_message,
    "send_many.py": check_send_many,
    "send_to_mx.py": check_send_to_mx,
}


def test_no_example_is_left_out() -> None:
    assert sorted([*CHECKS, *SENDERS]) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", CHECKS)
def test_example(name: str, tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    behind.mkdir()
    with ExitStack() as stack:
        next_hop = stack.enter_context(Twistd(folder=behind)) if name in WITH_NEXT_HOP else None
        example = stack.enter_context(Example(name, tmp_path, next_hop))
        CHECKS[name](example, tmp_path)
    assert "Traceback" not in example.log


@pytest.mark.parametrize("name", SENDERS)
def test_example_that_sends(name: str, tmp_path: Path) -> None:
    with Twistd(folder=tmp_path) as server:
        SENDERS[name](Sender(name, tmp_path), server)


@pytest.mark.parametrize("name", [*CHECKS, *SENDERS])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 50
