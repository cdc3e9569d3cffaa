"""
OpenSMTPD as a server: STARTTLS, implicit TLS, AUTH from a table, and its own program that stores into Maildir.

The paths of its sockets, its queue and its users are built in, so it lives in a
root folder of its own, in which all of these are a test's: nothing is installed,
and no user is made.
"""

from __future__ import annotations

import os
import re
import shutil
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
    free_ports,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.packages import PeerMissing, unpacked
from tests.interop.servers.root import copy_libraries

#: Names a folder into which Debian's package has been unpacked.
UNPACKED = "SMTPFW_TEST_OPENSMTPD"

#: PIPELINING is not among them.
EXTENSIONS = frozenset({"STARTTLS", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE", "DSN"})

#: What it tells listen(2). Linux answers more with SYN cookies, and forgets them; the client has a connection then on
#: which it waits for a greeting, and the server has none.
_BACKLOG = 5

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
    packages = unpacked(UNPACKED, "opensmtpd")
    if not (packages / _PROGRAM).exists():
        raise PeerMissing(f"there is no {_PROGRAM} in {packages}")
    with tempfile.TemporaryDirectory(prefix="opensmtpd-") as name:
        root = Path(name)
        root.chmod(0o755)
        port, smtps_port = free_ports(2)
        _lay_out(root, packages, _CONFIGURATION.format(port=port, smtps_port=smtps_port, domain=DOMAIN))
        with OpenSMTPD(root):
            yield Peer(
                name="OpenSMTPD",
                port=port,
                smtps_port=smtps_port,
                ca=root / "conf" / "ca.pem",
                read=lambda mailbox: read_maildir(root / "mail" / mailbox),
                mechanisms=frozenset({"PLAIN", "LOGIN"}),
                extensions=EXTENSIONS,
                at_once=_BACKLOG,
            )


def _lay_out(root: Path, packages: Path, configuration: str) -> None:
    for folder in (
        "conf",
        "bin",
        "dev",
        "etc/ssl/certs",
        "mail",
        "tmp",
        "run",
        "var/lib/opensmtpd/empty",
        "var/spool/smtpd",
    ):
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
        shutil.copy(packages / program, root / program)
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
