"""
A plan, looked at before it runs: what it does, in words, what is wrong with it, and what is most likely not meant.

Rule 1: nothing is served, and nothing stays behind: sockets are bound and closed
again, backends try and clean up.

Rule 2: what another moment, or another user, could mend is a warning; a port in
use is, for it may be this very service that has it. What would end the service
at its start, or lose mail, is a mistake.

Rule 3: no secret is shown: what may hold one is named by its kind only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory

from smtpfw.backends.trials import PATIENCE, in_parallel
from smtpfw.config.advice import warnings_of
from smtpfw.config.describing import describe_clients, describe_delivery, describe_routes, describe_tls
from smtpfw.config.descriptors import allow_connections
from smtpfw.config.listeners import CannotListen, Listener, Seat, bind_all
from smtpfw.config.plan import Delivery, ListenPlan, ServicePlan
from smtpfw.config.protocol_log import try_protocol_log
from smtpfw.config.tree import LISTENER
from smtpfw.config.units import format_size
from smtpfw.errors import ConfigError
from smtpfw.server import SMTPServerFactory
from smtpfw.wire.config import LMTP
from smtpfw.wire.transcript import printable

__all__ = ["Report", "Section", "check_deliveries", "check_listeners", "check_process", "check_protocol_log"]


@dataclass(slots=True)
class Section:
    """
    One part of a plan.

    :ivar lines: what it does.
    :ivar mistakes: what is wrong with it.
    :ivar warnings: what may not be meant.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attend(self, error: ConfigError) -> None:
        """Note what was raised: a line for each mistake."""
        self.mistakes += str(error).split("\n")

    def write(self) -> Iterator[str]:
        """Its lines, as they are shown."""
        yield self.title
        for prefix, lines in (("", self.lines), ("Mistake: ", self.mistakes), ("Warning: ", self.warnings)):
            yield from (f"  {prefix}{line}" for line in lines)


class Report:
    """
    What came of it.

    :ivar sections: by what they are about.
    """

    def __init__(self) -> None:
        self.sections: list[Section] = []

    def begin(self, title: str) -> Section:
        """Another part."""
        self.sections.append(Section(title))
        return self.sections[-1]

    @property
    def status(self) -> int:
        """0 if it can run, 1 if not."""
        return int(any(section.mistakes for section in self.sections))

    def lines(self) -> list[str]:
        """All of it, and a line that counts."""
        mistakes = sum(len(section.mistakes) for section in self.sections)
        warnings = sum(len(section.warnings) for section in self.sections)
        text = [line for section in self.sections if _says(section) for line in (*section.write(), "")]
        return [*text, f"{_count(mistakes, 'mistake')}, {_count(warnings, 'warning')}"]


def check_listeners(plan: ServicePlan, report: Report, reactor: Any) -> None:
    """
    Look at the listeners, what they greet with and whom they let send, and at their certificates.

    :param report: gets a section for each.
    :param reactor: need not run, and is not made to.
    """
    bound: list[Seat] = []
    try:
        for listen in plan.listen:
            section = report.begin(_title("Listener", listen.name))
            _check_listener(section, plan, listen, reactor)
            for listener in listen.listeners:
                _try_to_bind(section, listen, listener, reactor, bound)
    finally:
        for socket, _ in bound:
            socket.discard()
    for store in plan.stores:
        section = report.begin(f"Certificates {store.path}")
        section.lines += store.describe()
        section.warnings += store.warnings()


def check_deliveries(plan: ServicePlan, report: Report, seconds: float = PATIENCE) -> None:
    """
    Let the deliveries try what mail will need, all at the same time. The process should be who will serve.

    :param report: gets a section for each.
    :param seconds: for all of them; who needs longer is warned of.
    """
    checks = [getattr(delivery.backend, "check", list) for delivery in plan.deliveries]
    for delivery, outcome in zip(plan.deliveries, in_parallel(checks, seconds), strict=True):
        section = report.begin(_title("Delivery", delivery.name))
        section.lines += describe_delivery(delivery)
        if isinstance(outcome, ConfigError):
            section.attend(outcome)
        elif isinstance(outcome, TimeoutError):
            section.warnings.append(f"it has not said within {seconds:g} seconds whether it is in order")
        elif isinstance(outcome, Exception):
            section.mistakes.append(
                f"its check() has failed: {type(outcome).__name__}: {' '.join(str(outcome).split())}"
            )
        else:
            section.warnings += [str(sentence) for sentence in outcome or ()]


def check_protocol_log(plan: ServicePlan, report: Report) -> None:
    """Try whether the protocol log can be written, if there is one. The process should be who starts the service."""
    path = plan.settings["protocol_log"]
    if path in (None, "stderr"):
        return
    section = report.begin("The protocol log")
    section.lines.append(f"What is said on connections is written to {printable(path)}")
    try:
        try_protocol_log(path, plan.settings.place_of("protocol_log"))
    except ConfigError as error:
        section.attend(error)


def check_process(plan: ServicePlan, report: Report) -> None:
    """Look at what all listeners share."""
    section, settings = report.begin("The process"), plan.settings
    workers = settings["workers"]
    section.lines.append(f"A stop waits {plan.grace:g} seconds for messages under way")
    if workers > 1:
        section.lines.append(f"{workers} workers, each with its share of the limits")
    if settings["user"] is not None:
        group = f" and group {settings['group']}" if settings["group"] is not None else ""
        section.lines.append(f"Serves as user {settings['user']}{group}")
    section.warnings += plan.warnings
    counts = [listen.config.max_connections for listen in plan.listen]
    wanted = 0 if 0 in counts else -(-sum(counts) // workers)
    few = allow_connections(wanted)
    if few is not None:
        section.warnings.append(
            f"{wanted or 'any number of'} connections need more than {few} open files, which is all we may have here; "
            "raise ulimit -n, LimitNOFILE="
        )
    for folder in settings["python_path"]:
        if Path(folder).stat().st_mode & 0o002:
            section.warnings.append(f"{folder}: everybody on this machine may put code there, which this service runs")


def _check_listener(section: Section, plan: ServicePlan, listen: ListenPlan, reactor: Any) -> None:
    config = listen.config
    words = "Listens for LMTP on" if config.protocol == LMTP else "Listens on"
    section.lines += [f"{words} {one.describe()}, {describe_tls(listen, one.implicit_tls)}" for one in listen.listeners]
    try:
        factory = SMTPServerFactory(
            listen.backend,
            config,
            tls=listen.tls,
            extensions=listen.extensions,
            checks=listen.checks,
            reactor=reactor,
        )
    except ConfigError as error:
        section.attend(error)
    else:
        offered = " ".join(extension.keyword for extension in factory.dialect.extensions)
        section.lines.append(f"Greets as {config.hostname}, and offers {offered or 'no extension'}")
        if factory.completes("somebody"):
            whose = "" if factory.completes("") else " of a client that has authenticated"
            section.lines.append(f"A message{whose} gets Date and Message-ID if it has none")
        policy = getattr(listen.tls, "policy", None)
        section.lines += policy.describe() if policy is not None else []
    section.lines += describe_clients(listen)
    section.lines += _limits(listen)
    if listen.auth is not None and listen.auth.required:
        section.lines.append("Who has authenticated may send")
    else:
        section.lines.append("Whoever is served may send")
    routes = describe_routes(listen, plan.deliveries, in_full=True)
    section.lines += routes or [f"All mail goes to {_one_of(plan.deliveries, listen)}"]
    section.warnings += warnings_of(listen, plan.deliveries)


def _limits(listen: ListenPlan) -> list[str]:
    config = listen.config
    size = format_size(config.max_message_bytes) if config.max_message_bytes else "any size"
    recipients = config.max_recipients or "any number of"
    clients = config.max_connections or "any number of"
    return [f"A message has at most {size} and {recipients} recipients; {clients} clients are served at a time"]


def _try_to_bind(section: Section, listen: ListenPlan, listener: Listener, reactor: Any, bound: list[Seat]) -> None:
    if listener.endpoint.startswith("systemd:") and "LISTEN_FDS" not in os.environ:
        # Who calls is not systemd, and nothing has been passed.
        return
    try:
        bound += bind_all((listener,), Factory(), reactor, listen.tls, listen.config.protocol)
    except CannotListen as error:
        (section.warnings if error.passing else section.mistakes).append(str(error))
    except ConfigError as error:
        section.attend(error)


def _title(kind: str, name: str) -> str:
    return kind if name == LISTENER else f"{kind} {name}"


def _one_of(deliveries: tuple[Delivery, ...], listen: ListenPlan) -> str:
    names = [one.name for one in deliveries if one.backend is listen.backend and one.name != LISTENER]
    return names[0] if names else "the delivery below"


def _says(section: Section) -> bool:
    return bool(section.lines or section.mistakes or section.warnings)


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
