"""
Where mail for a domain goes: the hosts that DNS names, in the order in which they are to be tried.

By RFC 5321 section 5.1 (MX, implicit MX, preference), RFC 7505 (null MX), RFC
2181 section 10 (aliases) and RFC 5321 section 4.1.3 (address literals).

Rule 1: permanent is only what DNS has said: the name is not there, or has no
such record. Whatever leaves a doubt (a timeout, a failing or refusing server,
a referral, a loop of aliases) is temporary, so that no mail is sent back
because a name server was rebooted.

Rule 2: what DNS says was written by the owner of the domain, who may be an
attacker. So names are checked before they are asked for or shown, answers
count only under the name that was asked for, and hosts, addresses, aliases
and the time for all of it are bounded.

Rule 3: what is known when the time is over is used: one host that answered is
better than a second try later.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from random import Random, SystemRandom
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, TimeoutError, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, ConnectError, ConnectionClosed
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns
from twisted.names.error import AuthoritativeDomainError, DNSNameError, DomainError, ResolverError
from twisted.python.failure import Failure

from smtpfw.client.hosts import is_name, to_name
from smtpfw.errors import BadDestination, LookupFailed, NoRoute, NullMX

__all__ = ["Hop", "look_up_mx"]

_T = TypeVar("_T")

#: Seconds for the whole look-up.
TIMEOUT = 30.0

#: Seconds after which a question is asked again; the default of Twisted, (1, 3, 11, 45), is longer than ours for all.
RETRIES = (2, 3, 5)

#: How many hosts are asked for. Postfix: smtp_mx_address_limit = 5 addresses; RFC 5321 section 5.1: at least two.
MAX_HOSTS = 10

#: How many addresses of one host are kept.
MAX_ADDRESSES = 8

#: How many aliases are followed for one question; honest domains have one or two.
MAX_ALIASES = 8

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

#: The answers that say: there is no such name. An authority in our own process has a class of its own for it.
_NO_SUCH_NAME = (DNSNameError, AuthoritativeDomainError)


@dataclass(frozen=True, slots=True)
class Hop:
    """
    A host that takes mail for a domain.

    :ivar host: its name, in lower case, as A-labels and without a dot at its end; for an address literal the literal.
    :ivar preference: of its MX record, lower is better; 0 for an implicit MX and for an address literal.
    :ivar addresses: IPv6 and IPv4 addresses, at least one, in the order in which they are to be tried.
    """

    host: str
    preference: int
    addresses: tuple[str, ...]


class _Kind(NamedTuple):
    label: str
    type: int
    method: str


_MX = _Kind("MX", dns.MX, "lookupMailExchange")
_AAAA = _Kind("AAAA", dns.AAAA, "lookupIPV6Address")
_A = _Kind("A", dns.A, "lookupAddress")


async def look_up_mx(
    domain: str,
    resolver: IResolver,
    *,
    clock: IReactorTime,
    timeout: float = TIMEOUT,
    max_hosts: int = MAX_HOSTS,
    max_addresses: int = MAX_ADDRESSES,
    random: Random | None = None,
) -> list[Hop]:
    """
    Find the hosts that take mail for a domain.

    :param domain: the domain of a recipient: A-labels or U-labels, with or without a dot at its end, or an address
        literal with its brackets.
    :param timeout: seconds for everything together.
    :param max_hosts: how many mail exchangers are considered, the best ones.
    :param max_addresses: how many addresses of each are kept.
    :param random: shuffles hosts of equal preference; by default the system's source.
    :return: at least one hop, the one to be tried first in front.
    :raises BadDestination: the domain is no name, does not exist, or has neither MX nor address (550 5.1.2).
    :raises NullMX: the domain takes no mail (556 5.1.10).
    :raises NoRoute: there are MX records, and none leads to an address (550 5.4.4).
    :raises LookupFailed: DNS gave no answer to rely on; try later (451 4.4.3).
    """
    if domain.startswith("["):
        return [_literal_hop(domain)]
    look_up = _LookUp(_to_name(domain), resolver, clock, clock.seconds() + timeout, max_addresses)
    final, records = await look_up.records(look_up.domain, _MX)
    if not records:
        # RFC 5321 section 5.1: an implicit MX with a preference of 0. After an alias it belongs to the name behind it.
        found = await look_up.addresses(final)
        if isinstance(found, NoRoute):
            raise BadDestination(f"{look_up.domain}: neither a mail exchanger nor an address")
        if isinstance(found, LookupFailed):
            raise found
        return [Hop(final, 0, found)]
    hosts = _in_order(look_up.domain, records, random or SystemRandom())[:max_hosts]
    results = await _together(look_up.addresses(host) for _, host in hosts)
    hops = [
        Hop(host, preference, found)
        for (preference, host), found in zip(hosts, results, strict=True)
        if isinstance(found, tuple)
    ]
    if not hops:
        for result in results:
            if isinstance(result, LookupFailed):
                raise result
        raise NoRoute(f"{look_up.domain}: no mail exchanger has an address")
    return hops


async def _together(coroutines: Iterable[Coroutine[Deferred[Any], Any, _T]]) -> list[_T]:
    """Run them at the same time; what one raises is raised as it is: a cancellation stays one."""
    try:
        return await gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)
    except FirstError as first:
        cause = first.subFailure.value
        assert cause is not None
        raise cause from None


def _to_name(domain: str) -> str:
    """The name to ask DNS for."""
    name = to_name(domain)
    if not name:
        raise BadDestination(f"{domain[:80]!a}: not a domain name")
    return name


def _from_dns(name: dns.Name) -> str:
    """A name from an answer, comparable with those that we ask for; what is not ASCII never passes `is_name`."""
    text: str = name.name.decode("ascii", "replace")
    return text.lower().removesuffix(".")


def _literal_hop(literal: str) -> Hop:
    """RFC 5321 section 5.1: no DNS for address literals."""
    content = literal[1:-1] if literal.endswith("]") else ""
    tag, colon, rest = content.partition(":")
    address: IPv4Address | IPv6Address
    try:
        if not colon:
            address = IPv4Address(content)
        elif tag.lower() == "ipv6" and "%" not in rest:
            # A zone (fe80::1%eth0) means something on one machine only; RFC 5321 section 4.1.3 has none.
            address = IPv6Address(rest)
        else:
            raise AddressValueError
    except AddressValueError:
        raise BadDestination(f"{literal[:80]!a}: not an address literal") from None
    if not _is_usable(address):
        raise BadDestination(f"{literal}: not the address of a host")
    return Hop(literal, 0, (str(address),))


def _is_usable(address: IPv4Address | IPv6Address) -> bool:
    # 0.0.0.0 and :: connect to ourselves. ::ffff:127.0.0.1 is an IPv4 address that looks like none to a later check.
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    return not (address.is_unspecified or address.is_multicast or mapped)


def _in_order(domain: str, records: Sequence[dns.Record_MX], random: Random) -> list[tuple[int, str]]:
    """
    Preferences and names of mail exchangers: each once, the best first, equals at random (RFC 5321 section 5.1).

    :raises NullMX: if a root is all that there is.
    :raises NoRoute: if no record holds the name of a host.
    """
    pairs = [(record.preference, _from_dns(record.name)) for record in records]
    if not any(name for _, name in pairs):
        raise NullMX(f"{domain}: the domain does not accept mail")
    best: dict[str, int] = {}
    for preference, name in pairs:
        # A root beside others is against RFC 7505 section 3; the others count.
        if is_name(name):
            best[name] = min(preference, best.get(name, preference))
    if not best:
        raise NoRoute(f"{domain}: no mail exchanger has the name of a host")
    hosts = [(preference, name) for name, preference in best.items()]
    random.shuffle(hosts)
    hosts.sort(key=lambda host: host[0])
    return hosts


class _LookUp:
    """The questions of one look-up: whom to ask, for whom, and until when."""

    def __init__(
        self, domain: str, resolver: IResolver, clock: IReactorTime, deadline: float, max_addresses: int
    ) -> None:
        self.domain = domain
        self._resolver = resolver
        self._clock = clock
        self._deadline = deadline
        self._max_addresses = max_addresses

    async def addresses(self, host: str) -> tuple[str, ...] | NoRoute | LookupFailed:
        """All addresses of a host, or why there are none; an address of one family outweighs doubts about the other."""
        results = await _together(self._addresses_of_kind(host, kind) for kind in (_AAAA, _A))
        families = [result for result in results if isinstance(result, list)]
        # The families alternate (RFC 8305 section 4), so that no bound and no broken network cuts all of one.
        mixed = [text for text in chain.from_iterable(zip_longest(*families)) if text is not None]
        if mixed:
            return tuple(mixed[: self._max_addresses])
        for result in results:
            if isinstance(result, LookupFailed):
                return result
        return NoRoute(f"{self.domain}: {host} has no address")

    async def _addresses_of_kind(self, host: str, kind: _Kind) -> list[str] | BadDestination | LookupFailed:
        try:
            _, records = await self.records(host, kind)
        except (BadDestination, LookupFailed) as error:
            return error
        found = (ip_address(record.address) for record in records)
        return [str(address) for address in dict.fromkeys(found) if _is_usable(address)]

    async def records(self, name: str, kind: _Kind) -> tuple[str, list[Any]]:
        """
        Ask for records of a name, and of those that it is an alias of.

        :return: the name behind the last alias, and its records, which may be none.
        :raises BadDestination: if DNS says that there is no such name.
        :raises LookupFailed: if DNS does not say, or sends us in a circle.
        """
        seen = {name}
        while True:
            asked = name
            answers = await self._ask(name, kind)
            while True:
                # Only under the very name: an answer can hold records that nobody asked for.
                own: list[Any] = [answer for answer in answers if _from_dns(answer.name) == name]
                found = [answer.payload for answer in own if answer.type == kind.type]
                if found:
                    return name, found
                aliases = [_from_dns(answer.payload.name) for answer in own if answer.type == dns.CNAME]
                if not aliases:
                    break
                name = aliases[0]
                if not is_name(name):
                    raise BadDestination(f"{self.domain}: an alias of what is not a name")
                if name in seen or len(seen) > MAX_ALIASES:
                    raise LookupFailed(f"{self.domain}: a circle or too many of aliases behind it")
                seen.add(name)
            if name == asked:
                return name, []

    async def _ask(self, name: str, kind: _Kind) -> Sequence[dns.RRHeader]:
        left = self._deadline - self._clock.seconds()
        if left <= 0:
            raise LookupFailed(f"{self.domain}: no time left to look up {kind.label} of {name}")
        # Twisted's resolver gives one look-up to all who ask for the same, and a cancellation by one is everybody's.
        # So ours is left to end by itself, and only our waiting for it is cancelled.
        waiting: Deferred[Any] = Deferred()

        def hand_over(result: Any) -> None:
            shared = isinstance(result, Failure) and result.check(CancelledError)
            waiting.callback(Failure(ResolverError("cancelled by another")) if shared else result)

        maybeDeferred(getattr(self._resolver, kind.method), name, timeout=RETRIES).addBoth(hand_over)
        waiting.addTimeout(left, self._clock)
        try:
            answers, authority, _ = await waiting
        except _NO_SUCH_NAME:
            raise BadDestination(f"{self.domain}: there is no {name}") from None
        except _DOUBTS as error:
            why = type(error).__name__
            raise LookupFailed(f"{self.domain}: cannot look up {kind.label} of {name} ({why})") from error
        types = {record.type for record in authority}
        if not answers and dns.NS in types and dns.SOA not in types:
            # RFC 2308 section 2.2: a referral to other servers, which does not say that there are no records.
            raise LookupFailed(f"{self.domain}: a referral instead of {kind.label} of {name}")
        return list(answers)
