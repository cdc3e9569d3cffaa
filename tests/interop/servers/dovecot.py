"""
Dovecot's LMTP server, on TCP with STARTTLS, on TCP with TLS from the first octet, and on a Unix socket.

Mailboxes that are not there are refused at RCPT; those named ``full`` with a
number have a quota that is used up by any message, and so are refused when the
message is there: each recipient has an answer of its own.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.interop.servers.common import (
    DOMAIN,
    FULL,
    MAILBOXES,
    TIMEOUT,
    UTF8_MAILBOXES,
    Peer,
    PeerMissing,
    free_ports,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.root import GID, UID, private_root

_EXTENSIONS = frozenset({"STARTTLS", "PIPELINING", "CHUNKING", "8BITMIME", "ENHANCEDSTATUSCODES"})

#: Whom it runs as where it need not be root.
_COMMON = """\
base_dir = /run/dovecot
log_path = /dev/stderr
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_privileged_group =
"""

_LMTP = """\
protocols = lmtp
postmaster_address = postmaster@{domain}
hostname = dovecot.example.net
mail_location = maildir:/mail/%n
mail_home = /mail/%n.home
auth_username_format = %Ln
auth_username_chars =
mail_plugins = quota
ssl = yes
ssl_cert = </conf/server.pem
ssl_key = </conf/server.pem
service lmtp {{
  user = vmail
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener lmtps {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
# It does not start without any, and nobody asks it.
passdb {{
  driver = static
  args = nopassword
}}
userdb {{
  driver = passwd-file
  args = username_format=%n /conf/users
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
"""


class Dovecot:
    """
    Runs in a root folder of :func:`~tests.interop.servers.root.private_root`; use it in ``with``.

    :param configuration: what comes behind the settings that every one needs.
    :raises PeerMissing: in ``with``, if it is of another version.
    """

    def __init__(self, root: Path, configuration: str) -> None:
        self._root = root
        (root / "conf/dovecot.conf").write_text(_COMMON + configuration)
        self._lines: list[str] = []
        self._listens = False
        self._said_something_final = threading.Event()

    def __enter__(self) -> Dovecot:
        version = subprocess.run(
            ["chroot", str(self._root), "/usr/sbin/dovecot", "--version"], capture_output=True, text=True, check=True
        )
        if not version.stdout.startswith("2.3."):
            raise PeerMissing(f"the settings here are for Dovecot 2.3, and this is {version.stdout.strip()}")
        self._process = subprocess.Popen(
            ["chroot", str(self._root), "/usr/sbin/dovecot", "-F", "-c", "/conf/dovecot.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._said_something_final.wait(TIMEOUT) or not self._listens:
            self._stop()
            raise RuntimeError(f"Dovecot does not start: {''.join(self._lines)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            # It listens already when it says so.
            if "starting up" in line:
                self._listens = True
                self._said_something_final.set()
        self._said_something_final.set()

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def dovecot_server(*, unix: bool = False) -> Iterator[Peer]:
    """
    It serves LMTP.

    :param unix: say where its Unix socket is, and not its ports.
    :raises PeerMissing: if it cannot be had here.
    """
    with private_root() as root:
        write_certificate(root / "conf")
        lines = [f"{name}::{UID}:{GID}::::\n" for name in (*MAILBOXES, *UTF8_MAILBOXES)]
        lines += [f"{name}::{UID}:{GID}::::userdb_quota_rule=*:bytes=1\n" for name in FULL]
        (root / "conf/users").write_text("".join(lines))
        port, tls_port = free_ports(2)
        with Dovecot(root, _LMTP.format(domain=DOMAIN, port=port, tls_port=tls_port)):
            yield Peer(
                name="Dovecot",
                protocol="lmtp",
                port=port,
                smtps_port=None if unix else tls_port,
                socket=root / "run/dovecot/lmtp" if unix else None,
                ca=root / "conf" / "ca.pem",
                read=lambda name: read_maildir(root / "mail" / name),
                extensions=_EXTENSIONS - {"STARTTLS"} if unix else _EXTENSIONS,
            )
