"""
DNS block lists (DNSBL) with weights: who is in too many of them is refused.

Rule 1: all lists are asked at the same time, and nobody is waited for whose
answer could change nothing any more.

Rule 2: what a list does not say counts as if it could be either: the client is
refused if it would be in any case, let in if it would be in any case, and
otherwise nobody knows. So a list that is broken lets nobody in and keeps nobody
out whom the others agree upon.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure

from smtpfw.dns.questions import NotKnown, look_up
from smtpfw.policies.client_lookup import PASS, UNKNOWN, ClientLookUp, Verdict
from smtpfw.policies.zones import Zone, trouble_of

__all__ = ["DNSBL"]

#: Lists that a refusal names: RFC 5321 section 4.5.3.1.5 has no more than 512 octets for its line.
MAX_NAMED = 2


class DNSBL(ClientLookUp):
    """
    Refuse clients with 554 5.7.1 that DNS block lists have.

    :param zones: the lists, as :class:`~smtpfw.policies.zones.Zone` writes them, ``zen.spamhaus.org*2``; or one.
    :param threshold: who is in lists of this weight together is refused.
    :param settings: those of :class:`~smtpfw.policies.client_lookup.ClientLookUp`: ``at``, ``unknown``, ``timeout``,
        ``except_networks``, ``resolver``.
    :raises ValueError: if there is no list, one is none, or nobody could be refused.
    """

    code = 554

    def __init__(self, zones: Iterable[str | Zone] | str, *, threshold: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        given = [zones] if isinstance(zones, str) else zones
        self.zones = tuple(zone if isinstance(zone, Zone) else Zone.parse(zone) for zone in given)
        self.threshold = threshold
        if not self.zones:
            raise ValueError("no list is given; write one as zen.spamhaus.org")
        for zone in self.zones:
            if self.zones.count(zone) > 1:
                raise ValueError(f"{zone} is given twice")
        if threshold < 1:
            raise ValueError(f"threshold: {threshold} is below 1, so everybody would be refused")
        highest = sum(zone.weight for zone in self.zones if zone.weight > 0)
        if threshold > highest:
            raise ValueError(f"threshold: all lists together weigh {highest}, so nobody could reach {threshold}")

    async def ask(self, address: IPv4Address | IPv6Address, resolver: Any, clock: IReactorTime) -> Verdict:
        """See :meth:`ClientLookUp.ask`."""
        tally = _Tally(self.zones, self.threshold)
        certain: Deferred[None] = Deferred()

        def note(answers: Sequence[IPv4Address] | None, zones: Sequence[Zone]) -> None:
            tally.note(answers, zones)
            if tally.certain and not certain.called:
                certain.callback(None)

        def failed(failure: Failure) -> Failure | None:
            if failure.check(CancelledError):
                return None
            if certain.called:
                return failure
            certain.errback(failure)
            return None

        # The same zone may stand there several times, for answers that weigh more than others.
        groups: dict[str, list[Zone]] = {}
        for zone in self.zones:
            groups.setdefault(zone.name, []).append(zone)
        questions = []
        try:
            for zones in groups.values():
                question = Deferred.fromCoroutine(self._ask_one(zones[0], address, resolver, clock))
                questions.append(question)
                question.addCallback(note, zones).addErrback(failed)
                if certain.called:
                    break
            await certain
        finally:
            for question in questions:
                question.cancel()
        return self._verdict(tally, address)

    async def _ask_one(
        self, zone: Zone, address: IPv4Address | IPv6Address, resolver: Any, clock: IReactorTime
    ) -> list[IPv4Address] | None:
        """What a list answers, which may be nothing; None if it does not."""
        try:
            found = await look_up(resolver, zone.question(address), dns.A, clock=clock, timeout=self.timeout)
        except NotKnown as error:
            trouble = str(error)
        else:
            answers = [IPv4Address(record.address) for record in found.records]
            trouble = trouble_of(answers)
            if not trouble:
                return answers
        self._warn(zone.name, clock, "{zone}: {trouble}", zone=zone.shown, trouble=trouble)
        return None

    def _verdict(self, tally: _Tally, address: IPv4Address | IPv6Address) -> Verdict:
        if tally.lowest >= self.threshold:
            names = list(dict.fromkeys(zone.shown for zone in tally.listed if zone.weight > 0))
            return Verdict(f"Your address {address} is listed by {', '.join(names[:MAX_NAMED])}")
        return PASS if tally.highest < self.threshold else UNKNOWN

    def describe(self) -> str:
        """What it does, in words."""
        if len(self.zones) == 1:
            return f"Clients that {self.zones[0].shown} lists {self._words()}"
        lists = ", ".join(f"{zone.shown} {zone.weight:+}" for zone in self.zones)
        return f"Clients with {self.threshold} or more of {lists} {self._words()}"

    def __repr__(self) -> str:
        return f"DNSBL({', '.join(repr(zone) for zone in self.zones)}, threshold={self.threshold})"


class _Tally:
    """
    The weights of a client, as far as they are known.

    :ivar lowest, highest: what they can come to together.
    :ivar listed: where it has been found.
    """

    def __init__(self, zones: Sequence[Zone], threshold: int) -> None:
        self._threshold = threshold
        self._outstanding = len(zones)
        self.listed: list[Zone] = []
        self.lowest = sum(zone.weight for zone in zones if zone.weight < 0)
        self.highest = sum(zone.weight for zone in zones if zone.weight > 0)

    @property
    def certain(self) -> bool:
        """Whether nothing that is still to come could change the outcome."""
        return not self._outstanding or self.lowest >= self._threshold or self.highest < self._threshold

    def note(self, answers: Sequence[IPv4Address] | None, zones: Sequence[Zone]) -> None:
        """
        A list has answered.

        :param answers: None if it has not, and will not.
        :param zones: what it is asked for.
        """
        self._outstanding -= len(zones)
        if answers is None:
            return
        for zone in zones:
            if zone.lists(answers):
                self.listed.append(zone)
                # Of the two ends one had it in already.
                if zone.weight > 0:
                    self.lowest += zone.weight
                else:
                    self.highest += zone.weight
            elif zone.weight > 0:
                self.highest -= zone.weight
            else:
                self.lowest -= zone.weight
