"""
A client that sends many copies of a message, and says what it cost.

    python -m benchmarks.client KIND PORT N FILE

KIND is ``one``: one connection, each message when the one before has its
answer; ``ahead``: one connection, all that the client lets out; ``pool``: ten
connections. It prints ``{"msgs": ..., "wall_s": ..., "cpu_s": ...}``, as a
bench that runs several clients side by side wants it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from smtpfw.client import ClientConfig, Pool, connect

FROM, TO = "sender@example.org", ["rcpt0@example.org"]
CONFIG = ClientConfig(hello_name="client.example.org")

#: Messages that wait at a time: enough that a connection never waits for the program.
WAITING = 100


def now() -> tuple[float, float]:
    """The time, and the CPU's time of this process, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


async def keep_sending(send: Callable[[], Deferred[Any]], count: int) -> None:
    """Send ``count`` messages, some ahead of the answers to others."""
    left = count

    async def one_after_another() -> None:
        nonlocal left
        while left:
            left -= 1
            await send()

    await gatherResults([Deferred.fromCoroutine(one_after_another()) for _ in range(WAITING)])


async def run(reactor: Any, kind: str, port: int, count: int, message: bytes) -> None:
    """Send, and print."""
    where = f"127.0.0.1:{port}"
    if kind == "pool":
        pool = Pool(where, max_connections=10, max_messages=0, config=CONFIG, reactor=reactor)
        await pool.send_mail(FROM, TO, message)
        before = now()
        await keep_sending(lambda: pool.send_mail(FROM, TO, message), count)
        after = now()
        await pool.close()
    else:
        client = await connect(where, config=CONFIG, reactor=reactor)
        before = now()
        if kind == "one":
            for _ in range(count):
                await client.send_mail(FROM, TO, message)
        else:
            await keep_sending(lambda: client.send_mail(FROM, TO, message), count)
        after = now()
        await client.quit()
    print(json.dumps({"msgs": count, "wall_s": after[0] - before[0], "cpu_s": after[1] - before[1]}))


def main(reactor: Any, kind: str, port: str, count: str, path: str) -> Deferred[None]:
    """Read the arguments."""
    return Deferred.fromCoroutine(run(reactor, kind, int(port), int(count), Path(path).read_bytes()))


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("one", "ahead", "pool"):
        raise SystemExit(__doc__)
    task.react(main, sys.argv[1:])
