"""
What is installed: who claims which name, and who gets it.

Rule 1: a name is looked up among what is built in, then among plugins of
Twisted's, then among entry points. The first place where somebody claims it
counts. So nobody takes over a name that is ours.

Rule 2: where two claim it in the same place, nobody has it, and who asks for it
is told of both.

Rule 3: what can't be loaded harms nobody who does not ask for it. Plugins of
Twisted's show their names only once they are loaded: a broken one is logged and
left out. A broken entry point is an error for who asks for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.logger import Logger
from twisted.plugin import getCache

from smtpfw.errors import ConfigError

__all__ = [
    "BUILT_IN",
    "ENTRY_POINT",
    "TWISTED",
    "Claim",
    "Shelf",
    "built_in",
    "entry_points",
    "of_twisted",
    "twisted_plugins",
]

#: Places, in the order in which they are looked through.
BUILT_IN, TWISTED, ENTRY_POINT = range(3)

_log = Logger()


@dataclass(frozen=True, slots=True)
class Claim:
    """
    Something that is there under a name.

    :ivar place: one of the three above.
    :ivar load: gives what it is.
    :ivar origin: says where it comes from: the package with its version, and the file or the entry point.
    """

    name: str
    place: int
    load: Callable[[], Any]
    origin: Callable[[], str]


def built_in(name: str, value: Any) -> Claim:
    """The claim of something of ours."""
    return Claim(name, BUILT_IN, lambda: value, lambda: "built in")


def of_twisted(name: str, plugin: Any, origin: Callable[[], str]) -> Claim:
    """The claim of a plugin of Twisted's."""
    return Claim(name, TWISTED, lambda: plugin, origin)


def twisted_plugins(interface: Any, package: ModuleType | None = None) -> Iterator[tuple[Any, Callable[[], str]]]:
    """
    The plugins of Twisted's that provide an interface, each once, and where they come from.

    :param package: where they are; by default ``twisted.plugins``.
    """
    if package is None:
        import twisted.plugins as package
    seen: list[Any] = []
    for dropin in getCache(package).values():
        for cached in dropin.plugins:
            try:
                plugin = interface(cached, None)
            except Exception:
                _log.failure(
                    "the plugin {name} of {module} can't be loaded", name=cached.name, module=dropin.moduleName
                )
                continue
            # A module that imports one of another's shows it to Twisted as well.
            if plugin is not None and not any(plugin is other for other in seen):
                seen.append(plugin)
                yield plugin, _origin_of_module(dropin.moduleName)


def entry_points(group: str, read: Callable[[str, Any], Any] = lambda name, value: value) -> Iterator[Claim]:
    """
    The claims of the entry points of a group.

    :param read: makes of the name and of what the entry point leads to what it is.
    """
    for point in metadata.entry_points(group=group):
        yield Claim(point.name, ENTRY_POINT, _loader(point, read), _origin_of_point(point))


def _loader(point: metadata.EntryPoint, read: Callable[[str, Any], Any]) -> Callable[[], Any]:
    return lambda: read(point.name, point.load())


class Shelf:
    """
    All claims of one kind.

    :param noun: what they are, for errors.
    """

    def __init__(self, noun: str, claims: Iterable[Claim]) -> None:
        self._noun = noun
        self._claims: dict[str, list[Claim]] = {}
        for claim in sorted(claims, key=lambda claim: claim.place):
            self._claims.setdefault(claim.name, []).append(claim)

    @property
    def names(self) -> list[str]:
        """All of them: ours first, those of others by the alphabet."""
        ours = [name for name, claims in self._claims.items() if claims[0].place == BUILT_IN]
        return [*ours, *sorted(name for name in self._claims if name not in ours)]

    def claims(self, name: str) -> tuple[list[Claim], list[Claim]]:
        """
        Who claims a name.

        :return: those of the first place, and the others, whom nobody gets to see.
        """
        claims = self._claims.get(name, [])
        first = [claim for claim in claims if claim.place == claims[0].place]
        return first, claims[len(first) :]

    def pick(self, name: str) -> Any:
        """
        What is there under a name; None if there is nothing.

        :raises ConfigError: if it can't be loaded, or there are two.
        """
        first, _ = self.claims(name)
        found = [self._load(claim) for claim in first]
        if any(other is not found[0] for other in found):
            both = " and by ".join(claim.origin() for claim in first)
            raise ConfigError(f"the {self._noun} {name} is offered by {both}; remove one of them")
        return found[0] if found else None

    def _load(self, claim: Claim) -> Any:
        try:
            return claim.load()
        except Exception as error:
            words = " ".join(str(error).split())
            if not isinstance(error, ConfigError):
                words = f"{type(error).__name__}: {words}" if words else type(error).__name__
            raise ConfigError(f"the {self._noun} {claim.name} of {claim.origin()} can't be used: {words}") from None


def _origin_of_point(point: metadata.EntryPoint) -> Callable[[], str]:
    def origin() -> str:
        package = f"{point.dist.name} {point.dist.version}, " if point.dist is not None else ""
        return f"{package}entry point {point.name} = {point.value}"

    return origin


def _origin_of_module(name: str) -> Callable[[], str]:
    def origin() -> str:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            return name
        path = Path(file).resolve()
        for distribution in metadata.distributions():
            for one in distribution.files or ():
                if one.name == path.name and Path(str(distribution.locate_file(one))).resolve() == path:
                    return f"{distribution.name} {distribution.version}, {file}"
        return str(file)

    return origin
