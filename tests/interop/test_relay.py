"""
Mail through smtpfw to a server that people have: what is stored is what was sent, and each answer is that server's.

The clients are smtplib and swaks. smtpfw runs as operators run it, and puts one
Received field in front of the message; all else in front is the next server's.
"""

from __future__ import annotations

import re
import shutil
import smtplib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.outgoing import EIGHT_BIT, HEADER, SENDER, TEXT, UTF8_HEADER, big_message, check_octets
from tests.interop.servers.common import DOMAIN, FULL, PASSWORD, USER, Peer
from tests.interop.servers.dovecot import dovecot_server
from tests.interop.servers.exim import exim_server
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.postfix_server import postfix_server
from tests.running import Twistd

TIMEOUT = 60.0

#: smtplib knows no BDAT.
WAYS = ("DATA", "BDAT")

Reply = tuple[int, bytes]


class Row(NamedTuple):
    """
    :ivar name: what to call it.
    :ivar open_peer: starts the next hop.
    :ivar backend: the option of smtpfw; ``{folder}`` has a file with the login in it.
    :ivar queued: the next hop's answer to a message, with its name for it; a pattern, as the next one.
    :ivar trace: what it writes of us.
    """

    name: str
    open_peer: Callable[[], AbstractContextManager[Peer]]
    backend: str
    queued: str
    trace: str


_TLS = "tls=required:tls_name=localhost:ca={peer.ca}"
_QUEUED = r"\A2\.0\.0 Ok: (?:\d+ bytes )?queued as (\w+)\Z"
_SAVED = rf"\A2\.0\.0 <u\d+@{re.escape(DOMAIN)}> (\S+) Saved\Z"

ROWS = [
    Row("Postfix", postfix_server, "relay:127.0.0.1:{peer.port}:tls=none", _QUEUED, " with (ESMTP|UTF8SMTP) id "),
    Row(
        "Postfix, TLS",
        postfix_server,
        f"relay:smtps:127.0.0.1:{{peer.smtps_port}}:{_TLS}",
        _QUEUED,
        " with (ESMTP|UTF8SMTP)S id ",
    ),
    Row(
        "Exim, STARTTLS, login",
        exim_server,
        f"relay:127.0.0.1:{{peer.port}}:{_TLS}:login={{folder}}/login",
        r"OK id=(\S+)\Z",
        f'authenticated="scram_sha_256 {USER}"',
    ),
    Row("Dovecot", lambda: dovecot_server(unix=True), "lmtp:unix:{peer.socket}", _SAVED, " with LMTP\r\n"),
    Row("Dovecot, STARTTLS", dovecot_server, f"lmtp:127.0.0.1:{{peer.port}}:{_TLS}", _SAVED, " with LMTPS\r\n"),
]


class Route(NamedTuple):
    """
    :ivar row: what runs.
    :ivar peer: the next hop.
    :ivar port: where smtpfw speaks SMTP.
    :ivar lmtp_port: where it speaks LMTP.
    """

    row: Row
    peer: Peer
    port: int
    lmtp_port: int


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def route(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Route]:
    row: Row = request.param
    folder = tmp_path_factory.mktemp("relay")
    (folder / "login").write_text(f"{USER}:{PASSWORD}\n")
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(row.open_peer())
        except PeerMissing as error:
            pytest.skip(str(error))
        backend = row.backend.format(peer=peer, folder=folder)
        ports = [
            stack.enter_context(
                Twistd("--protocol", protocol, "--hostname", "relay.example.org", "--backend", backend, folder=folder)
            ).port
            for protocol in ("smtp", "lmtp")
        ]
        yield Route(row, peer, *ports)


def connect(route: Route) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", route.port, timeout=TIMEOUT)


def connect_directly(peer: Peer) -> smtplib.SMTP:
    if peer.protocol == "smtp":
        return smtplib.SMTP(peer.host, peer.port, timeout=TIMEOUT)
    if peer.socket is not None:
        return smtplib.LMTP(str(peer.socket), timeout=TIMEOUT)
    return smtplib.LMTP(peer.host, peer.port, timeout=TIMEOUT)


def submit(client: smtplib.SMTP, recipients: list[str], octets: bytes, way: str = "DATA") -> list[Reply]:
    """Send a message, and give the replies to each RCPT and to the message."""
    client.ehlo_or_helo_if_needed()
    client.mail(SENDER, ["SMTPUTF8"] if octets == UTF8_HEADER else [])
    replies = [client.rcpt(recipient) for recipient in recipients]
    if way == "BDAT":
        client.send(b"BDAT %d LAST\r\n" % len(octets) + octets)
        return [*replies, client.getreply()]
    return [*replies, client.data(octets)]


def check_stored(route: Route, mailbox: str, octets: bytes, replies: list[Reply]) -> None:
    """It is in the mailbox, the sender has the next hop's name for it, and one Received field is ours."""
    (stored,) = route.peer.stored(mailbox)
    check_octets(stored, octets)
    front = stored[: len(stored) - len(octets)]
    assert front.count(b"\r\n\tby relay.example.org ") == 1, front
    assert re.search(route.row.trace.encode(), front), front
    code, text = replies[-1]
    queued = re.search(route.row.queued, text.decode())
    assert (code, queued is not None) == (250, True), replies
    assert queued is not None and queued[1].encode() in front


def test_every_message_by_every_way(route: Route) -> None:
    with connect(route) as client:
        for octets in (TEXT, EIGHT_BIT, *([UTF8_HEADER] if route.peer.has("SMTPUTF8") else [])):
            for way in WAYS:
                mailbox = route.peer.fresh()
                check_stored(route, mailbox, octets, submit(client, [mailbox], octets, way))


def test_swaks(route: Route, tmp_path: Path) -> None:
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    source = tmp_path / "message.eml"
    source.write_bytes(EIGHT_BIT)
    mailbox = route.peer.fresh()
    place = ("--server", f"127.0.0.1:{route.port}", "--from", SENDER, "--to", mailbox)
    done = subprocess.run(["swaks", *place, "--data", f"@{source}"], capture_output=True, timeout=TIMEOUT, check=True)
    answers = [line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.startswith("<-  250 ")]
    # swaks adds a line end to the file's own. The last answer but the one to QUIT is that to the message.
    check_stored(route, mailbox, EIGHT_BIT + b"\r\n", [(250, answers[-1].removeprefix("<-  250 ").encode())])


def test_25_mebibytes(route: Route) -> None:
    mailbox = route.peer.fresh()
    with connect(route) as client:
        check_stored(route, mailbox, big_message(), submit(client, [mailbox], big_message()))


def test_some_recipients_are_refused(route: Route) -> None:
    """Each as the next hop itself refuses it; the others get the message."""
    refused = [route.peer.refused() for _ in range(10)]
    mailboxes = [route.peer.fresh() for _ in range(40)]
    with connect_directly(route.peer) as client:
        client.ehlo_or_helo_if_needed()
        client.mail(SENDER)
        expected = [client.rcpt(recipient) for recipient in refused]
    recipients = [*mailboxes[:20], *refused, *mailboxes[20:]]
    with connect(route) as client:
        replies = submit(client, recipients, EIGHT_BIT)
    assert replies[20:30] == expected
    assert {code for code, _ in expected} == {550}
    assert {code for code, _ in (*replies[:20], *replies[30:])} == {250}
    for mailbox in mailboxes:
        (stored,) = route.peer.stored(mailbox)
        check_octets(stored, EIGHT_BIT)


def test_all_recipients_are_refused(route: Route) -> None:
    """And the connection serves the next message all the same."""
    mailbox = route.peer.fresh()
    with connect(route) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(SENDER, [route.peer.refused(), route.peer.refused()], TEXT)
        check_stored(route, mailbox, TEXT, submit(client, [mailbox], TEXT))


def test_the_message_is_refused(route: Route) -> None:
    """With the next hop's own words, by DATA and by BDAT."""
    if route.peer.protocol == "lmtp":
        recipient, octets = f"{FULL[0]}@{DOMAIN}", TEXT
    else:
        recipient, octets = route.peer.fresh(), b"X-Refuse-Me: now\r\n" + TEXT
    with connect_directly(route.peer) as client:
        (_, expected) = submit(client, [recipient], octets)
    assert expected[0] in (550, 552)
    with connect(route) as client:
        for way in WAYS:
            (_, reply) = submit(client, [recipient], octets, way)
            assert reply == expected, way
    assert route.peer.stored(recipient, 0) == []


def test_a_sender_who_gives_up(route: Route) -> None:
    """After RCPT by RSET, and in the middle of a message by going: the next hop stores nothing."""
    mailbox = route.peer.fresh()
    with connect(route) as client:
        client.ehlo_or_helo_if_needed()
        client.mail(SENDER)
        client.rcpt(mailbox)
        client.rset()
        client.mail(SENDER)
        client.rcpt(mailbox)
        client.putcmd("DATA")
        assert client.getreply()[0] == 354
        client.send(HEADER + b"\r\n" + b"half\r\n" * 100_000)
        client.close()
    other = route.peer.fresh()
    with connect(route) as client:
        check_stored(route, other, TEXT, submit(client, [other], TEXT))
    assert route.peer.stored(mailbox, 0) == []


def test_lmtp_on_both_sides(route: Route) -> None:
    """Each recipient has the answer that the next hop has for it, or for all."""
    first, full, last = route.peer.fresh(), f"{FULL[1]}@{DOMAIN}", route.peer.fresh()
    recipients = [first, full, last] if route.peer.protocol == "lmtp" else [first, last]
    with smtplib.LMTP("127.0.0.1", route.lmtp_port, timeout=TIMEOUT) as client:
        replies = submit(client, recipients, EIGHT_BIT)[len(recipients) :]
        replies += [client.getreply() for _ in recipients[1:]]
    for recipient, (code, text) in zip(recipients, replies, strict=True):
        assert (code, b"5.2.2" in text) == ((552, True) if recipient == full else (250, False)), replies
    for mailbox in (first, last):
        (stored,) = route.peer.stored(mailbox)
        check_octets(stored, EIGHT_BIT)
