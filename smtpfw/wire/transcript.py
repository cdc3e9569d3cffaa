"""
A dialog in lines, for whoever has to see what was said: ``C: EHLO me``, ``S: 250 mx.example.org``.

Rule 1: what may be a secret is not in it, only how long it was. That is all
behind ``AUTH MECHANISM``, every line that answers a challenge, and the
challenges themselves; and any line that begins with no verb we know, since a
client whose AUTH was refused may go on with its password. Of the verbs that we
know, only those of :data:`SHOWN` have arguments that are shown.

Rule 2: no line has a control character in it, so nobody writes a line of his
own choosing, nor moves the cursor of who reads it.

Rule 3: messages are not in it, only how many octets they had on the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from smtpfw.wire.buffer import BareNewline, EndlessLine, LineError
from smtpfw.wire.phases import NOT_IMPLEMENTED

__all__ = ["MECHANISMS", "SHOWN", "Transcript", "printable", "show_command"]

#: Verbs whose arguments are no secret.
SHOWN = frozenset({"EHLO", "HELO", "LHLO", "MAIL", "RCPT", "BDAT", "VRFY", "XCLIENT"})

#: The names of SASL mechanisms that are shown. Another word behind AUTH may be the credentials of a client that forgot
#: to name one.
MECHANISMS = frozenset(
    {
        "ANONYMOUS",
        "CRAM-MD5",
        "DIGEST-MD5",
        "EXTERNAL",
        "GS2-KRB5",
        "GS2-KRB5-PLUS",
        "GSS-SPNEGO",
        "GSSAPI",
        "LOGIN",
        "NTLM",
        "OAUTHBEARER",
        "PLAIN",
        "SCRAM-SHA-1",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-512",
        "SCRAM-SHA-512-PLUS",
        "XOAUTH2",
    }
)

_ESCAPED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    """The same text with all that can't be seen, or moves what can be, written as in Python: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return _ESCAPED.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def show_command(verb: bytes, argument: bytes, known: Container[str]) -> str:
    """
    A command without what may be a secret in it.

    :param verb: in capitals.
    :param argument: what stands behind the verb and a space.
    :param known: the names of the verbs that are served.
    """
    name = verb.decode("ascii", "replace")
    if name in SHOWN:
        return f"{name} {printable(argument.decode('utf-8', 'backslashreplace'))}".rstrip(" ")
    if name == "AUTH":
        mechanism, _, rest = argument.strip(b" ").partition(b" ")
        word = mechanism.decode("ascii", "replace").upper()
        if word in MECHANISMS:
            return _with_size(f"AUTH {word}", rest.strip(b" "))
    elif not (name in known or name in NOT_IMPLEMENTED):
        octets = len(verb) + (1 + len(argument) if argument else 0)
        return f"<unknown command, {_octets(octets)}>"
    return _with_size(name, argument)


def _with_size(shown: str, hidden: bytes) -> str:
    return f"{shown} <{_octets(len(hidden))}>" if hidden else shown


def _octets(count: int) -> str:
    return f"{count} octet" if count == 1 else f"{count} octets"


class Transcript:
    """
    Writes down one connection.

    :param write: takes each line, without a line end. ``C:`` begins what the client says, ``S:`` what the server says,
        and ``--`` what happens else.
    :param known: the names of the verbs that are served.
    """

    __slots__ = ("_held", "_known", "_octets", "_write")

    def __init__(self, write: Callable[[str], None], known: Container[str]) -> None:
        self._write = write
        self._known = known
        # Octets of the message, or the chunk, that is being read.
        self._octets = 0
        # Lines that have to stand behind the one on these octets.
        self._held: list[str] | None = None

    def command(self, verb: bytes, argument: bytes) -> None:
        """A command; ``verb`` in capitals."""
        self._line(f"C: {show_command(verb, argument, self._known)}")

    def response(self, line: bytes | None) -> None:
        """A line that a verb has asked for; None for one over its limit."""
        self._line("C: <response, too long>" if line is None else f"C: <response, {_octets(len(line))}>")

    def bad_line(self, error: LineError) -> None:
        """A line that can't be used."""
        if isinstance(error, BareNewline):
            self._line("C: <line with a bare CR or LF>")
        else:
            self._line("C: <line without an end>" if isinstance(error, EndlessLine) else "C: <line too long>")

    def reply(self, wire: bytes) -> None:
        """A reply of the server's."""
        for line in wire[:-2].decode("ascii").split("\r\n"):
            if line.startswith("334 ") and len(line) > 4:
                line = f"334 <challenge, {_octets(len(line) - 4)}>"
            self._line(f"S: {line}")

    def receive(self, receive: Callable[[bytes], bytes | None], data: bytes) -> bytes | None:
        """Let a receiver take octets of a message; how many it took stands before what it answers."""
        self._held = []
        try:
            rest = receive(data)
        finally:
            held, self._held = self._held, None
        self._octets += len(data) - len(rest or b"")
        if rest is not None:
            self._end_octets("")
        elif held:
            # It has given up.
            self._end_octets(" and no end")
        for line in held:
            self._line(line)
        return rest

    def message(self, octets: int) -> None:
        """A message, or a part of one, of which a client has sent so many octets."""
        self._line(f"C: <{_octets(octets)}>")

    def note(self, text: str) -> None:
        """What happens, and is said by nobody."""
        self._line(f"-- {text}")

    def close(self) -> None:
        """The dialog is over."""
        if self._held is None:
            self._end_octets(" and no end")
        self.note("closed")

    def _end_octets(self, how: str) -> None:
        octets, self._octets = self._octets, 0
        if octets:
            self._line(f"C: <{_octets(octets)}{how}>")

    def _line(self, line: str) -> None:
        if self._held is not None:
            self._held.append(line)
        else:
            self._write(line)
