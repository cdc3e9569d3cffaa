"""
What is installed, in words: ``--help-backends``, ``--help-checks``, ``--help-auth`` and the like.

Whatever can be asked for stands there, with what it takes and where it comes
from; and so does what can't be used, with the reason.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from smtpfw.config.auth import AUTH
from smtpfw.config.backends import BACKENDS
from smtpfw.config.catalogue import Catalogue
from smtpfw.config.checks import CHECKS
from smtpfw.config.extensions import EXTENSIONS
from smtpfw.errors import ConfigError
from smtpfw.installed import Shelf
from smtpfw.plugins import KINDS, kind_of
from smtpfw.sasl.plugins import ENTRY_POINTS, available_mechanisms

__all__ = ["LISTINGS", "list_installed"]

_INDENT = "      "

_ORDER = (
    "A name is looked up among those that are built in, then among plugins of Twisted's, then among entry points of "
    "the group {group}: the first one counts. {own}"
)
_VALUES = (
    "SIZE is 512K, 10M, 1G; TIME 30s, 5m, 1h; RATE 5/s, 30/m; SECRET file:PATH, env:NAME or credential:NAME (one that "
    "systemd passes); LOGIN the same, with name:password in it. A colon in a value takes a backslash."
)
_OWN = "Your own needs no plugin: it is package.{own}, and --python-path DIR adds a folder to look in."


def list_installed(topic: str, package: ModuleType | None = None) -> str:
    """
    The list of what is installed.

    :param topic: one of :data:`LISTINGS`.
    :param package: where Twisted's plugins are looked for.
    """
    title, listing = LISTINGS[topic]
    return "\n".join([title, "", *listing(package)]) + "\n"


def _of_catalogue(catalogue: Catalogue[Any], own: str) -> Callable[[ModuleType | None], Iterator[str]]:
    def listing(package: ModuleType | None) -> Iterator[str]:
        yield from _rows(catalogue.shelf(package), _plugin)
        yield from textwrap.wrap(_VALUES, 100)
        yield ""
        yield from textwrap.wrap(_ORDER.format(group=catalogue.group, own=_OWN.format(own=own)), 100)

    return listing


def _mechanisms(package: ModuleType | None) -> Iterator[str]:
    yield from _rows(available_mechanisms(package).shelf, _mechanism)
    yield from textwrap.wrap(_ORDER.format(group=ENTRY_POINTS, own=""), 100)


def _rows(shelf: Shelf, describe: Callable[[Any], list[str]]) -> Iterator[str]:
    for name in shelf.names:
        first, hidden = shelf.claims(name)
        try:
            head, *more = describe(shelf.pick(name))
        except ConfigError as error:
            head, more = name, [str(error)]
        yield f"  {head}"
        yield from (_INDENT + line for line in more)
        if len(first) == 1:
            yield f"{_INDENT}from: {first[0].origin()}"
        for claim in hidden:
            yield f"{_INDENT}hides: {claim.origin()}"
        yield ""


def _plugin(plugin: Any) -> list[str]:
    parameters = {name: KINDS[kind_of(plugin, name)] for name in plugin.parameters or {}}
    if getattr(plugin, "next_hops", ""):
        parameters = {plugin.next_hops: "the next hops, in a table", **parameters}
    width = max(map(len, parameters), default=0)
    return [
        plugin.usage,
        *([plugin.help] if plugin.help else []),
        *(f"  {name:<{width}}  {value}" for name, value in parameters.items()),
    ]


def _mechanism(mechanism: Any) -> list[str]:
    kinds = " or an ".join(need.__name__ for need in mechanism.needs)
    clear = ["The password, or a token as good as one, crosses the line."] if mechanism.plain_text else []
    return [mechanism.name, f"For a checker that is an {kinds}.", *clear]


#: Topic -> its title, and what makes its lines.
LISTINGS: dict[str, tuple[str, Callable[[ModuleType | None], Iterator[str]]]] = {
    "backends": ("Backends, for --backend and [deliver]:", _of_catalogue(BACKENDS, "module:Name")),
    "checks": ("Checks, for --checks:", _of_catalogue(CHECKS, "module:Name")),
    "auth": ("Who may authenticate, for --auth and [auth]:", _of_catalogue(AUTH, "module:function")),
    "mechanisms": ("SASL mechanisms, for --auth-mechanisms:", _mechanisms),
    "extensions": ("Extensions, for --extensions:", _of_catalogue(EXTENSIONS, "module:Name")),
}
