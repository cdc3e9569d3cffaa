"""
Logging in: which mechanism is used, of those that the server offers and we have.

Rule 1: the client's order decides, not the server's: who offers could be
somebody who sits on the line and wants the password. For a name and a password
it is this one:

=========  =============================================================================
SCRAM      both sides prove that they know the password, and it does not cross the line;
           which of its forms is its own choice, -PLUS before the others
CRAM-MD5   the password does not cross the line, but who listens can guess at leisure
PLAIN      it crosses the line as it is; only over verified TLS, or to this machine
LOGIN      likewise, with two questions more, and no RFC
=========  =============================================================================

Rule 2: a mechanism that the line is not safe enough for is passed over, as one
that is not offered is. Only if none is left, an error tells it.

Rule 3: a password or a name that SASLprep prohibits (RFC 4013), or that is
empty after it, is none for SCRAM, whose keys are made of the prepared one. The
other mechanisms are not hindered by that: they send octets, and the server
prepares them if it wants to (RFC 4616 section 2). So SCRAM alone is left out,
and tells why if nothing else can be used. What is empty or holds NUL from the
start is refused for all.

Rule 4: no name and no secret stands in an error or a ``repr``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from smtpfw.errors import LocalProtocolError
from smtpfw.sasl import (
    SCRAM,
    Anonymous,
    CramMD5,
    External,
    ISASLClient,
    Login,
    OAuthBearer,
    Plain,
    ServerInfo,
    XOAuth2,
)

__all__ = ["choose", "clients_of"]


@implementer(ISASLClient)
class _UnusableSCRAM:
    """Stands where SCRAM would, and tells why it can't be used."""

    __slots__ = ("_reason",)

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        raise LocalProtocolError(self._reason)

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        raise LocalProtocolError(self._reason)


#: What the clients of ours are called. SCRAM has many names, all with this beginning.
_NAMES: tuple[tuple[type, str], ...] = (
    (SCRAM, "SCRAM-"),
    (_UnusableSCRAM, "SCRAM-"),
    (External, "EXTERNAL"),
    (OAuthBearer, "OAUTHBEARER"),
    (XOAuth2, "XOAUTH2"),
    (CramMD5, "CRAM-MD5"),
    (Plain, "PLAIN"),
    (Login, "LOGIN"),
    (Anonymous, "ANONYMOUS"),
)

#: RFC 4422 section 3.1, in any case. The server writes what it likes, and it is shown.
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")


def clients_of(auth: Any) -> tuple[ISASLClient, ...]:
    """
    What can be tried to log in, the best first.

    :param auth: a pair of texts, user name and password; an ``ISASLClient``; or a sequence of them, the best first.
    :return: at least one.
    :raises TypeError: if it is something else.
    :raises ValueError: if the sequence is empty, or the name or the password is empty or holds NUL.
    """
    if ISASLClient.providedBy(auth):
        return (auth,)
    # A text of two letters is a sequence of two texts, but no user name with a password.
    found = tuple(auth) if isinstance(auth, Sequence) and not isinstance(auth, (str, bytes, bytearray)) else None
    if found is not None and all(map(ISASLClient.providedBy, found)):
        if not found:
            raise ValueError("auth: the sequence is empty; give None in order not to log in")
        return found
    if found is None or len(found) != 2 or not all(isinstance(part, str) for part in found):
        # The classes alone: the values may be secrets.
        given = type(auth).__name__ if found is None else f"({', '.join(type(part).__name__ for part in found[:8])})"
        raise TypeError(
            f"auth: (username, password) as two str, an ISASLClient as Plain(...), or a sequence of them; not {given}"
        )
    username, password = found
    return (
        _scram(username, password),
        CramMD5(username, password),
        Plain(username, password),
        Login(username, password),
    )


def _scram(username: str, password: str) -> ISASLClient:
    try:
        return SCRAM(username, password)
    except ValueError as error:
        reason = f"SASLprep does not take the user name or the password: {error}"
    # Made outside of the handler, so that no traceback with the password in its frames hangs on it.
    return _UnusableSCRAM(reason)


def choose(clients: Sequence[ISASLClient], server_info: ServerInfo) -> tuple[ISASLClient, str, bytes | None]:
    """
    Take the first that the server offers and that may be used on this line, and begin.

    :param clients: the best first, as :func:`clients_of` gives them.
    :param server_info: the offer, and what is known of the line. For a Unix socket its name is ``localhost``: nobody
        sits on that line, and no name is known for it.
    :return: the client, the name of its mechanism, and the initial response: None if there is none, ``b""`` if it is
        empty.
    :raises LocalProtocolError: if none can be used. It tells what is offered, what we have, and what stands in the way.
    """
    offered = list(dict.fromkeys(name.upper() for name in server_info.mechanisms if _MECHANISM.fullmatch(name)))
    ours = []
    for client in clients:
        name = _name_of(client)
        if name and not any(one == name or (name.endswith("-") and one.startswith(name)) for one in offered):
            ours.append(name.rstrip("-"))
            continue
        try:
            mechanism, response = client.start(server_info)
        except LocalProtocolError as error:
            ours.append(f"{name.rstrip('-') or type(client).__name__} ({error})")
            continue
        if mechanism.upper() in offered:
            return client, mechanism, response
        ours.append(mechanism)
    raise LocalProtocolError(
        f"no way to log in: the server offers {', '.join(offered) or 'no mechanism'}; we have {', '.join(ours)}"
    )


def _name_of(client: ISASLClient) -> str:
    """The name of its mechanism, or an empty text for a client that others made: it has to be started to tell."""
    return next((name for kind, name in _NAMES if isinstance(client, kind)), "")
