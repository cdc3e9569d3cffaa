"""
Options in, a service out: what ``twistd smtpfw`` calls.

Rule: what can fail, fails while the service is made: a line for each mistake on
the terminal, status 1, no traceback and no pid file left behind. Sockets are
bound then and taken over when the service starts.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.python import usage

from smtpfw.config import ServicePlan, make_plan, read_tree
from smtpfw.config.logging import make_observer, make_protocol_log
from smtpfw.config.options import ServerOptions
from smtpfw.errors import ConfigError
from smtpfw.service.generation import Generation
from smtpfw.service.service import SMTPService

__all__ = ["Options", "makeService"]


class Options(ServerOptions):
    """The options of ``twistd smtpfw``. A mistake ends the process: one line, status 1."""

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse the command line. twistd would answer a mistake with the whole of its own help, error last."""
        try:
            super().parseOptions(options)
        except usage.UsageError as mistake:
            _give_up(str(mistake))


def makeService(options: ServerOptions) -> IService:
    """
    Make the service that the options ask for, with its sockets bound.

    :raises SystemExit: status 1, after a line on stderr for each mistake, when something in the options can't be done.
    """
    # Not above: twistd loads this module after --reactor was obeyed, but other importers may not have chosen yet.
    from twisted.internet import reactor

    try:
        plan = _plan(options, reactor)
        observer = make_observer(plan.settings, options.parent)
        transcripts = make_protocol_log(plan.settings["protocol_log"], options.parent)
        generation = Generation(plan, reactor, transcripts)
        generation.bind()
    except ConfigError as mistake:
        _give_up(str(mistake))

    def again() -> Generation:
        return Generation(_plan(options, reactor), reactor, transcripts)

    return SMTPService(generation, reactor, make_next=again, observer=observer)


def _plan(options: ServerOptions, reactor: Any) -> ServicePlan:
    tree, problems = read_tree(options)
    return make_plan(tree, reactor, problems)


def _give_up(lines: str) -> NoReturn:
    for line in lines.split("\n"):
        sys.stderr.write(f"smtpfw: {line}\n")
    raise SystemExit(1)
