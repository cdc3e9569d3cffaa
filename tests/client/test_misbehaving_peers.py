"""
Peers that misbehave in every phase: what the client makes of each.

The rows say who does what and when; each ends in the error that the documents
promise, with its phase, and nobody is left waiting. What must never happen is
the same for all rows: see :meth:`Dialog.end`.
"""

from __future__ import annotations

import gc
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from smtpfw.client.protocol import LMTPClientProtocol, SMTPClientProtocol
from smtpfw.client.sending import send_mail
from smtpfw.errors import (
    BrokenPeer,
    ClientError,
    ConnectionFailed,
    LocalProtocolError,
    Refused,
    TimedOut,
    TLSFailed,
    UnknownOutcome,
)
from smtpfw.sasl import CramMD5, Login, Plain
from smtpfw.testing import (
    MESSAGE,
    MemoryEndpoint,
    ScriptedPeer,
    abort,
    close,
    endless,
    joined,
    octets,
    silence,
    starttls,
)
from smtpfw.tls import client_context, server_context
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import SendResult
from tests.certificates import Authority

BODY = b"Subject: x\r\n\r\nhello\r\n"
#: More than is written at once, and more than a transport takes.
BIG = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 20_000
CONFIG = ClientConfig(hello_name="me.test")
SECRET = "open sesame"


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> Iterator[None]:
    """A collection for each test is quick if it looks at the objects of that test only."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_in_the_log() -> Iterator[None]:
    """No traceback, and no Deferred that failed and that nobody could hear of."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None:
            found.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert found == []


class Dialog:
    """
    A client and a peer that plays a script.

    :ivar greeting: what came of the greeting; None while it is open.
    :ivar outcomes: likewise for each thing that was asked, in the order of asking.
    """

    def __init__(self, script: list[Any], *, lmtp: bool = False, chunk: int | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.peer = ScriptedPeer(script)
        self.outcomes: list[Any] = []
        self.greeting: Any = None
        make = LMTPClientProtocol if lmtp else SMTPClientProtocol
        settings.setdefault("config", CONFIG)
        self.client = make(peer_name="mx.test", clock=self.clock, **settings)
        self.client.greeting.addBoth(self._greeted)
        self.link = joined(self.client, self.peer, chunk=chunk)

    def _greeted(self, outcome: Any) -> None:
        self.greeting = outcome.value if isinstance(outcome, Failure) else outcome

    def ask(self, deferred: Deferred[Any]) -> None:
        index = len(self.outcomes)
        self.outcomes.append(None)

        def told(outcome: Any) -> None:
            assert self.outcomes[index] is None, "told twice"
            self.outcomes[index] = outcome.value if isinstance(outcome, Failure) else outcome or "done"

        deferred.addBoth(told)
        self.link.flow()

    def send(self, body: Any = BODY, recipients: tuple[str, ...] = ("c@d.test",), **options: Any) -> Any:
        self.ask(self.client.send_mail("a@b.test", list(recipients), body, **options))
        return self.outcomes[-1]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.link.flow()

    def error(self, expected: type[ClientError], phase: str, *, temporary: bool = True, index: int = -1) -> ClientError:
        """The error that came of something, which has to be of exactly that kind."""
        if phase in HELLO and index == -1:
            index = 0
        error = self.greeting if phase == "GREETING" else self.outcomes[index]
        assert type(error) is expected, repr(error)
        assert (error.phase, error.temporary, error.peer) == (phase, temporary, "mx.test"), repr(error)
        assert "mx.test" in str(error) and str(error).isprintable()
        return error

    def end(self) -> None:
        """
        What holds however a dialog has ended, once the connection is over.

        Everybody has an answer, no timer is left, whoever asks for more is told so at once and not a word of it goes
        out, and no message was sent twice.
        """
        assert None not in [self.greeting, *self.outcomes]
        assert self.link.client_transport.closed
        assert self.clock.getDelayedCalls() == []
        said = self.link.said_by_client
        self.send()
        assert isinstance(self.outcomes[-1], ConnectionFailed), repr(self.outcomes[-1])
        self.ask(self.client.noop())
        assert isinstance(self.outcomes[-1], ConnectionFailed), repr(self.outcomes[-1])
        assert self.link.said_by_client == said
        heard = self.peer.in_clear + self.peer.in_tls
        assert heard.count(b"MAIL FROM") <= 1
        assert heard.count(b"Subject:") <= 1
        self.peer.assert_played()


GREETING = (None, b"220 mx.test ESMTP\r\n")
HELLO = ("EHLO", "HELO", "LHLO")

#: What a good peer does, for each way to send a message.
GOOD: dict[str, dict[str, tuple[Any, ...]]] = {
    "one by one": {
        "GREETING": GREETING,
        "EHLO": ("EHLO me.test", b"250 mx.test\r\n"),
        "MAIL": ("MAIL FROM:<a@b.test>", b"250 OK\r\n"),
        "RCPT": ("RCPT TO:<c@d.test>", b"250 OK\r\n"),
        "DATA": ("DATA", b"354 go on\r\n"),
        "END": (MESSAGE, b"250 queued\r\n"),
    },
    "pipelined": {
        "GREETING": GREETING,
        "EHLO": ("EHLO me.test", b"250-mx.test\r\n250 PIPELINING\r\n"),
        "MAIL": ("MAIL FROM:<a@b.test>", b"250 OK\r\n"),
        "RCPT": ("RCPT TO:<c@d.test>", b"250 OK\r\n"),
        "DATA": ("DATA", b"354 go on\r\n"),
        "END": (MESSAGE, b"250 queued\r\n"),
    },
    "in chunks": {
        "GREETING": GREETING,
        "EHLO": ("EHLO me.test", b"250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n"),
        "MAIL": ("MAIL FROM:<a@b.test>", b"250 OK\r\n"),
        "RCPT": ("RCPT TO:<c@d.test>", b"250 OK\r\n"),
        "END": (re.compile(rb"BDAT \d+ LAST"), b"250 queued\r\n"),
    },
    "by LMTP": {
        "GREETING": GREETING,
        "LHLO": ("LHLO me.test", b"250-mx.test\r\n250 PIPELINING\r\n"),
        "MAIL": ("MAIL FROM:<a@b.test>", b"250 OK\r\n"),
        "RCPT": ("RCPT TO:<c@d.test>", b"250 OK\r\n"),
        "DATA": ("DATA", b"354 go on\r\n"),
        "END": (MESSAGE, b"250 stored\r\n"),
    },
}

#: Each way, each phase of it.
PLACES = [(way, phase) for way, phases in GOOD.items() for phase in phases]


def script_with(way: str, phase: str, *actions: Any) -> list[Any]:
    """A good peer's script up to a phase; what it does there instead of answering."""
    steps: list[Any] = []
    for name, step in GOOD[way].items():
        if name == phase:
            return [*steps, (step[0], *actions)]
        steps.append(step)
    raise AssertionError(phase)


def play(way: str, phase: str, *actions: Any, chunk: int | None = None) -> Dialog:
    """Say hello, and send a message."""
    dialog = Dialog(script_with(way, phase, *actions), lmtp=way == "by LMTP", chunk=chunk)
    dialog.ask(dialog.client.hello())
    dialog.send()
    return dialog


@pytest.mark.parametrize("way", GOOD)
@pytest.mark.parametrize("chunk", [None, 1])
def test_a_peer_that_behaves(way: str, chunk: int | None) -> None:
    """Without it, none of what follows would prove anything."""
    dialog = Dialog(list(GOOD[way].values()), lmtp=way == "by LMTP", chunk=chunk)
    result = dialog.send()
    assert isinstance(result, SendResult), repr(result)
    assert [one.accepted for one in result.recipients] == [True]
    assert dialog.peer.messages == [BODY]
    dialog.client.close()
    dialog.link.flow()
    assert dialog.clock.getDelayedCalls() == []
    dialog.peer.assert_played()


# -- what ends the connection wherever it happens ------------------------------------

#: What the peer does, and the error that is; behind the end of a message nobody knows what became of it.
ANYWHERE: list[tuple[str, type[ClientError], tuple[Any, ...]]] = [
    ("close", ConnectionFailed, (close,)),
    ("reset", ConnectionFailed, (abort,)),
    ("half a code and close", ConnectionFailed, (b"25", close)),
    ("half a line and close", ConnectionFailed, (b"250 OK", close)),
    ("half a line end and close", ConnectionFailed, (b"250 OK\r", close)),
    ("half a reply and close", ConnectionFailed, (b"250-OK\r\n", close)),
    ("half a reply and reset", ConnectionFailed, (b"250-OK\r\n", abort)),
    ("endless reply", BrokenPeer, (endless(b"250-more\r\n"),)),
    ("endless reply of a refusal", BrokenPeer, (endless(b"550-no\r\n"),)),
    ("endless line", BrokenPeer, (endless(b"x"),)),
    ("endless line of a reply", BrokenPeer, (b"250 ", endless(b"x"))),
    ("endless empty lines", BrokenPeer, (endless(b"\r\n"),)),
    ("code changes", BrokenPeer, (b"250-OK\r\n251 OK\r\n", silence)),
    ("code changes class", BrokenPeer, (b"250-OK\r\n550 no\r\n", silence)),
    ("code changes to 421", BrokenPeer, (b"250-OK\r\n421 no\r\n", silence)),
    ("no reply at all", BrokenPeer, (b"hello\r\n", silence)),
    ("HTTP", BrokenPeer, (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", close)),
    ("SSH", BrokenPeer, (b"SSH-2.0-OpenSSH_9.9\r\n", silence)),
    ("TLS", BrokenPeer, (b"\x15\x03\x01\x00\x02\x02\x46\r\n", silence)),
    ("NUL", BrokenPeer, (b"\x00\r\n", silence)),
    ("8 bit", BrokenPeer, (b"\xff\xfe\xff\r\n", silence)),
    ("digits of another script", BrokenPeer, ("٢٥٠ OK\r\n".encode(), silence)),
    ("empty line", BrokenPeer, (b"\r\n", silence)),
    ("leading space", BrokenPeer, (b" 250 OK\r\n", silence)),
    ("two digits", BrokenPeer, (b"25 OK\r\n", silence)),
    ("four digits", BrokenPeer, (b"2500 OK\r\n", silence)),
    ("code below", BrokenPeer, (b"199 OK\r\n", silence)),
    ("code above", BrokenPeer, (b"600 OK\r\n", silence)),
    ("code of HTTP's kind", BrokenPeer, (b"100-continue\r\n", silence)),
    ("sign for a code", BrokenPeer, (b"+25 OK\r\n", silence)),
    ("no separator", BrokenPeer, (b"250OK\r\n", silence)),
    ("bare LF", BrokenPeer, (b"250 OK\n250 OK\r\n", silence)),
    ("bare CR", BrokenPeer, (b"250 OK\r250 OK\r\n", silence)),
    ("354 where it is not due", BrokenPeer, (b"354 go on\r\n", silence)),
    ("334 where it is not due", BrokenPeer, (b"334 \r\n", silence)),
]


def makes_sense(way: str, phase: str, actions: tuple[Any, ...]) -> bool:
    """Whether that is wrong there. A reset overtakes the replies to what was sent ahead, so it comes in no step."""
    if phase == "DATA" and actions[0] == b"354 go on\r\n":
        return False
    return way == "one by one" or phase not in ("RCPT", "DATA") or abort not in actions


@pytest.mark.parametrize(
    ("way", "phase", "expected", "actions"),
    [
        pytest.param(way, phase, expected, actions, id=f"{way}-{phase}-{name}")
        for way, phase in PLACES
        for name, expected, actions in ANYWHERE
        if makes_sense(way, phase, actions)
    ],
)
def test_anywhere(way: str, phase: str, expected: type[ClientError], actions: tuple[Any, ...]) -> None:
    dialog = play(way, phase, *actions)
    dialog.error(UnknownOutcome if phase == "END" else expected, phase)
    if phase != "END":
        assert b"Subject:" not in dialog.peer.in_clear
    dialog.end()


@pytest.mark.parametrize(("way", "phase"), PLACES)
def test_anywhere_octet_by_octet(way: str, phase: str) -> None:
    for name, expected, actions in ANYWHERE:
        if name.startswith("endless") or not makes_sense(way, phase, actions) or (abort in actions and phase != "END"):
            continue
        dialog = play(way, phase, *actions, chunk=1)
        dialog.error(UnknownOutcome if phase == "END" else expected, phase)
        dialog.end()


# -- replies of the wrong kind -------------------------------------------------------

#: Where, what, and what that is: an error that ends the connection.
WRONG: list[tuple[str, bytes, type[ClientError], bool]] = [
    ("GREETING", b"250 mx.test\r\n", BrokenPeer, True),
    ("GREETING", b"221 bye\r\n", BrokenPeer, True),
    ("GREETING", b"554 5.7.1 go away\r\n", Refused, False),
    ("GREETING", b"450 4.7.1 later\r\n", Refused, True),
    ("EHLO", b"220 mx.test\r\n", BrokenPeer, True),
    ("EHLO", b"221 bye\r\n", BrokenPeer, True),
    ("DATA", b"250 OK\r\n", BrokenPeer, True),
    ("DATA", b"250 queued as 1234\r\n", BrokenPeer, True),
    ("DATA", b"220 OK\r\n", BrokenPeer, True),
]


@pytest.mark.parametrize("way", ["one by one", "pipelined"])
@pytest.mark.parametrize(("phase", "reply", "expected", "temporary"), WRONG)
def test_wrong_codes(way: str, phase: str, reply: bytes, expected: type[ClientError], temporary: bool) -> None:
    dialog = play(way, phase, reply, silence)
    dialog.error(expected, phase, temporary=temporary)
    assert b"Subject:" not in dialog.peer.in_clear
    dialog.end()


@pytest.mark.parametrize(("way", "phase"), PLACES)
@pytest.mark.parametrize("behind", [(close,), (silence,), (b"250 OK\r\n", silence)], ids=["close", "stay", "go on"])
def test_421_at_any_point(way: str, phase: str, behind: tuple[Any, ...]) -> None:
    dialog = play(way, phase, b"421 4.3.2 shutting down\r\n", *behind)
    error = dialog.error(Refused, phase)
    assert isinstance(error, Refused)
    assert (error.code, str(error.enhanced_code)) == (421, "4.3.2")
    dialog.end()


def test_nothing_is_said_behind_421() -> None:
    steps = list(GOOD["one by one"].values())
    dialog = Dialog([*steps[:3], ("RCPT", b"421 4.3.2 shutting down\r\n", silence)])
    dialog.send(recipients=("c@d.test", "e@d.test"))
    dialog.error(Refused, "RCPT")
    assert dialog.peer.in_clear.endswith(b"RCPT TO:<c@d.test>\r\n")
    dialog.end()


def test_421_while_nothing_is_asked() -> None:
    script = [*GOOD["one by one"].values(), b"421 4.4.2 idle for too long\r\n", close]
    dialog = Dialog(script)
    assert isinstance(dialog.send(), SendResult)
    assert dialog.client.wire.is_over
    dialog.end()


def test_an_ehlo_that_is_refused_twice() -> None:
    for code in (500, 501, 502, 504, 550):
        dialog = Dialog([GREETING, ("EHLO", b"%d no\r\n" % code), ("HELO", b"554 no\r\n", silence)])
        dialog.send()
        dialog.error(Refused, "HELO", temporary=False)
        assert b"MAIL" not in dialog.peer.in_clear


def test_an_lhlo_that_is_refused_is_not_tried_as_helo() -> None:
    dialog = Dialog([GREETING, ("LHLO", b"500 no\r\n", silence)], lmtp=True)
    dialog.send()
    dialog.error(Refused, "LHLO", temporary=False)
    assert dialog.peer.in_clear == b"LHLO me.test\r\n"


#: Refusals that leave the connection as it was; the next message goes through.
REFUSALS: list[tuple[str, bytes, bool]] = [
    ("MAIL", b"451 4.3.0 later\r\n", True),
    ("MAIL", b"550 5.7.1 no\r\n", False),
    ("MAIL", b"452-4.3.1 no\r\n452-4.3.1 room\r\n452 4.3.1 here\r\n", True),
    ("RCPT", b"450 4.2.0 later\r\n", True),
    ("RCPT", b"550 5.1.1 no\r\n", False),
    ("RCPT", b"552 5.5.3 too many\r\n", True),
    ("DATA", b"451 4.3.0 later\r\n", True),
    ("DATA", b"554 5.5.1 no\r\n", False),
    ("END", b"452 4.3.1 full\r\n", True),
    ("END", b"554 5.6.0 no\r\n", False),
]


@pytest.mark.parametrize("way", ["one by one", "pipelined", "by LMTP"])
@pytest.mark.parametrize(("phase", "reply", "temporary"), REFUSALS)
def test_refusals_leave_the_connection(way: str, phase: str, reply: bytes, temporary: bool) -> None:
    script = script_with(way, phase, reply)
    names = list(GOOD[way])
    if way != "one by one":
        # What was sent ahead is answered, too.
        for name in names[names.index(phase) + 1 :]:
            if name != "END":
                script.append((GOOD[way][name][0], b"503 5.5.1 no\r\n"))
    again = [GOOD[way][name] for name in names[2:]]
    reset = re.compile(rb"RSET|MAIL")
    first = again.pop(0)

    def answer(connection: Any) -> None:
        if connection.commands[-1] == b"RSET":
            connection.transport.write(b"250 reset\r\n")
        else:
            connection.commands.pop()
            connection._buffer = b"MAIL FROM:<a@b.test>\r\n" + connection._buffer

    dialog = Dialog([*script, (reset, answer), first, *again], lmtp=way == "by LMTP")
    dialog.send()
    dialog.error(Refused, phase, temporary=temporary)
    result = dialog.send()
    assert isinstance(result, SendResult), repr(result)
    dialog.peer.assert_played()
    assert dialog.peer.messages[-1:] == [BODY]


# -- more replies than questions ------------------------------------------------------

EXTRA: list[tuple[str, str, tuple[Any, ...]]] = [
    (way, phase, actions)
    for way, phases in GOOD.items()
    for phase, step in phases.items()
    # What was sent ahead is answered in one go, and nobody can tell an answer too many from the next.
    if phase != "END" and (way == "one by one" or phase in ("GREETING", *HELLO))
    for actions in ((step[1] + b"250 extra\r\n", silence), (step[1] + b"250 one\r\n250 two\r\n250 three\r\n", silence))
]


@pytest.mark.parametrize(("way", "phase", "actions"), EXTRA)
def test_extra_replies_are_the_answer_to_nothing(way: str, phase: str, actions: tuple[Any, ...]) -> None:
    """Whoever takes them for the answer to what comes next believes that a message has arrived that nobody has read."""
    dialog = play(way, phase, *actions)
    dialog.advance(3600)
    error = dialog.outcomes[-1]
    assert isinstance(error, ConnectionFailed), repr(error)
    assert isinstance(error, BrokenPeer) or isinstance(error.__cause__, BrokenPeer), repr(error)
    assert b"\r\n.\r\n" not in dialog.peer.in_clear
    dialog.end()


@pytest.mark.parametrize("way", ["one by one", "in chunks", "by LMTP"])
@pytest.mark.parametrize("apart", [False, True])
def test_extra_replies_behind_a_message_are_not_the_answer_to_the_next(way: str, apart: bool) -> None:
    reply = GOOD[way]["END"][1]
    actions = ([reply, b"250 extra\r\n"] if apart else reply + b"250 extra\r\n", silence)
    dialog = play(way, "END", *actions)
    assert isinstance(dialog.outcomes[-1], SendResult)
    assert dialog.client.wire.is_over
    dialog.end()


def test_a_message_that_is_answered_before_it_was_sent() -> None:
    """354 and 250 in one segment: the second can't be the answer to what nobody has read."""
    for body in (BODY, BIG):
        dialog = Dialog(script_with("pipelined", "DATA", b"354 go on\r\n250 queued\r\n", silence))
        dialog.send(body)
        dialog.error(BrokenPeer, "BODY")
        dialog.end()


# -- silence ---------------------------------------------------------------------------

#: RFC 5321 section 4.5.3.2.
SECONDS = {
    "GREETING": 300,
    "EHLO": 300,
    "LHLO": 300,
    "MAIL": 300,
    "RCPT": 300,
    "DATA": 120,
    "END": 600,
}


@pytest.mark.parametrize(("way", "phase"), PLACES)
@pytest.mark.parametrize("said", [b"", b"2", b"250-OK\r\n"])
def test_silence(way: str, phase: str, said: bytes) -> None:
    dialog = play(way, phase, said, silence)
    dialog.advance(SECONDS[phase] - 1)
    assert dialog.outcomes[-1] is None
    dialog.advance(1)
    dialog.error(UnknownOutcome if phase == "END" else TimedOut, phase)
    dialog.end()


@pytest.mark.parametrize(("way", "phase"), PLACES)
def test_a_reply_in_drops(way: str, phase: str) -> None:
    """An octet now and then is no answer."""
    dialog = play(way, phase, silence)
    limit = SECONDS[phase]
    for octet in b"250-" + b"x" * 6:
        dialog.advance(limit - 1)
        dialog.peer.connections[0].transport.write(bytes([octet]))
        dialog.link.flow()
    dialog.error(UnknownOutcome if phase == "END" else TimedOut, phase)
    dialog.end()


def test_silence_while_nothing_is_asked_is_none() -> None:
    dialog = Dialog(list(GOOD["pipelined"].values()))
    dialog.send()
    dialog.advance(24 * 3600)
    assert not dialog.client.wire.is_over
    assert dialog.clock.getDelayedCalls() == []


# -- in the middle of a message ----------------------------------------------------------

BODY_ROWS: list[tuple[str, type[ClientError], bool, tuple[Any, ...]]] = [
    ("close", ConnectionFailed, True, (close,)),
    ("reset", ConnectionFailed, True, (abort,)),
    ("half a reply and close", ConnectionFailed, True, (b"55", close)),
    ("421", Refused, True, (b"421 4.3.2 shutting down\r\n", silence)),
    ("421 and close", Refused, True, (b"421 4.3.2 shutting down\r\n", close)),
    ("552", Refused, False, (b"552 5.3.4 too large\r\n", silence)),
    ("250 too early", BrokenPeer, True, (b"250 queued\r\n", silence)),
    ("354 again", BrokenPeer, True, (b"354 go on\r\n", silence)),
    ("garbage", BrokenPeer, True, (b"hello\r\n", silence)),
    ("endless reply", BrokenPeer, True, (endless(b"250-more\r\n"),)),
    ("endless line", BrokenPeer, True, (endless(b"x"),)),
]


def stop_reading(connection: Any) -> None:
    connection.transport.pauseProducing()


@pytest.mark.parametrize("way", ["one by one", "pipelined", "by LMTP"])
@pytest.mark.parametrize(("expected", "temporary", "actions"), [pytest.param(*row[1:], id=row[0]) for row in BODY_ROWS])
def test_in_the_middle_of_a_message(
    way: str, expected: type[ClientError], temporary: bool, actions: tuple[Any, ...]
) -> None:
    steps = list(GOOD[way].values())[:-1]
    # It takes a little, and then no more: so the client has not said all of it when it hears of it.
    dialog = Dialog([*steps, (octets(1000), stop_reading, *actions)], lmtp=way == "by LMTP")
    dialog.send(BIG)
    dialog.error(expected, "BODY", temporary=temporary)
    connection = dialog.peer.connections[0]
    connection.transport.resumeProducing()
    dialog.link.flow()
    assert b"\r\n.\r\n" not in dialog.peer.in_clear
    dialog.end()


def test_a_peer_that_reads_no_more() -> None:
    for way in ("one by one", "in chunks"):
        steps = list(GOOD[way].values())
        last = steps.pop()
        dialog = Dialog([*steps, (octets(1000), stop_reading, silence)])
        assert last
        dialog.send(BIG)
        dialog.advance(179)
        assert dialog.outcomes == [None]
        dialog.advance(1)
        dialog.error(TimedOut, "BODY")
        dialog.end()


def test_a_source_that_gives_nothing_is_not_the_peers_fault() -> None:
    more: Deferred[bytes] = Deferred()

    async def slow() -> Any:
        yield b"Subject: x\r\n\r\n"
        yield await more

    dialog = Dialog(list(GOOD["one by one"].values()))
    dialog.send(slow())
    dialog.advance(24 * 3600)
    assert dialog.outcomes == [None]
    more.callback(b"hello\r\n")
    dialog.link.flow()
    assert isinstance(dialog.outcomes[0], SendResult)
    assert dialog.peer.messages == [BODY]


def test_a_source_that_breaks_off_sends_no_end() -> None:
    async def broken() -> Any:
        yield b"Subject: x\r\n\r\n"
        raise ZeroDivisionError

    for way in ("one by one", "pipelined", "by LMTP"):
        steps = list(GOOD[way].values())[:-1]
        dialog = Dialog([*steps, silence], lmtp=way == "by LMTP")
        dialog.send(broken())
        assert isinstance(dialog.outcomes[0], ZeroDivisionError)
        assert b"\r\n.\r\n" not in dialog.peer.in_clear
        dialog.end()


#: What a peer says to a first chunk that was not the last.
CHUNK_ROWS: list[tuple[str, type[ClientError], bool, tuple[Any, ...]]] = [
    ("close", ConnectionFailed, True, (close,)),
    ("354", BrokenPeer, True, (b"354 go on\r\n", silence)),
    ("garbage", BrokenPeer, True, (b"hello\r\n", silence)),
    ("421", Refused, True, (b"421 4.3.2 shutting down\r\n", silence)),
]


@pytest.mark.parametrize(
    ("expected", "temporary", "actions"), [pytest.param(*row[1:], id=row[0]) for row in CHUNK_ROWS]
)
def test_between_chunks(expected: type[ClientError], temporary: bool, actions: tuple[Any, ...]) -> None:
    steps = list(GOOD["in chunks"].values())[:-1]
    steps[1] = ("EHLO", b"250-mx.test\r\n250 CHUNKING\r\n")
    dialog = Dialog([*steps, (re.compile(rb"BDAT \d+$"), *actions)])
    dialog.send(BIG)
    dialog.error(expected, "BODY", temporary=temporary)
    assert b"LAST" not in dialog.peer.in_clear
    dialog.end()


# -- several recipients ---------------------------------------------------------------------

LMTP_ROWS: list[tuple[str, tuple[Any, ...], list[Any]]] = [
    ("close before all are answered", (b"250 stored\r\n", close), [None, UnknownOutcome, UnknownOutcome]),
    ("half a reply", (b"250 stored\r\n550 5.1", close), [None, UnknownOutcome, UnknownOutcome]),
    ("421 for the second", (b"250 stored\r\n421 bye\r\n", close), [None, Refused, UnknownOutcome]),
    ("354 for the second", (b"250 stored\r\n354 go on\r\n", silence), [None, UnknownOutcome, UnknownOutcome]),
    ("garbage for the second", (b"250 stored\r\nhello\r\n", silence), [None, UnknownOutcome, UnknownOutcome]),
    ("one refused, close", (b"250 stored\r\n550 5.2.2 full\r\n", close), [None, Refused, UnknownOutcome]),
    ("one too many", (b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n", silence), [None, None, Refused]),
    ("endless reply for the second", (b"250 a\r\n", endless(b"250-x\r\n")), [None, UnknownOutcome, UnknownOutcome]),
]


@pytest.mark.parametrize(("actions", "expected"), [pytest.param(*row[1:], id=row[0]) for row in LMTP_ROWS])
def test_lmtp_replies(actions: tuple[Any, ...], expected: list[Any]) -> None:
    recipients = ("c@d.test", "e@d.test", "f@d.test")
    steps = [*GOOD["by LMTP"].values()]
    rcpts = [(f"RCPT TO:<{address}>", b"250 OK\r\n") for address in recipients]
    dialog = Dialog([*steps[:3], *rcpts, steps[4], (MESSAGE, *actions)], lmtp=True)
    result = dialog.send(recipients=recipients)
    assert isinstance(result, SendResult), repr(result)
    assert [one.error and type(one.error) for one in result.recipients] == expected
    assert all(one.error.phase == "END" for one in result.refused)  # type: ignore[union-attr]
    dialog.end()


def test_lmtp_replies_that_do_not_come() -> None:
    steps = [*GOOD["by LMTP"].values()]
    dialog = Dialog([*steps[:-1], (MESSAGE, silence)], lmtp=True)
    dialog.send()
    dialog.advance(600)
    dialog.error(UnknownOutcome, "END")
    dialog.end()


def test_all_recipients_refused_and_354_all_the_same() -> None:
    """RFC 2920 section 3.1: then only the dot is sent, and whatever is said to it, nobody got the message."""
    for reply in (b"250 queued\r\n", b"554 no recipients\r\n"):
        steps = list(GOOD["pipelined"].values())
        dialog = Dialog([*steps[:3], ("RCPT", b"550 no\r\n"), steps[4], (MESSAGE, reply, silence)])
        dialog.send()
        dialog.error(Refused, "RCPT", temporary=False)
        assert dialog.peer.messages == [b""]
        dialog.client.close()
        dialog.link.flow()
        dialog.end()


def test_mail_refused_and_the_rest_accepted() -> None:
    """A peer that refuses the sender and takes the message all the same."""
    steps = list(GOOD["pipelined"].values())
    dialog = Dialog([*steps[:2], ("MAIL", b"550 no\r\n"), *steps[3:5], silence])
    dialog.send()
    error = dialog.outcomes[0]
    assert isinstance(error, (Refused, BrokenPeer)), repr(error)
    assert b"Subject:" not in dialog.peer.in_clear
    assert None not in dialog.outcomes


# -- QUIT ---------------------------------------------------------------------------------------

QUIT_ROWS: list[tuple[str, tuple[Any, ...]]] = [
    ("close", (close,)),
    ("reset", (abort,)),
    ("250", (b"250 OK\r\n", silence)),
    ("354", (b"354 go on\r\n", silence)),
    ("421", (b"421 bye\r\n", silence)),
    ("garbage", (b"hello\r\n", silence)),
    ("endless reply", (endless(b"221-bye\r\n"),)),
    ("221 and no close", (b"221 bye\r\n", silence)),
    ("silence", (silence,)),
]


@pytest.mark.parametrize("actions", [pytest.param(row[1], id=row[0]) for row in QUIT_ROWS])
def test_quit(actions: tuple[Any, ...]) -> None:
    """However it is answered, the connection is over, and a message that was delivered stays delivered."""
    dialog = Dialog([*GOOD["one by one"].values(), ("QUIT", *actions)])
    assert isinstance(dialog.send(), SendResult)
    dialog.ask(dialog.client.quit())
    dialog.advance(CONFIG.quit_timeout)
    dialog.advance(60)
    assert not isinstance(dialog.outcomes[1], UnknownOutcome)
    if isinstance(dialog.outcomes[1], ClientError):
        assert dialog.outcomes[1].phase == "QUIT"
    dialog.end()


# -- TLS --------------------------------------------------------------------------------------


class Certificates:
    """
    :ivar ca: the authority, as a file.
    :ivar good, other: contexts of servers, for mx.test and for another name.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority("the authority of these tests")
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(authority.pem)
        self.good, self.other, self.expired = (
            self._context(folder / f"{name}.pem", authority, name, days)
            for name, days in (("mx.test", 30), ("other.test", 30), ("mx.test", -1))
        )

    @staticmethod
    def _context(path: Path, authority: Authority, name: str, days: int) -> Any:
        path.write_bytes(authority.issue(names=[x509.DNSName(name)], days=days, usage=ExtendedKeyUsageOID.SERVER_AUTH))
        return server_context(str(path))

    def trusted(self) -> Any:
        return client_context("mx.test", verify=True, ca=self.ca)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


OFFER = ("EHLO me.test", b"250-mx.test\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250 STARTTLS\r\n")

#: What the peer does at STARTTLS, the error, its phase, and whether the connection is over by that.
TLS_ROWS: list[tuple[str, type[ClientError], str, bool, Any]] = [
    ("refused for now", Refused, "STARTTLS", False, lambda c: (b"454 4.7.0 not now\r\n", silence)),
    ("refused", Refused, "STARTTLS", False, lambda c: (b"502 5.5.1 no\r\n", silence)),
    ("421", Refused, "STARTTLS", True, lambda c: (b"421 4.3.2 bye\r\n", close)),
    ("250", TLSFailed, "STARTTLS", True, lambda c: (b"250 OK\r\n", silence)),
    ("354", TLSFailed, "STARTTLS", True, lambda c: (b"354 go on\r\n", silence)),
    ("close", ConnectionFailed, "STARTTLS", True, lambda c: (close,)),
    ("half a reply", ConnectionFailed, "STARTTLS", True, lambda c: (b"220-go\r\n", close)),
    ("garbage for a reply", BrokenPeer, "STARTTLS", True, lambda c: (b"hello\r\n", silence)),
    ("endless reply", BrokenPeer, "STARTTLS", True, lambda c: (endless(b"220-go\r\n"),)),
    ("reply behind", TLSFailed, "STARTTLS", True, lambda c: (starttls(c.good, behind=b"250 injected\r\n"),)),
    ("an octet behind", TLSFailed, "STARTTLS", True, lambda c: (starttls(c.good, behind=b"2"),)),
    ("TLS record behind", TLSFailed, "STARTTLS", True, lambda c: (starttls(c.good, behind=b"\x16\x03\x01"),)),
    ("another name", TLSFailed, "TLS", True, lambda c: (starttls(c.other),)),
    ("expired", TLSFailed, "TLS", True, lambda c: (starttls(c.expired),)),
    ("close in the handshake", TLSFailed, "TLS", True, lambda c: (b"220 go\r\n", octets_then(close))),
    ("reset in the handshake", TLSFailed, "TLS", True, lambda c: (b"220 go\r\n", octets_then(abort))),
    ("clear words in the handshake", TLSFailed, "TLS", True, lambda c: ([b"220 go\r\n", b"250 injected\r\n"], silence)),
    ("garbage in the handshake", TLSFailed, "TLS", True, lambda c: ([b"220 go\r\n", b"\0" * 100], silence)),
    ("endless garbage", TLSFailed, "TLS", True, lambda c: (b"220 go\r\n", endless(b"\x16\x03\x01\x00\x00"))),
]


def octets_then(action: Any) -> Any:
    """Wait for something of the handshake, and act."""

    def wait(connection: Any) -> None:
        connection._script.append((octets(1), action))

    return wait


@pytest.mark.parametrize(
    ("expected", "phase", "over", "actions"), [pytest.param(*row[1:], id=row[0]) for row in TLS_ROWS]
)
@pytest.mark.parametrize("chunk", [None, 1])
def test_starttls(
    certificates: Certificates,
    expected: type[ClientError],
    phase: str,
    over: bool,
    actions: Any,
    chunk: int | None,
    request: pytest.FixtureRequest,
) -> None:
    """Credentials and a message that were asked for behind it never go out in clear."""
    name = request.node.callspec.id
    if chunk == 1 and ("endless" in name or "record behind" in name):
        # What is cut so is the beginning of a handshake that stalls; that is another test.
        return
    dialog = Dialog([GREETING, OFFER, ("STARTTLS", *actions(certificates))], name="mx.test", chunk=chunk)
    client = dialog.client
    dialog.ask(client.hello())
    for deferred in (
        client.start_tls(certificates.trusted()),
        client.auth(Plain("user", SECRET)),
        client.send_mail("a@b.test", ["c@d.test"], BODY),
    ):
        dialog.ask(deferred)
    if chunk == 1 and "behind" in name:
        # Cut so, it is the beginning of a handshake that fails.
        phase = "TLS"
    dialog.error(expected, phase, index=1, temporary=name.split("-")[-1] != "refused")
    said = dialog.peer.in_clear + dialog.link.said_by_client
    assert b"AUTH" not in said
    assert b"MAIL" not in said and b"Subject" not in said
    assert all(isinstance(outcome, (ClientError, LocalProtocolError)) for outcome in dialog.outcomes[2:])
    if over:
        dialog.end()


def test_a_handshake_that_stalls(certificates: Certificates) -> None:
    dialog = Dialog([GREETING, OFFER, ("STARTTLS", b"220 go\r\n", silence)], name="mx.test")
    dialog.ask(dialog.client.start_tls(certificates.trusted()))
    dialog.advance(29)
    assert dialog.outcomes == [None]
    dialog.advance(1)
    assert isinstance(dialog.outcomes[0], (TLSFailed, TimedOut)), repr(dialog.outcomes[0])
    assert dialog.outcomes[0].phase == "TLS"
    dialog.end()


def test_a_peer_that_does_not_offer_it(certificates: Certificates) -> None:
    dialog = Dialog([GREETING, ("EHLO", b"250 mx.test\r\n"), silence], name="mx.test")
    dialog.ask(dialog.client.start_tls(certificates.trusted()))
    dialog.error(TLSFailed, "STARTTLS")
    assert dialog.peer.in_clear == b"EHLO me.test\r\n"


def test_what_was_offered_in_clear_is_forgotten(certificates: Certificates) -> None:
    script = [
        GREETING,
        ("EHLO", b"250-mx.test\r\n250-STARTTLS\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n"),
        ("STARTTLS", starttls(certificates.good)),
        ("EHLO", b"250 mx.test\r\n"),
        *list(GOOD["one by one"].values())[2:],
    ]
    dialog = Dialog(script, name="mx.test")
    dialog.ask(dialog.client.start_tls(certificates.trusted()))
    dialog.ask(dialog.client.auth(Plain("user", SECRET)))
    assert isinstance(dialog.outcomes[1], LocalProtocolError)
    assert isinstance(dialog.send(), SendResult)
    dialog.peer.assert_played()
    assert dialog.peer.in_clear == b"EHLO me.test\r\nSTARTTLS\r\n"


def test_a_close_within_tls_is_no_better_than_one_in_clear(certificates: Certificates) -> None:
    for phase, action, expected in (
        ("EHLO", close, ConnectionFailed),
        ("MAIL", abort, ConnectionFailed),
        ("END", close, UnknownOutcome),
        ("END", abort, UnknownOutcome),
    ):
        behind = script_with("one by one", phase, action)[1:]
        script = [GREETING, OFFER, ("STARTTLS", starttls(certificates.good)), *behind]
        dialog = Dialog(script, name="mx.test")
        dialog.ask(dialog.client.start_tls(certificates.trusted()))
        dialog.ask(dialog.client.hello())
        assert not isinstance(dialog.outcomes[0], Exception)
        dialog.send()
        dialog.error(expected, phase, index=1 if phase == "EHLO" else -1)
        assert b"MAIL" not in dialog.peer.in_clear
        dialog.end()


# -- AUTH -----------------------------------------------------------------------------------------

CHALLENGE = b"334 " + b64encode(b"<1.2@mx.test>") + b"\r\n"
FIRST = ("AUTH CRAM-MD5", CHALLENGE)

#: What a peer does in an exchange of CRAM-MD5, and what that is.
AUTH_ROWS: list[tuple[str, type[ClientError], bool, list[Any]]] = [
    ("close", ConnectionFailed, True, [("AUTH", close)]),
    ("close behind the challenge", ConnectionFailed, True, [FIRST, ("", close)]),
    ("half a reply", ConnectionFailed, True, [FIRST, ("", b"235-OK\r\n", close)]),
    ("535", Refused, False, [FIRST, ("", b"535 5.7.8 wrong\r\n", silence)]),
    ("454", Refused, True, [FIRST, ("", b"454 4.7.0 later\r\n", silence)]),
    ("421", Refused, True, [FIRST, ("", b"421 4.7.0 bye\r\n", close)]),
    ("504 at once", Refused, False, [("AUTH", b"504 5.5.4 no\r\n", silence)]),
    ("accepted without an answer", BrokenPeer, True, [("AUTH", b"235 2.7.0 OK\r\n", silence)]),
    ("250", BrokenPeer, True, [FIRST, ("", b"250 OK\r\n", silence)]),
    ("250 at once", BrokenPeer, True, [("AUTH", b"250 OK\r\n", silence)]),
    ("354", BrokenPeer, True, [FIRST, ("", b"354 go on\r\n", silence)]),
    ("garbage", BrokenPeer, True, [FIRST, ("", b"hello\r\n", silence)]),
    ("endless reply", BrokenPeer, True, [("AUTH", endless(b"334-x\r\n"))]),
    ("endless challenge", BrokenPeer, True, [("AUTH", b"334 ", endless(b"x"))]),
    ("not base64", BrokenPeer, True, [("AUTH", b"334 !!!\r\n"), (re.compile(rb"\*$"), b"501 5.7.0 OK\r\n", silence)]),
    ("not base64, silence", TimedOut, True, [("AUTH", b"334 !!!\r\n"), (re.compile(rb"\*$"), silence)]),
    (
        "* is answered by 235",
        BrokenPeer,
        True,
        [("AUTH", b"334 !!!\r\n"), (re.compile(rb"\*$"), b"235 OK\r\n", silence)],
    ),
    ("* is answered by 334", BrokenPeer, True, [("AUTH", b"334 !!!\r\n"), *[("", CHALLENGE)] * 10, silence]),
    ("one more challenge", BrokenPeer, True, [FIRST, ("", CHALLENGE), (re.compile(rb"\*$"), b"501 OK\r\n", silence)]),
    ("challenges without end", BrokenPeer, True, [FIRST, *[("", CHALLENGE)] * 100, silence]),
]


@pytest.mark.parametrize(("expected", "temporary", "script"), [pytest.param(*row[1:], id=row[0]) for row in AUTH_ROWS])
def test_auth(expected: type[ClientError], temporary: bool, script: list[Any]) -> None:
    """Whoever could not log in sends nothing: what was asked behind it isn't said."""
    dialog = Dialog([GREETING, OFFER, *script], name="mx.test")
    for deferred in (
        dialog.client.auth(CramMD5("user", SECRET)),
        dialog.client.send_mail("a@b.test", ["c@d.test"], BODY),
    ):
        dialog.ask(deferred)
    dialog.advance(300)
    dialog.error(expected, "AUTH", temporary=temporary, index=0)
    assert isinstance(dialog.outcomes[1], ClientError)
    heard = dialog.peer.in_clear
    assert b"MAIL" not in heard
    assert SECRET.encode() not in heard and b64encode(SECRET.encode()) not in heard
    assert SECRET not in "".join(map(repr, dialog.outcomes))
    # A star is an answer to a challenge; anywhere else it would be a command.
    assert heard.count(b"\r\n*\r\n") <= 1
    for connection in dialog.peer.connections:
        # How far it came with its challenges is the client's choice.
        connection.silent = True
    dialog.end()


@pytest.mark.parametrize("mechanism", [Plain, Login])
def test_a_password_does_not_go_out_in_clear(mechanism: Any) -> None:
    dialog = Dialog([GREETING, OFFER, silence], name="mx.test")
    dialog.ask(dialog.client.auth(mechanism("user", SECRET)))
    assert isinstance(dialog.outcomes[0], LocalProtocolError)
    assert dialog.peer.in_clear == b"EHLO me.test\r\n"


def test_a_password_does_not_go_to_an_unverified_peer(certificates: Certificates) -> None:
    for context in (certificates.good, certificates.other):
        script = [GREETING, OFFER, ("STARTTLS", starttls(context)), OFFER, silence]
        dialog = Dialog(script, name="mx.test")
        dialog.ask(dialog.client.start_tls(client_context("mx.test", verify=False)))
        dialog.ask(dialog.client.auth(Plain("user", SECRET)))
        assert isinstance(dialog.outcomes[1], LocalProtocolError), repr(dialog.outcomes[1])
        assert dialog.peer.in_tls == b"EHLO me.test\r\n"
        assert dialog.peer.in_clear == b"EHLO me.test\r\nSTARTTLS\r\n"


# -- what is asked step by step ---------------------------------------------------------------------

#: Which of the things that are asked has to do with a phase.
ASKED = {"EHLO": 0, "MAIL": 1, "RCPT": 2, "DATA": 3, "END": 3}


@pytest.mark.parametrize("phase", ASKED)
def test_anywhere_step_by_step(phase: str) -> None:
    for name, expected, actions in ANYWHERE:
        if name.startswith("endless") or not makes_sense("one by one", phase, actions):
            continue
        dialog = Dialog(script_with("one by one", phase, *actions))
        client = dialog.client
        for deferred in (client.hello(), client.mail("a@b.test"), client.rcpt("c@d.test"), client.data(BODY)):
            dialog.ask(deferred)
        index = ASKED[phase]
        dialog.error(UnknownOutcome if phase == "END" else expected, phase, index=index)
        assert all(isinstance(outcome, Reply) for outcome in dialog.outcomes[:index])
        # The others were not said.
        assert all(type(outcome) is ConnectionFailed for outcome in dialog.outcomes[index + 1 :]), dialog.outcomes
        dialog.end()


def test_steps_asked_at_once_all_hear_of_the_end() -> None:
    """Every Deferred fires, whoever was asked and whoever was not."""
    for way in ("one by one", "pipelined"):
        for action in (close, abort, b"hello\r\n", b"421 bye\r\n"):
            dialog = Dialog(script_with(way, "MAIL", action, silence))
            client = dialog.client
            for deferred in (
                client.mail("a@b.test"),
                client.rcpt("c@d.test"),
                client.data(BODY),
                client.reset(),
                client.noop(),
                client.verify("user"),
                client.command("HELP"),
                client.quit(),
            ):
                dialog.ask(deferred)
            assert all(isinstance(outcome, ClientError) for outcome in dialog.outcomes), dialog.outcomes
            assert b"Subject" not in dialog.peer.in_clear
            dialog.end()


def test_recipients_refused_and_the_message_asked_for_all_the_same() -> None:
    steps = list(GOOD["one by one"].values())
    dialog = Dialog([*steps[:3], ("RCPT", b"550 no\r\n"), silence])
    client = dialog.client
    for deferred in (client.mail("a@b.test"), client.rcpt("c@d.test"), client.data(BODY)):
        dialog.ask(deferred)
    assert isinstance(dialog.outcomes[1], Refused)
    assert isinstance(dialog.outcomes[2], Exception), repr(dialog.outcomes[2])
    assert b"Subject" not in dialog.peer.in_clear


class Source:
    """A push producer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


@pytest.mark.parametrize(("expected", "temporary", "actions"), [pytest.param(*row[1:], id=row[0]) for row in BODY_ROWS])
def test_a_writer_hears_of_it(expected: type[ClientError], temporary: bool, actions: tuple[Any, ...]) -> None:
    steps = list(GOOD["one by one"].values())[:-1]
    dialog = Dialog([*steps, (octets(10), *actions)])
    client = dialog.client
    dialog.ask(client.mail("a@b.test"))
    dialog.ask(client.rcpt("c@d.test"))
    writer, source = client.data(), Source()
    writer.registerProducer(source, True)
    writer.write(BODY[:14])
    dialog.link.flow()
    assert source.told[-1:] == ["stop"]
    dialog.ask(writer.finish())
    dialog.error(expected, "BODY", temporary=temporary)
    assert b"\r\n.\r\n" not in dialog.peer.in_clear
    dialog.end()


def test_nobody_has_to_listen_to_the_greeting() -> None:
    """What went wrong is told to whoever has asked for something; it does not stand in the log besides."""
    for action in (close, b"554 go away\r\n", b"hello\r\n"):
        dialog = Dialog.__new__(Dialog)
        dialog.clock, dialog.peer, dialog.outcomes = Clock(), ScriptedPeer([action, silence]), []
        dialog.greeting = "not listened to"
        dialog.client = SMTPClientProtocol(CONFIG, peer_name="mx.test", clock=dialog.clock)
        dialog.ask_first = dialog.client.noop()
        dialog.link = joined(dialog.client, dialog.peer)
        dialog.ask(dialog.ask_first)
        assert isinstance(dialog.outcomes[0], ConnectionFailed)
        dialog.end()


# -- the one call ---------------------------------------------------------------------------------------


class Call:
    """
    :func:`~smtpfw.client.sending.send_mail`, to a peer that plays a script.

    :ivar outcome: what came of it; None while it is open.
    """

    def __init__(self, *scripts: list[Any], **settings: Any) -> None:
        self.clock = Clock()
        self.peer = ScriptedPeer(*scripts)
        self.endpoint = MemoryEndpoint(self.peer)
        self.outcome: Any = None
        sent = send_mail(self.endpoint, "a@b.test", ["c@d.test"], BODY, config=CONFIG, reactor=self.clock, **settings)
        sent.addBoth(self._told)
        self.flow()

    def _told(self, outcome: Any) -> None:
        self.outcome = outcome.value if isinstance(outcome, Failure) else outcome

    def flow(self) -> None:
        self.endpoint.flow()

    def end(self) -> None:
        """One connection, which is over; one message at most; and nothing left behind."""
        assert self.outcome is not None
        assert [link.client_transport.closed for link in self.endpoint.links] == [True]
        assert self.clock.getDelayedCalls() == []
        heard = self.peer.in_clear + self.peer.in_tls
        assert heard.count(b"MAIL FROM") <= 1 and heard.count(b"Subject:") <= 1
        self.peer.assert_played()


@pytest.mark.parametrize("phase", GOOD["pipelined"])
def test_one_call_is_one_attempt(phase: str) -> None:
    for action, expected in (
        (close, ConnectionFailed),
        (b"hello\r\n", BrokenPeer),
        (b"421 4.3.2 bye\r\n", Refused),
        (silence, TimedOut),
    ):
        call = Call(script_with("pipelined", phase, action, silence))
        if action is silence:
            call.clock.advance(SECONDS[phase])
            call.flow()
        if phase == "END" and expected is not Refused:
            expected = UnknownOutcome
        assert type(call.outcome) is expected, repr(call.outcome)
        assert call.outcome.phase == phase
        call.end()


@pytest.mark.parametrize("actions", [pytest.param(row[1], id=row[0]) for row in QUIT_ROWS])
def test_a_bad_goodbye_changes_nothing(actions: tuple[Any, ...]) -> None:
    call = Call([*GOOD["pipelined"].values(), ("QUIT", *actions)])
    call.clock.advance(CONFIG.quit_timeout)
    call.flow()
    call.clock.advance(60)
    call.flow()
    assert isinstance(call.outcome, SendResult), repr(call.outcome)
    call.end()


#: What is before MAIL when TLS is required and credentials are given; and how that ends.
REQUIRED_ROWS: list[tuple[str, tuple[type[Exception], ...], Any]] = [
    ("not offered", (TLSFailed,), lambda c: [("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"), silence]),
    ("HELO only", (TLSFailed,), lambda c: [("EHLO", b"502 no\r\n"), ("HELO", b"250 mx.test\r\n"), silence]),
    ("refused for now", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", b"454 4.7.0 later\r\n", silence)]),
    ("refused", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", b"502 5.5.1 no\r\n", silence)]),
    ("another code", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", b"250 OK\r\n", silence)]),
    ("close", (ConnectionFailed,), lambda c: [OFFER, ("STARTTLS", close)]),
    ("behind", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", starttls(c.good, behind=b"250-x\r\n"))]),
    ("another name", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", starttls(c.other))]),
    ("expired", (TLSFailed,), lambda c: [OFFER, ("STARTTLS", starttls(c.expired))]),
    (
        "no AUTH within TLS",
        (LocalProtocolError,),
        lambda c: [OFFER, ("STARTTLS", starttls(c.good)), ("EHLO", b"250 mx.test\r\n"), silence],
    ),
    (
        "535",
        (Refused,),
        lambda c: [
            OFFER,
            ("STARTTLS", starttls(c.good)),
            ("EHLO", b"250-mx.test\r\n250 AUTH PLAIN\r\n"),
            ("AUTH PLAIN", b"535 5.7.8 no\r\n", silence),
        ],
    ),
]


@pytest.mark.parametrize(("expected", "steps"), [pytest.param(*row[1:], id=row[0]) for row in REQUIRED_ROWS])
def test_required_never_falls_back(
    certificates: Certificates, expected: tuple[type[Exception], ...], steps: Any
) -> None:
    settings = {"tls": "required", "tls_name": "mx.test", "ca": certificates.ca, "auth": ("user", SECRET)}
    call = Call([GREETING, *steps(certificates)], **settings)
    assert type(call.outcome) in expected, repr(call.outcome)
    assert SECRET not in str(call.outcome)
    for word in (b"AUTH", b"MAIL", b"Subject", b64encode(b"\0user\0" + SECRET.encode())):
        assert word not in call.endpoint.said_by_clients
    assert b"MAIL" not in call.peer.in_tls
    call.end()


def test_opportunistic_goes_on_in_clear_if_tls_is_refused_and_not_if_it_breaks(certificates: Certificates) -> None:
    behind = [*list(GOOD["one by one"].values())[2:], ("QUIT", b"221 bye\r\n", close)]
    call = Call([GREETING, OFFER, ("STARTTLS", b"454 4.7.0 later\r\n"), *behind], tls="opportunistic")
    assert isinstance(call.outcome, SendResult)
    call.end()
    for actions in ((b"220 go\r\n", octets_then(close)), (starttls(certificates.good, behind=b"250 x\r\n"),)):
        call = Call([GREETING, OFFER, ("STARTTLS", *actions)], tls="opportunistic")
        assert isinstance(call.outcome, TLSFailed), repr(call.outcome)
        assert b"MAIL" not in call.endpoint.said_by_clients
        call.end()
