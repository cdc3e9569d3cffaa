"""From a string to a connection: the policy for TLS that is meant, credentials, and what is left of what fails."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.client import ClientConfig, LMTPClientProtocol, SMTPClientProtocol, connect, connector_of
from smtpfw.errors import ConfigError, ConnectionFailed, LocalProtocolError, Refused, TimedOut, TLSFailed
from smtpfw.sasl import Plain
from smtpfw.testing import MemoryEndpoint, ScriptedPeer, silence, starttls
from tests.client.misbehaving.ways import certificates

CONFIG = ClientConfig(hello_name="me.test")
LOGIN = ("user", "secret")
GREETING = b"220 mx.test\r\n"
OFFER = ("EHLO me.test", b"250-mx.test\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n")

#: Where to, the settings, and the policy that they mean.
POLICIES: list[tuple[str, dict[str, Any], str]] = [
    ("mx.example.org", {}, "opportunistic"),
    ("mx.example.org:587", {}, "opportunistic"),
    ("mx.example.org", {"auth": LOGIN}, "required"),
    ("mx.example.org", {"ca": "/etc/ca.pem"}, "required"),
    ("192.0.2.1", {"auth": LOGIN}, "required"),
    ("lmtp:mx.example.org", {"auth": LOGIN}, "required"),
    ("smtps:mx.example.org", {}, "required"),
    ("smtps:mx.example.org", {"tls": "opportunistic"}, "opportunistic"),
    ("mx.example.org", {"auth": LOGIN, "tls": "opportunistic"}, "opportunistic"),
    ("mx.example.org", {"auth": LOGIN, "tls": "none"}, "none"),
    ("mx.example.org", {"tls": "required"}, "required"),
    # Nobody sits on the line to this machine.
    ("localhost", {"auth": LOGIN}, "opportunistic"),
    ("127.0.0.1:25", {"auth": LOGIN}, "opportunistic"),
    ("[::1]:25", {"auth": LOGIN}, "opportunistic"),
    ("localhost", {"tls": "required"}, "required"),
    ("unix:/run/smtp", {}, "none"),
    ("unix:/run/smtp", {"auth": LOGIN}, "none"),
    ("lmtp:unix:/run/lmtp", {}, "none"),
    ("unix:/run/smtp", {"tls": "required", "tls_name": "mx.test"}, "required"),
]


@pytest.mark.parametrize(("where", "settings", "policy"), POLICIES)
def test_policies(where: str, settings: dict[str, Any], policy: str) -> None:
    assert connector_of(where, **settings).tls == policy


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("mx.example.org", {"tls": "maybe"}),
        ("mx.example.org", {"tls": "Required"}),
        ("smtps:mx.example.org", {"tls": "none"}),
        ("unix:/run/smtp", {"tls": "required"}),
        ("mx.example.org", {"auth": ("user", "")}),
        ("", {}),
    ],
)
def test_what_makes_no_sense(where: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        connect(where, reactor=Clock(), **settings)


def test_the_port_is_that_of_what_one_wants() -> None:
    assert connector_of("mx.example.org").destination.text == "mx.example.org:25"
    assert connector_of("mx.example.org", auth=LOGIN).destination.text == "mx.example.org:587"


def test_no_secret_is_shown() -> None:
    connector = connector_of("mx.example.org", auth=LOGIN)
    assert "secret" not in repr(connector) and "user" not in repr(connector)


class Connecting:
    """Somebody connects to a peer that plays a script."""

    def __init__(self, script: list[Any], **settings: Any) -> None:
        self.clock = Clock()
        self.peer = ScriptedPeer(script)
        self.endpoint = MemoryEndpoint(self.peer)
        self.outcomes: list[Any] = []
        self.deferred = connect(self.endpoint, config=CONFIG, reactor=self.clock, **settings)
        self.deferred.addBoth(lambda result: self.outcomes.append(getattr(result, "value", result)))
        self.endpoint.flow()

    def check_nothing_is_left(self) -> None:
        self.endpoint.flow()
        assert [link.client_transport.closed for link in self.endpoint.links] == [True]
        assert self.clock.getDelayedCalls() == []


def test_greeted() -> None:
    connecting = Connecting([GREETING, ("EHLO me.test", b"250 mx.test\r\n"), silence])
    (client,) = connecting.outcomes
    assert type(client) is SMTPClientProtocol
    assert client.wire.idle and not client.wire.is_over


def test_tls_and_credentials() -> None:
    settings = {"ca": certificates().ca, "tls_name": "mx.test", "auth": LOGIN}
    login = ("AUTH PLAIN AHVzZXIAc2VjcmV0", b"235 OK\r\n")
    again = ("EHLO me.test", b"250-mx.test\r\n250 AUTH PLAIN\r\n")
    connecting = Connecting([GREETING, OFFER, ("STARTTLS", starttls(certificates().good)), again, login], **settings)
    (client,) = connecting.outcomes
    assert client.wire.tls_verified and client.wire.mechanism == "PLAIN"
    assert client.tls_state.peer_certificate is not None
    assert connecting.peer.in_clear == b"EHLO me.test\r\nSTARTTLS\r\n"
    connecting.peer.assert_played()


def test_a_name_is_as_good_as_that_of_the_host() -> None:
    """Without the name of the certificate there is none to compare it with."""
    with pytest.raises(ValueError, match="tls_name"):
        connect(MemoryEndpoint(None), tls="required", reactor=Clock())


def test_an_authority_that_is_not_there(tmp_path: Any) -> None:
    connecting = Connecting([GREETING, OFFER, silence], ca=str(tmp_path / "none.pem"), tls_name="mx.test")
    assert isinstance(connecting.outcomes[0], ConfigError)
    assert b"STARTTLS" not in connecting.peer.in_clear
    connecting.check_nothing_is_left()


# -- what fails leaves nothing behind ------------------------------------------------------------------

HELLO = ("EHLO", b"250 mx.test\r\n")


def start_as_another(connection: Any) -> None:
    """Start TLS with a certificate for another name."""
    starttls(certificates().other)(connection)


FAILURES: list[tuple[str, type[Exception], list[Any], dict[str, Any]]] = [
    ("greeting", Refused, [b"554 no\r\n", silence], {}),
    ("EHLO", Refused, [GREETING, ("EHLO", b"451 no\r\n", silence)], {}),
    ("STARTTLS", TLSFailed, [GREETING, OFFER, ("STARTTLS", b"454 no\r\n", silence)], {"tls": "required"}),
    ("certificate", TLSFailed, [GREETING, OFFER, ("STARTTLS", start_as_another)], {"tls": "required"}),
    ("no way to log in", LocalProtocolError, [GREETING, HELLO, silence], {"auth": LOGIN, "tls": "none"}),
    ("no safe line", LocalProtocolError, [GREETING, OFFER, silence], {"auth": LOGIN, "tls": "none"}),
    (
        "login",
        Refused,
        [GREETING, OFFER, ("AUTH PLAIN", b"535 no\r\n", silence)],
        {"auth": Plain(*LOGIN, allow_clear=True), "tls": "none"},
    ),
]


@pytest.mark.parametrize(("expected", "script", "settings"), [pytest.param(*row[1:], id=row[0]) for row in FAILURES])
def test_failures(expected: type[Exception], script: list[Any], settings: dict[str, Any]) -> None:
    connecting = Connecting(script, tls_name="mx.test", **settings)
    assert type(connecting.outcomes[0]) is expected, repr(connecting.outcomes[0])
    connecting.clock.advance(10)
    connecting.check_nothing_is_left()
    assert b"MAIL" not in connecting.peer.in_clear


#: Where a peer falls silent, so that whoever waits may give up.
SILENT: dict[str, list[Any]] = {
    "greeting": [silence],
    "EHLO": [GREETING, ("EHLO", silence)],
    "STARTTLS": [GREETING, OFFER, ("STARTTLS", silence)],
    "handshake": [GREETING, OFFER, ("STARTTLS", b"220 go\r\n", silence)],
    "EHLO again": [GREETING, OFFER, ("STARTTLS", lambda c: starttls(certificates().good)(c)), ("EHLO", silence)],
}


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SILENT.items()])
def test_cancelled(script: list[Any]) -> None:
    connecting = Connecting(script, tls="opportunistic")
    assert connecting.outcomes == []
    connecting.deferred.cancel()
    assert [type(one) for one in connecting.outcomes] == [CancelledError]
    connecting.check_nothing_is_left()


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SILENT.items()])
def test_a_peer_that_falls_silent(script: list[Any]) -> None:
    connecting = Connecting(script, tls="opportunistic")
    connecting.clock.advance(300)
    assert type(connecting.outcomes[0]) is TimedOut
    connecting.check_nothing_is_left()


@implementer(IStreamClientEndpoint)
class Nowhere:
    """An endpoint that never gets there."""

    def __init__(self) -> None:
        self.cancelled = False

    def connect(self, factory: Any) -> Deferred[Any]:
        def cancel(deferred: Deferred[Any]) -> None:
            self.cancelled = True

        return Deferred(cancel)


def test_there_is_a_limit_until_there_is_a_connection() -> None:
    clock, nowhere, found = Clock(), Nowhere(), []
    connect(nowhere, config=CONFIG, reactor=clock).addErrback(lambda failure: found.append(failure.value))
    clock.advance(29)
    assert found == []
    clock.advance(1)
    assert type(found[0]) is TimedOut and found[0].phase == "CONNECT" and found[0].temporary
    assert nowhere.cancelled
    assert clock.getDelayedCalls() == []


def test_cancelled_before_there_is_a_connection() -> None:
    clock, nowhere, found = Clock(), Nowhere(), []
    connecting = connect(nowhere, config=CONFIG, reactor=clock)
    connecting.addErrback(lambda failure: found.append(failure.value))
    connecting.cancel()
    assert type(found[0]) is CancelledError and nowhere.cancelled
    assert clock.getDelayedCalls() == []


def test_a_connection_that_is_refused() -> None:
    found: list[Any] = []
    reactor = MemoryReactorClock()
    connect("192.0.2.1", config=CONFIG, reactor=reactor).addBoth(found.append)
    (host, port, factory, timeout, _), *_ = reactor.tcpClients
    assert (host, port, timeout) == ("192.0.2.1", 25, 30)
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError("nobody listens there.")))
    error = found[0].value
    assert type(error) is ConnectionFailed
    assert str(error) == "192.0.2.1:25: CONNECT: nobody listens there"
    assert reactor.getDelayedCalls() == []


def test_lmtp() -> None:
    reactor = MemoryReactorClock()
    found: list[Any] = []
    connect("lmtp:unix:/run/lmtp", config=CONFIG, reactor=reactor).addBoth(found.append)
    (address, factory, *_), *_ = reactor.unixClients
    assert address == "/run/lmtp"
    protocol = factory.buildProtocol(None)
    client = getattr(protocol, "_wrappedProtocol", protocol)
    assert isinstance(client, LMTPClientProtocol)
    # Nobody sits on that line, so credentials may cross it.
    assert client.name == "localhost"


# -- giving up while it connects, as Twisted's endpoints tell it ---------------------------------------


@implementer(IStreamClientEndpoint)
class NeverConnects:
    def connect(self, factory: object) -> Deferred[object]:
        return Deferred(
            lambda deferred: deferred.errback(ConnectingCancelledError(IPv4Address("TCP", "192.0.2.1", 25)))
        )


def test_cancelled_while_it_connects() -> None:
    found: list[object] = []
    deferred = connect(NeverConnects(), reactor=Clock())
    deferred.addErrback(lambda failure: found.append(failure.type))
    deferred.cancel()
    assert found == [CancelledError]


def test_late_while_it_connects() -> None:
    found: list[BaseException] = []
    clock = Clock()
    deferred = connect(NeverConnects(), config=ClientConfig(hello_name="me.test", connect_timeout=9), reactor=clock)
    deferred.addErrback(lambda failure: found.append(failure.value))
    clock.advance(9)
    (error,) = found
    assert isinstance(error, TimedOut) and error.phase == "CONNECT"


def test_authorities_that_nobody_would_look_at() -> None:
    for policy in ("none", "opportunistic"):
        with pytest.raises(ValueError, match="nobody looks at ca"):
            connector_of("mail.example.org", tls=policy, ca="ca.pem")
    assert connector_of("localhost", ca="ca.pem").tls == "required"
