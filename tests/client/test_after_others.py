"""What a client says depends on what was before: a transaction that was given up, an EHLO that was not understood."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import ExtensionMissing, Refused
from smtpfw.testing import MemoryServer
from smtpfw.wire.config import ClientConfig

BODY = b"Subject: x\r\n\r\ntext\r\n"
CONFIG = ClientConfig(hello_name="me.test")


def greeted(hello: bytes) -> tuple[SMTPClientProtocol, MemoryServer, bytes]:
    """A client, a server that has answered EHLO with this, and what the client has said to it."""
    client = SMTPClientProtocol(CONFIG, clock=Clock())
    server = MemoryServer.of(client)
    client.hello()
    assert server.send(b"220 mx.test\r\n") == b"EHLO me.test\r\n"
    return client, server, server.send(hello)


def failed(deferred: Deferred[object], kind: type[Exception]) -> Exception:
    """What it has failed with already."""
    found: list[object] = []
    deferred.addBoth(found.append)
    (failure,) = found
    assert isinstance(failure, Failure)
    assert isinstance(failure.value, kind), failure
    return failure.value


@pytest.mark.parametrize("pipelining", [False, True])
def test_mail_comes_behind_the_reset_of_what_was_given_up(pipelining: bool) -> None:
    """All recipients were refused, so the server has a transaction open, and would take MAIL for a second one."""
    client, server, _ = greeted(b"250-mx.test\r\n250 PIPELINING\r\n" if pipelining else b"250 mx.test\r\n")
    sent = client.send_mail("a@a.test", ["b@b.test"], BODY)
    for reply in (b"250 ok\r\n", b"550 no\r\n", b"554 nobody\r\n")[: 3 if pipelining else 2]:
        server.send(reply)
    failed(sent, Refused)
    begun = client.mail("a@a.test")
    said = server.received()
    assert said == (b"RSET\r\nMAIL FROM:<a@a.test>\r\n" if pipelining else b"RSET\r\n")
    assert server.send(b"250 reset\r\n") == (b"" if pipelining else b"MAIL FROM:<a@a.test>\r\n")
    server.send(b"250 begun\r\n")
    assert begun.result.text == "begun"
    client.rcpt("b@b.test")
    assert server.received() == b"RCPT TO:<b@b.test>\r\n"


@pytest.mark.parametrize(
    ("recipient", "body", "keyword"),
    [("b@b.test", b"\r\n\xff\r\n", "8BITMIME"), ("ü@b.test", BODY, "SMTPUTF8")],
)
def test_helo_offers_nothing(recipient: str, body: bytes, keyword: str) -> None:
    """What needs an extension is refused here, as to a server that has answered EHLO without it."""
    client, server, said = greeted(b"500 what?\r\n")
    assert said == b"HELO me.test\r\n"
    server.send(b"250-mx.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
    error = failed(client.send_mail("a@a.test", [recipient], body), ExtensionMissing)
    assert isinstance(error, ExtensionMissing) and error.keyword == keyword
    assert server.received() == b""
