"""
Asks the server to stop at random moments under load, and looks whether everybody got an answer that is true.

    python -m tests.durability.sigterm --connections 20 --rounds 20
    python -m tests.durability.sigterm --rounds 20 --twice

The clients of :mod:`tests.durability.manners` send messages of 200 octets to 2 MB. At a random
moment the server gets SIGTERM. Then every message that was answered 250 must
be in every ``new`` that it was for, whole and once; none may be there that was
not; no file may be left in ``tmp``. Every connection must have ended with a 421
or, after QUIT, a 221: one that is cut without a word is a fault. The process
must end with status 0, before the grace time is over.

With ``--twice`` a second signal follows the first: it does not wait, so
connections may be cut; but what was acknowledged must be there, and the status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.load import CONNECTIONS, Outcome, Stored
from tests.durability.manners import MANNERS, Client
from tests.running import Twistd

#: That of ``memory`` would be full before the signal comes.
BACKENDS = ("maildir", "discard")

#: Seconds for messages under way. The slowest client needs less than two for one.
GRACE = 10.0


@dataclass
class Round:
    """
    One run.

    :ivar moment: seconds until the signal.
    :ivar ends: how often connections ended how.
    :ivar seconds: from the signal to the end of the process.
    """

    moment: float
    outcome: Outcome = field(default_factory=Outcome)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    status: int = -1
    seconds: float = 0.0
    log: str = ""


def stop_once(
    backend: str,
    number: int,
    rng: random.Random,
    connections: int,
    *,
    twice: bool = False,
) -> Round:
    """Start a server, load it, and send SIGTERM."""
    result = Round(rng.uniform(0.02, 1.5))
    with Twistd("--backend", backend, "--grace", f"{GRACE:g}s", "--max-connections-per-address", "0") as server:

        async def run() -> None:
            clients = [
                asyncio.create_task(
                    Client(
                        server.port, f"{number}.{client}", random.Random(rng.random()), result.outcome, result.ends
                    ).run(MANNERS[client % len(MANNERS)])
                )
                for client in range(connections)
            ]
            await asyncio.sleep(result.moment)
            began = time.monotonic()
            if twice:
                await _signal_first(server)
            result.status = await asyncio.to_thread(server.stop)
            result.seconds = time.monotonic() - began
            _, waiting = await asyncio.wait(clients, timeout=5)
            for client in clients:
                if client in waiting:
                    client.cancel()
                    result.faults.append("a client still waits, though the server has ended")
                elif error := client.exception():
                    result.faults.append(f"a client was surprised: {error!r}")

        asyncio.run(run())
        result.log = server.log
    return result


async def _signal_first(server: Twistd) -> None:
    """Send SIGTERM, and wait until it is obeyed: of two that come at once the kernel delivers one."""
    os.kill(server.pid, signal.SIGTERM)
    for _ in range(1000):
        if "Stopping;" in server.log:
            return
        await asyncio.sleep(0.005)
    raise RuntimeError(f"SIGTERM was not obeyed:\n{server.log}")


def judge(result: Round, folder: Path | None, twice: bool) -> list[str]:
    """
    What was wrong with a run; the stored files are removed.

    :param folder: of the mailboxes; None for a backend whose mail can't be looked into.
    """
    faults = list(result.faults)
    if result.status:
        faults.append(f"status {result.status}")
    if "Traceback" in result.log:
        faults.append(f"the log has a traceback: ...{result.log.partition('Traceback')[2][:2000]}")
    if result.seconds > GRACE + 5:
        faults.append(f"it took {result.seconds:.1f} s to end")
    if not twice:
        faults += [f"{count} connections were {end}" for end, count in result.ends.items() if end.startswith("cut")]
    if folder is not None:
        faults += _judge_files(folder, result.outcome, twice)
    return faults


def _judge_files(folder: Path, outcome: Outcome, twice: bool) -> list[str]:
    faults = []
    stored = Stored()
    files = list(folder.glob("*/new/*"))
    stored.read(files)
    for token, copies in outcome.acknowledged.items():
        found = stored.whole.pop(token, 0)
        if found != copies:
            faults.append(f"{token} was acknowledged for {copies}, and is there {found} times")
    left = list(folder.glob("*/tmp/*"))
    if not twice:
        # Its client will send it again.
        faults += [f"{token} was not acknowledged, and is there {found} times" for token, found in stored.whole.items()]
        faults += [f"left in tmp: {path.name}" for path in left]
    faults += [f"not whole: {path.name}" for path in stored.partial]
    for path in (*files, *left):
        path.unlink()
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--backend", choices=BACKENDS, default="maildir")
    parser.add_argument("--twice", action="store_true", help="send a second signal after the first")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"seed {arguments.seed}")
    acknowledged = faulty = 0
    with tempfile.TemporaryDirectory(prefix="smtpfw-sigterm-") as name:
        stores = arguments.backend == "maildir"
        backend = f"maildir:{name}/{{user}}:create=yes" if stores else arguments.backend
        for number in range(1, arguments.rounds + 1):
            result = stop_once(backend, number, rng, arguments.connections, twice=arguments.twice)
            faults = judge(result, Path(name) if stores else None, arguments.twice)
            acknowledged += len(result.outcome.acknowledged)
            faulty += bool(faults)
            ends = ", ".join(f"{count} {end}" for end, count in result.ends.most_common())
            print(
                f"{number:3}/{arguments.rounds}  SIGTERM after {result.moment:4.2f} s, status {result.status} after "
                f"{result.seconds:5.2f} s; {len(result.outcome.acknowledged):5} acknowledged; ends: {ends}",
                flush=True,
            )
            for fault in faults[:10]:
                print(f"     FAULT: {fault}")
    print(f"{acknowledged} acknowledged, {faulty} of {arguments.rounds} rounds with faults")
    return 1 if faulty or not acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
