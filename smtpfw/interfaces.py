"""
Every interface of smtpfw, with the duties of both sides.

The contract is small: a *backend* makes one *session* for each connection,
and the session's hooks are called as the client goes on. An extra ability is
an extra interface, found by ``providedBy``.

How every hook answers
    A hook may return a plain value, a Deferred, or a coroutine (``async
    def``). ``None`` gives the standard reply. A
    :class:`~smtpfw.wire.replies.Reply` or a text is success with that reply or
    text (a queue id, say). Raising an :class:`~smtpfw.errors.SMTPError` or one
    of its children gives that reply. Anything else that is raised gives 451
    4.3.0 with a fixed text; the traceback goes to the log, never to the client.

When hooks are called
    One at a time for a connection, in the order of the client's commands. The
    next command waits until the answer is there, however much the client
    sends ahead. A hook that is waiting is cancelled when its client has gone,
    but never once the true end of the message has arrived.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IConsumer

    from smtpfw.errors import SMTPError
    from smtpfw.state import ConnectionState, TLSState
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.parameters import Options
    from smtpfw.wire.replies import Reply
    from smtpfw.wire.transaction import Recipient, Transaction

__all__ = [
    "IAuthSession",
    "IBackend",
    "IBody",
    "ICheck",
    "IConnection",
    "IHelloSession",
    "ILMTPSession",
    "IPlainAuthSession",
    "IPrepared",
    "ISession",
    "IStatusCollector",
    "ITwoPhaseSession",
    "IVerifySession",
]


class IConnection(Interface):
    """
    What a session and a check may know of the connection that they serve, and the little that they may do to it.

    Read it; all but ``context`` and ``session`` belongs to smtpfw.
    """

    id: str = Attribute("Names this connection in logs and Received lines; unique within the process.")
    hostname: str = Attribute("Our own name, as in the greeting.")
    peer: IAddress = Attribute(
        "The client's address, as a trusted proxy tells it if there is one; for a Unix socket it has no host, nor "
        "where nobody knows it."
    )
    local: IAddress = Attribute("What the client has connected to: our own address, or that of a proxy.")
    proxy: IAddress | None = Attribute(
        "The address of the proxy that has told us of the client, by PROXY or XCLIENT; None if the client is connected "
        "to us."
    )
    peer_host: str = Attribute("The client's IP address as text; empty for a Unix socket, and where nobody knows it.")
    hello_name: str = Attribute("What the client called itself in EHLO or HELO; empty before. Never trust it.")
    protocol: str = Attribute(
        "The registered name of the protocol spoken, for a Received line (RFC 3848, RFC 6531 section 4.3): SMTP, "
        "ESMTP, ESMTPS, UTF8SMTPS ..."
    )
    tls: str = Attribute("The version and cipher of TLS, as 'TLSv1.3 TLS_AES_256_GCM_SHA384'; empty on a clear line.")
    identity: str = Attribute("Who the client has authenticated as; empty if it has not.")
    mechanism: str = Attribute("By which SASL mechanism, or XCLIENT if a trusted proxy says so; empty if it has not.")
    transaction: Transaction | None = Attribute(
        "The sender, the accepted recipients (each has ``address`` and ``options``) and the id of the transaction that "
        "is under way; None outside of one. A session finds exactly those recipients that it has accepted itself. "
        "A new object is made at each MAIL, and it is never changed after the end of its message."
    )
    seconds_since_mail: float = Attribute(
        "Seconds since the client's last MAIL came, whenever a session was told of it; only of use in a transaction, "
        "and for the answer to MAIL."
    )
    tls_state: TLSState | None = Attribute(
        "What TLS has agreed on: version, cipher, the name the client asked for, its certificate; None on a clear "
        "line. Behind XCLIENT it is the proxy's line, and its certificate is nobody's."
    )
    context: dict[Any, Any] = Attribute(
        "Yours: whatever you want to remember for as long as the session lasts. The session behind STARTTLS gets a "
        "copy of what checks had put there when the client connected, so keep values there that do not change."
    )
    server: Any = Attribute(
        "The factory that the connection belongs to; ``server.connections`` are the protocols of all its connections."
    )
    session: ISession = Attribute(
        "The session that is asked; None while there is none yet. Set it between two transactions, and from the next "
        "question on another one is asked; the one before gets ``logout('replaced')`` at once, within its own hook if "
        "that has set it. Within a transaction it raises RuntimeError."
    )
    state: ConnectionState = Attribute("Names and addresses as they are now, in one value that does not change.")
    talked_early: bool = Attribute(
        "Before the greeting: whether the client has sent something already; afterwards nobody knows, and it is False."
    )

    def close() -> None:
        """Close the connection once what is being asked has been answered; nothing more is read."""

    def reject(error: SMTPError | None = None) -> None:
        """
        Say that the client is not wanted, and close the connection.

        :param error: what is said, as it is; by default 421 4.3.2. What is being asked is not answered in another way.
        """

    def write_reply(reply: Reply) -> None:
        """
        Send a reply now, before the answer to what is being asked.

        The client takes each reply for the answer to one command: it is for those who serve a verb of their own.
        """

    def read_line(limit: int = 2048) -> Any:
        """
        Awaitable: the client's next line as bytes, without its line end, not taken for a command.

        :param limit: octets, the line end included; a longer line is read to its end, and raises SMTPError 500 5.5.6.
        :raises RuntimeError: if no command is being answered, for then the next line is one.
        """

    def pause(seconds: float) -> Any:
        """Awaitable: some time, in which other connections are served."""

    def look_up_name() -> Any:
        """
        Awaitable: the name that DNS has for the client's address (a PTR record). It is remembered once it is known; a
        name that a trusted proxy has found is not asked for again.

        :return: a text; empty when there is none, when it can't be had within 5 seconds, or for a Unix socket. Whoever
            owns the address chooses the name: it proves nothing.
        """


class IBody(Interface):
    """
    The body of one message, as it arrives. DATA and BDAT fill the same object.

    Chunks are slices of bytes of any size, never lines. The text of a body never
    holds a bare CR or LF; with BODY=BINARYMIME the octets are as they were sent.
    Not reading is the back-pressure: while nobody reads, the peer is paused.

    It can be read once: reading on behind its end raises RuntimeError.

    Every way to read raises what ends the message early:
    :class:`~smtpfw.errors.DataReset` when the client has gone or sent RSET,
    :class:`~smtpfw.errors.DataTooLarge` and other
    :class:`~smtpfw.errors.SMTPError` when the message is refused for its form.
    Whoever stores must let that pass and store nothing. Only the end of the
    iteration (or the return of ``read``) says that the message is whole.
    """

    size: int = Attribute("How many octets have been received so far.")

    def __aiter__() -> AsyncIterator[bytes]:
        """Chunk after chunk until the message is whole."""

    def read() -> Any:
        """Awaitable: all that has not been read yet, as one ``bytes``. Memory grows with the message."""

    def message() -> Any:
        """Awaitable: the rest as an :class:`email.message.EmailMessage`. Memory grows with the message."""

    def deliver_to(consumer: IConsumer) -> Any:
        """
        Register as a streaming producer with ``consumer`` and write all chunks to it.

        :return: a Deferred that fires when the message is whole, or fails with what ended it early. The
            producer is unregistered in both cases.
        """


class IBackend(Interface):
    """
    Where mail goes. One object serves all connections of its listeners.

    It may have four more methods, which ``twistd smtpfw`` looks for by name: ``start()``, called before the first
    client is served, and ``stop()``, after the last; both may return a Deferred, and a ``start`` that fails ends the
    process. ``describe()`` gives lines for the log that tell where mail goes, and how durable it is there. ``check()``
    is called by ``--check``, in a thread of its own and without a reactor that runs, so it may block, for some seconds:
    it tries what mail will need, leaves nothing behind, gives sentences about what may not be meant, and raises
    :class:`~smtpfw.errors.ConfigError`, a line for each mistake, if mail could not be taken.
    """

    honours: Collection[str] = Attribute(
        "Keywords of the extensions that this backend keeps the promises of (DSN, REQUIRETLS ...). An extension that "
        "promises something beyond the wire is advertised only if it stands here; usually empty."
    )

    def new_session(connection: IConnection) -> ISession:
        """
        Called at connect, before the greeting, and again after STARTTLS and after XCLIENT.

        Refuse the connection by raising an :class:`~smtpfw.errors.SMTPError`: 421 closes at once; any other code is
        sent as 554, and then only QUIT is served, for 30 seconds at most (RFC 5321 section 3.1). A failure of
        another kind is answered 421 4.3.0.
        """


class ISession(Interface):
    """
    One client's dialog. Keep what belongs to the connection on the session object.

    :class:`smtpfw.Session` is a base class whose every hook accepts: write only what differs.
    """

    def mail(sender: Address, options: Options) -> Any:
        """
        MAIL FROM. A new transaction begins if this is accepted.

        :param sender: the reverse-path; the null sender ``<>`` is an Address that is false.
        :param options: the parameters, as ``options[SIZE]``.
        """

    def rcpt(recipient: Address, options: Options) -> Any:
        """
        RCPT TO. The recipient counts if this is accepted; smtpfw keeps the list (``connection.transaction``).

        The same address may be given twice, and counts twice. ``<postmaster>`` without a domain must be
        served (RFC 5321 section 4.5.1); its domain is an empty text.
        """

    def data(body: IBody) -> Any:
        """
        The message. Success means that it is now ours: it must survive whatever the backend promises to survive.

        May return before the body is at its end: the rest is drained, and the answer counts then. An error in
        the form of the message overrides a success that was returned already.
        """

    def reset(reason: str) -> Any:
        """
        The transaction ended in another way than by the answer of ``data``; forget it.

        It cannot refuse, and nobody waits for what it returns.

        :param reason: ``rset``, ``ehlo``, ``starttls``, ``disconnected``, ``timeout``, ``refused`` (the message was
            refused for its form or by a check, whatever ``data`` returned) or ``shutdown``.
        """

    def logout(reason: str) -> Any:
        """
        The dialog is over. Called exactly once for each session, after everything else; nobody waits for it.

        :param reason: ``quit``, ``starttls`` (a new session follows), ``xclient`` and ``replaced`` (likewise),
            ``disconnected``, ``timeout``, ``error`` or ``shutdown``.
        """


class IHelloSession(ISession):
    """A session that wants to see, or refuse, how the client introduces itself."""

    def hello(name: str, extended: bool) -> Any:
        """
        EHLO or HELO.

        :param name: what the client calls itself: any printable text without spaces.
        :param extended: whether it was EHLO.

        A refusal leaves the state as it was; a later EHLO may succeed. A text that is returned is not shown.
        """


class IStatusCollector(Interface):
    """Where an :class:`ILMTPSession` says what became of a message, recipient by recipient."""

    def set_status(recipient: Address | Recipient, outcome: Any = None) -> None:
        """
        Say what became of the message for one recipient; once for each, in any order, until ``lmtp_data`` ends.

        Its reply leaves as soon as those of the recipients before it have left, but not before the message is whole.

        :param recipient: as it was given to ``rcpt``, or one of ``connection.transaction.recipients``.
            When the same address was accepted twice, the first call is for
            the first, the second for the second.
        :param outcome: None for success, a :class:`~smtpfw.wire.replies.Reply` or a text for success with that, an
            exception for failure. One that is no :class:`~smtpfw.errors.SMTPError` is a fault of ours: 451 4.3.0.
        :raises ValueError: if there is no such recipient, or its status has been set already.
        """


class ILMTPSession(ISession):
    """
    A session that answers each recipient of a message by itself (RFC 2033).

    Without it, all recipients of an LMTP message get what ``data`` answers.
    """

    def lmtp_data(body: IBody, status: IStatusCollector) -> Any:
        """
        The message, in the place of ``data``, on listeners that speak LMTP.

        Whoever has no status when this ends gets its answer.
        """


class IPlainAuthSession(ISession):
    """A session that checks passwords itself, for PLAIN and LOGIN, on listeners that serve AUTH."""

    def auth_plain(username: str, password: str) -> Any:
        """
        :return: the identity, or None for ``username``.
        :raises AuthFailed: if the user is unknown or the password is wrong.
        """


class IAuthSession(ISession):
    """A session with mechanisms of its own, on listeners that serve AUTH."""

    def auth_mechanisms() -> Collection[str]:
        """The names to offer, the best first. Asked at each EHLO and each AUTH; it does not wait."""

    def auth(mechanism: str) -> Any:
        """
        Begin an exchange.

        :param mechanism: one of those names.
        :return: an :class:`~smtpfw.sasl.interfaces.ISASLServer`.
        """


class ITwoPhaseSession(ISession):
    """
    A session whose delivery can be taken back until it is committed.

    Whoever hands one message to several (``mux``) needs to know that all have it before any shows it. ``data`` is
    asked where there is no such need: a session has both.
    """

    def prepare(body: IBody) -> Any:
        """
        The message, in the place of ``data``: keep it as durably, but show it to nobody yet.

        Make sure now of all that could hinder its commit: room, permissions, quota. May return before the body is at
        its end, and is cancelled, as ``data``.

        :return: an :class:`IPrepared`; a refusal is raised, as in ``data``.
        """


class IPrepared(Interface):
    """
    A message that is kept, and not yet delivered.

    One of the two is called, once, even if the client has gone meanwhile; neither is cancelled. If the process ends
    before, the message has no answer yet, and may be forgotten.
    """

    def commit() -> Any:
        """
        Deliver it. The answer counts as that of ``data`` does.

        A refusal comes late: others may have delivered, so the client is told to try again, and they get it twice.
        """

    def roll_back() -> Any:
        """Forget it; it takes the place of ``reset``. Cannot refuse, and is waited for: no answer leaves before."""


class IVerifySession(ISession):
    """A session that answers VRFY (RFC 5321 section 3.5). Others answer 252 to all."""

    def verify(text: str) -> Any:
        """
        :param text: what the client asked for: a user name or an address.
        :return: None for "cannot verify" (252), or the full address as a text (250 2.1.5).
        :raises SMTPError: 550 5.1.1 unknown; 553 5.1.4 ambiguous.
        """


class ICheck(Interface):
    """
    A policy: asked before the session, it may refuse what the client wants.

    One object serves all connections of its listener. The checks of a listener are asked in their order; the first
    refusal wins, and then neither the other checks nor the session are asked. Each method but ``disconnected`` answers
    as a hook does: None lets pass; a raised :class:`~smtpfw.errors.SMTPError`, or a returned reply of class 4 or 5,
    refuses; it may be a coroutine, or return a Deferred, which is cancelled when the client has gone.

    :class:`smtpfw.Check` is a base class whose every method lets pass: write only what differs. What is not overridden
    is not called.
    """

    def connect(connection: IConnection) -> Any:
        """
        A client has connected; under implicit TLS after the handshake. Not asked again after STARTTLS; but after
        XCLIENT, for then it is another client, and ``disconnected`` has been told of the one before.

        A refusal with 421 closes; any other code is sent as 554 (RFC 5321 section 3.1).
        """

    def hello(connection: IConnection, name: str, extended: bool) -> Any:
        """EHLO, HELO or LHLO; see :meth:`IHelloSession.hello`. May be asked more than once."""

    def mail(connection: IConnection, sender: Address, options: Options) -> Any:
        """MAIL; see :meth:`ISession.mail`."""

    def rcpt(connection: IConnection, recipient: Address, options: Options) -> Any:
        """RCPT; see :meth:`ISession.rcpt`. Earlier recipients stand in ``connection.transaction``."""

    def data(connection: IConnection) -> Any:
        """DATA, or the first BDAT: before the message is sent."""

    def message(connection: IConnection, header: bytes, size: int) -> Any:
        """
        The message has come whole, and the session does not know that yet.

        :param header: the header section as it came, with the empty line behind it; of a longer one the first
            256 KiB.
        :param size: octets of the whole message.

        A refusal ends the message for the session as the client's going would: nothing may be stored.
        """

    def disconnected(connection: IConnection) -> None:
        """The connection is over; called once for each for which ``connect`` was due, whatever came of it."""
