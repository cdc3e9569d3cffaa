"""
AUTH (RFC 4954): who the client is, by one of the mechanisms of :mod:`smtpfw.sasl`.

Rule 1: offered is what is configured, cut with what the checker can verify and
what the connection has; and nothing on a clear line, unless the operator
insists.

Rule 2: a wrong answer is answered late, so that guessing is slow. Others are
served meanwhile, and each failure counts.

Rule 3: what a client sends in an exchange is shown to its mechanism and to
nobody else: no log, no error.

Rule 4: a client says ``*`` in answer to a challenge only: in any other place it
would be a command. Where it could not log in, it goes.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from smtpfw.errors import (
    AuthCancelled,
    AuthFailed,
    AuthMalformed,
    AuthRequired,
    AuthUnavailable,
    BadSequence,
    BrokenPeer,
    ClientError,
    ConfigError,
    EncryptionRequired,
    LocalProtocolError,
    MechanismUnknown,
    Refused,
    RemoteProtocolError,
    SMTPError,
    SyntaxProblem,
)
from smtpfw.hooks import call_hook
from smtpfw.interfaces import IAuthSession, IPlainAuthSession
from smtpfw.sasl import STANDARD
from smtpfw.sasl.exchange import CheckerFault
from smtpfw.sasl.interfaces import IPasswordChecker, ISASLClient, ISASLServer, ISASLServerFactory, ISCRAMKeyStore
from smtpfw.wire.dialect import Extension
from smtpfw.wire.exchange import Done, Exchange
from smtpfw.wire.grammar import Address, decode_xtext, encode_xtext
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.phases import READY, UNIMPLEMENTED_VERB, Verb
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.server import ServerConnection

__all__ = ["AUTH", "FAILURE_DELAY", "MAX_LINE", "Auth", "AuthExchange"]

#: RFC 4954 section 4: octets of a line of the exchange, its CRLF included.
MAX_LINE = 12_288

#: Seconds that a wrong answer waits for its 535. Precedents: Dovecot 2 s, growing; OpenSSH some 2 s by PAM.
FAILURE_DELAY = 2.0

_CRLF = b"\r\n"

_AUTHENTICATED = Reply(235, "Authentication succeeded", (2, 7, 0))

Maker = Callable[[], Any]


def _parse(text: str | None) -> Address:
    if text is None:
        raise ValueError("needs an address, or <>")
    if text == "<>":
        return Address("", "")
    if text.startswith("<") and text.endswith(">"):
        return Address.parse(text[1:-1])
    return Address.parse(decode_xtext(text))


def _format(address: Address | None) -> str:
    return encode_xtext(str(address)) if address else "<>"


#: Who submitted the message first, as the client says (RFC 4954 section 5); false for ``<>``, None when not given.
AUTH: Parameter[Address | None] = Parameter("AUTH", parse=_parse, format=_format, default=None)


class Auth(Extension):
    """
    Authentication for a listener.

    :param checker: provides what the mechanisms need, one or more of the interfaces in
        :mod:`smtpfw.sasl.interfaces`. None where only sessions check, by :class:`IAuthSession` or
        :class:`IPlainAuthSession`.
    :param mechanisms: what may be offered, the best first.
    :param required: answer MAIL with 530 5.7.0 until the client has authenticated (RFC 4954 section 6).
    :param allow_insecure: offer it on a clear line, too, where whoever listens learns passwords.
    :param failure_delay: seconds that a wrong answer waits for its 535.
    :raises ConfigError: for a checker that can work with none of the mechanisms.
    """

    keyword = "AUTH"
    mail_parameters = (AUTH,)
    extra_line_octets = 500  # RFC 4954 section 3

    def __init__(
        self,
        checker: Any = None,
        *,
        mechanisms: Iterable[ISASLServerFactory] = STANDARD,
        required: bool = False,
        allow_insecure: bool = False,
        failure_delay: float = FAILURE_DELAY,
    ) -> None:
        self._mechanisms = tuple(mechanisms)
        if checker is not None and not any(_can_verify(checker, mechanism) for mechanism in self._mechanisms):
            raise ConfigError(
                f"{type(checker).__name__} verifies none of the mechanisms "
                f"{' '.join(mechanism.name for mechanism in self._mechanisms)}; a function goes into a FunctionChecker"
            )
        self._checker = checker
        self._required = required
        self._allow_insecure = allow_insecure
        self._failure_delay = failure_delay
        self.verbs = (
            Verb(
                "AUTH",
                frozenset({READY}),
                last_in_group=True,
                max_line=MAX_LINE,
                serve=self._serve,
            ),
        )

    def advertise(self, connection: ServerConnection) -> str | None:
        """The names that this client may use now; nothing once it has."""
        if connection.identity or not self._secure(connection):
            return None
        return " ".join(self._offered(connection)) or None

    def describe(self) -> str:
        """Which mechanisms, and where, in words."""
        names = [one.name for one in self._mechanisms if self._checker is None or _can_verify(self._checker, one)]
        whose = "the sessions' own, or " if self._checker is None else ""
        return f"{whose}{' '.join(names)}{', on a clear line, too' if self._allow_insecure else ', under TLS'}"

    @property
    def required(self) -> bool:
        """Whether nobody may send without."""
        return self._required

    @property
    def allow_insecure(self) -> bool:
        """Whether it is offered on a clear line, too."""
        return self._allow_insecure

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        """See :meth:`Extension.check_mail`."""
        if self._required and not connection.identity:
            raise AuthRequired

    def understand(self, argument: str) -> tuple[str, ...]:
        """The mechanisms that the server names."""
        return tuple(argument.upper().split())

    def _secure(self, connection: ServerConnection) -> bool:
        return connection.tls or self._allow_insecure

    def _offered(self, connection: ServerConnection) -> dict[str, Maker]:
        """What begins an exchange, by the mechanism's name."""
        session = connection.application.session
        if IAuthSession.providedBy(session):
            return {name.upper(): _of_session(session, name) for name in session.auth_mechanisms()}
        checker = _SessionChecker(session) if IPlainAuthSession.providedBy(session) else self._checker
        context = connection.application.sasl_context(None)
        usable = [
            mechanism
            for mechanism in self._mechanisms
            if _can_verify(checker, mechanism) and mechanism.available(context)
        ]
        names = tuple(mechanism.name for mechanism in usable)
        return {mechanism.name: _of_mechanism(connection, mechanism, checker, names) for mechanism in usable}

    def _serve(self, connection: ServerConnection, argument: bytes) -> Any:
        if connection.identity:
            raise BadSequence("Already authenticated")
        if not self._secure(connection):
            raise EncryptionRequired
        offered = self._offered(connection)
        if not offered:
            return UNIMPLEMENTED_VERB
        name, _, initial = argument.strip(b" ").partition(b" ")
        if not name or b" " in initial:
            raise SyntaxProblem("AUTH takes a mechanism, and an initial response")
        begin = offered.get(name.decode("ascii", "replace").upper())
        if begin is None:
            raise MechanismUnknown
        return self._exchange(connection, name.decode("ascii").upper(), begin, initial)

    async def _exchange(self, connection: ServerConnection, name: str, begin: Maker, initial: bytes) -> Reply:
        try:
            connection.identity = await _authenticate(connection, begin, initial, self._failure_delay)
        except AuthFailed:
            await connection.application.pause(self._failure_delay)
            raise
        except AuthUnavailable as error:
            if error.__cause__ is not None:
                connection.application.fault(CheckerFault.of(error.__cause__))
            raise AuthUnavailable from None
        connection.mechanism = name
        connection.application.authenticated()
        return _AUTHENTICATED


async def _authenticate(connection: ServerConnection, begin: Maker, initial: bytes, failure_delay: float) -> str:
    """
    Run one exchange to its end.

    :param failure_delay: seconds that who gives up waits, if it may have learned that it was wrong.
    :return: the identity.
    """
    try:
        server: ISASLServer = await _settled(begin)
        response = None if not initial else b"" if initial == b"=" else _decode(initial)
        challenge, done = await _settled(server.next, response)
        while not done or challenge is not None:
            connection.write(Reply(334, b64encode(challenge or b"").decode("ascii")))
            line = await connection.application.read_line(MAX_LINE)
            if line == b"*":
                if challenge:
                    # It may have told the verdict, as that of a bad token does.
                    await connection.application.pause(failure_delay)
                raise AuthCancelled
            response = _decode(line)
            if done:
                # The server's last word has been answered (RFC 4954 section 4); there is nothing more to say.
                if response:
                    raise AuthMalformed
                break
            challenge, done = await _settled(server.next, response)
        identity: str = server.identity
    except (SMTPError, CancelledError):
        raise
    except Exception as error:
        raise AuthUnavailable from CheckerFault.of(error)
    return identity


async def _settled(function: Callable[..., Any], *arguments: Any) -> Any:
    result = call_hook(function, *arguments)
    return await result if isinstance(result, Deferred) else result


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise AuthMalformed from None


def _can_verify(checker: Any, mechanism: ISASLServerFactory) -> bool:
    provided = [need for need in mechanism.needs if need.providedBy(checker)]
    if provided == [ISCRAMKeyStore]:
        hashes = getattr(checker, "scram_hashes", None)
        # A client that takes the best that it knows would always fail with one that nobody has keys of.
        return hashes is None or mechanism.name.removeprefix("SCRAM-").removesuffix("-PLUS") in hashes
    return bool(provided)


def _of_session(session: IAuthSession, name: str) -> Maker:
    return lambda: session.auth(name)


def _of_mechanism(
    connection: ServerConnection, mechanism: ISASLServerFactory, checker: Any, names: tuple[str, ...]
) -> Maker:
    return lambda: mechanism.make_server(checker, connection.application.sasl_context(names))


@implementer(IPasswordChecker)
class _SessionChecker:
    """Lets a session check passwords itself."""

    def __init__(self, session: IPlainAuthSession) -> None:
        self._session = session

    async def check_password(self, username: str, password: str) -> str:
        identity = await _settled(self._session.auth_plain, username, password)
        return identity or username


#: Octets of a command line; a longer one must leave the initial response to the first challenge (RFC 4954 section 4).
_MAX_COMMAND = 512

#: Chooses a mechanism when it is known what the server offers: the client's side, its name, and its initial response.
Choose = Callable[["ClientConnection"], tuple[ISASLClient, str, bytes | None]]


class AuthExchange(Exchange):
    """
    The client's side: one mechanism, to its end.

    :param choose: raises LocalProtocolError if there is none; nothing is sent then.
    """

    __slots__ = ("_choose", "_client", "_error", "_held", "_name")

    alone = True

    def __init__(self, choose: Choose, done: Done) -> None:
        super().__init__("AUTH", done)
        self._choose = choose
        self._client: ISASLClient | None = None
        self._name = ""
        # An initial response that did not fit into the command.
        self._held: bytes | None = None
        self._error: Exception | None = None

    def begin(self, connection: ClientConnection) -> None:
        if not connection.peer.uses("AUTH"):
            # To go on without would look as if the credentials had been accepted.
            raise LocalProtocolError(f"{connection.peer_name}: the server offers no AUTH")
        self._client, self._name, initial = self._choose(connection)
        command = f"AUTH {self._name}".encode("ascii")
        if initial is not None:
            whole = command + b" " + (b64encode(initial) or b"=")
            if len(whole) + len(_CRLF) <= _MAX_COMMAND:
                command = whole
            else:
                self._held = initial
        connection.write_line(command + _CRLF)

    def receive(self, connection: ClientConnection, reply: Reply) -> bool:
        assert self._client is not None
        if reply.code == 334:
            if self._error is not None:
                # It was told that we give up, and goes on asking.
                connection.fail(self._broken(connection, self._error))
                return True
            try:
                response = self._respond(reply.text)
            except Exception as error:
                # It is told when the server has heard of it.
                self._error = error
                connection.write_line(b"*" + _CRLF)
            else:
                connection.write_secret(b64encode(response) + _CRLF)
            return False
        if reply.code >= 400:
            connection.fail(self._failure(connection, reply))
            return True
        if self._error is None and reply.code == 235:
            try:
                self._client.next(b"", False)
            except Exception as error:
                self._error = error
        else:
            self._error = self._error or RemoteProtocolError(f"{reply.code} in an exchange of SASL")
        if self._error is not None:
            connection.fail(self._broken(connection, self._error))
            return True
        connection.mechanism = self._name
        self.finish(reply)
        return True

    def _respond(self, challenge: str) -> bytes:
        assert self._client is not None
        try:
            octets = b64decode(challenge.strip(" "), validate=True)
        except (binascii.Error, ValueError):
            raise RemoteProtocolError("a challenge that is not base64") from None
        held, self._held = self._held, None
        if held is not None:
            return held
        return self._client.next(octets, True) or b""

    def _failure(self, connection: ClientConnection, reply: Reply) -> ClientError:
        if self._error is not None and not isinstance(self._error, AuthFailed):
            return self._broken(connection, self._error)
        return Refused(reply, phase=self.phase, peer=connection.peer_name)

    def _broken(self, connection: ClientConnection, error: Exception) -> ClientError:
        return BrokenPeer(str(error), phase=self.phase, peer=connection.peer_name)
