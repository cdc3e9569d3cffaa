"""
Whether next hops are there, as far as that can be seen without a word to them.

Rule: what is amiss is a warning only. A name server or a next hop that is down
now may be up when mail comes, and until then senders keep their mail.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from smtpfw.backends.trials import in_parallel
from smtpfw.client import Connector
from smtpfw.client.hosts import to_address

__all__ = ["PATIENCE", "look_for"]

#: Seconds for all names together, within those of a backend. Resolvers ask a second time after five.
PATIENCE = 6.0

_LATER = "mail that should go there is answered 451 until it is"


def look_for(
    connectors: Iterable[Connector], look_up: Callable[..., Any] = socket.getaddrinfo, patience: float = PATIENCE
) -> list[str]:
    """
    Look for the next hops: names by DNS, Unix sockets on the disk. Blocks.

    :param look_up: as :func:`socket.getaddrinfo`.
    :param patience: seconds for all names together.
    :return: a sentence for each that is not there.
    """
    destinations = list(dict.fromkeys(connector.destination for connector in connectors))
    sentences = [_socket_problem(one.socket_path) for one in destinations if one.socket_path]
    names = list(dict.fromkeys(one.name for one in destinations if one.name and to_address(one.name) is None))
    outcomes = in_parallel([partial(look_up, name, None) for name in names], patience)
    sentences += [_name_problem(name, outcome) for name, outcome in zip(names, outcomes, strict=True)]
    return [sentence for sentence in sentences if sentence]


def _name_problem(name: str, outcome: object) -> str:
    if isinstance(outcome, TimeoutError):
        return f"{name}: no name server has answered; {_LATER}"
    if isinstance(outcome, Exception):
        why = getattr(outcome, "strerror", None) or str(outcome)
        return f"{name}: it has no address ({why}); {_LATER}"
    return ""


def _socket_problem(path: str) -> str:
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return f"{path}: {(error.strerror or str(error)).lower()}; {_LATER}"
    if not stat.S_ISSOCK(mode):
        return f"{path}: it is no socket; {_LATER}"
    if not os.access(path, os.W_OK):
        return f"{path}: we may not connect to it; {_LATER}"
    return ""
