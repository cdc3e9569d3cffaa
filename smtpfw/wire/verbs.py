"""
What each verb of the core does. Verbs of extensions have the same shape.

Check, ask, proceed: a verb first reads its argument and holds it against the
rules, then asks the application, and only then changes the state. It returns
a reply, or PENDING when the application's answer is not there yet, or raises
an SMTPError. Where a verb is allowed at all stands in
:mod:`smtpfw.wire.phases`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from smtpfw.errors import ConfigError, SMTPError, SyntaxProblem, TooManyRecipients
from smtpfw.wire.application import PENDING, Outcome
from smtpfw.wire.commands import parse_hello, parse_mail, parse_rcpt
from smtpfw.wire.config import SMTP
from smtpfw.wire.dialect import Dialect, Extension
from smtpfw.wire.grammar import Address
from smtpfw.wire.incoming import DataReceiver, begin_message, drop_transaction
from smtpfw.wire.parameters import Options, parse_options
from smtpfw.wire.phases import LMTP_OUT_OF_PHASE, LMTP_VERBS, MAIL, OUT_OF_PHASE, RCPT, VERBS
from smtpfw.wire.replies import (
    CANNOT_VERIFY,
    CLOSING,
    NO_ENHANCED_CODE,
    OK,
    OK_RECIPIENT,
    OK_RESET,
    OK_SENDER,
    START_MAIL_INPUT,
    Reply,
)
from smtpfw.wire.server import ServerConnection
from smtpfw.wire.transaction import Recipient, Transaction

_SENDER_NOT_ASCII = Reply(550, "Address is not ASCII, and SMTPUTF8 was not given", (5, 6, 7))
_RECIPIENT_NOT_ASCII = Reply(553, "Address is not ASCII, and SMTPUTF8 was not given", (5, 6, 7))
_UNPRINTABLE = Reply(501, "Unprintable characters in the argument", (5, 5, 2))
_TOO_MANY_RECIPIENTS = Reply.from_error(TooManyRecipients())


def ehlo(connection: ServerConnection, argument: bytes) -> Any:
    return _hello(connection, argument, True)


def helo(connection: ServerConnection, argument: bytes) -> Any:
    return _hello(connection, argument, False)


def _hello(connection: ServerConnection, argument: bytes, extended: bool) -> Any:
    name = parse_hello(argument, connection.config.profile)
    name = connection.told_name or name

    def greet(answer: Outcome) -> Any:
        connection.introduce(name, extended)
        if not extended:
            return Reply(250, connection.config.hostname, NO_ENHANCED_CODE)
        return _offer_reply(connection.config.hostname, tuple(connection.make_offer()))

    def proceed(answer: Outcome) -> Any:
        if isinstance(answer, SMTPError):
            return answer
        # RFC 5321 section 4.1.4: EHLO resets as RSET does.
        return drop_transaction(connection, "ehlo", greet)

    return connection.ask(connection.application.hello(name, extended), proceed)


@lru_cache(maxsize=64)
def _offer_reply(hostname: str, lines: tuple[str, ...]) -> Reply:
    # Most connections of a listener are offered the same.
    return Reply(250, "\n".join([hostname, *lines]), NO_ENHANCED_CODE)


def mail(connection: ServerConnection, argument: bytes) -> Any:
    sender, raw = parse_mail(argument, connection.config.profile)
    options = parse_options(raw, connection.offer.mail)
    if not (sender.ascii or options.utf8):
        return _SENDER_NOT_ASCII
    for check in connection.dialect.mail_checks:
        check(connection, sender, options)
    changed = None
    if options:
        for amend in connection.dialect.mail_amendments:
            amended = amend(connection, options)
            if amended is not None:
                options, changed = amended
    answer = connection.application.mail(sender, options)
    if answer is PENDING:
        return connection.ask(answer, lambda answer: _accept_sender(connection, sender, options, answer, changed))
    return _accept_sender(connection, sender, options, answer, changed)


def _accept_sender(
    connection: ServerConnection, sender: Address, options: Options, answer: Outcome, changed: Reply | None
) -> Any:
    if isinstance(answer, SMTPError):
        return answer
    if changed is not None and (answer is None or answer.enhanced_code != changed.enhanced_code):
        # Who has changed it once more says so in the same way, and that is the last word.
        answer = changed
    connection.transactions += 1
    connection.transaction = Transaction(f"{connection.id}.{connection.transactions}", sender, options)
    connection.recipient_refused = False
    connection.enter(MAIL)
    return answer or OK_SENDER


def rcpt(connection: ServerConnection, argument: bytes) -> Any:
    transaction = connection.transaction
    assert transaction is not None
    recipient, raw = parse_rcpt(argument, connection.config.profile)
    options = parse_options(raw, connection.offer.rcpt)
    limit = connection.config.max_recipients
    if limit and len(transaction.recipients) >= limit:
        return _TOO_MANY_RECIPIENTS
    if not (recipient.ascii or transaction.options.utf8):
        return _RECIPIENT_NOT_ASCII
    for check in connection.dialect.rcpt_checks:
        check(connection, recipient, options)
    answer = connection.application.rcpt(recipient, options)
    if answer is PENDING:
        return connection.ask(answer, lambda answer: _accept_recipient(connection, recipient, options, answer))
    return _accept_recipient(connection, recipient, options, answer)


def _accept_recipient(connection: ServerConnection, recipient: Address, options: Options, answer: Outcome) -> Any:
    if isinstance(answer, SMTPError):
        return answer
    assert connection.transaction is not None
    connection.transaction.recipients.append(Recipient(recipient, options))
    if connection.phase is not RCPT:
        connection.enter(RCPT)
    return answer or OK_RECIPIENT


def data(connection: ServerConnection, argument: bytes) -> Any:
    _no_argument("DATA", argument)
    for check in connection.dialect.data_checks:
        check(connection)
    answer = connection.application.start_data()
    if answer is PENDING:
        return connection.ask(answer, lambda answer: _start_data(connection, answer))
    return _start_data(connection, answer)


def _start_data(connection: ServerConnection, answer: Outcome) -> Any:
    if isinstance(answer, SMTPError):
        return answer
    receiver = DataReceiver(connection)
    begin_message(connection, receiver.message)
    connection.receiver = receiver
    return START_MAIL_INPUT


def rset(connection: ServerConnection, argument: bytes) -> Any:
    _no_argument("RSET", argument)
    return drop_transaction(connection, "rset", lambda answer: OK_RESET)


def noop(connection: ServerConnection, argument: bytes) -> Any:
    return OK


def vrfy(connection: ServerConnection, argument: bytes) -> Any:
    text = argument.decode("utf-8", "replace").strip(" ")
    if not text.isprintable():
        # What it is shown to, logs above all, may obey control characters.
        return _UNPRINTABLE
    if "SMTPUTF8" in connection.offer.keywords and text.upper().endswith(" SMTPUTF8"):
        # RFC 6531 section 3.7.4.2
        text = text[: -len(" SMTPUTF8")].rstrip(" ")
    if not text:
        raise SyntaxProblem("VRFY needs an argument")

    def proceed(outcome: Outcome) -> Any:
        if isinstance(outcome, Reply) and not outcome.text.isascii():
            # Our replies are ASCII, and another address than the true one is worse than none.
            return CANNOT_VERIFY
        return outcome or CANNOT_VERIFY

    return connection.ask(connection.application.verify(text), proceed)


def help(connection: ServerConnection, argument: bytes) -> Any:
    return Reply(214, f"Commands: {' '.join(connection.dialect.verbs)}", (2, 0, 0))


def quit(connection: ServerConnection, argument: bytes) -> Any:
    _no_argument("QUIT", argument)
    connection.said_quit = True
    connection.close(CLOSING)
    return None


def _no_argument(name: str, argument: bytes) -> None:
    if argument.strip(b" "):
        raise SyntaxProblem(f"{name} takes no argument")


SERVED: dict[str, Callable[[ServerConnection, bytes], Any]] = {
    "EHLO": ehlo,
    "HELO": helo,
    "LHLO": ehlo,
    "MAIL": mail,
    "RCPT": rcpt,
    "DATA": data,
    "RSET": rset,
    "NOOP": noop,
    "VRFY": vrfy,
    "HELP": help,
    "QUIT": quit,
}


def compile_dialect(extensions: Iterable[Extension], protocol: str = SMTP) -> Dialect:
    """
    Compile a listener's extensions, in the order in which EHLO or LHLO names them.

    :param protocol: ``smtp`` or ``lmtp``.
    :raises ConfigError: if one is missing what it needs, or two claim the same word.
    """
    if protocol == SMTP:
        return Dialect(extensions, VERBS, SERVED, OUT_OF_PHASE)
    dialect = Dialect(extensions, LMTP_VERBS, SERVED, LMTP_OUT_OF_PHASE)
    keywords = {extension.keyword for extension in dialect.extensions}
    for keyword in ("PIPELINING", "ENHANCEDSTATUSCODES"):
        if keyword not in keywords:
            # RFC 2033 section 5
            raise ConfigError(f"LMTP needs {keyword}, which is not in the list of extensions")
    return dialect
