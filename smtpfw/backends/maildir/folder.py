"""
One Maildir on a disk: create it, put files in, make that durable, clean up.

Rule 1: every function here may block, so all of them run off the reactor's thread.

Rule 2: a folder that was made is durable only when its parent has been fsynced, and a
file that was renamed only when its folder has been.

Rule 3: what is known to exist is not asked for again; ENOENT is how we learn
that somebody removed it, and then it is made again once, if we may.
"""

# One spelling for what the kernel is asked: system calls, by their names.
# ruff: noqa: PTH102, PTH104, PTH112, PTH116, PTH120

from __future__ import annotations

import itertools
import os
import re
import socket
import stat
import time

from smtpfw.backends.maildir.failures import StorageError, attempt

__all__ = ["FILE_MODE", "NEW_FILE", "FileNames", "Maildir", "sync_folder"]

FOLDER_MODE = 0o700
FILE_MODE = 0o600
SUBFOLDERS = ("tmp", "new", "cur")

#: O_NOFOLLOW and O_EXCL: whatever lies in the way of a new file, a link of somebody's above all, is not ours to write.
NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: Every reader may remove what has been in tmp for longer (https://cr.yp.to/proto/maildir.html).
LEFTOVER_AGE_SECONDS = 36 * 3600


class FileNames:
    """
    Names that no other thread, process, host or run has given: time, pid, counter and random bits.

    Nothing in them comes from a client.
    """

    def __init__(self, hostname: str | None = None) -> None:
        # A slash would be a folder, and a colon begins a reader's flags.
        self._hostname = re.sub(r"[^A-Za-z0-9._-]", "_", hostname or socket.gethostname())[:64]
        self._counter = itertools.count(1)

    def make(self) -> str:
        """A name that has never been given before."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        # The pid is asked for each time: the process that made this object may have forked since.
        unique = f"M{nanoseconds // 1000}P{os.getpid()}Q{next(self._counter)}_{os.urandom(6).hex()}"
        return f"{seconds}.{unique}.{self._hostname}"


class Maildir:
    """
    A folder with ``tmp``, ``new`` and ``cur`` in it.

    :param path: the folder.
    :param create: whether the folder and its missing parents may be made; ``tmp``, ``new`` and ``cur`` always may.
    :ivar known: whether it was there when we looked last.
    """

    __slots__ = ("_ready", "create", "known", "path")

    def __init__(self, path: str, create: bool) -> None:
        self.path = path
        self.create = create
        self.known = False
        self._ready = False

    def path_of(self, subfolder: str, name: str) -> str:
        """The path of a file."""
        return f"{self.path}/{subfolder}/{name}"

    def exists(self) -> bool:
        """
        Look whether the folder is there.

        :raises StorageError: when that cannot be told.
        """
        with attempt("look for", self.path):
            try:
                self.known = stat.S_ISDIR(os.stat(self.path).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                self.known = False
        return self.known

    def open_tmp(self, name: str) -> int:
        """
        Create a file in ``tmp``, and the folders if they are missing.

        :return: its descriptor, for writing.
        :raises StorageError: when it cannot be made.
        """
        if not self._ready:
            self.prepare()
        path = self.path_of("tmp", name)
        with attempt("create", path):
            try:
                return os.open(path, NEW_FILE, FILE_MODE)
            except FileNotFoundError:
                self.prepare()
                return os.open(path, NEW_FILE, FILE_MODE)

    def publish(self, name: str) -> None:
        """
        Rename a file from ``tmp`` into ``new``; durable only after :meth:`sync_new`.

        :raises StorageError: when that does not work; where the file is then is not known.
        """
        source, target = self.path_of("tmp", name), self.path_of("new", name)
        with attempt("rename into new", source):
            try:
                os.rename(source, target)
            except FileNotFoundError:
                self.prepare()
                os.rename(source, target)

    def sync_new(self) -> None:
        """
        Make every rename into ``new`` durable.

        :raises StorageError: when they may not be.
        """
        sync_folder(f"{self.path}/new")

    def remove_leftovers(self, now: float) -> int:
        """
        Remove files that have been in ``tmp`` for longer than 36 hours: their writers have died.

        :param now: seconds since the epoch.
        :return: how many there were. A folder that is no Maildir has none.
        :raises StorageError: when something could not be removed.
        """
        if not all(os.path.isdir(f"{self.path}/{subfolder}") for subfolder in SUBFOLDERS):
            return 0
        tmp = f"{self.path}/tmp"
        removed = 0
        with attempt("clean", tmp):
            # Through a descriptor: whoever replaces tmp by a link must not make us remove files elsewhere.
            folder = os.open(tmp, _FOLDER | os.O_NOFOLLOW)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        removed += _remove_if_old(entry, folder, now - LEFTOVER_AGE_SECONDS)
            finally:
                os.close(folder)
        return removed

    def prepare(self) -> None:
        """
        Make what is missing, and make that durable.

        :raises StorageError: when that does not work, or the folder is absent and may not be made.
        """
        self.known = self._ready = False
        if self.create:
            _make_folder(self.path)
        for subfolder in SUBFOLDERS:
            _make_entry(f"{self.path}/{subfolder}")
        # Even if all were there: an earlier process may have been killed between making them and this.
        sync_folder(self.path)
        self.known = self._ready = True


def _make_folder(path: str) -> None:
    try:
        made = _make_entry(path)
    except StorageError as failure:
        parent = os.path.dirname(path)
        if not isinstance(failure.reason, FileNotFoundError) or parent in ("", path):
            raise
        _make_folder(parent)
        made = _make_entry(path)
    if made:
        sync_folder(os.path.dirname(path) or ".")


def _make_entry(path: str) -> bool:
    with attempt("make the folder", path):
        try:
            os.mkdir(path, FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return False
    return True


def sync_folder(path: str) -> None:
    """
    Make the names in a folder durable.

    :raises StorageError: when they may not be.
    """
    with attempt("fsync the folder", path):
        folder = os.open(path, _FOLDER)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_if_old(entry: os.DirEntry[str], folder: int, before: float) -> bool:
    try:
        # Only regular files: a link in tmp is nothing that a delivery leaves.
        if not entry.is_file(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_mtime >= before:
            return False
        os.unlink(entry.name, dir_fd=folder)
    except FileNotFoundError:  # another process cleans, too
        return False
    return True
