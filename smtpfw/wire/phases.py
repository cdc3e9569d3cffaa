"""
What may be said when: all of it, in one table.

Rule 1: what decides whether a verb is allowed at a moment stands in this
file, or in the :class:`Verb` rows of an extension. The connection looks rows
up; it never asks "are we in the middle of ...?". BDAT alone judges for itself,
since its octets have to be read wherever it stands.

Rule 2: this file does not know what a verb does, nor on which side we are.

The life of a connection::

    CONNECTED --greeting--> GREETED --EHLO--> READY --MAIL--> MAIL --RCPT--> RCPT --DATA--> READY
        |                                       ^                             |
        +--554--> REFUSED                       +---------- LAST ---- CHUNKING <-- BDAT

From anywhere EHLO leads to READY, and RSET back to it from all that is behind
it; QUIT and 421 lead to CLOSED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from smtpfw.wire.replies import Reply

#: No greeting has been sent yet.
CONNECTED = "CONNECTED"
#: Greeted; EHLO or HELO must come first.
GREETED = "GREETED"
#: No transaction.
READY = "READY"
#: A sender, and no accepted recipient yet.
MAIL = "MAIL"
#: A sender and one recipient or more.
RCPT = "RCPT"
#: Between the chunks of a message (RFC 3030).
CHUNKING = "CHUNKING"
#: The connection was refused with 554; only QUIT is served (RFC 5321 section 3.1).
REFUSED = "REFUSED"
#: Nothing is read any more.
CLOSED = "CLOSED"

PHASES = (CONNECTED, GREETED, READY, MAIL, RCPT, CHUNKING, REFUSED, CLOSED)

_TALKING = frozenset({GREETED, READY, MAIL, RCPT, CHUNKING})


@dataclass(frozen=True, slots=True)
class Verb:
    """
    One row: a command and its place in the dialog.

    :ivar name: in capitals.
    :ivar phases: where it is allowed; elsewhere it is answered 503 5.5.1.
    :ivar before_tls: whether it is allowed on a clear line that requires TLS (RFC 3207 section 4).
    :ivar last_in_group: whether it must end a pipelined group, because what follows depends on its answer (RFC 2920
        section 3.1).
    :ivar after_helo: whether it is allowed without EHLO; an extension's verb is not, unless it sees to that itself.
    :ivar carries_mail: whether it is a step of sending a message; of the others a client may say only so many before it
        sends one.
    :ivar max_line: octets of its command line where it needs more than the others; 0 otherwise.
    :ivar serve: for an extension's verb: ``serve(connection, argument)``, with ``argument`` the bytes behind the
        verb, returns a Reply or an awaitable of one, or raises SMTPError.
    """

    name: str
    phases: frozenset[str]
    before_tls: bool = False
    last_in_group: bool = False
    after_helo: bool = False
    carries_mail: bool = False
    max_line: int = 0
    serve: Callable[[Any, bytes], Any] | None = None


VERBS = (
    Verb("EHLO", _TALKING, before_tls=True, last_in_group=True, after_helo=True),
    Verb("HELO", _TALKING, last_in_group=True, after_helo=True),
    Verb("MAIL", frozenset({READY}), after_helo=True, carries_mail=True),
    Verb("RCPT", frozenset({MAIL, RCPT}), after_helo=True, carries_mail=True),
    Verb("DATA", frozenset({RCPT}), last_in_group=True, after_helo=True, carries_mail=True),
    Verb("RSET", _TALKING, after_helo=True),
    Verb("NOOP", _TALKING, before_tls=True, last_in_group=True, after_helo=True),
    Verb("VRFY", _TALKING, last_in_group=True, after_helo=True),
    Verb("HELP", _TALKING, after_helo=True),
    Verb("QUIT", _TALKING | {REFUSED}, before_tls=True, last_in_group=True, after_helo=True),
)

#: LMTP has LHLO in the place of both (RFC 2033 section 4.1).
LMTP_VERBS = (
    Verb("LHLO", _TALKING, before_tls=True, last_in_group=True, after_helo=True),
    *(verb for verb in VERBS if verb.name not in ("EHLO", "HELO")),
)

#: Verbs that a server may know and not serve: 502 (RFC 5321 section 4.2.4). An extension that is there takes its own.
NOT_IMPLEMENTED = frozenset({"EXPN", "SEND", "SOML", "SAML", "TURN", "ETRN", "ATRN", "STARTTLS", "AUTH", "BDAT"})

_SEQUENCE = (5, 5, 1)

#: Why a known verb is not allowed now: the phase says it, whatever the verb.
OUT_OF_PHASE = {
    GREETED: Reply(503, "Send EHLO or HELO first", _SEQUENCE),
    READY: Reply(503, "Send MAIL first", _SEQUENCE),
    MAIL: Reply(503, "Not now: there is a sender and no recipient yet", _SEQUENCE),
    RCPT: Reply(503, "Not now: a transaction is under way", _SEQUENCE),
    CHUNKING: Reply(503, "Not now: a message is being sent in chunks", _SEQUENCE),
    REFUSED: Reply(503, "This connection was refused; only QUIT is served", _SEQUENCE),
}
LMTP_OUT_OF_PHASE = {**OUT_OF_PHASE, GREETED: Reply(503, "Send LHLO first", _SEQUENCE)}
EXTENDED_ONLY = Reply(503, "Not available after HELO, send EHLO", _SEQUENCE)
TLS_FIRST = Reply(530, "Must issue a STARTTLS command first", (5, 7, 0))
UNKNOWN_VERB = Reply(500, "Command not recognized", _SEQUENCE)
UNIMPLEMENTED_VERB = Reply(502, "Command not implemented", _SEQUENCE)
EVERY_RECIPIENT_REFUSED = Reply(554, "No valid recipients", _SEQUENCE)
