"""
Several backends behind one: they start, stop and are looked at together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.logger import Logger

from smtpfw.backends.trials import PATIENCE, in_parallel
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend

__all__ = ["check_all", "start_all", "stop_all"]


async def start_all(backends: Iterable[IBackend], log: Logger) -> None:
    """
    Start every one that has a ``start``, one after the other.

    :raises Exception: what the first that can't start has raised; those before it have been stopped again.
    """
    started: list[IBackend] = []
    for backend in backends:
        try:
            await maybeDeferred(getattr(backend, "start", _nothing))
        except Exception:
            await stop_all(started, log)
            raise
        started.append(backend)


async def stop_all(backends: Iterable[IBackend], log: Logger) -> None:
    """Stop every one that has a ``stop``, all at the same time; one that fails is logged."""
    stopping = [maybeDeferred(getattr(backend, "stop", _nothing)) for backend in backends]
    for success, failure in await DeferredList(stopping, consumeErrors=True):
        if not success:
            log.failure("A backend behind another could not be stopped in order", failure)


def check_all(backends: Iterable[IBackend]) -> list[str]:
    """
    Ask every one that has a ``check``, all at the same time. Blocks.

    :return: what they say.
    :raises ConfigError: what they raise, together.
    """
    checks: list[Any] = [check for one in backends if (check := getattr(one, "check", None)) is not None]
    outcomes = in_parallel(checks, PATIENCE)
    mistakes = [str(outcome) or "it does not answer" for outcome in outcomes if isinstance(outcome, Exception)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return [sentence for outcome in outcomes if not isinstance(outcome, Exception) for sentence in outcome]


def _nothing() -> None:
    """Stands for ``start`` and ``stop`` of a backend that has none."""
