"""
Clients that people have authenticate: each by every mechanism that it knows, over STARTTLS and over implicit TLS.

A row of the table is a client, a mechanism and a way to TLS. Each is run twice
against the same servers: with the right secret the server has seen that
mechanism and that identity; with a wrong one it has said 535 and taken nothing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from smtpfw.sasl.users import make_secret
from tests.certificates import write_pair
from tests.interop.client_certificates import Authority
from tests.interop.login_clients import CLIENTS, IMPLICIT, STARTTLS, TIMEOUT, Login, Outcome
from tests.interop.witness import PASSWORD, STRANGER, TOKEN, USER, WRONG_PASSWORD, WRONG_TOKEN
from tests.running import Twistd

#: What a users file of SCRAM keys is good for; for the others the server needs more than such keys.
BY_USERS_FILE = ("PLAIN", "LOGIN", "SCRAM-SHA-256")

GSASL = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")

#: Runs at a time. They mostly wait: a wrong secret is answered after two seconds.
THREADS = 24


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; as a text, the name of its tests."""

    client: str
    mechanism: str
    way: str

    def __str__(self) -> str:
        return f"{self.client}-{self.mechanism}-{self.way}"


ROWS = [
    Row(name, mechanism, way)
    for name, client in CLIENTS.items()
    for mechanism in client.mechanisms
    for way in client.ways
]


@dataclass(frozen=True, slots=True)
class Servers:
    """
    :ivar authority: what their certificate is verified with.
    :ivar clients: what they verify their clients' certificates with.
    :ivar witnessed: the folder of the witness.
    """

    by_users_file: Twistd
    by_checker: Twistd
    authority: Path
    clients: Authority
    witnessed: Path

    def port(self, row: Row) -> int:
        server = self.by_users_file if row.mechanism in BY_USERS_FILE else self.by_checker
        return server.ports[(STARTTLS, IMPLICIT).index(row.way)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auth")
    (folder / "users").write_text(f"{USER}:{make_secret(PASSWORD, 'scram-sha-256')}\n")
    (folder / "witnessed").mkdir()
    write_pair(folder)
    return folder


@pytest.fixture(scope="module")
def servers(folder: Path) -> Iterator[Servers]:
    loopback = "tcp:0:interface=127.0.0.1"
    clients = Authority(folder)
    options = ["--listen", loopback, "--listen", f"smtps:{loopback}", "--tls", f"{folder}/server.pem"]
    options += ["--client-ca", str(clients.path)]
    options += ["--hostname", "localhost", "--require-auth"]
    options += ["--backend", f"tests.interop.witness:Witness:{folder}/witnessed"]
    with (
        Twistd(*options, "--auth", f"htpasswd:{folder}/users", folder=folder) as by_users_file,
        Twistd(*options, "--auth", "tests.interop.witness:checker", folder=folder) as by_checker,
    ):
        yield Servers(by_users_file, by_checker, folder / "server.pem", clients, folder / "witnessed")


@dataclass(frozen=True, slots=True)
class Attempts:
    """What came of a row with the right secret, and of the same with a wrong one."""

    right: Future[Outcome]
    wrong: Future[Outcome]


@pytest.fixture(scope="module")
def attempts(servers: Servers, folder: Path, request: pytest.FixtureRequest) -> Iterator[dict[Row, Attempts]]:
    """Every row that is wanted in this run of pytest, under way."""
    wanted = set(map(_row, request.session.items))
    with ThreadPoolExecutor(THREADS) as pool:
        yield {row: begin(row, servers, folder, pool) for row in ROWS if row in wanted and not _missing(row)}


def _row(item: pytest.Item) -> Row | None:
    """The row that a test is of; None for tests of other things."""
    row = getattr(getattr(item, "callspec", None), "params", {}).get("row")
    return row if isinstance(row, Row) else None


def _missing(row: Row) -> str:
    return CLIENTS[row.client].missing()


def begin(row: Row, servers: Servers, folder: Path, pool: ThreadPoolExecutor) -> Attempts:
    client = CLIENTS[row.client]

    def attempt(kind: str, name: str, password: str, token: str) -> Future[Outcome]:
        own = folder / f"{row}.{kind}"
        own.mkdir()
        login = Login(
            mechanism=row.mechanism,
            way=row.way,
            port=servers.port(row),
            user=USER,
            secret=token if row.mechanism in ("OAUTHBEARER", "XOAUTH2") else password,
            recipient=f"{row}.{kind}@example.org",
            authority=servers.authority,
            certificate=servers.clients.pair(name),
            folder=own,
        )
        return pool.submit(client.send, login)

    return Attempts(attempt("right", USER, PASSWORD, TOKEN), attempt("wrong", STRANGER, WRONG_PASSWORD, WRONG_TOKEN))


def outcome(row: Row, attempts: dict[Row, Attempts], kind: str) -> Outcome:
    if row not in attempts:
        pytest.skip(_missing(row))
    found: Outcome = getattr(attempts[row], kind).result()
    return found


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_right_secret(row: Row, servers: Servers, attempts: dict[Row, Attempts]) -> None:
    right = outcome(row, attempts, "right")
    assert right.accepted, right.output
    seen = json.loads((servers.witnessed / f"{row}.right").read_text())
    assert seen == {"mechanism": row.mechanism, "identity": USER, "protocol": "ESMTPSA"}


def last_word(row: Row) -> str:
    """What the server said last to a client with a wrong secret."""
    if row.mechanism == "XOAUTH2" and CLIENTS[row.client].leaves_at_json:
        return "334 " + b64encode(b'{"status":"401","schemes":"bearer"}').decode()
    return "5.7.8 Authentication credentials invalid"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_wrong_secret(row: Row, servers: Servers, attempts: dict[Row, Attempts]) -> None:
    wrong = outcome(row, attempts, "wrong")
    assert not wrong.accepted, wrong.output
    assert last_word(row) in wrong.output, wrong.output
    assert not (servers.witnessed / f"{row}.wrong").exists()


@pytest.fixture(scope="module")
def clear_server(folder: Path) -> Iterator[Twistd]:
    options = ("--hostname", "localhost", "--auth", "tests.interop.witness:checker", "--allow-insecure-auth")
    with Twistd(*options, "--backend", "discard", folder=folder) as running:
        yield running


def gsasl(server: Twistd, mechanism: str, password: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("gsasl") is None:
        pytest.skip("gsasl is not installed")
    where = ("--smtp", f"--connect=127.0.0.1:{server.port}", "--no-starttls", "--no-cb")
    words = ("gsasl", *where, "-m", mechanism, "-a", USER, "-p", password)
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("mechanism", GSASL)
def test_gsasl(clear_server: Twistd, mechanism: str) -> None:
    """GNU SASL logs in and sends no mail. On a clear line: it leaves out the EHLO behind its STARTTLS."""
    done = gsasl(clear_server, mechanism, PASSWORD)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"AUTH {mechanism}" in done.stdout
    assert "235 2.7.0" in done.stdout


def test_gsasl_with_wrong_passwords(clear_server: Twistd) -> None:
    with ThreadPoolExecutor(len(GSASL)) as pool:
        for done in pool.map(lambda mechanism: gsasl(clear_server, mechanism, WRONG_PASSWORD), GSASL):
            assert done.returncode != 0, done.stdout + done.stderr
            assert "535 5.7.8" in done.stdout
            assert "235 2.7.0" not in done.stdout
