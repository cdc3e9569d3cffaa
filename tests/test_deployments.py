"""
The files in examples/deployments, each served by twistd as it stands, but for ports, paths, certificates and the user;
and what their comments say, shown with real mail.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import smtplib
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.certificates import write_pair
from tests.interop.postfix import MAIL_OWNER, Postfix, unpacked_postfix
from tests.interop.servers.packages import PeerMissing
from tests.running import ROOT, Twistd

DEPLOYMENTS = ROOT / "examples" / "deployments"
TIMEOUT = 30.0

#: File -> what stands there -> what stands there in the test. In braces is what the test says.
INSTEAD: dict[str, dict[str, str]] = {
    "dev_catch_all.toml": {
        "tcp:2525:interface=127.0.0.1": "tcp:0:interface=127.0.0.1",
    },
    "mx_to_maildir.toml": {
        '"tcp6:25"': '"tcp:0:interface=127.0.0.1"',
        '"/etc/smtpfw/certs"': '"{folder}/certs"',
        '"maildir:/var/mail/': '"maildir:{folder}/mail/',
        'user     = "smtpfw"': 'user = "{user}"',
    },
    "submission.toml": {
        '"tcp6:587"': '"tcp:0:interface=127.0.0.1"',
        '"smtps:tcp6:465"': '"smtps:tcp:0:interface=127.0.0.1"',
        '"smtps:smtp.isp.example:465"': '"smtps:127.0.0.1:{port}"\nca = "{ca}"\ntls_name = "localhost"',
        "/etc/smtpfw/": "{folder}/",
        'user     = "smtpfw"': 'user = "{user}"',
    },
    "lmtp_agent.toml": {
        '"unix:/var/spool/postfix/smtpfw/': '"tcp:0:interface=127.0.0.1", "unix:{queue}/smtpfw/',
        '"maildir:/var/mail/': '"maildir:{folder}/mail/',
        'user     = "smtpfw"': 'user = "{user}"',
    },
}


class Deployment(Twistd):
    """
    A file, served.

    :param name: of the file.
    :param folder: where it runs.
    :param listeners: how many listeners of TCP there are.
    :param values: what stands for the names in braces, beside ``folder``, ``queue`` and ``user``.
    """

    def __init__(self, name: str, folder: Path, listeners: int = 1, **values: object) -> None:
        text = (DEPLOYMENTS / name).read_text()
        values = {"folder": folder, "queue": folder, "user": getpass.getuser(), **values}
        for before, after in INSTEAD[name].items():
            if before in text:
                text = text.replace(before, re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), after))
        path = folder / name
        path.write_text(text)
        super().__init__("--config", str(path), folder=folder, listeners=listeners)
        done = subprocess.run(
            [*self._command, "--check"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def client(self) -> smtplib.SMTP:
        return smtplib.SMTP("localhost", self.port, local_hostname="client.example", timeout=TIMEOUT)


def send(client: smtplib.SMTP, *recipients: str, sender: str = "me@client.example") -> dict[str, str]:
    """Who was refused, and with which codes."""
    message = EmailMessage()
    message["From"] = sender
    message["Subject"] = "hello"
    message.set_content("It works.\n")
    refused: Mapping[str, tuple[int, bytes]]
    try:
        refused = client.send_message(message, from_addr=sender, to_addrs=recipients)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
    return {name: f"{code} {text.decode().split()[0]}" for name, (code, text) in refused.items()}


def stored(folder: Path) -> list[bytes]:
    """The messages of a Maildir."""
    return [path.read_bytes() for path in folder.glob("new/*")]


def counts(folder: Path) -> dict[str, int]:
    """How many messages there are in each Maildir of a folder that has some."""
    return {path.name: len(stored(path)) for path in folder.iterdir() if stored(path)}


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """In a folder, as the deployments want it."""
    folder = tmp_path / "certs"
    folder.mkdir()
    return write_pair(folder)


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    """What a client trusts: that certificate, and no other."""
    return ssl.create_default_context(cafile=str(certificate))


def test_all_are_here_and_say_how_to_run_them() -> None:
    assert sorted(INSTEAD) == sorted(path.name for path in DEPLOYMENTS.iterdir())
    for name, instead in INSTEAD.items():
        text = (DEPLOYMENTS / name).read_text()
        assert re.search(rf"^#     twistd -n smtpfw --config \S+/{name}$", text, re.MULTILINE)
        assert re.search(r"^# (Change: |Point your program )", text, re.MULTILINE)
        for before in instead:
            assert before in text, before
        # Nothing else leads out of the test.
        values = [line for line in text.splitlines() if not line.startswith("#")]
        for before in instead:
            values = [line.replace(before, "") for line in values]
        assert not re.search(r'"[^"]*(/etc|/var|/run|\b(25|465|587)\b)', re.sub("#.*", "", "\n".join(values)))
        tomllib.loads(text)


def test_dev_catch_all(tmp_path: Path) -> None:
    with Deployment("dev_catch_all.toml", tmp_path) as served:
        with served.client() as client:
            client.ehlo()
            assert not client.has_extn("starttls") and not client.has_extn("auth")
            assert send(client, "anybody@example.com", "someone@else.example", "postmaster", "me@localhost") == {}
            assert send(client, "lost@example.com") == {}
            refused = send(client, "full@example.com", "nobody@example.net", "me@example.com")
            assert refused == {"full@example.com": "452 4.2.2", "nobody@example.net": "550 5.1.1"}
        assert served.stop() == 0
    assert "Traceback" not in served.log
    assert len(stored(tmp_path / "Caught")) == 2
    assert all(octets.endswith(b"\r\n\r\nIt works.\r\n") for octets in stored(tmp_path / "Caught"))


@pytest.fixture
def mx(tmp_path: Path, certificate: Path) -> Iterator[Deployment]:
    for name in ("tim", "tim+family"):
        (tmp_path / "mail" / "example.org" / name).mkdir(parents=True)
    with Deployment("mx_to_maildir.toml", tmp_path) as served:
        yield served
        assert served.stop() == 0
    assert "Traceback" not in served.log


def test_mx_to_maildir(mx: Deployment, tmp_path: Path, trusting: ssl.SSLContext) -> None:
    with mx.client() as client:
        client.starttls(context=trusting)
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.esmtp_features["size"] == str(25 * 1024 * 1024)
        refused = send(
            client,
            *("tim@example.org", "Tim+lists@Example.ORG", "tim+family@example.org", "postmaster", "abuse@example.org"),
            *("noreply@example.org", "old-shop@example.org", "stranger@example.org", "someone@example.com"),
        )
    assert refused == {
        "old-shop@example.org": "550 5.1.6",
        "stranger@example.org": "550 5.1.1",
        "someone@example.com": "550 5.7.1",
    }
    box = tmp_path / "mail" / "example.org"
    assert counts(box) == {"tim": 1, "tim+family": 1, "admin": 1}
    (one,) = stored(box / "admin")
    assert b"\r\n\tby mx.example.org with ESMTPS" in one


def test_the_checks_of_the_mx(mx: Deployment, tmp_path: Path) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", mx.port), TIMEOUT)) for _ in range(12)]
        # One of them does not wait for the greeting.
        clients[0].sendall(b"EHLO robot.example\r\n")
        greetings = sorted(client.recv(4096)[:9] for client in clients)
    assert greetings == [b"220 mx.ex"] * 10 + [b"421 4.7.0", b"554 5.5.1"]
    with mx.client() as client:
        client.ehlo()
        accepted = 0
        while (code := client.mail("me@client.example")[0]) == 250:
            assert client.rcpt("tim@example.org")[0] == 250
            assert client.data(b"Subject: many\r\n\r\n")[0] == 250
            accepted += 1
    assert code == 450
    # And one more for each second that it took.
    assert accepted >= 60
    assert counts(tmp_path / "mail" / "example.org") == {"tim": accepted}


@pytest.fixture
def smarthost(tmp_path: Path) -> Iterator[Twistd]:
    """A server that relays for those who know its password, by TLS from the first octet."""
    folder = tmp_path / "smarthost"
    folder.mkdir()
    add_user(folder / "users", "account", "secret of ours")
    options = ("--tls", str(write_pair(folder)), "--auth", f"htpasswd:{folder}/users", "--require-auth")
    with Twistd("--listen", "smtps:tcp:0:interface=127.0.0.1", *options, folder=folder) as served:
        yield served


def add_user(path: Path, name: str, password: str) -> None:
    command = [sys.executable, "-m", "smtpfw.sasl.users", str(path), name, "--stdin"]
    subprocess.run(command, input=f"{password}\n", text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_submission(tmp_path: Path, smarthost: Twistd, certificate: Path, trusting: ssl.SSLContext) -> None:
    add_user(tmp_path / "users", "tim", "tim's own")
    (tmp_path / "isp.secret").write_text("account:secret of ours\n")
    sent = tmp_path / "smarthost" / "Maildir"
    values = {"port": smarthost.port, "ca": tmp_path / "smarthost" / "server.pem"}
    with Deployment("submission.toml", tmp_path, 2, **values) as served:
        with served.client() as client:
            # In clear there is nothing to log in with, and without a login no mail.
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.mail("tim@example.org")[0] == 530
            client.starttls(context=trusting)
            client.ehlo()
            assert client.mail("tim@example.org")[0] == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("tim", "a guess")
            client.login("tim", "tim's own")
            assert send(client, "you@example.com", "postmaster@example.net", sender="tim@example.org") == {}
            with pytest.raises(smtplib.SMTPSenderRefused, match="553"):
                send(client, "you@example.com", sender="boss@example.org")
        (octets,) = stored(sent)
        assert octets.count(b"\r\nReceived: ") + octets.startswith(b"Received: ") == 2
        assert re.search(rb"\r\n\tby smtp\.example\.org with ESMTPSA ", octets)
        # A mail program that leaves them to the server has them added.
        assert re.search(rb"\r\nMessage-ID: <[^>]+@smtp\.example\.org>\r\n", octets)
        assert b"\r\nDate: " in octets
        with smtplib.SMTP_SSL(
            "localhost", served.ports[1], "client.example", timeout=TIMEOUT, context=trusting
        ) as client:
            client.login("tim", "tim's own")
            for _ in range(99):
                assert client.mail("tim@example.org")[0] == 250
                assert client.rcpt("you@example.com")[0] == 250
                assert client.data(b"Subject: many\r\n\r\n")[0] == 250
            assert client.mail("tim@example.org")[0] == 450
        assert len(stored(sent)) == 100
        add_user(tmp_path / "users", "ann", "ann's own")
        assert smarthost.stop() == 0
        with smtplib.SMTP_SSL(
            "localhost", served.ports[1], "client.example", timeout=TIMEOUT, context=trusting
        ) as client:
            # Who was added meanwhile gets in; and hears that the smarthost is down.
            client.login("ann", "ann's own")
            assert client.mail("ann@example.org")[0] == 250
            assert client.rcpt("you@example.com")[0] == 451
        assert served.stop() == 0
    assert "Traceback" not in served.log
    assert "secret of ours" not in served.log and "tim's own" not in served.log


def test_lmtp_agent(tmp_path: Path) -> None:
    (tmp_path / "smtpfw").mkdir()
    boxes = tmp_path / "mail" / "example.org"
    for name in ("postmaster", "tim"):
        (boxes / name).mkdir(parents=True)
    with Deployment("lmtp_agent.toml", tmp_path) as served:
        path = tmp_path / "smtpfw" / "lmtp.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with smtplib.LMTP(str(path), timeout=TIMEOUT) as client:
            client.ehlo()
            client.mail("")
            known = ("tim@example.org", "Tim+lists@example.org", "postmaster@example.org")
            assert [client.rcpt(recipient)[0] for recipient in known] == [250, 250, 250]
            unknown = [client.rcpt(recipient) for recipient in ("stranger@example.org", "me@else.example")]
            assert [(code, text[:5]) for code, text in unknown] == [(550, b"5.1.1"), (550, b"5.7.1")]
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(b"Subject: hello\r\n\r\nIt works.\r\n.\r\n")
            assert [client.getreply()[0] for _ in range(3)] == [250, 250, 250]
        assert served.stop() == 0
        assert not path.exists()
    assert "Traceback" not in served.log
    assert counts(boxes) == {"tim": 1, "postmaster": 1}


def test_lmtp_agent_behind_postfix() -> None:
    """As its comments say: the folder of the socket is ours and Postfix's group's, and nobody else gets in."""
    with ExitStack() as stack:
        # Not pytest's own folder, which is root's alone.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deployment-")))
        try:
            root = stack.enter_context(unpacked_postfix())
        except PeerMissing as error:
            pytest.skip(str(error))
        folder.chmod(0o755)
        aliases = {"info@alias.example": "tim+info@example.org"}
        postfix = stack.enter_context(Postfix(root, Path("smtpfw/lmtp.sock"), aliases))
        queue = postfix._folder / "queue"
        (queue / "smtpfw").mkdir()
        shutil.chown(queue / "smtpfw", "nobody", MAIL_OWNER)
        (queue / "smtpfw").chmod(0o2750)
        boxes = folder / "mail" / "example.org"
        for name in ("postmaster", "tim"):
            (boxes / name).mkdir(parents=True)
            shutil.chown(boxes / name, "nobody")
        served = stack.enter_context(Deployment("lmtp_agent.toml", folder, queue=queue, user="nobody"))
        recipients = ["tim@example.org", "info@alias.example", "postmaster@example.org", "stranger@example.org"]
        id = postfix.submit("me@client.example", recipients, b"Subject: hello\n\nIt works.\n")
        outcomes = {one.recipient: f"{one.status} {one.dsn}" for one in postfix.deliveries(id, 4)}
        assert outcomes == {
            "tim@example.org": "sent 2.0.0",
            "tim+info@example.org": "sent 2.0.0",
            "postmaster@example.org": "sent 2.0.0",
            "stranger@example.org": "bounced 5.1.1",
        }
        assert served.stop() == 0
        assert "Traceback" not in served.log
        assert list((queue / "smtpfw").iterdir()) == []
        assert counts(boxes) == {"tim": 1, "postmaster": 1}
        (path,) = (boxes / "tim").glob("new/*")
        assert path.owner() == "nobody"
