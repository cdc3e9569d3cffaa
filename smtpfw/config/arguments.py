"""
Arguments of plugins: from texts of a string, or values of a table, to what a parameter of their kind takes.

Rule: an argument that a plugin does not have is an error that names the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smtpfw.config import units
from smtpfw.config.secrets import read_login, read_secret
from smtpfw.config.settings import COUNT, SIZE, SWITCH, TIME, Kind, nearest
from smtpfw.errors import ConfigError
from smtpfw.plugins import KINDS, LISTS, kind_of, parameter_of

__all__ = ["read", "read_string", "read_table"]


def _split(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())


_KINDS = {
    "text": Kind(KINDS["text"], str, example='"TEXT"'),
    "texts": Kind(KINDS["texts"], _split, example='["TEXT", "TEXT"]'),
    "networks": Kind(KINDS["networks"], _split, example='["10.0.0.0/8"]'),
    "size": SIZE,
    "duration": TIME,
    "count": COUNT,
    "rate": Kind(KINDS["rate"], units.parse_rate, example='"30/m"'),
    "yes_no": SWITCH,
    "secret": Kind(KINDS["secret"], read_secret, example='"file:PATH"'),
    "login": Kind(KINDS["login"], read_login, example='"file:PATH"'),
}


def read(kind: str, value: Any) -> Any:
    """
    Read one value.

    :param kind: one of :data:`smtpfw.plugins.KINDS`.
    :param value: a text, or a value of TOML.
    :raises ValueError: saying what is expected.
    """
    if kind in LISTS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    return _KINDS[kind].read(value)


def read_string(
    plugin: Any, positional: Sequence[str], named: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """
    The arguments of a string, as ``make`` takes them.

    :param plugin: an :class:`~smtpfw.plugins.IMakerPlugin`.
    :return: those without a name, of a plugin that has no parameters, and the others.
    :raises ConfigError: for one that it does not take.
    """
    if plugin.parameters is None:
        return tuple(positional), dict(named)
    if not plugin.parameters and (positional or named):
        raise ConfigError(f"it is written {plugin.usage}, and takes nothing behind it")
    given: dict[str, Any] = {}
    rest = list(positional)
    for name in plugin.positional:
        if kind_of(plugin, name) in LISTS and name == plugin.positional[-1] and name not in named:
            given[name] = ",".join(rest)
            rest.clear()
        elif rest:
            given[name] = rest.pop(0)
    if rest:
        raise ConfigError(
            f"{rest[0]!r} has no name before it{about_colons(plugin, positional, named)}; it is written {plugin.usage}"
        )
    for name, value in named.items():
        if name not in plugin.parameters:
            near = nearest(name, plugin.parameters)
            raise ConfigError(f"{plugin.name} takes no {name}={near} (it is written {plugin.usage})")
        if name in given:
            raise ConfigError(f"{name} is given twice, with its name and without")
        given[name] = value
    return (), _read_all(plugin, given)


def read_table(plugin: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments of a table, as ``make`` takes them.

    :raises ConfigError: as above.
    """
    if plugin.parameters is None:
        return dict(table)
    for name in table:
        if name not in plugin.parameters:
            hops = [plugin.next_hops] if getattr(plugin, "next_hops", "") else []
            known = [*hops, *plugin.parameters]
            raise ConfigError(f"it takes no {name}{nearest(name, known)} (it takes {', '.join(known) or 'none'})")
    return _read_all(plugin, table)


def about_colons(plugin: Any, positional: Sequence[str], named: Mapping[str, str]) -> str:
    """A half-sentence for who wrote an IPv6 address as it is; empty for others."""
    if all(kind_of(plugin, name) != "networks" for name in plugin.parameters or ()):
        return ""
    split = any(word == "" or word.startswith("/") for word in (*positional, *named.values()))
    return r" (an IPv6 address takes a backslash before each colon: 2001\:db8\:\:/32)" if split else ""


def _read_all(plugin: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in given.items():
        try:
            values[parameter_of(plugin, name)] = read(kind_of(plugin, name), value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    return values
