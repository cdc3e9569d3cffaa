"""
The plugins of one kind: ours, those that are installed, and Python names.

One way for all: a word before the first colon is looked up as
:mod:`smtpfw.installed` says; with a dot in it, or if nobody has it and there is
such a module, it is a Python module, and the next argument names something in
it. What a Python name or an entry point leads to is a plugin as well, one
without parameters: its arguments are texts, as its signature says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from twisted.logger import Logger
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from smtpfw import installed
from smtpfw.config import names
from smtpfw.config.settings import nearest
from smtpfw.errors import ConfigError
from smtpfw.installed import Claim, Shelf
from smtpfw.plugins import IMakerPlugin

__all__ = ["Catalogue", "maker_of"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")

_log = Logger()


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def make(self) -> Any: ...


P = TypeVar("P", bound=_Named)


class Catalogue(Generic[P]):
    """
    :param noun: what they are.
    :param group: their group of entry points.
    :param interface: what a plugin provides.
    :param bare: the class of a plugin; makes one of a name and what stands there.
    :param ours: those that are built in.
    :param own: how a Python name is written here.
    :param others: claims of plugins of another kind.
    :param fold: makes of a word what it is looked up as.
    """

    def __init__(
        self,
        noun: str,
        group: str,
        interface: InterfaceClass,
        bare: Callable[..., P],
        ours: Iterable[P],
        *,
        own: str = "module:Name",
        others: Callable[[ModuleType | None], Iterable[Claim]] = lambda package: (),
        fold: Callable[[str], str] = str,
    ) -> None:
        self.noun = noun
        self.group = group
        self.built_in: Mapping[str, P] = {plugin.name: plugin for plugin in ours}
        self._interface = interface
        self._bare = bare
        self._own = own
        self._others = others
        self._fold = fold

    def shelf(self, package: ModuleType | None = None) -> Shelf:
        """
        All that have a name.

        :param package: where Twisted's plugins are looked for.
        """
        ours = [installed.built_in(name, plugin) for name, plugin in self.built_in.items()]
        return Shelf(self.noun, [*ours, *self._of_twisted(package), *self._others(package), *self._of_entry_points()])

    def plugin(self, word: str) -> P | None:
        """
        The plugin of a name; None if there is none.

        :raises ConfigError: if it can't be loaded.
        """
        name = self._fold(word)
        ours = self.built_in.get(name)
        if ours is not None or "." in name:
            return ours
        found: P | None = self.shelf().pick(name)
        return found

    def find(self, prefix: str, positional: Sequence[str]) -> tuple[P, Sequence[str]]:
        """
        The plugin of a string.

        :param positional: its arguments without a name.
        :return: it, and those that are left.
        :raises ConfigError: if there is none, or it can't be loaded.
        """
        plugin = self.plugin(prefix)
        if plugin is not None:
            return plugin, positional
        if "." in prefix or (positional and names.is_module(prefix)):
            if not positional or not positional[0]:
                raise ConfigError(f"say which {self._what}: {prefix}:Name")
            return self._of_python(prefix, positional[0]), positional[1:]
        raise self.unknown(prefix)

    def without_arguments(self, text: str) -> str:
        """What may be shown of a string: its name, and both parts of a Python name; arguments may be passwords."""
        prefix, colon, rest = text.partition(":")
        name = rest.partition(":")[0]
        if not colon or not name.replace(".", "_").isidentifier() or self._fold(prefix) in self.shelf().names:
            return prefix
        return f"{prefix}:{name}" if "." in prefix or names.is_module(prefix) else prefix

    def unknown(self, word: str) -> ConfigError:
        """The error for a name that nobody has."""
        known = self.shelf().names
        return ConfigError(
            f"unknown {self.noun} {word!r}{nearest(self._fold(word), known)} (known are {', '.join(known)}; "
            f"your own is {self._own}; --python-path DIR adds a folder to look in)"
        )

    def _of_python(self, module_name: str, name: str) -> P:
        found = names.find(module_name, name)
        usage = f"{module_name}:{name}{names.signature(found)}"
        return self._bare(name.rpartition(".")[2], found, parameters=None, usage=usage)

    def _of_twisted(self, package: ModuleType | None) -> Iterator[Claim]:
        for plugin, origin in installed.twisted_plugins(self._interface, package):
            try:
                self._verify(plugin)
            except ConfigError as error:
                _log.error("the plugin {origin} is left out: {error}", origin=origin(), error=error)
            else:
                yield installed.of_twisted(self._fold(plugin.name), plugin, origin)

    def _of_entry_points(self) -> Iterator[Claim]:
        for claim in installed.entry_points(self.group, self._of_entry_point):
            yield Claim(self._fold(claim.name), claim.place, claim.load, claim.origin)

    def _of_entry_point(self, name: str, found: Any) -> Any:
        if not IMakerPlugin.providedBy(found):
            usage = f"{name}{names.signature(found)}"
            return self._bare(name, found, parameters=None, usage=usage, help=_first_line(found))
        self._verify(found)
        if found.name != name:
            raise ConfigError(f"the plugin that it leads to is called {found.name}")
        return found

    def _verify(self, plugin: Any) -> None:
        try:
            verifyObject(self._interface, plugin)
        except Invalid as error:
            raise ConfigError(names.one_line(error)) from None
        if not isinstance(plugin.name, str) or _NAME.fullmatch(plugin.name) is None:
            raise ConfigError(f"its name is {plugin.name!r}; a name has letters, digits, - and _")

    @property
    def _what(self) -> str:
        return "function" if self._own.endswith("function") else "class or function"


def maker_of(plugin: _Named) -> Any:
    """
    The class or function of a plugin, imported now if it is a name.

    :raises ConfigError: if it can't be.
    """
    if not isinstance(plugin.make, str):
        return plugin.make
    module_name, _, name = plugin.make.partition(":")
    return names.find(module_name, name)


def _first_line(found: Any) -> str:
    lines = (getattr(found, "__doc__", None) or "").strip().splitlines()
    return lines[0].strip() if lines else ""
