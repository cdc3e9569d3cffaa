"""Dovecot as a proxy: it takes submissions and LMTP, and has them said to another server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.interop.servers.common import PASSWORD, free_ports
from tests.interop.servers.dovecot import Dovecot
from tests.interop.servers.dovecot_settings import PROXIES
from tests.interop.servers.root import private_root


@dataclass(frozen=True, slots=True)
class Fronts:
    """
    :ivar submission: where it takes submissions.
    :ivar told: the same, of clients that begin with a PROXY header.
    :ivar lmtp: where it speaks LMTP.
    """

    submission: int
    told: int
    lmtp: int


@contextmanager
def dovecot_proxies(relay: int, users: Mapping[str, int | None]) -> Iterator[Fronts]:
    """
    :param relay: the port of the server that submissions go to.
    :param users: who can log in, or gets mail -> the port of the server that he is handed over to; None if what he
        submits is relayed.
    :raises PeerMissing: if it cannot be had here.
    """
    with private_root() as root:
        lines = []
        for user, port in users.items():
            extra = "" if port is None else f"proxy=y host=127.0.0.1 port={port}"
            lines.append(f"{user}:{{PLAIN}}{PASSWORD}::::::{extra}\n")
        (root / "conf/accounts").write_text("".join(lines))
        submission, told, lmtp = free_ports(3)
        with Dovecot(root, PROXIES, port=submission, told_port=told, lmtp_port=lmtp, relay_port=relay):
            yield Fronts(submission, told, lmtp)
