"""
HAProxy and nginx, in front of a server: with a configuration of a test's own, in its own folder.

The sockets that they listen at are ours, and handed on to them: no port is taken
between its choice and its use, and clients can connect from the beginning.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.interop.servers.common import PASSWORD, USER
from tests.interop.servers.logged import LoggedProcess
from tests.interop.servers.packages import PeerMissing, unpacked

#: Names a folder into which :data:`PACKAGES` have been unpacked.
UNPACKED = "SMTPFW_TEST_PROXIES"
PACKAGES = ("haproxy", "nginx", "libnginx-mod-mail")

_MAIL_MODULE = "usr/lib/nginx/modules/ngx_mail_module.so"

_HAPROXY = """\
global
    log stdout format raw local0
    maxconn 200

defaults
    mode tcp
    log global
    option log-health-checks
    timeout connect 30s
    timeout client 60s
    timeout server 60s

"""

_HAPROXY_ROUTE = """\
listen {name}
    bind fd@{fd}{accept}
    server smtpfw 127.0.0.1:{target} {options}

"""

_NGINX = """\
load_module {module};
daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log stderr info;

events {{
    worker_connections 200;
}}

mail {{
    server_name nginx.example.net;
    smtp_capabilities 8BITMIME;
    set_real_ip_from 127.0.0.0/8;
    proxy_pass_error_message on;
{servers}
}}
"""

_NGINX_SERVER = """\
    server {{
        listen 127.0.0.1:{port}{accept};
        protocol smtp;
        auth_http 127.0.0.1:{auth_port}/{target};
        {options}
    }}
"""


@dataclass(frozen=True, slots=True)
class Route:
    """
    One port of a proxy.

    :ivar target: the port behind it.
    :ivar options: what stands in HAProxy's ``server`` line, or in nginx's ``server`` block.
    :ivar told: whether clients begin with a PROXY header themselves, which is believed.
    """

    target: int
    options: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """
    A proxy that runs.

    :ivar ports: route -> where it listens.
    """

    process: LoggedProcess
    ports: Mapping[str, int]


@contextmanager
def haproxy(routes: Mapping[str, Route]) -> Iterator[Front]:
    """:raises PeerMissing: if it cannot be had here."""
    program = _program("haproxy", "-v")
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(_listener()) for name in routes}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haproxy-")))
        configuration = _HAPROXY + "".join(
            _HAPROXY_ROUTE.format(
                name=name,
                fd=sockets[name].fileno(),
                accept=" accept-proxy" if route.told else "",
                target=route.target,
                options=route.options,
            )
            for name, route in routes.items()
        )
        (folder / "haproxy.cfg").write_text(configuration)
        command = [str(program), "-db", "-f", str(folder / "haproxy.cfg")]
        inherited = [each.fileno() for each in sockets.values()]
        process = stack.enter_context(LoggedProcess(command, os.environ, inherited))
        yield Front(process, {name: each.getsockname()[1] for name, each in sockets.items()})


@contextmanager
def nginx(routes: Mapping[str, Route]) -> Iterator[Front]:
    """
    Its proxy for mail. Where a route has ``smtp_auth``, it knows :data:`USER`, with any tag behind a plus.

    :raises PeerMissing: if it cannot be had here.
    """
    program = _program("nginx", "-v")
    module = program.parents[2] / _MAIL_MODULE
    if not module.exists():
        raise PeerMissing(f"there is no {module}")
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(_listener()) for name in routes}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
        auth_port = stack.enter_context(_auth_server())
        servers = "".join(
            _NGINX_SERVER.format(
                port=sockets[name].getsockname()[1],
                accept=" proxy_protocol" if route.told else "",
                auth_port=auth_port,
                target=route.target,
                options=route.options,
            )
            for name, route in routes.items()
        )
        configuration = _NGINX.format(module=module, folder=folder, servers=servers)
        (folder / "nginx.conf").write_text(configuration)
        command = [str(program), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]
        inherited = [each.fileno() for each in sockets.values()]
        # As it hands them on to itself when its program is replaced.
        environment = {**os.environ, "NGINX": "".join(f"{number};" for number in inherited)}
        process = stack.enter_context(LoggedProcess(command, environment, inherited))
        yield Front(process, {name: each.getsockname()[1] for name, each in sockets.items()})


def _program(name: str, *arguments: str) -> Path:
    """One that can run here, installed or unpacked."""
    installed = shutil.which(name, path="/usr/sbin:/usr/bin")
    program = (
        Path(installed)
        if installed and UNPACKED not in os.environ
        else unpacked(UNPACKED, *PACKAGES) / f"usr/sbin/{name}"
    )
    if not program.exists():
        raise PeerMissing(f"there is no {program}")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissing(f"{program} does not run: {done.stderr.strip()}")
    return program


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=100)


class _Permission(BaseHTTPRequestHandler):
    """nginx asks whether a client may come in, and where to; the port is the path."""

    def do_GET(self) -> None:
        login = self.headers["Auth-User"].partition("+")[0], self.headers["Auth-Pass"].replace("%20", " ")
        known = self.headers["Auth-Method"] == "none" or login == (USER, PASSWORD)
        self.send_response(200)
        self.send_header("Auth-Status", "OK" if known else "Invalid login or password")
        self.send_header("Auth-Server", "127.0.0.1")
        self.send_header("Auth-Port", self.path.lstrip("/"))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def _auth_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Permission) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
