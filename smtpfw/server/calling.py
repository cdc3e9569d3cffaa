"""
Calling hooks: what they return or raise becomes an answer that a client can be given.

Rule 1: a hook that answers at once costs no Deferred.

Rule 2: what a hook raises is a refusal if it is an SMTPError; anything else is
a fault of ours: the log gets the traceback, the client a fixed text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smtpfw.errors import DataReset, SMTPError, TryAgainLater
from smtpfw.hooks import accepted, settle
from smtpfw.wire.application import Outcome
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.server.protocol import SMTPServerProtocol

Hook = Callable[..., Any]


class HookCaller:
    """
    :param protocol: whose hooks these are.

    :ivar gone: whether the client has gone.
    """

    __slots__ = ("_log", "_protocol", "gone")

    def __init__(self, protocol: SMTPServerProtocol) -> None:
        self._protocol = protocol
        self._log: Logger = protocol.log
        self.gone = False

    def call(self, standard: Reply, hook: Hook, *arguments: Any) -> Outcome | Deferred[Outcome]:
        """Call a hook; what it gives is a standard reply's text, and so on, now or later."""
        try:
            result = hook(*arguments)
            if result is None:
                return None
            result = settle(result)
        except Exception as error:
            return self.refusal(error)
        if isinstance(result, Deferred):
            return result.addCallbacks(self._success, self._failed, callbackArgs=(standard,))
        return self._success(result, standard)

    def outcome(self, value: Any, standard: Reply) -> Outcome:
        """What a value says that somebody gave for an answer: as if a hook had returned it, or raised it."""
        return self.refusal(value) if isinstance(value, Exception) else self._success(value, standard)

    def _success(self, result: Any, standard: Reply) -> Outcome:
        if result is None:
            return None
        try:
            said = accepted(result)
        except Exception as error:
            return self.refusal(error)
        return Reply(standard.code, said, standard.enhanced_code) if isinstance(said, str) else said

    def _failed(self, failure: Failure) -> Outcome:
        error = failure.value
        if isinstance(error, SMTPError):
            return error
        if not (self.gone and isinstance(error, CancelledError)):
            self._unless_reset(failure)
        return TryAgainLater()

    def refusal(self, error: Exception) -> SMTPError:
        """The refusal that an exception stands for."""
        if isinstance(error, SMTPError):
            return error
        self._unless_reset(Failure(error))
        return TryAgainLater()

    def _unless_reset(self, failure: Failure) -> None:
        # A session that lets DataReset pass does what it should.
        if not failure.check(DataReset):
            self.report(failure)

    def report(self, failure: Failure) -> None:
        """Tell the log of a fault of ours."""
        self._log.failure(
            "{connection}: a hook or a verb failed; the client was told to try again",
            failure,
            connection=self._protocol.wire.id,
        )

    def broken(self, failure: Failure) -> None:
        """A fault of our own: nobody knows any more what this client may be told."""
        self._log.failure("{connection}: internal error, aborting", failure, connection=self._protocol.wire.id)
        self._protocol.transport.abortConnection()
