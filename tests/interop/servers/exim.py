"""
Exim: STARTTLS, implicit TLS and every mechanism that Debian's has, with and without an account of Dovecot's.

A message with a field ``X-Refuse-Me`` is refused at its end.

It knows PLAIN, LOGIN, CRAM-MD5 and EXTERNAL itself. For SCRAM it asks the
authentication service of a Dovecot that runs beside it.

Mail is accepted into the queue, and goes to the mailboxes when somebody wants to
read one: then it is known that nothing is still on its way.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.interop.servers.common import (
    DOMAIN,
    MAILBOXES,
    PASSWORD,
    TIMEOUT,
    USER,
    UTF8_MAILBOXES,
    Peer,
    read_maildir,
    write_certificate,
    write_client_certificates,
)
from tests.interop.servers.dovecot import Dovecot
from tests.interop.servers.dovecot_settings import ACCOUNTS
from tests.interop.servers.root import UID, private_root

_CONFIGURATION = """\
primary_hostname = exim.example.net
spool_directory = /spool
log_file_path = /log/%s
notifier_socket =
keep_environment =
queue_only = true
acl_smtp_rcpt = rcpt
acl_smtp_data = data
message_size_limit = 40M
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = /conf/server.pem
tls_privatekey = /conf/server.pem
tls_try_verify_hosts = *
tls_verify_certificates = /conf/clients.pem
# What tests ask about.
received_header_text = Received: with $received_protocol \\
    authenticated="$sender_host_authenticated $authenticated_id" id $message_exim_id

begin acl

rcpt:
    accept domains = {domain}
           local_parts = lsearch;/conf/users
    deny   message = 5.1.1 No such user here

data:
    deny   condition = ${{if def:h_X-Refuse-Me:}}
           message = 5.7.1 as it wishes
    accept

begin routers

local:
    driver = accept
    local_parts = lsearch;/conf/users
    transport = maildir

begin transports

maildir:
    driver = appendfile
    # local_part itself is what a stranger has written, and is not allowed here.
    directory = /mail/$local_part_data
    maildir_format
    create_directory
    return_path_add
    envelope_to_add
    delivery_date_add
    user = Debian-exim

begin authenticators

plain:
    driver = plaintext
    public_name = PLAIN
    server_advertise_condition = ${{if def:tls_in_cipher}}
    server_prompts = :
    server_condition = ${{if and {{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
    server_set_id = $auth2

login:
    driver = plaintext
    public_name = LOGIN
    server_advertise_condition = ${{if def:tls_in_cipher}}
    server_prompts = Username:: : Password::
    server_condition = ${{if and {{{{eq{{$auth1}}{{{user}}}}}{{eq{{$auth2}}{{{password}}}}}}}}}
    server_set_id = $auth1

cram_md5:
    driver = cram_md5
    public_name = CRAM-MD5
    server_secret = ${{if eq{{$auth1}}{{{user}}}{{{password}}}fail}}
    server_set_id = $auth1

external:
    driver = external
    public_name = EXTERNAL
    server_advertise_condition = ${{if and {{{{def:tls_in_cipher}}{{eq{{$tls_in_certificate_verified}}{{1}}}}}}}}
    server_param2 = ${{certextract{{subject,CN}}{{$tls_in_peercert}}}}
    server_condition = ${{if and {{{{eq{{$auth2}}{{{user}}}}}{{inlist{{$auth1}}{{:{user}}}}}}}}}
    server_set_id = $auth2

scram_sha_1:
    driver = dovecot
    public_name = SCRAM-SHA-1
    server_socket = /run/dovecot/auth-client
    server_set_id = $auth1

scram_sha_256:
    driver = dovecot
    public_name = SCRAM-SHA-256
    server_socket = /run/dovecot/auth-client
    server_set_id = $auth1
"""


class Exim:
    """
    Runs in a root folder; use it in ``with``.

    :ivar port: where it talks in clear.
    :ivar smtps_port: where TLS comes first.
    """

    def __init__(self, root: Path) -> None:
        self._command = ["chroot", str(root), "/usr/sbin/exim4", "-C", "/conf/exim.conf"]
        self._root = root
        self._queue = threading.Lock()
        settings = {"domain": DOMAIN, "user": USER, "password": PASSWORD}
        (root / "conf/exim.conf").write_text(_CONFIGURATION.format(**settings))
        (root / "conf/users").write_text("".join(f"{name}: {name}\n" for name in (*MAILBOXES, *UTF8_MAILBOXES)))

    def __enter__(self) -> Exim:
        self._stack = ExitStack()
        self.port = self._listen()
        self.smtps_port = self._listen("-tls-on-connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, mailbox: str) -> list[bytes]:
        """What is in a mailbox when nothing is in the queue any more."""
        with self._queue:
            if any((self._root / "spool/input").glob("*-H")):
                subprocess.run([*self._command, "-qff"], check=True, timeout=TIMEOUT)
        return read_maildir(self._root / "mail" / mailbox)

    def _listen(self, *options: str) -> int:
        """Exim is told to wait for clients at a socket of ours, as inetd has it: they can connect from now on."""
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            process = subprocess.Popen([*self._command, *options, "-bw"], stdin=listener.fileno())
            self._stack.callback(_end, process)
            return int(listener.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(TIMEOUT)


@contextmanager
def exim_server() -> Iterator[Peer]:
    """:raises PeerMissing: if it cannot be had here."""
    with private_root() as root:
        write_certificate(root / "conf")
        write_client_certificates(root / "conf")
        for path in (root / "conf").iterdir():
            os.chown(path, UID, UID)
        (root / "conf/accounts").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        with Dovecot(root, ACCOUNTS), Exim(root) as exim:
            yield Peer(
                name="Exim",
                port=exim.port,
                smtps_port=exim.smtps_port,
                ca=root / "conf" / "ca.pem",
                read=exim.read,
                mechanisms=frozenset({"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"}),
                certificates=root / "conf",
                extensions=frozenset({"STARTTLS", "PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "SIZE", "DSN"}),
            )
