"""
LIMITS (RFC 9422): the server says beforehand how much it takes, so that a client need not find out by refusals.

Rule 1: a limit holds whether or not the client was told of it.

Rule 2: who counts as RFC 9422 section 4 says is never refused. It counts every
command, the refused ones, too; the server counts what it has accepted, and
domains that were not refused here.

RCPTMAX is ``max_recipients`` of the listener, and is kept where RCPT is
served; the other two are kept here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpfw.errors import ConfigError, SMTPError, TooManyForPeer, TooManyRecipients
from smtpfw.wire.dialect import Extension

if TYPE_CHECKING:
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.parameters import Options
    from smtpfw.wire.server import ServerConnection
    from smtpfw.wire.transaction import Recipient

__all__ = ["MAX_LIMIT", "Limits", "StatedLimits", "format_limits", "parse_limits"]

#: RFC 9422 section 4: a limit has six digits at most.
MAX_LIMIT = 999_999

_LIMIT = re.compile(r"[1-9][0-9]{0,5}")


class StatedLimits(NamedTuple):
    """
    What a server says of its limits; 0 for one that it does not state.

    :ivar max_transactions: MAILMAX, MAILs of one connection.
    :ivar max_recipients: RCPTMAX, RCPTs of one transaction.
    :ivar max_recipient_domains: RCPTDOMAINMAX, different domains in the RCPTs of one connection.
    """

    max_transactions: int = 0
    max_recipients: int = 0
    max_recipient_domains: int = 0


# In the order of the fields above.
_NAMES = ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")


def parse_limits(text: str) -> StatedLimits:
    """
    Read what stands behind LIMITS in the answer to EHLO.

    What is unknown or malformed is left out (RFC 9422 section 3.7); of a limit that is named twice the lower value
    counts.
    """
    found: dict[str, int] = {}
    for word in text.split(" "):
        name, _, value = word.partition("=")
        if _LIMIT.fullmatch(value):
            limit = int(value)
            found[name.upper()] = min(limit, found.get(name.upper(), limit))
    return StatedLimits(*(found.get(name, 0) for name in _NAMES))


def format_limits(limits: StatedLimits) -> str:
    """
    The twin of :func:`parse_limits`; empty when there is nothing to state.

    :raises ValueError: for a limit below 0, or of more than six digits.
    """
    if not all(0 <= limit <= MAX_LIMIT for limit in limits):
        raise ValueError(f"a limit is 0 to {MAX_LIMIT}")
    return " ".join(f"{name}={limit}" for name, limit in zip(_NAMES, limits, strict=True) if limit)


class Limits(Extension):
    """
    :param max_transactions: MAILs that are accepted on one connection; 0 for no limit.
    :param max_recipient_domains: different domains in the RCPTs of one connection; 0 for no limit.
    :raises ConfigError: for a limit below 0, or of more than six digits.
    """

    keyword = "LIMITS"

    def __init__(self, *, max_transactions: int = 0, max_recipient_domains: int = 0) -> None:
        self._limits = StatedLimits(max_transactions, 0, max_recipient_domains)
        try:
            format_limits(self._limits)
        except ValueError as error:
            raise ConfigError(f"extension LIMITS: {error}") from None

    def advertise(self, connection: ServerConnection) -> str | None:
        # A listener that takes more than can be said says the most that can: nobody is refused who keeps to that.
        max_recipients = min(connection.config.max_recipients, MAX_LIMIT)
        # RFC 9422 section 3: the keyword does not stand alone.
        return format_limits(self._limits._replace(max_recipients=max_recipients)) or None

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        if 0 < self._limits.max_transactions <= connection.transactions:
            # 421 closes, so that the client goes on in a new connection; any other reply would let it try the rest of
            # its messages here, one after the other. Exim answers so, too.
            raise SMTPError(421, (4, 7, 0), "Too many messages on this connection")

    def check_rcpt(self, connection: ServerConnection, recipient: Address, options: Options) -> None:
        if not self._limits.max_recipient_domains:
            return
        domain = recipient.domain.lower()
        if not domain:
            # A bare postmaster has none, and must be taken (RFC 5321 section 4.5.1).
            return
        domains = connection.context.setdefault(self, set())
        if domain not in domains:
            if len(domains) >= self._limits.max_recipient_domains:
                raise TooManyRecipients("Too many domains of recipients on this connection")
            domains.add(domain)

    def understand(self, argument: str) -> StatedLimits:
        """What the server says."""
        return parse_limits(argument)

    def refuse_recipient(self, index: int, recipient: Recipient, fact: Any) -> SMTPError | None:
        if fact is None or not 0 < fact.max_recipients <= index:
            return None
        return TooManyForPeer(f"The next server takes {fact.max_recipients} recipients of a message")
