"""
Which parameters of MAIL and RCPT travel on to the next hop, and what of those that it does not know.

==========  =======================================================================================
SIZE        as a hint, with room for our Received field; nothing where it is not offered
BODY        as it is; without 8BITMIME there the octets are looked at (RFC 6152 section 3), and
            BINARYMIME is refused, since nobody here rewrites a message
SMTPUTF8    as it is; where it is not offered a message that does not need it loses it (RFC 6531
            section 3.2 calls for it only where something is not ASCII): addresses are judged
            at once, the header when it comes
REQUIRETLS  always, or the message does not go (RFC 8689 section 4.2.1)
RET, ENVID  where DSN is offered; they are of no use elsewhere
NOTIFY      where DSN is offered; SUCCESS and NEVER are promises that can't be kept elsewhere
ORCPT       where DSN is offered
==========  =======================================================================================

Nothing else travels: AUTH names an identity that the next hop has no reason to
trust us with (RFC 4954 section 5 allows to leave it out), and what a third party
has added is its backend's to pass on.
"""

from __future__ import annotations

from typing import Any, Protocol

from smtpfw.errors import ExtensionMissing
from smtpfw.extensions.dsn import ENVID, NOTIFY, ORCPT, RET
from smtpfw.extensions.eightbitmime import BODY
from smtpfw.extensions.requiretls import REQUIRETLS
from smtpfw.extensions.size import SIZE
from smtpfw.wire.parameters import NO_OPTIONS, Options, Parameter

__all__ = ["TRACE_OCTETS", "for_mail", "for_rcpt"]

#: What a Received field adds to the size of a message, mostly.
TRACE_OCTETS = 256

_BINARY = "BINARYMIME"
_UTF8 = "SMTPUTF8"
_DSN = "DSN"

#: Events whose promise needs DSN at the next hop: that of success is to be sent by whoever leaves the world of DSN,
#: and NEVER can't be said without it (RFC 3461 section 5.2.2).
_NEEDS_DSN = frozenset({"SUCCESS", "NEVER"})


class NextHop(Protocol):
    """The part of a client that is asked here."""

    def extension(self, keyword: str) -> str | None: ...


def for_mail(options: Options, hop: NextHop) -> Options:
    """
    The parameters of MAIL there.

    :raises ExtensionMissing: for a binary message to a next hop that has no BDAT.
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
    return Options(values)


def for_rcpt(options: Options, hop: NextHop) -> Options:
    """
    The parameters of RCPT there.

    :raises ExtensionMissing: for a notification that nobody would send, or that could not be prevented.
    """
    if not options:
        return NO_OPTIONS
    if hop.extension(_DSN) is None:
        if options[NOTIFY] & _NEEDS_DSN:
            raise ExtensionMissing(_DSN, "NOTIFY was asked for")
        return NO_OPTIONS
    return Options(_given(options, NOTIFY, ORCPT))


def _given(options: Options, *parameters: Parameter[Any]) -> dict[str, Any]:
    return {parameter.keyword: options[parameter] for parameter in parameters if parameter in options}
