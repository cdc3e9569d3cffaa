"""
As whom a process serves, and what new files may not be.

Rule 1: twistd changes user and group itself, with all groups of the user, after
the sockets were bound, the configuration was read and the daemon is in the
background. It is only told whom to become, by what it asks an Application for.

Rule 2: nobody says it twice. An option of twistd's beside a setting of ours is
an error, as nobody could tell which of them counts.

Rule 3: with workers, they change, and the process that watches over them stays
what it was: so it can read keys and bind low ports again at SIGHUP, and remove
its files. It has no connections. With twistd's ``--uid`` all of them change.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import IProcess

from smtpfw.config.tree import Values

__all__ = ["Account", "account_of", "set_umask"]

#: Our settings, and the options of twistd's that mean the same.
_TWICE = {"user": ("uid", "gid"), "group": ("uid", "gid"), "umask": ("umask",)}


@dataclass(frozen=True, slots=True)
class Account:
    """
    A user and a group.

    :ivar uid: the number of the user.
    :ivar gid: the number of the group.
    """

    uid: int
    gid: int

    def take(self, application: Any) -> None:
        """Let twistd make the process theirs, when it starts the application."""
        process = IProcess(application)
        process.uid, process.gid = self.uid, self.gid


def account_of(settings: Values, twistd: Mapping[str, Any] | None) -> Account | None:
    """
    Whom a process shall serve as.

    :param twistd: its options; None when something else runs the service.
    :return: None for no change: none is wanted, or we are they already.
    :raises ConfigError: if there is no such user or group, or we may not become them.
    """
    user, group = settings["user"], settings["group"]
    if user is None:
        if group is not None:
            raise settings.place_of("group").error("whose? give user, too", group)
        return None
    for name in ("user", "group"):
        _once(settings, name, twistd)
    place = settings.place_of("user")
    if twistd is None:
        raise place.error("only twistd changes it; here the program does", user)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        raise place.error("there is no such user; 'getent passwd' lists them", user) from None
    account = Account(entry.pw_uid, entry.pw_gid if group is None else _group(settings))
    if os.geteuid() == 0:
        return None if account.uid == 0 else account
    if account != Account(os.geteuid(), os.getegid()):
        raise place.error("only root can become somebody else", user)
    return None


def set_umask(settings: Values, twistd: Any) -> None:
    """
    Set the mask of new files, if there is one.

    :param twistd: its options, which will set it for a daemon once more.
    :raises ConfigError: if it has one already.
    """
    mask = settings["umask"]
    if mask is None:
        return
    _once(settings, "umask", twistd)
    os.umask(mask)
    if twistd is not None:
        twistd["umask"] = mask


def _group(settings: Values) -> int:
    group = settings["group"]
    try:
        entry = grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
    except (KeyError, OverflowError, ValueError):
        raise settings.place_of("group").error("there is no such group; 'getent group' lists them", group) from None
    return entry.gr_gid


def _once(settings: Values, name: str, twistd: Mapping[str, Any] | None) -> None:
    for option in _TWICE[name]:
        if settings[name] is not None and twistd is not None and twistd.get(option) is not None:
            raise settings.place_of(name).error(f"twistd's --{option} says it already; give one of the two")
