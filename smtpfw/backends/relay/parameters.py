"""
Which parameters of MAIL and RCPT travel on to the next hop, and what of those that it does not know.

===========  ======================================================================================
SIZE         as a hint, with room for our Received field; nothing where it is not offered
BODY         as it is; without 8BITMIME there the octets are looked at (RFC 6152 section 3), and
             BINARYMIME is refused, since nobody here rewrites a message
SMTPUTF8     as it is; where it is not offered a message that does not need it loses it (RFC 6531
             section 3.2 calls for it only where something is not ASCII): addresses are judged
             at once, the header when it comes
REQUIRETLS   always, or the message does not go (RFC 8689 section 4.2.1)
RET, ENVID   where DSN is offered; they are of no use elsewhere
NOTIFY       where DSN is offered; SUCCESS and NEVER are promises that can't be kept elsewhere
ORCPT        where DSN is offered
BY           less the time that has passed here, or the message does not go: nobody here sends the
             notice that mode N promises, or takes back what mode R would (RFC 2852 section 4.1.4). The
             trace is asked of the next hop: nothing is kept here that there would be a trace of
MT-PRIORITY  where it is offered; elsewhere what is urgent is served like all else, which breaks no
             promise (RFC 6710 section 4.3)
HOLDFOR      less the time that has passed here, and nothing when it is over; or the message does not
             go: nobody would hold it
HOLDUNTIL    as it is, or the message does not go
RRVS         where it is offered; elsewhere with R, or without an action, this recipient is refused,
             and with C it is dropped. It does not become a header field: nobody here knows whether
             whoever delivers the message would heed it (RFC 7293 section 4)
===========  ======================================================================================

Nothing else travels: AUTH names an identity that the next hop has no reason to
trust us with (RFC 4954 section 5 allows to leave it out), and what a third party
has added is its backend's to pass on.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from smtpfw.errors import DeliveryTimeExpired, ExtensionMissing
from smtpfw.extensions import RecipientValidSince
from smtpfw.extensions.deliverby import BY, RETURN, DeliverByTime
from smtpfw.extensions.dsn import ENVID, NOTIFY, ORCPT, RET
from smtpfw.extensions.eightbitmime import BODY
from smtpfw.extensions.futurerelease import HOLDFOR, HOLDUNTIL, is_held_too_long
from smtpfw.extensions.mt_priority import MT_PRIORITY
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.extensions.rrvs import CONTINUE, RRVS
from smtpfw.extensions.size import SIZE
from smtpfw.wire.parameters import NO_OPTIONS, Options, Parameter
from smtpfw.wire.times import MAX_SECONDS

__all__ = ["TRACE_OCTETS", "for_mail", "for_rcpt"]

#: What a Received field adds to the size of a message, mostly.
TRACE_OCTETS = 256

_BINARY = "BINARYMIME"
_UTF8 = "SMTPUTF8"
_DSN = "DSN"
_DELIVERBY = "DELIVERBY"
_FUTURERELEASE = "FUTURERELEASE"

#: Events whose promise needs DSN at the next hop: that of success is to be sent by whoever leaves the world of DSN,
#: and NEVER can't be said without it (RFC 3461 section 5.2.2).
_NEEDS_DSN = frozenset({"SUCCESS", "NEVER"})


class NextHop(Protocol):
    """The part of a client that is asked here."""

    def extension(self, keyword: str) -> str | None: ...


def for_mail(options: Options, hop: NextHop, passed_seconds: float) -> Options:
    """
    The parameters of MAIL there.

    :param passed_seconds: since MAIL came to us.
    :raises ExtensionMissing: for a binary message to a next hop that has no BDAT; for a time that nobody would keep.
    :raises DeliveryTimeExpired: for a message that is to be returned by now.
    """
    if not options:
        return NO_OPTIONS
    values: dict[str, Any] = {}
    if options.size and hop.extension(SIZE.keyword) is not None:
        values[SIZE.keyword] = options.size + TRACE_OCTETS
    if options.body == _BINARY:
        if hop.extension("CHUNKING") is None:
            raise ExtensionMissing(_BINARY, "the message is binary", enhanced_code=(5, 6, 3))
        values[BODY.keyword] = _BINARY
    elif BODY in options and hop.extension("8BITMIME") is not None:
        values[BODY.keyword] = options.body
    if options.utf8 and hop.extension(_UTF8) is not None:
        values[_UTF8] = True
    if options.require_tls:
        values[REQUIRETLS.keyword] = True
    if hop.extension(_DSN) is not None:
        values.update(_given(options, RET, ENVID))
    if hop.extension(MT_PRIORITY.keyword) is not None:
        values.update(_given(options, MT_PRIORITY))
    values.update(_times(options, hop, passed_seconds))
    return Options(values)


def _times(options: Options, hop: NextHop, passed_seconds: float) -> dict[str, Any]:
    values = _given(options, BY, HOLDFOR, HOLDUNTIL)
    by, hold = options[BY], options[HOLDFOR]
    if by is not None:
        values[BY.keyword] = _what_is_left(by, passed_seconds)
    if hold is not None:
        # What is left of a second is held: nothing is released too early.
        hold -= math.floor(passed_seconds)
        if hold > 0:
            values[HOLDFOR.keyword] = hold
        else:
            del values[HOLDFOR.keyword]
    for parameter, keyword in ((BY, _DELIVERBY), (HOLDFOR, _FUTURERELEASE), (HOLDUNTIL, _FUTURERELEASE)):
        if parameter.keyword in values and hop.extension(keyword) is None:
            raise ExtensionMissing(keyword, f"{parameter.keyword} was asked for")
    if is_held_too_long(values.get(BY.keyword), values.get(HOLDFOR.keyword)):
        # What has passed is rounded up for the one and down for the other.
        raise DeliveryTimeExpired
    return values


def _what_is_left(by: DeliverByTime, passed_seconds: float) -> DeliverByTime:
    """RFC 2852 section 4.1.4: less the time for which it was here; a second that has begun is over."""
    seconds = by.seconds - math.ceil(passed_seconds)
    if by.mode == RETURN and seconds <= 0:
        raise DeliveryTimeExpired
    return by._replace(seconds=max(seconds, -MAX_SECONDS))


def for_rcpt(options: Options, hop: NextHop) -> Options:
    """
    The parameters of RCPT there.

    :raises ExtensionMissing: for a notification that nobody would send, or that could not be prevented; for a mailbox
        of which nobody would know whose it was.
    """
    if not options:
        return NO_OPTIONS
    values: dict[str, Any] = {}
    if hop.extension(_DSN) is not None:
        values.update(_given(options, NOTIFY, ORCPT))
    elif options[NOTIFY] & _NEEDS_DSN:
        raise ExtensionMissing(_DSN, "NOTIFY was asked for")
    valid = options[RRVS]
    if valid is not None:
        if hop.extension(RRVS.keyword) is not None:
            values[RRVS.keyword] = valid
        elif valid.action != CONTINUE:
            raise RecipientValidSince().missing("nobody would know whose mailbox it was")
    return Options(values) if values else NO_OPTIONS


def _given(options: Options, *parameters: Parameter[Any]) -> dict[str, Any]:
    return {parameter.keyword: options[parameter] for parameter in parameters if parameter in options}
