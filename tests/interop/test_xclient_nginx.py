"""
nginx's mail proxy in front of us: it says by XCLIENT who its client is, and as whom that has logged in at nginx.

The clients are smtplib's. For those from elsewhere nginx is told of them itself, by a PROXY header.
"""

from __future__ import annotations

import re
import smtplib
from base64 import b64encode
from collections.abc import Iterator

import pytest

from tests.interop.proxied import CLIENT, SENDER, TEXT, Client, address_of, header
from tests.interop.servers.behind import HOSTNAME, Behind, behind_proxies
from tests.interop.servers.common import PASSWORD, USER
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.proxies import Front, Route, nginx

LISTENERS = {
    "open": 'xclient = ["127.0.0.1"]',
    # nginx itself has to come in before it can speak for others.
    "strict": 'xclient = ["127.0.0.1"]\nchecks = ["networks:127.0.0.1:203.0.113.7"]',
    "limited": 'xclient = ["127.0.0.1"]\nlimits = { max_connections_per_address = 1 }',
    "users": 'xclient = ["127.0.0.1"]\nauth = "users"\nroutes = [ { to = "*", login = "joe", deliver = "origins" } ]',
    "both": 'proxy = ["127.0.0.1"]\nxclient = ["127.0.0.1"]',
    "proxy": 'proxy = ["127.0.0.1"]',
    # nginx stands elsewhere.
    "unlisted": 'xclient = ["192.0.2.0/24"]',
}

_WITHOUT_LOGIN = "smtp_auth none; xclient on;"
_WITH_LOGIN = "smtp_auth login plain; xclient on;"


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind_proxies(tmp_path_factory.mktemp("nginx"), LISTENERS) as running:
        yield running


@pytest.fixture(scope="module")
def front(behind: Behind) -> Iterator[Front]:
    ports = {name: clear for name, (clear, _) in behind.ports.items()}
    routes = {f"{name}-told": Route(ports[name], _WITHOUT_LOGIN, told=True) for name in ports}
    routes["open"] = Route(ports["open"], _WITHOUT_LOGIN)
    routes["unlisted"] = Route(ports["unlisted"], _WITHOUT_LOGIN)
    routes["users"] = Route(ports["users"], _WITH_LOGIN)
    routes["login-told"] = Route(ports["open"], _WITH_LOGIN, told=True)
    routes["both"] = Route(ports["both"], f"{_WITH_LOGIN} proxy_protocol on;")
    routes["proxy"] = Route(ports["proxy"], "smtp_auth none; xclient off; proxy_protocol on;")
    try:
        with nginx(routes) as running:
            yield running
    except PeerMissing as error:
        pytest.skip(str(error))


def rcpt(client: smtplib.SMTP, recipient: str) -> tuple[int, bytes]:
    """The answer to RCPT. Before, nginx does not connect to us, unless its client logs in."""
    client.ehlo()
    assert client.mail(SENDER)[0] == 250
    return client.rcpt(recipient)


def test_a_client(behind: Behind, front: Front) -> None:
    recipient = behind.fresh()
    with Client(front.ports["open"]) as client:
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    # nginx does not tell its client's port, nor what that has connected to.
    assert (seen.peer, seen.host, seen.name) == (CLIENT, CLIENT, "")
    assert seen.local == f"127.0.0.1:{behind.ports['open'][0]}"
    assert (seen.hello_name, seen.identity, seen.mechanism) == ("client.example.com", "", "")
    assert f"Received: from client.example.com ([{CLIENT}]) by {HOSTNAME} with ESMTP id " in seen.received
    connection = behind.logged(rf"(\w+): {seen.proxy} speaks for {seen.peer}\n")[1]
    behind.logged(rf"{connection}: connected from {seen.proxy}\n")
    behind.logged(rf"{connection}\.1: {seen.peer} <{SENDER}> to <{recipient}>, ")
    assert behind.said(connection)[:3] == [
        "EHLO nginx.example.net",
        f"XCLIENT ADDR={CLIENT} NAME=[UNAVAILABLE]",
        "EHLO client.example.com",
    ]


def test_a_login(behind: Behind, front: Front) -> None:
    """Who has logged in at nginx may send, and is known by name."""
    recipient = behind.fresh()
    with Client(front.ports["users"]) as client:
        client.login(USER, PASSWORD)
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.host, seen.identity, seen.mechanism) == (CLIENT, USER, "XCLIENT")
    assert " with ESMTPA id " in seen.received
    connection = behind.logged(rf"(\w+): {seen.peer} authenticated as {USER} by XCLIENT\n")[1]
    assert behind.said(connection)[1] == f"XCLIENT ADDR={CLIENT} LOGIN={USER} NAME=[UNAVAILABLE]"


def test_a_login_with_a_plus(behind: Behind, front: Front) -> None:
    """nginx writes it as it is, and not as xtext."""
    recipient = behind.fresh()
    with Client(front.ports["login-told"], first=header("203.0.113.6")) as client:
        client.login(f"{USER}+tag", PASSWORD)
        client.sendmail(SENDER, [recipient], TEXT)
    assert behind.seen(recipient).identity == f"{USER}+tag"


def test_a_wrong_password(behind: Behind, front: Front) -> None:
    """nginx does not connect to us."""
    with Client(front.ports["login-told"], first=header("203.0.113.66")) as client:
        client.ehlo()
        assert client.docmd("AUTH PLAIN", b64encode(f"\0{USER}\0wrong".encode()).decode())[0] == 535
    with Client(behind.ports["open"][0]) as directly:
        peer = address_of(directly)
    behind.logged(rf"connected from {peer}\n")
    assert "203.0.113.66" not in behind.server.log


def test_without_a_login(behind: Behind, front: Front) -> None:
    """That XCLIENT is believed does not make its client one who may send."""
    with Client(front.ports["users-told"], first=header("203.0.113.5")) as client:
        assert rcpt(client, behind.fresh())[0] == 530
    behind.logged(r"203\.0\.113\.5 MAIL .* refused: 530 5\.7\.0 ")


@pytest.mark.parametrize("source", ["203.0.113.9", "2001:db8::9"])
def test_a_client_from_elsewhere(behind: Behind, front: Front, source: str) -> None:
    recipient = behind.fresh()
    with Client(front.ports["login-told"], first=header(source)) as client:
        client.login(USER, PASSWORD)
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.host, seen.identity) == (source, USER)
    tag = "IPv6:" if ":" in source else ""
    assert f"([{tag}{source}])" in seen.received
    connection = behind.logged(rf"(\w+): \S+ speaks for {re.escape(seen.peer)}\n")[1]
    assert behind.said(connection)[1] == f"XCLIENT ADDR={tag.upper()}{source} LOGIN={USER} NAME=[UNAVAILABLE]"


def test_a_check_asks_about_the_client(behind: Behind, front: Front) -> None:
    with Client(front.ports["strict-told"], first=header("203.0.113.7")) as client:
        assert rcpt(client, behind.fresh())[0] == 250
    with Client(front.ports["strict-told"], first=header("203.0.113.8")) as client:
        assert rcpt(client, behind.fresh()) == (554, b"5.7.1 Access denied for your address")
    behind.logged(r"203\.0\.113\.8 XCLIENT ADDR=203\.0\.113\.8 .* refused: 554 5\.7\.1 ")


def test_a_limit_counts_the_client(behind: Behind, front: Front) -> None:
    port = front.ports["limited-told"]
    with Client(port, first=header("203.0.113.7")) as first:
        assert rcpt(first, behind.fresh())[0] == 250
        with Client(port, first=header("203.0.113.7")) as second:
            assert rcpt(second, behind.fresh())[0] == 421
        with Client(port, first=header("203.0.113.8")) as third:
            assert rcpt(third, behind.fresh())[0] == 250
    behind.logged(r"203\.0\.113\.7 XCLIENT .* refused: 421 4\.7\.0 Too many connections from your address")


def test_proxy_and_xclient(behind: Behind, front: Front) -> None:
    """Whom PROXY has named is the client, and is not listed: nginx has to choose one of both."""
    with Client(front.ports["both"]) as client:
        peer = address_of(client)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.login(USER, PASSWORD)
    connection = behind.logged(rf"(\w+): connected from {peer} by way of 127\.0\.0\.1:\d+\n")[1]
    behind.logged(rf"{connection}: {peer} XCLIENT .* refused: 550 5\.7\.0 XCLIENT is not for you\n")


def test_proxy(behind: Behind, front: Front) -> None:
    recipient = behind.fresh()
    with Client(front.ports["proxy"]) as client:
        peer = address_of(client)
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.peer, seen.local) == (peer, f"127.0.0.1:{front.ports['proxy']}")
    # Without XCLIENT nginx does not pass on what its client calls itself.
    assert seen.hello_name == "nginx.example.net"


def test_an_unlisted_proxy(behind: Behind, front: Front) -> None:
    """It is not offered XCLIENT, says it all the same, and is refused."""
    with smtplib.SMTP("127.0.0.1", behind.ports["unlisted"][0]) as directly:
        directly.ehlo()
        assert not directly.has_extn("xclient")
    with Client(front.ports["unlisted"]) as client:
        assert rcpt(client, behind.fresh()) == (550, b"5.7.0 XCLIENT is not for you")
    refused = behind.logged(r"(\w+): (127\.0\.0\.1:\d+) XCLIENT (.*) refused: 550 5\.7\.0 XCLIENT is not for you\n")
    assert refused[3] == f"ADDR={CLIENT} NAME=[UNAVAILABLE]"
    assert f"{refused[2]} speaks for " not in behind.server.log
