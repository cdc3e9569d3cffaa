"""
Trace fields: the lines that a server puts in front of a message it takes (RFC 5321 section 4.4).

Rule 1: every function gives whole lines as bytes, CRLF included, and is pure;
:func:`received_line` alone looks at the clock.

Rule 2: nothing that a client said can begin a line, end a comment or forge a
clause. Its words pass through one of the patterns below, and what they do
not know becomes a question mark.

Rule 3: no line of a Received field is over 998 octets (RFC 5322 section 2.1.1):
it is folded between its clauses, and each clause is bounded.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Protocol

from smtpfw.wire.grammar import Address
from smtpfw.wire.transaction import Transaction

__all__ = ["date_time", "delivered_to", "received", "received_line", "return_path"]

#: What may not stand in an address: it would end the line, or show differently from what it is. The grammar lets none
#: of it through; a session that is fed by something else may.
_NOT_IN_ADDRESS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: What may not stand in a word: only what domains, address literals and ids are made of is known, so no parenthesis,
#: no space and no semicolon.
_NOT_IN_WORD = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
#: What may not stand in a comment: a parenthesis or a backslash would end or extend it.
_NOT_IN_COMMENT = re.compile(r"[^A-Za-z0-9.:_ -]")

#: The parameter of MAIL that has a clause of its own (RFC 6710 section 4.1 item 2).
_PRIORITY = "MT-PRIORITY"

#: RFC 5321 section 4.5.3.1.2: a domain has at most 255 octets; what a client calls itself may be as long as a line.
_MAX_WORD = 255
#: Octets of an address that fit into one line with the rest of its clause.
_MAX_ADDRESS = 900


class Arrival(Protocol):
    """What a Received line tells of a connection: a part of :class:`smtpfw.interfaces.IConnection`."""

    @property
    def hello_name(self) -> str: ...
    @property
    def peer_host(self) -> str: ...
    @property
    def hostname(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def tls(self) -> str: ...
    @property
    def transaction(self) -> Transaction | None: ...


def received_line(connection: Arrival, recipient: Address | None = None, *, seconds: float | None = None) -> bytes:
    """
    The Received line for the message under way, folded; a backend puts it in front of what it stores or sends on.

    :param connection: an :class:`~smtpfw.interfaces.IConnection`.
    :param recipient: whom the ``for`` clause names; give it only for a copy that nobody else gets (RFC 5321
        section 7.6). By default it names the message's recipient if there is just one, and is left out otherwise.
    :param seconds: the time of arrival, seconds since the epoch; by default now.
    :raises RuntimeError: if no message is under way.
    """
    transaction = connection.transaction
    if transaction is None:
        raise RuntimeError("no message is under way, so there is nothing that was received")
    if recipient is None and len(transaction.recipients) == 1:
        recipient = transaction.recipients[0].address
    return received(
        hello_name=connection.hello_name,
        peer_host=connection.peer_host,
        hostname=connection.hostname,
        protocol=connection.protocol,
        tls=connection.tls,
        transaction_id=transaction.id,
        recipient="" if recipient is None else str(recipient),
        priority=dict(transaction.options.items()).get(_PRIORITY),
        seconds=time.time() if seconds is None else seconds,
    )


def return_path(sender: str) -> bytes:
    """
    The Return-Path line of a final delivery.

    :param sender: the reverse-path without brackets; an empty text is the null sender.
    """
    return b"Return-Path: <" + _address(sender) + b">\r\n"


def delivered_to(address: str) -> bytes:
    """
    The Delivered-To line: whose mailbox this copy went into. A forwarder knows its own loop by it.

    :param address: the address without brackets.
    """
    return b"Delivered-To: " + _address(address) + b"\r\n"


def received(
    *,
    hello_name: str,
    peer_host: str,
    hostname: str,
    protocol: str,
    tls: str,
    transaction_id: str,
    recipient: str,
    seconds: float,
    priority: int | None = None,
) -> bytes:
    """
    The Received line, folded, of its parts; :func:`received_line` takes them from a connection.

    :param hello_name: what the client called itself.
    :param peer_host: the client's IP address; an empty text for a Unix socket.
    :param hostname: our own name.
    :param protocol: the registered name, ``ESMTPS`` and the like (RFC 3848).
    :param tls: version and cipher; an empty text on a clear line.
    :param transaction_id: the id that our log has for this message.
    :param recipient: the address for the ``for`` clause, without brackets; an empty text leaves it out. Give it only
        when it is the sole one: the clause must not tell one recipient about another (RFC 5321 section 7.6).
    :param seconds: the time of arrival, seconds since the epoch; written in the local zone.
    :param priority: that of the message, by MT-PRIORITY (RFC 6710 section 7); None if it was not given.
    """
    lines = [
        b"Received: from " + _word(hello_name) + _tcp_info(peer_host),
        b"by " + _word(hostname) + b" with " + _word(protocol) + _comment(tls),
        b"id " + _word(transaction_id),
    ]
    address = _address(recipient)
    if address and len(address) <= _MAX_ADDRESS:
        lines.append(b"for <" + address + b">")
    if priority is not None:
        lines.append(b"PRIORITY %d" % priority)
    return b"\r\n\t".join(lines) + b";\r\n\t" + date_time(int(seconds)) + b"\r\n"


def _address(text: str) -> bytes:
    # Beyond ASCII only with SMTPUTF8, and then header fields are UTF-8 as they are (RFC 6532).
    return _NOT_IN_ADDRESS.sub("?", text).encode()


def _word(text: str) -> bytes:
    return _NOT_IN_WORD.sub("?", text[:_MAX_WORD]).encode("ascii") or b"unknown"


def _tcp_info(peer_host: str) -> bytes:
    if not peer_host:
        return b""
    # RFC 5321 section 4.1.3: an IPv6 literal has a tag; the zone of a link-local address is no part of it.
    literal = _word(peer_host.partition("%")[0])
    return b" ([IPv6:" + literal + b"])" if b":" in literal else b" ([" + literal + b"])"


def _comment(text: str) -> bytes:
    return b" (" + _NOT_IN_COMMENT.sub("?", text[:_MAX_WORD]).encode("ascii") + b")" if text else b""


@lru_cache(maxsize=4)
def date_time(seconds: int) -> bytes:
    """
    A point in time as header fields have it (RFC 5322 section 3.3).

    :param seconds: since the epoch; written in the local zone.
    """
    # Many messages arrive within one second, and formatting is half the cost of the field. RFC 5321 section 4.4: the
    # zone is numeric, and that of the local time.
    return formatdate(seconds, localtime=True).encode("ascii")
