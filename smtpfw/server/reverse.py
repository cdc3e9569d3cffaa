"""
The name that DNS has for an address, bounded in time and in what is believed.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.names.error import DomainError, ResolverError
from twisted.python.failure import Failure

#: Seconds for the answer; a dialog waits for it.
TIMEOUT = 5.0

#: What may stand in a name that is shown in logs and Received lines: RFC 1034 section 3.5, and the underscores of many.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


def _on_its_own(asked: Deferred[Any]) -> Deferred[Any]:
    """
    Wait for an answer that others may wait for, too.

    Twisted's resolver asks once for all who want to know the same at the same time: whoever gives up must not take the
    answer away from the others, nor be taken for a client that has gone when another one did.
    """
    waiting: Deferred[Any] = Deferred()

    def tell(result: Any) -> None:
        if not waiting.called:
            failed = isinstance(result, Failure) and result.check(CancelledError)
            waiting.callback(Failure(ResolverError("another one has given up")) if failed else result)

    asked.addBoth(tell)
    return waiting


async def reverse_name(resolver: Any, host: str, clock: IReactorTime) -> str:
    """
    Ask for the PTR record of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).

    :param resolver: an :class:`~twisted.internet.interfaces.IResolver`.
    :param host: an IP address.
    :return: the first name in the answer, without a dot behind it; an empty text when there is none that can be used.
    """
    question = ip_address(host.partition("%")[0]).reverse_pointer
    asked: Deferred[Any] = resolver.lookupPointer(question, timeout=(1, 2, 2))
    try:
        answers, _, _ = await _on_its_own(asked).addTimeout(TIMEOUT, clock)
    except (DomainError, ResolverError, TimeoutError, ConnectError, CannotListenError, OSError):
        return ""
    for answer in answers:
        if answer.type == dns.PTR:
            name = answer.payload.name.name.decode("ascii", "replace").rstrip(".")
            if _NAME.fullmatch(name):
                return str(name)
    return ""
