"""
Mechanisms that others have installed: plugins of Twisted's, or entry points.

A package ships a mechanism in one of two ways:

- a module in ``twisted/plugins`` with an object that provides ``IPlugin`` and
  :class:`~smtpfw.sasl.interfaces.ISASLServerFactory`, such as a
  :class:`~smtpfw.sasl.Mechanism`;
- an entry point of the group ``smtpfw.mechanisms``, which leads to such an object.

Rule 1: a name belongs to one mechanism, as :mod:`smtpfw.installed` says. An
operator who asks for PLAIN gets this PLAIN.

Rule 2: what can't be loaded, or is none, is logged and left out. Whether that
matters, turns out when somebody asks for it.

Nothing here imports a reactor: plugins are read before one has been chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from twisted.logger import Logger
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpfw import installed
from smtpfw.errors import ConfigError
from smtpfw.installed import Claim, Shelf
from smtpfw.sasl import STANDARD
from smtpfw.sasl.interfaces import ISASLServerFactory

__all__ = ["ENTRY_POINTS", "Mechanisms", "available_mechanisms"]

#: The group of entry points.
ENTRY_POINTS = "smtpfw.mechanisms"

_NAME = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 section 3.1

_log = Logger()


class Mechanisms(Mapping[str, ISASLServerFactory]):
    """
    Mechanisms by name. To ask for one that two offer raises a ConfigError.

    :ivar shelf: all that are there.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def __getitem__(self, name: str) -> ISASLServerFactory:
        found: ISASLServerFactory | None = self.shelf.pick(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.shelf.names)

    def __len__(self) -> int:
        return len(self.shelf.names)


def available_mechanisms(package: ModuleType | None = None) -> Mechanisms:
    """
    All mechanisms that a listener may offer, by name: our own in the order of preference, then those of others.

    :param package: where plugins of Twisted's are looked for; by default ``twisted.plugins``.
    """
    ours = [installed.built_in(mechanism.name, mechanism) for mechanism in STANDARD]
    return Mechanisms(Shelf("mechanism", [*ours, *_of_others(package)]))


def _of_others(package: ModuleType | None) -> Iterator[Claim]:
    # A plugin's module that imports one of ours to build upon shows it to twisted.plugin as well; and a package may
    # ship its own in both ways.
    seen: list[Any] = list(STANDARD)
    twisted = [
        installed.of_twisted("", plugin, origin)
        for plugin, origin in installed.twisted_plugins(ISASLServerFactory, package)
    ]
    for claim in (*twisted, *installed.entry_points(ENTRY_POINTS)):
        try:
            factory = claim.load()
        except Exception:
            _log.failure("the mechanism of {origin} can't be loaded, and is left out", origin=claim.origin())
            continue
        if any(factory is other for other in seen):
            continue
        seen.append(factory)
        try:
            name = _name_of(factory)
        except ConfigError as error:
            _log.error("the mechanism of {origin} is left out: {error}", origin=claim.origin(), error=error)
            continue
        yield Claim(name, claim.place, claim.load, claim.origin)


def _name_of(factory: Any) -> str:
    try:
        verifyObject(ISASLServerFactory, factory)
    except Invalid as error:
        raise ConfigError(f"it is none: {' '.join(str(error).split())}") from None
    name = factory.name
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"its name is {name!r}; RFC 4422 allows 20 of A-Z, 0-9, - and _")
    return name
