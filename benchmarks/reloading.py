"""
A configuration that is read again and again while mail comes in: what is dropped, and what is lost.

    python -m benchmarks.reloading [--reloads 200] [--workers N]

Twenty clients send messages with a number in each, a new connection for every
20 of them, to a Maildir. Meanwhile the file is changed, and the server told so
by SIGHUP; every tenth time the file is broken. No connection may break, and
each number that was answered 250 must be in the folder, once.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.workers import Sender
from tests.running import Twistd

CLIENTS = 20

CONFIGURATION = """\
hostname = "mx.example.org"
workers  = {workers}

[deliver]
local = "maildir:{maildir}"

[listen.mx]
on     = ["tcp:0:interface=127.0.0.1"]
routes = [ {{ to = "example.org", deliver = "local" }} ]
limits = {{ max_recipients = {number}, max_connections_per_address = 0 }}
"""

#: Every tenth file ends in one of these.
MISTAKES = ("[listen.mx\n", "[listn.other]\n", 'tls = "no such file"\n', '[listen.b]\non = "tcp:1"\n')

_READ = re.compile(r"The configuration was read again")
_REFUSED = re.compile(r"Everything stays as it was")


def reload(reloads: int, workers: int) -> bool:
    """Print what became of the connections and the messages; return whether nothing did."""
    with tempfile.TemporaryDirectory(prefix="smtpfw-reloading-") as name:
        folder = Path(name)
        maildir, file = folder / "Maildir", folder / "smtpfw.toml"
        settings = {"workers": workers, "maildir": maildir}
        file.write_text(CONFIGURATION.format(number=100, **settings))
        stop = threading.Event()
        with Twistd("--config", str(file), folder=folder) as server:
            senders = [Sender(server.port, f"client{number}", stop) for number in range(CLIENTS)]
            for sender in senders:
                sender.start()
            times = []
            for number in range(1, reloads + 1):
                text = CONFIGURATION.format(number=100 + number, **settings)
                broken = number % 10 == 0
                if broken:
                    text += MISTAKES[number // 10 % len(MISTAKES)]
                file.write_text(text)
                pattern = _REFUSED if broken else _READ
                before = len(pattern.findall(server.log))
                begin = time.monotonic()
                os.kill(server.pid, signal.SIGHUP)
                while len(pattern.findall(server.log)) == before:
                    if time.monotonic() > begin + 60:
                        raise RuntimeError(f"reload {number} has not come to its end:\n{server.log[-2000:]}")
                    time.sleep(0.005)
                times.append(time.monotonic() - begin)
                time.sleep(0.1)
            stop.set()
            for sender in senders:
                sender.join()
            server.stop()
        stored = Counter(
            re.search(rb"^Subject: (\S+)", path.read_bytes(), re.MULTILINE)[1].decode()  # type: ignore[index]
            for path in (maildir / "new").iterdir()
        )
    acknowledged = {mark for sender in senders for mark in sender.acknowledged}
    lost = acknowledged.difference(stored)
    twice = [mark for mark, count in stored.items() if count > 1]
    broken_connections = sum(sender.broken for sender in senders)
    times.sort()
    print(
        f"{reloads} reloads, {reloads // 10} of them of a broken file: {len(acknowledged)} messages acknowledged, "
        f"{len(lost)} of them lost, {len(twice)} stored twice; {broken_connections} connections broken; "
        f"a reload took {times[len(times) // 2] * 1000:.0f} ms, {times[-1] * 1000:.0f} ms at most"
    )
    return not (lost or twice or broken_connections)


def main() -> int:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    return 0 if reload(arguments.reloads, arguments.workers) else 1


if __name__ == "__main__":
    sys.exit(main())
