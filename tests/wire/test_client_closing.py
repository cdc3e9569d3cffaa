"""The end of a client's connection, what was cancelled, and TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smtpfw.errors import BrokenPeer, ConnectionFailed, Refused, TLSFailed
from smtpfw.extensions.starttls import StartTLSExchange
from smtpfw.wire.exchange import Command, Hello
from smtpfw.wire.steps import QuitStep
from tests.wire.client_end import GREETING, ClientEnd, Told, hello_reply
from tests.wire.test_client import ASKED

# -- the end ---------------------------------------------------------------------------------


def test_the_end_is_told_to_everyone() -> None:
    end = ClientEnd(["PIPELINING"])
    asked = [end.mail(), end.rcpt(), end.command(b"NOOP"), end.send(), end.hello()]
    end.said()
    end.lose()
    asked[0].error(ConnectionFailed, "MAIL")
    asked[1].error(ConnectionFailed, "RCPT")
    asked[2].error(ConnectionFailed, "NOOP")
    asked[3].error(ConnectionFailed, "")
    asked[4].error(ConnectionFailed, "")
    assert len(end.ends) == 1
    end.lose()
    end.hear(b"250 OK\r\n")
    assert len(end.ends) == 1
    assert end.wire.idle


def test_who_hears_of_the_end_and_asks_again_is_told_so() -> None:
    end = ClientEnd()
    again: list[Told] = []
    end.wire.submit(Command(b"NOOP\r\n", lambda outcome: again.append(end.command(b"NOOP"))))
    end.lose()
    again[0].error(ConnectionFailed)
    assert end.ends == [end.wire.over]
    assert end.said() == []


def test_what_is_due_when_the_connection_fails_is_not_said() -> None:
    end = ClientEnd()
    end.wire.submit(Command(b"NOOP\r\n", lambda outcome: None))
    end.wire.fail(ConnectionFailed("no"))
    assert end.wire.data_to_send() == []


def test_close() -> None:
    end = ClientEnd()
    told = end.command(b"NOOP")
    end.wire.close()
    assert end.ends == [None]
    told.error(ConnectionFailed, "NOOP")
    end.command(b"NOOP").error(ConnectionFailed, "")
    assert end.said() == [b"NOOP\r\n"]


@pytest.mark.parametrize("ask", ASKED)
def test_421(ask: Callable[[ClientEnd], Told]) -> None:
    end = ClientEnd()
    told, behind = ask(end), end.command(b"NOOP")
    end.said()
    assert end.hear(b"421 4.3.2 closing\r\n250 OK\r\n") == []
    assert getattr(told.outcome, "code", 0) == 421
    assert isinstance(behind.error(ConnectionFailed).__cause__, Refused)
    assert len(end.ends) == 1


@pytest.mark.parametrize(
    ("octets", "what"),
    [
        (b"250 OK\n", "CRLF"),
        (b"250 O\rK\r\n", "CRLF"),
        (b"x" * 70_000, "too long"),
        (b"250 " + b"x" * 13_000 + b"\r\n", "too long"),
        (b"hello\r\n", "not a reply"),
        (b"250-a\r\n550 b\r\n", "changes"),
        (b"250-a\r\n" * 501, "500 lines"),
    ],
)
def test_what_is_no_reply(octets: bytes, what: str) -> None:
    end = ClientEnd()
    told = end.command(b"NOOP")
    end.hear(octets)
    assert what in str(told.error(BrokenPeer, "NOOP"))


def test_a_reply_has_a_limit() -> None:
    end = ClientEnd(max_reply_bytes=30)
    told = end.command(b"NOOP")
    end.hear(b"250-0123456789\r\n250-0123456789\r\n250 0\r\n")
    told.error(BrokenPeer, "NOOP")


# -- cancelling ------------------------------------------------------------------------------


def test_who_cancels_what_was_not_said_has_not_asked() -> None:
    end = ClientEnd()
    first, second, third = end.command(b"NOOP"), end.command(b"VRFY x"), end.command(b"RSET")
    end.cancel(second)
    end.said()
    assert end.hear(b"250 OK\r\n") == [b"RSET\r\n"]
    end.hear(b"250 reset\r\n")
    assert (first.outcome.text, second.silent, third.outcome.text) == ("OK", True, "reset")


def test_the_reply_to_what_was_cancelled_goes_to_nobody_else() -> None:
    end = ClientEnd()
    first, second = end.command(b"NOOP"), end.command(b"VRFY x")
    end.cancel(first)
    end.said()
    assert end.hear(b"250 OK\r\n") == [b"VRFY x\r\n"]
    end.hear(b"550 nobody\r\n")
    assert first.silent
    assert second.error(Refused).code == 550


# -- STARTTLS --------------------------------------------------------------------------------


def test_starttls() -> None:
    end = ClientEnd(["STARTTLS", "PIPELINING", "AUTH PLAIN"])
    told = end.ask(StartTLSExchange)
    behind = end.send()
    assert end.hear(b"220 go\r\n") == [b"STARTTLS\r\n"]
    assert (end.handshakes, end.wire.phase, told.silent) == (1, "TLS", True)
    end.wire.tls_started()
    end.flush()
    assert told.outcome is None
    # Nothing that was heard in clear counts (RFC 3207 section 4.2).
    assert end.said() == [b"EHLO me.test\r\n"]
    assert not end.wire.peer.offers("AUTH")
    assert end.wire.tls and not end.wire.pipelining
    assert end.hear(hello_reply()) == [b"MAIL FROM:<a@b.test>\r\n"]
    end.ask(StartTLSExchange)
    assert behind.silent


def test_starttls_before_anything_is_asked() -> None:
    end = ClientEnd(["STARTTLS"])
    end.ask(StartTLSExchange)
    end.hear(b"220 go\r\n")
    end.wire.tls_started()
    end.flush()
    assert end.said() == []
    assert not end.wire.said_hello
    end.command(b"NOOP")
    assert end.said() == [b"EHLO me.test\r\n"]


@pytest.mark.parametrize("reply", [b"220 go\r\n2", b"220 go\r\n250 OK\r\n"])
def test_octets_in_clear_behind_starttls(reply: bytes) -> None:
    """RFC 3207 section 6, CVE-2021-38371."""
    end = ClientEnd(["STARTTLS"])
    told = end.ask(StartTLSExchange)
    end.hear(reply)
    told.error(TLSFailed, "STARTTLS")
    assert (end.handshakes, len(end.ends)) == (0, 1)


@pytest.mark.parametrize(("offers", "reply", "kind"), [([], b"", TLSFailed), (["STARTTLS"], b"454 no\r\n", Refused)])
def test_what_was_meant_for_a_safe_line_is_not_said(offers: list[str], reply: bytes, kind: type[Exception]) -> None:
    end = ClientEnd(None)
    end.hello()
    told, first, second = end.ask(StartTLSExchange), end.send(), end.send("e@d.test", "f@d.test")
    end.hear(GREETING, hello_reply(*offers))
    if reply:
        assert end.hear(reply) == []
    for one in (told, first, second):
        one.error(kind, "STARTTLS")
    assert [len(one.outcome.result.recipients) for one in (first, second)] == [1, 2]
    assert end.ends == []
    # Whoever wants to go on in clear may.
    end.command(b"NOOP")
    assert end.said() == [b"NOOP\r\n"]


# -- what is asked for from within an answer ---------------------------------------------------


def test_hello_that_was_cancelled_is_said_all_the_same_when_it_is_needed() -> None:
    end = ClientEnd(None)
    end.cancel(end.hello())
    end.mail()
    assert end.hear(GREETING) == [b"EHLO me.test\r\n"]


def test_closed_by_whoever_hears_that_nothing_can_be_said() -> None:
    end = ClientEnd([])
    before = end.command(b"NOOP")
    starting = end.ask(StartTLSExchange)
    behind = Told()

    def close(result: object) -> None:
        behind(result)
        end.wire.close()

    end.wire.submit(Command(b"NOOP\r\n", close))
    end.hear(b"250 OK\r\n")
    assert before.outcome.code == 250
    assert isinstance(starting.outcome, ConnectionFailed) and isinstance(behind.outcome, TLSFailed)
    assert end.ends == [None]


def test_what_is_asked_for_when_hello_is_refused() -> None:
    """It is asked behind what was asked before, which will not be said; so it is said itself."""
    end = ClientEnd(None)
    end.hear(GREETING)
    quitting: list[Told] = []
    hello = Hello("me.test", lambda result: quitting.append(end.ask(QuitStep)))
    end.wire.submit(hello)
    waiting = end.mail()
    end.said()
    assert end.hear(b"450 4.3.0 later\r\n") == [b"QUIT\r\n"]
    assert isinstance(waiting.outcome, Refused)
    assert quitting[0].silent
