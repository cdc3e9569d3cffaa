"""
Whether a Maildir could take mail: its folders are tried, and left as they were.

Rule 1: what mail would fail with is raised; what may be meant is a sentence.

Rule 2: nothing is written where a reader looks: files are tried in ``tmp``, and
in the folder above what is not there yet.
"""

# One spelling for what the kernel is asked: system calls, by their names.
# ruff: noqa: PTH108, PTH112, PTH116, PTH118, PTH120

from __future__ import annotations

import itertools
import os
import os.path
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from smtpfw.backends.maildir.failures import StorageError, attempt
from smtpfw.backends.maildir.folder import FILE_MODE, NEW_FILE, sync_folder
from smtpfw.backends.maildir.leftovers import folders_of
from smtpfw.backends.maildir.template import PathTemplate
from smtpfw.errors import ConfigError

__all__ = ["file_system_of", "try_out"]

#: How many mailboxes are looked at, and of how many that are out of order is told.
_MAX_MAILBOXES = 1000
_MANY = 3

#: File systems that are memory.
_VOLATILE = frozenset({"tmpfs", "ramfs"})

_MOUNTS = Path("/proc/self/mountinfo")


def try_out(template: PathTemplate, create: bool, mounts: Path = _MOUNTS) -> list[str]:
    """
    Try the folders of a template. Blocks.

    :param create: whether missing ones would be made.
    :param mounts: tells which file systems there are.
    :return: sentences about what works, and may not be meant.
    :raises ConfigError: a line for each folder that can't take mail.
    """
    try:
        sentences = list(_try(template, create))
    except StorageError as failure:
        raise ConfigError(str(failure)) from None
    kind = file_system_of(_nearest(template.prefix), mounts)
    if kind in _VOLATILE:
        sentences.append(f"{template.prefix}: this file system is memory ({kind}); a restart of the machine empties it")
    return sentences


def file_system_of(path: str, mounts: Path = _MOUNTS) -> str:
    """
    The type of the file system that holds a path, as ``ext4``; empty where that can't be told.

    :param mounts: a file as Linux has it (proc(5)).
    """
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    found = ("", "")
    for line in lines:
        place, _, kind = line.partition(" - ")
        fields = place.split()
        if len(fields) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        # Of several at one point the last one hides the others.
        if len(point) >= len(found[0]) and os.path.commonpath([real, point]) == point:
            found = point, kind.split()[0]
    return found[1]


def _try(template: PathTemplate, create: bool) -> Iterator[str]:
    prefix = template.prefix
    if not os.path.isdir(prefix):
        if create:
            _try_to_write(_nearest(prefix))
        elif os.path.lexists(prefix):
            raise ConfigError(f"{prefix} is no folder")
        else:
            yield f"there is no folder {prefix}, and it is never made: every recipient is refused with 550 5.1.1"
        return
    mailboxes = [path for path in itertools.islice(folders_of(template), _MAX_MAILBOXES) if os.path.isdir(path)]
    _check_all(mailboxes)
    for path in mailboxes[:1]:
        tmp = os.path.join(path, "tmp")
        _try_to_write(tmp if os.path.isdir(tmp) else path)
    if create and not template.fixed:
        _try_to_write(prefix)
    elif not mailboxes:
        yield f"there is no mailbox in {prefix}, and none is ever made: every recipient is refused with 550 5.1.1"


def _check_all(mailboxes: Iterable[str]) -> None:
    problems = [problem for problem in map(_problem, mailboxes) if problem]
    if problems:
        more = [f"and {len(problems) - _MANY} mailboxes more"] * (len(problems) > _MANY)
        raise ConfigError("\n".join([*problems[:_MANY], *more]))


def _problem(mailbox: str) -> str:
    """Why a mailbox can't take mail; empty if it seems that it can."""
    inner = [path for path in (os.path.join(mailbox, "tmp"), os.path.join(mailbox, "new")) if os.path.lexists(path)]
    for path in inner if len(inner) == 2 else [mailbox, *inner]:
        if not os.path.isdir(path):
            return f"{path} is no folder"
        if not os.access(path, os.W_OK | os.X_OK):
            return f"{path} can't be written by user id {os.geteuid()}"
    if len({os.stat(path).st_dev for path in inner}) > 1:
        return f"{mailbox}: tmp and new must be on one file system"
    return ""


def _nearest(path: str) -> str:
    """The path, or what is there of it."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _try_to_write(folder: str) -> None:
    """
    Write a file, fsync it and its folder, and remove it.

    :raises StorageError: when one of these does not work.
    """
    path = os.path.join(folder, f".check-{os.getpid()}-{os.urandom(6).hex()}")
    with attempt("create", path):
        file = os.open(path, NEW_FILE, FILE_MODE)
    try:
        with attempt("write", path):
            os.write(file, b"smtpfw --check\n")
        with attempt("fsync", path):
            os.fsync(file)
    finally:
        os.close(file)
        os.unlink(path)
    sync_folder(folder)
