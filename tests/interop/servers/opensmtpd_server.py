"""
OpenSMTPD as a server: STARTTLS, implicit TLS, AUTH from a table, and its own program that stores into Maildir.

The paths of its sockets, its queue and its users are built in, so it lives in a
root folder of its own, in which all of these are a test's: nothing is installed,
and no user is made.

Debian 12 has OpenSMTPD 6.8 linked with OpenSSL 3. That cannot sign with a key that another of its processes holds, so
STARTTLS is offered, and every handshake fails (https://github.com/OpenSMTPD/OpenSMTPD/issues/1171); AUTH needs TLS. So
we try it first, and :class:`Peer` names what works.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.servers.common import (
    DOMAIN,
    MAILBOXES,
    PASSWORD,
    TIMEOUT,
    USER,
    Peer,
    PeerMissing,
    free_ports,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.root import copy_libraries

#: Names a folder into which Debian's package has been unpacked.
UNPACKED = "SMTPFW_TEST_OPENSMTPD"

#: What it offers on any line; PIPELINING is not among them.
EXTENSIONS = frozenset({"8BITMIME", "ENHANCEDSTATUSCODES", "SIZE", "DSN"})

_PROGRAM = "usr/sbin/smtpd"
_AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"

#: What runs within; the shell starts the program that delivers.
_PROGRAMS = (_PROGRAM, "usr/libexec/opensmtpd/mail.maildir", "usr/libexec/opensmtpd/encrypt")

#: Its own two users, and one for the mailboxes: numbers that need no name outside.
_USERS = {"root": 0, "opensmtpd": 65_001, "opensmtpq": 65_002, "vmail": 65_003}

_CONFIGURATION = """\
smtp max-message-size 40M
smtp limit max-rcpt 2000
pki localhost cert "/conf/server.crt"
pki localhost key "/conf/server.key"
table users file:/conf/users
table credentials file:/conf/credentials
listen on 127.0.0.1 port {port} tls pki localhost auth-optional <credentials> hostname opensmtpd.example.net
listen on 127.0.0.1 port {smtps_port} smtps pki localhost auth-optional <credentials> hostname opensmtpd.example.net
action store maildir "/mail/%{{user.username}}" userbase <users>
match from any for domain "{domain}" action store
"""


class OpenSMTPD:
    """Runs ``smtpd`` in a root folder; use it in ``with``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._ended = False

    def __enter__(self) -> OpenSMTPD:
        self._process = subprocess.Popen(
            ["chroot", str(self._root), f"/{_PROGRAM}", "-d", "-v", "-f", "/conf/smtpd.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(TIMEOUT) or self._ended:
            self.__exit__()
            raise RuntimeError("OpenSMTPD does not start:\n" + "".join(self._lines))
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            # All of its sockets listen when it says so.
            if "smtp: will accept" in line:
                self._ready.set()
        self._ended = True
        self._ready.set()


@contextmanager
def opensmtpd_server() -> Iterator[Peer]:
    """
    OpenSMTPD on two loopback ports.

    :raises PeerMissing: if it cannot be had here.
    """
    if os.getuid():
        raise PeerMissing("OpenSMTPD has to be started by root")
    with _unpacked() as unpacked, tempfile.TemporaryDirectory(prefix="opensmtpd-") as name:
        root = Path(name)
        root.chmod(0o755)
        port, smtps_port = free_ports(2)
        _lay_out(root, unpacked, _CONFIGURATION.format(port=port, smtps_port=smtps_port, domain=DOMAIN))
        with OpenSMTPD(root):
            ca = root / "conf" / "ca.pem"
            tls = _tls_works(smtps_port, ca)
            yield Peer(
                name="OpenSMTPD",
                port=port,
                smtps_port=smtps_port if tls else None,
                ca=ca,
                read=lambda mailbox: read_maildir(root / "mail" / mailbox),
                mechanisms=frozenset({"PLAIN", "LOGIN"} if tls else ()),
                extensions=EXTENSIONS | ({"STARTTLS"} if tls else set()),
            )


def _tls_works(port: int, ca: Path) -> bool:
    context = ssl.create_default_context(cafile=ca)
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as line:
        try:
            context.wrap_socket(line, server_hostname="localhost").close()
        except ssl.SSLError:
            return False
    return True


@contextmanager
def _unpacked() -> Iterator[Path]:
    named = os.environ.get(UNPACKED)
    if named:
        if not (Path(named) / _PROGRAM).exists():
            raise PeerMissing(f"{UNPACKED}={named}: there is no {_PROGRAM}")
        yield Path(named)
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PeerMissing(f"there is no apt-get to fetch OpenSMTPD with; {UNPACKED} may name an unpacked one")
    with tempfile.TemporaryDirectory(prefix="opensmtpd-package-") as name:
        folder = Path(name)
        command = ["apt-get", "download", "opensmtpd"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise PeerMissing(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)
        yield folder / "root"


def _lay_out(root: Path, unpacked: Path, configuration: str) -> None:
    for folder in ("conf", "bin", "dev", "etc/ssl/certs", "mail", "tmp", "run", "var/lib/opensmtpd/empty", "var/spool/smtpd"):
        (root / folder).mkdir(parents=True)
    (root / "var/run").symlink_to("/run")
    (root / "var/spool/smtpd").chmod(0o711)
    os.chown(root / "mail", _USERS["vmail"], _USERS["vmail"])
    # A file will do, and no right to make devices is needed.
    (root / "dev/null").touch()
    (root / "dev/null").chmod(0o666)
    (root / "etc/passwd").write_text("".join(f"{name}:x:{id}:{id}::/:/bin/sh\n" for name, id in _USERS.items()))
    (root / "etc/group").write_text("".join(f"{name}:x:{id}:\n" for name, id in _USERS.items()))
    for program in _PROGRAMS:
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(unpacked / program, root / program)
    shutil.copy("/bin/sh", root / "bin/sh")
    copy_libraries(root, *_PROGRAMS, "bin/sh")
    conf = root / "conf"
    write_certificate(conf)
    certificate, key = re.findall(rb"-----BEGIN.*?-----END[^\n]*\n", (conf / "server.pem").read_bytes(), re.DOTALL)
    (conf / "server.crt").write_bytes(certificate)
    # It does not start without a list of authorities, although it asks no client for a certificate.
    shutil.copy(conf / "ca.pem", root / _AUTHORITIES)
    # It refuses a key that others may read.
    (conf / "server.key").touch(0o600)
    (conf / "server.key").write_bytes(key)
    (conf / "smtpd.conf").write_text(configuration)
    owner = _USERS["vmail"]
    (conf / "users").write_text("".join(f"{mailbox} {owner}:{owner}:/mail\n" for mailbox in MAILBOXES))
    command = ["chroot", str(root), "/usr/libexec/opensmtpd/encrypt", PASSWORD]
    secret = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout
    (conf / "credentials").write_text(f"{USER} {secret}")
