"""
Dovecot's LMTP server, on TCP with STARTTLS, on TCP with TLS from the first octet, and on a Unix socket.

Mailboxes that are not there are refused at RCPT; those named ``full`` with a
number have a quota that is used up by any message, and so are refused when the
message is there: each recipient has an answer of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
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
    free_ports,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.dovecot_settings import COMMON, LMTP, NO_ROOM
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.root import GID, UID, private_root

_EXTENSIONS = frozenset({"STARTTLS", "PIPELINING", "CHUNKING", "8BITMIME", "ENHANCEDSTATUSCODES"})


class Dovecot:
    """
    Runs in a root folder of :func:`~tests.interop.servers.root.private_root`; use it in ``with``.

    :param settings: version -> what comes behind the settings that every one needs; ``values`` are for the names in it.
    :raises PeerMissing: if it is of another version.
    """

    def __init__(self, root: Path, settings: Mapping[str, str], **values: object) -> None:
        self._root = root
        version = dovecot_version(root)
        (root / "conf/dovecot.conf").write_text(COMMON[version] + settings[version].format(**values))
        self._lines: list[str] = []
        self._listens = False
        self._said_something_final = threading.Event()

    def __enter__(self) -> Dovecot:
        self._process = subprocess.Popen(
            ["chroot", str(self._root), "/usr/sbin/dovecot", "-F", "-c", "/conf/dovecot.conf"],
            start_new_session=True,
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
        # All at once: asked to end, it waits for each of its services, one after another, for seconds.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(TIMEOUT)
        # The last of them has the other end of the pipe.
        self._reader.join(TIMEOUT)
        assert self._process.stderr is not None
        self._process.stderr.close()


def dovecot_version(root: Path) -> str:
    """
    Its first two numbers.

    :raises PeerMissing: if there are no settings for it.
    """
    command = ["chroot", str(root), "/usr/sbin/dovecot", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = ".".join(said.split(".")[:2])
    if found not in COMMON:
        raise PeerMissing(f"the settings here are for Dovecot {' and '.join(COMMON)}, and this is {said.strip()}")
    return found


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
        lines += [f"{name}::{UID}:{GID}::::{NO_ROOM[dovecot_version(root)]}\n" for name in FULL]
        (root / "conf/users").write_text("".join(lines))
        port, tls_port = free_ports(2)
        with Dovecot(root, LMTP, domain=DOMAIN, port=port, tls_port=tls_port):
            yield Peer(
                name="Dovecot",
                protocol="lmtp",
                port=port,
                smtps_port=None if unix else tls_port,
                socket=root / "run/dovecot/lmtp" if unix else None,
                ca=root / "conf" / "ca.pem",
                read=lambda name: read_maildir(root / "mail" / name),
                extensions=_EXTENSIONS,
            )
