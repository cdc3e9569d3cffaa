"""
A plan in words, for the log: where it listens, where mail goes, and a line to try it with.
"""

from __future__ import annotations

import shlex
import socket

from smtpfw.config.checks import describe_check
from smtpfw.config.plan import ServicePlan
from smtpfw.config.sockets import BoundSocket
from smtpfw.extensions import Auth
from smtpfw.wire.config import LMTP

__all__ = ["describe_auth", "describe_backend", "describe_checks", "describe_listening", "describe_trial"]

#: What a client on this machine connects to when we listen on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def describe_listening(plan: ServicePlan, sockets: list[BoundSocket]) -> list[str]:
    """One line for each listener, with its real port number and what is said of TLS."""
    words = "Listening for LMTP on" if plan.config.protocol == LMTP else "Listening on"
    return [f"{words} {_address(bound)}, {_manner(plan, bound)}" for bound in sockets]


def describe_backend(plan: ServicePlan) -> list[str]:
    """Where mail goes and how durable it is there, in the backend's words; one that says nothing is named."""
    describe = getattr(plan.backend, "describe", None)
    if describe is not None:
        return [str(line) for line in describe()]
    return [f"Mail goes to {plan.backend_text}"]


def describe_checks(plan: ServicePlan) -> list[str]:
    """One line for each check, in the order in which they are asked."""
    return [f"Checked first: {describe_check(check)}" for check in plan.checks]


def describe_auth(plan: ServicePlan) -> list[str]:
    """One line that tells whether clients may or must authenticate; none where they can't."""
    return [f"AUTH is {'required' if auth.required else 'offered'}: {auth.describe()}" for auth in _auths(plan)]


def _auths(plan: ServicePlan) -> list[Auth]:
    return [extension for extension in plan.extensions if isinstance(extension, Auth)]


def describe_trial(plan: ServicePlan, sockets: list[BoundSocket]) -> list[str]:
    """One line that sends a message to the first listener; none when there is nothing to send to."""
    if not sockets or any(auth.required for auth in _auths(plan)):
        # Nobody but who has a password could send.
        return []
    first = sockets[0]
    if plan.config.protocol == LMTP:
        where = "--socket" if first.family == socket.AF_UNIX else "--server"
        return [
            f"Try it: swaks --protocol LMTP {where} {shlex.quote(_address(first))} "
            "--from me@example.org --to you@example.org"
        ]
    if first.family == socket.AF_UNIX:
        return [f"Try it: swaks --socket {shlex.quote(str(first.address))} --from me@example.org --to you@example.org"]
    scheme = "smtps" if first.implicit_tls else "smtp"
    # A certificate for 127.0.0.1 is rare, hence -k; TLS is asked for where nothing else would be accepted.
    flags = " -k" if first.implicit_tls else " -k --ssl-reqd" if plan.config.require_tls else ""
    host, port = first.address[:2]
    where = f"{scheme}://{_join(_LOOPBACK.get(host, host), port)}"
    return [
        r"Try it: printf 'Subject: hello\r\n\r\nIt works.\r\n' | "
        f"curl -sS{flags} {where} --mail-from me@example.org --mail-rcpt you@example.org -T -"
    ]


def _address(bound: BoundSocket) -> str:
    if bound.family == socket.AF_UNIX:
        return str(bound.address)
    return _join(*bound.address[:2])


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _manner(plan: ServicePlan, bound: BoundSocket) -> str:
    if bound.implicit_tls:
        return "TLS from the first octet"
    if plan.tls is None:
        return "without TLS"
    return "STARTTLS required" if plan.config.require_tls else "STARTTLS offered"
