"""
What the client's sides of all mechanisms have in common: when not to send credentials, and what they may consist of.

Rule: an error says what is wrong, and shows neither name nor secret.
"""

from __future__ import annotations

import ipaddress

from smtpfw.errors import LocalProtocolError, RemoteProtocolError
from smtpfw.sasl.values import ServerInfo

__all__ = ["check_line", "credential", "expect_end"]


def check_line(server_info: ServerInfo, host: str | None, allow_clear: bool) -> None:
    """
    Stop what would cross the line as it is, unless the line is safe and leads to the right host.

    A server that is not who it says it is would have the password afterwards. TLS without a valid certificate is no
    better than none. The local machine is let pass: nobody sits on that line.

    :param host: the only name of a server that may get it; None for any.
    :param allow_clear: whether it may go over a line that others can read or divert.
    :raises LocalProtocolError: if it must not be sent.
    """
    if host is not None and host.lower() != server_info.name.lower():
        raise LocalProtocolError("the credentials are for another host")
    if not (server_info.tls or allow_clear or _is_local(server_info.name)):
        raise LocalProtocolError("credentials are not sent over a line without verified TLS")


def _is_local(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def credential(text: str, what: str, *, empty: bool = False) -> bytes:
    """
    Encode a name or a password.

    :param what: what to call it in an error.
    :param empty: whether it may be empty.
    :raises ValueError: if no server could read it: it is empty, holds NUL, or is no UTF-8.
    """
    try:
        octets = text.encode("utf-8")
    except UnicodeEncodeError:
        octets = b"\0"
    # Raised here, outside of the handler: the other error holds the text.
    if b"\0" in octets or not (octets or empty):
        raise ValueError(f"the {what} is empty, or holds what cannot be sent")
    return octets


def expect_end(more: bool) -> None:
    """
    The client has nothing more to say.

    :raises RemoteProtocolError: if the server asks for more.
    """
    if more:
        raise RemoteProtocolError("the server goes on after the end of the mechanism")
