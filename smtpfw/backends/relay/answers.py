"""
What the sender hears when the next hop does not take what it was given.

Rule 1: what the next hop says of the message is the sender's: it passes as it
is, code, enhanced code and text.

Rule 2: what it says of us (a login, TLS, too many connections), and what goes
wrong on the way to it, is not: the sender can do nothing about it, so it is
told to try again, and the operator finds the rest in the log.

Rule 3: a message whose fate nobody knows is one to be tried again: it may come
twice, and is not lost (RFC 5321 section 4.5.5; RFC 1047).
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpfw.errors import (
    NO_ENHANCED_CODE,
    ClientError,
    ConfigError,
    ForwardingFailed,
    LocalProtocolError,
    Refused,
    SMTPError,
    UnknownOutcome,
)
from smtpfw.wire.replies import Reply

__all__ = ["answer_of", "is_ours", "merged", "said"]

#: Steps at which the next hop answers what the sender has said; at all others it answers us.
_OF_THE_SENDER = frozenset({"MAIL", "RCPT", "DATA", "BODY", "END"})

#: Replies about a login or about TLS, whatever they answer (RFC 4954 section 6, RFC 3207 section 4).
_ABOUT_LOGIN = frozenset({454, 530, 534, 535, 538})

#: It has lost the thread, or we have: a sender's commands come in their order, or not at all. Some say 503 for "log in
#: first".
_ABOUT_DIALOG = frozenset({502, 503})

_LOGIN_STEPS = frozenset({"STARTTLS", "TLS", "AUTH"})

#: Closes the connection; said to the sender, it would close that one as well.
_CLOSING = 421

_ABOUT_US = _ABOUT_LOGIN | _ABOUT_DIALOG | {_CLOSING}

#: Characters of a reply that go on to the sender: some lines. A next hop may send very many, for each recipient.
_MAX_TEXT = 2000

#: What may be said of an address that is accepted (RFC 5321 section 4.2.2); all else is plain 250.
_ACCEPTED = frozenset({250, 251})


def is_ours(error: Exception) -> bool:
    """Whether it is no business of the sender's, so that the operator has to hear of it."""
    if isinstance(error, Refused):
        return error.phase not in _OF_THE_SENDER or error.code in _ABOUT_US
    return isinstance(error, (ClientError, LocalProtocolError, ConfigError)) and not isinstance(error, SMTPError)


def answer_of(error: Exception) -> SMTPError:
    """
    What the sender is told.

    :param error: whatever a client, or a look-up of where mail goes, raises.
    :raises Exception: the same, if it is neither of the next hop's nor of the way to it: the sender has gone, say.
    """
    if isinstance(error, Refused):
        return _answer_of_refusal(error)
    if isinstance(error, SMTPError):
        return error
    if isinstance(error, UnknownOutcome):
        return SMTPError(451, (4, 4, 2), "The next server has not said whether it took the message, try again later")
    if is_ours(error):
        return ForwardingFailed()
    raise error


def _answer_of_refusal(error: Refused) -> SMTPError:
    code, text = error.code, _cut(error.reply.text)
    if code == _CLOSING:
        return SMTPError(451, (4, 4, 2), text)
    if code in _ABOUT_LOGIN or error.phase in _LOGIN_STEPS:
        return SMTPError(451, (4, 7, 0), "The next server does not let us in, try again later")
    if is_ours(error):
        return ForwardingFailed()
    enhanced = None if error.enhanced_code == NO_ENHANCED_CODE else error.enhanced_code
    if code >= 500 and error.temporary:
        # 552 to RCPT is "too many" (RFC 5321 section 4.5.3.1.10).
        return SMTPError(452, (4, *enhanced[1:]) if enhanced else (4, 5, 3), text)
    return SMTPError(code, enhanced, text)


def said(reply: Reply | None) -> Reply | str | None:
    """The next hop's yes, as a hook returns it."""
    if reply is None:
        return None
    if reply.code not in _ACCEPTED or reply.enhanced_code == NO_ENHANCED_CODE:
        return _cut(reply.text) or None
    return reply if len(reply.text) <= _MAX_TEXT else Reply(reply.code, _cut(reply.text), reply.enhanced_code)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."


def merged(outcomes: Iterable[Exception | Reply | None]) -> Reply | str | None:
    """
    The one answer that SMTP has to what became of several recipients.

    :param outcomes: of each recipient, at least one: what :func:`answer_of` or the next hop has said.
    :return: a yes, if all have it.
    :raises SMTPError: 5xx if every failure is permanent, else 4xx: then the message comes again, to those who have it
        as well. That is better than a loss.
    """
    yes: list[Reply | None] = []
    errors: list[SMTPError] = []
    for outcome in outcomes:
        if isinstance(outcome, SMTPError):
            errors.append(outcome)
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            yes.append(outcome)
    for error in errors:
        if error.temporary:
            raise SMTPError(451, error.enhanced_code, error.message)
    if errors:
        raise errors[0]
    if not yes:
        raise ValueError("a message to nobody is no success")
    return said(yes[0])
