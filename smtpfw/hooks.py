"""
The one bridge between the three ways in which a hook may answer: a value, a Deferred, a coroutine.

Most hooks never wait, so what is there already costs no Deferred: a coroutine
is stepped once by hand, and gets one only if it really suspends.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface.interface import InterfaceClass, Method

from smtpfw.errors import SMTPError
from smtpfw.wire.replies import Reply

__all__ = ["Acceptance", "accepted", "call_hook", "check_hooks", "notify", "settle"]

#: What a hook says yes with; None is the standard reply.
Acceptance = Reply | str | None


def call_hook(hook: Callable[..., Any], *arguments: Any) -> Any:
    """
    Call a hook.

    :return: its value; or a Deferred, if it has to be waited for.
    :raises Exception: what the hook raised, if it did so without waiting.
    """
    result = hook(*arguments)
    if result is None:
        return None
    return settle(result)


def settle(result: Any) -> Any:
    """Turn what a hook returned into its value, or into a Deferred that has not fired yet."""
    if isinstance(result, CoroutineType):
        return _step(result)
    if isinstance(result, Deferred):
        return _unwrap(result)
    return result


def accepted(answer: Any) -> Acceptance:
    """
    What a hook has said yes with.

    :raises SMTPError: when it has refused by returning a reply: the client must not be told one thing and the
        transaction another.
    :raises TypeError: when it has given what is no answer.
    """
    if answer is None or isinstance(answer, str):
        return answer
    if isinstance(answer, Reply):
        if 200 <= answer.code < 300:
            return answer
        if answer.code >= 400:
            raise SMTPError(answer.code, answer.enhanced_code, answer.text)
    raise TypeError(f"a hook returns None, a Reply of class 2, 4 or 5, or a text, not {answer!r}")


def check_hooks(thing: Any, interface: InterfaceClass) -> None:
    """
    Look whether all methods of an interface are there, and can be called as they will be.

    :param thing: an object, or a class whose objects are meant.
    :raises TypeError: one line that names the method and its arguments.
    """
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    for hook, declared in interface.namesAndDescriptions(all=True):
        if not isinstance(declared, Method):
            continue
        arguments = ", ".join(declared.positional)
        method = getattr(thing, hook, None)
        if not callable(method):
            raise TypeError(f"{name} has no {hook}({arguments})")
        try:
            own = (None,) if isinstance(thing, type) else ()
            inspect.signature(method).bind(*own, *declared.positional)
        except TypeError:
            raise TypeError(f"{name}.{hook} can't be called with ({arguments})") from None
        except ValueError:
            # What is written in C may have no signature to be asked.
            continue


def notify(failed: Callable[[Failure], Any], hook: Callable[..., Any], *arguments: Any) -> None:
    """
    Call a hook that can't refuse, and that nobody waits for.

    :param failed: called with what it raises, now or later.
    """
    try:
        result = call_hook(hook, *arguments)
    except Exception:
        failed(Failure())
        return
    if isinstance(result, Deferred):
        result.addErrback(failed)


def _unwrap(deferred: Deferred[Any]) -> Any:
    if not deferred.called or deferred.paused:
        return deferred
    result = deferred.result
    if isinstance(result, Failure):
        deferred.addErrback(lambda failure: None)
        result.raiseException()
    return result


def _step(coroutine: Coroutine[Deferred[Any], Any, Any]) -> Any:
    try:
        waiting_on = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    return _unwrap(Deferred.fromCoroutine(_continue(coroutine, waiting_on)))


def _continue(
    coroutine: Coroutine[Deferred[Any], Any, Any], waiting_on: Deferred[Any]
) -> Generator[Deferred[Any], Any, Any]:
    """Drive the rest of a coroutine that has made its first step already."""
    while True:
        failure: BaseException | None = None
        try:
            result = yield waiting_on
        except GeneratorExit:
            # Nobody waits any more: the coroutine is over, too.
            coroutine.close()
            raise
        except BaseException as error:
            failure = error
        try:
            waiting_on = coroutine.send(result) if failure is None else coroutine.throw(failure)
        except StopIteration as stop:
            return stop.value
