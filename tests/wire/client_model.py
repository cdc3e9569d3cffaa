"""
What a peer must be able to rely on: reads what a client writes, and knows what each reply answers.

It is held against the client by fuzzing, so it shares no code with it.
"""

from __future__ import annotations

import re
from collections import deque

_LINE = re.compile(
    rb"(EHLO|HELO|LHLO|MAIL|RCPT|DATA|RSET|NOOP|VRFY|QUIT|BDAT)"
    rb"(?: me\.test| FROM:<m(\d+)@b\.test>(?: BODY=8BITMIME)?| TO:<(r\d)@d\.test>| (\d+)( LAST)?)?\r\n"
)


class PeerModel:
    """
    Bodies have to be of small letters, dots and line ends, so none of their octets can be taken for a command. The
    sender's name says which message it is.

    :ivar due: what was said and waits for its reply, in order: (verb, message, recipient).
    :ivar accepted: message -> the recipients that it was accepted for in the end.
    :ivar complete: the messages of which all was said.
    :ivar chunk_refused: those of which a chunk was refused.
    :ivar messages: the octets of each, as they came.
    """

    def __init__(self, lmtp: bool = False) -> None:
        self._lmtp = lmtp
        self._buffer = b""
        # command, wait (for the answer to DATA), body, or chunk.
        self._mode = "command"
        self._left = 0
        self._message = -1
        self._recipients: list[str] = []
        self.due: deque[tuple[str, int, str]] = deque([("GREETING", -1, "")])
        self.accepted: dict[int, list[str]] = {}
        self.complete: set[int] = set()
        self.chunk_refused: set[int] = set()
        self.messages: dict[int, bytes] = {}

    def take(self, octets: bytes) -> None:
        """Take what the client has written."""
        self._buffer += octets
        while self._buffer and self._take():
            pass
        # A write of commands ends with one.
        assert self._mode in ("body", "chunk") or not self._buffer, self._buffer

    def _take(self) -> bool:
        if self._mode == "chunk":
            octets, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left -= len(octets)
            self.messages[self._message] += octets
            self._check(octets)
            if self._left:
                return False
            self._mode = "command"
            return True
        if self._mode == "body":
            return self._take_body()
        assert self._mode == "command", f"said before DATA was answered: {self._buffer!r}"
        match = _LINE.match(self._buffer)
        assert match, f"no command: {self._buffer!r}"
        self._buffer = self._buffer[match.end() :]
        self._command(match[1].decode(), match[2], match[3], match[4], bool(match[5]))
        return True

    def _take_body(self) -> bool:
        end = self._buffer.find(b"\r\n.\r\n")
        if self._buffer.startswith(b".\r\n"):
            body, self._buffer = b"", self._buffer[3:]
        elif end >= 0:
            body, self._buffer = self._buffer[: end + 2], self._buffer[end + 5 :]
        else:
            self._check(self._buffer)
            return False
        self._check(body)
        self._mode = "command"
        if not self._recipients:
            # Nobody was accepted: an empty message.
            assert body == b""
            self.due.append(("NOTHING", -1, ""))
        else:
            self.messages[self._message] = body
            self._end()
        return True

    def _check(self, octets: bytes) -> None:
        assert not octets.strip(b"xy.\r\n"), octets

    def _command(
        self, verb: str, sender: bytes | None, recipient: bytes | None, size: bytes | None, last: bool
    ) -> None:
        if verb == "MAIL":
            assert sender is not None
            self.due.append((verb, int(sender), ""))
        elif verb == "RCPT":
            assert recipient is not None
            self.due.append((verb, -1, recipient.decode()))
        elif verb == "BDAT":
            assert size is not None
            # Never before a recipient was accepted.
            assert self._message >= 0 and self._recipients
            self.messages.setdefault(self._message, b"")
            self._left = int(size)
            self._mode = "chunk" if self._left else "command"
            if last:
                self._end()
            else:
                self.due.append((verb, self._message, ""))
        else:
            self.due.append((verb, -1, ""))
            if verb == "DATA":
                self._mode = "wait"

    def _end(self) -> None:
        self.complete.add(self._message)
        recipients = self._recipients if self._lmtp else [",".join(self._recipients)]
        self.due.extend([("END", self._message, one) for one in recipients])
        self._recipients = []

    def reply(self, code: int) -> bool:
        """Give a reply; return whether anything was due."""
        if not self.due:
            return False
        verb, message, recipient = self.due.popleft()
        good = 200 <= code < 300
        if verb == "MAIL":
            self._message, self._recipients = (message if good else -1), []
        elif verb == "RCPT" and good and self._message >= 0:
            self._recipients.append(recipient)
        elif verb == "DATA":
            self._mode = "body" if code == 354 else "command"
        elif verb == "END" and good:
            self.accepted.setdefault(message, []).extend(recipient.split(","))
        elif verb == "BDAT" and not good:
            self.chunk_refused.add(message)
        return True
