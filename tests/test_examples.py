"""
Every example, run as its docstring says, by the process that a reader would start: real mail, and what came of it.
"""

import ast
import pwd
import re
import shlex
import smtplib
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
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
    """An example in a process of its own, on a free port instead of 2525."""

    def __init__(self, name: str, folder: Path) -> None:
        command = command_of(EXAMPLES / name)
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
    "discard_server.py": check_discard_server,
    "handler_sqlite.py": check_handler_sqlite,
    "inbox.py": check_inbox,
    "own_check.py": check_own_check,
    "mux_to_maildirs.py": check_mux_to_maildirs,
    "own_extension.py": check_own_extension,
    "refuse_recipients.py": check_refuse_recipients,
    "stream_to_disk.py": check_stream_to_disk,
}


def test_no_example_is_left_out() -> None:
    assert sorted(CHECKS) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", CHECKS)
def test_example(name: str, tmp_path: Path) -> None:
    with Example(name, tmp_path) as example:
        CHECKS[name](example, tmp_path)
    assert "Traceback" not in example.log


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 50
