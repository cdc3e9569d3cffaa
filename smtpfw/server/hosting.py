"""
Between the connection and the session: who is asked, in which form the answer comes, and what if it waits.

Rule 1: a hook that the session does not override is not called, and one that
answers at once costs no Deferred.

Rule 2: what a hook raises is a refusal if it is an SMTPError; anything else is
a fault of ours: the log gets the traceback, the client a fixed text.

Rule 3: when the client has gone, the hook that waits is cancelled; but not
once the true end of the message has come, for then the message is the
session's, and its commit must not be torn.

Rule 4: between two chunks of a message the data hook may wait for more while
another command is served, VRFY say. So what waits for the message is kept
apart from what waits for a command.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from smtpfw.errors import DataReset, SMTPError, TryAgainLater
from smtpfw.hooks import call_hook, settle
from smtpfw.interfaces import IBackend, IBody, IHelloSession, ILMTPSession, ISession, IVerifySession
from smtpfw.sasl.values import SASLContext
from smtpfw.server.body import MessageBody
from smtpfw.server.connection import Connection
from smtpfw.server.status import StatusCollector
from smtpfw.session import overridden
from smtpfw.tls import channel_bindings
from smtpfw.wire.application import PENDING, Answer, Outcome
from smtpfw.wire.config import LMTP
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import OK, OK_MESSAGE, OK_RECIPIENT, OK_SENDER, Reply

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
        # The hook that a command waits for.
        self._waiting_for: Deferred[Any] | None = None
        # The message under way: what the session reads; the data hook while it waits; what it has answered; whether
        # the connection waits for that; and whether the message came whole.
        self._body: MessageBody | None = None
        self._reading: Deferred[Any] | None = None
        self._answer: Answer = PENDING
        self._awaited = False
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
        try:
            self._mail = overridden(session, "mail")
            self._rcpt = overridden(session, "rcpt")
            self._data = self._choose_data(session)
            self._reset = overridden(session, "reset")
            self._logout = session.logout
        except AttributeError:
            # It is no session: a forgotten ``return`` gives None.
            self._open_failed(Failure())
            return
        self._session = session
        self._hello = session.hello if IHelloSession.providedBy(session) else None
        self._verify = session.verify if IVerifySession.providedBy(session) else None
        if self._gone:
            self._log_out(self._reason)
        else:
            self._opened(None)

    def _open_failed(self, failure: Failure) -> None:
        self._waiting_for = None
        error = failure.value
        if self._gone and isinstance(error, CancelledError):
            return
        if not isinstance(error, SMTPError):
            self._fault(failure)
            error = SMTPError(421, (4, 3, 0), "Service not available, try again later")
        if not self._gone:
            self._opened(error)

    def _choose_data(self, session: ISession) -> Callable[[IBody], Any] | None:
        if self._protocol.wire.config.protocol == LMTP and ILMTPSession.providedBy(session):
            return self._lmtp_data
        data: Callable[[IBody], Any] | None = overridden(session, "data")
        return data

    def _log_out(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._notify(self._logout, reason)

    def _notify(self, hook: Callable[[str], Any], reason: str) -> None:
        """Call a hook that can't refuse, and that nobody waits for."""
        try:
            result = call_hook(hook, reason)
        except Exception:
            self._not_told(Failure())
            return
        if isinstance(result, Deferred):
            result.addErrback(self._not_told)

    def _not_told(self, failure: Failure) -> None:
        self._log.failure(
            "{connection}: reset or logout of the session failed; the client does not notice",
            failure,
            connection=self._protocol.wire.id,
        )

    def connection_lost(self, reason: str) -> None:
        """Nobody is there any more: end what can be ended, and let the rest come to its end."""
        self._gone = True
        self._reason = reason
        if self._body is not None and not self._ended:
            self._body.fail(DataReset(reason))
        if self._reading is not None and not self._ended:
            self._reading.cancel()
        if self._waiting_for is not None:
            self._waiting_for.cancel()
        self._leave()

    def _leave(self) -> None:
        """Say goodbye to the session, once it waits for nothing any more."""
        if self._waiting_for is not None or self._reading is not None:
            return
        if self._session is not None:
            if self._protocol.wire.transaction is not None and not self._ended:
                # A dialog that ends with QUIT or by an error leaves its transaction as one whose client has gone.
                self.reset(self._reason if self._reason in ("timeout", "shutdown") else "disconnected")
            self._log_out(self._reason)
        self._protocol.left()

    # -- asking -----------------------------------------------------------

    def _ask(self, standard: Reply, hook: Callable[..., Any], *arguments: Any) -> Answer:
        answer = self._call(standard, hook, *arguments)
        if isinstance(answer, Deferred):
            self._waiting_for = answer
            answer.addCallback(self._answered).addErrback(self._broken)
            return PENDING
        return answer

    def _call(self, standard: Reply, hook: Callable[..., Any], *arguments: Any) -> Outcome | Deferred[Outcome]:
        """Call a hook; what it gives is a standard reply's text, and so on, now or later."""
        try:
            result = call_hook(hook, *arguments)
        except Exception as error:
            return self._refusal(error)
        if result is None:
            return None
        if isinstance(result, Deferred):
            return result.addCallbacks(self._success, self._failed, callbackArgs=(standard,))
        return self._success(result, standard)

    def _success(self, result: Any, standard: Reply) -> Outcome:
        if result is None:
            return None
        if isinstance(result, Reply):
            if 200 <= result.code < 300:
                return result
            if result.code >= 400:
                # A refusal, however it is spelled: the client must not be told one thing and the transaction another.
                return SMTPError(result.code, result.enhanced_code, result.text)
        if isinstance(result, str):
            return Reply(standard.code, result, standard.enhanced_code)
        return self._refusal(TypeError(f"a hook returns None, a Reply of class 2, 4 or 5, or a text, not {result!r}"))

    def _failed(self, failure: Failure) -> Outcome:
        error = failure.value
        if isinstance(error, SMTPError):
            return error
        if not (self._gone and isinstance(error, CancelledError)):
            self._unless_reset(failure)
        return TryAgainLater()

    def _refusal(self, error: Exception) -> SMTPError:
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
            "{connection}: a hook or a verb failed; the client was told to try again",
            failure,
            connection=self._protocol.wire.id,
        )

    def _broken(self, failure: Failure) -> None:
        """A fault of our own: nobody knows any more what this client may be told."""
        self._log.failure("{connection}: internal error, aborting", failure, connection=self._protocol.wire.id)
        self._protocol.transport.abortConnection()

    def _answered(self, answer: Outcome) -> None:
        """What a command waited for is there."""
        self._waiting_for = None
        if self._gone:
            self._leave()
        else:
            self._protocol.wire.resume(answer)
            self._protocol.flush()

    def _message_answered(self, answer: Outcome) -> None:
        """The data hook is done."""
        self._reading = None
        if self._gone:
            self._leave()
        elif self._awaited:
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
        return None if self._hello is None else self._ask(OK, self._hello, name, extended)

    def mail(self, sender: Address, options: Options) -> Answer:
        return None if self._mail is None else self._ask(OK_SENDER, self._mail, sender, options)

    def rcpt(self, recipient: Address, options: Options) -> Answer:
        return None if self._rcpt is None else self._ask(OK_RECIPIENT, self._rcpt, recipient, options)

    def verify(self, text: str) -> Answer:
        return None if self._verify is None else self._ask(_VERIFIED, self._verify, text)

    def wait(self, result: Any) -> Answer:
        return self._ask(OK, settle, result)

    @property
    def session(self) -> ISession | None:
        return self._session

    def sasl_context(self, mechanisms: Collection[str] | None) -> SASLContext:
        wire, transport = self._protocol.wire, self._protocol.transport
        return SASLContext(
            hostname=wire.config.hostname,
            tls=wire.tls,
            channel_bindings=channel_bindings(transport) if wire.tls else {},
            mechanisms=mechanisms,
        )

    def read_line(self, limit: int) -> Deferred[bytes]:
        wire = self._protocol.wire
        # Who gives up waiting must not have the next command taken for its line.
        line: Deferred[bytes] = Deferred(lambda _: wire.take_no_line())

        def take(octets: bytes | None) -> None:
            if octets is None:
                line.errback(SMTPError(500, (5, 5, 6), "Line too long"))
            else:
                line.callback(octets)

        wire.take_line(take, limit)
        self._protocol.flush()
        return line

    def pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._protocol.factory.clock, seconds)

    def fault(self, error: Exception) -> Answer:
        return self._refusal(error)

    def reset(self, reason: str) -> None:
        if self._session is not None and self._reset is not None:
            self._notify(self._reset, reason)

    def can_start_tls(self) -> bool:
        get_context = getattr(self._protocol.factory.tls, "getContext", None)
        if get_context is None:
            return True
        try:
            # What a context factory finds wrong, it finds here, while the client can still be told.
            get_context()
        except Exception:
            self._log.failure("{connection}: TLS can't be offered", connection=self._protocol.wire.id)
            return False
        return True

    def start_tls(self) -> None:
        self._log_out("starttls")
        self._protocol.start_tls()

    def message_data(self, data: bytes) -> None:
        if self._data is None:
            return
        if self._body is None:
            body = self._begin_body(data)
            self._read(body)
            if self._answer is not PENDING:
                body.drop()
        elif self._answer is PENDING:
            self._body.append(data)

    def message_failed(self, error: Exception) -> None:
        if self._data is None:
            return
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
        elif self._failure is not None:
            # It never began to read: there is nothing to answer.
            self._answer = None
        else:
            body = self._begin_body(data)
            body.end()
            self._read(body)
        # Waking the session may have brought its answer.
        answer = self._answer
        if answer is PENDING:
            self._awaited = True
        else:
            self._end_body()
        return answer

    def _begin_body(self, data: bytes) -> MessageBody:
        self._body = MessageBody(self._protocol.wire.hold, self._release)
        self._body.append(data)
        return self._body

    def _read(self, body: MessageBody) -> None:
        """Call the data hook."""
        assert self._data is not None
        answer = self._call(OK_MESSAGE, self._data, body)
        if isinstance(answer, Deferred):
            self._reading = answer
            answer.addCallback(self._message_answered).addErrback(self._broken)
        else:
            self._answer = answer

    def _end_body(self) -> None:
        self._body = None
        self._answer = PENDING
        self._awaited = False
        self._failure = None
        self._ended = False

    def _lmtp_data(self, body: IBody) -> Any:
        wire = self._protocol.wire
        assert wire.transaction is not None and wire.outcomes is not None
        outcomes = wire.outcomes

        def tell(position: int, outcome: Any) -> None:
            failed = isinstance(outcome, Exception)
            outcomes.set(position, self._refusal(outcome) if failed else self._success(outcome, OK_MESSAGE))
            self._protocol.flush()

        session: Any = self._session
        return session.lmtp_data(body, StatusCollector(wire.transaction.recipients, tell))

    def _release(self) -> None:
        self._protocol.wire.release()
        self._protocol.flush()
