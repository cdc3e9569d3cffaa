"""
Debian's packages, unpacked and never installed: no machine can have two mail transport agents.

It is a program as well: ``python3 tests/interop/servers/packages.py FOLDER PACKAGE...`` unpacks them there.

Packages come from the release that the machine runs, from where its own apt gets them. Those of :data:`TOO_OLD`
come from the release's backports: from a list of sources that nothing else on the machine sees.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

#: Package -> how versions begin that are of no use. OpenSMTPD 6.8 of Debian 12 is linked with OpenSSL 3, and cannot
#: sign there with a key that another of its processes holds: it offers STARTTLS, and no handshake succeeds.
TOO_OLD = {"opensmtpd": "6."}

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

#: Seconds for all that apt does at once.
_TIMEOUT = 120.0


class PeerMissing(Exception):
    """What a test needs cannot be had here; the text says why."""


def unpacked(variable: str, *packages: str) -> Path:
    """
    The files of packages: from the folder that an environment variable names, or freshly downloaded.

    :raises PeerMissing: if they can't be downloaded.
    """
    named = os.environ.get(variable)
    if named:
        return Path(named)
    try:
        return _downloaded(packages)
    except PeerMissing as error:
        raise PeerMissing(f"{error}; {variable} may name a folder with {', '.join(packages)} unpacked") from None


def unpack(folder: Path, *packages: str) -> None:
    """
    Download packages, and unpack them all into a folder.

    :raises PeerMissing: if one can't be downloaded.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PeerMissing("there is no apt-get")
    with tempfile.TemporaryDirectory(prefix="packages-") as name:
        # The user who downloads for apt has to get in.
        Path(name).chmod(0o755)
        old = [package for package in packages if package in TOO_OLD and _version(package).startswith(TOO_OLD[package])]
        _download(Path(name), [package for package in packages if package not in old])
        if old:
            _download(Path(name), old, _backports(Path(name)))
        folder.mkdir(parents=True, exist_ok=True)
        for path in Path(name).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)


@cache
def _downloaded(packages: tuple[str, ...]) -> Path:
    """Once for all tests."""
    folder = Path(tempfile.mkdtemp(prefix="unpacked-"))
    atexit.register(shutil.rmtree, folder)
    unpack(folder, *packages)
    # Servers that are not root any more read in it, and dpkg-deb gave it the mode of the packages' root.
    folder.chmod(0o755)
    return folder


def _version(package: str) -> str:
    """What apt would install; empty if it knows none."""
    shown = _output(["apt-cache", "show", "--no-all-versions", package])
    return next((line.split()[1] for line in shown.splitlines() if line.startswith("Version: ")), "")


def _download(folder: Path, packages: list[str], options: list[str] | None = None) -> None:
    if packages:
        _output(["apt-get", "download", "-q", *(options or []), *packages], folder)


def _backports(folder: Path) -> list[str]:
    """Options with which apt knows the backports of its release, and nothing else."""
    targets = _output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL)"])
    places = [line.split() for line in targets.splitlines()]
    found = next((place for place in places if place[2:] == ["Debian"] and "-" not in place[1]), None)
    if found is None:
        raise PeerMissing("apt names no release of Debian that has backports")
    uri, codename, _ = found
    keys = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
    (folder / "sources.list").write_text(f"deb {keys}{uri} {codename}-backports main\n")
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _output(["apt-get", "update", "-q", *options])
    return options


def _output(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines()
        raise PeerMissing(f"{' '.join(command)}: {why[-1] if why else f'status {done.returncode}'}")
    return done.stdout


if __name__ == "__main__":
    try:
        unpack(Path(sys.argv[1]), *sys.argv[2:])
    except PeerMissing as missing:
        sys.exit(str(missing))
