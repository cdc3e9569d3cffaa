"""
Hosts as people write them: names, addresses, and the forms that Twisted and DNS want.

Rule: a name is A-labels in lower case, an address is written without brackets.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from smtpfw.dns.names import MAX_NAME, is_name

__all__ = [
    "AnyIPAddress",
    "bracket",
    "is_idna",
    "is_loopback",
    "read_host",
    "to_a_labels",
    "to_address",
    "to_name",
    "without_zone",
]

_ZONE = re.compile(r"[A-Za-z0-9._-]+")
AnyIPAddress = IPv4Address | IPv6Address


def read_host(text: str) -> str:
    """A name or an address, as it goes to Twisted."""
    if not text:
        raise ValueError("the host is missing; write mx.example.org, 192.0.2.1 or [2001:db8::1], and :PORT behind it")
    bracketed = text.startswith("[") and text.endswith("]")
    content = text[1:-1] if bracketed else text
    # RFC 5321 section 4.1.3: the form of address literals.
    address = to_address(content[5:] if bracketed and content[:5].lower() == "ipv6:" else content)
    if address is None:
        if bracketed:
            raise ValueError("there is no IP address in the brackets; write [2001:db8::1]:25")
        return _read_name(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"that is IPv4 in disguise; write {address.ipv4_mapped}")
    if address.is_unspecified or address.is_multicast:
        raise ValueError("that is not the address of a host; this one is 127.0.0.1 or [::1]")
    return str(address)


def _read_name(text: str) -> str:
    if " " in text:
        raise ValueError(f"there is a space in the host, {text[:80]!a}; a host is one word, as mx.example.org")
    name = to_name(text)
    if not name:
        raise ValueError(
            f"{text[:80]!a} is no host; a name has letters, digits, hyphens and dots, as mx.example.org, and an "
            "address is written 192.0.2.1 or [2001:db8::1]"
        )
    return name


def to_name(text: str) -> str:
    """A name as A-labels in lower case, without the dot at its end; empty if it is none."""
    # The bound comes first: encoding takes quadratic time for long labels.
    name = text.removesuffix(".") if len(text) <= MAX_NAME + 1 else ""
    try:
        name = (name if name.isascii() else to_a_labels(name, uts46=True)).lower()
    except UnicodeError:
        return ""
    return name if is_name(name) else ""


def to_a_labels(name: str, *, uts46: bool) -> str:
    """
    Encode a name as Twisted does; it does so with A-labels, too.

    :param uts46: whether to take capitals and other forms of letters, as people write them; Twisted does not.
    :raises UnicodeError: if it is no name to IDNA.
    """
    try:
        import idna
    except ImportError:
        # IDNA of 2003, the same for most names.
        return name.encode("idna").decode("ascii")
    return idna.encode(name, uts46=uts46).decode("ascii")


def is_idna(name: str) -> bool:
    try:
        return bool(to_a_labels(name, uts46=False))
    except UnicodeError:
        return False


def to_address(text: str) -> AnyIPAddress | None:
    _, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def without_zone(host: str) -> str:
    return host.partition("%")[0]


def bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(name: str) -> bool:
    address = to_address(name)
    # A name may mean anything, but for this one (RFC 6761 section 6.3).
    return name == "localhost" if address is None else address.is_loopback
