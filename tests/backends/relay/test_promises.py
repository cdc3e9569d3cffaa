"""
Promises end to end: a client of ours, a relay of ours, a server of ours, value by value; and where they are not made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.backends.mux import MuxBackend
from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.parameters import for_mail, for_rcpt
from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.backends.relay.promises import PROMISES, promises_of
from smtpfw.client import connect, send_mail
from smtpfw.errors import ConfigError, DeliveryTimeExpired, ExtensionMissing, MailboxOwnerChanged, Refused
from smtpfw.extensions import STANDARD, DeliverBy, FutureRelease, MTPriority
from smtpfw.extensions.deliverby import BY, DeliverByTime
from smtpfw.extensions.dsn import ENVID, NOTIFY
from smtpfw.extensions.futurerelease import HOLDFOR, HOLDUNTIL, MAX_INTERVAL
from smtpfw.extensions.mt_priority import MT_PRIORITY, priority_changed
from smtpfw.extensions.rrvs import RRVS, ValidSince
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from smtpfw.testing.link import outcome_of
from smtpfw.wire.config import LMTP, SMTP
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.times import MAX_SECONDS
from smtpfw.wire.transaction import Recipient
from tests.backends.relay.helpers import BODY, OK, TRUSTED, Hops, lmtp_to, relay_to, server, without_trace
from tests.backends.relay.test_parameters import WHOLE, Hop, peer, send
from tests.running import Twistd

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
ALL = frozenset(PROMISES)
WHERE = Address("c", "there.test")


def served(**deliverby: Any) -> list[Any]:
    """The standard list at noon."""
    own = {
        one.keyword: one
        for one in (FutureRelease(now=lambda: NOON), DeliverBy(**deliverby), MTPriority(trusted=TRUSTED))
    }
    return [own.get(one.keyword, one) for one in STANDARD]


class Chain:
    """
    A client of ours, a server that passes mail on, and the next hop.

    :param way: how it passes it on.
    """

    def __init__(self, way: str = "relay", there: RecordingBackend | None = None, honours: Iterable[str] = ALL) -> None:
        self.clock = Clock()
        self.there = there or RecordingBackend(ALL)
        protocol = LMTP if way == "lmtp" else SMTP
        self.hops = Hops(
            server(self.there, self.clock, protocol=protocol, extensions=served(min_by_time=30)), protocol=protocol
        )
        if protocol == LMTP:
            backend: Any = LMTPBackend(self.hops.destinations, honours=list(honours), reactor=self.clock)
        else:
            backend = RelayBackend(
                self.hops.destinations,
                honours=list(honours),
                trusted=TRUSTED,
                config=DEFAULT_CONFIG,
                reactor=self.clock,
            )
        if way == "mux":
            backend = MuxBackend({}, backend)
        config = ServerConfig(hostname="relay.test")
        self.factory = SMTPServerFactory(backend, config, extensions=served(), reactor=self.clock)
        self.endpoint = MemoryEndpoint(self.factory)

    def run(self, awaitable: Any) -> Any:
        def flow() -> None:
            while self.endpoint.flow() or any(hop.flow() for hop in self.hops.endpoints):
                pass

        return outcome_of(awaitable, flow)

    def send(self, mail: dict[Parameter[Any], Any], *rcpt: dict[Parameter[Any], Any]) -> Any:
        recipients = [Recipient(WHERE, Options.of(options)) for options in rcpt or ({},)]
        return self.run(send_mail(self.endpoint, "a@b.test", recipients, BODY, options=mail, reactor=self.clock))


WAYS = ["relay", "lmtp", "mux"]

OF_MAIL: list[tuple[Parameter[Any], Any]] = [
    *((BY, DeliverByTime(seconds, "R", trace)) for seconds in (30, MAX_SECONDS) for trace in (False, True)),
    *((BY, DeliverByTime(seconds, "N")) for seconds in (-MAX_SECONDS, -1, 0, 1, MAX_SECONDS)),
    (BY, DeliverByTime(7, "N", True)),
    *((MT_PRIORITY, value) for value in range(-9, 10)),
    *((HOLDFOR, seconds) for seconds in (1, MAX_INTERVAL)),
    (HOLDUNTIL, NOON),
    (HOLDUNTIL, NOON + timedelta(microseconds=1)),
    (HOLDUNTIL, NOON + timedelta(seconds=MAX_INTERVAL)),
]

OF_RCPT: list[tuple[Parameter[Any], Any]] = [
    (RRVS, ValidSince(when, action))
    for when in (NOON, datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC))
    for action in ("", "C", "R")
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("parameter", "value"), OF_MAIL)
def test_a_value_of_mail(way: str, parameter: Parameter[Any], value: Any) -> None:
    chain = Chain(way)
    chain.send({parameter: value})
    (message,) = chain.there.messages
    assert message.options[parameter] == value
    assert parameter in message.options


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("parameter", "value"), OF_RCPT)
def test_a_value_of_rcpt(way: str, parameter: Parameter[Any], value: Any) -> None:
    chain = Chain(way)
    chain.send({}, {parameter: value}, {})
    (message,) = chain.there.messages
    assert [recipient.options for recipient in message.recipients] == [Options.of({parameter: value}), Options()]
    # Where it travels as a parameter it does not stand in the message as well.
    assert without_trace(message.body) == BODY


@pytest.mark.parametrize("way", WAYS)
def test_all_at_once(way: str) -> None:
    chain = Chain(way)
    mail = {BY: DeliverByTime(60, "N"), MT_PRIORITY: 3, HOLDFOR: 9, ENVID: "7"}
    rcpt = {RRVS: ValidSince(NOON, "R"), NOTIFY: frozenset({"DELAY"})}
    chain.send(mail, rcpt)
    (message,) = chain.there.messages
    assert {parameter: message.options[parameter] for parameter in mail} == mail
    assert message.recipients == [Recipient(WHERE, Options.of(rcpt))]


def test_a_priority_that_is_changed_there() -> None:
    chain = Chain(there=RecordingBackend(ALL, mail=lambda sender, options: priority_changed(-4)))
    client = chain.run(connect(chain.endpoint, reactor=chain.clock))
    reply = chain.run(client.mail("a@b.test", {MT_PRIORITY: 9}))
    assert (reply.code, reply.enhanced_code, reply.text) == (250, (2, 3, 6), "-4 is the new priority")


@pytest.mark.parametrize("way", WAYS)
def test_an_owner_that_has_changed(way: str) -> None:
    def refuse(recipient: Any, options: Options) -> None:
        raise MailboxOwnerChanged

    with pytest.raises(Refused) as caught:
        Chain(way, RecordingBackend(ALL, rcpt=refuse)).send({}, {RRVS: ValidSince(NOON)})
    assert (caught.value.code, caught.value.enhanced_code) == (550, (5, 7, 17))


def test_less_than_the_least_time_of_the_next_hop() -> None:
    chain = Chain()
    with pytest.raises(Refused) as caught:
        chain.send({BY: DeliverByTime(29, "R")})
    assert str(caught.value).endswith("550 5.4.7 The next server returns no message earlier than after 30 seconds")
    assert ("mail", "a@b.test") not in chain.there.events


# -- hidden where not honoured --------------------------------------------------

#: Keyword, what would be said for it, and the client's own words.
EACH: list[tuple[str, str, str, dict[Parameter[Any], Any], dict[Parameter[Any], Any]]] = [
    ("DELIVERBY", " BY=60;R", "", {BY: DeliverByTime(60, "R")}, {}),
    ("MT-PRIORITY", " MT-PRIORITY=3", "", {MT_PRIORITY: 3}, {}),
    ("RRVS", "", " RRVS=2026-11-21T12:00:00Z", {}, {RRVS: ValidSince(NOON)}),
    ("FUTURERELEASE", " HOLDFOR=60", "", {HOLDFOR: 60}, {}),
    ("FUTURERELEASE", " HOLDUNTIL=2026-11-21T12:00:01Z", "", {HOLDUNTIL: NOON + timedelta(seconds=1)}, {}),
]


@pytest.mark.parametrize(("keyword", "mail", "rcpt", "mail_options", "rcpt_options"), EACH)
def test_hidden_where_it_is_not_honoured(
    keyword: str, mail: str, rcpt: str, mail_options: Any, rcpt_options: Any
) -> None:
    others = ALL - {keyword}
    for honours in ((), others):
        sender = relay_to(server(RecordingBackend(ALL)), honours=list(honours))
        offered = {line[4:].split()[0] for line in sender.hello.splitlines()}
        assert offered & ALL == set(honours)
        answers = [sender.say(f"MAIL FROM:<a@b.test>{mail}")]
        if rcpt:
            answers.append(sender.say(f"RCPT TO:<c@there.test>{rcpt}"))
        said = (mail or rcpt).strip().partition("=")[0]
        assert answers[-1] == f"555 5.5.4 {said} is not recognized or not offered here\r\n".encode()
        with pytest.raises(ExtensionMissing) as caught:
            Chain(honours=honours).send(mail_options, rcpt_options)
        assert caught.value.keyword == keyword
    sender = relay_to(server(RecordingBackend(ALL)), honours=[keyword])
    assert {line[4:].split()[0] for line in sender.hello.splitlines()} & ALL == {keyword}


def test_the_names_of_promises() -> None:
    assert promises_of("relay", ["dsn", "Mt-Priority"]) == {"DSN", "MT-PRIORITY"}
    assert promises_of("relay", "RRVS") == {"RRVS"}
    assert promises_of("relay", ()) == frozenset()
    with pytest.raises(ConfigError, match=r"relay: honours: 'DELIVER' is none of DSN, .*did you mean DELIVERBY\?"):
        RelayBackend("a.test", honours=["DELIVER"])
    with pytest.raises(ConfigError, match="lmtp: honours: 'REQUIRETLS' is none of DSN, "):
        LMTPBackend("unix:/run/lmtp", honours="REQUIRETLS")


# -- a next hop without it ------------------------------------------------------


@pytest.mark.parametrize(
    ("mail", "reply"),
    [
        (" BY=60;R", b"554 5.3.3 The next server does not offer DELIVERBY: BY was asked for\r\n"),
        (" BY=60;N", b"554 5.3.3 The next server does not offer DELIVERBY: BY was asked for\r\n"),
        (" HOLDFOR=60", b"554 5.3.3 The next server does not offer FUTURERELEASE: HOLDFOR was asked for\r\n"),
        (
            f" HOLDUNTIL={datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
            b"554 5.3.3 The next server does not offer FUTURERELEASE: HOLDUNTIL was asked for\r\n",
        ),
    ],
)
def test_a_time_that_nobody_would_keep(mail: str, reply: bytes) -> None:
    hop = peer("DSN")
    with capturedLogs() as logs:
        assert send(hop, mail, honours=PROMISES) == [reply]
    assert len(hop.commands) == 1
    assert_the_operator_hears(logs)


def assert_the_operator_hears(logs: list[LogEvent]) -> None:
    """It is his word that is broken."""
    (line,) = [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn]
    assert " failed" in line and "does not offer" in line


def test_a_priority_is_dropped() -> None:
    hop = peer(steps=WHOLE)
    assert send(hop, " MT-PRIORITY=9", honours=PROMISES)[-1] == OK
    assert hop.commands[1] == b"MAIL FROM:<a@sender.test>"


@pytest.mark.parametrize("action", ["", ";R"])
def test_an_owner_of_whom_nobody_would_know(action: str) -> None:
    hop = peer(steps=[("MAIL", OK)])
    with capturedLogs() as logs:
        answers = send(hop, rcpt=f" RRVS=2026-11-21T12:00:00Z{action}", honours=PROMISES)
    assert_the_operator_hears(logs)
    assert answers[-1] == (
        b"550 5.7.19 The next server does not offer RRVS: nobody would know whose mailbox it was\r\n"
    )
    assert len(hop.commands) == 2


@pytest.mark.parametrize("to", [relay_to, lmtp_to])
def test_an_owner_of_whom_nobody_needs_to_know(to: Callable[..., Any]) -> None:
    """The message goes as it is: nobody knows who would heed a field Require-Recipient-Valid-Since."""
    there = RecordingBackend()
    sender = to(server(there, protocol=LMTP if to is lmtp_to else SMTP), honours=PROMISES)
    sender.say("MAIL FROM:<a@sender.test>")
    assert sender.say("RCPT TO:<b@there.test> RRVS=2026-11-21T12:00:00Z;C").startswith(b"250 ")
    sender.say("DATA")
    assert sender.send(BODY + b".\r\n").startswith(b"250 ")
    (message,) = there.messages
    assert without_trace(message.body) == BODY


# -- the time that has passed here ----------------------------------------------


@pytest.mark.parametrize(
    ("mail", "passed", "said"),
    [
        (" BY=60;R", 0.0, " BY=60;R"),
        (" BY=60;RT", 0.001, " BY=59;RT"),
        (" BY=60;R", 10.0, " BY=50;R"),
        (" BY=60;R", 59.0, " BY=1;R"),
        (" BY=60;R", 59.001, ""),
        (" BY=60;R", 61.0, ""),
        (" BY=60;N", 59.5, " BY=0;N"),
        (" BY=60;NT", 61.0, " BY=-1;NT"),
        (" BY=-999999999;N", 10.0, " BY=-999999999;N"),
        (" HOLDFOR=60", 0.999, " HOLDFOR=60"),
        (" HOLDFOR=60", 59.999, " HOLDFOR=1"),
        (" HOLDFOR=60", 60.0, " "),
        (" HOLDFOR=60", 61.0, " "),
        (" HOLDFOR=60 BY=61;R", 0.5, " BY=60;R HOLDFOR=60"),
        (" HOLDFOR=60 BY=60;R", 0.5, ""),
    ],
)
def test_what_is_left(mail: str, passed: float, said: str) -> None:
    sender = lmtp_to(server(RecordingBackend(ALL), protocol=LMTP), honours=PROMISES)
    (hop,) = sender.hops.endpoints
    assert sender.say(f"MAIL FROM:<a@sender.test>{mail}").startswith(b"250 ")
    sender.advance(passed)
    answer = sender.say("RCPT TO:<b@there.test>")
    if said:
        assert answer.startswith(b"250 ")
        (line,) = [line for line in hop.said_by_clients.split(b"\r\n") if line.startswith(b"MAIL ")]
        # BODY, which nobody has asked for, stands behind it.
        assert line.removeprefix(b"MAIL FROM:<a@sender.test>").partition(b" BODY")[0] == said.rstrip().encode()
    else:
        assert answer == b"550 5.4.7 Delivery time expired\r\n"
        assert b"MAIL" not in hop.said_by_clients


def test_the_time_that_has_passed_in_front_of_it() -> None:
    """Behind routes a relay hears of MAIL with the first recipient, and what has passed by then counts as well."""
    clock = Clock()
    sender = relay_to(server(RecordingBackend(ALL), clock), clock=clock, honours=PROMISES, through=MuxBackend)
    sender.say("MAIL FROM:<a@sender.test> BY=60;R")
    sender.advance(10)
    assert sender.say("RCPT TO:<b@there.test>").startswith(b"250 ")
    assert b" BY=50;R " in sender.hops.endpoints[0].said_by_clients


def test_each_mail_has_a_time_of_its_own() -> None:
    sender = lmtp_to(server(RecordingBackend(ALL), protocol=LMTP), honours=PROMISES)
    for seconds in (60, 50):
        sender.say("MAIL FROM:<a@sender.test> BY=60;R")
        sender.advance(60 - seconds)
        sender.say("RCPT TO:<b@there.test>")
        sender.say("RSET")
    said = sender.hops.endpoints[0].said_by_clients
    assert said.index(b" BY=60;R ") < said.index(b" BY=50;R ")


# -- the table, row by row ------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "offered", "said"),
    [
        ({BY: DeliverByTime(9, "N")}, ("DELIVERBY",), {BY: DeliverByTime(7, "N")}),
        ({MT_PRIORITY: 3}, ("MT-PRIORITY",), {MT_PRIORITY: 3}),
        ({MT_PRIORITY: 3}, ("DELIVERBY",), {}),
        ({HOLDFOR: 9}, ("FUTURERELEASE",), {HOLDFOR: 8}),
        ({HOLDUNTIL: NOON}, ("FUTURERELEASE",), {HOLDUNTIL: NOON}),
    ],
)
def test_mail(given: Any, offered: Iterable[str], said: Any) -> None:
    assert for_mail(Options.of(given), Hop(*offered), 1.5) == Options.of(said)


def test_a_message_that_is_to_be_returned_by_now() -> None:
    with pytest.raises(DeliveryTimeExpired):
        for_mail(Options.of({BY: DeliverByTime(2, "R")}), Hop("DELIVERBY"), 1.5)


def test_rcpt() -> None:
    both = Options.of({RRVS: ValidSince(NOON, "C"), NOTIFY: frozenset({"FAILURE"})})
    assert for_rcpt(both, Hop("RRVS", "DSN")) == both
    assert for_rcpt(both, Hop("RRVS")) == Options.of({RRVS: ValidSince(NOON, "C")})
    assert for_rcpt(both, Hop("DSN")) == Options.of({NOTIFY: frozenset({"FAILURE"})})
    assert for_rcpt(both, Hop()) == Options()


# -- over sockets ---------------------------------------------------------------


class Processes(TestCase):
    """A relay and its next hop in processes of their own, and a client in this one."""

    timeout = 120

    async def test_through_both(self) -> None:
        with Twistd(
            "--backend", "tests.backends.relay.keeper:Keeper", "--extensions", "DELIVERBY:min_by_time=30s"
        ) as hop:
            backend = f"relay:127.0.0.1:{hop.port}:honours={','.join(PROMISES).lower()}"
            extensions = ("--extensions", "MT-PRIORITY:profile=MIXER", "--extensions", "FUTURERELEASE:max_interval=1h")
            with Twistd("--backend", backend, *extensions) as relay:
                options = {BY: DeliverByTime(9999, "R", True), MT_PRIORITY: -3, HOLDFOR: 3600}
                recipient = Recipient(WHERE, Options.of({RRVS: ValidSince(NOON, "C")}))
                result = await send_mail(f"127.0.0.1:{relay.port}", "a@b.test", [recipient], BODY, options=options)
                text = result.reply.text
                self.assertIn("MT-PRIORITY=-3 ", text)
                self.assertIn(f"RRVS={ValidSince(NOON, 'C')}", text)
                # Less what has passed, which is little.
                self.assertRegex(text, r"BY=DeliverByTime\(seconds=999[0-9], mode='R', trace=True\)")
                self.assertRegex(text, r"HOLDFOR=(3600|359[0-9])")
