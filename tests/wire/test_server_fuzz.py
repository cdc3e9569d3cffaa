"""
Any octets, in any cuts: the connection never raises, always ends, and every line that it says is a reply.

What is sent is mostly words of SMTP in some order, whole and broken, so that it gets deep; the application answers as
a list of numbers tells it: now, later, or no.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpfw.errors import SMTPError
from smtpfw.extensions import STANDARD, FutureRelease
from smtpfw.wire.application import PENDING, Answer
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.outgoing import MAX_REPLIES_DUE
from smtpfw.wire.phases import CLOSED
from smtpfw.wire.profiles import PROFILES
from smtpfw.wire.replies import Reply
from smtpfw.wire.server import ServerConnection
from smtpfw.wire.transaction import Transaction
from smtpfw.wire.verbs import compile_dialect

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
# What STARTTLS begins is not in this layer; and what EHLO says of the time must not differ between two runs.
DIALECT = compile_dialect(
    FutureRelease(now=lambda: NOON) if isinstance(extension, FutureRelease) else extension
    for extension in STANDARD
    if extension.keyword != "STARTTLS"
)
REPLY_LINE = re.compile(rb"[2-5]\d\d[ -][ -~]*\r\n")

ANSWERS: tuple[Answer, ...] = (
    None,
    Reply(250, "fine\nindeed"),
    SMTPError(550, (5, 7, 1), "no"),
    SMTPError(421, (4, 7, 0), "go"),
)


class Scripted:
    """
    Answers its questions one after the other as ``script`` says: an index of ANSWERS, and whether it comes later.

    Asks for a pause at every piece of a message, so that every way through the connection is taken.
    """

    def __init__(self, script: list[tuple[int, bool]]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.later: Answer = PENDING
        self.connection: ServerConnection
        self.octets = b""
        self.failed = False
        self.stored: list[bytes] = []

    def ask(self, question: str) -> Answer:
        which, later = self.script[len(self.asked) % len(self.script)] if self.script else (0, False)
        self.asked.append(question)
        answer = ANSWERS[which]
        if later:
            self.later = answer
            return PENDING
        return answer

    def hello(self, name: str, extended: bool) -> Answer:
        return self.ask(f"hello {name} {extended}")

    def mail(self, sender: Any, options: Any) -> Answer:
        return self.ask(f"mail {sender} {options!r}")

    def rcpt(self, recipient: Any, options: Any) -> Answer:
        return self.ask(f"rcpt {recipient} {options!r}")

    def verify(self, text: str) -> Answer:
        return self.ask(f"verify {text}")

    def start_data(self) -> Answer:
        return self.ask("data")

    def judge_message(self, data: bytes) -> Answer:
        return self.ask("judge")

    def message_answered(self, transaction: Transaction, size: int, replies: Sequence[Reply]) -> None:
        assert len(replies) == 1
        self.asked.append(f"answered {transaction.id} {size} {replies[0].code}")

    def refused(self, verb: bytes, reply: Reply) -> None:
        assert reply.code >= 400

    def message_data(self, data: bytes) -> None:
        assert data and not self.failed
        self.octets += data
        self.connection.hold()

    def message_failed(self, error: Exception) -> None:
        assert not self.failed
        self.failed = True

    def message_refusal(self) -> SMTPError | None:
        # Some refuse before the end: those of every third transaction.
        transaction = self.connection.transaction
        assert transaction is not None
        return SMTPError(554, (5, 7, 1), "spam") if transaction.id.endswith("3") else None

    def message_end(self, data: bytes) -> Answer:
        if not self.failed:
            self.stored.append(self.octets + data)
        self.octets, self.failed = b"", False
        return self.ask("end")

    def reset(self, reason: str) -> None:
        assert self.connection.transaction is not None
        self.asked.append(f"reset {reason}")

    def start_tls(self) -> None:
        raise AssertionError("STARTTLS is not served here")

    def wait(self, result: Any) -> Answer:
        raise AssertionError("no verb here waits")

    def fault(self, error: Exception) -> Answer:
        raise AssertionError("a fault of the core") from error


def drive(
    config: ServerConfig, script: list[tuple[int, bool]], pieces: list[bytes]
) -> tuple[bytes, list[str], list[bytes]]:
    """Send the pieces, then the end of input; give what was said, asked and stored."""
    application = Scripted(script)
    connection = application.connection = ServerConnection(config, DIALECT, application)
    said = b""

    def pump() -> None:
        nonlocal said
        # Each turn answers a question, takes a piece of a message, or lets more replies out.
        for _ in range(2 * sum(map(len, pieces)) + 10):
            data = connection.data_to_send()
            assert data.count(b"\r\n") <= 20 * MAX_REPLIES_DUE
            said += data
            if connection.waiting:
                answer, application.later = application.later, PENDING
                connection.resume(answer)
            elif connection.held:
                connection.release()
            elif connection.backlogged:
                connection.go_on()
            elif not connection.replies_due:
                return
        raise AssertionError("it does not come to rest")

    connection.greet()
    pump()
    for piece in pieces:
        connection.receive_data(piece)
        pump()
    connection.receive_end()
    pump()
    assert connection.phase is CLOSED
    assert connection.buffered == 0
    return said, application.asked, application.stored


def configuration(profile: str, patient: bool) -> ServerConfig:
    limit = 0 if patient else 3
    return ServerConfig(
        hostname="mx.test",
        profile=PROFILES[profile],
        max_message_bytes=60,
        max_recipients=2,
        max_syntax_errors=limit,
        max_sequence_errors=limit,
        max_recipient_errors=limit,
    )


COMMANDS = st.sampled_from(
    [
        b"EHLO me", b"HELO me", b"ehlo a b", b"EHLO", b"LHLO me",
        b"MAIL FROM:<a@b.test>", b"MAIL FROM:<>", b"MAIL FROM:<a@b.test> BODY=BINARYMIME SIZE=3",
        b"mail from: <a@b> x=y",
        b"MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8", b"MAIL FROM:<a@b.test> SIZE=61", b"MAIL FROM:", b"MAIL",
        b"RCPT TO:<c@d.test>", b"RCPT TO:<postmaster>", b"RCPT TO:<>", b"RCPT TO:c@d", b"RCPT TO:<\xff@d>",
        b"DATA", b"DATA x", b"RSET", b"RSET x", b"NOOP", b"NOOP \x00\x80", b"VRFY jones", b"VRFY", b"HELP", b"HELP x",
        b"QUIT x", b"STARTTLS", b"AUTH PLAIN =", b"EXPN list", b"XYZ", b"", b" NOOP", b"x" * 600,
        b"NOOP " + b"y" * 3000,
        b"BDAT x", b"BDAT 0", b"BDAT 0 LAST",
    ]
)  # fmt: skip
TEXT = st.sampled_from(
    [b"a", b".", b"\r", b"\n", b"\r\n", b"..", b"\x00", b"line\r\n", b"\r\n.", b"x" * 30, b"y" * 1000]
)
BODY = st.lists(TEXT, max_size=8).map(b"".join)


def chunk(octets: bytes, last: str) -> bytes:
    return b"BDAT %d%s\r\n%s" % (len(octets), last.encode(), octets)


ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
TURNS = st.one_of(
    COMMANDS.map(lambda line: line + b"\r\n"),
    COMMANDS.map(lambda line: line + b"\r\n"),
    BODY.map(lambda octets: b"DATA\r\n" + octets + b"\r\n.\r\n"),
    BODY.map(lambda octets: ENVELOPE + b"DATA\r\n" + octets + b"\r\n.\r\n"),
    st.builds(chunk, BODY, st.sampled_from(["", " LAST", " last", " LAST x", " junk"])),
    st.builds(lambda octets, last: ENVELOPE + chunk(octets, last), BODY, st.sampled_from(["", " LAST"])),
    st.just(ENVELOPE),
    TEXT,
    st.binary(max_size=12),
)
OCTETS = st.lists(TURNS, max_size=15).map(b"".join)
SCRIPTS = st.lists(st.tuples(st.sampled_from([0, 0, 0, 0, 1, 2, 3]), st.booleans()), max_size=6)
CUTS = st.lists(st.integers(0, 4000), max_size=12)
PROFILE = st.sampled_from(sorted(PROFILES))


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(octets) + 1) for place in places} | {0, len(octets)})
    return [octets[start:end] for start, end in pairwise(edges)]


@settings(max_examples=300)
@given(OCTETS, SCRIPTS, PROFILE, st.booleans())
def test_every_line_is_a_reply(octets: bytes, script: list[tuple[int, bool]], profile: str, patient: bool) -> None:
    said, _, _ = drive(configuration(profile, patient), script, [octets])
    lines = said.splitlines(keepends=True)
    assert all(REPLY_LINE.fullmatch(line) and len(line) <= 512 for line in lines)
    replies = [line for line in lines if line[3:4] == b" "]
    # The greeting, one for each line, and the one that closes.
    assert 1 <= len(replies) <= octets.count(b"\n") + 2
    assert not any(line.startswith(b"421") for line in replies[:-1])


@settings(max_examples=120)
@given(OCTETS, SCRIPTS, PROFILE, st.booleans(), CUTS)
@example(ENVELOPE + b"DATA\r\n" + b"y" * 100 + b"\n\r\n.\r\nNOOP\r\n", [], "strict", True, [62, 70, 100, 150])
@example(ENVELOPE + b"BDAT 3\r\na\rbRSET\r\nNOOP\r\n", [], "strict", True, [60, 61, 62, 63, 64])
@example(b"x" * 3000 + b"\r\nNOOP\r\n", [], "default", True, [3001])
def test_cuts_change_nothing(
    octets: bytes, script: list[tuple[int, bool]], profile: str, patient: bool, places: list[int]
) -> None:
    config = configuration(profile, patient)
    whole = drive(config, script, [octets])
    assert drive(config, script, cut(octets, places)) == whole
    assert drive(config, script, [octets[index : index + 1] for index in range(len(octets))]) == whole


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=200), max_size=10), PROFILE)
def test_noise(pieces: list[bytes], profile: str) -> None:
    said, _, stored = drive(configuration(profile, False), [], pieces)
    assert all(REPLY_LINE.fullmatch(line) for line in said.splitlines(keepends=True))
    assert stored == []


def test_the_generator_gets_deep() -> None:
    """A fuzzer that never comes to the end of a message would show nothing."""
    octets = ENVELOPE + b"DATA\r\nhi\r\n.\r\n" + ENVELOPE + b"BDAT 2\r\nabRSET\r\n" + ENVELOPE + b"BDAT 2 LAST\r\nab"
    said, asked, stored = drive(configuration("default", False), [(0, True)], [octets])
    assert stored == [b"hi\r\n", b"ab"]
    assert "reset rset" in asked
    assert said.count(b"\r\n250 ") + said.startswith(b"250 ") >= 10
