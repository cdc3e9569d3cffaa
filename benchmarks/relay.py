"""
What a large message costs that is passed on: a client, a server with ``--backend relay``, and a sink.

    python -m benchmarks.relay --mebibytes 1024

Sends the message straight to the sink, then through the server by DATA and by
BDAT, and prints the rate and the peak memory of the server (VmHWM of its
process). Then a smaller message goes to a sink that reads slowly: the sender
has to be as slow, and the server's memory as small. The status is 1 if not.

The sink is Postfix's ``smtp-sink``, installed or in the folder that
``SMTPFW_TEST_POSTFIX`` names; without one it is a plain one of our own, as the
slow one is.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.big_message import MEBIBYTE, Client, peak_memory
from tests.running import ROOT, Twistd

#: Octets that the server may have at its peak.
MOST_MEMORY = 100 * MEBIBYTE

#: A sink that reads slowly, in octets a second, and the message for it.
SLOW = 8 * MEBIBYTE
SMALL = 128

_END = b"\r\n.\r\n"


def serve(rate: int) -> None:
    """
    Be a sink for one client: print the port, take what comes, forget it.

    :param rate: octets a second at which messages are read; 0 for as fast as they come.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    if rate:
        # Else the kernel would take most of the message for us.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    with connection, connection.makefile("rb", buffering=0) as stream:
        connection.sendall(b"220 sink.example ESMTP\r\n")
        for line in stream:
            if line[:4].upper() == b"DATA":
                connection.sendall(b"354 go on\r\n")
                _take_message(connection, rate)
            connection.sendall(b"250 OK\r\n")


def _take_message(connection: socket.socket, rate: int) -> None:
    begin, taken, tail = time.monotonic(), 0, b""
    while not tail.endswith(_END):
        octets = connection.recv(64 * 1024)
        if not octets:
            return
        taken += len(octets)
        tail = (tail + octets)[-len(_END) :]
        if rate:
            time.sleep(max(0.0, begin + taken / rate - time.monotonic()))


@contextmanager
def sink(rate: int = 0) -> Iterator[tuple[str, int]]:
    """A sink in a process of its own: what it is, and its port."""
    root = Path(os.environ.get("SMTPFW_TEST_POSTFIX", "/"))
    program = root / "usr/sbin/smtp-sink"
    if rate == 0 and program.exists():
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [str(program), "-u", "nobody", f"127.0.0.1:{port}", "100"]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(root / "usr/lib/postfix")}
        with subprocess.Popen(command, env=environment) as process:
            try:
                _wait_for(port)
                yield "smtp-sink", port
            finally:
                process.terminate()
        return
    command = [sys.executable, "-m", "benchmarks.relay", "--serve", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield "a plain sink", int(process.stdout.readline())
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nobody listens on port {port}")


def send(port: int, mebibytes: int, how: str) -> float:
    """Send a message; return how many seconds that took."""
    with Client(port) as client:
        begin = time.monotonic()
        getattr(client, how)(mebibytes * MEBIBYTE)
        return time.monotonic() - begin


def relayed(mebibytes: int, how: str, rate: int = 0) -> tuple[float, int]:
    """Send a message through the server; return seconds, and its peak memory in octets."""
    limit = f"{2 * mebibytes}M"
    with (
        sink(rate) as (_, port),
        Twistd("--backend", f"relay:127.0.0.1:{port}", "--max-message-bytes", limit) as server,
    ):
        return send(server.port, mebibytes, how), peak_memory(server.pid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return 0
    mebibytes = arguments.mebibytes
    with sink() as (name, port):
        seconds = send(port, mebibytes, "data")
    print(f"straight to {name}: {mebibytes} MiB in {seconds:5.1f} s ({mebibytes / seconds:4.0f} MiB/s)", flush=True)
    right = True
    for how in ("data", "bdat"):
        seconds, peak = relayed(mebibytes, how)
        right = right and peak < MOST_MEMORY
        print(
            f"relayed, by {how.upper()}: {mebibytes} MiB in {seconds:5.1f} s ({mebibytes / seconds:4.0f} MiB/s), "
            f"peak memory {peak / MEBIBYTE:5.1f} MiB",
            flush=True,
        )
    seconds, peak = relayed(SMALL, "data", SLOW)
    expected = SMALL * MEBIBYTE / SLOW
    # What is in the buffers between both need not have been read when the sender is done with all but the end.
    right = right and peak < MOST_MEMORY and seconds > 0.9 * expected
    print(
        f"to a sink that reads {SLOW / MEBIBYTE:g} MiB/s: {SMALL} MiB in {seconds:5.1f} s (it needs {expected:g} s), "
        f"peak memory {peak / MEBIBYTE:5.1f} MiB"
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
