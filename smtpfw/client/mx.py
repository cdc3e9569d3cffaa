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
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.names import dns

from smtpfw.client.hosts import to_name
from smtpfw.dns.names import is_name
from smtpfw.dns.questions import MAX_ALIASES, Found, NotAName, NotAnswered, NotKnown, look_up, text_of
from smtpfw.dns.system import resolver_with_hosts
from smtpfw.errors import BadDestination, LookupFailed, NoRoute, NullMX

__all__ = ["MAX_ALIASES", "Hop", "look_up_mx"]

_T = TypeVar("_T")

#: Seconds for the whole look-up.
TIMEOUT = 30.0

#: Seconds after which a question is asked again; the default of Twisted, (1, 3, 11, 45), is longer than ours for all.
RETRIES = (2, 3, 5)

#: How many hosts are asked for. Postfix: smtp_mx_address_limit = 5 addresses; RFC 5321 section 5.1: at least two.
MAX_HOSTS = 10

#: How many addresses of one host are kept.
MAX_ADDRESSES = 8


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


async def look_up_mx(
    domain: str,
    resolver: IResolver | None = None,
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
    :param resolver: who is asked; by default the addresses in ``/etc/hosts``, and then the system's name servers.
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
    questions = _Questions(_to_name(domain), _resolver(domain, resolver), clock, timeout, max_addresses)
    domain = questions.domain
    exchangers = await questions.records(domain, dns.MX)
    if not exchangers.records:
        # RFC 5321 section 5.1: an implicit MX with a preference of 0. After an alias it belongs to the name behind it.
        found = await questions.addresses(exchangers.name)
        if isinstance(found, NoRoute):
            raise BadDestination(f"{domain}: neither a mail exchanger nor an address")
        if isinstance(found, LookupFailed):
            raise found
        return [Hop(exchangers.name, 0, found)]
    hosts = _in_order(domain, exchangers.records, random or SystemRandom())[:max_hosts]
    results = await _together(questions.addresses(host) for _, host in hosts)
    hops = [
        Hop(host, preference, found)
        for (preference, host), found in zip(hosts, results, strict=True)
        if isinstance(found, tuple)
    ]
    if not hops:
        for result in results:
            if isinstance(result, LookupFailed):
                raise result
        raise NoRoute(f"{domain}: no mail exchanger has an address")
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


def _resolver(domain: str, resolver: IResolver | None) -> Any:
    try:
        return resolver or resolver_with_hosts()
    except NotKnown as error:
        raise LookupFailed(f"{domain}: {error}") from error


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
    pairs = [(record.preference, text_of(record.name)) for record in records]
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


class _Questions:
    """The questions of one look-up: whom to ask, for whom, and until when."""

    def __init__(self, domain: str, resolver: Any, clock: IReactorTime, timeout: float, max_addresses: int) -> None:
        self.domain = domain
        self._resolver = resolver
        self._clock = clock
        self._deadline = clock.seconds() + timeout
        self._max_addresses = max_addresses

    async def addresses(self, host: str) -> tuple[str, ...] | NoRoute | LookupFailed:
        """All addresses of a host, or why there are none; an address of one family outweighs doubts about the other."""
        results = await _together(self._addresses_of_type(host, type) for type in (dns.AAAA, dns.A))
        families = [result for result in results if isinstance(result, list)]
        # The families alternate (RFC 8305 section 4), so that no bound and no broken network cuts all of one.
        mixed = [text for text in chain.from_iterable(zip_longest(*families)) if text is not None]
        if mixed:
            return tuple(mixed[: self._max_addresses])
        for result in results:
            if isinstance(result, LookupFailed):
                return result
        return NoRoute(f"{self.domain}: {host} has no address")

    async def _addresses_of_type(self, host: str, type: int) -> list[str] | BadDestination | LookupFailed:
        try:
            records = (await self.records(host, type)).records
        except (BadDestination, LookupFailed) as error:
            return error
        found = (ip_address(record.address) for record in records)
        return [str(address) for address in dict.fromkeys(found) if _is_usable(address)]

    async def records(self, name: str, type: int) -> Found:
        """
        Ask for records of a name, and of those that it is an alias of.

        :raises BadDestination: if DNS says that there is no such name.
        :raises LookupFailed: if DNS does not say, or sends us in a circle.
        """
        timeout = self._deadline - self._clock.seconds()
        try:
            found = await look_up(
                self._resolver, name, type, clock=self._clock, timeout=timeout, retries=RETRIES, may_follow=is_name
            )
        except NotAName as error:
            raise BadDestination(f"{self.domain}: {error}") from None
        except NotAnswered as error:
            doubt, kind = error.__cause__, dns.QUERY_TYPES[type]
            why = doubt.__class__.__name__
            raise LookupFailed(f"{self.domain}: cannot look up {kind} of {error.name} ({why})") from doubt
        except NotKnown as error:
            raise LookupFailed(f"{self.domain}: {error}") from None
        if not found.exists:
            raise BadDestination(f"{self.domain}: there is no {found.name}")
        return found
