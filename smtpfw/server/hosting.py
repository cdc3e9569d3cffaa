"""
Between the connection and the session: who is asked, in which form the answer comes, and what if it waits.

Rule 1: a hook that the session does not override is not called, and one that
answers at once costs no Deferred.

Rule 2: checks are asked before the session is, by the same call.

Rule 3: when the client has gone, the hook that waits is cancelled. Messages
have a rule of their own, in :mod:`smtpfw.server.delivery`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from smtpfw.errors import InsufficientStorage, SMTPError
from smtpfw.hooks import call_hook, notify, settle
from smtpfw.interfaces import IHelloSession, ISession, IVerifySession
from smtpfw.sasl.values import SASLContext
from smtpfw.server.calling import Hook, HookCaller
from smtpfw.server.connection import Connection
from smtpfw.server.delivery import Delivery
from smtpfw.server.reverse import reverse_name
from smtpfw.session import check_data, overridden
from smtpfw.tls import channel_bindings
from smtpfw.wire.application import PENDING, Answer, Outcome
from smtpfw.wire.config import LMTP
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import OK, OK_RECIPIENT, OK_SENDER, Reply
from smtpfw.wire.transaction import Transaction

if TYPE_CHECKING:
    from smtpfw.extensions.xclient import ClientAttributes
    from smtpfw.server.protocol import SMTPServerProtocol

#: What a text returned by ``verify`` is sent with.
_VERIFIED = Reply(250, "", (2, 1, 5))


class SessionHost(HookCaller):
    """
    The :class:`~smtpfw.wire.application.Application` of a connection: one session at a time.

    :param protocol: whose sessions these are.
    """

    __slots__ = (
        "_checks",
        "_connect_due",
        "_connection",
        "_data",
        "_delivery",
        "_factory",
        "_first_context",
        "_hello",
        "_judge",
        "_mail",
        "_mail_began",
        "_name",
        "_opened",
        "_rcpt",
        "_reason",
        "_session",
        "_start",
        "_verify",
        "_waiting_for",
    )

    def __init__(self, protocol: SMTPServerProtocol) -> None:
        super().__init__(protocol)
        self._factory = protocol.factory
        self._checks = protocol.factory.checks
        # The message under way.
        self._delivery: Delivery | None = None
        self._connection = Connection(protocol, self)
        # What checks wrote into the context when the client connected, for sessions behind STARTTLS.
        self._first_context: dict[Any, Any] | None = None
        self._session: ISession | None = None
        # The hook that a command waits for.
        self._waiting_for: Deferred[Any] | None = None
        self._opened: Callable[[SMTPError | None], None] | None = None
        # Whether checks have been asked about the client, and not told of its end yet.
        self._connect_due = False
        self._name: str | None = None
        self._mail_began = 0.0
        self._reason = ""

    # -- sessions ---------------------------------------------------------

    def open(self, opened: Callable[[SMTPError | None], None]) -> None:
        """Make a session; ``opened`` hears when it is there, or why not."""
        self._opened = opened
        if self._first_context is None:
            self._connect_due = True
            make: Hook | None = self._checks.around("connect", self._connection, self._new_session)
        else:
            self._connection = Connection(self._protocol, self, self._first_context)
            make = self._new_session
        assert make is not None
        try:
            session = call_hook(make)
        except Exception:
            self._open_failed(Failure())
            return
        if isinstance(session, Deferred):
            self._waiting_for = session
            session.addCallbacks(self._open, self._open_failed)
            session.addErrback(self.broken)
        else:
            self._open(session)

    def _new_session(self) -> Any:
        if self._first_context is None:
            self._first_context = self._connection.context_so_far()
        return self._factory.backend.new_session(self._connection)

    def _open(self, session: ISession) -> None:
        self._waiting_for = None
        try:
            self._serve(session)
        except (AttributeError, TypeError):
            # It is no session: a forgotten ``return`` gives None.
            self._open_failed(Failure())
            return
        if self.gone:
            self.leave()
        else:
            self._tell(None)

    def _open_failed(self, failure: Failure) -> None:
        self._waiting_for = None
        error = failure.value
        if self.gone and isinstance(error, CancelledError):
            self.leave()
            return
        if not isinstance(error, SMTPError):
            self.report(failure)
            error = SMTPError(421, (4, 3, 0), "Service not available, try again later")
        if self.gone:
            self.leave()
        else:
            self._tell(error)

    def _tell(self, error: SMTPError | None) -> None:
        opened, self._opened = self._opened, None
        assert opened is not None
        opened(error)

    def _serve(self, session: ISession) -> None:
        """Ask this session from now on."""

        def checked(stage: str, hook: Hook | None) -> Hook | None:
            return self._checks.around(stage, self._connection, hook)

        hello = session.hello if IHelloSession.providedBy(session) else None
        verify = session.verify if IVerifySession.providedBy(session) else None
        mail, rcpt, data = overridden(session, "mail"), overridden(session, "rcpt"), overridden(session, "data")
        check_data(session, self._protocol.wire.config.protocol == LMTP)
        for name in ("reset", "logout"):
            # They are looked for when they are needed; who lacks one is told now.
            getattr(session, name)
        # Nothing of it holds before all of it is there.
        self._hello, self._verify = checked("hello", hello), verify
        self._mail, self._rcpt = checked("mail", mail), checked("rcpt", rcpt)
        self._start, self._data, self._judge = checked("data", None), data, checked("message", None)
        self._session = session

    def replace_session(self, session: ISession) -> None:
        """
        Ask another session from the next question on.

        :raises TypeError: if it is none.
        :raises RuntimeError: within a transaction.
        """
        before = self._session
        if before is None or session is before:
            raise RuntimeError("there is no other session to be replaced")
        if self._protocol.wire.transaction is not None:
            # The other one would be asked about recipients and messages that it has never heard of.
            raise RuntimeError("a session can't be replaced within a transaction")
        asked = self._hello, self._mail, self._rcpt
        try:
            self._serve(session)
        except AttributeError as error:
            raise TypeError(f"{session!r} is no session: {error}") from None
        for old, new in zip(asked, (self._hello, self._mail, self._rcpt), strict=True):
            self._checks.pass_on(old, new)
        notify(self._not_told, before.logout, "replaced")

    def _log_out(self, reason: str) -> None:
        session, self._session = self._session, None
        if session is not None:
            notify(self._not_told, session.logout, reason)

    def _not_told(self, failure: Failure) -> None:
        self._log.failure(
            "{connection}: a hook that ends something failed; the client does not notice",
            failure,
            connection=self._protocol.wire.id,
        )

    def connection_lost(self, reason: str) -> None:
        """Nobody is there any more: end what can be ended, and let the rest come to its end."""
        self.gone = True
        self._reason = reason
        if self._delivery is not None:
            self._delivery.gone(reason)
        if self._waiting_for is not None:
            self._waiting_for.cancel()
        self.leave()

    @property
    def delivering(self) -> bool:
        """Whether the session has been shown a message that is not at its end yet."""
        return self._delivery is not None

    @property
    def storing(self) -> bool:
        """Whether a message has come whole, and waits for the session's answer."""
        return self._delivery is not None and self._delivery.ended and self._delivery.reading

    def leave(self) -> None:
        """Say goodbye to the session, once it waits for nothing any more."""
        if self._waiting_for is not None or (self._delivery is not None and self._delivery.reading):
            return
        if self._session is not None:
            if self._protocol.wire.transaction is not None:
                # A dialog that ends with QUIT or by an error leaves its transaction as one whose client has gone.
                self.reset(self._reason if self._reason in ("timeout", "shutdown") else "disconnected")
            self._log_out(self._reason)
        self._leave_checks()
        self._protocol.left()

    def _leave_checks(self) -> None:
        """Tell the checks that were asked about the client that it has gone."""
        if self._connect_due:
            self._connect_due = False
            self._checks.disconnected(self._connection, self._not_told)

    # -- asking -----------------------------------------------------------

    def ask(self, standard: Reply, hook: Hook, *arguments: Any) -> Answer:
        """Call a hook that a command waits for."""
        answer = self.call(standard, hook, *arguments)
        if isinstance(answer, Deferred):
            self._waiting_for = answer
            answer.addCallback(self._answered).addErrback(self.broken)
            return PENDING
        return answer

    def _answered(self, answer: Outcome) -> None:
        """What a command waited for is there."""
        self._waiting_for = None
        if self.gone:
            self.leave()
        else:
            self.resume(answer)

    def resume(self, answer: Outcome) -> None:
        """Bring the connection the answer that it waits for."""
        self._protocol.wire.resume(answer)
        self._protocol.flush()

    # -- the Application of the connection --------------------------------

    def hello(self, name: str, extended: bool) -> Answer:
        return None if self._hello is None else self.ask(OK, self._hello, name, extended)

    def mail(self, sender: Address, options: Options) -> Answer:
        self._mail_began = self._factory.clock.seconds()
        return None if self._mail is None else self.ask(OK_SENDER, self._mail, sender, options)

    def rcpt(self, recipient: Address, options: Options) -> Answer:
        return None if self._rcpt is None else self.ask(OK_RECIPIENT, self._rcpt, recipient, options)

    def verify(self, text: str) -> Answer:
        return None if self._verify is None else self.ask(_VERIFIED, self._verify, text)

    def wait(self, result: Any) -> Answer:
        return self.ask(OK, settle, result)

    @property
    def session(self) -> ISession | None:
        return self._session

    @property
    def client(self) -> Connection:
        return self._connection

    def end_session(self, reason: str, *, same_client: bool) -> None:
        self._log_out(reason)
        if not same_client:
            self._leave_checks()

    def speak_for(self, told: ClientAttributes) -> None:
        self._connection = Connection(self._protocol, self)
        self._first_context = self._name = None
        self._protocol.speak_for(told)

    @property
    def seconds_since_mail(self) -> float:
        """See :attr:`IConnection.seconds_since_mail`."""
        seconds: float = self._factory.clock.seconds() - self._mail_began
        return seconds

    def sasl_context(self, mechanisms: Collection[str] | None) -> SASLContext:
        wire, transport = self._protocol.wire, self._protocol.transport
        tls = self._protocol.tls_state
        return SASLContext(
            hostname=wire.config.hostname,
            tls=wire.tls,
            channel_bindings=channel_bindings(transport) if wire.tls else {},
            mechanisms=mechanisms,
            peer_certificate=None if tls is None else tls.peer_certificate,
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
        return self.refusal(error)

    def reset(self, reason: str) -> None:
        if reason != "refused":
            # What was refused has had its answer, and an event of its own.
            self._factory.events.aborted(self._protocol, self._reason or reason, self.seconds_since_mail)
        hook = None if self._session is None else overridden(self._session, "reset")
        if hook is not None:
            notify(self._not_told, hook, reason)

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
        self._protocol.start_tls()

    def start_data(self) -> Answer:
        if self._factory.memory.short:
            return _NO_MEMORY
        return None if self._start is None else self.ask(OK, self._start)

    def message_data(self, data: bytes) -> None:
        self._message().data(data)

    def message_failed(self, error: Exception) -> None:
        self._message().fail(error)

    def message_refusal(self) -> SMTPError | None:
        return self._message().refusal()

    def judge_message(self, data: bytes) -> Answer:
        return None if self._judge is None else self._message().judge(data)

    def message_end(self, data: bytes) -> Answer:
        return self._message().end(data)

    def _message(self) -> Delivery:
        if self._delivery is None:
            assert self._session is not None
            self._delivery = Delivery(self, self._protocol, self._session, self._data, self._judge)
        return self._delivery

    def delivered(self) -> None:
        """The message under way has its answer."""
        self._delivery = None

    def message_answered(self, transaction: Transaction, size: int, replies: Sequence[Reply]) -> None:
        if replies[0].positive or any(reply.positive for reply in replies):
            self._protocol.messages += 1
        self._factory.events.message(self._protocol, transaction, size, replies, self.seconds_since_mail)

    def refused(self, verb: bytes, reply: Reply) -> None:
        self._factory.events.refused(self._protocol, verb, reply)

    def authenticated(self) -> None:
        self._factory.events.authenticated(self._protocol)

    # -- what sessions and checks may do -----------------------------------

    async def look_up_name(self) -> str:
        """See :meth:`IConnection.look_up_name`."""
        host, origin = self._connection.peer_host, self._protocol.origin
        if origin is not None and origin.name is not None:
            return origin.name
        if self._name is None:
            self._name = await reverse_name(self._factory, host) if host else ""
        return self._name


_NO_MEMORY = InsufficientStorage("Too many messages at the moment, try again later")
