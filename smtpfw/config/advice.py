"""
What works, and is most likely not meant: warnings about listeners, before they serve.

Rule 1: what can't work, or must not, as an open relay, is an error of the plan.
Here is only what an operator could want, and seldom does; so no warning stops
anybody.

Rule 2: what can be reached from this machine alone is nobody's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from smtpfw.backends.discard import DiscardBackend
from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.maildir.failures import StorageError
from smtpfw.backends.memory import MemoryBackend
from smtpfw.backends.mux import MuxBackend, RouteList
from smtpfw.backends.mux.routing import passes_on
from smtpfw.config.plan import Delivery, ListenPlan
from smtpfw.config.settings import nearest
from smtpfw.errors import SMTPError
from smtpfw.extensions import STANDARD
from smtpfw.networks import PRIVATE, Networks
from smtpfw.policies import AllowedNetworks, RequireAuth
from smtpfw.wire.config import SMTP
from smtpfw.wire.grammar import Address

__all__ = ["warnings_of"]

#: Where mail comes in from other servers, and where people submit it: RFC 5321 section 4.5.4.2, RFC 6409 section 3.1,
#: RFC 8314 section 7.3.
_SMTP, _SUBMISSION, _SUBMISSIONS = 25, 587, 465

Network = IPv4Network | IPv6Network


def warnings_of(plan: ListenPlan, deliveries: Sequence[Delivery]) -> list[str]:
    """Sentences about a listener, the weightiest first."""
    return [sentence for rule in _RULES for sentence in rule(plan, deliveries)]


def _insecure_auth(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    if plan.auth is not None and plan.auth.allow_insecure and _is_public(plan):
        yield "AUTH is offered without TLS, too: whoever listens learns passwords"


def _well_known_ports(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    for listener in plan.listeners:
        if not listener.is_public:
            continue
        port, implicit = listener.port, listener.implicit_tls
        if port == _SUBMISSION and plan.tls is None:
            yield "port 587 without TLS: mail, and passwords if there are any, travel in clear"
        elif port == _SUBMISSIONS and not implicit:
            yield "port 465 without smtps: before it: clients begin TLS there at once (RFC 8314), and would wait for it"
        elif port in (_SMTP, _SUBMISSION) and implicit:
            yield f"port {port} with smtps: before it: clients wait for a greeting there, and only then ask for TLS"
        if port == _SMTP and plan.config.protocol == SMTP and not _strangers(plan):
            yield "port 25 requires AUTH: other servers, which have no password, can't deliver any mail"


def _own_name(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    name = plan.config.hostname
    if "." not in name and ":" not in name and _is_public(plan):
        yield f"hostname {name!r} has no dot: nobody can look it up, and the greeting wants the full one (RFC 5321)"


def _trusted_networks(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    for network in _of_the_internet(_trusted(plan.backend)):
        yield f"trusted has {network}, which is of the Internet: is each of its addresses yours?"


def _believed_networks(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    for name, networks in (("proxy", plan.proxy), ("xclient", plan.xclient)):
        for network in _of_the_internet(networks or ()):
            yield f"{name} has {network}, which is of the Internet: is each of its addresses a proxy of yours?"


def _promises(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    known = sorted({one.keyword for one in (*STANDARD, *plan.extensions) if one.end_to_end})
    for delivery in deliveries:
        if any(delivery.backend is target for target in _targets(plan.backend)):
            for name in sorted(set(delivery.backend.honours).difference(known)):
                yield f"{delivery.name} honours {name!r}, which is no extension that is promised{nearest(name, known)}"


def _postmaster(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    if plan.config.protocol != SMTP or not (_is_public(plan) and _strangers(plan)):
        return
    try:
        missing = _missing_folder(plan.backend, Address("postmaster", ""), plan.config.hostname)
    except SMTPError as error:
        missing = str(error)
    except StorageError:
        # The delivery tries it, too, and says so.
        return
    if missing:
        # RFC 5321 section 4.5.1
        yield f"mail for <postmaster>, which every server has to take, is refused: {missing}"


def _forgetful(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    if not _is_public(plan):
        return
    reached = {id(backend) for backend in _targets(plan.backend)}
    for delivery in deliveries:
        if id(delivery.backend) not in reached:
            continue
        if isinstance(delivery.backend, DiscardBackend):
            yield f"{delivery.name} throws away what it accepts, and other machines can send there"
        elif isinstance(delivery.backend, MemoryBackend):
            yield f"{delivery.name} forgets its mail when the process ends, and other machines can send there"


def _sizes(plan: ListenPlan, deliveries: Sequence[Delivery]) -> Iterator[str]:
    if not plan.config.max_message_bytes and _is_public(plan):
        yield "max_message_bytes is 0: one message may fill the disk"


_Rule = Callable[[ListenPlan, Sequence[Delivery]], Iterable[str]]
_RULES: tuple[_Rule, ...] = (
    _insecure_auth,
    _well_known_ports,
    _trusted_networks,
    _believed_networks,
    _promises,
    _postmaster,
    _forgetful,
    _own_name,
    _sizes,
)


class _Stranger:
    """A client that nobody knows, from nowhere in particular, as far as routes ask."""

    identity = mechanism = peer_host = ""
    peer = None


_STRANGER: Any = _Stranger()


def _is_public(plan: ListenPlan) -> bool:
    return any(listener.is_public for listener in plan.listeners)


def _strangers(plan: ListenPlan) -> bool:
    """Whether clients that have not authenticated may send, wherever they come from."""
    closed = any(
        isinstance(check, RequireAuth) or (isinstance(check, AllowedNetworks) and not check.networks.everybody)
        for check in plan.checks
    )
    return not closed and not (plan.auth is not None and plan.auth.required)


def _missing_folder(backend: Any, recipient: Address, hostname: str) -> str:
    """Why a recipient has no mailbox, if mail for it goes into a Maildir; empty if there is one."""
    if isinstance(backend, MuxBackend):
        routes = backend.routes
        backend, recipient = routes.find(recipient, hostname, _STRANGER), routes.full_address(recipient, hostname)
    if not isinstance(backend, MaildirBackend) or backend.create:
        return ""
    mailboxes = backend.template.mailboxes(recipient.local_part, recipient.domain or hostname)
    return "" if backend.existing(mailboxes) is not None else f"there is no folder {mailboxes[0].path}"


def _targets(backend: Any) -> list[Any]:
    return list(backend.routes.backends) if isinstance(backend, MuxBackend) else [backend]


def _trusted(backend: Any) -> list[Network]:
    """The networks whose clients may do more than others."""
    if not isinstance(backend, MuxBackend):
        trusted = getattr(backend, "trusted", None)
        return list(trusted) if passes_on(backend) and isinstance(trusted, Networks) else []
    routes = backend.routes
    if not isinstance(routes, RouteList):
        return []
    guarded = any(route.is_guarded(pattern) for route in routes.routes for pattern in route.patterns)
    return list(routes.trusted) if guarded else []


def _of_the_internet(networks: Iterable[Network]) -> Iterator[Network]:
    for network in networks:
        if network.num_addresses > 1 and not any(_is_within(network, private) for private in PRIVATE):
            yield network


def _is_within(network: Network, other: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)
