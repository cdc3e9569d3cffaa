"""
A plan in words, for the log: where it listens, where mail goes, and a line to try it with.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence

from smtpfw.config.checks import describe_check
from smtpfw.config.plan import Delivery, ListenPlan, ServicePlan
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.tree import LISTENER
from smtpfw.wire.config import LMTP

__all__ = ["describe_running"]

#: What a client on this machine connects to when we listen on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def describe_running(plan: ServicePlan, sockets: Sequence[Sequence[BoundSocket]]) -> list[str]:
    """
    What runs: each listener, who may send there, where mail goes.

    :param sockets: those of each listener of the plan.
    """
    lines = []
    for listen, bound in zip(plan.listen, sockets, strict=True):
        own = [*_listening(listen, bound), *_auth(listen), *_checks(listen)]
        if listen.name != LISTENER:
            own = [f"{listen.name}: {line}" for line in own]
        lines += own
        if listen.backend not in [delivery.backend for delivery in plan.deliveries]:
            lines += [f"{listen.name}: {line}" for line in _say_of(listen.backend)]
    for delivery in plan.deliveries:
        own = _delivery(delivery)
        lines += own if delivery.name == LISTENER else [f"{delivery.name}: {line}" for line in own]
    if len(plan.listen) == 1 and plan.listen[0].name == LISTENER:
        lines += _trial(plan.listen[0], sockets[0])
    return lines


def _listening(plan: ListenPlan, sockets: Sequence[BoundSocket]) -> list[str]:
    words = "Listening for LMTP on" if plan.config.protocol == LMTP else "Listening on"
    return [f"{words} {_address(bound)}, {_manner(plan, bound)}" for bound in sockets]


def _say_of(backend: object) -> list[str]:
    describe = getattr(backend, "describe", None)
    return [str(line) for line in describe()] if describe is not None else []


def _delivery(delivery: Delivery) -> list[str]:
    """Where mail goes and how durable it is there, in the backend's words; one that says nothing is named."""
    return _say_of(delivery.backend) or [f"Mail goes to {delivery.text}"]


def _checks(plan: ListenPlan) -> list[str]:
    return [f"Checked first: {describe_check(check)}" for check in plan.checks]


def _auth(plan: ListenPlan) -> list[str]:
    auth = plan.auth
    return [] if auth is None else [f"AUTH is {'required' if auth.required else 'offered'}: {auth.describe()}"]


def _trial(plan: ListenPlan, sockets: Sequence[BoundSocket]) -> list[str]:
    """One line that sends a message to the first listener; none when there is nothing to send to."""
    if not sockets or (plan.auth is not None and plan.auth.required):
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


def _manner(plan: ListenPlan, bound: BoundSocket) -> str:
    if bound.implicit_tls:
        return "TLS from the first octet"
    if plan.tls is None:
        return "without TLS"
    return "STARTTLS required" if plan.config.require_tls else "STARTTLS offered"
