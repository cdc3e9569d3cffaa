"""
What several workers are worth: who gets the connections, what a message costs, and what is lost when they are killed.

    python -m benchmarks.workers spread
    python -m benchmarks.workers cost
    python -m benchmarks.workers kill

``spread`` counts which of two workers takes the connections, of several kinds
of clients. ``cost`` is the CPU's time for a message, of all processes of the
server together, with one worker and with two. ``kill`` sends messages with a
number in each to a Maildir, while one worker after the other is ended by
SIGKILL; each number that was answered 250 must be in the folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import smtplib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.running import ROOT, Twistd

WORKERS = 2
SENDER, RECIPIENT = "me@example.org", ["you@example.org"]

#: A message for ``cost``: 4 KiB, as most are without attachments.
MESSAGE = b"Subject: x\r\n\r\n" + b"x" * 70 * 58 + b"\r\n"

_NO_LIMITS = ["--max-connections", "0", "--max-connections-per-address", "0"]
_SERVES = re.compile(r"Worker (\d+) serves, process (\d+)")
_PROCESSES = re.compile(r"The workers' processes: (.*)")
_TICKS = os.sysconf("SC_CLK_TCK")


def pids_of(log: str) -> dict[int, int]:
    """The number of each worker, and its process now."""
    pids = {}
    for line in log.splitlines():
        found = _PROCESSES.search(line)
        if found:
            pids = dict(enumerate(map(int, found[1].split(", ")), 1))
        found = _SERVES.search(line)
        if found:
            pids[int(found[1])] = int(found[2])
    return pids


# -- spread -----------------------------------------------------------------------


def greeted(port: int) -> socket.socket:
    """A connection that has been greeted."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.recv(1000)
    return client


def one_by_one(port: int) -> None:
    """200 clients, each when the one before has left."""
    for _ in range(200):
        greeted(port).close()


def with_pauses(port: int) -> None:
    """100 clients, one every 10 ms."""
    for _ in range(100):
        greeted(port).close()
        time.sleep(0.01)


def staying(port: int) -> None:
    """100 clients that come one by one, and stay."""
    clients = [greeted(port) for _ in range(100)]
    for client in clients:
        client.close()


def burst(port: int) -> None:
    """200 clients that come at the same time."""
    clients = []
    for _ in range(200):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        clients.append(client)
    for client in clients:
        client.settimeout(60)
        client.recv(1000)
        client.close()


def side_by_side(port: int) -> None:
    """20 clients at a time, 400 all together, with a message each."""

    def send() -> None:
        for _ in range(20):
            with smtplib.SMTP("127.0.0.1", port, "client.example.org", timeout=60) as client:
                client.sendmail(SENDER, RECIPIENT, MESSAGE)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


KINDS: tuple[Callable[[int], None], ...] = (one_by_one, with_pauses, staying, burst, side_by_side)


def spread() -> bool:
    """Print who took the connections; return whether nobody had more than 70 of 100."""
    fair = True
    for kind in KINDS:
        with Twistd("--workers", str(WORKERS), "--backend", "discard", *_NO_LIMITS) as server:
            kind(server.port)
            server.stop()
            counts = Counter(re.findall(r"worker=(\d+)\] \w+: connected", server.log))
        shares = [counts[str(number)] / counts.total() for number in range(1, WORKERS + 1)]
        fair &= max(shares) <= 0.7
        print(f"{kind.__doc__:62} {' to '.join(f'{share:.0%}' for share in shares)}")
    return fair


# -- cost -------------------------------------------------------------------------


def cpu_of(pid: int) -> float:
    """Seconds of the CPU that a process has had so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cost_of(workers: int, backend: str, messages: int) -> float:
    """Seconds of the CPU for a message, sent over ten connections."""
    with tempfile.TemporaryDirectory(prefix="smtpfw-workers-") as name:
        folder = Path(name)
        (folder / "message").write_bytes(MESSAGE)
        options = ["--workers", str(workers), "--backend", backend.format(folder=folder)]
        with Twistd(*options, *_NO_LIMITS) as server:
            words = ["benchmarks.client", "pool", str(server.port), str(messages), str(folder / "message")]

            def send() -> None:
                done = subprocess.run(
                    [sys.executable, "-m", *words], cwd=ROOT, check=True, capture_output=True, text=True
                )
                if json.loads(done.stdout)["msgs"] != messages:
                    raise RuntimeError("some were not sent")

            # What is done once, at first, is no cost of a message.
            send()
            processes = [server.pid, *(pids_of(server.log).values() if workers > 1 else ())]
            before = sum(map(cpu_of, processes))
            send()
            return (sum(map(cpu_of, processes)) - before) / messages


def cost(messages: int, rounds: int) -> bool:
    """Print the cost of a message; return whether two workers take 15 % more than one at most."""
    good = True
    for backend in ("discard", "maildir:{folder}/Maildir"):
        costs: dict[int, list[float]] = {1: [], WORKERS: []}
        for _ in range(rounds):
            for workers, found in costs.items():
                found.append(cost_of(workers, backend, messages))
        one, several = (statistics.median(found) for found in costs.values())
        good &= several <= one * 1.15
        print(
            f"{backend.partition(':')[0]:8} one process {one * 1e6:.0f} us of the CPU for a message, "
            f"{WORKERS} workers {several * 1e6:.0f} us: {several / one - 1:+.0%}"
        )
    return good


# -- kill -------------------------------------------------------------------------


class Sender(threading.Thread):
    """Sends one message after the other, and remembers which were acknowledged, and when."""

    def __init__(self, port: int, name: str, stop: threading.Event) -> None:
        super().__init__()
        self._port = port
        self._prefix = name
        self._stop_asked = stop
        self.acknowledged: list[str] = []
        self.times: list[float] = []
        self.broken = 0

    def run(self) -> None:
        number = 0
        while not self._stop_asked.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, "client.example.org", timeout=60) as client:
                    # Connections come and go, so that each worker has some again.
                    for _ in range(20):
                        number += 1
                        mark = f"{self._prefix}-{number}"
                        text = f"Subject: {mark}\r\n\r\nhello\r\n".encode()
                        client.sendmail(SENDER, RECIPIENT, text)
                        self.acknowledged.append(mark)
                        self.times.append(time.monotonic())
            except (OSError, smtplib.SMTPException):
                self.broken += 1


def kill(kills: int, pause: float) -> bool:
    """Print what became of the messages; return whether all that were acknowledged are there."""
    with tempfile.TemporaryDirectory(prefix="smtpfw-workers-") as name:
        maildir = Path(name) / "Maildir"
        stop = threading.Event()
        back = []
        with Twistd("--workers", str(WORKERS), "--backend", f"maildir:{maildir}", *_NO_LIMITS) as server:
            while not pids_of(server.log):
                time.sleep(0.01)
            senders = [Sender(server.port, f"sender{number}", stop) for number in range(8)]
            for sender in senders:
                sender.start()
            for number in range(kills):
                time.sleep(pause)
                worker = number % WORKERS + 1
                pid = pids_of(server.log)[worker]
                os.kill(pid, signal.SIGKILL)
                begin = time.monotonic()
                while pids_of(server.log)[worker] == pid:
                    time.sleep(0.01)
                back.append(time.monotonic() - begin)
            time.sleep(pause)
            stop.set()
            for sender in senders:
                sender.join()
            server.stop()
        stored = Counter(
            re.search(rb"^Subject: (\S+)", path.read_bytes(), re.MULTILINE)[1].decode()  # type: ignore[index]
            for path in (maildir / "new").iterdir()
        )
    acknowledged = {mark for sender in senders for mark in sender.acknowledged}
    times = sorted(moment for sender in senders for moment in sender.times)
    gap = max(after - before for before, after in itertools.pairwise(times))
    lost = acknowledged.difference(stored)
    print(
        f"{kills} kills: {len(acknowledged)} messages acknowledged, {len(lost)} of them lost, "
        f"{len(stored.keys() - acknowledged)} stored without an answer that came; "
        f"{sum(sender.broken for sender in senders)} connections broken; "
        f"back after {statistics.median(back):.1f} s, {max(back):.1f} s at most; "
        f"longest time without an acknowledgement {gap * 1000:.0f} ms"
    )
    return not lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("spread", "cost", "kill"))
    parser.add_argument("--messages", type=int, default=3000, help="for cost")
    parser.add_argument("--rounds", type=int, default=3, help="for cost")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two kills")
    arguments = parser.parse_args()
    if arguments.what == "spread":
        good = spread()
    elif arguments.what == "cost":
        good = cost(arguments.messages, arguments.rounds)
    else:
        good = kill(arguments.kills, arguments.pause)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
