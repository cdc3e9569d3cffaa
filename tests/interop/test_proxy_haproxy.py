"""
HAProxy in front of us, with version 1 and version 2 of the PROXY protocol: whoever is asked sees the client behind it.

And who is not among the networks of the proxies is taken for who it is,
whatever it says. The clients are smtplib and swaks.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.interop.proxied import CLIENT, SENDER, TEXT, Way, address_of, codes, connect, greeting, header, swaks
from tests.interop.servers.behind import HOSTNAME, Behind, behind_proxies
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.proxies import Front, Route, haproxy

VERSIONS = ("send-proxy", "send-proxy-v2")

LISTENERS = {
    "open": 'proxy = ["127.0.0.1"]',
    "strict": 'proxy = ["127.0.0.1"]\nchecks = ["networks:127.0.0.2"]',
    "limited": 'proxy = ["127.0.0.1"]\nlimits = { max_connections_per_address = 1 }',
    "rated": 'proxy = ["127.0.0.1"]\nchecks = ["rate:ip=1/h"]',
    "hasty": 'proxy = ["127.0.0.1"]\nlimits = { proxy_timeout = "200ms" }',
    # HAProxy stands elsewhere.
    "unlisted": 'proxy = ["192.0.2.0/24"]',
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind_proxies(tmp_path_factory.mktemp("haproxy"), LISTENERS) as running:
        yield running


@pytest.fixture(scope="module")
def front(behind: Behind) -> Iterator[Front]:
    routes = {}
    for version in VERSIONS:
        for listener, (clear, implicit) in behind.ports.items():
            routes[f"{version}-{listener}"] = Route(clear, version)
            routes[f"{version}-{listener}-implicit"] = Route(implicit, version)
        routes[f"{version}-told"] = Route(behind.ports["open"][0], version, told=True)
        routes[f"{version}-limited-told"] = Route(behind.ports["limited"][0], version, told=True)
    routes["silent"] = Route(behind.ports["hasty"][0], "")
    try:
        with haproxy(routes) as running:
            yield running
    except PeerMissing as error:
        pytest.skip(str(error))


def port_of(front: Front, version: str, listener: str, way: Way = Way.CLEAR) -> int:
    return front.ports[f"{version}-{listener}-implicit" if way is Way.IMPLICIT else f"{version}-{listener}"]


versions = pytest.mark.parametrize("version", VERSIONS)
ways = pytest.mark.parametrize("way", Way, ids=lambda way: way.value)


@versions
@ways
def test_smtplib(behind: Behind, front: Front, version: str, way: Way) -> None:
    recipient = behind.fresh()
    port = port_of(front, version, "open", way)
    with connect(port, way, behind.certificate) as client:
        peer = address_of(client)
        assert client.sendmail(SENDER, [recipient], TEXT) == {}
    seen = behind.seen(recipient)
    assert (seen.peer, seen.host, seen.local) == (peer, CLIENT, f"127.0.0.1:{port}")
    assert (seen.hello_name, seen.tls) == ("client.example.com", way is not Way.CLEAR)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", seen.proxy)
    assert seen.proxy not in (seen.local, seen.peer)
    assert f"Received: from client.example.com ([{CLIENT}]) by {HOSTNAME} " in seen.received
    connection = behind.logged(rf"(\w+): connected from {peer} by way of {seen.proxy}\n")[1]
    behind.logged(rf"{connection}\.1: {peer} <{SENDER}> to <{recipient}>, ")


@versions
@ways
def test_swaks(behind: Behind, front: Front, version: str, way: Way) -> None:
    recipient = behind.fresh()
    tls = {Way.CLEAR: (), Way.STARTTLS: ("--tls",), Way.IMPLICIT: ("--tlsc",)}[way]
    assert swaks(port_of(front, version, "open", way), "--to", recipient, *tls)[-2].startswith("250 2.0.0 ")
    seen = behind.seen(recipient)
    assert (seen.host, seen.tls) == (CLIENT, way is not Way.CLEAR)


@versions
def test_a_check_asks_about_the_client(behind: Behind, front: Front, version: str) -> None:
    port = port_of(front, version, "strict")
    assert greeting(port)[0] == 220
    assert greeting(port, source="127.0.0.3") == (554, "5.7.1 Access denied for your address")
    behind.logged(r"connected from 127\.0\.0\.3:\d+ by way of 127\.0\.0\.1:\d+\n")


@versions
def test_a_check_counts_the_client(behind: Behind, front: Front, version: str) -> None:
    port = port_of(front, version, "rated")
    # Each version has clients of its own, for they are counted together.
    first, second = ("127.0.1.1", "127.0.1.2") if version == "send-proxy" else ("127.0.2.1", "127.0.2.2")
    for source, code in ((first, 250), (first, 450), (second, 250)):
        with connect(port, Way.CLEAR, behind.certificate, source) as client:
            client.ehlo()
            assert client.mail(SENDER)[0] == code


@versions
def test_a_limit_counts_the_client(behind: Behind, front: Front, version: str) -> None:
    """HAProxy is told of clients from elsewhere, and tells us: those of the machine itself are not counted."""
    port = port_of(front, version, "limited-told")
    with connect(port, Way.CLEAR, behind.certificate, first=header("203.0.113.7", 1)):
        assert greeting(port, header("203.0.113.7", 2))[0] == 421
        assert greeting(port, header("203.0.113.8", 3))[0] == 220
    behind.logged(r"203\.0\.113\.7:2 refused: 421 4\.7\.0 Too many connections from your address")


@versions
@pytest.mark.parametrize(
    ("source", "local"),
    [("203.0.113.9", "192.0.2.25:25"), ("2001:db8::9", "[2001:db8:ffff::25]:25")],
    ids=["IPv4", "IPv6"],
)
def test_a_client_from_elsewhere(behind: Behind, front: Front, version: str, source: str, local: str) -> None:
    recipient = behind.fresh()
    with connect(port_of(front, version, "told"), Way.STARTTLS, behind.certificate, first=header(source)) as client:
        client.sendmail(SENDER, [recipient], TEXT)
    seen = behind.seen(recipient)
    assert (seen.host, seen.local) == (source, local)
    tag = "IPv6:" if ":" in source else ""
    assert f"([{tag}{source}])" in seen.received


@versions
def test_many_at_once(behind: Behind, front: Front, version: str) -> None:
    """Each is who it is."""
    port = port_of(front, version, "open")

    def send(number: int) -> str:
        recipient = behind.fresh()
        with connect(port, Way.CLEAR, behind.certificate, f"127.0.3.{number}") as client:
            client.sendmail(SENDER, [recipient], TEXT)
        return behind.seen(recipient).host

    numbers = range(1, 31)
    with ThreadPoolExecutor(len(numbers)) as pool:
        assert list(pool.map(send, numbers)) == [f"127.0.3.{number}" for number in numbers]


@versions
def test_health_checks(behind: Behind, version: str) -> None:
    """Nobody is behind them. Version 2 can say so; in version 1 HAProxy names itself."""
    before = len(behind.server.log)
    options = f"{version} check check-send-proxy inter 100ms\n    option smtpchk EHLO checks.example.net"
    try:
        with haproxy({"checked": Route(behind.ports["open"][0], options)}) as front:
            front.process.wait_for(r"Health check for server checked/smtpfw succeeded, .* code: 2\d\d,")
    except PeerMissing as error:
        pytest.skip(str(error))
    way = r" by way of \1" if version == "send-proxy" else ""
    behind.logged(rf"connected from (127\.0\.0\.1:\d+){way}\n", before)


@versions
def test_an_unlisted_proxy(behind: Behind, front: Front, version: str) -> None:
    """Its header is what it would be from anybody: no command."""
    recipient = behind.fresh()
    before = len(behind.server.log)
    client = connect(port_of(front, version, "unlisted"), Way.CLEAR, behind.certificate)
    peer = address_of(client)
    assert client.getreply()[0] == 500
    if version == "send-proxy":
        # Version 2 is no line, and swallows the next command.
        client.sendmail(SENDER, [recipient], TEXT)
        seen = behind.seen(recipient)
        assert (seen.host, seen.proxy) == ("127.0.0.1", "")
        assert seen.local == f"127.0.0.1:{behind.ports['unlisted'][0]}"
    client.close()
    behind.logged(r"connected from 127\.0\.0\.1:\d+\n(.*\n)*.*: disconnected ", before)
    assert peer not in behind.server.log


@versions
def test_an_unlisted_proxy_and_tls(behind: Behind, front: Front, version: str) -> None:
    """Nor is it TLS."""
    before = len(behind.server.log)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(port_of(front, version, "unlisted", Way.IMPLICIT), Way.IMPLICIT, behind.certificate)
    behind.logged(r"TLS handshake with 127\.0\.0\.1:\d+ failed", before)


def test_a_proxy_that_sends_no_header(behind: Behind, front: Front) -> None:
    """Nothing is said to it."""
    with pytest.raises(smtplib.SMTPServerDisconnected):
        connect(front.ports["silent"], Way.CLEAR, behind.certificate)
    behind.logged(r"127\.0\.0\.1:\d+: no PROXY header: none has come in time; does it send one\?\n")


@pytest.mark.parametrize("version", ["1", "2"])
def test_swaks_is_a_proxy_itself(behind: Behind, version: str) -> None:
    """One that is listed, and one that is not."""
    family = "TCP4" if version == "1" else "AF_INET"
    ends = ["--proxy-source", "203.0.113.10", "--proxy-source-port", "4321"]
    ends += ["--proxy-dest", "192.0.2.25", "--proxy-dest-port", "587"]
    recipient = behind.fresh()
    options = ["--to", recipient, "--proxy-version", version, "--proxy-family", family, *ends]
    assert swaks(behind.ports["open"][0], *options, "--tls", source="127.0.0.1")[-2].startswith("250 2.0.0 ")
    seen = behind.seen(recipient)
    assert (seen.peer, seen.local, seen.tls) == ("203.0.113.10:4321", "192.0.2.25:587", True)
    # 127.0.0.2 is not listed.
    assert codes(swaks(behind.ports["open"][0], *options))[:2] == [220, 500]
