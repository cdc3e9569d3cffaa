"""Limits that are divided among workers."""

import pytest
from twisted.internet.task import Clock

from smtpfw.backends.discard import DiscardBackend
from smtpfw.check import Check
from smtpfw.config.places import Place
from smtpfw.config.plan import ListenPlan, ServicePlan
from smtpfw.config.tree import LISTENER, Values
from smtpfw.interfaces import ICheck
from smtpfw.policies import Concurrency, RateLimit
from smtpfw.service.shares import describe_shares, share_of
from smtpfw.wire.config import ServerConfig


def plan(config: ServerConfig, *checks: ICheck, name: str = LISTENER) -> ServicePlan:
    listen = ListenPlan(name=name, listeners=(), backend=DiscardBackend(), config=config, tls=None, checks=checks)
    return ServicePlan(listen=(listen,), deliveries=(), settings=Values(Place("")))


CONFIG = ServerConfig(
    hostname="mx.example.org",
    max_connections=7,
    max_connections_per_address=1,
    max_memory_bytes=0,
    max_message_bytes=1000,
    max_recipients=9,
)


def test_what_counts_over_connections_is_divided_and_rounded_up() -> None:
    (listen,) = share_of(plan(CONFIG), 3).listen
    assert listen.config.max_connections == 3
    assert listen.config.max_connections_per_address == 1
    assert listen.config.max_memory_bytes == 0
    assert listen.config.max_message_bytes == 1000
    assert listen.config.max_recipients == 9


def test_one_worker_has_all() -> None:
    whole = plan(CONFIG)
    assert share_of(whole, 1) is whole


def test_checks_that_count_have_a_share() -> None:
    rate = RateLimit(clock=Clock(), ip=(30, 60), user=(1, 3600), ipv4_prefix=20, max_keys=5)
    concurrency = Concurrency(ip=5, net=8, ipv6_prefix=48)
    other = Check()
    (listen,) = share_of(plan(CONFIG, rate, concurrency, other), 2).listen
    assert repr(listen.checks[0]) == repr(RateLimit(clock=Clock(), ip=(15, 60), user=(1, 3600)))
    assert (
        listen.checks[0].describe()
        == RateLimit(  # type: ignore[attr-defined]
            clock=Clock(), ip=(15, 60), user=(1, 3600), ipv4_prefix=20
        ).describe()
    )
    assert repr(listen.checks[1]) == repr(Concurrency(ip=3, net=4))
    assert listen.checks[2] is other


@pytest.mark.parametrize(
    ("checks", "name", "line"),
    [
        ((), LISTENER, "2 workers; each serves at most 4 clients, 1 of one address, any amount of messages in memory"),
        (
            (Concurrency(ip=2),),
            "mx",
            "mx: 2 workers; each serves at most 4 clients, 1 of one address, any amount of messages in memory, and "
            "what checks count is for each of them",
        ),
    ],
)
def test_it_is_told(checks: tuple[ICheck, ...], name: str, line: str) -> None:
    assert describe_shares(share_of(plan(CONFIG, *checks, name=name), 2), 2) == [line]
