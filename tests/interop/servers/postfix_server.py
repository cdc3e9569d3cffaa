"""
Postfix as a server: smtpd with STARTTLS, with implicit TLS, and with AUTH by Cyrus SASL; virtual(8) stores Maildir.

A message with a field ``X-Refuse-Me`` is refused at its end.

Cyrus SASL keeps passwords in a ``sasldb`` of this server's own, which is what it
needs for CRAM-MD5 and SCRAM. Its mechanisms and ``saslpasswd2`` are unpacked beside
Postfix where they are not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.interop.postfix import PostfixProcess, unpacked_postfix
from tests.interop.servers.common import (
    DOMAIN,
    MAILBOXES,
    PASSWORD,
    TIMEOUT,
    USER,
    UTF8_MAILBOXES,
    Peer,
    free_ports,
    read_maildir,
    write_certificate,
)
from tests.interop.servers.packages import PeerMissing

HOSTNAME = "postfix.example.net"

#: What Cyrus SASL is asked to offer.
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")

EXTENSIONS = frozenset(
    {"PIPELINING", "SIZE", "VRFY", "ETRN", "STARTTLS", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"}
)

#: Who delivers into the Maildirs; virtual(8) does nothing as root.
OWNER = 65534

_MAIN = """\
myhostname = {hostname}
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = texthash:{folder}/mailboxes
virtual_mailbox_base = {folder}/mail
virtual_mailbox_limit = 0
virtual_transport = virtual
virtual_minimum_uid = 1
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
local_header_rewrite_clients =
smtputf8_enable = yes
header_checks = regexp:{{{{/^X-Refuse-Me:/ REJECT as it wishes}}}}
smtpd_recipient_limit = 2000
smtpd_hard_error_limit = 2000
smtpd_soft_error_limit = 2000
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/server.pem
smtpd_tls_key_file = {folder}/server.pem
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {folder}/sasl
smtpd_sasl_local_domain = {hostname}
smtpd_sasl_security_options = noanonymous
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{smtps_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
tlsmgr    unix       - - n 1000? 1 tlsmgr
anvil     unix       - - n -  1 anvil
virtual   unix       - n n -  - virtual
"""

_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {folder}/sasldb
mech_list: {mechanisms}
"""


@contextmanager
def postfix_server(mechanisms: Sequence[str] = MECHANISMS, settings: str = "") -> Iterator[Peer]:
    """
    Postfix on two loopback ports.

    :param mechanisms: what it offers for AUTH.
    :param settings: others for ``main.cf``.
    :raises PeerMissing: if there is no Postfix, or no ``saslpasswd2``.
    """
    with unpacked_postfix() as root, tempfile.TemporaryDirectory(prefix="postfix-server-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        plugins = _sasl_plugins(root)
        _lay_out(folder, mechanisms)
        _make_user(folder, root, plugins)
        port, smtps_port = free_ports(2)
        main = _MAIN.format(folder=folder, hostname=HOSTNAME, domain=DOMAIN, owner=OWNER) + settings
        master = _MASTER.format(port=port, smtps_port=smtps_port)
        with PostfixProcess(root, main, master, sasl=folder / "sasl", sasl_plugins=plugins):
            yield Peer(
                name="Postfix",
                port=port,
                smtps_port=smtps_port,
                ca=folder / "ca.pem",
                read=lambda mailbox: read_maildir(folder / "mail" / mailbox),
                mechanisms=frozenset(mechanisms),
                extensions=EXTENSIONS,
                clear_auth=True,
            )


def _sasl_plugins(root: Path) -> Path | None:
    """The mechanisms of libsasl2, if they have been unpacked beside Postfix."""
    if root == Path("/"):
        return None
    return next((path.parent for path in root.glob("usr/lib/*/sasl2/libscram.so")), None)


def _lay_out(folder: Path, mechanisms: Sequence[str]) -> None:
    write_certificate(folder)
    (folder / "mail").mkdir()
    os.chown(folder / "mail", OWNER, OWNER)
    mailboxes = (*MAILBOXES, *UTF8_MAILBOXES)
    (folder / "mailboxes").write_text("".join(f"{mailbox}@{DOMAIN} {mailbox}/\n" for mailbox in mailboxes))
    (folder / "sasl").mkdir()
    (folder / "sasl" / "smtpd.conf").write_text(_SASL.format(folder=folder, mechanisms=" ".join(mechanisms)))


def _make_user(folder: Path, root: Path, plugins: Path | None) -> None:
    program = shutil.which("saslpasswd2", path=f"{root}/usr/sbin:/usr/sbin")
    if program is None:
        raise PeerMissing("saslpasswd2 (of the package sasl2-bin) is not installed, nor unpacked beside Postfix")
    environment = {**os.environ, "SASL_PATH": str(plugins)} if plugins else None
    command = [program, "-c", "-p", "-f", str(folder / "sasldb"), "-u", HOSTNAME, USER]
    subprocess.run(command, input=PASSWORD.encode(), env=environment, check=True, capture_output=True, timeout=TIMEOUT)
    # smtpd has no privileges when it reads them.
    (folder / "sasldb").chmod(0o644)
