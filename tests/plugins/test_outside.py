"""
A package of somebody else's, built and installed: its backend, check, extension, users and mechanism, by name.

It is put into an environment of its own, which borrows all else from this one; so usually nothing is downloaded.
"""

from __future__ import annotations

import base64
import os
import smtplib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.running import ROOT, Twistd

SOURCE = Path(__file__).parent / "acme_mail"
TWISTD = "from twisted.scripts.twistd import run; run()"

OPTIONS = (
    "--backend",
    r"spool:{folder}:max_message=1K:greeting=good\:day:receipts={receipts}",
    "--checks",
    "not_from:spam.example:junk.example",
    "--extensions",
    "x-mood",
    "--extensions",
    "x-receipt",
    "--extensions",
    "-SMTPUTF8",
    "--auth",
    "acme",
    "--auth-mechanisms",
    "x-acme PLAIN",
    "--allow-insecure-auth",
)

FILE = r"""
[auth]
users = "acme"

[deliver]
local = {{ plugin = "spool", folder = "{folder}", max_message = "1K", greeting = "good:day", receipts = {receipts} }}

[listen.main]
on         = ["tcp:0:interface=127.0.0.1"]
checks     = ["not_from:spam.example,junk.example"]
extensions = ["X-MOOD", "X-RECEIPT", "-SMTPUTF8"]
auth       = {{ use = "users", required = false, mechanisms = "X-ACME PLAIN", allow_insecure = true }}
routes     = [ {{ to = "example.org", deliver = "local" }} ]
"""


#: The same values in a client of ours: what it was offered, a verb, and a message.
CLIENT = """
import sys

from acme.words import GENTLY, MOOD, RECEIPT, Mood, Receipt
from twisted.internet.task import react

from smtpfw import connect
from smtpfw.errors import ExtensionMissing
from smtpfw.extensions import CLIENT


async def send(reactor, port):
    client = await connect(f"127.0.0.1:{port}", extensions=[*CLIENT, Mood(), Receipt()])
    print(client.extension("X-MOOD"), client.extension("X-RECEIPT"))
    print((await client.command("XSUN")).text)
    try:
        await client.mail("me@example.com", {MOOD: 3, RECEIPT: True})
    except ExtensionMissing as error:
        print("missing:", error.keyword)
        await client.mail("me@example.com", {MOOD: 3})
    await client.rcpt("you@example.org", {GENTLY: True})
    print((await client.data(b"Subject: hello\\r\\n\\r\\nIt works.\\r\\n")).text)
    await client.quit()


react(send, sys.argv[1:])
"""


def pip(python: str, source: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", *more, str(source)]
    return subprocess.run(command, cwd=source.parent, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment that has the package."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    (packages,) = (home / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    source = home / "source"
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(SOURCE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    here = pip(python, source, "--no-build-isolation")
    if here.returncode:
        # An old setuptools without the package wheel; pip fetches a new one, if it can.
        fetched = pip(python, source)
        if fetched.returncode:
            pytest.skip(f"nothing can be built here: {(here.stderr + fetched.stderr).strip().splitlines()[-1]}")
    return python


class Server(Twistd):
    """The same in that environment."""

    def __init__(self, python: str, *words: str, folder: Path) -> None:
        super().__init__(*words, folder=folder)
        listen = () if "--config" in words else ("--listen", "tcp:0:interface=127.0.0.1")
        self._command = [python, "-c", TWISTD, "-n", "--pidfile=", "smtpfw", *listen, *words]


def listing(python: str, topic: str) -> str:
    done = subprocess.run(
        [python, "-c", TWISTD, "smtpfw", f"--help-{topic}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=Path(python).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def words_of(written: str, tmp_path: Path, *, receipts: bool) -> tuple[list[str], Path]:
    """What a server is started with, and where its spool is."""
    folder = tmp_path / "spool"
    folder.mkdir()
    if written == "file":
        (tmp_path / "smtpfw.toml").write_text(FILE.format(folder=folder, receipts="true" if receipts else "false"))
        return ["--config", "smtpfw.toml"], folder
    return [word.format(folder=folder, receipts="yes" if receipts else "no") for word in OPTIONS], folder


@pytest.mark.parametrize("written", ["options", "file"])
def test_mail_goes_through_all_of_it(python: str, written: str, tmp_path: Path) -> None:
    words, folder = words_of(written, tmp_path, receipts=True)
    with Server(python, *words, folder=tmp_path) as server:
        with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.example", timeout=30) as client:
            client.ehlo()
            assert client.esmtp_features["x-mood"] == "SUN RAIN"
            assert client.esmtp_features["x-receipt"] == ""
            assert client.esmtp_features["auth"].split() == ["X-ACME", "PLAIN"]
            assert "smtputf8" not in client.esmtp_features
            assert client.docmd("XSUN") == (250, b"2.0.0 shining")
            assert client.docmd("AUTH X-ACME", base64.b64encode(b"\0tim\0tim").decode())[0] == 535
            assert client.docmd("AUTH X-ACME", base64.b64encode(b"\0tim\0mit").decode())[0] == 235
            for domain in ("spam.example", "junk.example"):
                assert client.mail(f"me@{domain}") == (550, b"5.7.1 Not from there")
            assert client.mail("me@example.com", ["MOOD=x"]) == (501, b"5.5.4 MOOD must be a number")
            assert client.mail("me@example.com", ["MOOD=7", "RECEIPT"])[0] == 250
            assert client.rcpt("you@example.org", ["GENTLY"])[0] == 250
            assert client.data("Subject: hello\r\n\r\nIt works.\r\n") == (250, b"2.0.0 Kept as 0")
            client.mail("me@example.com")
            client.rcpt("you@example.org")
            assert client.data("x" * 2000)[0] == 552
        assert server.stop() == 0
    (kept,) = folder.iterdir()
    head, _, message = kept.read_bytes().partition(b"Subject: ")
    assert head.startswith(b"Greeting: good:day\r\nMood: 7\r\nGently: True\r\nReceipt: True\r\n")
    assert message == b"hello\r\n\r\nIt works.\r\n"
    assert "Checked first: No mail from spam.example, junk.example" in server.log


@pytest.mark.parametrize("written", ["options", "file"])
def test_a_promise_that_its_backend_does_not_make(python: str, written: str, tmp_path: Path) -> None:
    words, _ = words_of(written, tmp_path, receipts=False)
    with Server(python, *words, folder=tmp_path) as server:
        with smtplib.SMTP("127.0.0.1", server.port, local_hostname="client.example", timeout=30) as client:
            client.ehlo()
            assert "x-receipt" not in client.esmtp_features
            assert client.esmtp_features["x-mood"] == "SUN RAIN"
            unknown = (555, b"5.5.4 RECEIPT is not recognized or not offered here")
            assert client.mail("me@example.com", ["RECEIPT"]) == unknown
        assert server.stop() == 0


@pytest.mark.parametrize("receipts", [True, False])
def test_the_same_values_in_a_client(python: str, receipts: bool, tmp_path: Path) -> None:
    words, folder = words_of("options", tmp_path, receipts=receipts)
    with Server(python, *words, folder=tmp_path) as server:
        done = subprocess.run(
            [python, "-c", CLIENT, str(server.port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert server.stop() == 0
    assert done.returncode == 0, done.stderr
    offered = ["SUN RAIN "] if receipts else ["SUN RAIN None"]
    missing = [] if receipts else ["missing: X-RECEIPT"]
    assert done.stdout.splitlines() == [*offered, "shining", *missing, "Kept as 0"]
    (kept,) = folder.iterdir()
    head = f"Greeting: good:day\r\nMood: 3\r\nGently: True\r\nReceipt: {receipts}\r\n".encode()
    assert kept.read_bytes() == head + b"Subject: hello\r\n\r\nIt works.\r\n"


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (
            "backends",
            [
                "  spool:FOLDER[:max_message=SIZE][:greeting=TEXT][:receipts=yes|no]\n"
                "      Keeps each message in a file of a folder.\n",
                "        max_message  SIZE\n",
                "      from: acme-mail 1.2, {packages}/twisted/plugins/acme_plugin.py\n",
                "  broken\n      the backend broken of acme-mail 1.2, entry point broken = acme.absent:Nothing can't "
                "be used: ModuleNotFoundError: No module named 'acme.absent'\n",
                "  discard\n      Accepts mail and throws it away.\n      from: built in\n",
            ],
        ),
        (
            "checks",
            [
                "  not_from:DOMAIN[:DOMAIN...]\n      Refuses mail from some domains.\n        domains  TEXT,...\n"
                "      from: acme-mail 1.2, entry point not_from = acme.checks:NOT_FROM\n"
            ],
        ),
        (
            "auth",
            [
                "  acme(username, password)\n      Everybody whose password is the name, backwards.\n",
                "      from: acme-mail 1.2, entry point acme = acme.users:check\n",
            ],
        ),
        (
            "extensions",
            [
                "  X-MOOD(words='SUN RAIN')\n      MAIL and RCPT may say in which mood.\n      from: acme-mail 1.2, ",
                "  X-RECEIPT()\n      The sender gets a receipt, where the backend writes some.\n",
            ],
        ),
        ("mechanisms", ["  X-ACME\n      For a checker that is an IPasswordChecker.\n"]),
    ],
)
def test_the_lists_name_it(python: str, topic: str, expected: list[str]) -> None:
    (packages,) = (Path(python).parent.parent / "lib").glob("python*/site-packages")
    said = listing(python, topic)
    for text in expected:
        assert text.format(packages=packages.resolve()) in said


def test_what_is_broken_harms_who_asks_for_it_only(python: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-c", TWISTD, "-n", "smtpfw", "--backend", "broken"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "smtpfw: --backend broken: the backend broken of acme-mail 1.2, entry point broken = acme.absent:Nothing can't "
        "be used: ModuleNotFoundError: No module named 'acme.absent'\n"
    )
