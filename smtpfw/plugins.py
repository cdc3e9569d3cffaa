"""
Plugins: a backend, a check, users or an extension that an operator asks for by a short name.

A package offers one in one of two ways:

- a module in ``twisted/plugins`` with an object of a class below in it::

    spool = BackendPlugin("spool", "acme.spool:Spool", usage="spool:PATH", parameters={"path": "text"},
                          positional=("path",), help="Keeps messages in a spool.")

- an entry point, whose name is the plugin's: of the group ``smtpfw.backends``, ``smtpfw.checks``, ``smtpfw.auth``,
  ``smtpfw.extensions``. It leads to such an object, or to a class or a function as a Python name would.

SASL mechanisms are found likewise, and are plugins by themselves: see :mod:`smtpfw.sasl.plugins`.

Nothing here imports a reactor or the package that a plugin belongs to: a plugin is read whenever somebody asks what
there is, and what it makes is imported when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface, implementer

__all__ = [
    "KINDS",
    "Argument",
    "AuthPlugin",
    "BackendPlugin",
    "CheckPlugin",
    "ExtensionPlugin",
    "IAuthPlugin",
    "IBackendPlugin",
    "ICheckPlugin",
    "IExtensionPlugin",
    "IMakerPlugin",
    "kind_of",
    "parameter_of",
]

#: The kinds of arguments, and what stands for their values in a usage.
KINDS = {
    "text": "TEXT",
    "texts": "TEXT,...",
    "networks": "NETWORK,...",
    "size": "SIZE",
    "duration": "TIME",
    "count": "N",
    "rate": "RATE",
    "yes_no": "yes|no",
    "secret": "SECRET",
    "login": "LOGIN",
}

#: Those that are lists: as the last one without a name such an argument takes all that follow.
LISTS = ("texts", "networks")


@dataclass(frozen=True, slots=True)
class Argument:
    """
    An argument that is called otherwise in Python than in a string: ``except``, say.

    :ivar kind: one of :data:`KINDS`.
    :ivar into: the name of the parameter.
    """

    kind: str
    into: str


class IMakerPlugin(Interface):
    """What all plugins have that make something from a string."""

    name: str = Attribute("What stands before the first colon: letters, digits, - and _.")
    make: Any = Attribute(
        "A class or a function that makes it, or its Python name, ``acme.spool:Spool``, which is imported when it is "
        "needed."
    )
    help: str = Attribute("What it does, in one line.")
    usage: str = Attribute("How its string is written.")
    parameters: Mapping[str, str | Argument] | None = Attribute(
        "Name of an argument -> its kind, one of ``KINDS``. ``make`` gets them by their names, read. None for one that "
        "takes texts, as its signature says."
    )
    positional: tuple[str, ...] = Attribute(
        "Those that may stand without a name, in this order. A list at the end takes all that follow, and may be empty."
    )


class IBackendPlugin(IMakerPlugin):
    """Makes an :class:`~smtpfw.interfaces.IBackend`, or is a session class."""

    next_hops: str = Attribute(
        "For one that passes mail on: the parameter that gets all arguments that are none of ``parameters``, as they "
        "are, so that nothing in an endpoint is escaped: a list of texts, which stood between commas. Empty for others."
    )


class ICheckPlugin(IMakerPlugin):
    """Makes an :class:`~smtpfw.interfaces.ICheck`."""

    timed: bool = Attribute("Whether ``make`` takes ``clock``, an ``IReactorTime``.")


class IAuthPlugin(IMakerPlugin):
    """Makes a checker, one of :mod:`smtpfw.sasl.interfaces`, or a function of name and password."""

    raw: bool = Attribute("Whether ``make`` takes all that stands behind the colon as one text.")


class IExtensionPlugin(IMakerPlugin):
    """Makes an :class:`~smtpfw.wire.dialect.Extension`. Its name is the keyword."""


def kind_of(plugin: Any, name: str) -> str:
    """The kind of an argument of a plugin."""
    found = plugin.parameters[name]
    return found.kind if isinstance(found, Argument) else found


def parameter_of(plugin: Any, name: str) -> str:
    """What its ``make`` calls it."""
    found = plugin.parameters[name]
    return found.into if isinstance(found, Argument) else name


@dataclass(frozen=True, slots=True, eq=False)
class _Plugin:
    """
    :raises ValueError: for a kind that there is not, or a positional argument that is no parameter.
    """

    name: str
    make: Any
    help: str = field(default="", kw_only=True)
    usage: str = field(default="", kw_only=True)
    parameters: Mapping[str, str | Argument] | None = field(default_factory=dict, kw_only=True)
    positional: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        parameters = self.parameters or {}
        for name in parameters:
            kind = kind_of(self, name)
            if kind not in KINDS:
                raise ValueError(f"{self.name}: {name} is of the kind {kind!r}, which is none of {', '.join(KINDS)}")
        for name in self.positional:
            if name not in parameters:
                raise ValueError(f"{self.name}: the positional {name!r} is none of its parameters")
        if not self.usage:
            object.__setattr__(self, "usage", self._usage())

    def _usage(self) -> str:
        first = "".join(f":{name.upper()}" for name in self.positional)
        others = [name for name in self.parameters or () if name not in self.positional]
        return f"{self.name}{first}" + "".join(f"[:{name}={KINDS[kind_of(self, name)]}]" for name in others)


@implementer(IPlugin, IBackendPlugin)
@dataclass(frozen=True, slots=True, eq=False)
class BackendPlugin(_Plugin):
    """A backend; see :class:`IBackendPlugin`."""

    next_hops: str = field(default="", kw_only=True)


@implementer(IPlugin, ICheckPlugin)
@dataclass(frozen=True, slots=True, eq=False)
class CheckPlugin(_Plugin):
    """A check; see :class:`ICheckPlugin`."""

    timed: bool = field(default=False, kw_only=True)


@implementer(IPlugin, IAuthPlugin)
@dataclass(frozen=True, slots=True, eq=False)
class AuthPlugin(_Plugin):
    """A way to know users; see :class:`IAuthPlugin`."""

    raw: bool = field(default=False, kw_only=True)


@implementer(IPlugin, IExtensionPlugin)
@dataclass(frozen=True, slots=True, eq=False)
class ExtensionPlugin(_Plugin):
    """An extension for the listeners that name it; see :class:`IExtensionPlugin`."""
