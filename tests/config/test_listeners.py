"""Listeners: what is bound, how, and the one line that each failure gets."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory

from smtpfw.config.listeners import CannotListen, Listener, bind_all, parse_listener
from smtpfw.config.places import Place, Problems
from smtpfw.config.sockets import BoundSocket
from smtpfw.errors import ConfigError
from smtpfw.wire.config import LMTP, SMTP
from tests.certificates import write_pair


class Bind:
    """Binds for a test, and closes after it."""

    def __init__(self) -> None:
        self.bound: list[BoundSocket] = []
        self.protocol = SMTP

    def __call__(self, *texts: str, tls: CertificateOptions | None = None) -> list[BoundSocket]:
        listeners = tuple(self.parse(text) for text in texts)
        seats = bind_all(listeners, Factory(), object(), tls, self.protocol)
        self.bound += [bound for bound, _ in seats]
        for bound, factory in seats:
            bound.switch.serve(factory)
        return [bound for bound, _ in seats]

    @staticmethod
    def parse(text: str) -> Listener:
        """As a plan does it."""
        place, problems = Place("--listen"), Problems()
        with problems.at(place, text):
            return parse_listener(text, place)
        problems.check()
        raise AssertionError("not reached")

    def complaint(self, *texts: str) -> str:
        with pytest.raises(ConfigError) as caught:
            self(*texts)
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"--listen {texts[-1]}: ".replace(" :", ":"))
        return line


@pytest.fixture
def bind() -> Iterator[Bind]:
    bind = Bind()
    yield bind
    for one in bind.bound:
        one.discard()


@pytest.mark.parametrize(
    ("text", "endpoint", "implicit_tls"),
    [
        ("tcp:25", "tcp:25:backlog=1024", False),
        ("tcp:25:backlog=7", "tcp:25:backlog=7", False),
        ("tcp:25:127.0.0.1:7", "tcp:25:127.0.0.1:7", False),
        ("tcp6:25", "tcp6:25:backlog=1024", False),
        ("tcp6:25:7", "tcp6:25:7", False),
        ("smtps:465", "tcp:465:backlog=1024", True),
        ("SMTPS:465:interface=127.0.0.1", "tcp:465:interface=127.0.0.1:backlog=1024", True),
        ("smtps:tcp6:465", "tcp6:465:backlog=1024", True),
        ("unix:/run/x", "unix:/run/x:mode=660:backlog=1024", False),
        ("unix:/run/x:mode=600", "unix:/run/x:mode=600:backlog=1024", False),
        ("unix:/run/x:600", "unix:/run/x:600:backlog=1024", False),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0", False),
    ],
)
def test_what_twisted_gets_to_see(text: str, endpoint: str, implicit_tls: bool) -> None:
    listener = parse_listener(text)
    assert (listener.endpoint, listener.implicit_tls) == (endpoint, implicit_tls)


def test_a_tcp_socket_listens_at_once(bind: Bind) -> None:
    (bound,) = bind("tcp:0:interface=127.0.0.1")
    with socket.create_connection(bound.address):
        assert not bound.implicit_tls


def test_implicit_tls_wraps_the_factory(bind: Bind) -> None:
    (bound,) = bind("smtps:tcp:0:interface=127.0.0.1", tls=CertificateOptions())
    assert bound.implicit_tls
    assert isinstance(bound.switch.factory, TLSMemoryBIOFactory)


def test_tcp6_on_all_addresses_takes_both_families(bind: Bind) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    (bound,) = bind("tcp6:0")
    with socket.create_connection(("127.0.0.1", bound.address[1])):
        pass
    with socket.create_connection(("::1", bound.address[1])):
        pass


def test_an_escaped_ipv6_interface(bind: Bind) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    (bound,) = bind(r"tcp6:0:interface=\:\:1")
    assert bound.address[0] == "::1"


def test_a_unix_socket_has_its_mode_from_birth_and_goes_with_us(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    old = os.umask(0o022)
    try:
        (bound,) = bind(f"unix:{path}")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    bound.discard()
    assert not path.exists()


def test_the_file_of_a_dead_server_is_replaced(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    bind(f"unix:{path}:mode=600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_in_use_is_left_alone(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    bind(f"unix:{path}")
    assert bind.complaint(f"unix:{path}").endswith(f"{path} is in use; another server answers there")
    assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    path.write_text("precious")
    assert "is no socket" in bind.complaint(f"unix:{path}")
    assert path.read_text() == "precious"


def test_an_inherited_socket_is_kept_as_it_is(bind: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        descriptor = passed.fileno()
        monkeypatch.setattr(
            "twisted.internet.endpoints._SystemdParser._sddaemon", _Daemon([descriptor], {"smtp": descriptor})
        )
        (bound,) = bind("systemd:domain=UNIX:name=smtp")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    bound.discard()
    assert path.exists()


def test_one_failure_frees_those_before_it(bind: Bind) -> None:
    (probe,) = bind("tcp:0:interface=127.0.0.1")
    port = probe.address[1]
    probe.discard()
    bind.complaint(f"tcp:{port}:interface=127.0.0.1", "nonsense:1")
    bind(f"tcp:{port}:interface=127.0.0.1")


def test_a_port_in_use(bind: Bind) -> None:
    (bound,) = bind("tcp:0:interface=127.0.0.1")
    port = bound.address[1]
    line = bind.complaint(f"tcp:{port}:interface=127.0.0.1")
    assert f"port {port} is in use; 'ss -ltnp sport = :{port}' shows by whom" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tpc:25", "unknown endpoint type 'tpc'; did you mean tcp? (known are "),
        ("2525", "no endpoint type; did you mean tcp:2525?"),
        ("", "no endpoint"),
        ("tcp:smtp", "not understood"),
        ("tcp:70000", "70000 is no port number"),
        ("tcp", "not understood"),
        ("tcp:0:colour=red", "not understood"),
        ("tcp6:0:interface=::", r"take a backslash each, as in tcp6:25:interface=\:\:1"),
        ("tcp:0:interface=192.0.2.77", "this machine has no address '192.0.2.77'"),
        ("tcp:0:interface=no.such.host.invalid", "this machine has no address 'no.such.host.invalid'"),
        ("unix:/no/such/folder/sock", "the folder of /no/such/folder/sock does not exist"),
        ("systemd:domain=INET:name=absent", "systemd passed no such socket ('absent')"),
        ("systemd:domain=INET:index=9", "systemd passed no such socket"),
        ("tcp:25\\", "a backslash at the end quotes nothing"),
        ("haproxy:tcp:0", "write the endpoint without haproxy:, and name your proxies"),
        ("tls:465", "write smtps:PORT, and give tls, --tls CERT[:KEY]"),
        ("smtps:465", "smtps: needs a certificate; give tls, --tls CERT[:KEY]"),
    ],
)
def test_a_mistake_is_one_line(bind: Bind, text: str, expected: str) -> None:
    assert expected in bind.complaint(text)


def test_an_ssl_endpoint_of_twisted(bind: Bind, tmp_path: Path) -> None:
    pem = write_pair(tmp_path)
    (bound,) = bind(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
    assert bound.implicit_tls


@pytest.mark.parametrize(
    ("protocol", "family", "address", "allowed"),
    [
        (LMTP, socket.AF_INET6, ("::", 25, 0, 0), False),
        (SMTP, socket.AF_INET6, ("::", 25, 0, 0), True),
        (LMTP, socket.AF_UNIX, "/run/25", True),
        (LMTP, socket.AF_INET, ("127.0.0.1", 24), True),
    ],
)
def test_lmtp_is_not_for_port_25(protocol: str, family: int, address: object, allowed: bool) -> None:
    listener = parse_listener("tcp:25")
    bound: Any = SimpleNamespace(family=family, address=address, endpoint=listener.endpoint)
    kept: Any = {listener.endpoint: [bound]}
    if allowed:
        assert bind_all((listener,), Factory(), object(), None, protocol, kept)[0][0] is bound
    else:
        with pytest.raises(ConfigError, match="must not be served on port 25"):
            bind_all((listener,), Factory(), object(), None, protocol, kept)


def test_no_permission(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("smtpfw.config.sockets.Binder._listen", refuse)
    assert "no permission for port 0; ports below 1024 need root" in bind.complaint("tcp:0:interface=127.0.0.1")


class _Daemon:
    def __init__(self, descriptors: list[int], named: dict[str, int]) -> None:
        self.inheritedDescriptors = lambda: descriptors
        self.inheritedNamedDescriptors = lambda: named


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_port_that_this_service_has_itself(bind: Bind) -> None:
    (bound,) = bind("tcp:0:interface=127.0.0.1")
    port = bound.address[1]
    other = parse_listener(f"tcp:port={port}:interface=0.0.0.0")
    with pytest.raises(CannotListen, match=f"port {port} is in use; 'ss -ltnp sport = :{port}' shows by whom"):
        bind_all((other,), Factory(), object(), None)
    with pytest.raises(CannotListen, match=f"port {port} is in use by this service itself; that change needs"):
        bind_all((other,), Factory(), object(), None, kept={bound.endpoint: [bound]})
