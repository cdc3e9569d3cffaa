"""
What a client calls itself.
"""

from __future__ import annotations

import re
import socket
from functools import cache
from ipaddress import IPv6Address
from pathlib import Path

from smtpfw.client.hosts import to_address, without_zone

__all__ = ["full_name", "hello_name"]

_HOSTS = Path("/etc/hosts")
_FULL_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)


def hello_name(local_host: str = "") -> str:
    """
    What a client calls itself in EHLO, HELO and LHLO (RFC 5321 section 4.1.1.1).

    The full name of this machine if it has one: the name that the kernel knows, if there is a dot in it, or the one
    that ``/etc/hosts`` has for it, as ``hostname -f`` finds it there. DNS is not asked: ``socket.getfqdn()`` does, and
    stops everything for as long as a name server is silent, half a minute as a rule. It is looked for once, and kept.

    Without such a name it is an address literal, and never ``localhost``, which every machine is called.

    :param local_host: our own address on the connection, ``transport.getHost().host``. What is no address, as on a
        Unix socket, is as good as none: then the literal is ``[127.0.0.1]``, as smtplib has it.
    """
    return full_name() or _literal(local_host)


@cache
def full_name() -> str:
    """The full name of this machine, without asking DNS; empty if it has none."""
    own = socket.gethostname()
    return next((name for name in (own, *_names_in_hosts(own)) if _is_full_name(name)), "")


def _names_in_hosts(name: str) -> list[str]:
    try:
        text = _HOSTS.read_text("utf-8", "replace")
    except OSError:
        return []
    lines = [line.partition("#")[0].split()[1:] for line in text.splitlines()]
    return [word for words in lines if name.lower() in map(str.lower, words) for word in words]


def _is_full_name(name: str) -> bool:
    labels = name.lower().split(".")
    # Names that many machines have say no more than localhost does.
    return _FULL_NAME.fullmatch(name) is not None and not {labels[0], labels[-1]} & {"localhost", "localdomain"}


def _literal(local_host: str) -> str:
    # RFC 5321 section 4.1.3: a literal has no zone.
    address = to_address(without_zone(local_host))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = mapped or address
    if address is None or address.is_unspecified:
        return "[127.0.0.1]"
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
