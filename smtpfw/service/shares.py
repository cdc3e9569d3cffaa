"""
What each of several workers may do: its share of the limits.

Rule: a limit of a listener that counts over connections is divided by the
number of workers and rounded up, so that all of them together keep to what the
operator has written for that listener, but for the rounding. What holds for one
connection or one message is the same in each. A check that counts has a method
``share(workers)``, which gives its like with a part of its limits; one without
it counts in each worker alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from smtpfw.config.plan import ListenPlan, ServicePlan
from smtpfw.config.tree import LISTENER
from smtpfw.config.units import format_size
from smtpfw.interfaces import ICheck

__all__ = ["describe_shares", "share_of"]

#: The limits that count over connections, and how a share of them is told.
_DIVIDED = {
    "max_connections": "{} clients",
    "max_connections_per_address": "{} of one address",
    "max_memory_bytes": "{} of messages in memory",
}


def share_of(plan: ServicePlan, workers: int) -> ServicePlan:
    """
    The plan of one of several workers.

    :param workers: their number; 1 changes nothing.
    """
    if workers == 1:
        return plan
    return dataclasses.replace(plan, listen=tuple(_listen(listen, workers) for listen in plan.listen))


def describe_shares(plan: ServicePlan, workers: int) -> list[str]:
    """
    Sentences for the operator.

    :param plan: of one of them.
    """
    lines = []
    for listen in plan.listen:
        limits = [words.format(_show(name, getattr(listen.config, name))) for name, words in _DIVIDED.items()]
        line = f"{workers} workers; each serves at most {', '.join(limits)}"
        if any(hasattr(check, "share") for check in listen.checks):
            line += ", and what checks count is for each of them"
        lines.append(line if listen.name == LISTENER else f"{listen.name}: {line}")
    return lines


def _listen(listen: ListenPlan, workers: int) -> ListenPlan:
    limits: dict[str, Any] = {name: -(-getattr(listen.config, name) // workers) for name in _DIVIDED}
    return dataclasses.replace(
        listen,
        config=dataclasses.replace(listen.config, **limits),
        checks=tuple(_check(check, workers) for check in listen.checks),
    )


def _check(check: Any, workers: int) -> ICheck:
    share = getattr(check, "share", None)
    shared: ICheck = check if share is None else share(workers)
    return shared


def _show(name: str, limit: int) -> str:
    if not limit:
        return "any number" if name != "max_memory_bytes" else "any amount"
    return format_size(limit) if name == "max_memory_bytes" else str(limit)
