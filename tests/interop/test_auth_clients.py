"""Clients that people have authenticate: each by every mechanism that it knows, over STARTTLS and implicit TLS."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpfw.sasl.users import make_secret
from tests.certificates import write_pair
from tests.interop.test_clients import RECIPIENT, SENDER, run
from tests.running import Twistd

USER, PASSWORD = "tim", "tanstaaftanstaaf"


@pytest.fixture(scope="module")
def keys() -> str:
    return make_secret(PASSWORD, "scram-sha-256")


@pytest.fixture
def server(tmp_path: Path, keys: str) -> Iterator[Twistd]:
    (tmp_path / "users").write_text(f"{USER}:{keys}\n")
    yield from serve(tmp_path, f"htpasswd:{tmp_path}/users")


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[Twistd]:
    """Knows the password itself, for CRAM-MD5."""
    (tmp_path / "authsecrets").mkdir()
    (tmp_path / "authsecrets" / "users.py").write_text(SECRETS)
    yield from serve(tmp_path, "authsecrets.users:users", "--python-path", str(tmp_path))


SECRETS = f'''
from zope.interface import implementer

from smtpfw.sasl import ISecretStore


@implementer(ISecretStore)
class Users:
    def get_secret(self, username):
        return "{PASSWORD}" if username == "{USER}" else None


users = Users()
'''


def serve(folder: Path, checker: str, *arguments: str) -> Iterator[Twistd]:
    pem = write_pair(folder)
    options = ("--tls", str(pem), "--hostname", "localhost", "--auth", checker, "--require-auth", "--backend", "memory")
    with Twistd(*options, *arguments, folder=folder) as running:
        yield running


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(server: Twistd, mechanism: str) -> None:
    address = f"127.0.0.1:{server.port}"
    login = ("-a", mechanism, "-au", USER, "-ap", PASSWORD)
    run("swaks", "--server", address, "--from", SENDER, "--to", RECIPIENT, "--tls", *login)


def test_swaks_cram_md5(open_server: Twistd) -> None:
    address = f"127.0.0.1:{open_server.port}"
    login = ("-a", "CRAM-MD5", "-au", USER, "-ap", PASSWORD)
    run("swaks", "--server", address, "--from", SENDER, "--to", RECIPIENT, "--tls", *login)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl(server: Twistd, tmp_path: Path, mechanism: str) -> None:
    (tmp_path / "m.eml").write_bytes(b"Subject: x\r\n\r\ntext\r\n")
    login = ("-u", f"{USER}:{PASSWORD}", "--login-options", f"AUTH={mechanism}")
    where = f"smtp://127.0.0.1:{server.port}/client.example.net"
    mail = ("--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "-T", str(tmp_path / "m.eml"))
    run("curl", "-sS", "--ssl-reqd", "--insecure", *login, where, *mail)


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256"])
def test_msmtp(server: Twistd, mechanism: str) -> None:
    host = ("--file=/dev/null", "--host=127.0.0.1", f"--port={server.port}", f"--from={SENDER}")
    tls = ("--tls=on", "--tls-starttls=on", "--tls-certcheck=off")
    login = (f"--auth={mechanism}", f"--user={USER}", f"--passwordeval=echo {PASSWORD}")
    run("msmtp", *host, *tls, *login, RECIPIENT, octets=b"Subject: x\n\ntext\n")


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_smtplib(server: Twistd, mechanism: str) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.starttls(context=context)
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        assert client.auth(mechanism, getattr(client, f"auth_{mechanism}"))[0] == 235
        assert client.sendmail(SENDER, [RECIPIENT], b"Subject: x\r\n\r\ntext\r\n") == {}


def test_smtplib_with_a_wrong_password(server: Twistd) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo()
        client.user, client.password = USER, "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.auth("plain", client.auth_plain)
        assert caught.value.smtp_code == 535
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail(SENDER, [RECIPIENT], b"x")
        assert refused.value.smtp_code == 530


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
def test_gsasl(tmp_path: Path, keys: str, mechanism: str) -> None:
    """GNU SASL: an implementation of SCRAM that shares nothing with ours. On a clear line: its STARTTLS omits EHLO."""
    (tmp_path / "users").write_text(f"{USER}:{keys}\n")
    for server in serve(tmp_path, f"htpasswd:{tmp_path}/users", "--allow-insecure-auth"):
        where = ("--smtp", f"--connect=127.0.0.1:{server.port}", "--no-starttls", "--no-cb")
        login = ("-m", mechanism, "-a", USER, "-p", PASSWORD)
        output = run("gsasl", *where, *login)
        assert "235 2.7.0" in output
        assert "250 2.1.0" not in output
