"""
A Postfix of its own for a test: unpacked, not installed, with configuration and queue in a temporary folder.

:class:`PostfixProcess` runs whatever its settings say; :class:`Postfix` takes
mail from its ``sendmail`` and hands all of it to one LMTP socket. The log comes
through a pipe, so that a test waits for a line and not for a time.

Postfix wants to be started by root, and two identities for itself that are
neither root's nor one another's. Every Debian has some that nothing uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.interop.servers.packages import PeerMissing, unpacked

#: Names a folder into which Debian's packages have been unpacked.
UNPACKED = "SMTPFW_TEST_POSTFIX"

#: Beside itself what its smtpd needs for AUTH: Cyrus SASL's password database, and its mechanisms.
PACKAGES = ("postfix", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db")

MAIL_OWNER, SETGID_GROUP = "list", "irc"

#: Seconds without any line in the log, until what is waited for is given up.
TIMEOUT = 30.0

#: The folders that are its owner's alone.
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")

_DAEMONS = Path("usr/lib/postfix/sbin")

_DELIVERY = (
    r"/lmtp\[\d+\]: {id}: to=<(?P<recipient>[^>]*)>, (?:orig_to=<(?P<original>[^>]*)>, )?"
    r".*? dsn=(?P<dsn>[\d.]+), status=(?P<status>\w+) \((?P<text>.*)\)$"
)

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {root}/usr/sbin
daemon_directory = {root}/usr/lib/postfix/sbin
meta_directory = {root}/etc/postfix
sendmail_path = {root}/usr/sbin/sendmail
shlib_directory = no
import_environment = MAIL_CONFIG LD_LIBRARY_PATH SASL_PATH LANG=C TZ=UTC
export_environment = MAIL_CONFIG LD_LIBRARY_PATH SASL_PATH LANG=C TZ=UTC
mail_owner = {owner}
setgid_group = {group}
maillog_file = /dev/stdout
myhostname = postfix.example.net
mydestination =
local_recipient_maps =
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
message_size_limit = 40000000
mailbox_size_limit = 0
in_flow_delay = 0
"""

_MASTER = """\
pickup    unix       n - n 60 1 pickup
cleanup   unix       n - n -  0 cleanup
qmgr      unix       n - n 300 1 qmgr
rewrite   unix       - - n -  - trivial-rewrite
bounce    unix       - - n -  0 bounce
defer     unix       - - n -  0 bounce
trace     unix       - - n -  0 bounce
flush     unix       n - n 1000? 0 flush
proxymap  unix       - - n -  - proxymap
error     unix       - - n -  - error
retry     unix       - - n -  - error
lmtp      unix       - - n -  - lmtp
scache    unix       - - n -  1 scache
postlog   unix-dgram n - n -  1 postlogd
"""


class Delivery(NamedTuple):
    """
    What became of a message for one recipient, in Postfix's words.

    :ivar original: the alias that the recipient was made of; empty if none.
    :ivar dsn: the enhanced status code.
    :ivar status: ``sent``, ``bounced`` or ``deferred``.
    :ivar text: what the server said, and at which command.
    """

    recipient: str
    original: str
    dsn: str
    status: str
    text: str


@contextmanager
def unpacked_postfix() -> Iterator[Path]:
    """
    Postfix's files under a folder: the one that the environment names, an installed one's, or a fresh download.

    :raises PeerMissing: if there is none.
    """
    if os.getuid():
        raise PeerMissing("Postfix has to be started by root")
    installed = (Path("/") / _DAEMONS / "master").exists()
    root = Path("/") if installed and UNPACKED not in os.environ else unpacked(UNPACKED, *PACKAGES)
    if not (root / _DAEMONS / "master").exists():
        raise PeerMissing(f"there is no {_DAEMONS}/master in {root}")
    yield root


class PostfixProcess:
    """
    A Postfix that runs; use it in ``with``.

    :param root: see :func:`unpacked_postfix`.
    :param main: settings for ``main.cf``, after those that any Postfix of the tests has.
    :param master: services for ``master.cf``, likewise.
    :param sasl: the folder of Cyrus SASL's settings.
    :param sasl_plugins: the folder of its mechanisms, if they are not where it looks for them.
    """

    def __init__(
        self,
        root: Path,
        main: str = "",
        master: str = "",
        *,
        sasl: Path | None = None,
        sasl_plugins: Path | None = None,
    ) -> None:
        self._root = root
        self._main = main
        self._master = master
        self._sasl = sasl
        self._sasl_plugins = sasl_plugins
        self._news = threading.Condition()
        self._ended = False
        self.log: list[str] = []

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="postfix-"))
        self._environment = {
            **os.environ,
            "MAIL_CONFIG": f"{self._folder}/etc",
            "LD_LIBRARY_PATH": f"{self._root}/usr/lib/postfix",
        }
        if self._sasl_plugins is not None:
            self._environment["SASL_PATH"] = str(self._sasl_plugins)
        self._lay_out()
        self._process = subprocess.Popen(
            [str(self._root / _DAEMONS / "master"), "-d", "-s", "-c", f"{self._folder}/etc"],
            env=self._environment,
            # master ends by a signal to its process group; if it has none, services that are busy outlive it.
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait_for("daemon started")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _lay_out(self) -> None:
        self._folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self._folder / name).mkdir()
        shutil.chown(self._folder / "data", MAIL_OWNER)
        settings = {"folder": self._folder, "root": str(self._root).rstrip("/")}
        main = _MAIN.format(**settings, owner=MAIL_OWNER, group=SETGID_GROUP)
        (self._folder / "etc" / "main.cf").write_text(main + self._main)
        (self._folder / "etc" / "master.cf").write_text(_MASTER + self._master)
        if self._sasl is not None:
            # Postfix 3.7 of Debian 12 looks here, whatever cyrus_sasl_config_path says.
            (self._folder / "etc" / "sasl").symlink_to(self._sasl)
        for name in QUEUES:
            self._make_queue(name, 0o700, None)
        self._make_queue("maildrop", 0o730, SETGID_GROUP)
        self._make_queue("public", 0o710, SETGID_GROUP)
        (self._folder / "queue" / "pid").mkdir()

    def _make_queue(self, name: str, mode: int, group: str | None) -> None:
        path = self._folder / "queue" / name
        path.mkdir()
        shutil.chown(path, MAIL_OWNER, group)
        path.chmod(mode)

    def _wait_for(self, pattern: str, number: int = 1) -> list[re.Match[str]]:
        """The first ``number`` lines of the log that match."""
        seek = re.compile(pattern)
        found: list[re.Match[str]] = []
        begin = 0
        with self._news:
            while len(found) < number:
                if begin == len(self.log) and (self._ended or not self._news.wait(TIMEOUT)):
                    raise AssertionError(
                        f"{len(found)} of {number} lines {pattern!r} in the log:\n" + "\n".join(self.log)
                    )
                found += filter(None, map(seek.search, self.log[begin:]))
                begin = len(self.log)
        return found[:number]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        shutil.rmtree(self._folder)


class Postfix(PostfixProcess):
    """
    A Postfix that hands all mail to an LMTP server.

    :param root: see :func:`unpacked_postfix`.
    :param socket: where the LMTP server is. Others than root must be able to reach it.
    :param aliases: what becomes of an address.
    """

    def __init__(self, root: Path, socket: Path, aliases: dict[str, str]) -> None:
        table = ", ".join(f"{{{alias} = {target}}}" for alias, target in aliases.items()) or "{ - = - }"
        super().__init__(root, f"virtual_alias_maps = inline:{{ {table} }}\ndefault_transport = lmtp:unix:{socket}\n")

    def submit(self, sender: str, recipients: Iterable[str], octets: bytes) -> str:
        """
        Put a message into the queue, once for all recipients.

        :param sender: one that no other message has; by it the message is found in the log.
        :param octets: its lines end in LF or CRLF.
        :return: the id in the queue.
        """
        command = [str(self._root / "usr/sbin/sendmail"), "-i", "-f", sender, "--", *recipients]
        subprocess.run(command, env=self._environment, input=octets, check=True, timeout=TIMEOUT)
        return self._wait_for(rf"/pickup\[\d+\]: (\w+): uid=\d+ from=<{re.escape(sender)}>")[0][1]

    def deliveries(self, id: str, number: int) -> list[Delivery]:
        """Wait for what becomes of ``number`` recipients of a message."""
        found = self._wait_for(_DELIVERY.format(id=id), number)
        return [Delivery(**{name: value or "" for name, value in match.groupdict().items()}) for match in found]

    def bounce_of(self, id: str) -> str:
        """Wait for the bounce of a message, and give its id."""
        return self._wait_for(rf"/bounce\[\d+\]: {id}: sender non-delivery notification: (\w+)")[0][1]
