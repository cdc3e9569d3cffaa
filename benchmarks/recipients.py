"""
What a recipient costs: messages with 10, 100 and 1,000 of them, by SMTP and LMTP.

    python -m benchmarks.recipients --recipients 50000

Sends as many small messages as it takes to name so many recipients. Prints the
CPU time of the server and the time of the dialog, in microseconds for each
recipient; neither may grow with the number of recipients in a message. In LMTP
a recipient has a second reply, behind the message.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from pathlib import Path

from tests.running import Twistd

NUMBERS = (10, 100, 1000)

MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\n"


class Client:
    """
    Sends to many; use it in ``with``.

    :param hello: ``EHLO``, or ``LHLO`` for LMTP.
    """

    def __init__(self, port: int, hello: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._answers = hello == b"LHLO"
        self._expect(b"220", 1)
        self._say(hello + b" bench.example\r\n", b"250")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._socket.close()

    def _say(self, octets: bytes, code: bytes, replies: int = 1) -> None:
        self._socket.sendall(octets)
        self._expect(code, replies)

    def _expect(self, code: bytes, replies: int) -> None:
        while replies:
            line = self._file.readline()
            if not line.startswith(code):
                raise RuntimeError(f"expected {code.decode()}, got {line!r}")
            replies -= line[3:4] == b" "

    def send(self, recipients: int, pipelined: bool) -> None:
        """Send one message."""
        commands = [b"MAIL FROM:<a@example.net>\r\n"]
        commands += [b"RCPT TO:<user%d@example.org>\r\n" % number for number in range(recipients)]
        if pipelined:
            self._say(b"".join(commands), b"250", len(commands))
        else:
            for command in commands:
                self._say(command, b"250")
        self._say(b"DATA\r\n", b"354")
        self._say(MESSAGE, b"250", recipients if self._answers else 1)


def cpu_time(pid: int) -> float:
    """Seconds that the main thread of a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, default=50_000, help="for each line of the table")
    arguments = parser.parse_args()
    print("us for each recipient: CPU of the server (time of the dialog)")
    print(f"{'recipients of a message':28}" + "".join(f"{number:>18,}" for number in NUMBERS))
    for protocol, hello in (("smtp", b"EHLO"), ("lmtp", b"LHLO")):
        options = ["--backend", "discard", "--protocol", protocol]
        with Twistd(*options) as server, Client(server.port, hello) as client:
            for pipelined in (True, False):
                figures = []
                for recipients in NUMBERS:
                    client.send(recipients, pipelined)
                    cpu, begin = cpu_time(server.pid), time.perf_counter()
                    for _ in range(arguments.recipients // recipients):
                        client.send(recipients, pipelined)
                    scale = 1e6 / (arguments.recipients // recipients * recipients)
                    figures.append(
                        f"{(cpu_time(server.pid) - cpu) * scale:.1f} ({(time.perf_counter() - begin) * scale:.1f})"
                    )
                how = f"{protocol.upper()}, {'pipelined' if pipelined else 'one by one'}"
                print(f"{how:28}" + "".join(f"{figure:>18}" for figure in figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
