"""
The server's side of a connection: bytes in, questions to the application, bytes out.

Rule 1: what is asked may wait. Then commands wait in the buffer, and
:meth:`ServerConnection.resume` goes on; so replies keep the order of their
commands.

Rule 2: whoever answers returns a reply or raises an SMTPError. One place
counts them and gives them out, :mod:`smtpfw.wire.outgoing`.

Rule 3: nothing here knows what a verb does, an extension, Twisted, or the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smtpfw.errors import IdleTimeout, SMTPError
from smtpfw.wire.application import PENDING, Answer, Application, Outcome
from smtpfw.wire.buffer import LineError, ReceiveBuffer
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.dialect import Dialect, Offer
from smtpfw.wire.incoming import IncomingMessage, Receiver
from smtpfw.wire.lines import Lines
from smtpfw.wire.outcomes import Outcomes
from smtpfw.wire.outgoing import MAX_REPLIES_DUE, Outgoing, greeting
from smtpfw.wire.phases import CLOSED, CONNECTED, GREETED, READY, REFUSED
from smtpfw.wire.refusals import refuse_line, refuse_verb
from smtpfw.wire.replies import OK, Reply
from smtpfw.wire.transaction import Transaction
from smtpfw.wire.transcript import Transcript

#: What comes then is kept, or of no use any more.
_DEAF = frozenset({CONNECTED, CLOSED})


class ServerConnection:
    """
    One connection, from the greeting to its end.

    :param config: of the listener.
    :param dialect: of the listener, from :func:`smtpfw.wire.verbs.compile_dialect`.
    :param application: whom to ask.
    :param id: names the connection; its transactions are ``id.1``, ``id.2`` ...
    :param tls: whether the line is encrypted from the start.

    :ivar phase: where we are, one of :mod:`smtpfw.wire.phases`.
    :ivar hello_name: what the client called itself.
    :ivar told_name: what it has called itself before a proxy, which says so; that counts, not what the proxy calls
        itself. Empty if there is none.
    :ivar extended: whether it said EHLO.
    :ivar identity: who it has authenticated as, by ``mechanism``; empty before.
    :ivar offer: what it was offered.
    :ivar transaction: the one under way.
    :ivar receiver: takes the octets that follow, until it gives the rest back; None while commands follow.
    :ivar message: the message under way, from DATA or the first BDAT to its answer.
    :ivar outcomes: those of the message under way, in LMTP.
    :ivar transactions: how many there have been.
    :ivar verb: the last verb, in capitals; empty when it was none that we know.
    :ivar argument: the octets behind it and a space. Those of AUTH are secret.
    :ivar outgoing: the replies.
    :ivar recipient_refused: whether a RCPT of this transaction was refused.
    :ivar waiting: whether an answer of the application is due.
    :ivar held: whether the application wants no more of the message for now.
    :ivar end_of_input: whether the peer has said that it will send no more.
    :ivar finishing: whether nothing more is read; see :meth:`finish`.
    :ivar said_quit: whether the client has ended the dialog itself.
    :ivar running: whether the connection is at work, somewhere up the stack.
    :ivar draining: the driver sets it when no transaction shall be begun any more; commands that were sent wait then.
    :ivar backlogged: whether commands wait only because their replies would be too many at once; see :meth:`go_on`.
    :ivar stalled: the driver sets it while the peer does not read its replies: no more of them are made, until
        :meth:`go_on` is called without it.
    """

    __slots__ = (
        "_buffer", "_context", "_lines", "_proceed", "_table", "_tables", "application", "argument", "backlogged",
        "config", "dialect", "draining", "end_of_input", "extended", "finishing", "held", "hello_name", "id",
        "identity", "mechanism", "message", "offer", "outcomes", "outgoing", "phase", "receiver", "recipient_refused",
        "running", "said_quit", "stalled", "tls", "told_name", "transaction", "transactions", "verb", "waiting",
    )  # fmt: skip

    def __init__(
        self, config: ServerConfig, dialect: Dialect, application: Application, *, id: str = "0", tls: bool = False
    ) -> None:
        self.config = config
        self.dialect = dialect
        self.application = application
        self.id = id
        self.tls = tls
        self._context: dict[Any, Any] | None = None
        self.hello_name = self.told_name = self.identity = self.mechanism = ""
        self.verb = self.argument = b""
        self.offer: Offer = dialect.no_offer
        self.transaction: Transaction | None = None
        self.message: IncomingMessage | None = None
        self.outcomes: Outcomes | None = None
        self.receiver: Receiver | None = None
        self.transactions = 0
        self.extended = self.recipient_refused = self.said_quit = self.finishing = False
        self.waiting = self.held = self.stalled = self.backlogged = self.running = self.end_of_input = False
        self.draining = False
        self._buffer = ReceiveBuffer(config.profile.bare_lf_commands)
        limit = config.profile.max_command_line + dialect.extra_line_octets
        self._lines = Lines(self._buffer, limit, dialect.max_lines)
        self.outgoing = Outgoing(config, application)
        self._proceed: Callable[[Outcome], Any] = _as_reply
        self._choose_tables()
        self.phase = CONNECTED
        self._table = self._tables[CONNECTED]

    # -- the driver's side ------------------------------------------------

    def greet(self, error: SMTPError | None = None) -> None:
        """
        Answer the connection itself, once the application knows whether it wants it.

        :param error: refuse with it: 421 closes, any other code is sent as 554 (RFC 5321 section 3.1).
        """
        if self.phase is not CLOSED:
            # Whoever begins anew waits for it.
            self.waiting = False
            self.enter(REFUSED if error else GREETED)
            self.write(greeting(self.config, error))
            self._run()

    def receive_data(self, data: bytes) -> None:
        """Take what came from the peer, and go on as far as possible."""
        if self.phase is not CLOSED and (not self.finishing or self.receiver is not None):
            self._buffer.append(data)
            self._run()

    def receive_end(self) -> None:
        """The peer will send no more: finish and answer what is complete, then close (a half-close)."""
        self.end_of_input = True
        self._run()

    def finish(self, *, read_message: bool = False) -> None:
        """
        Answer what is being asked, then close; what else was sent is not read.

        :param read_message: whether a message under way is being asked about: then it is read to its end.
        """
        self.finishing = True
        if not read_message:
            self.receiver = None
        if self.receiver is None:
            self._buffer.clear()
        self._run()

    def resume(self, answer: Outcome) -> None:
        """Bring the answer that was due."""
        if not self.waiting:
            raise RuntimeError("no answer is due")
        self.waiting = False
        if self.phase is not CLOSED:
            self.settle(self._guard(self._proceed, answer))
            self._run()

    def take_line(self, take: Callable[[bytes | None], None], limit: int) -> None:
        """
        Give the next line to ``take``, not to a verb: for a verb that has more to ask of the peer.

        :param take: called with the line, or with None when it was over ``limit`` octets.
        """
        self._lines.want(take, limit)
        self._run()

    def take_no_line(self) -> None:
        """The verb does not wait for its line any more."""
        self._lines.want_none()

    @property
    def context(self) -> dict[Any, Any]:
        """What extensions remember of the connection, each under a key of its own."""
        if self._context is None:
            self._context = {}
        return self._context

    @property
    def wants_line(self) -> bool:
        """Whether a verb waits for a line of the peer."""
        return self._lines.wanted

    def go_on(self) -> None:
        """The replies so far are on their way: make more, if more are due."""
        self._run()

    def hold(self) -> None:
        """Stop handing out the message until :meth:`release`."""
        self.held = True

    def release(self) -> None:
        """The application wants more of the message."""
        self.held = False
        self._run()

    def data_to_send(self) -> bytes:
        """The replies that are due, in order; they are then no longer due."""
        return self.outgoing.take()

    @property
    def replies_due(self) -> bool:
        """Whether :meth:`data_to_send` has any."""
        return bool(self.outgoing.due)

    @property
    def tls_first(self) -> bool:
        """Whether nothing but STARTTLS leads on."""
        return self.config.require_tls and not self.tls

    @property
    def transcript(self) -> Transcript | None:
        """Where the dialog is written down; None, as at first, for nowhere."""
        return self.outgoing.transcript

    @transcript.setter
    def transcript(self, transcript: Transcript | None) -> None:
        self.outgoing.transcript = transcript

    @property
    def buffered(self) -> int:
        """Octets that have come and wait to be used."""
        return len(self._buffer)

    @property
    def in_message(self) -> bool:
        """Whether octets of a message are expected, not a command."""
        return self.receiver is not None

    @property
    def more_commands(self) -> bool:
        """Whether the pipelined group goes on behind the command that waits for its answer."""
        row = self.dialect.verbs.get(self.verb.decode())
        if row is None or row.last_in_group or self.receiver is not None:
            return False
        return self._buffer.has_line()

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the connection were closed now."""
        return self.transaction is None and (not self.waiting or self.wants_line)

    def time_out(self) -> None:
        """The peer took too long."""
        self.part(Reply.from_error(IdleTimeout()))

    def part(self, reply: Reply) -> None:
        """Say goodbye for a reason of our own, which refuses nothing, and read nothing more."""
        if self.phase is not CLOSED:
            self.outgoing.say(reply)
            self.enter(CLOSED)

    def close(self, reply: Reply | None = None) -> None:
        """Say why, if it can still be said, and read nothing more."""
        if self.phase is not CLOSED:
            if reply is not None:
                self.write(reply)
            self.enter(CLOSED)

    def tls_started(self) -> None:
        """The handshake is done; the application makes a new session and calls :meth:`restart`."""
        self.tls = True
        if self.transcript is not None:
            self.transcript.note("TLS started")
        self._choose_tables()

    def restart(self) -> None:
        """The session behind TLS is there; EHLO comes next, without another greeting."""
        self.waiting = False
        if self.phase is not CLOSED:
            self.enter(GREETED)
            self._run()

    # -- the loop ---------------------------------------------------------

    def _run(self) -> None:
        """Work through the buffer until it is empty, or an answer has to be waited for."""
        if self.running:
            # The application answered on the spot, from within the loop below.
            return
        self.backlogged = self.stalled
        if self.stalled:
            return
        self.running = True
        try:
            while self.phase not in _DEAF and (not self.waiting or self._lines.wanted):
                if self.draining and self.transaction is None:
                    break
                if len(self.outgoing.due) >= MAX_REPLIES_DUE:
                    self.backlogged = True
                    return
                if self.receiver is not None:
                    if self.held or not self._receive_octets(self.receiver):
                        break
                elif not self._receive_line():
                    break
            finished = self.finishing and self.receiver is None
            over = finished or (self.end_of_input and not self.held and self.phase is not CONNECTED)
            if over and (not self.waiting or self.wants_line):
                self.close()
        finally:
            self.running = False

    def _receive_octets(self, receiver: Receiver) -> bool:
        data = self._buffer.take()
        if not data:
            return False
        transcript = self.outgoing.transcript
        rest = receiver.receive(data) if transcript is None else transcript.receive(receiver.receive, data)
        if rest is not None:
            if self.receiver is receiver:
                self.receiver = None
            if rest and self.phase is not CLOSED and not self.finishing:
                self._buffer.put_back(rest)
        return True

    def _receive_line(self) -> bool:
        try:
            line = self._lines.next()
        except LineError as error:
            refuse_line(self, self._lines, error)
            return True
        if line is None:
            return False
        outgoing = self.outgoing
        if self._lines.wanted:
            if outgoing.transcript is not None:
                outgoing.transcript.response(line)
            self._lines.give(line)
            return True
        verb, _, argument = line.partition(b" ")
        self.verb = verb = verb.upper()
        self.argument = argument
        if outgoing.transcript is not None:
            outgoing.transcript.command(verb, argument)
        serve = self._table.get(verb)
        if serve is None:
            refuse_verb(self, verb)
            return True
        if verb in self.dialect.no_mail and (refusal := outgoing.idle_command()):
            self.write(refusal)
            return True
        due = len(outgoing.due)
        result = self._guard(serve, self, argument)
        if result is None and len(outgoing.due) == due and self.receiver is None and not self.waiting:
            # A client that pipelines would take the next reply for this one's.
            result = self._guard(_no_answer, verb)
        self.settle(result)
        return True

    def _guard(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """Take a step of a verb; what it raises is its answer."""
        try:
            return step(*arguments)
        except SMTPError as error:
            return error
        except Exception as error:
            return self.application.fault(error)

    def settle(self, result: Any) -> None:
        """Write what a verb or a receiver gave, or wait for it."""
        if self.phase is CLOSED:
            # Somebody has said the last word meanwhile.
            return
        if result.__class__ is Reply:
            self.write(result)
        elif result is PENDING:
            self.waiting = True
        elif isinstance(result, SMTPError):
            self.write(Reply.from_error(result))
        elif result is not None:
            self.settle(self.ask(self.application.wait(result), _as_reply))

    def write(self, reply: Reply) -> None:
        """Answer the command, once or more often; a refusal counts."""
        if reply.code >= 400:
            if self.verb == b"RCPT":
                self.recipient_refused = True
            reply = self.outgoing.count(self.verb, reply)
        if self.outgoing.say(reply):
            self.enter(CLOSED)

    def write_outcome(self, reply: Reply) -> None:
        """Give out what became of a message; it is no mistake of the peer, whatever it says."""
        if self.phase is not CLOSED and self.outgoing.say(reply):
            self.enter(CLOSED)

    def _choose_tables(self) -> None:
        self._tables = self.dialect.tables[self.tls_first, self.extended]

    def enter(self, phase: str) -> None:
        """Go into another phase: what may be said changes with it."""
        if self.phase is CLOSED:
            # The application closed the connection while it was asked; nothing opens it again.
            return
        self.phase = phase
        self._table = self._tables[phase]
        if phase is CLOSED:
            self._lines.want_none()
            self._buffer.clear()
            self.receiver = None
            if self.transcript is not None:
                self.transcript.close()

    # -- what verbs are made of -------------------------------------------

    def ask(self, answer: Answer, proceed: Callable[[Outcome], Any]) -> Any:
        """Go on with an answer of the application: now if it is there, else when it comes."""
        if answer is PENDING:
            self._proceed = proceed
            return PENDING
        return proceed(answer)

    def introduce(self, name: str, extended: bool) -> None:
        """EHLO or HELO was accepted; what it offers is up to :meth:`make_offer`."""
        self.hello_name = name
        self.extended = extended
        self.offer = self.dialect.no_offer
        self._choose_tables()
        self.enter(READY)

    def begin_anew(self, *, hello_name: str = "", identity: str = "", mechanism: str = "") -> None:
        """
        Forget what was said, and wait for :meth:`greet` or :meth:`restart`; what comes meanwhile waits, too.

        :param hello_name: what the client has called itself before somebody who speaks for it.
        :param identity: who it has authenticated as there, by ``mechanism``.
        """
        self.introduce(hello_name, False)
        self.told_name = hello_name
        self.identity, self.mechanism = identity, mechanism
        self.enter(CONNECTED)
        self.waiting = True

    def make_offer(self) -> list[str]:
        """Settle what this connection may use from now on, and return the lines that say so."""
        self.offer, lines = self.dialect.offer(self)
        return lines

    def forget_transaction(self) -> None:
        """The transaction is over, one way or the other."""
        self.transaction = None
        self.message = None
        self.outcomes = None
        self.enter(READY)


def _no_answer(verb: bytes) -> None:
    raise TypeError(f"{verb.decode()} was served without an answer: it returned None, and wrote nothing")


def _as_reply(answer: Outcome) -> Any:
    return answer or OK
