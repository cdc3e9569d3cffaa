"""
Between the connection and the session: who is asked, in which form the answer comes, and what if it waits.

Rule 1: a hook that the session does not override is not called, and one that
answers at once costs no Deferred.

Rule 2: what a hook raises is a refusal if it is an SMTPError; anything else is
a fault of ours: the log gets the traceback, the client a fixed text.

Rule 3: when the client has gone, the hook that waits is cancelled; but not
once the true end of the message has come, for then the message is the
session's, and its commit must not be torn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from smtpfw.errors import DataReset, ServiceNotAvailable, SMTPError, TryAgainLater
from smtpfw.hooks import call_hook, settle
from smtpfw.interfaces import IBackend, IHelloSession, ISession, IVerifySession
from smtpfw.server.body import MessageBody
from smtpfw.server.connection import Connection
from smtpfw.session import overridden
from smtpfw.wire.application import PENDING, Answer
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import OK_MESSAGE, OK_RECIPIENT, OK_SENDER, Reply

if TYPE_CHECKING:
    from smtpfw.server.protocol import SMTPServerProtocol

#: What a text returned by ``verify`` is sent with.
_VERIFIED = Reply(250, "", (2, 1, 5))


class SessionHost:
    """
    The :class:`~smtpfw.wire.application.Application` of a connection: one session at a time.

    :param protocol: whose sessions these are.
    :param backend: makes them.
    """

    def __init__(self, protocol: SMTPServerProtocol, backend: IBackend) -> None:
        self._protocol = protocol
        self._backend = backend
        self._log = protocol.log
        self._session: ISession | None = None
        # The hook that is being waited for, and the standard reply to what it was asked.
        self._waiting_for: Deferred[Any] | None = None
        self._standard: Reply = OK_SENDER
        # The message under way: what the session reads, and what it answered before the end.
        self._body: MessageBody | None = None
        self._answer: Answer = PENDING
        self._failure: Exception | None = None
        self._ended = False
        self._gone = False
        self._reason = ""

    # -- sessions ---------------------------------------------------------

    def open(self, opened: Callable[[SMTPError | None], None]) -> None:
        """Make a session; ``opened`` hears when it is there, or why not."""
        self._opened = opened
        try:
            session = call_hook(self._backend.new_session, Connection(self._protocol))
        except Exception:
            self._open_failed(Failure())
            return
        if isinstance(session, Deferred):
            self._waiting_for = session
            session.addCallbacks(self._open, self._open_failed)
            session.addErrback(self._broken)
        else:
            self._open(session)

    def _open(self, session: ISession) -> None:
        self._waiting_for = None
        self._session = session
        self._mail = overridden(session, "mail")
        self._rcpt = overridden(session, "rcpt")
        self._data = overridden(session, "data")
        self._hello = session.hello if IHelloSession.providedBy(session) else None
        self._verify = session.verify if IVerifySession.providedBy(session) else None
        if self._gone:
            self._log_out("disconnected")
        else:
            self._opened(None)

    def _open_failed(self, failure: Failure) -> None:
        self._waiting_for = None
        if self._gone:
            return
        error = failure.value
        if not isinstance(error, SMTPError):
            self._fault(failure)
            error = ServiceNotAvailable("Service not available, try again later")
            error.enhanced_code = TryAgainLater.enhanced_code
        self._opened(error)

    def _log_out(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._notify(session.logout, reason)

    def _notify(self, hook: Callable[[str], Any], reason: str) -> None:
        """Call a hook that can't refuse, and that nobody waits for."""
        try:
            result = call_hook(hook, reason)
        except Exception:
            self._fault(Failure())
            return
        if isinstance(result, Deferred):
            result.addErrback(self._fault)

    def connection_lost(self, reason: str) -> None:
        """Nobody is there any more: end what can be ended, and let the rest come to its end."""
        self._gone = True
        self._reason = reason
        waiting_for = self._waiting_for
        if self._body is not None and not self._ended:
            self._body.fail(DataReset(reason))
        if waiting_for is not None and not self._ended and waiting_for is self._waiting_for:
            waiting_for.cancel()
        if self._waiting_for is None:
            self._leave(reason)

    def _leave(self, reason: str) -> None:
        if self._session is not None:
            if self._protocol.wire.transaction is not None and not self._ended:
                self._notify(self._session.reset, reason)
            self._log_out(reason)

    # -- asking -----------------------------------------------------------

    def _ask(self, standard: Reply, hook: Callable[..., Any], *arguments: Any) -> Answer:
        self._standard = standard
        try:
            result = call_hook(hook, *arguments)
        except Exception as error:
            return self._refusal(error)
        if result is None:
            return None
        if isinstance(result, Deferred):
            self._waiting_for = result
            result.addCallbacks(self._success, self._failed).addCallback(self._answered).addErrback(self._broken)
            return PENDING
        return self._success(result)

    def _success(self, result: Any) -> Answer:
        if result is None or result.__class__ is Reply:
            return result
        if isinstance(result, str):
            return Reply(self._standard.code, result, self._standard.enhanced_code)
        return self._refusal(TypeError(f"a hook returns None, a Reply or a text, not {result!r}"))

    def _failed(self, failure: Failure) -> Answer:
        error = failure.value
        if isinstance(error, SMTPError):
            return error
        if not (self._gone and isinstance(error, CancelledError)):
            self._unless_reset(failure)
        return TryAgainLater()

    def _refusal(self, error: Exception) -> Answer:
        if isinstance(error, SMTPError):
            return error
        self._unless_reset(Failure(error))
        return TryAgainLater()

    def _unless_reset(self, failure: Failure) -> None:
        # A session that lets DataReset pass does what it should.
        if not failure.check(DataReset):
            self._fault(failure)

    def _fault(self, failure: Failure) -> None:
        self._log.failure(
            "{connection}: the backend failed; the client was told to try again",
            failure,
            connection=self._protocol.wire.id,
        )

    def _broken(self, failure: Failure) -> None:
        """A fault of our own: nobody knows any more what this client may be told."""
        self._log.failure("{connection}: internal error, aborting", failure, connection=self._protocol.wire.id)
        self._protocol.transport.abortConnection()

    def _answered(self, answer: Answer) -> None:
        """What was waited for is there."""
        self._waiting_for = None
        if self._gone:
            self._leave(self._reason)
        elif self._protocol.wire.waiting:
            self._end_body()
            self._protocol.wire.resume(answer)
            self._protocol.flush()
        else:
            # The session has answered before the message is at its end; the rest of it is drained.
            self._answer = answer
            if self._body is not None:
                self._body.drop()

    # -- the Application of the connection --------------------------------

    def hello(self, name: str, extended: bool) -> Answer:
        return None if self._hello is None else self._ask(OK_SENDER, self._hello, name, extended)

    def mail(self, sender: Address, options: Options) -> Answer:
        return None if self._mail is None else self._ask(OK_SENDER, self._mail, sender, options)

    def rcpt(self, recipient: Address, options: Options) -> Answer:
        return None if self._rcpt is None else self._ask(OK_RECIPIENT, self._rcpt, recipient, options)

    def verify(self, text: str) -> Answer:
        return None if self._verify is None else self._ask(_VERIFIED, self._verify, text)

    def wait(self, result: Any) -> Answer:
        return self._ask(OK_MESSAGE, settle, result)

    def reset(self, reason: str) -> None:
        if self._session is not None:
            hook = overridden(self._session, "reset")
            if hook is not None:
                self._notify(hook, reason)

    def start_tls(self) -> None:
        self._log_out("starttls")
        self._protocol.start_tls()

    def message_data(self, data: bytes) -> None:
        if self._data is None:
            return
        if self._body is None:
            self._begin_body()
            assert self._body is not None
            self._body.append(data)
            self._answer = PENDING
            self._answer = self._ask(OK_MESSAGE, self._data, self._body)
            if self._answer is not PENDING:
                self._body.drop()
        elif self._answer is PENDING:
            self._body.append(data)

    def message_failed(self, error: Exception) -> None:
        self._failure = error
        if self._body is not None:
            self._body.fail(error)

    def message_refusal(self) -> SMTPError | None:
        return self._answer if isinstance(self._answer, SMTPError) else None

    def message_end(self, data: bytes) -> Answer:
        if self._data is None:
            return None
        self._ended = self._failure is None
        body = self._body
        if body is not None:
            if self._answer is PENDING:
                body.append(data)
                body.end()
            # Waking the session may have brought its answer.
            answer = self._answer
        elif self._failure is not None:
            # It never began to read: there is nothing to answer.
            answer = None
        else:
            self._begin_body()
            assert self._body is not None
            self._body.append(data)
            self._body.end()
            answer = self._ask(OK_MESSAGE, self._data, self._body)
        if answer is not PENDING:
            self._end_body()
        return answer

    def _begin_body(self) -> None:
        self._answer = PENDING
        self._body = MessageBody(self._protocol.wire.hold, self._release)

    def _end_body(self) -> None:
        self._body = None
        self._answer = PENDING
        self._failure = None
        self._ended = False

    def _release(self) -> None:
        self._protocol.wire.release()
        self._protocol.flush()
