"""
Our server as it stands behind proxies, as operators run it: one ``twistd`` with a listener for each way to be trusted.

What its backend has seen of each message can be asked for.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from smtpfw.sasl.users import make_secret
from tests.certificates import write_pair
from tests.interop.origins import Seen, seen
from tests.interop.servers.common import PASSWORD, TIMEOUT, USER
from tests.running import Twistd

HOSTNAME = "mx.example.org"

_TOP = """\
hostname = "{hostname}"
tls = "{folder}/server.pem"

[log]
protocol = "{folder}/protocol.log"

[auth]
users = "htpasswd:{folder}/users"

[deliver]
origins = "tests.interop.origins:Origins:{folder}/seen"
"""

_LISTENER = """
[listen.{name}]
on = ["tcp:0:interface=127.0.0.1", "smtps:tcp:0:interface=127.0.0.1"]
{settings}
"""


_ROUTES = 'routes = [ { to = "local.example", deliver = "origins" } ]'


@dataclass(frozen=True, slots=True)
class Behind:
    """
    :ivar ports: listener -> where it talks in clear, and where TLS comes first.
    :ivar certificate: what its own is verified with.
    """

    server: Twistd
    ports: Mapping[str, tuple[int, int]]
    certificate: Path
    _folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def fresh(self) -> str:
        """The address of a recipient who has got nothing yet."""
        return f"u{next(self._numbers)}@local.example"

    def seen(self, recipient: str) -> Seen:
        """Where the message to this one came from."""
        return seen(self._folder, recipient.partition("@")[0])

    def logged(self, pattern: str, begin: int = 0) -> re.Match[str]:
        """
        Wait for a line of the log.

        :param begin: where in the log to begin.
        :raises AssertionError: if it does not come.
        """
        return self._wait_for(pattern, lambda: self.server.log[begin:])

    def said(self, connection: str) -> list[str]:
        """The commands of a connection that is at its end."""
        path = self._folder.with_name("protocol.log")
        self._wait_for(rf" {connection} -- disconnected|\Z", path.read_text)
        return re.findall(rf" {connection} C: (.*)", path.read_text())

    def _wait_for(self, pattern: str, text: Callable[[], str]) -> re.Match[str]:
        poll = threading.Event()
        deadline = time.monotonic() + TIMEOUT
        while (found := re.search(pattern, text())) is None and time.monotonic() < deadline:
            poll.wait(0.02)
        assert found is not None, f"no {pattern!r} in:\n{text()}"
        return found


@contextmanager
def behind_proxies(folder: Path, listeners: Mapping[str, str]) -> Iterator[Behind]:
    """
    :param folder: where it runs; empty.
    :param listeners: name -> what stands in its table. Without routes there, all is taken that is for
        ``local.example``.
    """
    certificate = write_pair(folder)
    (folder / "seen").mkdir()
    (folder / "users").write_text(f"{USER}:{make_secret(PASSWORD, 'scrypt')}\n")
    configuration = _TOP.format(hostname=HOSTNAME, folder=folder)
    configuration += "".join(
        _LISTENER.format(name=name, settings=text if "routes" in text else f"{text}\n{_ROUTES}")
        for name, text in listeners.items()
    )
    (folder / "smtpfw.toml").write_text(configuration)
    with Twistd("--config", "smtpfw.toml", folder=folder, listeners=2 * len(listeners)) as server:
        ports = server.ports
        pairs = dict(zip(listeners, zip(ports[::2], ports[1::2], strict=True), strict=True))
        yield Behind(server, pairs, certificate, folder / "seen")
