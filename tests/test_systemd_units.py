"""
The units in docs/systemd, and what they start: a process with the sockets, the environment and the credentials that
systemd would give it, and a systemd that listens to what it says of itself.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from smtpfw.service import Options
from tests.certificates import write_pair
from tests.running import ROOT
from tests.test_deployments import add_user
from tests.test_readme import blocks, table

UNITS = ROOT / "docs" / "systemd"
PAGE = ROOT / "docs" / "systemd.md"
TIMEOUT = 30.0

#: What systemd does between fork and exec: descriptors from 3 on, and the number of the process that they are for.
_START = """
import fcntl, os, sys
passed = [fcntl.fcntl(int(word), fcntl.F_DUPFD_CLOEXEC, 100) for word in sys.argv[1].split(",")]
for number, descriptor in enumerate(passed, 3):
    os.dup2(descriptor, number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def read_unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> its values."""
    unit: dict[str, dict[str, list[str]]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = unit.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(key, []).append(value)
    return unit


SERVICE = read_unit("smtpfw.service")["Service"]
SOCKET = read_unit("smtpfw.socket")["Socket"]

#: What stands in the page, and what in the test.
INSTEAD = {
    "/etc/smtpfw/": "{folder}/",
    "/var/lib/smtpfw/": "{folder}/",
    "smtps:smtp.isp.example:465": "smtps:127.0.0.1:9",
}


def configuration(folder: Path, before: str = "") -> str:
    (block,) = blocks(PAGE, "toml")
    for found, instead in INSTEAD.items():
        assert found in block
        block = block.replace(found, instead.format(folder=folder))
    return before + block


class Systemd:
    """
    Starts the service as its unit says, with sockets on free ports.

    :ivar ports: name of a socket -> its port.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._sockets = [self._listen() for _ in names]
        self.ports: dict[str, int] = dict(zip(names, (one.getsockname()[1] for one in self._sockets), strict=True))
        self._notified = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._notified.bind(str(folder / "notify"))
        self._notified.settimeout(TIMEOUT)
        self.log = ""

    def _listen(self) -> socket.socket:
        """As BindIPv6Only=both, the default, does it: one socket for both families."""
        sock = self._stack.enter_context(socket.socket(socket.AF_INET6))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        sock.listen()
        return sock

    def start(self) -> None:
        _, *words = shlex.split(SERVICE["ExecStart"][0].replace("/etc/smtpfw", str(self._folder)))
        filenos = [one.fileno() for one in self._sockets]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START,
                ",".join(map(str, filenos)),
                str(Path(sys.executable).with_name("twistd")),
                *words,
            ],
            cwd=self._folder,
            pass_fds=filenos,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "NOTIFY_SOCKET": str(self._folder / "notify"),
                "CREDENTIALS_DIRECTORY": str(self._folder / "credentials"),
                "LISTEN_FDS": str(len(filenos)),
                "LISTEN_FDNAMES": ":".join(self.ports),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log += line

    def told(self) -> dict[str, str]:
        """What the service says of itself next."""
        try:
            text = self._notified.recv(4096).decode()
        except TimeoutError:
            raise AssertionError(f"it says nothing:\n{self.log}") from None
        return dict(line.split("=", 1) for line in text.splitlines())

    def reload(self) -> None:
        """Obey ExecReload=."""
        command = shlex.split(SERVICE["ExecReload"][0].replace("$MAINPID", str(self.process.pid)))
        subprocess.run(command, check=True, timeout=TIMEOUT)

    def status(self) -> int:
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def close(self) -> None:
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.kill()
            self.status()
        self._stack.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    for name in ("certs", "credentials", "mail/example.org/tim"):
        (tmp_path / name).mkdir(parents=True)
    write_pair(tmp_path / "certs")
    add_user(tmp_path / "users", "tim", "tim's own")
    for credential in SERVICE["LoadCredential"]:
        name, _, path = credential.partition(":")
        assert path == f"/etc/smtpfw/{name}"
        (tmp_path / "credentials" / name).write_text("account:secret of ours\n")
    running = Systemd(tmp_path, [name.strip("`") for _, _, name in table(PAGE, *HEADER)][:3])
    yield running
    running.close()


HEADER = ("unit", "`ListenStream=`", "`FileDescriptorName=`")


def test_the_units_and_the_page_belong_together() -> None:
    rows = {unit: (stream, name) for unit, stream, name in table(PAGE, *HEADER)}
    assert rows["`smtpfw.socket`"] == (f"`{SOCKET['ListenStream'][0]}`", f"`{SOCKET['FileDescriptorName'][0]}`")
    assert SERVICE["Sockets"] == ["smtpfw.socket"]
    assert SOCKET["Service"] == ["smtpfw.service"]
    assert SERVICE["Type"] == ["notify"]
    block = configuration(Path("/"))
    names = {name.strip("`") for _, name in rows.values()}
    assert set(re.findall(r":name=(\w+)", block)) == names - {"lmtp"}
    assert {one.partition(":")[0] for one in SERVICE["LoadCredential"]} == set(
        re.findall(r"credential:([\w.]+)", block)
    )
    # Who serves is said once.
    assert not {"user", "group", "umask"}.intersection(tomllib.loads(block))
    assert float(SERVICE["TimeoutStopSec"][0]) > Options()["grace"]


def test_the_command_is_understood() -> None:
    words = shlex.split(SERVICE["ExecStart"][0])
    assert words[1:4] == ["-n", "--pidfile=", "smtpfw"]
    options = Options()
    options.parseOptions(words[4:])
    assert options["config"] == "/etc/smtpfw/smtpfw.toml"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path in UNITS.iterdir():
        # It looks whether what a unit starts is there.
        text = path.read_text().replace("/opt/smtpfw/.venv/bin/twistd", sys.executable)
        (tmp_path / path.name).write_text(text)
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    # Of other units on this machine it may complain.
    assert [line for line in done.stderr.splitlines() if "smtpfw" in line] == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before", ["", "workers = 2\n"])
def test_what_the_service_does(systemd: Systemd, tmp_path: Path, before: str) -> None:
    file = tmp_path / "smtpfw.toml"
    file.write_text(configuration(tmp_path, before))
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certs" / "server.pem"))
    with socket.create_connection(("127.0.0.1", systemd.ports["smtp"]), TIMEOUT) as early:
        systemd.start()
        assert systemd.told() == {"READY": "1", "STATUS": "Listening on 3 sockets"}
        # The client that came before there was a service has waited, and is served.
        assert early.recv(4) == b"220 "
    with smtplib.SMTP("127.0.0.1", systemd.ports["smtp"], "client.example", TIMEOUT) as client:
        assert client.sendmail("me@client.example", ["tim@example.org", "postmaster"], "Subject: x\r\n\r\n") == {}
        systemd.reload()
        told = systemd.told()
        assert (told["RELOADING"], told["MONOTONIC_USEC"].isdecimal()) == ("1", True)
        assert systemd.told() == {"READY": "1", "STATUS": "Listening on 3 sockets"}
        # A bad file changes nothing, and systemd is not left waiting.
        good = file.read_text()
        file.write_text(good.replace('name=submission"', 'name=absent"'))
        systemd.reload()
        assert [next(iter(systemd.told())) for _ in range(2)] == ["RELOADING", "READY"]
        # A listener leaves, and comes back.
        file.write_text(good.replace('"systemd:domain=INET6:name=submission", ', ""))
        systemd.reload()
        assert [systemd.told().get("STATUS") for _ in range(2)][1] == "Listening on 2 sockets"
        file.write_text(good)
        systemd.reload()
        assert [systemd.told().get("STATUS") for _ in range(2)][1] == "Listening on 3 sockets"
        # All that time the client was there.
        assert client.noop()[0] == 250
    with smtplib.SMTP("localhost", systemd.ports["submission"], timeout=TIMEOUT) as client:
        client.starttls(context=trusting)
        client.login("tim", "tim's own")
        assert client.sendmail("tim@example.org", ["tim@example.org"], "Subject: y\r\n\r\n") == {}
    with smtplib.SMTP_SSL("localhost", systemd.ports["submissions"], timeout=TIMEOUT, context=trusting) as client:
        client.login("tim", "tim's own")
    os.kill(systemd.process.pid, signal.SIGTERM)
    assert next(iter(systemd.told())) == "STOPPING"
    assert systemd.status() == 0
    assert "Traceback" not in systemd.log
    assert "Everything stays as it was: " in systemd.log
    assert "systemd passed no such socket ('absent'); compare Sockets=" in systemd.log
    stored = [path.read_bytes() for path in tmp_path.glob("mail/example.org/tim/new/*")]
    assert len(stored) == 2
    # It is the client's address, whatever the socket's family.
    assert all(b"127.0.0.1" in octets or b"[IPv6:::1]" in octets for octets in stored)
    assert len(list(tmp_path.glob("mail/admin/new/*"))) == 1


def test_without_its_credential_it_does_not_start(systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "smtpfw.toml").write_text(configuration(tmp_path))
    for path in (tmp_path / "credentials").iterdir():
        path.unlink()
    systemd.start()
    assert systemd.status() == 1
    assert re.search(r"smtpfw: \S+:\d+: deliver\.isp.*: no such file or directory\n", systemd.log), systemd.log


def test_without_its_sockets_it_does_not_start(systemd: Systemd, tmp_path: Path) -> None:
    (tmp_path / "smtpfw.toml").write_text(configuration(tmp_path).replace('name=smtp"', 'name=other"'))
    systemd.start()
    assert systemd.status() == 1
    assert "systemd passed no such socket ('other')" in systemd.log
