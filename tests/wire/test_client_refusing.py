"""What a client refuses to say: messages that can't go to this peer, and what would say something else."""

from __future__ import annotations

from typing import Any

import pytest

from smtpfw.errors import (
    ExtensionMissing,
    LocalProtocolError,
    Refused,
    TooLargeForPeer,
    TooManyForPeer,
)
from smtpfw.extensions.dsn import NOTIFY
from smtpfw.wire.grammar import Address
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.parameters import NO_OPTIONS, Options, Parameter
from smtpfw.wire.sending import Sending
from smtpfw.wire.transaction import Recipient
from tests.wire.client_end import ClientEnd, Text, text
from tests.wire.test_client_sending import GO_ON, OK, UTF8, accepted, options

# -- refused before anything is said -------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "settings", "keyword"),
    [
        ([], {"body": "é".encode()}, "8BITMIME"),
        (["8BITMIME"], {"body": text("é".encode(), utf8_header=True)}, "SMTPUTF8"),
        (["8BITMIME"], {"sender": UTF8}, "SMTPUTF8"),
        (["CHUNKING"], {"body": text(b"\0", binary=True)}, "BINARYMIME"),
        ([], {"options": options(RET="HDRS")}, "DSN"),
        ([], {"options": options(SIZE=5)}, "SIZE"),
        ([], {"options": options(REQUIRETLS=True)}, "REQUIRETLS"),
        # Offered, and the line is not safe (RFC 8689 section 4.2.1).
        (["REQUIRETLS"], {"options": options(REQUIRETLS=True)}, "REQUIRETLS"),
        ([], {"options": Options({"BODY": "8BITMIME"})}, "8BITMIME"),
        (["8BITMIME", "CHUNKING"], {"options": Options({"BODY": "BINARYMIME"})}, "BINARYMIME"),
    ],
)
def test_an_extension_is_missing(offers: list[str], settings: dict[str, Any], keyword: str) -> None:
    end = ClientEnd(offers)
    told, behind = end.send("c@d.test", "e@d.test", **settings), end.command(b"NOOP")
    error = told.error(ExtensionMissing)
    assert (error.keyword, error.phase, error.temporary) == (keyword, "MAIL", False)
    assert [one.error for one in error.result.recipients] == [error, error]
    # The connection knows nothing of it.
    assert end.said() == [b"NOOP\r\n"]
    end.hear(OK)
    assert behind.outcome.code == 250


def test_binary_without_chunks() -> None:
    end = ClientEnd(["CHUNKING", "BINARYMIME", "8BITMIME"], chunking=False)
    assert end.send(body=text(b"\0", binary=True)).error(ExtensionMissing).keyword == "CHUNKING"
    assert end.said() == []


def test_too_large() -> None:
    end = ClientEnd(["SIZE 6"])
    error = end.send(body=b"hello\r\n").error(TooLargeForPeer)
    assert [one.error for one in error.result.recipients] == [error]
    assert end.said() == []
    end.send(body=b"hell\r\n")
    assert end.said() == [b"MAIL FROM:<a@b.test> SIZE=6\r\n"]


@pytest.mark.parametrize("offer", ["SIZE", "SIZE 0", "SIZE x", "SIZE -5", "SIZE 5k"])
def test_a_size_without_a_limit(offer: str) -> None:
    end = ClientEnd([offer])
    end.send()
    assert end.said() == [b"MAIL FROM:<a@b.test> SIZE=7\r\n"]


def test_a_size_that_nobody_knows_is_not_said() -> None:
    end = ClientEnd(["SIZE 5", "8BITMIME"])
    end.send(body=Text(None))
    assert end.said() == [b"MAIL FROM:<a@b.test> BODY=8BITMIME\r\n"]


def test_what_the_content_needs_is_said() -> None:
    end = ClientEnd(["SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "DSN"])
    for settings, line in [
        ({"body": "é".encode()}, "<a@b.test> SIZE=2 BODY=8BITMIME"),
        ({"sender": UTF8}, "<é@d.test> SIZE=7 SMTPUTF8"),
        ({"body": text(b"\0", binary=True)}, "<a@b.test> SIZE=1 BODY=BINARYMIME"),
        ({"options": options(RET="HDRS")}, "<a@b.test> RET=HDRS SIZE=7"),
    ]:
        told = end.send(**settings)  # type: ignore[arg-type]
        assert end.said() == [f"MAIL FROM:{line}\r\n".encode()]
        end.hear(b"550 no\r\n")
        told.error(Refused, "MAIL")


def test_too_many_recipients_for_a_peer_that_says_so() -> None:
    """RFC 9422 section 3: the others have to be sent in another transaction."""
    end = ClientEnd(["PIPELINING", "LIMITS RCPTMAX=2"])
    told = end.send("c@d.test", "e@d.test", "f@d.test")
    assert end.said() == [b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nRCPT TO:<e@d.test>\r\nDATA\r\n"]
    end.hear(OK * 3 + GO_ON, OK)
    assert accepted(told.outcome) == [True, True, False]
    error = told.outcome.recipients[2].error
    assert isinstance(error, TooManyForPeer) and error.temporary


def test_the_others_refused_and_too_many() -> None:
    """The exception tells of each of them, whichever of their errors it is."""
    end = ClientEnd(["LIMITS RCPTMAX=1"])
    told = end.send("c@d.test", "e@d.test")
    end.hear(OK, b"550 nobody\r\n")
    error = told.error(TooManyForPeer)
    assert [type(one.error) for one in error.result.recipients] == [Refused, TooManyForPeer]


def test_recipients_that_cannot_be_named_do_not_stop_the_others() -> None:
    end = ClientEnd(["PIPELINING"])
    notify = Recipient(Address.parse("n@d.test"), Options.of({NOTIFY: frozenset({"NEVER"})}))
    told = end.send(UTF8, notify, "c@d.test")
    assert end.said() == [b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"]
    end.hear(OK * 2 + GO_ON, OK)
    assert accepted(told.outcome) == [False, False, True]
    assert [getattr(one.error, "keyword", "") for one in told.outcome.recipients] == ["SMTPUTF8", "DSN", ""]


def test_nobody_can_be_named() -> None:
    end = ClientEnd(["PIPELINING"])
    told, behind = end.send(UTF8, UTF8), end.command(b"NOOP")
    error = told.error(ExtensionMissing)
    assert (error.code, tuple(error.enhanced_code)) == (553, (5, 6, 7))
    assert len(error.result.recipients) == 2
    assert end.said() == [b"NOOP\r\n"]
    assert behind.silent


def test_to_nobody() -> None:
    end = ClientEnd(["PIPELINING"])
    told = end.ask(lambda done: Sending(OutgoingMessage(Address("a", "b.test"), [], text(b"")), done))
    told.error(LocalProtocolError)
    assert end.said() == []


# -- nothing is said that was not meant ------------------------------------------------------

ODD = Parameter("ODD", parse=str, format=str, default="")
EVIL = ["\r\n", "\r", "\n", "\0", "\r\nRCPT TO:<evil@d.test>", "\x7f", "\ud800"]


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("where", ["sender", "recipient", "domain"])
def test_injection_by_an_address(evil: str, where: str) -> None:
    end = ClientEnd(["PIPELINING", "SMTPUTF8", "8BITMIME"])
    bad, good = Address(f"a{evil}b", "b.test"), Address("a", "b.test")
    if where == "domain":
        bad = Address("a", f"b.test{evil}")
    sender, recipient = (bad, good) if where == "sender" else (good, bad)
    recipients = [Recipient(recipient, NO_OPTIONS)]
    told = end.ask(lambda done: Sending(OutgoingMessage(sender, recipients, text(b"")), done))
    told.error(LocalProtocolError)
    assert end.said() == []


def test_what_looks_like_a_parameter_is_quoted() -> None:
    end = ClientEnd(["PIPELINING"])
    recipients = [Recipient(Address("c> NOTIFY=NEVER", "d.test"), NO_OPTIONS)]
    end.ask(lambda done: Sending(OutgoingMessage(Address("a> X=1", "b.test"), recipients, text(b"")), done))
    assert end.said() == [b'MAIL FROM:<"a> X=1"@b.test>\r\nRCPT TO:<"c> NOTIFY=NEVER"@d.test>\r\nDATA\r\n']


@pytest.mark.parametrize("evil", [*EVIL, " ", "> X=1", "=", "é\r\n"])
@pytest.mark.parametrize("where", ["MAIL", "RCPT"])
def test_injection_by_a_parameter(evil: str, where: str) -> None:
    from smtpfw.wire.dialect import Extension

    class Odd(Extension):
        keyword = "X-ODD"
        mail_parameters = rcpt_parameters = (ODD,)

    end = ClientEnd(["PIPELINING", "X-ODD"], extensions=[Odd()])
    odd = Options.of({ODD: f"a{evil}b"})
    recipient = Recipient(Address("c", "d.test"), odd if where == "RCPT" else NO_OPTIONS)
    told = end.send(recipient, options=odd if where == "MAIL" else NO_OPTIONS)
    told.error(LocalProtocolError)
    assert end.said() == []


def test_one_recipient_that_injects_refuses_the_message() -> None:
    """Whoever lets such an address in has a fault; the message is not sent to the others as if nothing were."""
    end = ClientEnd(["PIPELINING"])
    told = end.send("c@d.test", Recipient(Address("a\r\nb", "d.test"), NO_OPTIONS))
    told.error(LocalProtocolError)
    assert end.said() == []
