"""
Open files: each connection is one, and most systems allow a process 1,024 of them at first.
"""

from __future__ import annotations

import math
import resource

__all__ = ["SPARE", "allow_connections"]

#: Files that are no connections: listeners, log, mailboxes, Python's own.
SPARE = 200


def allow_connections(count: int) -> int | None:
    """
    Raise the limit on open files, as far as it may be raised, so that there is room for so many connections.

    :param count: 0 for as many as possible.
    :return: the limit, if it is less than that needs; None if all is well.
    """
    soft, hard = map(_number, resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = count + SPARE if count else hard
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_limit(soft), _limit(hard)))
    return int(soft) if soft < wanted else None


def _number(limit: int) -> float:
    return math.inf if limit == resource.RLIM_INFINITY else limit


def _limit(number: float) -> int:
    return resource.RLIM_INFINITY if number == math.inf else int(number)
