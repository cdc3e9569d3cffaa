"""The client's side of a connection: greeting, hello, the line of what is asked, and the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, LocalProtocolError, Refused
from smtpfw.wire.exchange import Command, Hello
from tests.wire.client_end import GREETING, ClientEnd, Told, hello_reply

# -- the greeting, and hello -------------------------------------------------------


def test_greeting() -> None:
    end = ClientEnd(None)
    end.hear(b"220-mx.test ESMTP\r\n220 welcome\r\n")
    assert end.greeting.outcome.text == "mx.test ESMTP\nwelcome"
    assert end.said() == []
    assert end.wire.idle
    assert end.wire.phase == ""


@pytest.mark.parametrize(
    ("reply", "kind", "temporary"),
    [
        (b"554 5.7.1 go away\r\n", Refused, False),
        (b"421 4.3.2 full\r\n", Refused, True),
        (b"450 later\r\n", Refused, True),
        (b"250 mx.test\r\n", BrokenPeer, True),
        (b"354 go on\r\n", BrokenPeer, True),
        (b"221 bye\r\n", BrokenPeer, True),
    ],
)
def test_other_greetings(reply: bytes, kind: type[Exception], temporary: bool) -> None:
    end = ClientEnd(None)
    waiting = end.command(b"NOOP")
    assert end.hear(reply) == []
    assert end.greeting.error(kind, "GREETING").temporary is temporary
    waiting.error(ConnectionFailed)
    assert len(end.ends) == 1


def test_nothing_is_said_before_the_greeting() -> None:
    end = ClientEnd(None)
    end.send()
    assert end.said() == []
    assert end.hear(b"220-mx.test\r\n", b"220 ES") == []
    assert end.hear(b"MTP\r\n") == [b"EHLO me.test\r\n"]


def test_hello_is_said_by_itself_and_once() -> None:
    end = ClientEnd(None)
    first, second = end.command(b"NOOP"), end.command(b"NOOP")
    assert end.wire.said_hello
    assert end.hear(GREETING) == [b"EHLO me.test\r\n"]
    assert end.hear(hello_reply()) == [b"NOOP\r\n"]
    assert end.hear(b"250 one\r\n") == [b"NOOP\r\n"]
    end.hear(b"250 two\r\n")
    assert [first.outcome.text, second.outcome.text] == ["one", "two"]


def test_hello_that_is_asked_for() -> None:
    end = ClientEnd(None)
    hello = end.hello("other.test")
    assert end.hear(GREETING) == [b"EHLO other.test\r\n"]
    assert end.hear(hello_reply("SIZE 1000", "X-ODD  a  b", "size 5", "AUTH=LOGIN PLAIN")) == []
    assert hello.outcome.code == 250
    peer = end.wire.peer
    assert peer.name == "mx.test"
    assert peer.arguments == {"SIZE": "5", "X-ODD": "a  b", "AUTH": "LOGIN PLAIN"}
    assert peer.facts["SIZE"] == 5
    assert peer.offers("X-ODD") and not peer.offers("PIPELINING")


@pytest.mark.parametrize("code", [500, 501, 502, 504, 550])
def test_helo(code: int) -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    hello = end.hello()
    assert end.said() == [b"EHLO me.test\r\n"]
    assert end.hear(b"%d no\r\n" % code) == [b"HELO me.test\r\n"]
    assert hello.silent
    assert end.hear(b"250-mx.test\r\n250 PIPELINING\r\n") == []
    assert hello.outcome.code == 250
    assert end.wire.peer.arguments == {}
    assert not end.wire.pipelining


def test_helo_refused() -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    hello = end.hello()
    end.hear(b"500 what\r\n", b"550 no\r\n")
    assert hello.error(Refused, "HELO").code == 550
    assert end.ends == []


@pytest.mark.parametrize("reply", [b"451 later\r\n", b"554 no\r\n", b"530 TLS first\r\n"])
def test_ehlo_refused_for_good(reply: bytes) -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    hello, first, second = end.hello(), end.send("c@d.test"), end.send("e@d.test", "f@d.test")
    end.said()
    assert end.hear(reply) == []
    hello.error(Refused, "EHLO")
    # Each has an exception of its own: what became of its recipients is in it.
    for told, addresses in [(first, ["c@d.test"]), (second, ["e@d.test", "f@d.test"])]:
        result = told.error(Refused, "EHLO").result
        assert [str(one.recipient) for one in result.recipients] == addresses
    assert end.ends == []
    # The connection can still be used: hello is said again.
    assert end.wire.said_hello is False
    end.command(b"QUIT")
    assert end.said() == [b"EHLO me.test\r\n"]


@pytest.mark.parametrize("reply", [b"220 mx.test\r\n", b"251 mx.test\r\n", b"354 go on\r\n"])
def test_ehlo_answered_with_nonsense(reply: bytes) -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    hello = end.hello()
    end.hear(reply)
    hello.error(BrokenPeer, "EHLO")
    assert len(end.ends) == 1


@pytest.mark.parametrize("reply", [b"500 what\r\n", b"502 what\r\n", b"550 no\r\n"])
def test_lhlo_is_not_tried_as_anything_else(reply: bytes) -> None:
    end = ClientEnd(None, lmtp=True)
    end.hear(GREETING)
    hello = end.hello()
    assert end.said() == [b"LHLO me.test\r\n"]
    assert end.hear(reply) == []
    hello.error(Refused, "LHLO")


# -- the line ------------------------------------------------------------------------


def test_what_is_asked_by_an_answer_stands_at_the_end_of_the_line() -> None:
    end = ClientEnd()
    later: list[Told] = []

    def done(outcome: Any) -> None:
        later.append(end.command(b"VRFY c"))

    end.wire.submit(Command(b"VRFY a\r\n", done))
    end.command(b"VRFY b")
    assert end.hear() == [b"VRFY a\r\n"]
    assert end.hear(b"252 a\r\n") == [b"VRFY b\r\n"]
    assert end.hear(b"252 b\r\n") == [b"VRFY c\r\n"]
    end.hear(b"252 c\r\n")
    assert later[0].outcome.text == "c"


def test_commands() -> None:
    end = ClientEnd()
    told = end.command(b"VRFY joe")
    end.hear(b"550 5.1.1 nobody\r\n")
    error = told.error(Refused, "VRFY")
    assert (error.code, tuple(error.enhanced_code), error.reply.text) == (550, (5, 1, 1), "nobody")
    raw = end.command(b"xodd 1", raw=True)
    assert end.said()[-1] == b"xodd 1\r\n"
    end.hear(b"550 5.1.1 nobody\r\n")
    assert raw.outcome.code == 550
    more = end.command(b"XODD 2", raw=True)
    end.hear(b"334 more\r\n")
    assert more.outcome.code == 334
    broken = end.command(b"NOOP")
    end.hear(b"334 more\r\n")
    broken.error(BrokenPeer, "NOOP")


@pytest.mark.parametrize(
    "line",
    [b"", b"\r\n", b"NOOP", b"NOOP\n", b"NO\rOP\r\n", b"NO\nOP\r\n", b"NOOP\r\nQUIT\r\n", b"NOOP \0\r\n", b"A\n\r\n"],
)
def test_a_command_is_one_line(line: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Command(line, lambda outcome: None)


@pytest.mark.parametrize("name", ["", "two words", "me.test\r\nQUIT", "me\0", "a\nb", "mé.test", "me\t"])
def test_a_name_is_one_word(name: str) -> None:
    end = ClientEnd(None)
    end.hear(GREETING)
    end.ask(lambda done: Hello(name, done)).error(LocalProtocolError)
    assert end.said() == []


def test_what_cannot_be_said_does_not_hold_up_the_rest() -> None:
    end = ClientEnd()
    bad, good = end.ask(lambda done: Hello("a b", done)), end.command(b"NOOP")
    bad.error(LocalProtocolError)
    assert end.hear(b"250 OK\r\n") == [b"NOOP\r\n"]
    assert good.outcome.code == 250


def test_who_wants_to_hear_that_something_else_could_be_sent() -> None:
    end = ClientEnd(["PIPELINING"])
    calls: list[str] = []
    end.on_ready = lambda: calls.append(end.wire.phase)
    end.wire.wants_ready = True
    end.command(b"NOOP")
    assert calls == []
    end.hear(b"250 OK\r\n")
    assert calls == [""]


# -- what is not asked for -----------------------------------------------------------------


@pytest.mark.parametrize("reply", [b"250 OK\r\n", b"550 no\r\n", b"354 go on\r\n", b"220 hello again\r\n"])
def test_a_reply_to_nothing(reply: bytes) -> None:
    end = ClientEnd()
    end.hear(reply)
    assert [type(error) for error in end.ends] == [BrokenPeer]
    end.command(b"NOOP").error(ConnectionFailed)
    assert end.said() == []


def test_421_to_nothing() -> None:
    end = ClientEnd()
    end.hear(b"421 4.4.2 idle\r\n")
    assert [type(error) for error in end.ends] == [Refused]
    error = end.send().error(ConnectionFailed)
    assert isinstance(error.__cause__, Refused)


ASKED: list[Callable[[ClientEnd], Told]] = [
    lambda end: end.command(b"NOOP"),
    lambda end: end.command(b"XODD", raw=True),
    lambda end: end.mail(),
    lambda end: end.send(),
    lambda end: end.reset(),
]


@pytest.mark.parametrize("ask", ASKED)
def test_two_replies_where_one_is_due(ask: Callable[[ClientEnd], Told]) -> None:
    """The second can't be the answer to what was not said yet."""
    end = ClientEnd()
    ask(end)
    end.command(b"VRFY x")
    end.said()
    assert end.hear(b"250 OK\r\n250 OK\r\n") == []
    assert [type(error) for error in end.ends] == [BrokenPeer]


@pytest.mark.parametrize("behind", [b"2", b"250 OK\r\n", b"\r\n"])
def test_something_behind_a_greeting_or_hello(behind: bytes) -> None:
    end = ClientEnd(None)
    hello = end.hello()
    assert end.hear(GREETING + behind) == []
    hello.error(ConnectionFailed)
    end = ClientEnd(None)
    end.hear(GREETING)
    end.hello()
    end.said()
    end.hear(hello_reply("PIPELINING") + behind)
    assert [type(error) for error in end.ends] == [BrokenPeer]
    end = ClientEnd(None)
    end.hear(GREETING)
    end.hello()
    end.said()
    assert end.hear(b"500 what\r\n" + behind) == []
    assert [type(error) for error in end.ends] == [BrokenPeer]


@pytest.mark.parametrize("offers", [[], ["PIPELINING"]])
def test_two_replies_to_data(offers: list[str]) -> None:
    """An answer to a message of which the peer has not seen an octet."""
    end = ClientEnd(offers)
    told = end.send()
    end.said()
    end.hear(b"250 OK\r\n", b"250 OK\r\n")
    end.said()
    assert end.hear(b"354 go on\r\n250 queued\r\n") == []
    told.error(BrokenPeer, "BODY")
