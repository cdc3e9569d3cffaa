"""
Dovecot in front of us: as a relay for submissions, as a proxy for them, and as a proxy of LMTP.

It says by XCLIENT who its client is; as a relay also as whom that has logged in.
The clients are smtplib's. For those from elsewhere Dovecot is told of them itself.
"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from tests.interop.proxied import CLIENT, SENDER, TEXT, Client, address_of, header
from tests.interop.servers.behind import Behind, behind_proxies
from tests.interop.servers.common import PASSWORD, USER
from tests.interop.servers.dovecot_proxies import Fronts, dovecot_proxies
from tests.interop.servers.packages import PeerMissing

#: Who is handed over; :data:`USER` is relayed.
HANDED_OVER, REFUSED, LIMITED, UNLISTED = "ann", "ben", "cyd", "dan"

_USERS = 'auth = "users"\nroutes = [ { to = "*", login = true, deliver = "origins" } ]'

LISTENERS = {
    "users": f'xclient = ["127.0.0.1"]\n{_USERS}',
    # Dovecot itself has to come in before it can speak for others.
    "strict": 'xclient = ["127.0.0.1"]\nchecks = ["networks:127.0.0.0/8:203.0.113.7"]\nprotocol = "lmtp"',
    "limited": 'xclient = ["127.0.0.1"]\nprotocol = "lmtp"\nlimits = { max_connections_per_address = 1 }',
    "lmtp": 'xclient = ["127.0.0.1"]\nprotocol = "lmtp"',
    # Dovecot stands elsewhere.
    "unlisted": 'xclient = ["192.0.2.0/24"]\nprotocol = "lmtp"',
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind_proxies(tmp_path_factory.mktemp("dovecot"), LISTENERS) as running:
        yield running


@pytest.fixture(scope="module")
def fronts(behind: Behind) -> Iterator[Fronts]:
    ports = {name: clear for name, (clear, _) in behind.ports.items()}
    users = {USER: None, f"{HANDED_OVER}@local.example": ports["lmtp"], f"{REFUSED}@local.example": ports["strict"]}
    users |= {f"{LIMITED}@local.example": ports["limited"], f"{UNLISTED}@local.example": ports["unlisted"]}
    try:
        with dovecot_proxies(ports["users"], users) as running:
            yield running
    except PeerMissing as error:
        pytest.skip(str(error))


def lmtp(fronts: Fronts, source: str = "") -> smtplib.SMTP:
    """A client of Dovecot's proxy of LMTP; one from elsewhere, if it says so."""
    client = Client(fronts.lmtp)
    client.docmd("LHLO client.example.com")
    if source:
        assert client.docmd(f"XCLIENT ADDR={source} PORT=1234")[0] == 220
        client.docmd("LHLO client.example.com")
    assert client.mail(SENDER)[0] == 250
    return client


def test_the_relay(behind: Behind, fronts: Fronts) -> None:
    """Who has logged in at Dovecot may send, and is known by name."""
    recipient = behind.fresh()
    with Client(fronts.submission) as client:
        peer = address_of(client)
        client.login(USER, PASSWORD)
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.peer, seen.host, seen.identity, seen.mechanism) == (peer, CLIENT, USER, "XCLIENT")
    # Dovecot says HELO=client.example.com, and then EHLO for itself.
    assert seen.hello_name == "client.example.com"
    assert f"Received: from client.example.com ([{CLIENT}]) " in seen.received
    connection = behind.logged(rf"(\w+): {seen.proxy} speaks for {peer}\n")[1]
    behind.logged(rf"{connection}: {peer} authenticated as {USER} by XCLIENT\n")
    behind.logged(rf"{connection}\.1: {peer} <{SENDER}> to <{recipient}>, ")
    port = peer.rpartition(":")[2]
    assert behind.said(connection)[:3] == [
        "EHLO dovecot.example.net",
        f"XCLIENT HELO=client.example.com PROTO=ESMTP LOGIN={USER} PORT={port} ADDR={CLIENT}",
        "EHLO dovecot.example.net",
    ]


@pytest.mark.parametrize("source", ["203.0.113.9", "2001:db8::9"])
def test_the_relay_and_a_client_from_elsewhere(behind: Behind, fronts: Fronts, source: str) -> None:
    recipient = behind.fresh()
    with Client(fronts.told, first=header(source)) as client:
        client.login(USER, PASSWORD)
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.host, seen.identity) == (source, USER)
    assert seen.peer.endswith(":1234")


def test_the_proxy_of_lmtp(behind: Behind, fronts: Fronts) -> None:
    recipient = f"{HANDED_OVER}@local.example"
    with lmtp(fronts) as client:
        peer = address_of(client)
        assert client.rcpt(recipient)[0] == 250
        assert client.data(TEXT)[0] == 250
    seen = behind.seen(recipient)
    assert (seen.peer, seen.host, seen.identity) == (peer, CLIENT, "")
    connection = behind.logged(rf"(\w+): {seen.proxy} speaks for {peer}\n")[1]
    port = peer.rpartition(":")[2]
    assert behind.said(connection)[:3] == [
        "LHLO dovecot.example.net",
        f"XCLIENT HELO=client.example.com PROTO=LMTP PORT={port} ADDR={CLIENT}",
        "LHLO dovecot.example.net",
    ]


def test_a_check_asks_about_the_client(behind: Behind, fronts: Fronts) -> None:
    recipient = f"{REFUSED}@local.example"
    with lmtp(fronts, "203.0.113.7") as client:
        assert client.rcpt(recipient)[0] == 250
    with lmtp(fronts, "203.0.113.8") as client:
        # Dovecot does not look at the answer to XCLIENT, and has another one to what it says next.
        assert client.rcpt(recipient)[0] == 503
    behind.logged(r"203\.0\.113\.8:1234 XCLIENT .* refused: 554 5\.7\.1 ")


def test_a_limit_counts_the_client(behind: Behind, fronts: Fronts) -> None:
    recipient = f"{LIMITED}@local.example"
    with lmtp(fronts, "203.0.113.7") as first:
        assert first.rcpt(recipient)[0] == 250
        with lmtp(fronts, "203.0.113.7") as second:
            assert second.rcpt(recipient)[0] == 451
        with lmtp(fronts, "203.0.113.8") as third:
            assert third.rcpt(recipient)[0] == 250
    behind.logged(r"203\.0\.113\.7:1234 XCLIENT .* refused: 421 4\.7\.0 Too many connections from your address")


def test_an_unlisted_proxy(behind: Behind, fronts: Fronts) -> None:
    """It is not offered XCLIENT, and does not say it: it is who it is."""
    recipient = f"{UNLISTED}@local.example"
    with lmtp(fronts) as client:
        assert client.rcpt(recipient)[0] == 250
        assert client.data(TEXT)[0] == 250
    seen = behind.seen(recipient)
    assert (seen.host, seen.proxy) == ("127.0.0.1", "")
