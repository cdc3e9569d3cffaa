"""
DSN (RFC 3461, RFC 6533): the sender says which delivery status notifications it wants, and what they shall name.

The parameters are for the session, and for a next hop. Who honours this
extension sends the notifications, or hands the parameters on (RFC 3461 section
5.2); here they are only read and written.

Rule 1: a value that was decoded holds printable characters only. Both codings
can hide a line break, and these values end up in the header of a notification.

Rule 2: a formatter reads what it wrote with the parser before it lets it go,
so both keep the same rules.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from smtpfw.wire.dialect import Extension
from smtpfw.wire.grammar import decode_xtext, encode_xtext
from smtpfw.wire.parameters import Parameter

__all__ = ["DSN", "ENVID", "MAX_ENVID", "MAX_ORCPT", "NOTIFY", "ORCPT", "RET", "OriginalRecipient"]

#: Octets of an encoded value that everybody has to take (RFC 3461 section 5.4); nobody is asked for more.
MAX_ENVID = 100
MAX_ORCPT = 500

#: The address type of addresses beyond ASCII, which has a coding of its own (RFC 6533 section 3).
UTF8 = "utf-8"

_RETURNS = ("FULL", "HDRS")
_NEVER = "NEVER"
_EVENTS = ("SUCCESS", "FAILURE", "DELAY")

# RFC 822 section 3.3, less the "=" that no value of a parameter may hold.
_ATOM = re.compile(r"[!#-'*+\-/0-9?A-Z^-~]++")
# RFC 3461 sections 4.2 and 4.4: what is encoded as xtext is printable ASCII.
_PRINTABLE = re.compile(r"[ -~]*+")
# What some reader takes for the end of a line is refused with the other controls.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 6533 section 3: utf-8-addr-xtext, utf-8-addr-unitext and utf-8-address at once. Only the last may hold a "+" or
# a backslash of its own.
_UTF8_ADDRESS = re.compile(r"(?:[^\x00- =\\\x7f]++|\\(?!x\{)|\\x\{[0-9A-Fa-f]{2,6}\})++")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_TO_EMBED = re.compile(r"[^!-*,-<>-\[\]-~]")
# The ASCII characters that stand for themselves nowhere, and are embedded therefore.
_EMBEDDED_ASCII = frozenset(map(ord, " +=\\"))


class OriginalRecipient(NamedTuple):
    """
    Whom the message was addressed to at first.

    :ivar address_type: as it was sent: ``rfc822``, ``utf-8``, or one that smtpfw knows nothing of.
    :ivar address: decoded, and printable. Its type says how it is written; it was not checked to be an address (RFC
        3461 section 4.2).
    """

    address_type: str
    address: str


def _word(text: str | None) -> str:
    # Some letters become ASCII when they are made capitals: U+0131, U+017F.
    return text.upper() if text is not None and text.isascii() else ""


def _parse_return(text: str | None) -> str:
    word = _word(text)
    if word not in _RETURNS:
        raise ValueError("must be FULL or HDRS")
    return word


def _format_return(value: str | None) -> str:
    return _parse_return(value)


def _parse_envelope_id(text: str | None) -> str:
    if not text:
        raise ValueError("needs a value")
    if len(text.encode()) > MAX_ENVID:
        raise ValueError(f"must have at most {MAX_ENVID} octets")
    return _decode_printable(text)


def _format_envelope_id(value: str | None) -> str:
    text = encode_xtext(value or "")
    _parse_envelope_id(text)
    return text


def _parse_notify(text: str | None) -> frozenset[str]:
    words = frozenset(_word(text).split(","))
    if words != {_NEVER} and not words.issubset(_EVENTS):
        raise ValueError("must be NEVER alone, or some of SUCCESS, FAILURE and DELAY")
    return words


def _format_notify(value: frozenset[str]) -> str:
    text = ",".join(word for word in (_NEVER, *_EVENTS) if word in value)
    if _parse_notify(text) != value:
        raise ValueError("a word that is none of NOTIFY")
    return text


def _parse_original_recipient(text: str | None) -> OriginalRecipient:
    if text is None:
        raise ValueError("needs a value")
    if len(text.encode()) > MAX_ORCPT:
        raise ValueError(f"must have at most {MAX_ORCPT} octets")
    address_type, semicolon, encoded = text.partition(";")
    if not semicolon or not _ATOM.fullmatch(address_type):
        raise ValueError("must be the type of an address, a semicolon, and the address")
    decode = _decode_utf8_address if _is_utf8(address_type) else _decode_printable
    return OriginalRecipient(address_type, decode(encoded))


def _format_original_recipient(value: OriginalRecipient | None) -> str:
    if value is None:
        raise ValueError("needs a value")
    encode = _encode_utf8_address if _is_utf8(value.address_type) else encode_xtext
    text = f"{value.address_type};{encode(value.address)}"
    if _parse_original_recipient(text) != value:
        raise ValueError("a type that holds a semicolon")
    return text


def _is_utf8(address_type: str) -> bool:
    return address_type.lower() == UTF8


def _decode_printable(text: str) -> str:
    try:
        decoded = decode_xtext(text)
    except ValueError:
        # It may say what came, and no reply repeats that.
        raise ValueError("must be xtext") from None
    if not _PRINTABLE.fullmatch(decoded):
        raise ValueError("must be printable ASCII when decoded")
    return decoded


def _decode_utf8_address(text: str) -> str:
    if not _UTF8_ADDRESS.fullmatch(text):
        raise ValueError(r"must be text in UTF-8, with \x{...} for what can't stand there")
    decoded = _EMBEDDED.sub(_decode_embedded, text)
    if _CONTROL.search(decoded):
        raise ValueError("must be printable when decoded")
    return decoded


def _decode_embedded(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    beyond_ascii = 0x80 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF
    if not (beyond_ascii or code in _EMBEDDED_ASCII) or len(match[1]) != len(f"{code:02X}"):
        raise ValueError(r"holds a \x{...} of a character that must not be written so")
    return chr(code)


def _encode_utf8_address(text: str) -> str:
    """The form of 7 bits, utf-8-addr-xtext: it can go to any server, with SMTPUTF8 or without."""
    return _TO_EMBED.sub(lambda match: rf"\x{{{ord(match[0]):02X}}}", text)


#: How much of the message a notification of failure shall return, ``FULL`` or ``HDRS``; None when not given.
RET: Parameter[str | None] = Parameter("RET", parse=_parse_return, format=_format_return, default=None)

#: What the sender calls this transaction, decoded; None when not given.
ENVID: Parameter[str | None] = Parameter("ENVID", parse=_parse_envelope_id, format=_format_envelope_id, default=None)

#: When to notify: ``NEVER`` alone, or some of ``SUCCESS``, ``FAILURE`` and ``DELAY``. Empty when not given, which means
#: FAILURE, or FAILURE and DELAY, as the server likes (RFC 3461 section 4.1).
NOTIFY: Parameter[frozenset[str]] = Parameter("NOTIFY", parse=_parse_notify, format=_format_notify, default=frozenset())

#: An :class:`OriginalRecipient`; None when not given.
ORCPT: Parameter[OriginalRecipient | None] = Parameter(
    "ORCPT", parse=_parse_original_recipient, format=_format_original_recipient, default=None
)


class DSN(Extension):
    keyword = "DSN"
    mail_parameters = (RET, ENVID)
    rcpt_parameters = (NOTIFY, ORCPT)
    extra_line_octets = 530  # RFC 3461 section 5.4
    end_to_end = True
