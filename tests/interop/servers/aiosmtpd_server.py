"""
aiosmtpd in a process of its own: STARTTLS on one port, TLS from the first octet on another, PLAIN and LOGIN.

Run as a program, this file is that process: it prints its two ports, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.interop.servers.common import (
    DOMAIN,
    MAILBOXES,
    PASSWORD,
    TIMEOUT,
    USER,
    UTF8_MAILBOXES,
    Peer,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.packages import PeerMissing
from tests.running import ROOT


@contextmanager
def aiosmtpd_server() -> Iterator[Peer]:
    """:raises PeerMissing: if aiosmtpd is not installed."""
    if importlib.util.find_spec("aiosmtpd") is None:
        raise PeerMissing("aiosmtpd is not installed")
    with tempfile.TemporaryDirectory(prefix="aiosmtpd-") as name:
        folder = Path(name)
        write_certificate(folder)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", __name__, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            ports = process.stdout.readline().split()
            if len(ports) != 2:
                raise RuntimeError("aiosmtpd does not start")
            yield Peer(
                name="aiosmtpd",
                port=int(ports[0]),
                smtps_port=int(ports[1]),
                ca=folder / "ca.pem",
                read=lambda mailbox: read_maildir(folder / mailbox),
                mechanisms=frozenset({"PLAIN", "LOGIN"}),
                extensions=frozenset({"STARTTLS", "8BITMIME", "SMTPUTF8", "SIZE"}),
            )
        finally:
            process.communicate(timeout=TIMEOUT)


class _Handler:
    """Stores each message once for each recipient, as the octets that came."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        name, _, domain = address.partition("@")
        if domain != DOMAIN or name not in (*MAILBOXES, *UTF8_MAILBOXES):
            return "550 5.1.1 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        for address in envelope.rcpt_tos:
            new = self._folder / address.partition("@")[0] / "new"
            new.mkdir(parents=True, exist_ok=True)
            number = next(self._numbers)
            # None may see half of it.
            (new / f".{number}").write_bytes(envelope.original_content)
            (new / f".{number}").rename(new / str(number))
        # What tests of AUTH ask about.
        auth_data = session.auth_data
        return f"250 2.0.0 stored for {auth_data.login.decode() if session.authenticated else 'nobody'}"


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> Any:
    from aiosmtpd.smtp import AuthResult

    right = (auth_data.login, auth_data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=False, auth_data=auth_data if right else None)


async def _serve(folder: Path) -> None:
    from aiosmtpd.smtp import SMTP

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    handler = _Handler(folder)
    common: dict[str, Any] = {
        "data_size_limit": 40_000_000,
        "enable_SMTPUTF8": True,
        "hostname": "aiosmtpd.example.net",
        "authenticator": _authenticate,
    }

    def in_clear() -> SMTP:
        return SMTP(handler, tls_context=context, **common)

    def within_tls() -> SMTP:
        # It counts no TLS as such that it has not started itself.
        return SMTP(handler, auth_require_tls=False, **common)

    loop = asyncio.get_running_loop()
    clear = await loop.create_server(in_clear, "127.0.0.1", 0)
    tls = await loop.create_server(within_tls, "127.0.0.1", 0, ssl=context)
    print(*(server.sockets[0].getsockname()[1] for server in (clear, tls)), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
