"""
A folder of certificates: which of its files belong together, and whether anything in it is new.

Rule 1: the files of the folder itself are looked at, and those of its subfolders, since certbot's ``live`` and others
keep a folder for each certificate. Deeper ones are not, nor what begins with a dot.

Rule 2: a key is told by its name, and its name tells the certificate::

    NAME.key, NAME-key.pem    with NAME.crt, NAME.cert, NAME.cer or NAME.pem beside it
    key.pem                   with cert.pem, or the like
    privkey.pem               with fullchain.pem, or the like

The only key of a folder goes with fullchain.pem in any case, if there is one. Any other ``.pem`` that has a key in it
holds both.

Rule 3: what has no key in it and goes with none is passed over, with a word to the operator unless it is an
authority's, another copy of a certificate that is used, or no certificate at all.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from smtpfw.errors import ConfigError
from smtpfw.tls.pem import find_chain, read_file, reason_of

__all__ = ["Folder", "Pair", "Problem", "Signature", "look_into", "signature_of"]

_CERTIFICATES = (".crt", ".cert", ".cer", ".pem")
_BEGIN_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"

#: What files are like by ``stat``, each with its path; or why there is nothing to be said of it.
Signature = frozenset[tuple[str, tuple[int, ...]]]


class Pair(NamedTuple):
    """
    Two files that belong together by their names.

    :ivar certificate: with its chain.
    :ivar key: None if the same file holds both.
    """

    certificate: str
    key: str | None


class Problem(NamedTuple):
    """
    A file that can't be used.

    :ivar paths: whom it is about.
    :ivar text: one line that names a file.
    """

    paths: tuple[str, ...]
    text: str


class Folder(NamedTuple):
    """
    What there is in a folder.

    :ivar pairs: what to read.
    :ivar problems: what can't be read, or goes with nothing.
    :ivar spare: certificates without a key, each with its file; none of authorities.
    :ivar closed: folders that could not be looked into, for whose files nothing is known.
    """

    pairs: list[Pair]
    problems: list[Problem]
    spare: list[tuple[str, x509.Certificate]]
    closed: list[str]


def look_into(path: str) -> Folder:
    """Find the pairs of a folder and its subfolders, in the order of their names."""
    found = Folder([], [], [], [])
    top = Path(path)
    subfolders = sorted(entry for entry in _entries(top) if entry.is_dir())
    for folder in (top, *subfolders):
        try:
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            found.problems.append(_unreadable(folder, error))
            found.closed.append(str(folder))
        else:
            files = [entry.name for entry in entries if entry not in subfolders and _may_be_read(entry)]
            _sort_out(folder, files, found)
    return found


def signature_of(paths: Iterable[str]) -> Signature:
    """
    What tells whether files are new, without reading them: of files, and of folders with all that is in them.

    Links are followed, as certbot's ``live`` has nothing else.
    """
    return frozenset((str(path), _facts(path)) for path in set(_walk(map(Path, paths), 2)))


def _walk(paths: Iterable[Path], deeper: int) -> Iterator[Path]:
    for path in paths:
        yield path
        if deeper:
            yield from _walk(_entries(path), deeper - 1)


def _facts(path: Path) -> tuple[int, ...]:
    try:
        facts = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    # The last is what a change of permissions leaves.
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino, facts.st_dev, facts.st_ctime_ns)


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem((str(path),), f"{path}: {(error.strerror or str(error)).lower()}")


def _may_be_read(path: Path) -> bool:
    """Whether reading ends, or fails: a named pipe would wait for whoever writes into it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _sort_out(folder: Path, files: list[str], found: Folder) -> None:
    keys = [name for name in files if _stem_of(name) is not None]
    used: set[str] = set()
    for key in keys:
        path = str(folder / key)
        fitting = _fitting(key, files, alone=len(keys) == 1)
        used.update(fitting)
        if len(fitting) == 1:
            found.pairs.append(Pair(str(folder / fitting[0]), path))
        elif fitting:
            text = f"{path}: {' and '.join(fitting)} could go with this key; leave one of them"
            found.problems.append(Problem((path, *(str(folder / name) for name in fitting)), text))
        else:
            text = f"{path}: a key without a certificate; {_stem_of(key)}.pem or the like is missing"
            found.problems.append(Problem((path,), text))
    for name in files:
        if name.endswith(_CERTIFICATES) and name not in used and name not in keys:
            _look_at(folder / name, found)


def _stem_of(key: str) -> str | None:
    """How the certificate of a key is named, without what is behind its last dot; None if this is no key."""
    if key.endswith(".key"):
        return key.removesuffix(".key")
    if key == "privkey.pem":
        return "fullchain"
    if key == "key.pem":
        return "cert"
    return key.removesuffix("-key.pem") if key.endswith("-key.pem") else None


def _fitting(key: str, files: list[str], *, alone: bool) -> list[str]:
    """The certificates that may go with a key."""
    for stem in ("fullchain", _stem_of(key)) if alone else (_stem_of(key),):
        fitting = [f"{stem}{ending}" for ending in _CERTIFICATES if f"{stem}{ending}" in files]
        if fitting:
            return fitting
    return []


def _look_at(path: Path, found: Folder) -> None:
    """A file of which the name says nothing."""
    name = str(path)
    try:
        content = read_file(name)
        if b"-----BEGIN " not in content:
            raise ConfigError(f"{name}: neither a certificate nor a key in PEM is in this file")
        has_key = b"PRIVATE KEY-----" in content
        if _BEGIN_CERTIFICATE not in content:
            if has_key:
                raise ConfigError(f"{name}: a key without a certificate; put both into one file, or name them by rule")
            # Diffie-Hellman parameters, a request to an authority.
            return
        if has_key:
            found.pairs.append(Pair(name, None))
            return
        first = _leaf(content, name)
        if not _is_authority(first):
            found.spare.append((name, first))
    except ConfigError as error:
        found.problems.append(Problem((name,), str(error)))


def _leaf(content: bytes, path: str) -> x509.Certificate:
    try:
        return find_chain(content, path)[0].to_cryptography()
    except ValueError as error:
        raise ConfigError(f"{path}: a certificate in this file can't be read ({reason_of(error)})") from None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
