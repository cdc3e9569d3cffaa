"""
Routes of a listener: from what was written to a backend that knows where each recipient goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from smtpfw.config.listeners import Listener
from smtpfw.config.places import Problems
from smtpfw.config.tree import ListenTree, Text

if TYPE_CHECKING:
    from smtpfw.interfaces import IBackend

__all__ = ["backend_of_routes"]


def backend_of_routes(
    listen: ListenTree,
    written: Mapping[str, Text],
    deliveries: Mapping[str, Any],
    listeners: Sequence[Listener],
    problems: Problems,
) -> IBackend | None:
    raise NotImplementedError
