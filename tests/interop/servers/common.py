"""
What every server of the tests says of itself, and what its starting needs.

The mailboxes are the same at all of them, so that one table of tests serves all:
``u0`` to ``u2999`` and ``ü0`` to ``ü9`` exist, and whatever begins with
``nobody`` is refused at RCPT with 550. Nobody empties a mailbox: each test takes
fresh ones.
"""

from __future__ import annotations

import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import Authority, certificate_pem, key_pem, make_key

DOMAIN = "local.example"
USER, PASSWORD = "joe", "secret of joe"

#: Names of mailboxes that exist.
MAILBOXES = tuple(f"u{number}" for number in range(3000))
UTF8_MAILBOXES = tuple(f"ü{number}" for number in range(10))

#: Names of mailboxes without room: servers of LMTP take them at RCPT, and refuse the message.
FULL = tuple(f"full{number}" for number in range(10))

#: Seconds to wait for a server's start, and for what it has accepted to be in its mailbox.
TIMEOUT = 30.0

#: Linux has outgoing connections begin at 32768.
_PORTS = range(20000, 32768)


@dataclass(frozen=True, slots=True)
class Peer:
    """
    A server that runs.

    :ivar name: what to call it in a failure.
    :ivar port: where it talks in clear; with STARTTLS, if that is among the extensions.
    :ivar smtps_port: where TLS comes first; None if it has no such port.
    :ivar ca: a PEM file with the certificate, for ``localhost``, that its own is verified with.
    :ivar mechanisms: what it offers for AUTH, once there is TLS.
    :ivar extensions: keywords of its EHLO, within TLS, that tests depend on.
    :ivar read: what is in a mailbox, as files have it.
    :ivar protocol: ``smtp`` or ``lmtp``.
    :ivar clear_auth: whether AUTH is offered without TLS as well.
    :ivar certificates: a folder with what :func:`write_client_certificates` has made; None if it has no EXTERNAL.
    :ivar socket: the Unix socket that it is reached by; None if that is by TCP.
    :ivar at_once: how many connections may be opened to it at the same time.
    """

    name: str
    port: int
    ca: Path
    read: Callable[[str], list[bytes]]
    smtps_port: int | None = None
    host: str = "127.0.0.1"
    domain: str = DOMAIN
    user: str = USER
    password: str = PASSWORD
    mechanisms: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    protocol: str = "smtp"
    clear_auth: bool = False
    certificates: Path | None = None
    socket: Path | None = None
    at_once: int = 20
    _mailboxes: Iterator[str] = field(default_factory=lambda: iter(MAILBOXES), repr=False)
    _utf8_mailboxes: Iterator[str] = field(default_factory=lambda: iter(UTF8_MAILBOXES), repr=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def where(self, *, implicit: bool = False) -> str:
        """How the client is told of it."""
        place = f"{self.host}:{self.port}"
        if implicit:
            place = f"smtps:{self.host}:{self.smtps_port}"
        elif self.socket is not None:
            place = f"unix:{self.socket}"
        return f"lmtp:{place}" if self.protocol == "lmtp" else place

    def has(self, keyword: str) -> bool:
        """Whether it offers an extension."""
        return keyword in self.extensions

    def fresh(self) -> str:
        """The address of a mailbox in which there is nothing yet."""
        return f"{next(self._mailboxes)}@{self.domain}"

    def fresh_utf8(self) -> str:
        """The same, for a name beyond ASCII."""
        return f"{next(self._utf8_mailboxes)}@{self.domain}"

    def refused(self) -> str:
        """An address that gets 550 at RCPT."""
        return f"nobody{next(self._numbers)}@{self.domain}"

    def stored(self, mailbox: str, number: int = 1) -> list[bytes]:
        """
        What is in a mailbox, once there are ``number`` messages; this blocks.

        :param mailbox: its address.
        :return: each with CRLF for line ends: servers on Unix store LF.
        :raises AssertionError: if they are not there in time.
        """
        local_part = mailbox.partition("@")[0]
        poll = threading.Event()
        deadline = time.monotonic() + TIMEOUT
        while len(found := self.read(local_part)) < number and time.monotonic() < deadline:
            poll.wait(0.02)
        assert len(found) >= number, f"{self.name}: {len(found)} of {number} messages in {mailbox}"
        return [octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for octets in found]


def read_maildir(folder: Path) -> list[bytes]:
    """The new messages of a Maildir that may not exist yet."""
    return [path.read_bytes() for path in sorted((folder / "new").glob("*"))] if (folder / "new").exists() else []


def free_ports(number: int) -> list[int]:
    """
    Loopback ports that nothing listens on at this moment; no two are the same.

    They are below those that outgoing connections get, so that none takes one before its server does.
    """
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            each = stack.enter_context(socket.socket())
            with suppress(OSError):
                each.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == number:
                break
        return found


def write_certificate(folder: Path) -> None:
    """A certificate for localhost: ``server.pem`` for the server, with its key, and ``ca.pem`` for clients."""
    key = make_key()
    certificate = certificate_pem(key)
    (folder / "server.pem").write_bytes(certificate + key_pem(key))
    (folder / "ca.pem").write_bytes(certificate)


def write_client_certificates(folder: Path) -> None:
    """
    What EXTERNAL needs: ``clients.pem`` is the authority that a server believes; it vouches for :data:`USER` with
    ``client.pem`` and for somebody unknown with ``stranger.pem``, certificate and key in each.
    """
    authority = Authority()
    (folder / "clients.pem").write_bytes(authority.pem)
    (folder / "client.pem").write_bytes(authority.named(USER))
    (folder / "stranger.pem").write_bytes(authority.named("max"))
