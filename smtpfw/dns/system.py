"""
Whom names are asked of, where nobody has said otherwise: the name servers of the system's settings.

There is one resolver for the process: its bound on questions is one for all who ask, and a reload adds no other that
would look after ``/etc/resolv.conf`` for ever. It is made, and twisted.names loaded, when somebody asks: not every
server does.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from smtpfw.dns.questions import NotKnown

__all__ = ["resolver_with_hosts", "system_resolver"]


@cache
def system_resolver(path: str = "/etc/resolv.conf") -> Any:
    """
    The name servers in a file.

    :raises NotKnown: if that can't be read; it is tried again the next time.
    """
    from smtpfw.dns.resolver import UNREADABLE, SystemResolver

    try:
        return SystemResolver(path=path)
    except UNREADABLE as error:
        raise NotKnown(f"nobody can be asked, the system's settings of DNS can't be read: {path}: {error}") from error


@cache
def resolver_with_hosts(path: str = "/etc/hosts") -> Any:
    """
    The system's, but first the addresses in a file, which is read for each question: for hosts to connect to.

    :raises NotKnown: as :func:`system_resolver`.
    """
    from twisted.names.hosts import Resolver
    from twisted.names.resolve import ResolverChain

    return ResolverChain([Resolver(path), system_resolver()])
