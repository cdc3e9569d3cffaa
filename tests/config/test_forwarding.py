"""The strings of ``relay`` and ``lmtp``: what they make, the mistakes, and who may send."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from smtpfw.backends.relay import LMTPBackend, RelayBackend
from smtpfw.backends.relay.backend import MAX_CONNECTIONS, OPENING_TIMEOUT
from smtpfw.backends.relay.places import DEFAULT_CONFIG
from smtpfw.client import ClientConfig, Connector
from smtpfw.config.arguments import read
from smtpfw.config.backends import backend_from_string
from smtpfw.config.forwarding import LMTP_SETTINGS, RELAY_SETTINGS, defaults_for
from smtpfw.config.listeners import parse_listener
from smtpfw.config.units import parse_duration
from smtpfw.errors import ConfigError
from smtpfw.networks import Networks
from tests.certificates import write_pair
from tests.config.plans import mistakes, plan_of
from tests.running import ROOT


def relay(text: str) -> RelayBackend:
    backend = backend_from_string(text)
    assert isinstance(backend, RelayBackend)
    return backend


def hops(text: str) -> list[str]:
    backend = backend_from_string(text)
    assert isinstance(backend, RelayBackend | LMTPBackend)
    return [connector.destination.text for connector in backend._connectors]


def hop(text: str) -> Connector:
    (connector,) = relay(text)._connectors
    return connector


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        backend_from_string(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay:mail.example.org", ["mail.example.org:25"]),
        ("relay:mail.example.org:587", ["mail.example.org:587"]),
        ("relay:smtps:mail.example.org", ["smtps:mail.example.org:465"]),
        ("relay:192.0.2.1:2525", ["192.0.2.1:2525"]),
        ("relay:[2001:db8::1]:25", ["[2001:db8::1]:25"]),
        ("relay:tcp:mail.example.org:25:bindAddress=192.0.2.9", ["tcp:mail.example.org:25:bindAddress=192.0.2.9"]),
        (r"relay:unix:/run/a\=b", [r"unix:/run/a\=b"]),
        (r"relay:unix:/run/a\:b", [r"unix:/run/a\:b"]),
        (r"relay:unix:/run/a\,b,c.test", ["unix:/run/a,b", "c.test:25"]),
        ("relay:a.test:25,b.test,smtps:c.test:465", ["a.test:25", "b.test:25", "smtps:c.test:465"]),
        ("relay:tls=none:a.test:26,b.test", ["a.test:26", "b.test:25"]),
        ("relay:mx:25", ["mx:25"]),
        ("lmtp:unix:/run/dovecot/lmtp", ["lmtp:unix:/run/dovecot/lmtp"]),
        ("lmtp:unix:/run/a,192.0.2.1:2424", ["lmtp:unix:/run/a", "lmtp:192.0.2.1:2424"]),
        ("lmtp:127.0.0.1", ["lmtp:127.0.0.1:24"]),
    ],
)
def test_next_hops(text: str, expected: list[str]) -> None:
    assert hops(text) == expected


def test_by_mx() -> None:
    assert relay("relay:mx").by_domain
    assert relay("relay:MX:tls=required:allow_private=yes").by_domain
    assert not relay("relay:mx:25").by_domain


def test_settings(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("me:open:sesame\nand more\n")
    backend = relay(
        rf"relay:a.test:login={secret}:trusted=10.0.0.0/8,2001\:db8\:\:/32,unix:honours=dsn,RRVS:tls_name=b.test"
    )
    (connector,) = backend._connectors
    assert backend.trusted == Networks(["10.0.0.0/8", "2001:db8::/32", "unix"])
    assert (connector.tls, connector.name, connector.destination.text) == ("required", "b.test", "a.test:587")
    assert len(connector.clients) > 1
    assert set(backend.honours) == {"DSN", "RRVS", "REQUIRETLS"}
    assert "open" not in repr(connector)


def test_time_limits_and_names() -> None:
    limits = "connect_timeout=1s:greeting_timeout=2s:command_timeout=3s:data_timeout=4s:block_timeout=5s:end_timeout=6s"
    config = hop(f"relay:a.test:hello_name=me.test:{limits}").config
    assert config.hello_name == "me.test"
    assert (config.connect_timeout, config.greeting_timeout, config.command_timeout) == (1.0, 2.0, 3.0)
    assert (config.data_timeout, config.block_timeout, config.end_timeout) == (4.0, 5.0, 6.0)
    assert relay("relay:a.test:opening_timeout=2m")._opening_timeout == 120.0
    assert relay("relay:a.test:max_connections=7")._pool_settings["max_connections"] == 7


@pytest.mark.parametrize(("backend", "settings"), [(RelayBackend, RELAY_SETTINGS), (LMTPBackend, LMTP_SETTINGS)])
def test_each_setting_is_one_of_the_backend_or_of_its_client(backend: Any, settings: Any) -> None:
    own = set(inspect.signature(backend).parameters)
    of_the_client = {field.name for field in dataclasses.fields(ClientConfig)}
    assert set(settings) <= own | of_the_client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay", "say where mail goes next; it is written relay:HOST[:PORT]"),
        ("relay:", "say where mail goes next; it is written relay:HOST[:PORT]"),
        ("relay:tls=none", "say where mail goes next; it is written relay:HOST[:PORT]"),
        ("lmtp:", "say where mail goes next; it is written lmtp:unix:PATH"),
        ("relay:a.test:tsl=none", "relay takes no tsl=; did you mean tls? (it takes trusted, login"),
        ("relay:a.test:trust=10.0.0.1", "relay takes no trust=; did you mean trusted?"),
        ("lmtp:unix:/x:login=y", "lmtp takes no login= (it takes tls"),
        ("lmtp:unix:/x:trusted=10.0.0.1", "lmtp takes no trusted="),
        ("relay:a.test:tls=maybe", "tls is one of none, opportunistic, required, not 'maybe'"),
        ("relay:a.test:tls=none:tls=none", "tls= is given twice"),
        (
            "lmtp:unix:/x:honours=DSN,RVS",
            "honours: 'RVS' is none of DSN, DELIVERBY, MT-PRIORITY, RRVS, FUTURERELEASE; did you mean RRVS?",
        ),
        ("relay:a.test:honours=REQUIRETLS", "honours: 'REQUIRETLS' is none of DSN, "),
        ("relay:a.test:max_connections=many", "max_connections: 'many' is no number"),
        ("relay:a.test:max_connections=0", "max_connections: 0 is none"),
        ("relay:a.test:end_timeout=soon", "end_timeout: 'soon' is no time"),
        ("relay:a.test:hello_name=a b", "hello_name: 'a b' is no host name"),
        ("relay:a.test:trusted=10.0.0.1/8", "trusted: '10.0.0.1/8' could be the network 10.0.0.0/8 or the address"),
        ("relay:a.test:25:26", "'a.test:25:26': "),
        ("relay:a.test,a.test", "a.test:25 is named twice"),
        ("relay:mx,a.test", "mx stands alone"),
        ("relay:mx:login=/dev/null", "login: /dev/null: its first line must be name:password"),
        ("relay:a.test:login=/nonexistent/file", "login: /nonexistent/file: no such file or directory"),
        ("relay:a.test:ca=/nonexistent/ca.pem", "/nonexistent/ca.pem"),
        ("relay:smtps:a.test:tls=none", "it begins with TLS, and tls is none"),
        ("lmtp:a.test:25", "LMTP is not spoken on port 25"),
        ("relay:a.test\\", "a backslash at the end quotes nothing"),
        ("rellay:a.test", "unknown backend 'rellay'; did you mean relay?"),
    ],
)
def test_a_mistake_is_one_line(text: str, expected: str) -> None:
    assert expected in complaint(text)


def test_the_line_names_the_option() -> None:
    text = "relay:a.test:tls=maybe"
    assert mistakes("--backend", text) == [f"--backend relay: {complaint(text)}"]


@pytest.mark.parametrize("content", [b"", b"me\n", b":secret\n", b"me:\n", b"\xff:secret\n", b"\nme:secret\n"])
def test_a_login_that_is_none_is_not_shown(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "login"
    path.write_bytes(content)
    line = complaint(f"relay:a.test:login={path}")
    assert line.startswith(f"login: {path}: its first line ")
    assert "secret" not in line


def test_line_ends_of_a_login(tmp_path: Path) -> None:
    path = tmp_path / "login"
    for content in (b"me:secret", b"me:secret\n", b"me:secret\r\n"):
        path.write_bytes(content)
        assert read(RELAY_SETTINGS["login"], str(path)) == ("me", "secret")


def test_lmtp_has_what_a_relay_has_but_for_its_guests() -> None:
    assert set(RELAY_SETTINGS) - set(LMTP_SETTINGS) == {"trusted", "login", "allow_private"}


# -- who may send -----------------------------------------------------------------

LOOPBACK = ("127.0.0.0/8", "::1")


@pytest.mark.parametrize(
    ("listeners", "trusted"),
    [
        (["tcp:2525:interface=127.0.0.1"], LOOPBACK),
        (["tcp:2525:127.0.0.1"], LOOPBACK),
        (["tcp:2525:interface=localhost"], LOOPBACK),
        ([r"tcp6:2525:interface=\:\:1"], LOOPBACK),
        (["smtps:tcp:465:interface=127.0.0.1"], LOOPBACK),
        (["tcp:25:interface=127.0.0.1", "unix:/run/smtp"], LOOPBACK),
        (["unix:/run/smtp"], None),
        (["tcp:25"], None),
        (["tcp6:25"], None),
        (["tcp:25:interface=192.0.2.1"], None),
        (["tcp:25:interface=localhost.example.org"], None),
        (["systemd:domain=INET:index=0"], None),
        (["tcp:25", "tcp:2525:interface=127.0.0.1"], None),
    ],
)
def test_this_machine_is_trusted_where_nobody_else_can_come_in(listeners: list[str], trusted: Any) -> None:
    assert defaults_for(list(map(parse_listener, listeners)), None).get("trusted") == trusted


def plan(*words: str) -> Any:
    return plan_of(*words).listen[0].backend


PUBLIC = ("--listen", "tcp6:25")


def test_defaults_of_the_plan() -> None:
    assert plan("--backend", "relay:a.test").trusted == Networks(LOOPBACK)
    assert plan("--backend", "relay:a.test:trusted=10.0.0.0/8").trusted == Networks(["10.0.0.0/8"])
    backend = plan("--backend", "relay:a.test", "--hostname", "mx.test")
    assert backend._connectors[0].config.hello_name == "mx.test"
    backend = plan("--backend", "relay:a.test:hello_name=other.test", "--hostname", "mx.test")
    assert backend._connectors[0].config.hello_name == "other.test"
    backend = plan(*PUBLIC, "--backend", "lmtp:unix:/x", "--hostname", "mx.test")
    assert backend._connectors[0].config.hello_name == "mx.test"


def test_a_relay_for_nobody_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^--backend relay: nobody could send; say who may: trusted="):
        plan(*PUBLIC, "--backend", "relay:a.test")
    with pytest.raises(ConfigError, match="nobody could send"):
        plan("--backend", "relay:a.test:trusted=")
    assert plan(*PUBLIC, "--backend", "relay:a.test:trusted=10.0.0.0/8").trusted


def test_whoever_authenticates_is_somebody(tmp_path: Path) -> None:
    backend = plan(
        *PUBLIC, "--backend", "relay:a.test", "--auth", "memory:tim:secret", "--allow-insecure-auth", "--require-auth"
    )
    assert not backend.trusted


# -- docs/relay.md ----------------------------------------------------------------

PAGE = (ROOT / "docs" / "relay.md").read_text()
EXAMPLES = [line for line in PAGE.split("```")[1].splitlines() if line]


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_of_the_page(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path).rename("cert.pem")
    Path("users").write_text("")
    Path("isp.secret").write_text("me:open sesame\n")
    Path("key.pem").write_bytes(Path("cert.pem").read_bytes())
    words = shlex.split(line.replace("/etc/smtpfw/isp.secret", str(tmp_path / "isp.secret")))
    assert words[:3] == ["twistd", "-n", "smtpfw"]
    assert isinstance(plan(*words[3:]), RelayBackend | LMTPBackend)


def test_the_page_names_each_setting() -> None:
    _, _, table = PAGE.partition("| setting | default | |\n|---|---|---|\n")
    cells = [line.split(" | ")[0] for line in table.partition("\n\n")[0].splitlines()]
    assert {name for cell in cells for name in re.findall(r"`([a-z_]+)[=`]", cell)} == set(RELAY_SETTINGS)


def test_the_page_names_the_defaults() -> None:
    limits = [getattr(DEFAULT_CONFIG, f"{name}_timeout") for name in ("connect", "greeting", "command", "data")]
    limits += [DEFAULT_CONFIG.block_timeout, DEFAULT_CONFIG.end_timeout]
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `connect_timeout`")]
    assert [parse_duration(text) for text in row.split(" | ")[1].split(", ")] == limits
    assert f"| `max_connections=N` | {MAX_CONNECTIONS} |" in PAGE
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `opening_timeout=TIME`")]
    assert parse_duration(row.split(" | ")[1]) == OPENING_TIMEOUT
