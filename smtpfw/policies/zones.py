"""
One DNS block list (DNSBL), or list of those that are allowed: its zone, what in its answers counts, and how much.

It is written ``ZONE[/ANSWERS][*WEIGHT]``: ``zen.spamhaus.org``, ``bl.example.net/127.0.0.2-11``,
``list.dnswl.org/127.0.0-255.1-3*-2``. Parse and format are twins.

By RFC 5782: how a client is asked for (sections 2.1 and 2.4), and that answers are addresses in 127.0.0.0/8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from smtpfw.dns.names import MAX_NAME, is_name

__all__ = ["Zone", "trouble_of"]

#: What stands for an answer: the lowest and the highest of each octet.
Octets = tuple[tuple[int, int], ...]

ANY: Octets = ((127, 127), (0, 255), (0, 255), (0, 255))

#: The reversed nibbles of an IPv6 address, with their dots, leave so much of the 253 characters of a name.
MAX_ZONE = MAX_NAME - 64

#: Who pays for a list asks it under a label of its own, of 26 or 32 characters (Spamhaus DQS, Abusix), which is a
#: password in effect.
KEY_LENGTH = 20

_ANSWERS = re.compile(r"127(?:\.[0-9]{1,3}(?:-[0-9]{1,3})?){3}")
_WEIGHT = re.compile(r"[+-]?[0-9]{1,6}")

_LISTS = IPv4Network("127.0.0.0/8")
#: "You asked by a public resolver", "too many questions": https://www.spamhaus.org/news/article/788/
_ERRORS = IPv4Network("127.255.255.0/24")


@dataclass(frozen=True, slots=True, repr=False)
class Zone:
    """
    :ivar name: in small letters, without a dot at its end.
    :ivar answers: which ones count.
    :ivar weight: of a client that is in it; below 0 for a list of those that are allowed.
    """

    name: str
    answers: Octets = ANY
    weight: int = 1

    @classmethod
    def parse(cls, text: str) -> Zone:
        """
        Read ``ZONE[/ANSWERS][*WEIGHT]``.

        :raises ValueError: naming what is wrong.
        """
        rest, star, weight = text.strip().partition("*")
        name, slash, answers = rest.partition("/")
        name = name.lower().removesuffix(".")
        if not is_name(name) or "." not in name or len(name) > MAX_ZONE:
            raise ValueError(f"{text!r} is no zone; write one as zen.spamhaus.org, or ZONE/127.0.0.2-11*2")
        if star and (_WEIGHT.fullmatch(weight) is None or not int(weight)):
            raise ValueError(f"{text!r}: {weight!r} is no weight; write {name}*2, or *-2 for a list of the allowed")
        return cls(name, _parse_answers(answers, text) if slash else ANY, int(weight) if star else 1)

    def question(self, address: IPv4Address | IPv6Address) -> str:
        """The name under which a client is asked for."""
        pointer, _, _ = address.reverse_pointer.rpartition(".in-addr.arpa" if address.version == 4 else ".ip6.arpa")
        return f"{pointer}.{self.name}"

    def lists(self, answers: Iterable[IPv4Address]) -> bool:
        """Whether one of the answers counts."""
        return any(
            all(low <= octet <= high for octet, (low, high) in zip(answer.packed, self.answers, strict=True))
            for answer in answers
        )

    @property
    def shown(self) -> str:
        """The name without what may be a key, for clients and logs."""
        return ".".join(label for label in self.name.split(".") if len(label) < KEY_LENGTH)

    def __str__(self) -> str:
        return f"{self.name}{self._rest()}"

    def __repr__(self) -> str:
        return f"<Zone {self.shown}{self._rest()}>"

    def _rest(self) -> str:
        octets = ".".join(str(low) if low == high else f"{low}-{high}" for low, high in self.answers)
        answers = "" if self.answers == ANY else f"/{octets}"
        return answers + ("" if self.weight == 1 else f"*{self.weight}")


def trouble_of(answers: Iterable[IPv4Address]) -> str:
    """Why answers are no answers, in words; empty if they are some."""
    for answer in answers:
        if answer in _ERRORS:
            return f"it answers {answer}, an error: who asks by a public resolver, or too much, is not told"
        if answer not in _LISTS:
            # RFC 5782 section 5: a wildcard in a zone that has been given up, or a resolver that lies, lists everybody.
            return f"it answers {answer}, which is outside of 127.0.0.0/8: it may exist no more"
    return ""


def _parse_answers(text: str, whole: str) -> Octets:
    if _ANSWERS.fullmatch(text) is not None:
        octets = tuple((int(low), int(high or low)) for low, _, high in (one.partition("-") for one in text.split(".")))
        if all(low <= high <= 255 for low, high in octets):
            return octets
    raise ValueError(f"{whole!r}: {text!r} are no answers; write an address as 127.0.0.2, or several as 127.0.0.2-11")
