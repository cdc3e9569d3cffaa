"""
A plan in words: for the log, and for who asks before it runs.

Rule: each thing is said once. A route names the delivery that it leads to, and
what that does with mail is said by itself.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence

from smtpfw.backends.mux import DISCARD, MuxBackend, RouteList
from smtpfw.config.backends import BACKENDS
from smtpfw.config.checks import describe_check
from smtpfw.config.plan import Delivery, ListenPlan, ServicePlan
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.tree import LISTENER
from smtpfw.wire.config import LMTP

__all__ = ["describe_clients", "describe_delivery", "describe_routes", "describe_running", "describe_tls"]

#: What a client on this machine connects to when we listen on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def describe_running(plan: ServicePlan, sockets: Sequence[Sequence[BoundSocket]]) -> list[str]:
    """
    What runs: each listener, who may send there, where mail goes.

    :param sockets: those of each listener of the plan.
    """
    lines = []
    for listen, bound in zip(plan.listen, sockets, strict=True):
        own = [*_listening(listen, bound), *describe_clients(listen), *describe_routes(listen, plan.deliveries)]
        if listen.name != LISTENER:
            own = [f"{listen.name}: {line}" for line in own]
        lines += own
    for delivery in plan.deliveries:
        own = describe_delivery(delivery)
        lines += own if delivery.name == LISTENER else [f"{delivery.name}: {line}" for line in own]
    if len(plan.listen) == 1 and plan.listen[0].name == LISTENER:
        lines += _trial(plan.listen[0], sockets[0])
    return lines


def _listening(plan: ListenPlan, sockets: Sequence[BoundSocket]) -> list[str]:
    words = "Listening for LMTP on" if plan.config.protocol == LMTP else "Listening on"
    return [f"{words} {_address(bound)}, {describe_tls(plan, bound.implicit_tls)}" for bound in sockets]


def describe_delivery(delivery: Delivery) -> list[str]:
    """Where mail goes and how durable it is there, in the backend's words; one that says nothing is named."""
    describe = getattr(delivery.backend, "describe", None)
    lines = [str(line) for line in describe()] if describe is not None else []
    return lines or [f"Mail goes to {BACKENDS.without_arguments(delivery.text)}"]


def describe_clients(plan: ListenPlan) -> list[str]:
    """What clients have to do before they can send."""
    lines = [f"Checked first: {describe_check(check)}" for check in plan.checks]
    auth = plan.auth
    if auth is not None:
        lines.insert(0, f"AUTH is {'required' if auth.required else 'offered'}: {auth.describe()}")
    if plan.proxy is not None:
        lines.append(f"Connections from {plan.proxy} begin with a PROXY header, which says whom they are for")
    if plan.xclient is not None:
        lines.append(f"XCLIENT is believed from {plan.xclient}")
    return lines


def describe_routes(plan: ListenPlan, deliveries: Sequence[Delivery], *, in_full: bool = False) -> list[str]:
    """
    Where mail of a listener goes: for each route the name of a delivery.

    :param in_full: also what holds for every list of routes.
    :return: empty for a listener with one delivery for everybody.
    """
    backend = plan.backend
    if not isinstance(backend, MuxBackend) or not isinstance(backend.routes, RouteList):
        return []
    whither = {id(delivery.backend): f" goes to {delivery.name}" for delivery in deliveries}
    whither |= {id(DISCARD): " is accepted and thrown away", id(None): ""}
    described = backend.routes.describe() if in_full else backend.routes.describe_routes()
    return [f"Mail for {words}{whither.get(id(target), f' goes to {target!r}')}" for words, target in described]


def _trial(plan: ListenPlan, sockets: Sequence[BoundSocket]) -> list[str]:
    """One line that sends a message to the first listener; none when there is nothing to send to."""
    if not sockets or plan.proxy is not None or (plan.auth is not None and plan.auth.required):
        # Nobody could send but a proxy, or who has a password.
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


def describe_tls(plan: ListenPlan, implicit_tls: bool) -> str:
    """How TLS comes about on a socket of a listener."""
    if implicit_tls:
        return "TLS from the first octet"
    if plan.tls is None:
        return "without TLS"
    return "STARTTLS required" if plan.config.require_tls else "STARTTLS offered"
