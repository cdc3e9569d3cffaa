"""
RRVS (RFC 7293): the recipient's address must belong to the same person as at a point in time, or nobody gets the
message.

The parameter is for the session, and for a next hop. Who honours this extension
knows since when a mailbox has had its owner, and refuses with one of
:class:`~smtpfw.errors.MailboxOwnerChanged`,
:class:`~smtpfw.errors.DomainOwnerChanged` and
:class:`~smtpfw.errors.OwnerUnknown`; or it hands the parameter on.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from smtpfw.errors import ExtensionMissing
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter
from smtpfw.wire.times import format_date_time, parse_date_time

__all__ = ["CONTINUE", "REJECT", "RRVS", "RecipientValidSince", "ValidSince"]

#: What shall be done where nobody can tell (RFC 7293 section 3.1): deliver all the same, or refuse.
CONTINUE = "C"
REJECT = "R"

#: RFC 7293 section 3.1: a date-time of RFC 3339, without a fraction of a second.
_VALUE = re.compile(r"([^;.]*+)(?:;([CRcr]))?")


class ValidSince(NamedTuple):
    """
    Since when the recipient must have had the address.

    :ivar when: with its zone; in UTC when it was read. Whole seconds: a fraction is cut off when it is written.
    :ivar action: ``C`` or ``R`` as it was given; empty if none was, which means ``R``.
    """

    when: datetime
    action: str = ""


def _parse(text: str | None) -> ValidSince:
    match = _VALUE.fullmatch(text or "")
    if match is None:
        raise ValueError("must be a date and a time of whole seconds, and ;C or ;R behind it or nothing")
    return ValidSince(parse_date_time(match[1]), (match[2] or "").upper())


def _format(value: ValidSince | None) -> str:
    if value is None:
        raise ValueError("needs a value")
    value = value._replace(when=value.when.replace(microsecond=0))
    text = format_date_time(value.when) + (f";{value.action}" if value.action else "")
    if _parse(text) != value:
        raise ValueError("an action that is neither C nor R")
    return text


#: A :class:`ValidSince`; None when not given.
RRVS: Parameter[ValidSince | None] = Parameter("RRVS", parse=_parse, format=_format, default=None)


class RecipientValidSince(Extension):
    keyword = "RRVS"
    rcpt_parameters = (RRVS,)
    extra_line_octets = 33  # RFC 7293 section 3.1
    end_to_end = True

    def missing(self, why: str) -> ExtensionMissing:
        # RFC 7293 section 15.3, X.7.19: it leaves it to the sender to send the message again without this protection.
        # Nobody has looked, and this says so; 5.7.17 and 5.7.18 would say that somebody has.
        return ExtensionMissing(self.keyword, why, code=550, enhanced_code=(5, 7, 19))
