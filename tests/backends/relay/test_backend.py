"""The backends as objects: what they are made of, what they say of themselves, what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

import smtpfw.backends.relay
from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.client import ClientConfig, Destination, connect, connector_of
from smtpfw.errors import ConfigError, ExtensionMissing, Refused
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.interfaces import IBackend
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from smtpfw.testing.link import outcome_of
from smtpfw.tls import server_context
from tests.backends.relay.helpers import BODY, TRUSTED, without_trace
from tests.certificates import write_pair

STORED = "A 250 means: the next server has said so. Nothing is stored here."


def test_public_names() -> None:
    assert sorted(smtpfw.backends.relay.__all__) == ["LMTPBackend", "RelayBackend"]


@pytest.mark.parametrize("backend", [RelayBackend("mx.example.org"), RelayBackend("mx"), LMTPBackend("unix:/run/lmtp")])
def test_they_are_backends(backend: Any) -> None:
    assert verifyObject(IBackend, backend)


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (
            RelayBackend("mail.example.org"),
            [
                "Mail goes on to mail.example.org:25 (TLS if it is offered), as it arrives.",
                STORED,
                "It is for clients that have authenticated only.",
            ],
        ),
        (
            RelayBackend(
                ["smtps:a.example.org", "tcp:b.example.org"],
                login=("me", "open sesame"),
                trusted=["10.0.0.0/8", "unix"],
            ),
            [
                "Mail goes on to smtps:a.example.org:465 (TLS, verified, with a login), and where that fails to "
                "b.example.org:587 (TLS, verified, with a login), as it arrives.",
                STORED,
                "It is for clients that have authenticated, and those from 10.0.0.0/8, unix.",
            ],
        ),
        (
            RelayBackend("mx", tls="required"),
            [
                "Mail goes on to the mail exchangers of each recipient's domain (TLS, verified), as it arrives.",
                STORED,
                "It is for clients that have authenticated only.",
            ],
        ),
        (
            RelayBackend("mx", tls="none", trusted="10.0.0.1"),
            [
                "Mail goes on to the mail exchangers of each recipient's domain, as it arrives.",
                STORED,
                "It is for clients that have authenticated, and those from 10.0.0.1/32.",
            ],
        ),
        (
            RelayBackend("unix:/run/smtp", login=("me", "open sesame")),
            [
                "Mail goes on to unix:/run/smtp (with a login), as it arrives.",
                STORED,
                "It is for clients that have authenticated only.",
            ],
        ),
        (
            LMTPBackend(["unix:/run/dovecot/lmtp", "192.0.2.1:2424"]),
            [
                "Mail goes on to lmtp:unix:/run/dovecot/lmtp, and where that fails to lmtp:192.0.2.1:2424 "
                "(TLS if it is offered), as it arrives.",
                STORED,
            ],
        ),
    ],
)
def test_in_words(backend: Any, expected: list[str]) -> None:
    assert backend.describe() == expected


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (RelayBackend("mx.example.org"), set()),
        (RelayBackend("mx.example.org", tls="required"), {"REQUIRETLS"}),
        (RelayBackend(["smtps:a.example.org", "b.example.org"]), set()),
        (RelayBackend("smtps:a.example.org", honours=["DSN"]), {"REQUIRETLS", "DSN"}),
        # DNS answers are not signed: whoever forges them is verified as well (RFC 8689 section 4.2.1).
        (RelayBackend("mx", tls="required"), set()),
        (RelayBackend("mx", honours=["DSN"]), {"DSN"}),
        (LMTPBackend("unix:/run/lmtp"), set()),
        (LMTPBackend("unix:/run/lmtp", honours=["DSN"]), {"DSN"}),
    ],
)
def test_promises(backend: Any, expected: set[str]) -> None:
    assert set(backend.honours) == expected


ENDPOINT = UNIXClientEndpoint(Clock(), "/run/x")


@pytest.mark.parametrize(
    "via",
    [
        "unix:/run/x",
        "lmtp:unix:/run/x",
        "LMTP:unix:/run/x",
        Destination.parse("lmtp:unix:/run/x"),
        connector_of("lmtp:unix:/run/x"),
        ENDPOINT,
        ["unix:/run/x"],
        (Destination.of(ENDPOINT, protocol="lmtp"),),
    ],
)
def test_all_kinds_of_places(via: Any) -> None:
    (connector,) = LMTPBackend(via)._connectors
    assert connector.destination.protocol == "lmtp"


def test_a_smarthost_may_speak_lmtp() -> None:
    (connector,) = RelayBackend("lmtp:unix:/run/x")._connectors
    assert connector.destination.protocol == "lmtp"


def test_time_limits() -> None:
    (connector,) = RelayBackend("mx.example.org")._connectors
    assert connector.config is DEFAULT_CONFIG
    config = ClientConfig(hello_name="me.test")
    (connector,) = RelayBackend("mx.example.org", config=config)._connectors
    assert connector.config is config
    (connector,) = RelayBackend(connector_of("mx.example.org", config=config))._connectors
    assert connector.config is config


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: RelayBackend([]), "relay: say where mail goes next"),
        (lambda: RelayBackend("a b"), "relay: 'a b': there is a space in the host"),
        (lambda: RelayBackend(["a.test", "A.test:25"]), "relay: a.test:25 is named twice"),
        (lambda: RelayBackend("a.test", tls="maybe"), "relay: tls is one of none, opportunistic, required"),
        (lambda: RelayBackend("a.test", login=("", "x")), "relay: "),
        (lambda: RelayBackend(7), "relay: a destination is a str, as 'mx.example.org:25', or"),  # type: ignore[arg-type]
        (lambda: RelayBackend("a.test", trusted="10.0.0.1/8"), "relay: trusted: '10.0.0.1/8' could be the network"),
        (lambda: RelayBackend("a.test", trusted=["x"]), "relay: trusted: 'x' is no network"),
        (lambda: RelayBackend(["mx", "a.test"]), "relay: mx stands alone"),
        (lambda: RelayBackend("mx", login=("me", "x")), "relay: a login, or the name of a certificate, belongs to one"),
        (lambda: RelayBackend("mx", tls_name="a.test"), "relay: a login, or the name of a certificate, belongs to one"),
        (lambda: RelayBackend("a.test", allow_private=True), "relay: allow_private is for mx"),
        (lambda: RelayBackend("a.test", max_connections=0), "relay: max_connections: 0 is none"),
        (lambda: RelayBackend("a.test", max_idle=-1), "relay: max_idle: -1 is below 0"),
        (lambda: RelayBackend("a.test", max_conections=1), "relay: "),
        (lambda: RelayBackend("a.test", opening_timeout=-1), "relay: opening_timeout: -1 is below 0"),
        (
            lambda: RelayBackend(connector_of("a.test"), tls="none", config=ClientConfig()),
            "relay: a Connector has its settings already, so give no config, tls beside it",
        ),
        (lambda: RelayBackend("a.test", ca="/nonexistent/ca.pem"), "/nonexistent/ca.pem"),
        (lambda: RelayBackend("a.test", certificate="/nonexistent/me.pem"), "/nonexistent/me.pem"),
        (lambda: LMTPBackend(Destination.parse("a.test")), "lmtp: a.test:25 does not speak LMTP"),
        (lambda: LMTPBackend(connector_of("a.test")), "lmtp: a.test:25 does not speak LMTP"),
        (lambda: LMTPBackend("a.test:25"), "lmtp: 'lmtp:a.test:25': LMTP is not spoken on port 25"),
    ],
)
def test_mistakes_are_found_at_once(make: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


class TLSChain:
    """A client, a server that passes mail on, and a next hop, all with TLS."""

    def __init__(self, folder: Path, *, honours: frozenset[str] = frozenset({"REQUIRETLS"}), **settings: Any) -> None:
        pair = str(write_pair(folder))
        context = server_context(pair)
        clock = Clock()
        self.there = RecordingBackend(honours=honours)
        hop = SMTPServerFactory(self.there, ServerConfig(hostname="hop.test"), tls=context, reactor=clock)
        self._hop = MemoryEndpoint(hop)
        settings = {"ca": pair, **settings}
        backend = RelayBackend(self._hop, tls_name="localhost", trusted=TRUSTED, reactor=clock, **settings)
        server = SMTPServerFactory(backend, ServerConfig(hostname="relay.test"), tls=context, reactor=clock)
        self._front = MemoryEndpoint(server)
        self.client = self.run(connect(self._front, tls="required", tls_name="localhost", ca=pair, reactor=clock))

    def run(self, awaitable: Any) -> Any:
        return outcome_of(awaitable, self._flow)

    def _flow(self) -> None:
        while self._front.flow() or self._hop.flow():
            pass


def test_a_message_that_requires_tls(tmp_path: Path) -> None:
    chain = TLSChain(tmp_path)
    result = chain.run(chain.client.send_mail("a@sender.test", "b@there.test", BODY, {REQUIRETLS: True}))
    assert result.reply.code == 250
    (message,) = chain.there.messages
    assert message.options.require_tls
    assert without_trace(message.body) == BODY
    assert b"with ESMTPS" in message.body


def test_it_is_not_offered_where_the_next_hop_is_not_verified(tmp_path: Path) -> None:
    chain = TLSChain(tmp_path, tls="opportunistic", ca=None)
    with pytest.raises(ExtensionMissing):
        chain.run(chain.client.send_mail("a@sender.test", "b@there.test", BODY, {REQUIRETLS: True}))
    # Others go over TLS all the same.
    chain.run(chain.client.send_mail("a@sender.test", "b@there.test", BODY))
    assert len(chain.there.messages) == 1


def test_a_message_that_requires_tls_of_a_next_hop_that_does_not_offer_it(tmp_path: Path) -> None:
    """RFC 8689 section 4.2.1: it is not sent on without the promise, however good the line is."""
    chain = TLSChain(tmp_path, honours=frozenset())
    with pytest.raises(Refused) as caught:
        chain.run(chain.client.send_mail("a@sender.test", "b@there.test", BODY, {REQUIRETLS: True}))
    assert (caught.value.phase, caught.value.code, str(caught.value.enhanced_code)) == ("MAIL", 550, "5.7.30")
    assert "mail" not in [event[0] for event in chain.there.events]
    assert chain.there.messages == []
    # Others are passed on.
    chain.run(chain.client.send_mail("a@sender.test", "b@there.test", BODY))
    assert len(chain.there.messages) == 1
