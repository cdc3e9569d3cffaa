"""
How much memory one large message takes: a server with a Maildir, a client that streams into it.

    python -m benchmarks.big_message --mebibytes 1024

Sends the message once by DATA and once by BDAT, looks whether the stored
octets are those that were sent, and prints the peak memory of the server
(VmHWM of its process) and the rate.
"""

from __future__ import annotations

import argparse
import hashlib
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.running import Twistd

MEBIBYTE = 1024 * 1024

#: One line of the body; every tenth begins with a dot, so that stuffing is at work.
_LINES = b"".join((b"." if number % 10 == 0 else b"x") + b"y" * 75 + b"\r\n" for number in range(1000))
BLOCK = _LINES * (MEBIBYTE // len(_LINES))


def blocks(octets: int) -> Iterator[bytes]:
    """A body of at least ``octets`` octets, in whole lines."""
    sent = 0
    while sent < octets:
        sent += len(BLOCK)
        yield BLOCK


class Client:
    """Just enough of one; use it in ``with``."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._file = self._socket.makefile("rb")
        self._expect(b"220")
        self.command(b"EHLO bench.example", b"250")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._socket.close()

    def command(self, line: bytes, code: bytes) -> None:
        self.send(line + b"\r\n")
        self._expect(code)

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def _expect(self, code: bytes) -> None:
        line = self._file.readline()
        while line[3:4] == b"-":
            line = self._file.readline()
        if not line.startswith(code):
            raise RuntimeError(f"expected {code.decode()}, got {line!r}")

    def envelope(self) -> None:
        self.command(b"MAIL FROM:<big@example.net>", b"250")
        self.command(b"RCPT TO:<big@example.org>", b"250")

    def data(self, octets: int) -> None:
        """Send a message by DATA."""
        self.envelope()
        self.command(b"DATA", b"354")
        stuffed = b"." + BLOCK.replace(b"\r\n.", b"\r\n..")
        for _ in blocks(octets):
            self.send(stuffed)
        self.command(b".", b"250")

    def bdat(self, octets: int) -> None:
        """Send a message by BDAT, in chunks of some MiB."""
        self.envelope()
        for block in blocks(octets):
            self.send(b"BDAT %d\r\n" % len(block))
            self.send(block)
            self._expect(b"250")
        self.command(b"BDAT 0 LAST", b"250")


def peak_memory(pid: int) -> int:
    """VmHWM of a process in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM")


def stored_as_sent(folder: Path, octets: int) -> bool:
    """Whether the one file in ``new`` ends in exactly the body that was sent; removes it."""
    (path,) = (folder / "new").iterdir()
    sent = hashlib.sha256()
    size = 0
    for block in blocks(octets):
        sent.update(block)
        size += len(block)
    stored = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(path.stat().st_size - size)
        while piece := file.read(MEBIBYTE):
            stored.update(piece)
    path.unlink()
    return stored.digest() == sent.digest()


def run(mebibytes: int, how: str) -> tuple[int, float, bool]:
    """Return peak memory in octets, seconds, and whether the stored octets are right."""
    octets = mebibytes * MEBIBYTE
    with tempfile.TemporaryDirectory(prefix="smtpfw-big-") as name:
        folder = Path(name) / "Maildir"
        limit = f"{2 * mebibytes}M"
        with Twistd("--backend", f"maildir:{folder}", "--max-message-bytes", limit) as server:
            with Client(server.port) as client:
                begin = time.monotonic()
                getattr(client, how)(octets)
                seconds = time.monotonic() - begin
            return peak_memory(server.pid), seconds, stored_as_sent(folder, octets)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    arguments = parser.parse_args()
    right = True
    for how in ("data", "bdat"):
        peak, seconds, same = run(arguments.mebibytes, how)
        right = right and same
        rate = arguments.mebibytes / seconds
        print(
            f"{how.upper():4}  {arguments.mebibytes} MiB in {seconds:5.1f} s ({rate:4.0f} MiB/s), "
            f"peak memory {peak / MEBIBYTE:5.1f} MiB, stored octets {'are the same' if same else 'DIFFER'}",
            flush=True,
        )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
