"""PROXY and XCLIENT as an operator asks for them: in a plan, in its words, and in what listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.config.advice import warnings_of
from smtpfw.config.describing import describe_clients, describe_running
from smtpfw.config.plan import ListenPlan
from smtpfw.errors import ConfigError
from smtpfw.extensions import XClient
from smtpfw.networks import Networks
from smtpfw.server import SMTPServerFactory
from smtpfw.server.proxy import ProxyFactory
from smtpfw.service.generation import Generation
from tests.certificates import write_pair
from tests.config.plans import mistakes, plan_of, plan_of_file

BACKEND = ("--backend", "discard", "--hostname", "mx.example.org")


def listen_of(*words: str) -> ListenPlan:
    (listen,) = plan_of(*BACKEND, *words).listen
    return listen


def xclient_of(listen: ListenPlan) -> Networks | None:
    return next((one.networks for one in listen.extensions if isinstance(one, XClient)), None)


def test_neither_by_default() -> None:
    listen = listen_of()
    assert (listen.proxy, xclient_of(listen)) == (None, None)
    assert describe_clients(listen) == []


def test_on_the_command_line() -> None:
    words = ("--proxy", "10.0.0.5", "--proxy", "unix", "--xclient", "2001:db8::/32", "--proxy-timeout", "2s")
    listen = listen_of(*words)
    assert listen.proxy == Networks(["10.0.0.5", "unix"])
    assert xclient_of(listen) == Networks("2001:db8::/32")
    assert listen.config.proxy_timeout == 2.0
    assert describe_clients(listen) == [
        "Connections from 10.0.0.5/32, unix begin with a PROXY header, which says whom they are for",
        "XCLIENT is believed from 2001:db8::/32",
    ]


def test_in_a_file(tmp_path: Path) -> None:
    text = """
        [deliver]
        local = "discard"
        [listen.mx]
        on = "tcp:0"
        proxy = "10.0.0.5"
        routes = { to = "example.org", deliver = "local" }
        [listen.other]
        on = "tcp:0"
        xclient = ["10.0.0.6", "10.0.0.7"]
        routes = { to = "example.org", deliver = "local" }
        """
    mx, other = plan_of_file(tmp_path / "x.toml", text).listen
    assert (mx.proxy, xclient_of(mx)) == (Networks("10.0.0.5"), None)
    assert (other.proxy, xclient_of(other)) == (None, Networks(["10.0.0.6", "10.0.0.7"]))


def test_everybody_is_believed_by_nobody() -> None:
    for option in ("--proxy", "--xclient"):
        assert mistakes(*BACKEND, option, "::/0") == [
            f"{option}: that is everybody, and whoever is believed can pass for anybody; name your proxies"
        ]


def test_a_login_of_xclient_is_one(tmp_path: Path) -> None:
    """Who knows the users is the proxy: there is no AUTH of our own."""
    text = """
        [deliver]
        local = "discard"
        out = "relay:192.0.2.1"
        [listen.mx]
        on = "tcp:25"
        xclient = "10.0.0.5"
        checks = ["require_auth", "sender_login"]
        routes = [ { to = "users.example", login = true, deliver = "local" }, { to = "*", deliver = "out" } ]
        """
    (listen,) = plan_of_file(tmp_path / "x.toml", text).listen
    assert listen.auth is None
    plan_of("--backend", "relay:192.0.2.1", "--listen", "tcp:25", "--xclient", "10.0.0.5")
    assert mistakes(*BACKEND, "--xclient", "10.0.0.5", "--require-auth") == [
        "--require-auth: there is nobody who could authenticate; give auth, --auth; for who is known by XCLIENT there "
        "is the check require_auth"
    ]


@pytest.mark.parametrize("option", ["--proxy", "--xclient"])
def test_loopback_is_not_trusted_by_itself(option: str, tmp_path: Path) -> None:
    """By PROXY UNKNOWN a stranger would be the proxy."""
    relay = ("--backend", "relay:192.0.2.1", "--listen", "tcp:0:interface=127.0.0.1")
    (open_to_us,) = plan_of(*relay).deliveries
    assert str(getattr(open_to_us.backend, "trusted", "")) == "127.0.0.0/8, ::1/128"
    if option == "--proxy":
        assert "nobody could send" in mistakes(*relay, option, "127.0.0.1")[0]
    (named,) = plan_of(
        "--backend", "relay:192.0.2.1:trusted=127.0.0.1", "--listen", "tcp:0:interface=127.0.0.1", option, "127.0.0.1"
    ).deliveries
    assert str(getattr(named.backend, "trusted", "")) == "127.0.0.1/32"
    (known,) = plan_of(*relay, "--xclient", "127.0.0.1").deliveries
    assert not getattr(known.backend, "trusted", True)
    text = f"""
        [deliver]
        out = "relay:192.0.2.1"
        [listen.mx]
        on = "tcp:0:interface=127.0.0.1"
        {option[2:]} = "127.0.0.1"
        routes = {{ to = "*", network = "127.0.0.1", deliver = "out" }}
        """
    if option == "--proxy":
        with pytest.raises(ConfigError, match="nobody can or is"):
            plan_of_file(tmp_path / "x.toml", text)


def test_xclient_is_no_extension_by_name() -> None:
    assert mistakes(*BACKEND, "--extensions", "xclient") == ["--extensions xclient: it comes with xclient, --xclient"]


def test_tls_before_the_header(tmp_path: Path) -> None:
    where = f"ssl:0:privateKey={write_pair(tmp_path)}"
    assert mistakes(*BACKEND, "--listen", where, "--proxy", "10.0.0.5") == [
        f"--listen {where}: PROXY comes before TLS; write smtps: and the port"
    ]
    assert listen_of("--listen", where).proxy is None


def test_networks_of_the_internet_are_asked_about() -> None:
    for option in ("--proxy", "--xclient"):
        listen = listen_of(option, "203.0.113.0/24", option, "203.0.113.7", option, "10.0.0.0/8")
        assert warnings_of(listen, ()) == [
            f"{option[2:]} has 203.0.113.0/24, which is of the Internet: is each of its addresses a proxy of yours?"
        ]


@pytest.mark.parametrize("implicit", [False, True])
def test_what_listens(implicit: bool, tmp_path: Path) -> None:
    tls = ("--tls", str(write_pair(tmp_path)))
    where = f"{'smtps:' * implicit}tcp:0:interface=127.0.0.1"
    plan = plan_of(*BACKEND, "--listen", where, *tls, "--proxy", "10.0.0.5")
    generation = Generation(plan, Clock())
    generation.bind()
    try:
        generation.take_over()
        ((bound, factory),) = generation.seats[0]
        assert isinstance(factory, ProxyFactory)
        assert isinstance(factory.server, SMTPServerFactory)
        # TLS stands behind the header.
        assert (factory.inner is not factory.server) == implicit
        assert bound.implicit_tls == implicit
        said: Any = describe_running(plan, [[bound]])
        # Nobody who is not a proxy can try it as it stands there.
        assert not any(line.startswith("Try it") for line in said)
    finally:
        for one in generation.sockets:
            one.discard()
