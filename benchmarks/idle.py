"""
What an idle connection costs: the memory of a server that many clients have introduced themselves to and left waiting.

    python -m benchmarks.idle --connections 10000
    python -m benchmarks.idle --connections 1000 --tls

A child process opens the connections; each is greeted and says EHLO. Prints the
growth of the server's resident memory for each of them, and what a message
takes on one more connection before and meanwhile: that must not grow with the
number of those that wait. What the kernel keeps for a socket is not in it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.big_message import Client
from tests.certificates import write_pair
from tests.running import Twistd

#: Connections from one source address; there are some 28,000 ports for one.
PER_ADDRESS = 20_000

#: Descriptors that a process needs for other things.
SPARE_FILES = 100

MESSAGES = 300

#: Connections that come and go before anything is measured: what is made once, for the first ones, is no cost of one.
WARM_UP = 50

_NO_LIMITS = [word for option in ("max-connections", "max-connections-per-address") for word in (f"--{option}", "0")]


def open_one(port: int, number: int, tls: ssl.SSLContext | None) -> socket.socket:
    """A connection that has been greeted and has said EHLO."""
    client = socket.socket()
    client.settimeout(60)
    client.bind((f"127.0.0.{1 + number // PER_ADDRESS}", 0))
    client.connect(("127.0.0.1", port))
    if tls is not None:
        client = tls.wrap_socket(client)
    read_reply(client, b"220")
    client.sendall(b"EHLO idle.example\r\n")
    read_reply(client, b"250")
    return client


def read_reply(client: socket.socket, code: bytes) -> None:
    """Read one reply, which is all that comes."""
    received = b""
    while not (received.endswith(b"\r\n") and received[:-2].rpartition(b"\n")[2][3:4] == b" "):
        octets = client.recv(65536)
        if not octets:
            raise ConnectionError(f"the server has gone after {received!r}")
        received += octets
    if not received.startswith(code):
        raise ConnectionError(f"expected {code.decode()}, got {received!r}")


def hold(pipe: Connection, port: int, connections: int, encrypted: bool) -> None:
    """In the child: open them, say so, and keep them until the other end of the pipe speaks."""
    tls = None
    if encrypted:
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    held = [open_one(port, number, tls) for number in range(connections)]
    pipe.send(len(held))
    pipe.recv()
    for client in held:
        client.close()


class Idlers(AbstractContextManager["Idlers"]):
    """So many connections, from a process of their own."""

    def __init__(self, port: int, connections: int, encrypted: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=hold, args=(theirs, port, connections, encrypted))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Idlers:
        try:
            self._pipe.recv()
        except EOFError:
            raise RuntimeError("the process with the idle connections has ended") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.send("enough")
        self._process.join()


def resident_memory(pid: int) -> int:
    """Octets of a process's memory that are in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Rss")


def message_time(client: Client) -> float:
    """Seconds that a small message takes, the median of many."""
    times = []
    for _ in range(MESSAGES):
        begin = time.perf_counter()
        client.envelope()
        client.command(b"DATA", b"354")
        client.command(b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n.", b"250")
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def measure(connections: int, encrypted: bool = False) -> tuple[float, float, float]:
    """Return octets of memory for each connection, and the seconds of a message before and meanwhile."""
    with tempfile.TemporaryDirectory(prefix="smtpfw-idle-") as name:
        options = ["--backend", "discard", *_NO_LIMITS, "--listen", "tcp:0:interface=127.0.0.1"]
        if encrypted:
            certificate = write_pair(Path(name))
            options += ["--listen", "smtps:tcp:0:interface=127.0.0.1", "--tls", str(certificate)]
        with Twistd(*options) as server, Client(server.port) as client:
            port = server.ports[-1]
            with Idlers(port, WARM_UP, encrypted):
                message_time(client)
            time_before = message_time(client)
            memory_before = resident_memory(server.pid)
            with Idlers(port, connections, encrypted):
                memory = (resident_memory(server.pid) - memory_before) / connections
                time_meanwhile = message_time(client)
    return memory, time_before, time_meanwhile


def allow_files(number: int) -> None:
    """
    Let this process and its children open so many files.

    :raises SystemExit: if the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        if hard != resource.RLIM_INFINITY and hard < number:
            raise SystemExit(f"{number} open files are needed, and the hard limit (ulimit -Hn) is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, help="10,000, or 1,000 with --tls")
    parser.add_argument("--tls", action="store_true", help="implicit TLS")
    arguments = parser.parse_args()
    connections = arguments.connections or (1_000 if arguments.tls else 10_000)
    allow_files(connections + SPARE_FILES)
    memory, before, meanwhile = measure(connections, arguments.tls)
    print(
        f"{connections} idle connections {'under TLS' if arguments.tls else 'in clear'}: "
        f"{memory / 1024:.2f} KiB each; a message on another takes {before * 1e6:.0f} us before, "
        f"{meanwhile * 1e6:.0f} us meanwhile"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
