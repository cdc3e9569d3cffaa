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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectError, ConnectionClosed, InvalidAddressError
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.names.error import (
    AuthoritativeDomainError,
    DNSFormatError,
    DNSNameError,
    DNSQueryRefusedError,
    DNSServerError,
    DomainError,
    ResolverError,
)
from twisted.python.failure import Failure

from smtpfw.dns.names import can_be_asked, is_name

__all__ = ["MAX_ALIASES", "Found", "NotAName", "NotAnswered", "NotKnown", "look_up", "reverse_names", "text_of"]

#: Seconds after which a question is asked again. Twisted's default, (1, 3, 11, 45), goes on long after nobody waits.
RETRIES = (1, 2, 2)

#: How many aliases are followed for one question; honest names have one or two.
MAX_ALIASES = 8

#: What a resolver raises when it can't tell, besides a timeout. A name server may be written as no address.
_DOUBTS = (
    DomainError,
    ResolverError,
    OSError,
    ConnectError,
    ConnectionClosed,
    CannotListenError,
    InvalidAddressError,
    NotImplementedError,
)

#: What says: there is no such name. An authority in our own process has a class of its own for it.
_NO_SUCH_NAME = (DNSNameError, AuthoritativeDomainError)

_METHODS = {
    dns.A: "lookupAddress",
    dns.AAAA: "lookupIPV6Address",
    dns.MX: "lookupMailExchange",
    dns.PTR: "lookupPointer",
}

#: What an exception of Twisted means to an operator.
_WORDS: dict[type[BaseException], str] = {
    TimeoutError: "no answer in time",
    DNSServerError: "the name server failed (SERVFAIL)",
    DNSQueryRefusedError: "the name server refused",
    DNSFormatError: "the name server did not understand",
    CannotListenError: "no socket to ask with",
    InvalidAddressError: "a name server that is set is no address",
}


class NotKnown(Exception):
    """DNS has not said whether there is such a record, or nobody can be asked; the text says why not."""


class NotAnswered(NotKnown):
    """
    Whoever was asked failed, refused, or was silent; the cause says how.

    :ivar name: what was asked for.
    """

    def __init__(self, name: str, trouble: str) -> None:
        super().__init__(trouble)
        self.name = name


class NotAName(NotKnown):
    """It is an alias of something that is not to be asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """
    What DNS has said.

    :ivar name: behind the last alias, in lower case, without a dot at its end.
    :ivar records: the payloads under that name, in their order; empty when DNS says that there are none.
    :ivar exists: False when DNS says that there is no such name.
    """

    name: str
    records: list[Any]
    exists: bool = True


async def look_up(
    resolver: Any,
    name: str,
    type: int,
    *,
    clock: IReactorTime,
    timeout: float,
    retries: Sequence[int] = RETRIES,
    may_follow: Callable[[str], bool] = can_be_asked,
) -> Found:
    """
    Ask for the records of a name, and of those that it is an alias of.

    :param resolver: an :class:`~twisted.internet.interfaces.IResolver`.
    :param name: in ASCII.
    :param type: ``dns.A``, ``dns.AAAA``, ``dns.MX`` or ``dns.PTR``.
    :param timeout: seconds for all of it.
    :param retries: seconds after which a question is asked again.
    :param may_follow: whether a name may stand behind an alias.
    :raises NotKnown: when DNS does not say; :class:`NotAnswered`, :class:`NotAName` where that is why.
    """
    deadline = clock.seconds() + timeout
    name = name.lower().removesuffix(".")
    seen = {name}
    while True:
        asked = name
        left = deadline - clock.seconds()
        if left <= 0:
            raise NotKnown(f"no time left to look up {_kind(type)} of {asked}")
        answers = await _ask(resolver, asked, type, clock, left, retries)
        if answers is None:
            return Found(asked, [], exists=False)
        while True:
            # Only under the very name: an answer can hold records that nobody asked for.
            own: list[Any] = [answer for answer in answers if text_of(answer.name) == name]
            found = [answer.payload for answer in own if answer.type == type]
            if found:
                return Found(name, found)
            aliases = [text_of(answer.payload.name) for answer in own if answer.type == dns.CNAME]
            if not aliases:
                break
            name = aliases[0]
            if not can_be_asked(name) or not may_follow(name):
                raise NotAName("an alias of what is not a name")
            if name in seen or len(seen) > MAX_ALIASES:
                raise NotKnown("a circle or too many of aliases")
            seen.add(name)
        if name == asked:
            return Found(name, [])


async def reverse_names(
    resolver: Any, address: IPv4Address | IPv6Address, *, clock: IReactorTime, timeout: float
) -> list[str]:
    """
    The names that DNS has for an address (RFC 1035 section 3.5, RFC 3596 section 2.5): they prove nothing.

    :return: those that can be shown, without a dot behind them; none where DNS has none.
    :raises NotKnown: when it does not say.
    """
    found = await look_up(resolver, address.reverse_pointer, dns.PTR, clock=clock, timeout=timeout)
    names = (pointer.name.name.decode("ascii", "replace").removesuffix(".") for pointer in found.records)
    return [name for name in dict.fromkeys(names) if is_name(name.lower())]


def _kind(type: int) -> str:
    kind: str = dns.QUERY_TYPES[type]
    return kind


def text_of(name: dns.Name) -> str:
    """A name from an answer, comparable with those that we ask for; what is not ASCII is never one of them."""
    text: str = name.name.decode("ascii", "replace")
    return text.lower().removesuffix(".")


async def _ask(
    resolver: Any, name: str, type: int, clock: IReactorTime, timeout: float, retries: Sequence[int]
) -> list[dns.RRHeader] | None:
    """What the answer holds; None when it says that there is no such name."""
    asked = maybeDeferred(getattr(resolver, _METHODS[type]), name, timeout=retries)
    try:
        answers, authority, _ = await _on_its_own(asked).addTimeout(timeout, clock)
    except _NO_SUCH_NAME:
        return None
    except (TimeoutError, *_DOUBTS) as error:
        raise NotAnswered(name, _in_words(error)) from error
    types = {record.type for record in authority}
    if not answers and dns.NS in types and dns.SOA not in types:
        # RFC 2308 section 2.2: a referral to other servers does not say that there are no records.
        raise NotKnown(f"a referral instead of {_kind(type)} of {name}")
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


def _in_words(error: BaseException) -> str:
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, ResolverError) and error.args:
        return str(error)
    return f"DNS can't be asked ({type(error).__name__})"
