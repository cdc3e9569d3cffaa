"""
The checks of a listener, compiled: who is asked at which stage, before the session is.

Rule 1: they are asked in their order, one after the other; the first refusal
wins, and nobody behind it is asked.

Rule 2: a stage at which no check has anything to say costs nothing: the
session's hook is called as if there were no checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpfw.check import STAGES, Check
from smtpfw.errors import ConfigError, ServiceNotAvailable
from smtpfw.hooks import accepted, call_hook, check_hooks, notify, settle
from smtpfw.interfaces import ICheck, IConnection
from smtpfw.policies import EarlyTalkers, LoopLimit
from smtpfw.server.connection import Connection
from smtpfw.session import overridden
from smtpfw.wire.profiles import Profile

Hook = Callable[..., Any]


def standard_checks(checks: Iterable[ICheck], profile: Profile) -> tuple[ICheck, ...]:
    """
    The checks of a listener, with those that every server has: a client of the strict profile has to wait for the
    greeting, and a message that goes round in circles is refused. One of the same class among ``checks`` takes the
    place of ours.
    """
    checks = tuple(checks)
    ours: list[ICheck] = [LoopLimit()]
    if profile.greeting_delay:
        ours.append(EarlyTalkers(profile.greeting_delay))
    # Behind the others: who is refused anyway need not wait for the greeting.
    return (*checks, *(one for one in ours if not any(isinstance(check, type(one)) for check in checks)))


class Checks:
    """
    :param checks: in the order in which they are asked.
    :raises ConfigError: for what is no check.
    """

    def __init__(self, checks: Iterable[ICheck]) -> None:
        checks = tuple(checks)
        for check in checks:
            if isinstance(check, type) or not ICheck.providedBy(check):
                raise ConfigError(f"{check!r} is no check; an instance of a subclass of smtpfw.Check is meant")
            try:
                check_hooks(check, ICheck)
            except TypeError as error:
                raise ConfigError(f"it can't be asked: {error}") from None
        self._hooks = {stage: _overridden(checks, stage) for stage in STAGES}
        self._disconnected = _overridden(checks, "disconnected")

    def around(self, stage: str, connection: Connection, hook: Hook | None) -> Hook | None:
        """
        What is to be called in the place of ``hook``: the checks of a stage, and then ``hook`` with the same arguments.

        :param connection: what the checks get as their first argument.
        :param hook: the session's; None where it has nothing to say.
        """
        checks = self._hooks[stage]
        if not checks:
            return hook

        return _Asking(checks, connection, hook)

    @staticmethod
    def pass_on(before: Hook | None, after: Hook | None) -> None:
        """What is being asked of ``before`` goes on to the hook of ``after``, a session that takes its place."""
        if isinstance(before, _Asking) and isinstance(after, _Asking):
            before.hook = after.hook

    def disconnected(self, connection: IConnection, failed: Callable[[Failure], Any]) -> None:
        """
        Tell all checks that the connection is over.

        :param failed: called with what one of them raises.
        """
        for hook in self._disconnected:
            notify(failed, hook, connection)


class _Asking:
    """A hook with checks in front of it. Every connection has some, so it is an object without a dict or cells."""

    __slots__ = ("_checks", "_connection", "hook")

    def __init__(self, checks: tuple[Hook, ...], connection: Connection, hook: Hook | None) -> None:
        self._checks = checks
        self._connection = connection
        self.hook = hook

    def __call__(self, *arguments: Any) -> Any:
        connection = self._connection
        for position, check in enumerate(self._checks):
            if position:
                self._stop_if_over()
            answer = check(connection, *arguments)
            if answer is not None:
                answer = settle(answer)
                if isinstance(answer, Deferred):
                    return self._wait(answer, self._checks[position + 1 :], arguments)
                _obey(answer)
        if self.hook is None:
            return None
        self._stop_if_over()
        return self.hook(*arguments)

    async def _wait(self, first: Deferred[Any], others: tuple[Hook, ...], arguments: Any) -> Any:
        _obey(await first)
        for check in others:
            self._stop_if_over()
            answer = call_hook(check, self._connection, *arguments)
            _obey(await answer if isinstance(answer, Deferred) else answer)
        self._stop_if_over()
        if self.hook is None:
            return None
        answer = call_hook(self.hook, *arguments)
        return await answer if isinstance(answer, Deferred) else answer

    def _stop_if_over(self) -> None:
        """A check that has rejected the client, or takes its cancellation for an answer, lets nobody in."""
        if self._connection.over:
            raise ServiceNotAvailable


def _obey(answer: Any) -> None:
    if accepted(answer) is not None:
        raise TypeError(
            f"a check returns None, or refuses by raising an SMTPError or returning its Reply, not {answer!r}"
        )


def _overridden(checks: tuple[ICheck, ...], name: str) -> tuple[Hook, ...]:
    hooks = (overridden(check, name, Check) for check in checks)
    return tuple(hook for hook in hooks if hook is not None)
