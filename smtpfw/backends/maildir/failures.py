"""
What a disk can refuse: the line that the operator reads, and the reply that the client gets.

Rule 1: every failure of storage is temporary for the client; it keeps the message and comes again.

Rule 2: one failure is one line in the log. It says what failed, on which path,
and what to do.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType

from smtpfw.errors import InsufficientStorage, SMTPError, TryAgainLater

__all__ = ["StorageError", "attempt"]

#: errno -> what the operator should do about it.
_ADVICE = {
    errno.ENOSPC: "free space or inodes on that file system",
    errno.EDQUOT: "raise the quota there, or remove mail",
    errno.EACCES: "let the user that this process runs as write there",
    errno.EPERM: "let the user that this process runs as write there",
    errno.EROFS: "the file system is read-only: look for its reason in the kernel's log, then remount it",
    errno.EIO: "the disk may be failing: look into the kernel's log",
    errno.ENOENT: "the folder is gone: put it back",
    errno.ENOTDIR: "something that is no folder is in the way: move it",
    errno.EEXIST: "something that is no folder is in the way: move it",
    errno.ELOOP: "symbolic links lead nowhere there: mend them",
    errno.EXDEV: "tmp and new must be on one file system",
    errno.EMFILE: "raise the limit of open files (LimitNOFILE, ulimit -n)",
    errno.ENFILE: "raise the system's limit of open files (fs.file-max)",
}
_OTHERWISE = "look into the kernel's log"

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class StorageError(Exception):
    """
    Something that was tried on a path, and did not work.

    :ivar action: a verb in the infinitive, as in "could not <write> <path>".
    :ivar path: the path.
    :ivar reason: what the system said.
    """

    def __init__(self, action: str, path: str, reason: OSError) -> None:
        super().__init__(action, path, reason)
        self.action = action
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        number = self.reason.errno or 0
        said = os.strerror(number) if number else str(self.reason)
        return f"could not {self.action} {self.path}: {said}; {_ADVICE.get(number, _OTHERWISE)}"

    def reply(self) -> SMTPError:
        """The refusal that the client reads; it names no path."""
        return InsufficientStorage() if self.reason.errno in _FULL else TryAgainLater()


class attempt:  # noqa: N801 - reads as the statement that it is: ``with attempt("write", path):``
    """A context in which every OSError becomes a :class:`StorageError`."""

    __slots__ = ("_action", "_path")

    def __init__(self, action: str, path: str) -> None:
        self._action = action
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise StorageError(self._action, self._path, error) from error
