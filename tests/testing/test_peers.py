"""A peer that plays a script, in memory and on a socket: what it says, what it takes, and how it fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smtpfw.testing import (
    MESSAGE,
    ScriptedPeer,
    abort,
    close,
    endless,
    joined,
    octets,
    silence,
    starttls,
    tls_client,
    tls_server,
)
from tests.server.tls_in_memory import CONTEXT

GREETING = b"220 mx.test ESMTP\r\n"


class Client(Protocol):
    """
    Says one thing after another, each when a reply has come.

    :param words: octets, or a function of the client.
    """

    transport: Any

    def __init__(self, *words: bytes | Callable[[Any], object]) -> None:
        self.words = list(words)
        self.heard: list[bytes] = []
        self.pending = b""
        self.lost: Deferred[Any] = Deferred()
        self.lost_by: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        self.pending += data
        while re.search(rb"(?:^|\n)\d\d\d [^\n]*\n", self.pending):
            _, self.pending = re.split(rb"(?<!.)\d\d\d [^\n]*\n", self.pending, maxsplit=1)
            self.say()

    def say(self) -> None:
        if self.words:
            word = self.words.pop(0)
            if callable(word):
                word(self)
            else:
                self.transport.write(word)

    def start_tls(self) -> None:
        self.transport.startTLS(CertificateOptions())
        self.say()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.lost_by = reason.type
        self.lost.callback(None)


def play(script: list[Any], *words: Any, chunk: int | None = None) -> tuple[ScriptedPeer, Client, Any]:
    peer, client = ScriptedPeer(script), Client(*words)
    return peer, client, joined(client, peer, chunk=chunk)


WHOLE = [
    GREETING,
    ("EHLO", [b"250-mx.", b"test\r\n25", b"0 SIZE\r\n"]),
    (b"mail FROM:<a@b.test>", b"250 OK\r\n"),
    (re.compile(rb"RCPT TO:<[a-z]@d\.test>$"), b"250 OK\r\n"),
    ("", b"354 go on\r\n"),
    (MESSAGE, b"250 queued\r\n"),
    ("QUIT", b"221 bye\r\n", close),
]
WORDS = [
    b"EHLO me.test\r\n",
    b"MAIL FROM:<a@b.test>\r\n",
    b"RCPT TO:<c@d.test>\r\n",
    b"DATA\r\n",
    b"Subject: x\r\n\r\n..\r\n.\r\n",
    b"QUIT\r\n",
]


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_a_whole_session(chunk: int | None) -> None:
    peer, client, _ = play(WHOLE, *WORDS, chunk=chunk)
    peer.assert_played()
    assert peer.commands == [word.strip() for word in WORDS if not word.startswith(b"Subject")]
    assert peer.messages == [b"Subject: x\r\n\r\n..\r\n"]
    assert peer.in_clear == b"".join(WORDS)
    assert peer.in_tls == b""
    assert client.lost_by is ConnectionDone


def test_commands_that_come_at_once() -> None:
    peer, _, _ = play(WHOLE, b"".join(WORDS))
    peer.assert_played()
    assert len(peer.commands) == 5


def test_fragments_arrive_apart() -> None:
    _, client, _ = play(WHOLE, b"EHLO me.test\r\n")
    assert client.heard == [GREETING, b"250-mx.", b"test\r\n25", b"0 SIZE\r\n"]


def test_an_empty_message() -> None:
    peer, _, _ = play([GREETING, ("DATA", b"354 \r\n"), (MESSAGE, b"250 \r\n")], b"DATA\r\n", b".\r\n")
    peer.assert_played()
    assert peer.messages == [b""]


@pytest.mark.parametrize("chunk", [None, 1])
def test_bdat_takes_its_octets_with_it(chunk: int | None) -> None:
    script = [GREETING, ("BDAT 3", b"250 \r\n"), ("bdat 6 LAST", b"250 \r\n")]
    peer, _, _ = play(script, b"BDAT 3\r\n\r\n.", b"BDAT 6 LAST\r\n\r\nQUIT", chunk=chunk)
    peer.assert_played()
    assert peer.messages == [b"\r\n.", b"\r\nQUIT"]
    assert peer.commands == [b"BDAT 3", b"BDAT 6 LAST"]


def test_an_end_in_the_middle_of_a_message() -> None:
    for action, reason in ((close, ConnectionDone), (abort, ConnectionLost)):
        peer, client, _ = play(
            [GREETING, ("DATA", b"354 \r\n"), (octets(5), action)], b"DATA\r\n", b"Subject: much more\r\n"
        )
        peer.assert_played()
        assert client.lost_by is reason
        assert peer.in_clear == b"DATA\r\nSubject: much more\r\n"


def test_silence_takes_everything() -> None:
    peer, client, link = play([GREETING, ("EHLO", silence), ("NEVER", b"250 \r\n")], b"EHLO me\r\n")
    client.transport.write(b"anybody?\r\n")
    link.flow()
    peer.assert_played()
    assert client.heard == [GREETING]
    assert peer.in_clear == b"EHLO me\r\nanybody?\r\n"


def test_functions_are_actions() -> None:
    seen: list[Any] = []
    peer, client, _ = play([GREETING, ("EHLO", seen.append, b"250 OK\r\n")], b"EHLO me\r\n")
    assert seen == peer.connections
    assert client.heard == [GREETING, b"250 OK\r\n"]


def test_an_endless_reply_ends_with_its_client() -> None:
    class Impatient(Client):
        octets = 0

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.octets += len(data)
            if self.octets > 100_000:
                self.transport.abortConnection()

    for piece in (b"250-more\r\n", b"x"):
        peer, client = ScriptedPeer([GREETING, ("EHLO", endless(piece))]), Impatient(b"EHLO me\r\n")
        joined(client, peer)
        peer.assert_played()
        assert client.lost_by is not None
        assert client.octets < 200_000
        assert b"".join(client.heard).startswith(GREETING + piece * 3)


def test_an_endless_reply_waits_for_who_does_not_read() -> None:
    peer, client, link = play([GREETING, ("EHLO", endless(b"250-\r\n"))])
    client.transport.pauseProducing()
    client.transport.write(b"EHLO me\r\n")
    link.flow()
    assert client.heard == [GREETING]
    client.transport.abortConnection()
    link.flow()
    peer.assert_played()


def test_a_client_that_listens_for_ever_fails() -> None:
    peer = ScriptedPeer([endless(b"220-x\r\n", at_most=100_000)])
    with pytest.raises(AssertionError, match="goes on listening"):
        joined(Client(), peer)
    with pytest.raises(AssertionError, match="goes on listening"):
        peer.assert_played()


# -- clients that do something else ---------------------------------------------


def failing(script: list[Any], *words: Any) -> str:
    peer, client = ScriptedPeer(script), Client(*words)
    with pytest.raises(AssertionError) as caught:
        joined(client, peer)
    with pytest.raises(AssertionError) as again:
        peer.assert_played()
    assert again.value is caught.value
    return str(caught.value)


def test_another_command() -> None:
    assert failing(WHOLE, WORDS[0], WORDS[2]) == (
        "step 3 of 7 expects b'mail FROM:<a@b.test>', and the client says b'RCPT TO:<c@d.test>'; "
        "before that: EHLO me.test"
    )


def test_no_match() -> None:
    assert failing(WHOLE, *WORDS[:2], b"RCPT TO:<c@d.test> X=y\r\n") == (
        "step 4 of 7 expects a match of b'RCPT TO:<[a-z]@d\\\\.test>$', and the client says "
        "b'RCPT TO:<c@d.test> X=y'; before that: EHLO me.test, MAIL FROM:<a@b.test>"
    )


def test_more_than_the_script() -> None:
    assert failing([GREETING, ("EHLO", b"250 \r\n")], b"EHLO me\r\n", b"QUIT\r\n") == (
        "the script is at its end, and the client goes on with b'QUIT\\r\\n'; before that: EHLO me"
    )


def test_less_than_the_script() -> None:
    peer, _, _ = play(WHOLE, WORDS[0], b"MAIL")
    with pytest.raises(AssertionError) as caught:
        peer.assert_played()
    assert str(caught.value) == (
        "step 3 of 7 waits for b'mail FROM:<a@b.test>'; unread is b'MAIL'; before that: EHLO me.test"
    )


def test_a_line_that_ends_in_lf_is_none() -> None:
    peer, _, _ = play(WHOLE, b"EHLO me.test\n")
    with pytest.raises(AssertionError, match=r"waits for 'EHLO'; unread is b'EHLO me.test\\n'; before that: nothing"):
        peer.assert_played()


def test_one_script_for_each_connection_and_the_last_for_all_others() -> None:
    peer = ScriptedPeer([b"421 later\r\n", close], [GREETING])
    first = Client()
    joined(first, peer)
    with pytest.raises(AssertionError, match="1 connections were made, and there are 2 scripts"):
        peer.assert_played()
    others = [Client(), Client()]
    for client in others:
        joined(client, peer)
    assert first.heard == [b"421 later\r\n"]
    assert [client.heard for client in others] == [[GREETING], [GREETING]]
    peer.assert_played()


def test_no_script() -> None:
    with pytest.raises(TypeError, match="needs a script"):
        ScriptedPeer()


# -- TLS -----------------------------------------------------------------------------

TLS_SCRIPT = [GREETING, ("STARTTLS", starttls(CONTEXT)), ("EHLO", b"250 OK\r\n"), ("QUIT", b"221 \r\n", close)]


@pytest.mark.parametrize("chunk", [None, 1])
def test_what_is_said_within_tls_is_kept_apart(chunk: int | None) -> None:
    peer, client, link = play(TLS_SCRIPT, b"STARTTLS\r\n", Client.start_tls, b"EHLO me\r\n", b"QUIT\r\n", chunk=chunk)
    peer.assert_played()
    assert peer.in_clear == b"STARTTLS\r\n"
    assert peer.in_tls == b"EHLO me\r\nQUIT\r\n"
    assert b"EHLO" not in link.said_by_client
    assert client.lost_by is ConnectionDone


def test_octets_behind_the_220_come_with_it() -> None:
    script = [GREETING, ("STARTTLS", starttls(CONTEXT, reply=b"220 go\r\n", behind=b"250 injected\r\n"))]
    peer, client, _ = play(script, b"STARTTLS\r\n")
    assert client.heard[:2] == [GREETING, b"220 go\r\n250 injected\r\n"]
    assert peer.in_clear == b"STARTTLS\r\n"


def test_a_client_that_says_more_behind_starttls() -> None:
    assert failing(TLS_SCRIPT, b"STARTTLS\r\nEHLO me\r\n") == (
        "behind STARTTLS the client has said b'EHLO me\\r\\n' in clear; before that: STARTTLS"
    )


def test_tls_from_the_first_octet() -> None:
    peer, client = ScriptedPeer([GREETING, ("QUIT", b"221 \r\n", close)]), Client(b"QUIT\r\n")
    joined(tls_client(client, CertificateOptions()), tls_server(peer, CONTEXT))
    peer.assert_played()
    assert (peer.in_clear, peer.in_tls) == (b"", b"QUIT\r\n")
    assert client.lost_by is ConnectionDone


def test_an_endless_reply_within_tls() -> None:
    class Impatient(Client):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if len(self.heard) > 10:
                self.transport.loseConnection()

    peer = ScriptedPeer([GREETING, ("STARTTLS", starttls(CONTEXT)), ("EHLO", endless(b"250-more\r\n"))])
    client = Impatient(b"STARTTLS\r\n", Client.start_tls, b"EHLO me\r\n")
    joined(client, peer)
    peer.assert_played()
    assert client.lost_by is not None


# -- on a socket --------------------------------------------------------------------------


class OnSockets(TestCase):
    async def played(self, peer: ScriptedPeer, *words: Any) -> Client:
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(peer)
        self.addCleanup(port.stopListening)
        client = Client(*words)
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), client)
        await client.lost
        return client

    async def test_a_whole_session(self) -> None:
        peer = ScriptedPeer(WHOLE)
        client = await self.played(peer, *WORDS)
        peer.assert_played()
        self.assertEqual(peer.messages, [b"Subject: x\r\n\r\n..\r\n"])
        self.assertIs(client.lost_by, ConnectionDone)

    async def test_tls(self) -> None:
        peer = ScriptedPeer(TLS_SCRIPT)
        await self.played(peer, b"STARTTLS\r\n", Client.start_tls, b"EHLO me\r\n", b"QUIT\r\n")
        peer.assert_played()
        self.assertEqual((peer.in_clear, peer.in_tls), (b"STARTTLS\r\n", b"EHLO me\r\nQUIT\r\n"))

    async def test_endless(self) -> None:
        peer = ScriptedPeer([GREETING, ("EHLO", endless(b"250-more\r\n", at_most=10**9))])

        def listen_a_while(client: Any) -> None:
            client.transport.write(b"EHLO me\r\n")
            reactor.callLater(0.05, client.transport.abortConnection)  # type: ignore[attr-defined]

        client = await self.played(peer, listen_a_while)
        peer.assert_played()
        self.assertGreater(len(b"".join(client.heard)), 65536)

    async def test_another_command(self) -> None:
        peer = ScriptedPeer(WHOLE)
        client = await self.played(peer, b"HELO me.test\r\n")
        self.assertEqual(client.heard, [GREETING])
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assertRaisesRegex(AssertionError, "expects 'EHLO'", peer.assert_played)
