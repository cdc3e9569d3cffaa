"""
Options in, a service out: what ``twistd smtpfw`` calls.

Rule: what can fail, fails while the service is made: a line for each mistake on
the terminal, status 1, no traceback and no pid file left behind. Sockets are
bound then and taken over when the service starts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from smtpfw.config import ServicePlan, make_plan, read_tree
from smtpfw.config.certificates import Stores
from smtpfw.config.logging import make_observer, make_worker_observer
from smtpfw.config.options import ServerOptions
from smtpfw.config.protocol_log import make_protocol_log, shared_protocol_log
from smtpfw.config.sockets import BoundSocket
from smtpfw.config.toml import read_octets
from smtpfw.config.tree import Values
from smtpfw.errors import ConfigError
from smtpfw.service.generation import Generation
from smtpfw.service.hangup import EarlyHangup
from smtpfw.service.launcher import Launcher
from smtpfw.service.privileges import account_of, set_umask
from smtpfw.service.service import SMTPService
from smtpfw.service.shares import share_of
from smtpfw.service.worker import Task, WorkerService
from smtpfw.service.workers import Workers

__all__ = ["Options", "makeService"]

#: Settings of the process, which belong to no configuration that comes after the first one.
_FOR_GOOD = ("user", "group", "umask", "log_format", "log_level", "protocol_log")

_log = Logger()


class Options(ServerOptions):
    """The options of ``twistd smtpfw``. A mistake ends the process: one line, status 1."""

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse the command line. twistd would answer a mistake with the whole of its own help, error last."""
        #: As they were given, for processes that shall do the same.
        self.words = list(options or ())
        try:
            super().parseOptions(options)
        except usage.UsageError as mistake:
            _give_up(str(mistake))

    def postOptions(self) -> None:
        """All options are there: with ``--check`` among them this is the end."""
        if self.check:
            # Not above: --reactor of twistd has been obeyed by now, and few need what is imported here.
            from twisted.internet import reactor

            from smtpfw.service.checking import check_service

            raise SystemExit(check_service(lambda: _plan(self, reactor, _octets(self)), reactor, self.parent))


def makeService(options: ServerOptions) -> IService:
    """
    Make the service that the options ask for, with its sockets bound.

    :raises SystemExit: status 1, after a line on stderr for each mistake, when something in the options can't be done.
    """
    # Not above: twistd loads this module after --reactor was obeyed, but other importers may not have chosen yet.
    from twisted.internet import reactor

    if options.parent is not None:
        # Another program than twistd has its own use for signals.
        EarlyHangup().listen()
    task = Task.take(os.environ)
    try:
        return _make_service(options, reactor) if task is None else _make_worker(options, reactor, task)
    except ConfigError as mistake:
        _give_up(str(mistake))


def _make_service(options: ServerOptions, reactor: Any) -> IService:
    octets = _octets(options)
    stores = Stores()
    plan = _plan(options, reactor, octets, stores)
    twistd, workers = options.parent, plan.settings["workers"]
    account = account_of(plan.settings, twistd)
    set_umask(plan.settings, twistd)
    observer = make_observer(plan.settings, twistd)
    settings = plan.settings
    transcripts = make_protocol_log(settings["protocol_log"], twistd, settings.place_of("protocol_log"))
    launcher: Launcher | None = None
    if workers > 1:
        if twistd is None or twistd.get("chroot"):
            raise plan.settings.place_of("workers").error("workers are for twistd, without its --chroot")
        words = getattr(options, "words", [])
        launcher = Launcher(reactor=reactor, words=words, twistd=twistd, observer=observer, protocol_log=transcripts)

    def make(plan: ServicePlan, octets: bytes | None) -> Generation:
        if launcher is None:
            return Generation(plan, reactor, transcripts)
        return Workers(share_of(plan, workers), reactor, workers, launcher, octets)

    folder = _folder_of_paths(twistd)

    def again(sockets: Iterable[BoundSocket]) -> Generation:
        with contextlib.ExitStack() as stack:
            if folder is not None:
                try:
                    stack.enter_context(contextlib.chdir(folder))
                except OSError as problem:
                    raise ConfigError(f"{folder}: {problem.strerror}; relative paths begin in this folder") from None
            octets = _octets(options)
            plan = _plan(options, reactor, octets, stores)
            if plan.settings["workers"] != workers:
                raise plan.settings.place_of("workers").error(f"another number than {workers} needs a restart")
            generation = make(plan, octets)
            generation.bind(sockets)
        _warn_of_changes(settings, plan.settings)
        return generation

    generation = make(plan, octets)
    generation.bind()
    return SMTPService(
        generation, reactor, make_next=again, observer=observer, account=None if launcher is not None else account
    )


def _make_worker(options: ServerOptions, reactor: Any, task: Task) -> IService:
    plan = _plan(options, reactor, task.configuration())
    set_umask(plan.settings, options.parent)
    observer = None if task.log is None else make_worker_observer(plan.settings, task.log, task.number)
    transcripts = None if task.protocol_log is None else shared_protocol_log(task.protocol_log)
    generation = Generation(share_of(plan, task.workers), reactor, transcripts)
    return WorkerService(generation, reactor, task, observer, account_of(plan.settings, options.parent))


def _folder_of_paths(twistd: Any) -> Path | None:
    """
    Where relative paths begin, when that is not the folder that the process will be in.

    twistd goes to its ``--rundir`` after the service was made. With ``--chroot`` there is no way back.
    """
    if twistd is None or twistd.get("chroot"):
        return None
    folder = Path.cwd()
    return None if (folder / twistd["rundir"]).resolve() == folder else folder


def _warn_of_changes(before: Values, after: Values) -> None:
    for name in _FOR_GOOD:
        if after[name] != before[name]:
            warning = after.place_of(name).error(f"another {name} than at the start needs a restart")
            _log.warn("{line}", line=str(warning))


def _octets(options: ServerOptions) -> bytes | None:
    return read_octets(options["config"]) if options["config"] else None


def _plan(options: ServerOptions, reactor: Any, octets: bytes | None, stores: Stores | None = None) -> ServicePlan:
    tree, problems = read_tree(options, octets)
    if stores is None:
        return make_plan(tree, reactor, problems)
    used = stores.begin()
    plan = make_plan(tree, reactor, problems, used)
    stores.keep(used)
    return plan


def _give_up(lines: str) -> NoReturn:
    for line in lines.split("\n"):
        sys.stderr.write(f"smtpfw: {line}\n")
    raise SystemExit(1)
