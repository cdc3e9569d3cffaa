"""
``--check``: the plan of a configuration on the terminal, and a status for scripts.

Rule 1: it ends before twistd sees a service: a service that runs from the same
folder has the pid file, and is none of its business.

Rule 2: folders are tried as who will serve, so behind everything else the
process becomes that one, for good.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Mapping
from typing import Any

from twisted.python.util import switchUID

from smtpfw.config import ServicePlan
from smtpfw.config.checking import Report, check_deliveries, check_listeners, check_process, check_protocol_log
from smtpfw.errors import ConfigError
from smtpfw.service.privileges import Account, account_of, set_umask

__all__ = ["check_service"]


def check_service(make_plan: Any, reactor: Any, twistd: Mapping[str, Any] | None) -> int:
    """
    Make a plan, try it, and print what is found to stdout.

    :param make_plan: called without arguments.
    :param twistd: its options; None when something else asks.
    :return: 0 if it can run, 1 if there is a mistake.
    """
    try:
        plan: ServicePlan = make_plan()
        account = account_of(plan.settings, twistd)
        set_umask(plan.settings, twistd)
    except ConfigError as error:
        mistakes = str(error).split("\n")
        _print([*mistakes, "", f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"])
        return 1
    report = Report()
    check_listeners(plan, report, reactor)
    # The service opens it before it becomes somebody else.
    check_protocol_log(plan, report)
    _become(account, twistd)
    check_deliveries(plan, report)
    check_process(plan, report)
    _print(report.lines())
    return report.status


def _become(account: Account | None, twistd: Mapping[str, Any] | None) -> None:
    """Whom twistd would serve as, by our setting or by its own options."""
    uid, gid = (account.uid, account.gid) if account is not None else (None, None)
    if twistd is not None and account is None:
        uid, gid = twistd.get("uid"), twistd.get("gid")
    if os.geteuid() == 0 and (uid or gid):
        switchUID(uid, _group_of(uid) if gid is None and uid is not None else gid)


def _group_of(uid: int) -> int:
    """The group of a user, for whom none was named; switchUID sets groups, and would not know which."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return os.getgid()


def _print(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
