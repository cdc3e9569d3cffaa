"""
Command lines with arguments, both ways: MAIL, RCPT, and EHLO, HELO, LHLO.

By RFC 5321 sections 4.1.1 and 4.1.2 and RFC 6531 section 3.4. Parsers and
formatters are twins.

Rule 1: a parser takes the octets behind the verb and its space, without CRLF,
and raises a ready reply. The reply says what was expected, and never repeats
what came.

Rule 2: a formatter reads what it wrote, the path and each parameter, with the
parser before it lets it go. An address or a value that would read as anything
but itself (a line break that starts a command, a space that adds a parameter)
is refused by that, whatever trick it uses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from smtpfw.errors import (
    BadRecipientSyntax,
    BadSenderSyntax,
    LocalProtocolError,
    SMTPError,
    SyntaxProblem,
)
from smtpfw.wire.grammar import Address, NoPathError, PathError, parse_path
from smtpfw.wire.profiles import DEFAULT, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "NO_PARAMETERS",
    "format_hello",
    "format_mail",
    "format_rcpt",
    "parse_hello",
    "parse_mail",
    "parse_rcpt",
]

#: What a command without parameters has: one object for all of them.
NO_PARAMETERS: Mapping[str, str | None] = MappingProxyType({})

# RFC 5321 section 4.1.2, esmtp-param; RFC 6531 section 3.3 adds UTF-8 to the value.
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\x80-\xff]++))?")
# What RFC 6531 lets into a value, and a log or a header would take for the end of a line.
_CONTROL = re.compile("[\x80-\x9f\u2028\u2029]")

#: Paths and parameters that are remembered with their octets: a client says the same again and again.
_REMEMBERED = 1024

_MAIL_SYNTAX = "Syntax: MAIL FROM:<address>"
_RCPT_SYNTAX = "Syntax: RCPT TO:<address>"


def parse_mail(argument: bytes, profile: Profile) -> tuple[Address, Mapping[str, str | None]]:
    """
    Read what follows ``MAIL ``: ``FROM:<a@b> SIZE=1``.

    :return: the sender, and the parameters as they were sent: keyword in capitals, the value or None, in order.
        Don't change the mapping; without parameters it is :data:`NO_PARAMETERS`.
    :raises SyntaxProblem: 501 5.5.4, for the form of the command or of a parameter.
    :raises BadSenderSyntax: 501 5.1.7, for an address that is none.
    """
    if argument[:5].upper() != b"FROM:":
        raise SyntaxProblem(_MAIL_SYNTAX)
    return _parse_path_and_parameters(argument, 5, profile, _MAIL_SYNTAX, BadSenderSyntax)


def parse_rcpt(argument: bytes, profile: Profile) -> tuple[Address, Mapping[str, str | None]]:
    """
    Read what follows ``RCPT ``: ``TO:<a@b> NOTIFY=NEVER``.

    :return: the recipient and the parameters, as :func:`parse_mail` does.
    :raises SyntaxProblem: 501 5.5.4, for the form of the command or of a parameter.
    :raises BadRecipientSyntax: 501 5.1.3, for an address that is none, or the null path.
    """
    if argument[:3].upper() != b"TO:":
        raise SyntaxProblem(_RCPT_SYNTAX)
    parsed = _parse_path_and_parameters(argument, 3, profile, _RCPT_SYNTAX, BadRecipientSyntax)
    if not parsed[0]:
        raise BadRecipientSyntax("The null path <> is no recipient")
    return parsed


def _parse_path_and_parameters(
    argument: bytes,
    start: int,
    profile: Profile,
    syntax: str,
    bad_address: type[BadSenderSyntax | BadRecipientSyntax],
) -> tuple[Address, Mapping[str, str | None]]:
    if argument.startswith(b" ", start):
        if not profile.space_after_colon:
            raise SyntaxProblem(f"{syntax}, without a space after the colon")
        while argument.startswith(b" ", start):
            start += 1
    try:
        address, end = parse_path(argument, start, profile)
    except NoPathError:
        raise SyntaxProblem(syntax) from None
    except PathError as error:
        raise bad_address(f"{bad_address.message}: {error}") from None
    if end == len(argument):
        return address, NO_PARAMETERS
    if not argument.startswith(b" ", end):
        raise bad_address(f"{bad_address.message}: there is something right behind the >")
    return address, _parse_parameters(argument[end:])


def _parse_parameters(text: bytes) -> Mapping[str, str | None]:
    parameters: dict[str, str | None] = {}
    for word in text.split(b" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise SyntaxProblem("A parameter is KEYWORD or KEYWORD=value")
        keyword = match[1].decode().upper()
        if keyword in parameters:
            raise SyntaxProblem("The same parameter twice")
        parameters[keyword] = _decode_value(match[2]) if match[2] else None
    return parameters or NO_PARAMETERS


def _decode_value(octets: bytes) -> str:
    try:
        value = octets.decode()
    except UnicodeDecodeError:
        raise SyntaxProblem("The value of a parameter is not valid UTF-8") from None
    if _CONTROL.search(value):
        raise SyntaxProblem("An unprintable character in the value of a parameter")
    return value


def parse_hello(argument: bytes, profile: Profile) -> str:
    """
    Read what follows ``EHLO ``, ``HELO `` or ``LHLO ``.

    :return: what the client calls itself: printable, without spaces, and otherwise anything.
    :raises SyntaxProblem: 501 5.5.4, for no name or several (``hello_first_word`` takes the first).
    :raises SMTPError: 501 5.5.2, for control characters and for what is not UTF-8.
    """
    try:
        text = argument.decode()
    except UnicodeDecodeError:
        raise SMTPError(501, (5, 5, 2), "The name is not valid UTF-8") from None
    if not text.isprintable():
        raise SMTPError(501, (5, 5, 2), "An unprintable character in the name")
    words = text.split()
    if not words or (len(words) > 1 and not profile.hello_first_word):
        raise SyntaxProblem("One domain name or address literal is expected")
    return words[0]


def format_mail(sender: Address, parameters: Mapping[str, str | None] = NO_PARAMETERS) -> bytes:
    """
    The line ``MAIL FROM:<a@b> SIZE=1``, CRLF included.

    :param parameters: values ready for the wire (``xtext`` where their RFC asks for it), None for a bare keyword.
    :raises LocalProtocolError: if the line would not say just this.
    """
    return b"MAIL FROM:%b%b\r\n" % (_format_path(sender), _format_parameters(parameters))


def format_rcpt(recipient: Address, parameters: Mapping[str, str | None] = NO_PARAMETERS) -> bytes:
    """
    The line ``RCPT TO:<a@b> NOTIFY=NEVER``, CRLF included; see :func:`format_mail`.

    :raises LocalProtocolError: if the line would not say just this.
    """
    if not recipient:
        raise LocalProtocolError("can't be sent as a recipient: the null path <>")
    return b"RCPT TO:%b%b\r\n" % (_format_path(recipient), _format_parameters(parameters))


@lru_cache(maxsize=_REMEMBERED)
def _format_path(address: Address) -> bytes:
    path = _encode(f"<{address}>")
    try:
        parsed, end = parse_path(path, 0, DEFAULT)
    except PathError as error:
        raise LocalProtocolError(f"can't be sent as an address: {error}") from None
    if parsed != address or end != len(path):
        raise LocalProtocolError(f"what would be read as something else: {address!r}")
    return path


def _format_parameters(parameters: Mapping[str, str | None]) -> bytes:
    if not parameters:
        return b""
    if len({keyword.upper() for keyword in parameters}) != len(parameters):
        raise LocalProtocolError("the same parameter twice")
    return b"".join([_format_parameter(keyword, value) for keyword, value in parameters.items()])


@lru_cache(maxsize=_REMEMBERED)
def _format_parameter(keyword: str, value: str | None) -> bytes:
    keyword = keyword.upper()
    word = _encode(keyword if value is None else f"{keyword}={value}")
    try:
        parsed = _parse_parameters(word)
    except SMTPError as error:
        raise LocalProtocolError(f"can't be sent as a parameter: {error.message}") from None
    if parsed != {keyword: value}:
        raise LocalProtocolError(f"what would be read as something else: {keyword[:80]!r} with its value")
    return b" " + word


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("half a surrogate pair can't be sent") from None


def format_hello(name: str, extended: bool = True, *, lmtp: bool = False) -> bytes:
    """
    The line ``EHLO name``, CRLF included; ``HELO`` if not ``extended``, ``LHLO`` for ``lmtp`` (RFC 2033 section 4.1).

    :raises LocalProtocolError: for a name that is empty, or is not one printable word of ASCII.
    """
    # RFC 6531 section 3.7.1: a name beyond ASCII is sent as A-labels, the peer has not offered SMTPUTF8 yet.
    if not (name and name.isascii() and name.isprintable() and " " not in name):
        raise LocalProtocolError(f"not a name to introduce oneself with: {name[:80]!r}")
    verb = "LHLO" if lmtp else "EHLO" if extended else "HELO"
    return f"{verb} {name}\r\n".encode()
