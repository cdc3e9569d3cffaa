"""
Mechanisms that others have installed: plugins of Twisted's, or entry points.

A package ships a mechanism in one of two ways:

- a module in ``twisted/plugins`` with an object that provides ``IPlugin`` and
  :class:`~smtpfw.sasl.interfaces.ISASLServerFactory`, such as a
  :class:`~smtpfw.sasl.Mechanism`;
- an entry point of the group ``smtpfw.sasl``, which leads to such an object.

Rule 1: a name belongs to one mechanism. Neither ours nor another's is taken
over silently: an operator who asks for PLAIN gets this PLAIN.

Rule 2: what can't be loaded is logged and left out. Whether that matters, turns
out when somebody asks for it.

Nothing here imports a reactor: plugins are read before one has been chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any

from twisted.logger import Logger
from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpfw.errors import ConfigError
from smtpfw.sasl import STANDARD
from smtpfw.sasl.interfaces import ISASLServerFactory

__all__ = ["ENTRY_POINTS", "available_mechanisms"]

#: The group of entry points.
ENTRY_POINTS = "smtpfw.sasl"

_NAME = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 section 3.1

_log = Logger()


def available_mechanisms(package: Any = None) -> Mapping[str, ISASLServerFactory]:
    """
    All mechanisms that a listener may offer, by name: our own in the order of preference, then those of others.

    :param package: where plugins of Twisted's are looked for; by default ``twisted.plugins``.
    :raises ConfigError: if one of others has a name that is taken, or none that a mechanism can have: one line that
        says where it comes from.
    """
    mechanisms: dict[str, ISASLServerFactory] = {mechanism.name: mechanism for mechanism in STANDARD}
    for origin, factory in (*_of_twisted(package), *_of_entry_points(metadata.entry_points(group=ENTRY_POINTS))):
        if any(factory is known for known in mechanisms.values()):
            # A plugin's module that imports one of ours to build upon shows it to twisted.plugin as well; and a package
            # may ship its own in both ways.
            continue
        try:
            verifyObject(ISASLServerFactory, factory)
        except Invalid as error:
            words = " ".join(str(error).split())
            raise ConfigError(f"the SASL mechanism of {origin} is none: {words}") from None
        name = factory.name
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"the SASL mechanism of {origin} has the name {name!r}; RFC 4422 allows 20 of A-Z, 0-9, - and _"
            )
        if name in mechanisms:
            raise ConfigError(
                f"the SASL mechanism of {origin} has the name {name}, which is taken; remove it, or give it another"
            )
        mechanisms[name] = factory
    return mechanisms


def _of_twisted(package: Any) -> Iterator[tuple[str, ISASLServerFactory]]:
    for plugin in getPlugins(ISASLServerFactory, package):
        yield f"the Twisted plugin {plugin!r}", plugin


def _of_entry_points(points: Iterable[metadata.EntryPoint]) -> Iterator[tuple[str, ISASLServerFactory]]:
    for point in points:
        origin = f"the entry point {point.name} = {point.value}"
        try:
            found = point.load()
        except Exception:
            _log.failure("{origin} could not be loaded; its SASL mechanism is not there", origin=origin)
        else:
            yield origin, found
