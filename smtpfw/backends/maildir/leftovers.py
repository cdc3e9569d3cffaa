"""
Cleaning at start: what deliveries of processes that died have left in ``tmp``.

Rule 1: only below the template, only in what is a Maildir, only regular files,
and never through a symbolic link in the part of the path that recipients name.

Rule 2: it is one pass over all folders, so it runs beside the committer, which must not wait for it.
"""

# One spelling for what the kernel is asked: system calls, by their names.
# ruff: noqa: PTH114, PTH120, PTH207

from __future__ import annotations

import glob
import os.path
import threading
from collections.abc import Iterator
from typing import NamedTuple

from smtpfw.backends.maildir.failures import StorageError
from smtpfw.backends.maildir.folder import Maildir
from smtpfw.backends.maildir.template import PathTemplate

__all__ = ["Cleaned", "folders_of", "remove_leftovers"]


class Cleaned(NamedTuple):
    """
    :ivar files: how many were removed.
    :ivar failures: what could not be.
    """

    files: int
    failures: list[StorageError]


def remove_leftovers(template: PathTemplate, now: float, stopping: threading.Event) -> Cleaned:
    """
    Clean every folder of a template. Blocks.

    :param now: seconds since the epoch.
    :param stopping: when it is set, the rest is left for the next start.
    """
    files = 0
    failures: list[StorageError] = []
    for path in folders_of(template):
        if stopping.is_set():
            break
        try:
            files += Maildir(path, create=False).remove_leftovers(now)
        except StorageError as failure:
            failures.append(failure)
    return Cleaned(files, failures)


def folders_of(template: PathTemplate) -> Iterator[str]:
    """Every folder of a template that is there; the one of a template without fields, even if it is not."""
    if template.fixed:
        yield template.prefix
        return
    for path in glob.iglob(template.glob_pattern()):
        # The operator's own part may be a link; a link below it may be some user's, and lead anywhere.
        part = path
        while part != template.prefix and not os.path.islink(part):
            part = os.path.dirname(part)
        if part == template.prefix:
            yield path
