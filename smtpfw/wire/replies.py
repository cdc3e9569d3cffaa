"""
Replies: the value, its bytes, and the reader that turns bytes back into values.

Rule 1: whoever answers returns or raises a value; its bytes are made here and
nowhere else, once per :class:`Reply`. The fixed ones stand at the end of this
file and are made when it is imported.

Rule 2: no text can end a reply or start a line of its own choosing. A line
break inside a reply would end it, and what follows would be read by the
client as our next word; so line breaks make a multi-line reply, and other
control characters are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpfw.errors import (
    ENHANCED_CODE_NOT_SET,
    NO_ENHANCED_CODE,
    EnhancedCode,
    RemoteProtocolError,
    SMTPError,
)

__all__ = ["ENHANCED_CODE_NOT_SET", "NO_ENHANCED_CODE", "EnhancedCode", "Reply", "ReplyReader"]

#: RFC 5321 section 4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included.
MAX_REPLY_LINE = 512

#: Replies of one line that a reader remembers. Those that name a message differ each time; they fill it up once.
_MAX_KNOWN = 16

_CHALLENGE = 334

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Reply:
    """
    One reply, of one or more lines. Treat it as immutable.

    :param code: 200 to 599.
    :param text: what follows the codes; line breaks separate lines.
    :param enhanced_code: stands on every line (RFC 2034 section 4); by default ``X.0.0`` of the code's class,
        or none for a 3xx reply.
    """

    __slots__ = ("code", "enhanced_code", "text", "wire")

    code: int
    enhanced_code: EnhancedCode
    text: str
    #: The bytes of the whole reply, CRLF included.
    wire: bytes

    def __init__(self, code: int, text: str = "", enhanced_code: tuple[int, int, int] = ENHANCED_CODE_NOT_SET) -> None:
        if not 200 <= code <= 599:
            raise ValueError(f"a reply code is 200 to 599, not {code}")
        klass = code // 100
        if enhanced_code == ENHANCED_CODE_NOT_SET:
            enhanced_code = NO_ENHANCED_CODE if klass == 3 else (klass, 0, 0)
        if enhanced_code != NO_ENHANCED_CODE and enhanced_code[0] != klass:
            raise ValueError(f"enhanced code {EnhancedCode(*enhanced_code)} does not belong to the class of {code}")
        self.code = code
        self.enhanced_code = EnhancedCode(*enhanced_code)
        self.text = text
        self.wire = _format(code, self.enhanced_code, text)

    @classmethod
    def from_error(cls, error: SMTPError) -> Reply:
        """The reply that an :class:`~smtpfw.errors.SMTPError` stands for."""
        return cls(error.code, error.message, error.enhanced_code)

    @property
    def positive(self) -> bool:
        """Whether the class is 2 or 3."""
        return self.code < 400

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and self.wire == other.wire

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        return f"Reply({self.code}, {self.text!r}, {tuple(self.enhanced_code)})"


def _format(code: int, enhanced_code: EnhancedCode, text: str) -> bytes:
    prefix = "" if enhanced_code == NO_ENHANCED_CODE else f"{enhanced_code} "
    # A challenge of SASL is one line, as long as it is (RFC 4954 section 4).
    room = MAX_REPLY_LINE - len("250-\r\n") - len(prefix) if code != 334 else len(text)
    lines = [part for line in _LINE_BREAK.split(text) for part in _wrap(_CONTROL.sub("", line), room)]
    separators = ["-"] * (len(lines) - 1) + [" "]
    whole = "".join(
        # The space behind "334" belongs to the reply; the one behind an enhanced code alone does not.
        f"{code}{separator}{(prefix + line).rstrip(' ') if prefix else line}\r\n"
        for separator, line in zip(separators, lines, strict=True)
    )
    # An octet over 127 in a reply is for clients that asked for SMTPUTF8 (RFC 6531 section 3.7.4.3); others may choke.
    return whole.encode("ascii", "replace")


def _wrap(line: str, room: int) -> Iterator[str]:
    while len(line) > room:
        cut = line.rfind(" ", 1, room + 1)
        cut = cut if cut > 0 else room
        yield line[:cut]
        line = line[cut:].lstrip(" ")
    yield line


class ReplyReader:
    """
    Collects the lines of one reply after another.

    A peer that never ends its reply is cut off at ``max_lines`` (EHLO answers have some 20 lines, refusals with
    advice 10; nothing legitimate has hundreds), or at ``max_octets``; 0 is for no limit.
    """

    def __init__(self, max_lines: int = 500, max_octets: int = 0) -> None:
        self._max_lines = max_lines
        self._max_octets = max_octets
        self._octets = 0
        #: The lines so far of a reply that is not whole; always the same list.
        self.texts: list[str] = []
        #: Whole replies of one line that have been read before: servers say the same all the time. Where ``texts`` is
        #: empty, whoever is in a hurry looks here first.
        self.known: dict[bytes, Reply] = {}
        self._code = 0
        self._enhanced_code = NO_ENHANCED_CODE

    def feed(self, line: bytes) -> Reply | None:
        """
        Take one line, without its CRLF; return the reply when this was its last.

        :raises RemoteProtocolError: when the line is no reply line, or does not belong to the lines before it.
        """
        digits, separator, rest = line[:3], line[3:4], line[4:]
        if not (digits.isdigit() and b"200" <= digits <= b"599") or separator not in (b" ", b"-", b""):
            raise RemoteProtocolError(f"not a reply line: {line[:80]!r}")
        code = int(digits)
        if self.texts and code != self._code:
            # RFC 5321 section 4.2.1: the code is the same on every line.
            raise RemoteProtocolError(f"the code changes within a reply, from {self._code} to {code}")
        if len(self.texts) >= self._max_lines:
            raise RemoteProtocolError(f"a reply of more than {self._max_lines} lines")
        self._octets += len(line)
        if self._max_octets and self._octets > self._max_octets:
            raise RemoteProtocolError(f"a reply of more than {self._max_octets} octets")
        text = rest.decode("utf-8", "replace")
        enhanced_code, text = _split_enhanced_code(code, text)
        if not self.texts:
            self._code, self._enhanced_code = code, enhanced_code
        self.texts.append(text)
        if separator == b"-":
            return None
        reply = Reply(code, "\n".join(self.texts), self._enhanced_code)
        if len(self.texts) == 1 and len(self.known) < _MAX_KNOWN and code != _CHALLENGE:
            self.known[line] = reply
        self.texts.clear()
        self._octets = 0
        return reply


def _split_enhanced_code(code: int, text: str) -> tuple[EnhancedCode, str]:
    word, _, rest = text.partition(" ")
    try:
        enhanced_code = EnhancedCode.parse(word)
    except ValueError:
        return NO_ENHANCED_CODE, text
    if enhanced_code.klass != code // 100:
        return NO_ENHANCED_CODE, text
    return enhanced_code, rest


# The replies that need no thought; their bytes are ready.
OK = Reply(250, "OK")
OK_SENDER = Reply(250, "Sender OK", (2, 1, 0))
OK_RECIPIENT = Reply(250, "Recipient OK", (2, 1, 5))
OK_MESSAGE = Reply(250, "Message accepted", (2, 0, 0))
OK_RESET = Reply(250, "Reset", (2, 0, 0))
START_MAIL_INPUT = Reply(354, "Start mail input; end with <CRLF>.<CRLF>")
CLOSING = Reply(221, "Closing transmission channel", (2, 0, 0))
CANNOT_VERIFY = Reply(252, "Cannot VRFY user, but will accept message and attempt delivery", (2, 0, 0))
