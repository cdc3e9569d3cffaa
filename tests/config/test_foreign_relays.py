"""Relays that are none of ours, on the command line: strangers can't send by them."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from smtpfw import SMTPServerFactory
from smtpfw.backends.mux import MuxBackend
from smtpfw.config.advice import warnings_of
from smtpfw.config.describing import describe_routes
from smtpfw.testing import MemoryClient
from tests.config.plans import mistakes, plan_of

OPEN = ["Open", "open_filter", "open_table"]
GUARDED = ["Guarded", "guarded_filter", "guarded_table"]
PUBLIC = ("--listen", "tcp:2525", "--hostname", "mx.example.org")
USERS = ("--auth", "memory:tim:secret", "--allow-insecure-auth")


def answer(host: str, *words: str) -> str:
    (listen,) = plan_of(*words).listen
    factory = SMTPServerFactory(listen.backend, listen.config, extensions=listen.extensions, reactor=Clock())
    client = MemoryClient.of(factory, IPv4Address("TCP", host, 4000))
    client.send(b"EHLO me.example\r\n")
    client.send(b"MAIL FROM:<a@sender.example>\r\n")
    said = client.send(b"RCPT TO:<b@elsewhere.example>\r\n").decode()
    client.disconnect()
    return said


@pytest.mark.parametrize("name", OPEN)
def test_one_that_does_not_ask_is_guarded(name: str) -> None:
    backend = ("--backend", f"tests.config.relays:{name}")
    assert answer("203.0.113.1", *backend, *PUBLIC, *USERS).startswith("550 5.7.1 ")
    assert answer("203.0.113.1", *backend).startswith("550 5.7.1 ")
    assert answer("127.0.0.1", *backend).startswith("250 ")


@pytest.mark.parametrize("name", OPEN)
def test_for_nobody_it_is_a_mistake(name: str) -> None:
    assert mistakes("--backend", f"tests.config.relays:{name}", *PUBLIC) == [
        f"--backend tests.config.relays:{name}: it passes mail on, and nobody could send; give --auth, or listen on "
        "loopback alone"
    ]


def test_its_sessions_can_t_verify_users_behind_the_guard() -> None:
    words = ("--backend", "tests.config.relays:Open", *PUBLIC, "--auth", "session", "--allow-insecure-auth")
    (line,) = mistakes(*words)
    assert "give it an attribute trusted, or --auth another kind" in line


@pytest.mark.parametrize("name", GUARDED)
def test_one_that_asks_is_used_as_it_is(name: str) -> None:
    plan = plan_of("--backend", f"tests.config.relays:{name}", *PUBLIC)
    assert plan.listen[0].backend is plan.deliveries[0].backend


def test_the_guard_is_described() -> None:
    plan = plan_of("--backend", "tests.config.relays:Open", *PUBLIC, *USERS)
    (listen,) = plan.listen
    assert isinstance(listen.backend, MuxBackend)
    assert describe_routes(listen, plan.deliveries) == ["Mail for * from clients that have authenticated goes to main"]
    assert not any("trusted" in sentence for sentence in warnings_of(listen, plan.deliveries))


def test_no_advice_fails_on_a_relay_without_trusted() -> None:
    plan = plan_of("--backend", "tests.config.relays:guarded_table", *PUBLIC)
    assert not any("trusted" in sentence for sentence in warnings_of(plan.listen[0], plan.deliveries))


def test_one_of_ours_that_was_told_not_to_ask_is_guarded() -> None:
    words = ("--backend", "tests.config.relays:unguarded", *PUBLIC, *USERS)
    assert answer("203.0.113.1", *words).startswith("550 5.7.1 ")
