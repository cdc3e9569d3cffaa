"""
What an operator writes for recipients, and whom it is for.

Rule 1: both parts are compared without regard to case, local parts, too: RFC
5321 section 2.4 leaves that to the host that delivers, and nobody wants two
mailboxes that differ in case only. Two spellings that Unicode calls
canonically equal are one. A domain in its ASCII form (``xn--``) and the same in
UTF-8 are two: whoever receives both routes both.

Rule 2: a ``*`` stands for any text, the empty one too, within a local part. Of
domains it stands for whole ones: all of them, or all below one. What looks like
a domain, and holds any other ``*``, is a mistake.

Rule 3: a local part is compared with a pattern in one pass: no text that a
client makes up takes longer than its length times the pattern's.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from smtpfw.errors import ConfigError
from smtpfw.wire.grammar import Address

__all__ = ["ANY", "POSTMASTER", "Pattern", "domain_keys", "fold"]

POSTMASTER = "postmaster"

#: In the place of a domain: all of them. Within a local part: any text.
ANY = "*"


def fold(name: str) -> str:
    """A local part or a domain, such that two that mean the same are equal."""
    if name.isascii():
        return name.lower()
    # Twice, since either step can undo the other: KELVIN SIGN is composed to K, and some letters grow when lowered.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def domain_keys(domain: str) -> list[str]:
    """What stands in a pattern for a folded domain: itself, ``.example.org`` for what it is below of, and ``*``."""
    if not domain:
        return [domain]
    keys = [domain]
    dot = domain.find(".")
    while dot >= 0:
        keys.append(domain[dot:])
        dot = domain.find(".", dot + 1)
    return [*keys, ANY]


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    Whom a route is for.

    :ivar text: as it was written.
    :ivar local_part: folded; empty for all.
    :ivar domain: folded; ``.example.org`` for its subdomains, :data:`ANY` for all, empty for a ``<postmaster>`` without
        one.
    :ivar wild: whether each ``*`` in ``local_part`` stands for any text; otherwise it is one.
    """

    text: str
    local_part: str
    domain: str
    wild: bool = False

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """
        Read ``tim@example.org``, ``example.org`` (also ``@example.org``, ``*@example.org``), ``.example.org`` (also
        ``*.example.org``), ``list-*@example.org``, ``tim@*``, ``*``, or ``postmaster`` for the one without a domain (a
        domain of that name is ``@postmaster``). A ``*`` within quotes is a ``*``.

        :raises ConfigError: if it is none of these.
        """
        if text.lower() == POSTMASTER:
            return cls(text, POSTMASTER, "")
        local_part, _, domain = text.rpartition("@")
        whole = not local_part.strip(ANY)
        below = domain.startswith((".", "*."))
        name = domain.removeprefix(ANY)[1:] if below else domain
        try:
            if domain != ANY and ANY in name:
                raise ValueError("within a domain there is no wildcard")
            address = Address.parse(f"{'x' if whole else local_part}@{'any' if domain == ANY else name}")
            if below and name.startswith("["):
                raise ValueError("nothing is below an address literal")
        except ValueError as error:
            raise ConfigError(
                f"route {text!r}: it is an address, a domain, postmaster, or a pattern as *, .example.org or "
                f"list-*@example.org ({_reason(error)})"
            ) from None
        folded = domain if domain == ANY else "." * below + fold(name)
        if whole:
            return cls(text, "", folded)
        wild = ANY in local_part and not local_part.startswith('"')
        return cls(text, fold(address.local_part), folded, wild)

    @property
    def is_address(self) -> bool:
        """Whether it names one local part."""
        return bool(self.local_part) and not self.wild

    def fits_local_part(self, local_part: str) -> bool:
        """Whether it is for this local part, which is folded."""
        if self.wild:
            return _fits(self.local_part, local_part)
        return self.local_part in ("", local_part)

    def fits(self, local_part: str, domain: str) -> bool:
        """Whether it is for this recipient, both of whose parts are folded."""
        return self.fits_local_part(local_part) and self.domain in domain_keys(domain)

    def covers(self, other: Pattern, tag: str = "") -> bool:
        """
        Whether it is for all that another one is for. Where that is hard to tell, it says no.

        :param tag: what divides a user from a tag, if what is for the user is for its tags, too.
        """
        if self.domain not in (other.domain, *domain_keys(other.domain)):
            return False
        if not self.local_part or not other.local_part:
            return not self.local_part
        # What stands between the wildcards of this one holds no *, so where the other one has its own, so has this one.
        if self.wild >= other.wild and self.fits_local_part(other.local_part):
            return True
        # tim+*@ behind tim@. But not tim+x@: an address of its own goes before.
        user = other.local_part.partition(tag)[0] if tag and other.wild else ""
        return ANY not in user and self.fits_local_part(user)

    def __str__(self) -> str:
        return "<postmaster>" if not self.domain else self.text


def _fits(pattern: str, text: str) -> bool:
    first, *middle, last = pattern.split(ANY)
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    # The leftmost place of each part leaves the most room to those behind it, so no other has to be tried.
    start, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


def _reason(error: ValueError) -> str:
    return str(error).rpartition(": ")[2]
