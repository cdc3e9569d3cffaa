"""
A root folder for servers that know their files by absolute paths: Debian's packages and the libraries they need.

Exim and Dovecot have the paths of their configuration, their modules and the
names of their users built in. Within ``chroot`` all of these are a test's own,
and nothing is installed: no user, no service, no file outside of the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.interop.servers.packages import PeerMissing, unpacked

#: Names a folder into which all of :data:`PACKAGES` have been unpacked.
UNPACKED = "SMTPFW_TEST_PEERS"
PACKAGES = ("exim4-daemon-heavy", "dovecot-core", "dovecot-lmtpd", "dovecot-submissiond")

#: Whom the servers run as; Debian has this one, and its number is what counts outside.
UID = GID = 8

#: Those that are not root's: Exim insists on this name, and Dovecot on two that differ.
_USERS = {"root": 0, "Debian-exim": UID, "vmail": UID, "dovecot": 10, "dovenull": 13}

#: What runs, or is loaded by what runs.
_DOVECOT = (
    *("anvil", "auth", "config", "lmtp", "log", "stats", "submission", "submission-login"),
    "modules/libssl_iostream_openssl.so",
)
_PROGRAMS = (
    *("usr/sbin/exim4", "usr/sbin/dovecot", "usr/bin/doveconf"),
    *(f"usr/lib/dovecot/{program}" for program in _DOVECOT),
)

_FOLDERS = ("conf", "dev", "etc", "log", "mail", "run", "spool", "tmp", "var/lib/dovecot")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_NOT_FOUND = re.compile(r"(\S+) => not found")


@contextmanager
def private_root() -> Iterator[Path]:
    """
    A fresh root folder with Exim and Dovecot in it.

    ``conf`` is for configuration; ``log``, ``mail`` and ``spool`` belong to :data:`UID`.

    :raises PeerMissing: if there is none to be had.
    """
    if os.getuid():
        raise PeerMissing("chroot takes root")
    packages = _unpacked()
    with tempfile.TemporaryDirectory(prefix="root-") as name:
        root = Path(name)
        root.chmod(0o755)
        for folder in ("bin", "sbin", "lib"):
            shutil.copytree(packages / "usr" / folder, root / "usr" / folder, symlinks=True)
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True)
        for folder in ("log", "mail", "spool"):
            os.chown(root / folder, UID, GID)
        # A file will do, and no right to make devices is needed.
        (root / "dev/null").touch()
        (root / "dev/null").chmod(0o666)
        (root / "etc/passwd").write_text("".join(f"{user}:x:{id}:{id}::/:/\n" for user, id in _USERS.items()))
        (root / "etc/group").write_text("".join(f"{user}:x:{id}:\n" for user, id in _USERS.items()))
        dovecot = root / "usr/lib/dovecot"
        own = (dovecot, dovecot / "modules/old-stats", root / "usr/lib", *(root / "usr/lib").glob("*-linux-gnu"))
        copy_libraries(root, *_PROGRAMS, own=own)
        yield root


def copy_libraries(root: Path, *programs: str, own: Sequence[Path] = ()) -> None:
    """
    Put the libraries of the machine, and of unpacked packages, where programs in a root folder find them.

    :param programs: their paths within.
    :param own: folders within that have libraries already.
    :raises PeerMissing: if there are not all of them.
    """
    command = ["ldd", *(str(root / program) for program in programs)]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, own))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    missing = sorted(set(_NOT_FOUND.findall(done.stdout)))
    if missing:
        raise PeerMissing(f"libraries of {programs[0]} are not installed: {', '.join(missing)}")
    for path in map(Path, set(_LIBRARY.findall(done.stdout))):
        # The loader is asked for by its absolute path; the rest is found in the default folder.
        target = root / (str(path).lstrip("/") if path.name.startswith("ld-") else f"lib/{path.name}")
        if not path.is_relative_to(root / "usr/lib/dovecot") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _unpacked() -> Path:
    """The packages' files."""
    folder = unpacked(UNPACKED, *PACKAGES, *(() if UNPACKED in os.environ else _missing_libraries()))
    for program in ("usr/sbin/exim4", "usr/sbin/dovecot", "usr/lib/dovecot/lmtp", "usr/lib/dovecot/submission"):
        if not (folder / program).exists():
            raise PeerMissing(f"there is no {program} in {folder}")
    return folder


@cache
def _missing_libraries() -> tuple[str, ...]:
    """The packages of libraries that :data:`PACKAGES` depend on, and that are not installed."""
    done = subprocess.run(
        ["apt-cache", "depends", "--important", *PACKAGES], capture_output=True, text=True, check=False
    )
    libraries = sorted(set(re.findall(r"^ *\|?Depends: (lib\S+)$", done.stdout, re.MULTILINE)))
    # One by one: a name that dpkg has never heard of would be an error for all.
    return tuple(
        name for name in libraries if subprocess.run(["dpkg-query", "-s", name], capture_output=True).returncode
    )
