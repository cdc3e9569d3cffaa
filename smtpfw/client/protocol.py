"""
A client's connection: whatever can be asked of a server, each as a Deferred.

Rule 1: every method may be called without waiting for the one before. What is
asked is said in that order, ahead of the replies where the peer offers
PIPELINING.

Rule 2: nothing is tried again here. Who asked decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IHandshakeListener, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw.client.addresses import AnyAddress, AnyOptions, address_of, options_of
from smtpfw.client.bodies import OutgoingBody, outgoing_body
from smtpfw.client.driver import ClientDriver
from smtpfw.client.login import choose, clients_of
from smtpfw.client.messages import AnyRecipients, outgoing_message
from smtpfw.client.own_name import hello_name
from smtpfw.client.writer import MessageWriter
from smtpfw.errors import BadSequence, ConnectionFailed, LocalProtocolError
from smtpfw.extensions import CLIENT
from smtpfw.extensions.auth import AuthExchange
from smtpfw.extensions.starttls import StartTLSExchange
from smtpfw.sasl import ServerInfo
from smtpfw.state import TLSState
from smtpfw.tls import channel_bindings, client_context, tls_state
from smtpfw.wire.client import ClientConnection
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.dialect import Extension
from smtpfw.wire.exchange import Command, Done, Exchange, Hello
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.phases import LMTP_VERBS, VERBS
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult, SendResult
from smtpfw.wire.sending import Sending
from smtpfw.wire.steps import BodyStep, MailStep, QuitStep, RcptStep, ResetStep, VerifyStep
from smtpfw.wire.transaction import Recipient
from smtpfw.wire.transcript import Transcript

__all__ = ["LMTPClientProtocol", "SMTPClientProtocol"]


@implementer(IHandshakeListener)
class SMTPClientProtocol(Protocol):
    """
    :param config: time limits, our name, what is used of what the peer offers.
    :param name: the host that we mean to talk to: for its certificate, and for SASL; empty if it has none.
    :param peer_name: what to call the peer in errors; by default its address.
    :param extensions: those that are used where the peer offers them.
    :param tls: a context (:func:`smtpfw.tls.client_context`) to begin TLS with before anything is said.
    :param clock: for time limits; by default the reactor.
    :param transcript: takes each line of the dialog, as text; secrets and messages are not in it.

    :ivar disconnected: a Deferred that fires with None when the connection is gone.
    :ivar wire: what is known of the connection; see :class:`~smtpfw.wire.client.ClientConnection`.
    """

    lmtp = False

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        name: str = "",
        peer_name: str = "",
        extensions: Iterable[Extension] = CLIENT,
        tls: Any = None,
        clock: IReactorTime | None = None,
        transcript: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config or ClientConfig()
        self.name = name
        self._greeting: object = None
        self._awaiting_greeting: list[Deferred[Reply]] = []
        self.disconnected: Deferred[None] = Deferred()
        self._driver = ClientDriver(self.config, name, clock)
        self._driver.context = tls
        self.wire = self._driver.wire = ClientConnection(
            self.config,
            extensions,
            self._driver,
            self._greeted,
            hello_name=self.config.hello_name,
            lmtp=self.lmtp,
            peer_name=peer_name,
        )
        if transcript is not None:
            self.wire.transcript = Transcript(transcript, _known_verbs(self.wire.extensions))

    # -- called by Twisted ------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        wire = self.wire
        wire.hello_name = wire.hello_name or hello_name(getattr(transport.getHost(), "host", ""))
        wire.peer_name = wire.peer_name or _show(transport.getPeer())
        self._driver.connected(transport)

    def dataReceived(self, data: bytes) -> None:
        self._driver.receive(data)

    def handshakeCompleted(self) -> None:
        self._driver.handshake_completed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._driver.connection_lost(reason)
        self.disconnected.callback(None)

    # -- the dialog -------------------------------------------------------------

    @property
    def greeting(self) -> Deferred[Reply]:
        """A Deferred of the peer's greeting, a new one each time: nobody has to listen to it."""
        answer: Deferred[Reply] = Deferred()
        if self._greeting is None:
            self._awaiting_greeting.append(answer)
        else:
            _tell(answer, self._greeting)
        return answer

    def hello(self, name: str = "") -> Deferred[Reply]:
        """
        EHLO, or HELO where the peer does not know it; LHLO in LMTP.

        It is said by itself before the first other command.

        :param name: what we call ourselves; by default as in the settings.
        :raises LocalProtocolError: if it is not the first thing that is asked. STARTTLS makes it the first again.
        """
        if self.wire.said_hello:
            return fail(LocalProtocolError("hello has been said; it comes first, and once"))
        return self._ask(lambda done: Hello(name or self.wire.hello_name, done))

    def mail(self, sender: AnyAddress, options: AnyOptions = None) -> Deferred[Reply]:
        """
        MAIL FROM.

        :param options: ``{SIZE: 1000}``; each is sent if its extension is offered, else refused locally.
        :raises ExtensionMissing: naming the extension; nothing has been sent.
        :raises LocalProtocolError: if the line would say anything else than it should.
        """
        return self._try(lambda done: MailStep(address_of(sender), options_of(options), done))

    def rcpt(self, recipient: AnyAddress, options: AnyOptions = None) -> Deferred[Reply]:
        """RCPT TO; it raises as :meth:`mail` does."""
        return self._try(lambda done: RcptStep(Recipient(address_of(recipient), options_of(options)), done))

    def data(self, body: Any = None) -> Any:
        """
        The message, to the recipients that were accepted. In LMTP use :meth:`lmtp_data`.

        :param body: see :func:`~smtpfw.client.bodies.outgoing_body`. Without it, what comes back is a
            :class:`~smtpfw.client.writer.MessageWriter`: write to it, and wait for its ``finish()``.
        :return: a Deferred of the peer's answer.
        """
        return MessageWriter(self._data) if body is None else self._data(body)

    def lmtp_data(
        self, body: Any, callback: Callable[[RecipientResult], None] | None = None
    ) -> Deferred[list[RecipientResult]]:
        """
        The message, to the recipients that were accepted, in LMTP.

        :param callback: called for each recipient, in their order.
        :return: one result for each, refused ones too.
        """

        def results(outcome: Any) -> Any:
            result = getattr(outcome.value, "result", None) if isinstance(outcome, Failure) else outcome
            if result is None or not result.recipients:
                # The connection had ended before it was known whom the message is for.
                return outcome
            if callback is not None:
                for one in result.recipients:
                    callback(one)
            return result.recipients

        return self._body(body).addBoth(results)

    def reset(self) -> Deferred[Reply]:
        """RSET: the transaction is over."""
        return self._ask(ResetStep)

    def noop(self) -> Deferred[Reply]:
        """NOOP: is the peer still there?"""
        return self._ask(lambda done: Command(b"NOOP\r\n", done))

    def verify(self, text: str) -> Deferred[Reply | None]:
        """
        VRFY.

        :return: what the peer says; None for 252, by which it says neither yes nor no.
        """
        answer = self._try(lambda done: VerifyStep(text, done))
        return answer.addCallback(lambda reply: None if reply.code == 252 else reply)

    def command(self, line: str | bytes) -> Deferred[Reply]:
        """
        Any command, so that extensions can be added.

        :param line: without its line end.
        :return: the reply, whatever it says.
        :raises LocalProtocolError: if it is not exactly one line.
        """
        return self._try(lambda done: Command(_octets(line), done, raw=True))

    def quit(self) -> Deferred[Reply]:
        """QUIT, and close. If the peer refuses, the connection stays open."""

        def over(reply: Reply) -> Reply:
            self.wire.close()
            return reply

        return self._ask(QuitStep).addCallback(over)

    def close(self) -> None:
        """Close without a word; whoever waits for something gets a ConnectionFailed."""
        wire = self.wire
        error = ConnectionFailed("closed by ourselves", phase=wire.phase, peer=wire.peer_name)
        if wire.is_over:
            # It may still wait for the peer to close its side: Exim answers no close_notify.
            self._driver.closed(error)
        else:
            wire.fail(error)

    # -- safety -----------------------------------------------------------------

    def start_tls(self, context: Any = None) -> Deferred[None]:
        """
        STARTTLS, and the handshake. EHLO has to be said again, which happens by itself.

        :param context: see :func:`smtpfw.tls.client_context`; by default the certificate has to be valid for ``name``.
        :raises TLSFailed: if the line has not become safe. The connection is closed then, unless the peer merely does
            not offer it.
        :raises Refused: if the peer says no.
        """
        self._driver.context = client_context(self.name, verify=True) if context is None else context
        return self._ask(StartTLSExchange)

    def auth(self, credentials: Any) -> Deferred[Reply]:
        """
        AUTH, by the best mechanism that both sides know. A failure closes the connection.

        :param credentials: ``(username, password)``, an :class:`~smtpfw.sasl.ISASLClient`, or several, best first.
        :raises LocalProtocolError: if no mechanism fits, or the line is not safe for the one that does.
        """
        clients = clients_of(credentials)

        def choice(wire: ClientConnection) -> Any:
            info = ServerInfo(
                name=self.name,
                tls=wire.tls_verified,
                mechanisms=wire.peer.facts.get("AUTH", ()),
                channel_bindings=channel_bindings(self.transport, client=True),
            )
            # Copies: others may log in at the same time, and an exchange keeps what was said in it.
            return choose([copy(client) for client in clients], info)

        return self._ask(lambda done: AuthExchange(choice, done))

    def extension(self, keyword: str) -> str | None:
        """What the peer says behind the keyword in its answer to EHLO; None if it does not offer it."""
        return self.wire.peer.arguments.get(keyword.upper())

    @property
    def tls_state(self) -> TLSState | None:
        """What TLS has agreed on; None on a clear line."""
        return tls_state(self.transport)

    # -- whole messages ---------------------------------------------------------

    def send_mail(
        self,
        sender: AnyAddress | None,
        recipients: AnyRecipients | None,
        body: Any,
        options: AnyOptions = None,
    ) -> Deferred[SendResult]:
        """
        Send a message; the arguments are those of :func:`~smtpfw.client.send_mail`.

        :return: what became of each recipient; it is there if anybody got the message.
        :raises ClientError: if nobody did; what became of each recipient is in its ``result``.
        :raises LocalProtocolError: if an address or a parameter is none; nothing has been sent.
        """
        return self._try(lambda done: Sending(outgoing_message(sender, recipients, body, options), done))

    def send_message(self, message: OutgoingMessage) -> Deferred[SendResult]:
        """
        The same, for a message that has been made already.

        :raises TypeError: for a message whose body nobody could read: :func:`~smtpfw.client.outgoing_body` makes one.
        """
        if not isinstance(message.body, OutgoingBody):
            return fail(TypeError(f"the body of a message is an OutgoingBody, not {type(message.body).__name__}"))
        return self._ask(lambda done: Sending(message, done))

    def when_ready(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever another message could be begun and none waits: for a pool."""
        self._driver.on_ready = call
        self.wire.wants_ready = True

    def submit(self, exchange: Exchange) -> None:
        """Ask something by an exchange of one's own."""
        self.wire.submit(exchange)
        self._driver.flush()

    def cancel(self, exchange: Exchange) -> None:
        """Whoever has submitted it does not want to know any more."""
        self.wire.cancel(exchange)
        self._driver.flush()

    # -- our own ----------------------------------------------------------------

    def _greeted(self, result: object) -> None:
        self._greeting = result
        awaiting, self._awaiting_greeting = self._awaiting_greeting, []
        for answer in awaiting:
            _tell(answer, result)

    def _data(self, body: Any) -> Deferred[Reply | None]:
        if self.lmtp:
            return fail(BadSequence("In LMTP each recipient has an answer: use lmtp_data"))
        return self._body(body).addCallback(lambda result: result.reply)

    def _body(self, body: Any) -> Deferred[SendResult]:
        return self._try(lambda done: BodyStep(outgoing_body(body), done))

    def _try(self, make: Callable[[Done], Exchange]) -> Deferred[Any]:
        """Ask, if it can be said at all."""
        try:
            return self._ask(make)
        except (LocalProtocolError, TypeError, ValueError) as error:
            return fail(error)

    def _ask(self, make: Callable[[Done], Exchange]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred(lambda _: self.cancel(exchange))
        exchange = make(lambda result: _tell(answer, result))
        self.submit(exchange)
        return answer


class LMTPClientProtocol(SMTPClientProtocol):
    """The same for LMTP (RFC 2033): each recipient has an answer to the message of its own."""

    lmtp = True


def _octets(line: str | bytes) -> bytes:
    return (line.encode() if isinstance(line, str) else line) + b"\r\n"


def _known_verbs(extensions: Iterable[Extension]) -> frozenset[str]:
    own = (verb for extension in extensions for verb in extension.verbs)
    return frozenset(verb.name for verb in (*VERBS, *LMTP_VERBS, *own))


def _show(address: Any) -> str:
    host = getattr(address, "host", None)
    name = getattr(address, "name", address)
    # Twisted keeps the path of a Unix socket as octets.
    path = os.fsdecode(name) if isinstance(name, bytes) else name
    return f"[{host}]:{address.port}" if host else str(path or "a Unix socket")


def _tell(answer: Deferred[Any], result: Any) -> None:
    if isinstance(result, Exception):
        answer.errback(Failure(result))
    else:
        answer.callback(result)
