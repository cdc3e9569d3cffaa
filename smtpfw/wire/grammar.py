"""
Addresses, paths and xtext: what stands between the brackets of MAIL and RCPT.

By RFC 5321 sections 4.1.2 and 4.1.3 (paths, mailboxes, address literals), RFC
6531 section 3.3 (UTF-8 in both parts) and RFC 3461 section 4 (xtext).

Rule 1: an address is split once, here, and never again. ``"a@b"@c`` is the
local part ``a@b`` at ``c``; whoever wrote it without its quotes would send the
mail to somebody else.

Rule 2: the ordinary address is read by one regular expression, everything
else by the functions below it, one for each rule of the RFC. What the
expression takes, the functions take with the same result, in every profile.

Rule 3: every expression is linear. A repeated class is possessive, and
whatever may follow it starts with an octet that the class does not hold, so
no octet is ever tried in two ways.
"""

from __future__ import annotations

import ipaddress
import re

from smtpfw.wire.profiles import DEFAULT, Profile

__all__ = ["NULL_SENDER", "Address", "NoPathError", "PathError", "decode_xtext", "encode_xtext", "parse_path"]

#: Octets of one label, and of a whole domain (RFC 1035 section 2.3.4, RFC 5321 section 4.5.3.1.2).
MAX_LABEL = 63
MAX_DOMAIN = 255

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_POSTMASTER = "postmaster"

# The ordinary path. Its bounds keep it within the limits of every profile and every label; longer ones are no hot path.
_match_ordinary_path = re.compile(
    (
        r"<(?=[^@>]{1,64}@[^@>]{1,63}>)"
        rf"([{_ATEXT}]++(?:\.[{_ATEXT}]++)*)"
        r"@([A-Za-z0-9]++(?:(?:\.|-++)[A-Za-z0-9]++)*)>"
    ).encode()
).match

_DOT_STRING = re.compile(rf"[{_ATEXT}\x80-\xff]++(?:\.[{_ATEXT}\x80-\xff]++)*".encode("latin-1"))
_STRAY_DOT_STRING = re.compile(rf"[{_ATEXT}\x80-\xff]++[{_ATEXT}.\x80-\xff]*+".encode("latin-1"))
_QUOTED_STRING = re.compile(rb'"((?:[^"\\\x00-\x1f\x7f]++|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(rb"\\(.)")
_DOMAIN = re.compile(rb"[A-Za-z0-9._\x80-\xff-]*+")
_LITERAL = re.compile(rb"\[([!-Z^-~]++)\]")

# ASCII has its rules above; of the rest, what some reader takes for the end of a line is refused as well: a name that
# breaks a log or a header line in two is an attack, not a name.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# IDNA2003 section 3.1 reads these as dots: labels would hide behind them from the rules for labels.
_OTHER_DOTS = re.compile("[\u3002\uff0e\uff61]")

_DOT_STRING_TEXT = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]++(?:\.[{_ATEXT}\u0080-\U0010ffff]++)*")
_NEEDS_BACKSLASH = re.compile(r'["\\]')


class PathError(ValueError):
    """This is no address. The text says why, in words that are safe to show to the peer."""


class NoPathError(PathError):
    """There is no path at all, or one without its brackets."""


class Address:
    """
    A mailbox, or the null sender, which is false. Treat it as immutable.

    Two addresses are equal if both parts are, in this very case.

    :ivar local_part: what stands before the ``@``, its quotes and backslashes taken off.
    :ivar domain: as it was sent; an address literal keeps its brackets. Empty for the null sender and for a
        ``postmaster`` without domain.
    """

    __slots__ = ("domain", "local_part")

    local_part: str
    domain: str

    def __init__(self, local_part: str, domain: str = "") -> None:
        self.local_part = local_part
        self.domain = domain

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Read an address without brackets, as ``str()`` writes it. An empty text is the null sender.

        :raises ValueError: naming what is wrong.
        """
        if not text:
            return NULL_SENDER
        try:
            octets = text.encode()
            address, end = _read_mailbox(octets, 0, DEFAULT)
            if end != len(octets):
                raise PathError("there is something behind the address")
        except UnicodeEncodeError:
            raise PathError(f"not an address: {text[:80]!r}: half a surrogate pair") from None
        except PathError as error:
            raise PathError(f"not an address: {text[:80]!r}: {error}") from None
        return address

    @property
    def ascii(self) -> bool:
        """Whether it can be sent without SMTPUTF8 (RFC 6531)."""
        return self.local_part.isascii() and self.domain.isascii()

    @property
    def is_postmaster(self) -> bool:
        """Whether it is the ``postmaster`` without domain that everyone must serve (RFC 5321 section 4.5.1)."""
        return not self.domain and self.local_part.lower() == _POSTMASTER

    def __bool__(self) -> bool:
        return bool(self.local_part or self.domain)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.local_part == other.local_part and self.domain == other.domain

    def __hash__(self) -> int:
        return hash((self.local_part, self.domain))

    def __str__(self) -> str:
        """The form for the wire, without brackets; the local part is quoted only if it must be."""
        local_part = self.local_part
        if not _DOT_STRING_TEXT.fullmatch(local_part):
            if not self:
                return ""
            local_part = '"' + _NEEDS_BACKSLASH.sub(r"\\\g<0>", local_part) + '"'
        return f"{local_part}@{self.domain}" if self.domain else local_part

    def __repr__(self) -> str:
        return f"Address({self.local_part!r}, {self.domain!r})"


#: The reverse-path ``<>`` of a message that must not bounce (RFC 5321 section 4.5.5).
NULL_SENDER = Address("")


def parse_path(text: bytes, start: int = 0, profile: Profile = DEFAULT) -> tuple[Address, int]:
    """
    Read one path, ``<...>``.

    Whether an address beyond ASCII is welcome is for the caller to judge, by :attr:`Address.ascii`.

    :param text: the line.
    :param start: where in it the path begins.
    :param profile: how strictly to read.
    :return: the address, and the index behind the path. A source route is dropped (RFC 5321 appendix C).
    :raises NoPathError: if there is no path here, or it has no brackets.
    :raises PathError: if what stands in the brackets is no address.
    """
    match = _match_ordinary_path(text, start)
    if match is not None:
        local_part, domain = match.groups()
        return Address(local_part.decode(), domain.decode()), match.end()
    return _parse_any_path(text, start, profile)


def _parse_any_path(text: bytes, start: int, profile: Profile) -> tuple[Address, int]:
    if text.startswith(b"<>", start):
        return NULL_SENDER, start + 2
    if text.startswith(b"<", start):
        address, end = _read_mailbox(text, _skip_route(text, start + 1, profile), profile)
        if not text.startswith(b">", end):
            raise PathError("no > right behind the address")
        return address, end + 1
    if start >= len(text):
        raise NoPathError("no address")
    if not profile.bare_paths:
        raise NoPathError("an address stands in brackets, as <user@example.org>")
    address, end = _read_mailbox(text, start, profile)
    if end < len(text) and not text.startswith(b" ", end):
        raise PathError("there is something right behind the address")
    return address, end


def _skip_route(text: bytes, position: int, profile: Profile) -> int:
    # RFC 5321 section 4.1.2: a source route must be accepted, and should be ignored.
    if not text.startswith(b"@", position):
        return position
    while text.startswith(b"@", position):
        _, position = _read_domain(text, position + 1, profile)
        if text.startswith(b":", position):
            return position + 1
        if not text.startswith(b",", position):
            break
        position += 1
    raise PathError("the local part is missing, or a source route does not end in a colon")


def _read_mailbox(text: bytes, position: int, profile: Profile) -> tuple[Address, int]:
    local_part, position = _read_local_part(text, position, profile)
    if text.startswith(b"@", position):
        domain, position = _read_domain(text, position + 1, profile)
        return Address(local_part, domain), position
    address = Address(local_part)
    if address.is_postmaster:
        return address, position
    if position >= len(text) or text.startswith(b">", position):
        raise PathError("the domain is missing")
    if text.startswith(b".", position):
        raise PathError("a dot at the edge of the local part, or two in a row")
    raise PathError("a character that a local part can't hold without quotes")


def _read_local_part(text: bytes, position: int, profile: Profile) -> tuple[str, int]:
    if text.startswith(b'"', position):
        match = _QUOTED_STRING.match(text, position)
        if match is None:
            raise PathError("a quoted local part that does not end, or holds a control character")
        octets = _QUOTED_PAIR.sub(rb"\1", match[1])
        if not octets:
            raise PathError("the local part is empty")
    else:
        match = (_STRAY_DOT_STRING if profile.stray_dots else _DOT_STRING).match(text, position)
        if match is None:
            raise PathError("the local part is missing, or begins with a character that it can't hold")
        octets = match[0]
    if 0 < profile.max_local_part < len(match[0]):  # quotes and backslashes belong to a Local-part, so they count
        raise PathError(f"the local part has more than {profile.max_local_part} octets")
    return _decode(octets), match.end()


def _read_domain(text: bytes, position: int, profile: Profile) -> tuple[str, int]:
    if text.startswith(b"[", position):
        return _read_literal(text, position)
    match = _DOMAIN.match(text, position)
    assert match is not None  # it matches the empty text, too
    octets = match[0]
    if not octets:
        raise PathError("the domain is missing, or begins with a character that it can't hold")
    if len(octets) > MAX_DOMAIN:
        raise PathError(f"the domain has more than {MAX_DOMAIN} octets")
    if b"_" in octets and not profile.underscores:
        raise PathError("an underscore in the domain")
    for label in octets.split(b"."):
        if not label:
            raise PathError("a dot at the edge of the domain, or two in a row")
        if len(label) > MAX_LABEL:
            raise PathError(f"a label of the domain has more than {MAX_LABEL} octets")
        if label.startswith(b"-") or label.endswith(b"-"):
            raise PathError("a hyphen at the edge of a label of the domain")
    domain = _decode(octets)
    if _OTHER_DOTS.search(domain):
        raise PathError("the labels of a domain are divided by ASCII dots")
    return domain, match.end()


def _read_literal(text: bytes, position: int) -> tuple[str, int]:
    match = _LITERAL.match(text, position)
    if match is None:
        raise PathError("an address literal that does not end, or holds a character that it can't")
    content = match[1].decode()
    tag, colon, host = content.partition(":")
    try:
        if not colon:
            ipaddress.IPv4Address(content)
        elif tag.lower() == "ipv6" and "%" not in host:
            # A zone (fe80::1%eth0) means something on one machine only; RFC 5321 section 4.1.3 has none.
            ipaddress.IPv6Address(host)
        else:
            raise PathError("an address literal is [192.0.2.1] or [IPv6:2001:db8::1]")
    except ipaddress.AddressValueError:
        raise PathError("the address literal holds no IP address") from None
    return match[0].decode(), match.end()


def _decode(octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise PathError("the address is not valid UTF-8") from None
    if _CONTROL.search(text):
        raise PathError("a control character in the address")
    return text


_XTEXT = re.compile(r"(?:[!-*,-<>-~]++|\+[0-9A-F]{2})*")
_NOT_XCHAR = re.compile(rb"[^!-*,-<>-~]")
_HEXCHAR = re.compile(rb"\+([0-9A-F]{2})")


def encode_xtext(text: str) -> str:
    """
    Write a text as xtext (RFC 3461 section 4); what is not ASCII as the octets of its UTF-8.

    :raises ValueError: for half a surrogate pair.
    """
    return _NOT_XCHAR.sub(lambda match: b"+%02X" % match[0][0], text.encode()).decode()


def decode_xtext(text: str) -> str:
    """
    Read xtext (RFC 3461 section 4).

    The result may hold any character: line breaks, too.

    :raises ValueError: for a raw ``=``, a ``+`` without two upper-case hexadecimal digits, a character that must
        have been encoded, or octets that are not UTF-8.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("broken xtext")
    octets = _HEXCHAR.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode())
    return octets.decode()
