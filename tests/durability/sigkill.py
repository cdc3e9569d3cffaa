"""
Kills the server at random moments under load, and looks for lost or partial messages.

    python -m tests.durability.sigkill --kills 50

20 connections send messages of 200 octets to 300 KB to one, two or three
Maildir folders. At a random moment the server gets SIGKILL. Then every message
that was answered 250 must be in every ``new`` that it was for, whole, and no
file in any ``new`` may be partial. SIGKILL says nothing of the disk: what
reaches it before the reply is the business of ``tests.durability.test_syscalls``.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.durability.load import CONNECTIONS, Outcome, Stored, send_until_gone
from tests.running import Twistd

USERS = ["ann@example.org", "bob@example.org", "eve@example.org"]


def kill_once(folder: Path, number: int, rng: random.Random) -> tuple[Outcome, float]:
    """One run: start, load, kill. Return what the clients saw, and the seconds until the kill."""
    outcome = Outcome()
    moment = rng.uniform(0.02, 1.5)
    with Twistd("--backend", f"maildir:{folder}/{{user}}:create=yes") as server:

        async def run() -> None:
            clients = [
                asyncio.create_task(
                    send_until_gone(server.port, f"{number}.{client}", random.Random(rng.random()), outcome, USERS)
                )
                for client in range(CONNECTIONS)
            ]
            await asyncio.sleep(moment)
            server.stop(signal.SIGKILL)
            await asyncio.wait_for(asyncio.gather(*clients), 30)

        asyncio.run(run())
    return outcome, moment


def check(folder: Path, number: int, outcome: Outcome) -> tuple[list[str], list[Path]]:
    """Return the tokens that are missing in some folder, and the files that are partial; forget the files."""
    stored = Stored()
    files = list(folder.glob("*/new/*"))
    stored.read(files)
    missing = [token for token, times in outcome.acknowledged.items() if stored.whole.get(token, 0) != times]
    for path in files:
        path.unlink()
    return missing, stored.partial


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    print(f"seed {arguments.seed}")
    acknowledged = lost = broken = 0
    with tempfile.TemporaryDirectory(prefix="smtpfw-sigkill-") as name:
        folder = Path(name)
        for number in range(1, arguments.kills + 1):
            outcome, moment = kill_once(folder, number, rng)
            missing, partial = check(folder, number, outcome)
            acknowledged += len(outcome.acknowledged)
            lost += len(missing)
            broken += len(partial)
            print(
                f"{number:3}/{arguments.kills}  killed after {moment:4.2f} s  "
                f"{len(outcome.acknowledged):5} acknowledged, {len(missing)} lost, {len(partial)} partial",
                flush=True,
            )
            for token in missing[:5]:
                print(f"     lost: {token}")
            for path in partial[:5]:
                print(f"     partial: {path}")
    print(f"{acknowledged} acknowledged, {lost} lost, {broken} partial")
    return 1 if lost or broken or not acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
