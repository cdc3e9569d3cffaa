"""A resolver that answers what it is told, and records to tell it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns
from twisted.names.error import DNSNameError


class FakeResolver:
    """
    :ivar answers: name -> records, an exception, or a function that makes a Deferred; all other names do not exist.
    :ivar authority: of every answer.
    :ivar asked: names, in their order.
    """

    def __init__(self, answers: dict[str, Any] | None = None) -> None:
        self.answers = answers or {}
        self.authority: list[dns.RRHeader] = []
        self.asked: list[str] = []

    def _look_up(self, name: str, timeout: Any = None) -> Deferred[Any]:
        self.asked.append(name)
        answer = self.answers.get(name, DNSNameError())
        if callable(answer):
            made: Deferred[Any] = answer()
            return made
        return fail(answer) if isinstance(answer, Exception) else succeed((answer, self.authority, []))

    lookupAddress = lookupIPV6Address = lookupPointer = _look_up


def address(owner: str, value: str) -> dns.RRHeader:
    """An A or AAAA record."""
    if ip_address(value).version == 4:
        return dns.RRHeader(owner, dns.A, payload=dns.Record_A(value))
    return dns.RRHeader(owner, dns.AAAA, payload=dns.Record_AAAA(value))


def alias(owner: str, target: str) -> dns.RRHeader:
    """A CNAME record."""
    return dns.RRHeader(owner, dns.CNAME, payload=dns.Record_CNAME(target.encode()))


def pointer(owner: str, target: str) -> dns.RRHeader:
    """A PTR record; its owner may be an address."""
    if owner[-1].isdigit():
        owner = ip_address(owner).reverse_pointer
    return dns.RRHeader(owner, dns.PTR, payload=dns.Record_PTR(target.encode()))


def listed(*pairs: tuple[str, str]) -> dict[str, Any]:
    """The answers of lists: pairs of the name that is asked for, and the address in the answer."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(address(name, value))
    return found
