"""
One message on its way into one or several Maildir folders.

Rule 1: a file is written and fsynced in ``tmp`` of every folder before any of
them is renamed into ``new``.

Rule 2: a write or an fsync that failed is final for this delivery. A kernel may
mark pages clean that it could not write, so a second fsync would lie.

Rule 3: :meth:`Delivery.withdraw` removes whatever there is by then, wherever it
is; it may be called at any time, and any number of times.

Rule 4: at most two files are open at a time, however many folders there are.

All methods block; the committer's thread calls them, in order.
"""

# One spelling for what the kernel is asked: system calls, by their names.
# ruff: noqa: PTH108

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from smtpfw.backends.maildir.failures import attempt
from smtpfw.backends.maildir.folder import FileNames, Maildir

__all__ = ["Copy", "Delivery", "LFConverter"]

#: How much is copied at once from one folder's file to the next.
_COPY_BYTES = 256 * 1024

Octets = bytes | bytearray


class LFConverter:
    """CRLF becomes LF, across the edges of pieces; a bare CR or LF stays."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def convert(self, piece: Octets, last: bool) -> Octets:
        """
        The next piece.

        :param last: whether none follows: then a CR at its end is no half of a CRLF.
        """
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith(b"\r") and not last:
            self._held = b"\r"
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n")


class Copy:
    """
    The file of one folder.

    :param header: what stands in front of the message in this folder.
    """

    __slots__ = ("_begun", "_descriptor", "_name", "header", "maildir")

    def __init__(self, maildir: Maildir, header: bytes) -> None:
        self.maildir = maildir
        self.header = header
        self._begun = False
        self._name = ""
        self._descriptor = -1

    @property
    def synced(self) -> bool:
        """Whether it was written and fsynced."""
        return self._begun and self._descriptor < 0

    @property
    def path(self) -> str:
        """Where the file is before it is published."""
        return self.maildir.path_of("tmp", self._name)

    def begin(self, names: FileNames) -> None:
        """Create the file."""
        self._name = names.make()
        self._descriptor = self.maildir.open_tmp(self._name)
        self._begun = True

    def write(self, octets: Octets) -> None:
        """Append; a short write goes on where it stopped."""
        with attempt("write", self.path):
            written = os.write(self._descriptor, octets)
            if written < len(octets):
                rest = memoryview(octets)[written:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Have it on the disk, and close it."""
        with attempt("fsync", self.path):
            os.fsync(self._descriptor)
            # NFS reports at close what it could not write.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def publish(self) -> None:
        """Rename it into ``new``."""
        self.maildir.publish(self._name)

    def withdraw(self) -> None:
        """
        Remove the file from wherever it is.

        :raises StorageError: when it stays.
        """
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):  # the file goes anyway
                os.close(descriptor)
        if self._begun:
            self._begun = False
            # In both places: a rename that was reported as failed may have been done (NFS).
            try:
                _remove(self.maildir.path_of("new", self._name))
            finally:
                _remove(self.path)


def _remove(path: str) -> None:
    # A reader may have taken it already.
    with attempt("remove", path), suppress(FileNotFoundError):
        os.unlink(path)


class Delivery:
    """
    One message, and its copies.

    :param copies: one for each distinct folder, at least one.
    :param names: who gives the names of the files.
    :param lf: whether lines are to end in LF.
    """

    __slots__ = ("_begun", "_converter", "_names", "copies")

    def __init__(self, copies: Sequence[Copy], names: FileNames, lf: bool) -> None:
        self.copies = copies
        self._names = names
        self._converter = LFConverter() if lf else None
        self._begun = False
        if lf:
            for copy in copies:
                copy.header = copy.header.replace(b"\r\n", b"\n")

    def append(self, piece: Octets, last: bool = False) -> None:
        """
        Write the next piece of a large message into the first folder.

        :raises StorageError: when that does not work.
        """
        octets = self._convert(piece, last)
        first = self.copies[0]
        if not self._begun:
            self._begun = True
            first.begin(self._names)
            octets = first.header + octets
        first.write(octets)

    def duplicate(self, copy: Copy) -> None:
        """
        Write a large message, which the first folder has by now, into another.

        :raises StorageError: when that does not work.
        """
        first = self.copies[0]
        with attempt("read back", first.path):
            source = os.open(first.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                copy.begin(self._names)
                copy.write(copy.header)
                position = len(first.header)
                while octets := os.pread(source, _COPY_BYTES, position):
                    copy.write(octets)
                    position += len(octets)
                copy.sync()
            finally:
                os.close(source)

    def write_whole(self, message: Octets) -> None:
        """
        Write and fsync a small message into every folder.

        :raises StorageError: when that does not work in one of them.
        """
        octets = self._convert(message, True)
        for copy in self.copies:
            copy.begin(self._names)
            copy.write(copy.header + octets)
            copy.sync()

    def finish(self) -> None:
        """
        Fsync what is not yet.

        :raises StorageError: when that does not work.
        """
        for copy in self.copies:
            if not copy.synced:
                copy.sync()

    def publish(self) -> None:
        """
        Rename every file into ``new``. The folders are not fsynced by this.

        :raises StorageError: when one of the renames does not work.
        """
        for copy in self.copies:
            copy.publish()

    def withdraw(self) -> None:
        """
        Remove every file of this delivery.

        :raises StorageError: naming the last one that stays.
        """
        failure: Exception | None = None
        for copy in self.copies:
            try:
                copy.withdraw()
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    def _convert(self, piece: Octets, last: bool) -> Octets:
        return piece if self._converter is None else self._converter.convert(piece, last)
