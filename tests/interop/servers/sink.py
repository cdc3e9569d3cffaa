"""
``smtp-sink``, which comes with Postfix: takes everything from everybody, and fails at the command that it is told to.

It has a parser of its own, answers in small writes, and can leave out what other
servers have. What it takes it dumps into files, one for each transaction, with
the envelope in front.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.postfix import unpacked_postfix
from tests.interop.servers.common import TIMEOUT, Peer, free_ports
from tests.interop.servers.packages import PeerMissing

#: It does not stay root.
OWNER = "nobody"

EXTENSIONS = frozenset({"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"})

#: The options that take an extension away.
WITHOUT = {"-p": "PIPELINING", "-8": "8BITMIME", "-E": "ENHANCEDSTATUSCODES", "-N": "DSN"}


@contextmanager
def smtp_sink(*options: str) -> Iterator[Peer]:
    """
    smtp-sink on a loopback port. It offers AUTH, and lets everybody in by whatever they say.

    :param options: its own, such as ``-q RCPT``, which hangs up at RCPT; ``-L`` is LMTP.
    :raises PeerMissing: if there is no Postfix.
    """
    with unpacked_postfix() as root, tempfile.TemporaryDirectory(prefix="sink-") as name:
        program = root / "usr/sbin/smtp-sink"
        if not program.exists():
            raise PeerMissing(f"there is no {program}")
        folder = Path(name)
        folder.chmod(0o777)
        (port,) = free_ports(1)
        command = [str(program), "-4", "-u", OWNER, "-d", f"{folder}/", *options, f"127.0.0.1:{port}", "100"]
        library_path = str(root / "usr/lib/postfix")
        with subprocess.Popen(command, env={"LD_LIBRARY_PATH": library_path, "TZ": "UTC"}) as process:
            try:
                _wait_for(port, process)
                yield Peer(
                    name=" ".join(["smtp-sink", *options]),
                    port=port,
                    # It has no TLS.
                    ca=Path("/nonexistent"),
                    read=lambda mailbox: list(_messages(folder, mailbox)),
                    mechanisms=frozenset({"PLAIN", "LOGIN"}),
                    clear_auth=True,
                    extensions=frozenset() if "-e" in options else EXTENSIONS - {WITHOUT.get(x) for x in options},
                    protocol="lmtp" if "-L" in options else "smtp",
                )
            finally:
                process.terminate()


def _messages(folder: Path, mailbox: str) -> Iterable[bytes]:
    """What was sent to a mailbox, from the Received field on; the envelope stands in front, as fields of its own."""
    for path in folder.iterdir():
        envelope, received, message = path.read_bytes().partition(b"\nReceived: ")
        if f"X-Rcpt-Args: <{mailbox}@".encode() in envelope:
            # The empty line at the end is the dump's.
            yield received[1:] + message.removesuffix(b"\n")


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    poll = threading.Event()
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            poll.wait(0.02)
        else:
            return
    raise RuntimeError(f"smtp-sink does not listen on port {port}")
