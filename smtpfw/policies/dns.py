"""
Questions to DNS: one record type of one name, bounded in time and in what is believed.

Rule 1: there are three outcomes. Records; none, where DNS has said so (no such
name, or no such record); and :class:`NotKnown`, for whatever leaves a doubt: a
timeout, a server that fails or refuses, a referral, a circle of aliases.

Rule 2: a record counts under the name that was asked for, or one that this is
an alias of (RFC 2181 section 10), in any case (RFC 4343), and if it is of the
type that was asked for. All else in an answer is somebody's idea.

Rule 3: whoever waits, waits alone, and no longer than its time: a resolver may
share one question among all who ask the same, and may never answer.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.names.error import AuthoritativeDomainError, DNSNameError, DomainError, ResolverError
from twisted.python.failure import Failure

__all__ = ["NotKnown", "is_host_name", "look_up", "reverse_names"]

#: Seconds after which a question is asked again. Twisted's default, (1, 3, 11, 45), goes on long after nobody waits.
RETRIES = (1, 2, 2)

#: How many aliases are followed for one question; honest names have one or two.
MAX_ALIASES = 8

#: A name that may be shown in replies, logs and Received lines: RFC 1034 section 3.5, and the underscores of many.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")

#: What a resolver raises when it can't tell.
_DOUBTS = (
    DomainError,
    ResolverError,
    TimeoutError,
    OSError,
    ConnectError,
    ConnectionClosed,
    CannotListenError,
    NotImplementedError,
)

#: What says: there is no such name. An authority in our own process has a class of its own for it.
_NO_SUCH_NAME = (DNSNameError, AuthoritativeDomainError)

_METHODS = {dns.A: "lookupAddress", dns.AAAA: "lookupIPV6Address", dns.PTR: "lookupPointer"}


class NotKnown(Exception):
    """DNS has not said whether there is such a record; the text says why not."""


async def look_up(resolver: Any, name: str, type: int, *, clock: IReactorTime, timeout: float) -> list[Any]:
    """
    Ask for the records of a name, and of those that it is an alias of.

    :param resolver: an :class:`~twisted.internet.interfaces.IResolver`.
    :param name: in ASCII.
    :param type: ``dns.A``, ``dns.AAAA`` or ``dns.PTR``.
    :param timeout: seconds for all of it.
    :return: the payloads of the records, in their order; empty when DNS says that there are none.
    :raises NotKnown: when it does not say.
    """
    deadline = clock.seconds() + timeout
    wanted = name.encode("ascii").lower().rstrip(b".")
    seen = {wanted}
    while True:
        asked = wanted
        left = deadline - clock.seconds()
        if left <= 0:
            raise NotKnown("no answer in time")
        answers = await _ask(resolver, asked, type, clock, left)
        while True:
            own = [answer for answer in answers if _folded(answer.name) == wanted]
            found = [answer.payload for answer in own if answer.type == type]
            if found:
                return found
            aliases = [_folded(answer.payload.name) for answer in own if answer.type == dns.CNAME]
            if not aliases:
                break
            wanted = aliases[0]
            if not wanted or wanted in seen or len(seen) > MAX_ALIASES:
                raise NotKnown("a circle or too many of aliases")
            seen.add(wanted)
        if wanted == asked:
            return []


async def reverse_names(
    resolver: Any, address: IPv4Address | IPv6Address, *, clock: IReactorTime, timeout: float
) -> list[str]:
    """
    The names that DNS has for an address (RFC 1035 section 3.5, RFC 3596 section 2.5): they prove nothing.

    :return: those that can be shown, without a dot behind them; none where DNS has none.
    :raises NotKnown: when it does not say.
    """
    pointers = await look_up(resolver, address.reverse_pointer, dns.PTR, clock=clock, timeout=timeout)
    names = (pointer.name.name.decode("ascii", "replace").rstrip(".") for pointer in pointers)
    return [name for name in dict.fromkeys(names) if is_host_name(name)]


def is_host_name(text: str) -> bool:
    """Whether a text from DNS, or for it, has the form of a name."""
    return _HOST_NAME.fullmatch(text) is not None and all(0 < len(label) < 64 for label in text.split("."))


def _folded(name: dns.Name) -> bytes:
    octets: bytes = name.name
    return octets.lower().rstrip(b".")


async def _ask(resolver: Any, name: bytes, type: int, clock: IReactorTime, timeout: float) -> list[Any]:
    asked = maybeDeferred(getattr(resolver, _METHODS[type]), name, timeout=RETRIES)
    try:
        answers, authority, _ = await _on_its_own(asked).addTimeout(timeout, clock)
    except _NO_SUCH_NAME:
        return []
    except TimeoutError:
        raise NotKnown("no answer in time") from None
    except _DOUBTS as error:
        raise NotKnown(_in_words(error)) from error
    types = {record.type for record in authority}
    if not answers and dns.NS in types and dns.SOA not in types:
        # RFC 2308 section 2.2: a referral to other servers does not say that there are no records.
        raise NotKnown("a referral to other servers")
    return list(answers)


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


#: What an exception of Twisted means to an operator.
_WORDS = {
    "DNSServerError": "the name server failed (SERVFAIL)",
    "DNSQueryRefusedError": "the name server refused",
    "DNSFormatError": "the name server did not understand",
    "DNSQueryTimeoutError": "no answer in time",
    "CannotListenError": "no socket to ask with",
}


def _in_words(error: BaseException) -> str:
    return _WORDS.get(type(error).__name__) or f"DNS can't be asked ({type(error).__name__})"
