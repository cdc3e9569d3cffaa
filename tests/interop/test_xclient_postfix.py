"""
XCLIENT as Postfix's smtpd has it, which it comes from: in the same dialog it and we give the same codes at each step.

And both name the same client in what they write in front of the message. Postfix
takes part as a server only: its own smtp(8) never says XCLIENT.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.interop.postfix import unpacked_postfix
from tests.interop.proxied import CLIENT, Client, TLSClient, codes, swaks
from tests.interop.servers.behind import Behind, behind_proxies
from tests.interop.servers.common import PASSWORD, USER, Peer
from tests.interop.servers.packages import PeerMissing
from tests.interop.servers.postfix_server import postfix_server

PROXY = "127.0.0.1"

LISTENERS = {
    "open": f'xclient = ["{PROXY}"]\nauth = {{ use = "users", required = false }}',
    "users": f'xclient = ["{PROXY}"]\nauth = "users"',
    "strict": f'xclient = ["{PROXY}"]\nchecks = ["networks:{PROXY}:203.0.113.7"]',
    "limited": f'xclient = ["{PROXY}"]\nlimits = {{ max_connections_per_address = 1 }}',
}

_SETTINGS = f"""\
smtpd_authorized_xclient_hosts = {PROXY}
smtpd_peername_lookup = no
smtpd_helo_required = yes
inet_protocols = all
"""

#: What is wrong with each, it says itself.
BAD = (
    *("", "FOO=bar", "ADDR", "ADDR=", "NAME=", "LOGIN=", "ADDR=999.1.1.1", "ADDR=client.example", "NAME=-a"),
    *("NAME=a.example.", "PORT=x", "PORT=-1", "PROTO=UUCP", "DESTADDR=x", "DESTPORT=x", "ADDR=192.0.2.1 FOO=x"),
)

GOOD = (
    *("ADDR=192.0.2.1", "addr=192.0.2.1", "ADDR=IPV6:2001:db8::1", "ADDR=IPv6:2001:db8::1", "ADDR=[UNAVAILABLE]"),
    *("NAME=[unavailable]", "NAME=[TEMPUNAVAIL]", "NAME=a_b.example", "PROTO=smtp", "LOGIN=joe+tag", "LOGIN=a+41"),
    *("DESTADDR=192.0.2.25 DESTPORT=25", "ADDR=192.0.2.1 PORT=4321 NAME=a.example HELO=b.example PROTO=ESMTP"),
)

_BEGIN = ("EHLO proxy.example", "XCLIENT ADDR=203.0.113.7", "EHLO client.example.com")
_MAIL = "MAIL FROM:<sender@example.net>"
_LOGIN = "AUTH PLAIN AGpvZQBzZWNyZXQgb2Ygam9l"


class Dialog(NamedTuple):
    """
    :ivar source: where it is said.
    :ivar commands: each with the code that it has in the end.
    """

    source: str
    commands: tuple[tuple[str, int], ...]


DIALOGS = {
    "not listed": Dialog(
        CLIENT,
        (
            ("EHLO proxy.example", 250),
            ("XCLIENT ADDR=203.0.113.7", 550),
            (_MAIL, 250),
            ("XCLIENT ADDR=203.0.113.7", 503),
            ("RSET", 250),
            ("XCLIENT ADDR=203.0.113.7", 550),
        ),
    ),
    "before EHLO": Dialog(PROXY, (("XCLIENT ADDR=203.0.113.7", 220), ("EHLO client.example.com", 250), (_MAIL, 250))),
    "behind HELO": Dialog(
        PROXY,
        (("HELO proxy.example", 250), ("XCLIENT ADDR=203.0.113.7", 220), (_MAIL, 503), ("HELO a.example", 250)),
    ),
    "EHLO is due again": Dialog(
        PROXY,
        (("EHLO proxy.example", 250), ("XCLIENT ADDR=203.0.113.7", 220), (_MAIL, 503), ("EHLO b", 250), (_MAIL, 250)),
    ),
    "within a transaction": Dialog(
        PROXY,
        (
            ("EHLO proxy.example", 250),
            (_MAIL, 250),
            ("XCLIENT ADDR=203.0.113.7", 503),
            ("RCPT TO:<u0@local.example>", 250),
            ("XCLIENT ADDR=203.0.113.7", 503),
            ("RSET", 250),
            ("XCLIENT ADDR=203.0.113.7", 220),
        ),
    ),
    "after ADDR it is another client, who is not listed": Dialog(
        PROXY,
        (
            *zip(_BEGIN, (250, 220, 250), strict=True),
            ("XCLIENT ADDR=203.0.113.8", 550),
            ("XCLIENT ADDR=127.0.0.1", 550),
            (_MAIL, 250),
        ),
    ),
    "without ADDR it is the same": Dialog(
        PROXY,
        (
            ("EHLO proxy.example", 250),
            ("XCLIENT NAME=client.example.com", 220),
            ("XCLIENT LOGIN=joe", 220),
            ("EHLO proxy.example", 250),
            ("XCLIENT ADDR=203.0.113.7", 220),
            ("XCLIENT LOGIN=max", 550),
        ),
    ),
    "after LOGIN there is no AUTH": Dialog(
        PROXY, (("XCLIENT ADDR=203.0.113.7 LOGIN=joe", 220), ("EHLO client.example.com", 250), (_LOGIN, 503))
    ),
    **{
        f"bad: {text}": Dialog(PROXY, (("EHLO a", 250), (f"XCLIENT {text}".rstrip(), 501), (_MAIL, 250)))
        for text in BAD
    },
    **{f"good: {text}": Dialog(PROXY, (("EHLO a", 250), (f"XCLIENT {text}", 220), ("EHLO b", 250))) for text in GOOD},
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind_proxies(tmp_path_factory.mktemp("xclient"), LISTENERS) as running:
        yield running


@pytest.fixture(scope="module")
def postfix() -> Iterator[Peer]:
    try:
        with postfix_server(settings=_SETTINGS) as peer:
            yield peer
    except PeerMissing as error:
        pytest.skip(str(error))


def say(port: int, dialog: Dialog) -> list[tuple[str, int]]:
    client = Client(port, source=dialog.source)
    replies = [(command, client.docmd(command)[0]) for command, _ in dialog.commands]
    client.close()
    return replies


@pytest.mark.parametrize("name", DIALOGS)
def test_dialogs(behind: Behind, postfix: Peer, name: str) -> None:
    dialog = DIALOGS[name]
    assert say(postfix.port, dialog) == list(dialog.commands)
    assert say(behind.ports["open"][0], dialog) == list(dialog.commands)


def offers(port: int, source: str) -> set[str]:
    """The attributes that EHLO names; empty if XCLIENT is not offered."""
    client = Client(port, source=source)
    client.ehlo()
    client.close()
    return set(client.esmtp_features.get("xclient", "").split())


def test_it_is_offered_to_whom_it_is_for(behind: Behind, postfix: Peer) -> None:
    ours = offers(behind.ports["open"][0], PROXY)
    # Postfix takes one more, which its documentation does not have.
    assert offers(postfix.port, PROXY) - ours <= {"REVERSE_NAME"}
    assert ours <= offers(postfix.port, PROXY)
    assert offers(behind.ports["open"][0], CLIENT) == offers(postfix.port, CLIENT) == set()


@pytest.mark.parametrize(
    ("address", "shown"), [("203.0.113.7", "203.0.113.7"), ("IPV6:2001:db8::7", "IPv6:2001:db8::7")]
)
def test_swaks(behind: Behind, postfix: Peer, address: str, shown: str) -> None:
    """Both take the message, in the same steps, from the same client."""
    options = ["--xclient-addr", address, "--xclient-name", "name.example", "--xclient-port", "4321"]
    options += ["--xclient-helo", "told.example", "--xclient-proto", "ESMTP", "--xclient-login", "joe@example.org"]
    recipient = postfix.fresh()
    theirs = swaks(postfix.port, "--to", recipient, *options, source=PROXY)
    ours = swaks(behind.ports["users"][0], "--to", recipient, *options, source=PROXY)
    assert codes(ours) == codes(theirs)
    assert [code for code in codes(ours) if code in (220, 354)] == [220, 220, 354]
    (stored,) = postfix.stored(recipient)
    seen = behind.seen(recipient)
    trace = f"Received: from client.example.com (name.example [{shown}])".encode()
    assert trace in stored
    # Postfix takes the name of the EHLO behind it, which is the proxy's own if that is Dovecot.
    assert f"Received: from told.example ([{shown}])" in seen.received
    assert b" with ESMTPA id " in stored
    assert " with ESMTPA id " in seen.received
    assert (seen.name, seen.identity, seen.mechanism) == ("name.example", "joe@example.org", "XCLIENT")
    assert seen.peer.endswith(":4321")
    behind.logged(r"authenticated as joe@example\.org by XCLIENT\n")


def test_swaks_says_it_twice(behind: Behind, postfix: Peer) -> None:
    """The second time it is refused."""
    options = ("--to", postfix.fresh(), "--xclient", "ADDR=203.0.113.7", "--xclient", "ADDR=203.0.113.8")
    theirs = swaks(postfix.port, *options, source=PROXY)
    ours = swaks(behind.ports["open"][0], *options, source=PROXY)
    assert codes(ours) == codes(theirs)
    assert "550 5.7.0 XCLIENT is not for you" in ours


def test_starttls_comes_first(behind: Behind, postfix: Peer) -> None:
    """XCLIENT within TLS, which lasts."""
    recipient = postfix.fresh()
    options = ("--to", recipient, "--tls", "--xclient-addr", "203.0.113.7")
    theirs = swaks(postfix.port, *options, source=PROXY)
    assert codes(swaks(behind.ports["open"][0], *options, source=PROXY)) == codes(theirs)
    seen = behind.seen(recipient)
    assert (seen.host, seen.tls) == ("203.0.113.7", True)
    assert " with ESMTPS (TLS" in seen.received


def test_a_check_asks_about_the_client(behind: Behind) -> None:
    replies = {
        address: swaks(behind.ports["strict"][0], "--to", behind.fresh(), "--xclient-addr", address, source=PROXY)
        for address in ("203.0.113.7", "203.0.113.8")
    }
    assert 354 in codes(replies["203.0.113.7"])
    assert "554 5.7.1 Access denied for your address" in replies["203.0.113.8"]


def test_a_limit_counts_the_client(behind: Behind) -> None:
    """Once it has gone, there is room again."""
    port = behind.ports["limited"][0]

    def speak_for(address: str) -> tuple[smtplib.SMTP, int]:
        client = Client(port, source=PROXY)
        client.ehlo()
        return client, client.docmd(f"XCLIENT ADDR={address}")[0]

    first, code = speak_for("203.0.113.7")
    assert code == 220
    second, code = speak_for("203.0.113.7")
    assert code == 421
    third, code = speak_for("203.0.113.8")
    assert code == 220
    begin = len(behind.server.log)
    for client in (first, second, third):
        client.close()
    behind.logged(r"203\.0\.113\.7 XCLIENT .* refused: 421 4\.7\.0 Too many connections from your address")
    behind.logged(r"disconnected \((.|\n)*disconnected \(", begin)
    again, code = speak_for("203.0.113.7")
    again.close()
    assert code == 220


def test_without_a_login(behind: Behind) -> None:
    """That XCLIENT is believed does not make its client one who may send; nor does that its proxy has logged in."""
    context = ssl.create_default_context(cafile=str(behind.certificate))
    with TLSClient(behind.ports["users"][1], context, source=PROXY) as client:
        client.login(USER, PASSWORD)
        assert client.docmd("XCLIENT ADDR=203.0.113.7")[0] == 220
        assert client.docmd("EHLO client.example.com")[0] == 250
        assert client.docmd(_MAIL)[0] == 530


def test_postfix_never_says_it() -> None:
    """Its client knows XFORWARD only, which tells and does not pretend: nothing of Postfix can stand before us."""
    try:
        with unpacked_postfix() as root:
            octets = (root / "usr/lib/postfix/sbin/smtp").read_bytes()
    except PeerMissing as error:
        pytest.skip(str(error))
    assert b"XFORWARD" in octets
    assert b"XCLIENT" not in octets
